"""`raftload bench` after `raftload cluster up --backend local`: on which cluster it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support import command
from tests.support.ports import take_ports


def test_bench_finds_the_local_cluster_that_is_up(tmp_path: Path, etcd_binary: str) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path / "state"), "RAFTLOAD_ETCD": etcd_binary}

    def bench(*words: str, env: Mapping[str, str] = env) -> dict[str, Any]:
        words = ("bench", "--operations", "500", "--workers", "1", "--json", *words)
        done = command.run(*words, cwd=tmp_path, **env)
        assert done.returncode in (0, 3), done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        assert result["results"]["total"]["succeeded"] == 500
        assert result["books"]["writes_ok"] == result["books"]["revision_delta"]
        return result

    done = command.run("bench", "--backend", "local", "--json", cwd=tmp_path, **env)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "raftload: error: no local cluster is up: `raftload cluster up --backend local` starts one\n"
    port = str(take_ports(1))
    up = ("cluster", "up", "--backend", "local", "--nodes", "1", "--base-port", port, "--links", "direct")
    done = command.run(*up, cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    try:
        found = bench()
        assert found["target"]["kind"] == "local"
        assert found["target"]["endpoints"][0]["url"].endswith(f":{port}")
        if Path("/proc/self/schedstat").exists():
            (member,) = found["target"]["cpu_wait"]["members"]
            assert member["ran_s"] > 0
        assert bench("--backend", "embedded", "--nodes", "1")["target"]["kind"] == "embedded"
        chosen = bench("--backend", "local", env={**env, "ETCDCTL_ENDPOINTS": "127.0.0.1:1"})["target"]
        assert (chosen["kind"], chosen["endpoints"]) == ("local", found["target"]["endpoints"])
    finally:
        assert command.run("cluster", "down", "--backend", "local", cwd=tmp_path, **env).returncode == 0
