"""Elections that a test caused under load, drawn from logs and from polls, on members as processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.etcds import default_and_others
from tests.support.ports import take_ports
from tests.support.under_load import document, kill_leader_under_load


def test_the_leader_killed_under_load_is_drawn_as_it_was(
    tmp_path: Path, leftovers_after: Callable[[float], set[str]]
) -> None:
    """On the newest etcd. The logs of each are read in `test_viz_cluster.py`, after a kill without a load."""
    try:
        kill_leader_under_load(tmp_path, "local", default_and_others()[-1], take_ports(3))
    finally:
        document(tmp_path, "cluster", "down", "--backend", "local", "--json")
    assert leftovers_after(60.0) == set()
