"""A leader killed from another terminal in the middle of a run: the run's folder holds all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import record
from cluster.timeline import Timeline
from tests.support.ports import take_ports
from viz import leadership, rundata


class Terminal:
    """Calls `raftload` with a state folder of its own."""

    def __init__(self, folder: Path, etcd: str) -> None:
        self.folder = folder
        self._env = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "ETCD_BINARY": etcd}
        self._env.pop("ETCDCTL_ENDPOINTS", None)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-m", "loadgen.cli", *words], env=self._env, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip

    def run(self, *words: str) -> str:
        process = self.start(*words)
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
        return out


@pytest.fixture
def terminal(tmp_path: Path, etcd_binary: str) -> Iterator[Terminal]:
    made = Terminal(tmp_path, etcd_binary)
    made.run("cluster", "up", "--backend", "local", "--base-port", str(take_ports(3)))
    yield made
    made.run("cluster", "down")


def test_what_is_done_to_the_cluster_is_in_the_run(terminal: Terminal) -> None:
    folder = terminal.folder / "run"
    bench = terminal.start("bench", "--duration", "9s", "--concurrency", "4", "--output", str(folder), "--json")
    deadline = time.monotonic() + 60
    while not any(poll.answers for poll in record.read_polls(folder)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)  # some load before the fault
    copy = terminal.folder / "mine.csv"
    killed = json.loads(terminal.run("cluster", "kill", "leader", "--json", "--timeline", str(copy)))
    terminal.run("cluster", "heal")
    out, err = bench.communicate(timeout=90)
    result = json.loads(out)
    assert bench.returncode in (0, 3), err

    phases = [(row["phase"], row["fault"]) for row in Timeline(folder / "events.csv").read()]
    assert phases[0] == ("begin", "kill")
    assert ("effect", "kill") in phases
    assert Timeline(copy).read() == Timeline(folder / "events.csv").read()[: len(Timeline(copy).read())] != []
    assert phases[-1] == ("effect", "heal")
    target: dict[str, Any] = result["target"]
    assert target["leader_changes"] >= 1
    rows = {row["name"]: row for row in target["observed"]}
    (dead,) = killed["members"]
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
