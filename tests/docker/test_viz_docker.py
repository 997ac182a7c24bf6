"""An election that a test caused under load, drawn from the logs of containers."""

from __future__ import annotations

import pytest

from tests.docker.conftest import Docker
from tests.support.etcds import default_and_others, version_of
from tests.support.ports import take_ports
from tests.support.under_load import kill_leader_under_load

pytestmark = pytest.mark.docker
ETCDS = default_and_others()


# The etcd that all tests run, and the last of the others: logs of each are read in test_viz_cluster.py.
@pytest.mark.parametrize("etcd", sorted({ETCDS[0], ETCDS[-1]}), ids=version_of)
def test_the_leader_killed_under_load_is_drawn_as_it_was(engine: Docker, etcd: str) -> None:
    kill_leader_under_load(engine.folder, "docker", etcd, take_ports(3))
