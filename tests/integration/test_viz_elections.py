"""Elections that a test caused under load, drawn from logs and from polls, on members as processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.etcds import default_and_others, version_of
from tests.support.ports import take_ports
from tests.support.under_load import document, kill_leader_under_load

# Each is a group of its own, so that they run beside each other.
ETCDS = [
    pytest.param(etcd, marks=pytest.mark.xdist_group(f"viz-elections-{version_of(etcd)}"), id=version_of(etcd))
    for etcd in default_and_others()
]


@pytest.mark.parametrize("etcd", ETCDS)
def test_the_leader_killed_under_load_is_drawn_as_it_was(
    etcd: str, tmp_path: Path, leftovers_after: Callable[[float], set[str]]
) -> None:
    try:
        kill_leader_under_load(tmp_path, "local", etcd, take_ports(3))
    finally:
        document(tmp_path, "cluster", "down", "--backend", "local", "--json")
    assert leftovers_after(60.0) == set()
