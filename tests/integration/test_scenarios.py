"""The scenarios with operations of their own: what they do to etcd, and how it stands in the result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster.local.cluster import LocalCluster
from loadgen import schema
from loadgen.chaos.traffic import SeenStore, Shape, Traffic
from loadgen.client.etcd import EtcdClient
from loadgen.history.operation import DELIVERY, REFUSAL, TYPES
from loadgen.load.scenarios import names, types
from loadgen.load.settings import Settings
from tests.support import command

USERS, OPERATIONS = 4, 300


def bench(
    scenario: str, cluster: LocalCluster, cwd: Path, *arguments: str, workers: int = 1
) -> subprocess.CompletedProcess[str]:
    return command.run(
        "bench", "--scenario", scenario, "--json", "--workers", str(workers), "--concurrency", str(USERS),
        "--timeout", "60s", "--endpoints", ",".join(cluster.endpoints), *arguments, cwd=cwd,
    )  # fmt: skip


def results(done: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    assert done.returncode == code, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(document, schema.load("result"))
    assert document["problems"] == []
    return document


def of_types(document: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of the types that were run."""
    return {name: row for name, row in document["results"].items() if row is not None and name != "total"}


def state(cluster: LocalCluster) -> set[bytes | int]:
    """Return the keys and the leases that a cluster has. Those of other tests may expire at any time."""
    client = EtcdClient(cluster.endpoints)
    keys = {kv.key for kv in client.range(b"\0", b"\0", keys_only=True).response.kvs}
    leases = {lease.ID for lease in client.lease_list().response.leases}
    client.close()
    return keys | leases


def test_watch_delivers_every_put_to_every_user(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """In an open loop: deliveries are not due at any time, so they are no part of its schedule or its start lag."""
    before = state(etcd_single)
    done = bench(
        "watch", etcd_single, tmp_path, "--rate", "300", "--operations", str(OPERATIONS), "--allow-rate-miss",
        "--warmup", "500ms", "--threshold", "watch.operations > 0", "--threshold", "watch.success_rate == 1",
    )  # fmt: skip
    document = results(done)
    rows = of_types(document)
    assert set(rows) == {"put", "watch"}
    assert document["generator"]["scheduled"] == OPERATIONS
    assert document["generator"]["dropped"] == 0
    assert (rows["put"]["operations"], rows["put"]["failed"], rows["watch"]["failed"]) == (OPERATIONS, 0, 0)
    # Each put is delivered to the user that wrote it, and to the others that had begun by then.
    assert rows["watch"]["operations"] >= OPERATIONS
    assert rows["watch"]["latency"]["service"] is None
    # A delivery holds the commit: no event comes before its put was sent, and on the whole not before it was answered.
    assert rows["watch"]["latency"]["min_ms"] > 0
    assert rows["watch"]["latency"]["p50_ms"] > rows["put"]["latency"]["service"]["p50_ms"] / 2
    assert [each["verdict"] for each in document["thresholds"]] == ["pass", "pass"]
    assert document["run"]["mix"] == {"put": 1.0}
    assert state(etcd_single) <= before


def test_watch_in_several_workers(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """Each delivery is measured by the users of the worker that wrote: one clock for both ends."""
    rows = of_types(results(bench("watch", etcd_single, tmp_path, "--operations", str(OPERATIONS), workers=2)))
    assert rows["put"]["operations"] == OPERATIONS
    assert rows["watch"]["operations"] == OPERATIONS * USERS // 2
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


def test_kubernetes(etcd_single: LocalCluster, tmp_path: Path) -> None:
    before = state(etcd_single)
    document = results(bench("kubernetes", etcd_single, tmp_path, "--operations", str(OPERATIONS), workers=2))
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
    assert state(etcd_single) <= before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["watch", "--transport", "gateway"], "this scenario needs --transport grpc"),
        (["kubernetes", "--value-size", "8"], "this scenario needs unique values: --value-size of at least 16"),
    ],
)
def test_what_a_scenario_needs(etcd_single: LocalCluster, tmp_path: Path, arguments: list[str], line: str) -> None:
    done = bench(arguments[0], etcd_single, tmp_path, *arguments[1:])
    assert (done.returncode, done.stdout) == (2, "")
    assert line in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["kv", "--mix", "range=1"], "there are put, get and txn"),
        (["range", "--threshold", "ranges.p99_ms < 5"], "did you mean 'range'?"),
    ],
)
def test_what_cannot_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command.refusal(capsys, "bench", "--endpoints", "127.0.0.1:1", "--scenario", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


OF_CLASSES = """
from loadgen.load import keyspace, scenarios, settings
for name in scenarios.names():
    classes = scenarios.user_classes(name)
    load = keyspace.for_scenario(classes, settings.Settings())
    print(name, *sorted(scenarios.types_of(classes, load.mix) or ["unknown"]))
"""


def test_the_table_of_types_is_what_the_classes_say() -> None:
    """Those of `consistency` are its traffic's, which asks for a lease that it has been granted, and refusals."""
    done = subprocess.run(
        [sys.executable, "-c", OF_CLASSES], cwd=command.ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    said = {name: set(types) for name, *types in map(str.split, done.stdout.splitlines())}
    assert said.pop("consistency") == {"unknown"}
    assert said == {name: set(types(name, Settings().mix) or ()) for name in names() if name != "consistency"}
    traffic = Traffic(Shape(prefix=b"abcd/", seed=1), 1, SeenStore())
    drawn = {traffic.next().f for _ in range(5000)}
    assert drawn | {"lease_keepalive", "lease_revoke", REFUSAL} == set(types("consistency", ()) or ())


def test_all_types_are_known() -> None:
    """A threshold on a type that a shipped scenario has can be written before there is a result."""
    import locustfiles

    text = "".join(path.read_text() for path in Path(locustfiles.__path__[0]).glob("*.py"))
    assert all(f"def {name}(" in text or name in (DELIVERY, REFUSAL) for name, each in TYPES.items() if not each.in_mix)
