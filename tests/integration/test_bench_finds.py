"""`raftload bench` after `raftload cluster up --backend local`: on which cluster it runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.local.daemon_client import DetachedCluster
from loadgen.run import target
from tests.support import command
from tests.support.ports import take_ports


def look(*words: str, folder: Path) -> set[str]:
    """Return the names of the members whose CPU times a target tells that these options find."""
    parser = argparse.ArgumentParser()
    target.add_arguments(parser)
    with target.TargetOptions.from_arguments(parser.parse_args(words)).open(folder, print) as found:
        assert (found.kind, found.links) == ("local", "direct")
        return set(found.cpu_times()) if found.cpu_times else set()


def test_bench_finds_the_local_cluster_that_is_up(
    tmp_path: Path, etcd_binary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        # It is looked for once.
        calls: list[object] = []
        find = DetachedCluster.find
        monkeypatch.setattr(DetachedCluster, "find", lambda: [calls.append(None), find()][1])
        monkeypatch.setenv("XDG_STATE_HOME", env["XDG_STATE_HOME"])
        monkeypatch.delenv("ETCDCTL_ENDPOINTS", raising=False)
        for words, times in ((("--backend", "local"), 1), ((), 0)):
            calls.clear()
            assert look(*words, folder=tmp_path) == {"etcd-node1"}
            assert len(calls) == times
    finally:
        assert command.run("cluster", "down", "--backend", "local", cwd=tmp_path, **env).returncode == 0
