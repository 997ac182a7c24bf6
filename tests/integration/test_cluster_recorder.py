"""A leader killed from another terminal in the middle of a run: the run's folder holds all of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.observe import record
from cluster.observe.timeline import Timeline
from tests.support.ports import take_ports
from tests.support.under_load import document, raftload
from tests.support.waiting import HANG_S, until
from viz.report import leadership, rundata


@pytest.fixture
def terminal(tmp_path: Path, etcd_binary: str) -> Iterator[Path]:
    """Yield the folder of the state in which three members are remembered."""
    words = ("--backend", "local", "--base-port", str(take_ports(3)), "--etcd", etcd_binary)
    document(tmp_path, "cluster", "up", *words, "--json")
    yield tmp_path
    document(tmp_path, "cluster", "down", "--json")


def test_what_is_done_to_the_cluster_is_in_the_run(terminal: Path) -> None:
    folder, copy = terminal / "run", terminal / "mine.csv"
    words = ("--duration", "600s", "--rate", "50", "--workers", "1", "--output", str(folder), "--json")

    def polls(member: str = "") -> list[record.Poll]:
        return [poll for poll in record.read_polls(folder) if not member or poll.member == member]

    with raftload(terminal, "bench", *words) as bench:
        try:
            until(lambda: any(poll.answers and (poll.revision or 0) > 50 for poll in polls()), "some load")
            killed = document(terminal, "cluster", "kill", "leader", "--json", "--timeline", str(copy))
            (dead,) = killed["members"]
            document(terminal, "cluster", "heal", "--json")
            until(lambda: polls(dead)[-1].answers, "the member that was killed")
            ended = len(polls())
            until(lambda: len(polls()) > ended + 20, "some load after the fault")
            bench.send_signal(signal.SIGINT)
            out, err = bench.communicate(timeout=HANG_S)
        finally:
            bench.kill()
    result = json.loads(out)
    assert bench.returncode == 130, err

    phases = [(row["phase"], row["fault"]) for row in Timeline(folder / "events.csv").read()]
    assert phases[0] == ("begin", "kill")
    assert ("effect", "kill") in phases
    assert Timeline(copy).read() == Timeline(folder / "events.csv").read()[: len(Timeline(copy).read())] != []
    assert phases[-1] == ("effect", "heal")
    target: dict[str, Any] = result["target"]
    assert target["leader_changes"] >= 1
    rows = {row["name"]: row for row in target["observed"]}
    assert rows[dead]["unanswered"] > 0
    assert rows[dead]["restarts"] == 1
    assert target["wal_fsync_p99_ms"]["during"] > 0
    assert (folder / "logs" / f"{dead}.log").stat().st_size > 1000
    assert (folder / "report.html").stat().st_size < 500_000

    data = rundata.load(folder)
    assert [fault.members for fault in data.faults] == [(dead,)]
    kinds = {name: {each.kind for each in periods} for name, periods in leadership.rows(data)}
    assert "silent" in kinds[dead]
    assert "leader" in kinds[killed["leader"]]
    # The observer's CPU, to hold against a run that takes seconds of it.
    assert target["observer"]["cpu_s"] < 0.1 * result["run"]["duration_s"]
