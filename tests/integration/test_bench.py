"""`raftload bench` as its users run it: a process, its stdout, its exit code, its run folder, and what it leaves."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster.local import LocalCluster
from cluster.ports import free_ports
from cluster.probe import member_status
from loadgen import schema
from tests.support.command import run, start, workers


def endpoints(cluster: LocalCluster) -> str:
    return ",".join(cluster.endpoints)


def revision(cluster: LocalCluster) -> int:
    """The highest revision that a member has applied."""
    return max(member_status(member).revision for member in cluster.members)


def locust_rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "locust_stats.csv").open() as file:
        return {row["Name"]: row for row in csv.DictReader(file)}


def result_of(process: subprocess.CompletedProcess[str], codes: tuple[int, ...] = (0, 3)) -> dict[str, Any]:
    assert process.returncode in codes, process.stderr
    document: dict[str, Any] = json.loads(process.stdout)
    jsonschema.validate(document, schema.load("result"))
    return document


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def running(folder: Path) -> bool:
    """Whether a run has counted operations: its Locust CSV has rows."""
    try:
        return int(locust_rows(folder)["Aggregated"]["Request Count"]) > 0
    except (OSError, KeyError, ValueError):
        return False


def under_way(folder: Path, cluster: LocalCluster | None, *flags: str) -> subprocess.Popen[str]:
    """A run that has counted operations, in the folder ``run``; without a cluster on one of its own."""
    at = () if cluster is None else ("--endpoints", endpoints(cluster))
    process = start("bench", *flags, *at, "--output", "run", cwd=folder)
    wait_for(lambda: running(folder / "run"))
    return process


def test_the_main_job_on_a_cluster_of_its_own(tmp_path: Path, leftovers_after: Callable[[float], set[str]]) -> None:
    done = run(
        "bench", "--operations", "3000", "--concurrency", "20", "--workers", "2", "--json", cwd=tmp_path, NO_COLOR="1"
    )  # fmt: skip
    result = result_of(done)
    assert result["target"]["kind"] == "embedded"
    assert len(result["target"]["members"]) == 3
    assert result["results"]["total"]["operations"] == 3000
    p99 = result["results"]["put"]["latency"]["p99_ms"]
    assert p99 > 0 and p99 != int(p99)
    assert 0 < result["results"]["get"]["latency"]["min_ms"] < result["results"]["get"]["latency"]["max_ms"]
    assert result["books"]["balanced"] is True
    assert result["results"]["txn"]["branches"]["success"] > 0
    assert result["results"]["txn"]["branches"]["failure"] > 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "result.json").read_text()) == result
    jsonschema.validate(json.loads((folder / "run.json").read_text()), schema.load("run"))
    assert leftovers_after(5) == set()


@pytest.mark.parametrize(("count", "worker_count"), [(3, 1), (3, 4), (7, 2), (1000, 4), (20000, 2), (333, 1)])
def test_the_books_balance(etcd_cluster: LocalCluster, tmp_path: Path, count: int, worker_count: int) -> None:
    done = run(
        "bench", "--operations", str(count), "--workers", str(worker_count), "--concurrency", "20", "--json",
        "--endpoints", endpoints(etcd_cluster), "--output", "run", cwd=tmp_path,
    )  # fmt: skip
    result = result_of(done, codes=(0,))
    results, books = result["results"], result["books"]
    rows = locust_rows(tmp_path / "run")
    assert results["total"]["operations"] == count == int(rows["Aggregated"]["Request Count"])
    assert sum(int(rows[f]["Request Count"]) for f in ("put", "get", "txn")) == count
    assert all(results[f]["operations"] >= 1 for f in ("put", "get", "txn"))
    wrote = results["put"]["succeeded"] + results["txn"]["branches"]["success"]
    assert wrote == books["writes_ok"] == books["revision_delta"]


def test_a_run_removes_its_keys_and_keep_leaves_them(etcd_single: LocalCluster, tmp_path: Path) -> None:
    from loadgen.etcd import EtcdClient
    from loadgen.kv import bytes_prefix_end

    client = EtcdClient(etcd_single.endpoints)
    common = ("bench", "--operations", "300", "--workers", "1", "--endpoints", endpoints(etcd_single))
    for name, flags, expected in (("gone", [], 0), ("kept", ["--keep"], 1000)):
        assert run(*common, *flags, "--output", name, cwd=tmp_path).returncode == 0
        prefix = json.loads((tmp_path / name / "run.json").read_text())["prefix"].encode()
        assert len(prefix) == 5
        found = client.range(prefix, bytes_prefix_end(prefix), count_only=True)
        assert found.response.count == expected
        client.delete(prefix, bytes_prefix_end(prefix))
    client.close()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_the_process_group_keeps_every_result(
    etcd_cluster: LocalCluster, tmp_path: Path, name: str
) -> None:
    before = revision(etcd_cluster)
    process = under_way(
        tmp_path, etcd_cluster, "--duration", "60s", "--workers", "2", "--concurrency", "20", "--mix", "put=1,txn=1",
        "--keep", "--json",
    )  # fmt: skip
    os.killpg(process.pid, signal.Signals[name])
    out, err = process.communicate(timeout=30)
    assert process.returncode == {"SIGINT": 130, "SIGTERM": 143}[name], err
    result = json.loads(out)
    jsonschema.validate(result, schema.load("result"))
    assert result["interrupted"] == name
    delta = revision(etcd_cluster) - before
    books = result["books"]
    assert books["revision_delta"] == delta
    assert 0 < books["writes_ok"] <= delta <= books["writes_ok"] + books["writes_info"]
    rows = locust_rows(tmp_path / "run")
    assert int(rows["Aggregated"]["Request Count"]) == result["results"]["total"]["operations"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_after_the_last_word_changes_nothing(etcd_single: LocalCluster, tmp_path: Path, name: str) -> None:
    process = start(
        "bench", "--endpoints", etcd_single.endpoints[0], "--operations", "100", "--output", str(tmp_path / "run"),
        "--threshold", "total.success_rate < 0.5", cwd=tmp_path,
    )  # fmt: skip

    def at_its_end() -> bool:
        """Whether the interpreter is all that is left to end: by then both signals are ignored."""
        status = Path(f"/proc/{process.pid}/status").read_text()
        ignored = next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn"))
        return bool(int(ignored, 16) >> signal.SIGTERM - 1 & 1) or "\nState:\tZ" in status

    wait_for(at_its_end)
    os.killpg(process.pid, signal.Signals[name])
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1, err  # as the threshold has it


def test_a_killed_worker_is_named_and_the_run_ends_by_itself(etcd_cluster: LocalCluster, tmp_path: Path) -> None:
    process = under_way(tmp_path, etcd_cluster, "--duration", "4s", "--workers", "3")
    victim = workers(process.pid)[1]
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert f"pid {victim}" in out and "SIGKILL" in out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["generator"]["workers_lost"] == 1
    assert result["verdict"] == "unknown"
    assert result["books"]["balanced"] is None


def test_a_worker_that_waits_for_a_processor_is_not_lost(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """Locust waits 4 s for a heartbeat and then stops the test, where it was the last worker."""
    process = under_way(
        tmp_path, etcd_single, "--rate", "200", "--duration", "4s", "--workers", "1", "--mix", "get",
        "--allow-rate-miss", "--json",
    )  # fmt: skip
    (worker,) = workers(process.pid)
    os.kill(worker, signal.SIGSTOP)
    time.sleep(6)
    os.kill(worker, signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    generator = json.loads(out)["generator"]
    assert (generator["scheduled"], generator["dropped"], generator["workers_lost"]) == (800, 0, 0)
    assert generator["start_lag_p99_ms"] > 2000 and generator["saturated"] is True


def test_a_worker_that_stops_on_its_own_makes_the_run_unknown(etcd_single: LocalCluster, tmp_path: Path) -> None:
    process = under_way(tmp_path, etcd_single, "--duration", "4s", "--workers", "2", "--json")
    victim = workers(process.pid)[0]
    os.kill(victim, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    result = json.loads(out)
    assert any(f"(pid {victim}) stopped before the end" in each for each in result["verdict_reasons"]), result


def test_all_workers_killed_still_ends(etcd_cluster: LocalCluster, tmp_path: Path) -> None:
    process = under_way(tmp_path, etcd_cluster, "--duration", "60s", "--workers", "2")
    for worker in workers(process.pid):
        os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3, err


def test_kill_9_of_the_command_leaves_no_process(tmp_path: Path, leftovers_after: Callable[[float], set[str]]) -> None:
    process = under_way(tmp_path, None, "--duration", "60s", "--workers", "2")
    mine = workers(process.pid)
    assert len(mine) == 2
    process.kill()
    process.communicate(timeout=10)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in mine), 10)
    assert leftovers_after(10) == set()


def test_large_values_do_not_stall_and_every_byte_is_right(etcd_single: LocalCluster, tmp_path: Path) -> None:
    from loadgen.etcd import EtcdClient
    from loadgen.kv import bytes_prefix_end
    from loadgen.workload import filler

    for size, users, count in ((8192, 200, 2000), (1 << 20, 8, 60)):
        done = run(
            "bench", "--value-size", str(size), "--concurrency", str(users), "--operations", str(count), "--keep",
            "--timeout", "20s", "--key-space", "40", "--endpoints", endpoints(etcd_single), "--output", str(size),
            "--json", cwd=tmp_path,
        )  # fmt: skip
        result = result_of(done)
        assert result["results"]["total"]["succeeded"] == count
        prefix = json.loads((tmp_path / str(size) / "run.json").read_text())["prefix"].encode()
        client = EtcdClient(etcd_single.endpoints, timeout_s=30)
        expected = filler(1, size - 16)
        seen = set()
        for number in range(40):
            (found,) = client.get(prefix + b"%027d" % number).response.kvs
            assert len(found.value) == size and found.value[16:] == expected
            seen.add(found.value[:16])
        assert len(seen) == 40
        assert client.delete(prefix, bytes_prefix_end(prefix)).response.deleted == 40
        client.close()


def test_the_gateway_is_the_same_interface(etcd_single: LocalCluster, tmp_path: Path) -> None:
    done = run(
        "bench", "--transport", "gateway", "--operations", "200", "--concurrency", "4", "--json", "--output", "run",
        "--endpoints", endpoints(etcd_single), cwd=tmp_path,
    )  # fmt: skip
    result = result_of(done)
    assert result["run"]["transport"] == "gateway"
    assert result["results"]["total"]["succeeded"] == 200
    assert result["books"]["writes_ok"] == result["books"]["revision_delta"]


def test_warm_up_is_apart(etcd_single: LocalCluster, tmp_path: Path) -> None:
    done = run(
        "bench", "--warmup", "1s", "--operations", "500", "--mix", "put", "--json", "--output", "run",
        "--endpoints", endpoints(etcd_single), cwd=tmp_path,
    )  # fmt: skip
    result = result_of(done)
    warm = json.loads((tmp_path / "run" / "run.json").read_text())["warmup"]["put"]
    assert result["results"]["total"]["operations"] == 500
    assert warm > 0
    assert result["books"]["revision_delta"] == result["books"]["writes_ok"] == 500 + warm


def test_thresholds_gate(etcd_single: LocalCluster, tmp_path: Path) -> None:
    common = ("bench", "--operations", "300", "--endpoints", endpoints(etcd_single))
    passed = run(*common, "--threshold", "total.success_rate >= 1", "--output", "a", cwd=tmp_path)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    failed = run(*common, "--threshold", "total.operations > 300", "--output", "b", cwd=tmp_path)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    again = run("gate", "a", "--threshold", "put.success_rate > 1", "--junit", "j.xml", cwd=tmp_path)
    assert again.returncode == 1
    assert "<failure" in (tmp_path / "j.xml").read_text()
    (tmp_path / "a" / "result.json").unlink()
    assert run("report", "a", "--json", cwd=tmp_path).returncode == 0
    assert (tmp_path / "a" / "result.json").exists()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--operations", "0"], 2, "--operations must be at least 1"),
        (["--operations", "-4"], 2, "--operations must be at least 1"),
        (["--concurrency", "0"], 2, "--concurrency must be at least 1"),
        (["--workers", "x"], 2, "--workers: 'x' is not a whole number"),
        (["--mix", "del=1"], 2, "'del' in mix 'del=1' is not an operation type"),
        (["--key-size", "3"], 2, "--key-size must be at least 12"),
        (["--value-size", "12q"], 2, "'12q' is not a size"),
        (["--duration", "5 parsecs"], 2, "is not a duration"),
        (["--duration", "5s", "--operations", "5"], 2, "exclude each other"),
        (["--threshold", "put.p99 < 50"], 2, "p99_ms"),
        (["--threshold", "put.p99_ms ~ 50"], 2, "put.p99_ms ~ 50"),
        (["--endpoints", "host:port"], 2, "malformed endpoint"),
        (["--endpoints", ","], 2, "no endpoint is named"),
        (["--endpoints", "127.0.0.1:1", "--cluster", "embedded"], 2, "exclude each other"),
        (["--scenario", "nope"], 2, "there is no scenario 'nope'"),
        (["--frobnicate"], 2, "unrecognized arguments: --frobnicate (see 'raftload bench --help')"),
        (["--opertions", "5"], 2, "did you mean --operations?"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    done = run("bench", *arguments, cwd=tmp_path)
    assert done.returncode == code
    assert words in done.stderr
    assert done.stderr.startswith("raftload: error: ") and done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_dead_endpoints(etcd_single: LocalCluster, tmp_path: Path, silent_port: int) -> None:
    refused = run("bench", "--endpoints", f"127.0.0.1:{free_ports(1)[0]}", cwd=tmp_path)
    assert refused.returncode == 4
    assert "connection refused" in refused.stderr and "Traceback" not in refused.stderr
    silent = run("bench", "--endpoints", f"127.0.0.1:{silent_port}", cwd=tmp_path, timeout_s=20)
    assert silent.returncode == 4
    assert "no answer" in silent.stderr
    both = f"{endpoints(etcd_single)},127.0.0.1:{free_ports(1)[0]}"
    mixed = run("bench", "--endpoints", both, "--operations", "100", "--json", cwd=tmp_path)
    assert mixed.returncode in (0, 3), mixed.stderr
    assert "warning" in mixed.stderr and "connection refused" in mixed.stderr
    assert [e["reachable"] for e in result_of(mixed)["target"]["endpoints"]] == [True, False]


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
    done = run("bench", cwd=tmp_path, RAFTLOAD_ETCD=str(broken))
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert "raftload: error: " in done.stderr and "etcd" in done.stderr
    assert leftovers_after(5) == set()


def test_dry_run_touches_nothing(tmp_path: Path) -> None:
    done = run("bench", "--dry-run", "--duration", "5s", cwd=tmp_path)
    assert done.returncode == 0
    assert "embedded cluster of 3" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_every_operation_failing_exits_1(etcd_single: LocalCluster, tmp_path: Path) -> None:
    # etcd refuses requests of more than 1.5 MiB (and a little).
    done = run(
        "bench", "--scenario", "put", "--value-size", "2MiB", "--operations", "5", "--json",
        "--endpoints", endpoints(etcd_single), cwd=tmp_path,
    )  # fmt: skip
    result = result_of(done, codes=(1,))
    assert result["results"]["put"]["latency"] is None
    assert result["results"]["put"]["errors"] == {"RESOURCE_EXHAUSTED": 5}
    assert result["results"]["get"] is None


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
    (tmp_path / "mine.py").write_text(OWN_SCENARIO)
    (tmp_path / "seen").mkdir()
    done = run(
        "bench", "--scenario", "mine.py", "--duration", "2s", "--workers", "2", "--concurrency", "80", "--json",
        "--endpoints", endpoints(etcd_single), "--output", "run", cwd=tmp_path, SEEN=str(tmp_path / "seen"),
    )  # fmt: skip
    result = result_of(done)
    total = result["results"]["total"]["operations"]
    # Users that Locust kills in their pause begin no operation that nobody would see the end of.
    assert result["results"]["total"]["failed"] == 0
    assert 100 < total == int(locust_rows(tmp_path / "run")["Aggregated"]["Request Count"])
    assert total == sum(int(path.read_text()) for path in (tmp_path / "seen").iterdir() if path.read_text() != "0")
    assert result["books"]["writes_ok"] == result["books"]["revision_delta"]


SLOW_START = """
import time
from locust import events
from locust.runners import MasterRunner
from locustfiles.kv import *

