"""`raftload bench --cluster docker`, and bench after `cluster up`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import command


def raftload(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return command.run(*arguments, cwd=cwd, timeout_s=180, XDG_STATE_HOME=str(cwd / "state"))


def balanced(done: subprocess.CompletedProcess[str], count: int) -> dict[str, Any]:
    assert done.returncode in (0, 3), done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["results"]["total"]["succeeded"] == count
    assert result["books"]["writes_ok"] == result["books"]["revision_delta"]
    return result


@pytest.mark.docker
def test_a_cluster_made_for_the_run_is_removed_and_one_that_is_there_stays(tmp_path: Path) -> None:
    arguments = ("bench", "--cluster", "docker", "--workers", "2", "--operations", "2000", "--json")
    result = balanced(raftload(*arguments, cwd=tmp_path), 2000)
    assert result["target"]["kind"] == "docker"
    assert result["books"]["balanced"] is True
    assert raftload("cluster", "status", cwd=tmp_path).returncode == 4
    assert raftload("cluster", "up", "--nodes", "1", cwd=tmp_path).returncode == 0
    try:
        assert balanced(raftload(*arguments, cwd=tmp_path), 2000)["books"]["balanced"] is None
        assert raftload("cluster", "status", cwd=tmp_path).returncode == 0
        found = balanced(raftload("bench", "--json", cwd=tmp_path), 1000)
        assert found["target"]["kind"] == "docker"
    finally:
        assert raftload("cluster", "down", cwd=tmp_path).returncode == 0


def test_bench_finds_the_local_cluster_that_is_up(tmp_path: Path) -> None:
    up = ("cluster", "up", "--backend", "local", "--nodes", "1", "--base-port", "22379", "--links", "direct")
    done = raftload(*up, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    try:
        found = balanced(raftload("bench", "--json", cwd=tmp_path), 1000)
        assert found["target"]["kind"] == "local"
        assert found["target"]["endpoints"][0]["url"].endswith(":22379")
        own = balanced(raftload("bench", "--cluster", "embedded", "--nodes", "1", "--json", cwd=tmp_path), 1000)
        assert own["target"]["kind"] == "embedded"
    finally:
        assert raftload("cluster", "down", "--backend", "local", cwd=tmp_path).returncode == 0
