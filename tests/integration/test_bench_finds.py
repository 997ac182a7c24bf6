"""`raftload bench` after `raftload cluster up --backend local`: on which cluster it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support import command
from tests.support.ports import take_ports


def test_bench_finds_the_local_cluster_that_is_up(tmp_path: Path, etcd_binary: str) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path / "state"), "RAFTLOAD_ETCD": etcd_binary}

    def bench(*words: str) -> dict[str, Any]:
        words = ("bench", "--operations", "500", "--workers", "1", "--json", *words)
        done = command.run(*words, cwd=tmp_path, **env)
        assert done.returncode in (0, 3), done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        assert result["results"]["total"]["succeeded"] == 500
        assert result["books"]["writes_ok"] == result["books"]["revision_delta"]
        return result

    port = str(take_ports(1))
    up = ("cluster", "up", "--backend", "local", "--nodes", "1", "--base-port", port, "--links", "direct")
    done = command.run(*up, cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    try:
        found = bench()
        assert found["target"]["kind"] == "local"
        assert found["target"]["endpoints"][0]["url"].endswith(f":{port}")
        assert bench("--cluster", "embedded", "--nodes", "1")["target"]["kind"] == "embedded"
    finally:
        assert command.run("cluster", "down", "--backend", "local", cwd=tmp_path, **env).returncode == 0
