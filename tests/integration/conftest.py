"""Fixtures of more than one file of integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cluster.local.cluster import LocalCluster
    from loadgen.client.etcd import EtcdClient


@pytest.fixture
def client(etcd_cluster: LocalCluster) -> Iterator[EtcdClient]:
    """Yield a client of the three members that the tests of a file share."""
    from loadgen.client.etcd import EtcdClient

    made = EtcdClient(etcd_cluster.endpoints)
    yield made
    made.close()
