"""Steps against a real etcd: as many operations are open in each as there are users in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.local.cluster import LocalCluster
from tests.support import command
from tests.support.relay import relay

DELAY_S = 0.05


def test_users_join_step_by_step(etcd_single: LocalCluster, tmp_path: Path) -> None:
    with relay(etcd_single.endpoints[0], DELAY_S) as address:
        done = command.run(
            "bench", "--scenario", "steps", "--concurrency", "5", "--duration", "12s", "--workers", "2",
            "--mix", "get", "--key-space", "10", "--endpoints", address, "--json", "--output", "run", cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    knee, longest_s = result["knee"], result["results"]["total"]["latency"]["max_ms"] / 1e3
    assert [step["load"] for step in knee["steps"]] == [1, 2, 4, 5]
    for step in knee["steps"]:
        assert step["mean_ms"] >= DELAY_S * 1e3
        # Little's law: as many operations are under way as arrive while one takes place. Users rest between two for
        # as long as a busy worker takes to wake them, so a little less: little beside what an operation takes here. And
        # those that end in a step may have begun before it, by the longest that there was at most.
        most = step["load"] * (1 + longest_s / step["seconds"]) + 0.1
        assert 0.5 * step["load"] < step["throughput_ops_s"] * step["mean_ms"] / 1e3 <= most
    assert "<h2>Knee</h2>" in (tmp_path / "run" / "report.html").read_text()


def test_they_go_by_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--scenario", "steps", "--operations", "10", "--endpoints", "127.0.0.1:1")
    done = command.refusal(capsys, "bench", *words, "--output", str(tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr == "raftload: error: scenario steps goes by time: give --duration, not --operations\n"
    assert not (tmp_path / "run").exists()
