"""The scenarios with operations of their own: what they do to etcd, and how it stands in the result."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster.local import LocalCluster
from loadgen import schema
from loadgen.etcd import EtcdClient
from loadgen.units import DELIVERY, REFUSAL, SCENARIO_TYPES
from tests.support import command

WORKERS, USERS, OPERATIONS = 2, 4, 1200


def bench(
    scenario: str, cluster: LocalCluster, cwd: Path, *arguments: str, workers: int = WORKERS
) -> subprocess.CompletedProcess[str]:
    return command.run(
        "bench", "--scenario", scenario, "--json", "--workers", str(workers), "--concurrency", str(USERS),
        "--endpoints", ",".join(cluster.endpoints), *arguments, cwd=cwd,
    )  # fmt: skip


def results(done: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    assert done.returncode == code, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(document, schema.load("result"))
    assert document["problems"] == []
    return document


def of_types(document: dict[str, Any]) -> dict[str, Any]:
    """The rows of the types that were run."""
    return {name: row for name, row in document["results"].items() if row is not None and name != "total"}


def state(cluster: LocalCluster) -> set[bytes | int]:
    """The keys and the leases that a cluster has. Those of other tests may expire at any time."""
    client = EtcdClient(cluster.endpoints)
    keys = {kv.key for kv in client.range(b"\0", b"\0", keys_only=True).response.kvs}
    leases = {lease.ID for lease in client.lease_list().response.leases}
    client.close()
    return keys | leases


def test_watch_delivers_every_put_to_every_user(etcd_single: LocalCluster, tmp_path: Path) -> None:
    before = state(etcd_single)
    done = bench(
        "watch", etcd_single, tmp_path, "--operations", str(OPERATIONS), "--warmup", "500ms",
        "--threshold", "watch.operations > 0", "--threshold", "watch.success_rate == 1", workers=1,
    )  # fmt: skip
    document = results(done)
    rows = of_types(document)
    assert set(rows) == {"put", "watch"}
    assert (rows["put"]["operations"], rows["put"]["failed"], rows["watch"]["failed"]) == (OPERATIONS, 0, 0)
    # Nearly all users had begun when the warm-up ended.
    assert OPERATIONS * USERS * 0.6 < rows["watch"]["operations"] <= OPERATIONS * USERS
    # A delivery holds the commit: no event comes before its put was sent, and on the whole not before it was answered.
    assert rows["watch"]["latency"]["min_ms"] > 0
    assert rows["watch"]["latency"]["p50_ms"] > rows["put"]["latency"]["p50_ms"] / 2
    assert [each["verdict"] for each in document["thresholds"]] == ["pass", "pass"]
    assert document["run"]["mix"] == {"put": 1.0}
    assert state(etcd_single) <= before


def test_watch_in_several_workers(etcd_cluster: LocalCluster, tmp_path: Path) -> None:
    """Each delivery is measured by the users of the worker that wrote: one clock for both ends."""
    rows = of_types(results(bench("watch", etcd_cluster, tmp_path, "--operations", str(OPERATIONS))))
    assert rows["put"]["operations"] == OPERATIONS
    each = OPERATIONS * USERS // WORKERS
    assert each * 0.5 < rows["watch"]["operations"] <= each
    assert rows["watch"]["failed"] == 0


def test_range_reads_pages(etcd_single: LocalCluster, tmp_path: Path) -> None:
    before = state(etcd_single)
    arguments = ["--operations", str(OPERATIONS), "--key-space", "450", "--threshold", "range.failed == 0"]
    document = results(bench("range", etcd_single, tmp_path, *arguments))
    assert {name: row["operations"] for name, row in of_types(document).items()} == {"range": OPERATIONS}
    assert document["run"]["preloaded_keys"] == 450
    assert document["books"]["writes_ok"] == 0
    assert state(etcd_single) <= before


def test_lease(etcd_single: LocalCluster, tmp_path: Path) -> None:
    before = state(etcd_single)
    document = results(bench("lease", etcd_single, tmp_path, "--operations", str(OPERATIONS)))
    rows = of_types(document)
    assert set(rows) == {"lease_grant", "lease_keepalive", "lease_revoke"}
    assert sum(row["operations"] for row in rows.values()) == OPERATIONS == document["results"]["total"]["operations"]
    assert document["results"]["total"]["failed"] == 0
    assert rows["lease_keepalive"]["operations"] > 2 * rows["lease_grant"]["operations"]
    # Whether a revoked lease had keys nobody says.
    assert document["books"]["balanced"] is None
    assert state(etcd_single) <= before


def test_kubernetes(etcd_cluster: LocalCluster, tmp_path: Path) -> None:
    before = state(etcd_cluster)
    document = results(bench("kubernetes", etcd_cluster, tmp_path, "--operations", str(OPERATIONS)))
    rows = of_types(document)
    assert set(rows) == {"create", "update", "delete", "get", "list", "lease_grant", "watch"}
    assert sum(row["operations"] for name, row in rows.items() if name != "watch") == OPERATIONS
    assert document["results"]["total"]["failed"] == 0
    # Informers know the revisions: a guard holds unless another user was faster.
    for f in ("create", "update", "delete"):
        branches = rows[f]["branches"]
        assert branches["success"] + branches["failure"] == rows[f]["succeeded"]
    assert rows["update"]["branches"]["success"] > rows["update"]["branches"]["failure"]
    assert rows["watch"]["operations"] > rows["update"]["operations"]
    assert state(etcd_cluster) <= before


def test_open_loop(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """Deliveries are not due at any time: they are no part of the schedule, nor of its start lag."""
    done = bench("watch", etcd_single, tmp_path, "--rate", "300", "--operations", "300", "--allow-rate-miss", workers=1)
    document = results(done)
    assert document["generator"]["scheduled"] == 300
    assert document["results"]["put"]["operations"] + document["generator"]["dropped"] == 300
    assert document["results"]["watch"]["operations"] >= 300
    assert document["results"]["watch"]["latency"]["service"] is None


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["watch", "--transport", "gateway"], "this scenario needs --transport grpc"),
        (["kubernetes", "--value-size", "8"], "this scenario needs unique values: --value-size of at least 16"),
        (["kv", "--mix", "range=1"], "there are put, get and txn"),
        (["range", "--threshold", "ranges.p99_ms < 5"], "did you mean 'range'?"),
    ],
)
def test_what_cannot_be(etcd_single: LocalCluster, tmp_path: Path, arguments: list[str], line: str) -> None:
    done = bench(arguments[0], etcd_single, tmp_path, *arguments[1:])
    assert (done.returncode, done.stdout) == (2, "")
    assert line in done.stderr
    assert "Traceback" not in done.stderr


def test_all_types_are_known() -> None:
    """A threshold on a type that a shipped scenario has can be written before there is a result."""
    import locustfiles

    text = "".join(path.read_text() for path in Path(locustfiles.__path__[0]).glob("*.py"))
    assert all(f"def {name}(" in text or name in (DELIVERY, REFUSAL) for name in SCENARIO_TYPES)
