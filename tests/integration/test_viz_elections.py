"""Elections that a test caused under load, drawn from logs and from polls, on members as processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.binary import find_etcd
from tests.support.ports import take_ports
from tests.support.under_load import document, kill_leader_under_load

# The etcd that all tests run, and others to try.
ETCDS = [find_etcd().path, *filter(None, os.environ.get("RAFTLOAD_TEST_ETCDS", "").split(":"))]


@pytest.mark.parametrize("etcd", ETCDS)
def test_the_leader_killed_under_load_is_drawn_as_it_was(
    etcd: str, tmp_path: Path, leftovers_after: Callable[[float], set[str]]
) -> None:
    try:
        kill_leader_under_load(tmp_path, "local", etcd, take_ports(3))
    finally:
        document(tmp_path, "cluster", "down", "--json")
    assert leftovers_after(10.0) == set()
