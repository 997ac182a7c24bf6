"""Fixtures of more than one file of integration tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of a size, such as ``24k``."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(size: str) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
        return disk

    yield mount
    subprocess.run(["umount", "--lazy", disk], check=True)
