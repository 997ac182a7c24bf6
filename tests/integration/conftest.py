"""Fixtures of more than one file of integration tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cluster.local.cluster import LocalCluster
    from loadgen.client.etcd import EtcdClient
    from tests.support.http2_server import Handler, Respond, Server


@pytest.fixture
def client(etcd_cluster: LocalCluster) -> Iterator[EtcdClient]:
    """Yield a client of the three members that the tests of a file share."""
    from loadgen.client.etcd import EtcdClient

    made = EtcdClient(etcd_cluster.endpoints)
    yield made
    made.close()


@pytest.fixture
def listen() -> Iterator[Callable[[Handler], str]]:
    """Give connections to a port of loopback to a handler; return its ``host:port``."""
    from tests.support.http2_server import listening

    with contextlib.ExitStack() as stack:
        yield lambda handle: stack.enter_context(listening(handle))


@pytest.fixture
def serve(listen: Callable[[Handler], str]) -> Callable[[Respond], Server]:
    """Run a server that answers requests as a script says."""
    from tests.support.http2_server import Server

    def start(respond: Respond) -> Server:
        server = Server(respond)
        server.endpoint = listen(server)
        return server

    return start
