"""The locustfiles under Locust's own command, without an engine of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.local import LocalCluster
from loadgen.etcd import EtcdClient
from loadgen.scenarios import names

ROOT = Path(__file__).resolve().parents[2]


def locust(scenario: str, *arguments: str, cluster: LocalCluster, cwd: Path) -> dict[str, Any]:
    """Run a locustfile headless; return the rows of its statistics by name."""
    done = subprocess.run(
        [sys.executable, "-m", "locust", "-f", str(ROOT / "locustfiles" / f"{scenario}.py"), "--headless",
         "--host", cluster.members[0].endpoint, "-u", "6", "-r", "6", "--json", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    # Each of Locust's processes prints a document; the master's is one of them.
    documents = [json.loads(text) for text in done.stdout.replace("]\n[", "]\0[").split("\0")]
    return {row["name"]: row for document in documents for row in document}


@pytest.mark.parametrize("scenario", names())
def test_each_locustfile_runs_alone(etcd_single: LocalCluster, tmp_path: Path, scenario: str) -> None:
    compacted = EtcdClient(etcd_single.endpoints)
    compacted.compact(compacted.put(b"x", b"").revision)  # as on any cluster that has been in use
    compacted.close()
    rows = locust(scenario, "-t", "2s", "--key-size", "20", cluster=etcd_single, cwd=tmp_path)
    expected = {
        "kv": {"put", "get", "txn"},
        "steps": {"put", "get", "txn"},
        "watch": {"put", "watch"},
        "lease": {"lease_grant", "lease_keepalive", "lease_revoke"},
        "kubernetes": {"create", "update", "delete", "get", "list", "lease_grant", "watch"},
        "consistency": {"put", "get", "range", "delete", "txn", "lease_grant"},
    }.get(scenario, {scenario})
    rare = {"lease_revoke", "lease_keepalive", "refusal"} if scenario == "consistency" else set()
    assert set(rows) - rare == expected
    for row in rows.values():
        assert row["num_requests"] > (100 if len(expected) == 1 else 0)
        assert row["num_failures"] == 0
        assert 0 < row["min_response_time"] < 1000
        assert any(float(key) != int(float(key)) for key in row["response_times"]), "not rounded to milliseconds"


@pytest.mark.parametrize("processes", [[], ["--processes", "2"]])
def test_a_number_of_operations_is_exact_and_ends_the_run(
    etcd_single: LocalCluster, tmp_path: Path, processes: list[str]
) -> None:
    client = EtcdClient(etcd_single.endpoints)
    before, keys = client.get(b"x").revision, client.range(b"\0", b"\0", count_only=True).response.count
    locust("put", "--operations", "501", *processes, cluster=etcd_single, cwd=tmp_path)
    # 501 puts, and one range delete at the end.
    assert client.get(b"x").revision - before == 502
    assert client.range(b"\0", b"\0", count_only=True).response.count == keys
    client.close()