@events.test_start.add_listener
def be_slow(environment, **_):
    if not isinstance(environment.runner, MasterRunner):
        time.sleep(3)
"""


def test_a_duration_counts_from_when_the_workers_are_connected(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """On a machine that is short of CPU that takes longer than a short run, which then measured nothing at all."""
    (tmp_path / "slow.py").write_text(SLOW_START)
    done = run(
        "bench", "--scenario", "slow.py", "--duration", "1s", "--warmup", "1s", "--workers", "2", "--json",
        "--endpoints", endpoints(etcd_single), cwd=tmp_path,
    )  # fmt: skip
    result = result_of(done)
    assert result["run"]["duration_s"] > 0.9, result["run"]
    assert sum(result["run"]["warmup"].values()) > 0
    assert all(worker["operations"] > 0 for worker in result["generator"]["workers"])


def test_a_broken_scenario_is_one_line(etcd_single: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_like_this")
    done = run("bench", "--scenario", "broken.py", "--endpoints", endpoints(etcd_single), cwd=tmp_path)
    assert done.returncode == 2
    assert "broken.py cannot be loaded: ModuleNotFoundError" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounting a small disk needs root"
)
def test_a_full_disk(etcd_single: LocalCluster, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", disk], check=True)
    try:
        done = run("bench", "--endpoints", endpoints(etcd_single), "--output", str(disk / "run"), cwd=tmp_path)
    finally:
        subprocess.run(["umount", disk], check=True)
    assert done.returncode == 4
    assert "No space left on device" in done.stderr and done.stderr.count("\n") == 1
