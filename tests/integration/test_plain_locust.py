"""The locustfiles under Locust's own command, without an engine of ours."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.local.cluster import LocalCluster
from loadgen.client.etcd import EtcdClient
from loadgen.load.scenarios import names
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]


def start(scenario: str, *arguments: str, cluster: LocalCluster, cwd: Path) -> subprocess.Popen[str]:
    """Start Locust with a locustfile, without its UI."""
    return subprocess.Popen(
        [sys.executable, "-m", "locust", "-f", str(ROOT / "locustfiles" / f"{scenario}.py"), "--headless",
         "--host", cluster.members[0].endpoint, "-u", "6", "-r", "6", "--json", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def rows_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the rows of its statistics by name, once it has ended."""
    with process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    # Each of Locust's processes prints a document, the master's among them. Where Python does not buffer, a document
    # and its end of line are two writes, so two documents may stand in one line.
    rows: dict[str, Any] = {}
    decoder, rest = json.JSONDecoder(), out.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        rows.update({row["name"]: row for row in document})
        rest = rest[end:].lstrip()
    return rows


@pytest.mark.parametrize("scenario", names())
def test_each_locustfile_runs_alone(etcd_single: LocalCluster, tmp_path: Path, scenario: str) -> None:
    compacted = EtcdClient(etcd_single.endpoints)
    compacted.compact(compacted.put(b"x", b"").revision)  # as on any cluster that has been in use
    compacted.close()
    # So many that each type of a mix is among them.
    operations = "300" if scenario == "steps" else "1500"
    rows = rows_of(start(scenario, "--operations", operations, "--key-size", "20", cluster=etcd_single, cwd=tmp_path))
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
        assert row["num_requests"] > 0
        assert row["num_failures"] == 0
        assert 0 < row["min_response_time"] <= row["max_response_time"]
        assert any(float(key) != int(float(key)) for key in row["response_times"]), "not rounded to milliseconds"
    if len(expected) == 1:
        assert rows[scenario]["num_requests"] == 1500


def test_without_a_number_it_runs_until_locust_is_ended(etcd_single: LocalCluster, tmp_path: Path) -> None:
    with contextlib.closing(EtcdClient(etcd_single.endpoints)) as client:
        before, keys = client.get(b"x").revision, client.range(b"\0", b"\0", count_only=True).response.count
        process = start("kv", "--key-space", "10", cluster=etcd_single, cwd=tmp_path)
        until(lambda: client.get(b"x").revision > before + 500, "the load")
        process.send_signal(signal.SIGTERM)
        assert set(rows_of(process)) == {"put", "get", "txn"}
        assert client.range(b"\0", b"\0", count_only=True).response.count == keys


@pytest.mark.parametrize("processes", [[], ["--processes", "2"]])
def test_a_number_of_operations_is_exact_and_ends_the_run(
    etcd_single: LocalCluster, tmp_path: Path, processes: list[str]
) -> None:
    client = EtcdClient(etcd_single.endpoints)
    before, keys = client.get(b"x").revision, client.range(b"\0", b"\0", count_only=True).response.count
    rows_of(start("put", "--operations", "501", *processes, cluster=etcd_single, cwd=tmp_path))
    # 501 puts, and one range delete at the end.
    assert client.get(b"x").revision - before == 502
    assert client.range(b"\0", b"\0", count_only=True).response.count == keys
    client.close()
