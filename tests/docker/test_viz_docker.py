"""An election that a test caused under load, drawn from the logs of containers."""

from __future__ import annotations

import os

import pytest

from cluster.binary import find_etcd
from tests.docker.conftest import Docker
from tests.support.ports import take_ports
from tests.support.under_load import kill_leader_under_load

pytestmark = pytest.mark.docker
ETCDS = [find_etcd().path, *filter(None, os.environ.get("RAFTLOAD_TEST_ETCDS", "").split(":"))]


@pytest.mark.parametrize("etcd", ETCDS)
def test_the_leader_killed_under_load_is_drawn_as_it_was(engine: Docker, etcd: str) -> None:
    kill_leader_under_load(engine.folder, "docker", etcd, take_ports(3))
