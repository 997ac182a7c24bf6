"""Steps against a real cluster: as many operations are open in each as there are users in it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from cluster.local import LocalCluster
from tests.support import command


def bench(folder: Path, cluster: LocalCluster, *words: str) -> subprocess.CompletedProcess[str]:
    endpoints = ",".join(cluster.endpoints)
    return command.run("bench", "--endpoints", endpoints, "--json", "--output", str(folder), *words, cwd=folder.parent)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_users_join_step_by_step(etcd_cluster: LocalCluster, tmp_path: Path, workers: str) -> None:
    words = ("--scenario", "steps", "--concurrency", "5", "--duration", "12s", "--workers", workers)
    done = bench(tmp_path / "run", etcd_cluster, *words)
    result = json.loads(done.stdout)
    knee = result["knee"]
    assert [step["load"] for step in knee["steps"]] == [1, 2, 4, 5]
    for step in knee["steps"]:
        # Little's law: as many operations are under way as arrive while one takes place. Users rest between two for
        # as long as a busy worker takes to wake them, so a little less.
        assert 0.5 * step["load"] < step["throughput_ops_s"] * step["mean_ms"] / 1e3 <= 1.1 * step["load"]
    assert "<h2>Knee</h2>" in (tmp_path / "run" / "report.html").read_text()


def test_they_go_by_time(etcd_cluster: LocalCluster, tmp_path: Path) -> None:
    done = bench(tmp_path / "run", etcd_cluster, "--scenario", "steps", "--operations", "10")
    assert done.returncode == 2
    assert done.stderr == "raftload: error: scenario steps goes by time: give --duration, not --operations\n"
    assert not (tmp_path / "run").exists()
