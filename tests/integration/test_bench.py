"""`raftload bench` as its users run it: a process, its stdout, its exit code, its run folder, and what it leaves."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster.local.cluster import LocalCluster
from cluster.observe.probe import member_status
from loadgen import schema
from loadgen.client.etcd import EtcdClient
from loadgen.client.kv import bytes_prefix_end
from loadgen.load.worker_run import MAX_USERS_PER_WORKER
from tests.support.command import (
    assert_refused,
    bench_with,
    locust_rows,
    refusal,
    run,
    signalling_at_the_end,
    start,
    until_load,
    workers,
)
from tests.support.ports import closed_port
from tests.support.processes import runs
from tests.support.waiting import HANG_S, until

ClusterFactory = Callable[..., LocalCluster]
DATA = Path(__file__).parent.parent / "data" / "report"


def endpoints(cluster: LocalCluster) -> str:
    return ",".join(cluster.endpoints)


def revision(cluster: LocalCluster) -> int:
    """Return the highest revision that a member has applied."""
    return max(member_status(member, HANG_S).revision for member in cluster.members)


def result_of(process: subprocess.CompletedProcess[str], codes: tuple[int, ...] = (0, 3)) -> dict[str, Any]:
    assert process.returncode in codes, process.stderr
    document: dict[str, Any] = json.loads(process.stdout)
    jsonschema.validate(document, schema.load("result"))
    return document


def under_way(folder: Path, cluster: LocalCluster | None, *flags: str) -> subprocess.Popen[str]:
    """Return a run that has counted operations, in the folder ``run``; without a cluster on one of its own."""
    at = () if cluster is None else ("--endpoints", endpoints(cluster))
    process = start("bench", *flags, *at, "--output", "run", cwd=folder)
    until_load(process, folder / "run")
    return process


def prefix_of(folder: Path) -> bytes:
    prefix: str = json.loads((folder / "run.json").read_text())["prefix"]
    return prefix.encode()


def until_all_write(cluster: LocalCluster, folder: Path, workers: int) -> None:
    """Until so many workers have begun: values in the cluster say which users wrote them."""
    prefix = prefix_of(folder)

    def ranks() -> set[int]:
        """The workers' places; 0 writes before the run begins, too, as no user of its own."""
        values = (int(kv.value[:8], 16) for kv in client.range(prefix, bytes_prefix_end(prefix)).response.kvs)
        return {process // MAX_USERS_PER_WORKER for process in values if process}

    with contextlib.closing(EtcdClient(cluster.endpoints)) as client:
        until(lambda: len(ranks()) == workers, "writes of all workers")


def keys_of(cluster: LocalCluster, folder: Path) -> int:
    """How many keys with its prefix a run has left in the cluster; they are removed."""
    client, prefix = EtcdClient(cluster.endpoints), prefix_of(folder)
    deleted: int = client.delete(prefix, bytes_prefix_end(prefix)).response.deleted
    client.close()
    return deleted


def assert_books_balance(result: dict[str, Any], folder: Path, count: int) -> None:
    """Exactly so many operations, at least one of each type, and as many writes as the store has revisions more."""
    results, books = result["results"], result["books"]
    rows = locust_rows(folder)
    assert results["total"]["operations"] == count == int(rows["Aggregated"]["Request Count"])
    assert sum(int(rows[f]["Request Count"]) for f in ("put", "get", "txn")) == count
    assert all(results[f]["operations"] >= 1 for f in ("put", "get", "txn"))
    wrote = results["put"]["succeeded"] + results["txn"]["branches"]["success"]
    assert wrote == books["writes_ok"] == books["revision_delta"]
    # To a cluster that is not ours others may have written as well.
    assert books["balanced"] is (True if result["target"]["kind"] == "embedded" else None)


# Runs that come to their end


def test_the_main_job_on_a_cluster_of_its_own(tmp_path: Path, leftovers_after: Callable[[float], set[str]]) -> None:
    done = run(
        "bench", "--operations", "1000", "--concurrency", "20", "--workers", "2", "--json", cwd=tmp_path, NO_COLOR="1"
    )  # fmt: skip
    result = result_of(done)
    assert result["target"]["kind"] == "embedded"
    assert len(result["target"]["members"]) == 3
    p99 = result["results"]["put"]["latency"]["p99_ms"]
    assert p99 > 0 and p99 != int(p99)
    assert 0 < result["results"]["get"]["latency"]["min_ms"] < result["results"]["get"]["latency"]["max_ms"]
    assert result["results"]["txn"]["branches"]["success"] > 0
    assert result["results"]["txn"]["branches"]["failure"] > 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert_books_balance(result, folder, 1000)
    assert json.loads((folder / "result.json").read_text()) == result
    jsonschema.validate(json.loads((folder / "run.json").read_text()), schema.load("run"))
    assert leftovers_after(60) == set()


def test_the_books_balance_with_more_workers_than_operations(etcd_single: LocalCluster, tmp_path: Path) -> None:
    done = run(
        "bench", "--operations", "3", "--workers", "4", "--concurrency", "20", "--json",
        "--endpoints", endpoints(etcd_single), "--output", "run", cwd=tmp_path,
    )  # fmt: skip
    assert_books_balance(result_of(done, codes=(0,)), tmp_path / "run", 3)


Done = tuple[dict[str, Any], Path]


@pytest.fixture(scope="module")
def written(etcd_single: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """Yield a run of 500 puts after a warm-up that leaves its keys, and its folder."""
    folder = tmp_path_factory.mktemp("written")
    done = run(
        "bench", "--warmup", "4s", "--operations", "500", "--mix", "put", "--workers", "1", "--keep", "--json",
        "--threshold", "total.success_rate >= 1", "--output", "run", "--endpoints", endpoints(etcd_single), cwd=folder,
    )  # fmt: skip
    yield result_of(done, codes=(0,)), folder / "run"
    keys_of(etcd_single, folder / "run")


def test_warm_up_is_apart(written: Done) -> None:
    result, folder = written
    warm = json.loads((folder / "run.json").read_text())["warmup"]["put"]
    assert result["results"]["total"]["operations"] == 500
    assert warm > 0
    assert result["books"]["revision_delta"] == result["books"]["writes_ok"] == 500 + warm


def test_keep_leaves_the_keys(etcd_single: LocalCluster, written: Done) -> None:
    result, folder = written
    prefix = prefix_of(folder)
    assert len(prefix) == 5
    client = EtcdClient(etcd_single.endpoints)
    kept = client.range(prefix, bytes_prefix_end(prefix), keys_only=True).response
    client.close()
    # Each put wrote one of the 1,000 keys.
    assert sum(kv.version for kv in kept.kvs) == result["books"]["writes_ok"]
    assert all(kv.key.startswith(prefix) for kv in kept.kvs)


def test_a_finished_run_is_judged_and_reported_again(written: Done, tmp_path: Path) -> None:
    result, folder = written
    assert [each["verdict"] for each in result["thresholds"]] == ["pass"]
    again = run("gate", str(folder), "--threshold", "put.success_rate > 1", "--junit", "j.xml", cwd=tmp_path)
    assert again.returncode == 1
    assert "<failure" in (tmp_path / "j.xml").read_text()
    (folder / "result.json").unlink()
    assert run("report", str(folder), "--json", cwd=tmp_path).returncode == 0
    assert (folder / "result.json").exists()


def test_the_latest_run_is_the_one_just_made_though_it_is_not_in_runs(written: Done) -> None:
    _, folder = written
    older = shutil.copytree(DATA / "precise", folder.parent / "runs" / "older")
    os.utime(older / "run.json", ns=(0, 10**9))
    judged = run("gate", "--threshold", "total.operations == 1000", cwd=folder.parent)  # as many as the older has
    assert (judged.returncode, judged.stderr) == (1, "raftload: latest is run\n")


def test_the_gateway_is_the_same_interface(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """A threshold that is broken is its exit code, and no signal at its very end changes that."""
    done = run(
        "bench", "--transport", "gateway", "--operations", "333", "--concurrency", "4", "--workers", "1", "--json",
        "--threshold", "total.operations > 333", "--output", "run", "--endpoints", endpoints(etcd_single),
        cwd=tmp_path, PYTHONPATH=signalling_at_the_end(tmp_path, "bench"),
    )  # fmt: skip
    result = result_of(done, codes=(1,))
    assert result["run"]["transport"] == "gateway"
    assert result["results"]["total"]["succeeded"] == 333
    assert_books_balance(result, tmp_path / "run", 333)
    assert [(each["verdict"], each["value"]) for each in result["thresholds"]] == [("fail", 333)]
    assert result["interrupted"] is None
    assert keys_of(etcd_single, tmp_path / "run") == 0, "a run removes its keys"


def test_large_values_do_not_stall_and_every_byte_is_right(etcd_single: LocalCluster, tmp_path: Path) -> None:
    from loadgen.load.workload import filler

    size, keys = 1 << 20, 40
    done = run(
        "bench", "--value-size", str(size), "--concurrency", "8", "--operations", "60", "--workers", "1", "--keep",
        "--timeout", "60s", "--key-space", str(keys), "--endpoints", endpoints(etcd_single), "--output", "run",
        "--json", cwd=tmp_path,
    )  # fmt: skip
    assert result_of(done)["results"]["total"]["succeeded"] == 60
    client, prefix = EtcdClient(etcd_single.endpoints, timeout_s=60), prefix_of(tmp_path / "run")
    expected, seen = filler(1, size - 16), set()
    for number in range(keys):
        (found,) = client.get(prefix + b"%027d" % number).response.kvs
        assert len(found.value) == size and found.value[16:] == expected
        seen.add(found.value[:16])
    client.close()
    assert len(seen) == keys
    assert keys_of(etcd_single, tmp_path / "run") == keys


TOO_LARGE = """
from loadgen.user import EtcdUser

class TooLarge(EtcdUser):
    abstract = False
    mix = {"put": 1.0}

    def put(self, key, value):
        return super().put(key, bytes(2 << 20))
"""


def test_every_operation_failing_exits_1(etcd_single: LocalCluster, tmp_path: Path) -> None:
    done = bench_with(
        TOO_LARGE, "--operations", "5", "--workers", "1", "--json", "--endpoints", endpoints(etcd_single), cwd=tmp_path
    )
    result = result_of(done, codes=(1,))
    assert result["results"]["put"]["latency"] is None
    assert result["results"]["put"]["errors"] == {"RequestTooLarge": 5}
    assert result["results"]["get"] is None


@pytest.mark.parametrize("size", [("--value-size", "2MiB"), ("--key-size", "1600KiB", "--key-space", "1")])
def test_a_request_that_the_server_refuses_is_refused_before_the_run(
    etcd_single: LocalCluster, tmp_path: Path, size: tuple[str, ...]
) -> None:
    before = revision(etcd_single)
    done = run(
        "bench", "--scenario", "put", *size, "--operations", "5", "--workers", "1",
        "--endpoints", endpoints(etcd_single), cwd=tmp_path,
    )  # fmt: skip
    assert_refused(done, "this etcd refuses it (its --max-request-bytes, 1.5 MiB by default)")
    assert f"error: {size[0]}: with " in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert revision(etcd_single) == before, "it wrote something"


def test_a_server_that_takes_larger_requests_gets_them(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    cluster = make_cluster(1, storage="memory", extra_args=("--max-request-bytes=4194304",))
    done = run(
        "bench", "--value-size", "2MiB", "--key-space", "2", "--operations", "6", "--workers", "1", "--json",
        "--timeout", "60s", "--endpoints", endpoints(cluster), cwd=tmp_path,
    )  # fmt: skip
    assert result_of(done)["results"]["total"]["succeeded"] == 6


# Scenarios of one's own


OWN_SCENARIO = """
import os, pathlib
from locust import events, between
from loadgen.user import EtcdUser

seen = [0, 0]

class Slow(EtcdUser):
    abstract = False
    wait_time = between(0.001, 0.002)

@events.request.add_listener
def count(request_type, name, response_time, exception, **_):
    assert request_type == "etcd" and response_time > 0 and not exception
    seen[0] += 1

@events.test_stop.add_listener
def write(environment, **_):
    pathlib.Path(os.environ["SEEN"], str(os.getpid())).write_text(str(seen[0]))
"""


def test_a_scenario_of_ones_own_with_a_request_listener(etcd_single: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "seen").mkdir()
    done = bench_with(
        OWN_SCENARIO, "--duration", "2s", "--workers", "2", "--concurrency", "80", "--json",
        "--endpoints", endpoints(etcd_single), "--output", "run", cwd=tmp_path, SEEN=str(tmp_path / "seen"),
    )  # fmt: skip
    result = result_of(done)
    total = result["results"]["total"]["operations"]
    # Users that Locust kills in their pause begin no operation that nobody would see the end of.
    assert result["results"]["total"]["failed"] == 0
    # More than one of each user: so they paused, and went on.
    assert 80 < total == int(locust_rows(tmp_path / "run")["Aggregated"]["Request Count"])
    assert total == sum(int(path.read_text()) for path in (tmp_path / "seen").iterdir() if path.read_text() != "0")
    assert result["books"]["writes_ok"] == result["books"]["revision_delta"]


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_threshold_on_what_a_scenario_of_ones_own_does_not_run(tmp_path: Path, dry_run: bool) -> None:
    """Its file tells, and it is refused before a cluster is started; a type of the file's own is no mistake."""
    scenario = OWN_SCENARIO.replace("wait_time", 'mix = {"put": 1, "mine": 1}\n    wait_time')
    words = ("--threshold", "mine.failed == 0", *(("--dry-run",) if dry_run else ()))
    done = bench_with(scenario, *words, "--threshold", "get.p99_ms < 5", "--workers", "1", cwd=tmp_path)
    assert_refused(done, "'get.p99_ms < 5': this run has no operation of type get; it runs put, mine")
    assert {path.name for path in tmp_path.iterdir()} <= {"mine.py", "__pycache__"}


SLOW_START = """
from locust import events
from locust.runners import MasterRunner
from locustfiles.kv import *

@events.test_start.add_listener
def be_slow(environment, **_):
    if not isinstance(environment.runner, MasterRunner):
        time.sleep(3)
"""


def test_a_duration_counts_from_when_the_workers_are_connected(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """On a machine that is short of CPU that takes longer than a short run, which then measured nothing at all.

    One of its two endpoints is dead: that is a warning.
    """
    done = bench_with(
        SLOW_START, "--duration", "2s", "--warmup", "500ms", "--workers", "2", "--json",
        "--endpoints", f"{endpoints(etcd_single)},{closed_port()}", cwd=tmp_path,
    )  # fmt: skip
    result = result_of(done)
    assert result["run"]["duration_s"] > 1.9, result["run"]
    assert sum(result["run"]["warmup"].values()) > 0
    assert all(worker["operations"] > 0 for worker in result["generator"]["workers"])
    assert "warning" in done.stderr and "connection refused" in done.stderr
    assert [each["reachable"] for each in result["target"]["endpoints"]] == [True, False]


# Signals and lost workers: in a group of their own, to balance the workers

LOSSES = pytest.mark.xdist_group("bench-losses")


@LOSSES
def test_a_signal_to_the_process_group_keeps_every_result(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """SIGINT in a closed loop; test_open_loop.py has SIGTERM in an open one."""
    before = revision(etcd_single)
    process = under_way(
        tmp_path, etcd_single, "--duration", "60s", "--workers", "2", "--concurrency", "20", "--mix", "put=1,txn=1",
        "--keep", "--json",
    )  # fmt: skip
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    result = json.loads(out)
    jsonschema.validate(result, schema.load("result"))
    assert result["interrupted"] == "SIGINT"
    delta = revision(etcd_single) - before
    books = result["books"]
    assert books["revision_delta"] == delta
    assert 0 < books["writes_ok"] <= delta <= books["writes_ok"] + books["writes_info"]
    rows = locust_rows(tmp_path / "run")
    assert int(rows["Aggregated"]["Request Count"]) == result["results"]["total"]["operations"]
    keys_of(etcd_single, tmp_path / "run")


@LOSSES
def test_a_second_signal_leaves_what_was_measured(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """The first one waits for the open operations of a cluster that does not answer, and then for its keys' removal."""
    cluster = make_cluster(1, storage="memory")
    process = under_way(tmp_path, cluster, "--duration", "60s", "--workers", "2", "--timeout", "10m", "--json")
    cluster.pause(cluster.members[0].name)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=3)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert time.monotonic() - began < 60, "it waited for what is open"
    result = json.loads(out)
    jsonschema.validate(result, schema.load("result"))
    assert result["interrupted"] == "SIGINT"
    assert {each["reason"] for each in result["lost_workers"]} == {"ended by a second signal"}
    assert result["results"]["total"]["succeeded"] > 0
    prefix = prefix_of(tmp_path / "run").decode()
    assert f"the run's keys, which begin with {prefix}, were not removed" in result["problems"]
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    rows = locust_rows(tmp_path / "run")
    assert int(rows["Aggregated"]["Request Count"]) == result["results"]["total"]["operations"]


@LOSSES
def test_lost_workers_are_named_and_the_others_go_on(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """One is killed, one is told to end: the third does its whole share, and the run ends by itself."""
    process = under_way(tmp_path, etcd_single, "--rate", "100", "--duration", "12s", "--workers", "3")
    stopped, killed, whole = workers(process.pid)
    # One that ends before it has begun has nothing to report.
    until_all_write(etcd_single, tmp_path / "run", 3)
    os.kill(killed, signal.SIGKILL)
    os.kill(stopped, signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert f"pid {killed}" in out and "SIGKILL" in out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["generator"]["workers_lost"] == len(result["lost_workers"]) == 1
    assert any(f"(pid {stopped}) stopped before the end" in each for each in result["verdict_reasons"]), result
    assert result["verdict"] == "unknown"
    assert result["books"]["balanced"] is None
    operations = {worker["name"]: worker["operations"] or 0 for worker in result["generator"]["workers"]}
    assert max(operations.values()) == operations[f"worker 3 (pid {whole})"] == 400, operations
    assert operations[f"worker 1 (pid {stopped})"] < 400, operations


@LOSSES
def test_all_workers_killed_still_ends(etcd_single: LocalCluster, tmp_path: Path) -> None:
    process = under_way(tmp_path, etcd_single, "--duration", "120s", "--workers", "2")
    for worker in workers(process.pid):
        os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["generator"]["workers_lost"] == 2
    assert result["results"]["total"]["operations"] > 0


@LOSSES
def test_kill_9_of_the_command_leaves_no_process(tmp_path: Path, leftovers_after: Callable[[float], set[str]]) -> None:
    process = under_way(tmp_path, None, "--duration", "120s", "--workers", "2", "--nodes", "1")
    mine = workers(process.pid)
    assert len(mine) == 2
    process.kill()
    process.communicate(timeout=120)
    until(lambda: not any(runs(pid) for pid in mine), "the workers' end")
    assert leftovers_after(60) == set()


# What cannot be


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Yield a port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--operations", "0"], "--operations must be at least 1"),
        (["--operations", "-4"], "--operations must be at least 1"),
        (["--concurrency", "0"], "--concurrency must be at least 1"),
        (["--workers", "x"], "--workers: 'x' is not a whole number"),
        (["--mix", "del=1"], "'del' in mix 'del=1' is not an operation type"),
        (["--key-size", "3"], "--key-size must be at least 12"),
        (["--value-size", "12q"], "'12q' is not a size"),
        (["--duration", "5 parsecs"], "is not a duration"),
        (["--duration", "5s", "--operations", "5"], "exclude each other"),
        (["--threshold", "put.p99 < 50"], "p99_ms"),
        (["--threshold", "put.p99_ms ~ 50"], "put.p99_ms ~ 50"),
        (["--threshold", "watch.p99_ms < 50"], "error: 'watch.p99_ms < 50': this run has no operation of type watch"),
        (["--threshold", "txn.failed == 0", "--mix", "put,get", "--dry-run"], "it runs put, get"),
        (["--threshold", "put.failed == 0", "--scenario", "range"], "it runs range"),
        (["--value-size", "2MiB", "--dry-run"], "larger --max-request-bytes"),
        (["--key-size", "2MiB", "--scenario", "get"], "larger --max-request-bytes"),
        (["--cacert", "/dev/null", "--endpoints", "127.0.0.1:1"], "--cacert /dev/null: not certificates in PEM"),
        (["--endpoints", "host:port"], "malformed endpoint"),
        (["--endpoints", ","], "no endpoint is named"),
        (["--endpoints", "127.0.0.1:1", "--backend", "embedded"], "exclude each other"),
        (["--scenario", "nope"], "there is no scenario 'nope'"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate (see 'raftload bench --help')"),
        (["--opertions", "5"], "did you mean --operations?"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(refusal(capsys, "bench", *arguments), words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--operations", "0"], ["--frobnicate"]])
def test_bad_input_to_a_process_is_the_same(tmp_path: Path, arguments: list[str]) -> None:
    assert_refused(run("bench", *arguments, cwd=tmp_path), arguments[0])
    assert list(tmp_path.iterdir()) == []


def test_dead_endpoints(tmp_path: Path, silent_port: int) -> None:
    """How each of them is dead; one that lives is enough, as in the test of durations."""
    both = f"{closed_port()},127.0.0.1:{silent_port}"
    done = run("bench", "--endpoints", both, "--workers", "1", cwd=tmp_path)
    assert done.returncode == 4
    assert "connection refused" in done.stderr and "no answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_output_folders_that_cannot_be(etcd_single: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    common = ("bench", "--endpoints", endpoints(etcd_single))
    taken = run(*common, "--output", "full", cwd=tmp_path)
    assert taken.returncode == 2 and "exists and is not empty" in taken.stderr
    blocked = run(*common, "--output", "full/file/run", cwd=tmp_path)
    assert blocked.returncode == 4 and "cannot make the run folder" in blocked.stderr


def test_an_etcd_that_does_not_start(tmp_path: Path, leftovers_after: Callable[[float], set[str]]) -> None:
    broken = tmp_path / "etcd"
    broken.write_text("#!/bin/sh\necho this is no etcd\nexit 1\n")
    broken.chmod(0o755)
    done = run("bench", "--workers", "1", cwd=tmp_path, RAFTLOAD_ETCD=str(broken))
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert "raftload: error: " in done.stderr and "etcd" in done.stderr
    assert leftovers_after(60) == set()


def test_dry_run_touches_nothing(tmp_path: Path) -> None:
    done = run("bench", "--dry-run", "--duration", "5s", cwd=tmp_path)
    assert done.returncode == 0
    assert "embedded cluster of 3" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_broken_scenario_is_one_line(etcd_single: LocalCluster, tmp_path: Path) -> None:
    done = bench_with("import nothing_like_this", "--workers", "1", "--endpoints", endpoints(etcd_single), cwd=tmp_path)
    assert done.returncode == 2
    assert "mine.py cannot be loaded: ModuleNotFoundError" in done.stderr and "Traceback" not in done.stderr


@LOSSES
def test_members_that_end_during_the_run_are_named(tmp_path: Path) -> None:
    """As on a full disk, of which etcd dies."""
    with tempfile.TemporaryDirectory() as folder:
        process = start("bench", "--duration", "5s", "--workers", "1", "--output", "run", cwd=tmp_path, TMPDIR=folder)
        until_load(process, tmp_path / "run")
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                program, _, words = path.read_bytes().partition(b"\0")
                if program.endswith(b"etcd") and os.fsencode(folder) in words:
                    os.kill(int(path.parent.name), signal.SIGKILL)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert "etcd-node1, etcd-node2, etcd-node3 ended during the run; the reason is in run/logs" in " ".join(out.split())


def test_a_full_disk(etcd_single: LocalCluster, tmp_path: Path, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("24k")
    done = run(
        "bench", "--endpoints", endpoints(etcd_single), "--workers", "1", "--operations", "100",
        "--output", str(disk / "run"), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 4
    *said, last = done.stderr.splitlines()
    assert list(disk.iterdir()) == [disk / "run"] * bool(said)
    assert said in ([], [f"raftload: run folder {disk / 'run'}"])
    assert last.startswith(f"raftload: error: cannot write into {disk / 'run'}") and last.endswith(
        "No space left on device"
    )
    # What there is room for differs from kernel to kernel: the load has begun, or it has not.
    assert bool(said) == bool(re.search(r"^total +100 +0 ", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("command", ["bench", "bench --history", "chaos --faults pause-leader --rounds 1"])
@pytest.mark.parametrize("room", [0, *range(2, 8)])
def test_a_disk_that_is_full_before_the_load(
    tmp_path: Path, small_disk: Callable[[str], Path], command: str, room: int
) -> None:
    """It has no room for content, or for so many files and folders. The line is all that there is to say."""
    disk = small_disk(f"16m,nr_inodes={room}" if room else "16k,nr_inodes=100")
    if not room:
        with contextlib.suppress(OSError):
            (disk / "other").write_bytes(bytes(16384))
    done = run(*command.split(), "--nodes", "1", "--operations", "50", "--workers", "1", "--output", str(disk / "run"),
               cwd=tmp_path)  # fmt: skip
    assert (done.returncode, done.stdout) == (4, "")
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(rf"raftload: error: cannot (make|write) .*{disk}/run\S*: No space left on device", last)
    assert done.stderr.count("error: ") == 1
    assert [path.name for path in disk.iterdir() if path.name != "other"] == []


@pytest.mark.parametrize("as_json", [False, True])
def test_a_disk_that_is_full_at_the_end(
    etcd_single: LocalCluster, tmp_path: Path, small_disk: Callable[[str], Path], as_json: bool
) -> None:
    """The result is printed; what is on the disk by then stays."""
    disk = small_disk("2m")
    words = ("bench", "--endpoints", endpoints(etcd_single), "--workers", "1", "--operations", "3000", "--rate", "500")
    more = ("--threshold", "total.operations == 3000", "--timeout", "60s", *(("--json",) if as_json else ()))
    process = start(*words, *more, "--output", str(disk / "run"), cwd=tmp_path)
    until_load(process, disk / "run")
    with contextlib.suppress(OSError), (disk / "other").open("wb", buffering=0) as other:
        while True:
            other.write(bytes(4096))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    lines = [line for line in err.splitlines() if "run folder " + str(disk) not in line]
    assert lines == [f"raftload: error: cannot write into {disk / 'run'}: No space left on device"]
    if not as_json:
        assert re.search(r"^total +3,000 +0 ", out, re.MULTILINE) and "the run folder is not complete" in out
        return
    result = json.loads(out)
    jsonschema.validate(result, schema.load("result"))
    assert (result["results"]["total"]["operations"], result["results"]["total"]["failed"]) == (3000, 0)
    assert result["results"]["put"]["latency"]["p99_ms"] > 0
    assert [each["verdict"] for each in result["thresholds"]] == ["pass"]
    assert any("the run folder is not complete" in each for each in result["problems"])
    assert json.loads((disk / "run" / "run.json").read_text())["ended_at"] is None
