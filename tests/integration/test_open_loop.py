"""The open loop: what is due is sent when it is due, however the server fares, or it is counted as dropped.

What is exact in it, moment by moment, is tested on simulated time (tests/unit/test_open_loop_simulated.py).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster.local.cluster import LocalCluster
from loadgen import schema
from loadgen.load import pacing
from loadgen.stats import hdr
from tests.conftest import ClusterFactory
from tests.support import command
from tests.support.relay import relay


def start(cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    return command.start("bench", "--json", "--output", str(cwd / "run"), *arguments, cwd=cwd)


def finish(process: subprocess.Popen[str], *codes: int) -> dict[str, Any]:
    out, err = process.communicate(timeout=240)
    assert process.returncode in (codes or (0,)), (process.returncode, err)
    result: dict[str, Any] = json.loads(out)
    jsonschema.validate(result, schema.load("result"))
    generator, total = result["generator"], result["results"]["total"]
    if result["run"]["loop"] == "open":
        assert generator["scheduled"] == total["operations"] + generator["dropped"], "every due operation is counted"
    return result


def on(cluster: LocalCluster) -> tuple[str, ...]:
    return "--endpoints", ",".join(cluster.endpoints)


def latencies(folder: Path, name: str) -> dict[int, int]:
    """How many operations took how many nanoseconds, over all seconds of a log."""
    found: dict[int, int] = {}
    for _, _, counts in hdr.read_log((folder / name).read_text()):
        hdr.merge(found, counts)
    return found


def assert_in_time(result: dict[str, Any], dues_s: list[float]) -> None:
    """From the first call to the last return it took as long as from the first due time to the last.

    But for what operations took themselves, counted from when each was due: that holds on a machine however busy.
    """
    span_s, most_s = dues_s[-1] - dues_s[0], result["results"]["total"]["latency"]["max_ms"] / 1e3 + 0.001
    assert span_s - most_s <= result["run"]["duration_s"] <= span_s + most_s


def assert_all_counted(result: dict[str, Any], folder: Path, count: int) -> None:
    """So many operations were sent and answered, and they are in the statistics, the histograms and the books."""
    results = result["results"]
    assert results["total"]["operations"] == results["total"]["succeeded"] == count
    assert (result["generator"]["scheduled"], result["generator"]["dropped"]) == (count, 0)
    assert result["run"]["loop"] == "open"
    books = result["books"]
    assert books["writes_ok"] <= books["revision_delta"] <= books["writes_ok"] + books["writes_info"]
    for f in ("put", "get", "txn", "total"):
        latency = results[f]["latency"]
        assert latency["service"]["p50_ms"] <= latency["p50_ms"] * 1.01
        assert latency["service"]["max_ms"] <= latency["max_ms"] + 0.001
        assert sum(latencies(folder, f"{f}.service.hlog").values()) == results[f]["succeeded"]
        assert sum(latencies(folder, f"{f}.hlog").values()) == results[f]["succeeded"]


def test_counts_are_exact(etcd_single: LocalCluster, tmp_path: Path) -> None:
    # (0+400)/2*1 + 400*1 + (400+0)/2*0.5 = 200 + 400 + 100; before that 0.5 s of the first rate above 0
    process = start(
        tmp_path, *on(etcd_single), "--stages", "1s:400,1s:400,500ms:0", "--warmup", "0.5s", "--workers", "3",
        "--concurrency", "3", "--allow-rate-miss", "--timeout", "60s",
    )  # fmt: skip
    result = finish(process)
    assert_all_counted(result, tmp_path / "run", 700)
    assert sum(result["run"]["warmup"].values()) == 200


def test_a_worker_that_waits_for_a_processor_is_late_and_not_lost(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """Locust waits 4 s for a heartbeat and then stops the test, where it was the last worker."""
    count, rate = 900, 100
    process = start(
        tmp_path, *on(etcd_single), "--rate", str(rate), "--operations", str(count), "--arrivals", "poisson",
        "--transport", "gateway", "--workers", "1", "--allow-rate-miss", "--timeout", "60s",
    )  # fmt: skip
    command.until_load(process, tmp_path / "run")
    (worker,) = command.workers(process.pid)
    os.kill(worker, signal.SIGSTOP)
    time.sleep(6)
    os.kill(worker, signal.SIGCONT)
    result = finish(process)
    assert_all_counted(result, tmp_path / "run", count)
    generator = result["generator"]
    assert generator["workers_lost"] == 0
    assert generator["start_lag_p99_ms"] > 2000 and generator["saturated"] is True
    arrivals = pacing.arrivals(pacing.constant(rate), pacing.poisson(0, 1, result["run"]["seed"]))
    assert_in_time(result, [next(arrivals) for _ in range(count)])


def test_what_is_due_while_too_many_are_open_is_dropped(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """Reads take 0.5 s, so 20 at a time are 40 a second; 100 a second are due."""
    with relay(etcd_single.endpoints[0], 0.5) as address:
        result = finish(
            start(
                tmp_path, "--endpoints", address, "--rate", "100", "--duration", "3s", "--max-in-flight", "20",
                "--mix", "get", "--workers", "1", "--key-space", "10", "--timeout", "60s",
            ),
            3,
        )  # fmt: skip
    generator = result["generator"]
    assert generator["scheduled"] == 300
    # At the most 20 in each half second of the three, and those that are open in the end.
    assert generator["dropped"] >= 300 - 20 * 7
    assert generator["in_flight_max"] == 20
    assert generator["rate_reached"] is False
    assert result["results"]["total"]["failed"] == 0
    assert result["results"]["get"]["latency"]["min_ms"] >= 500
    assert result["verdict"] == "unknown"
    assert result["verdict_reasons"][0].startswith("the target rate was not reached: ")


PACED = """
from locust import constant
from loadgen.user import EtcdUser

class Paced(EtcdUser):
    abstract = False
    wait_time = constant(0.005)
"""


def test_an_open_loop_shows_a_stall_that_a_closed_loop_hides(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """A member stands still for 1.5 s of 6 s: 300 of 1,200 requests are due then, and only 4 users wait for it."""
    cluster = make_cluster(1)
    name, stall_s = cluster.members[0].name, 1.5
    (tmp_path / "paced.py").write_text(PACED)
    slow, p99 = {}, {}
    for loop, flags in (
        ("open", ("--rate", "200", "--max-in-flight", "5000", "--allow-rate-miss")),
        ("closed", ("--concurrency", "4", "--scenario", str(tmp_path / "paced.py"))),
    ):
        folder = tmp_path / loop
        folder.mkdir()
        common = ("--mix", "get", "--duration", "6s", "--timeout", "60s", "--workers", "1")
        process = start(folder, *on(cluster), *common, *flags)
        command.until_load(process, folder / "run")
        cluster.pause(name)
        paused = time.monotonic()
        time.sleep(stall_s)
        cluster.resume(name)
        stalled_s = time.monotonic() - paused
        total = finish(process)["results"]["total"]
        assert total["failed"] == 0
        assert total["latency"]["max_ms"] > stall_s * 1e3 * 0.9, "the stall is in both"
        found = latencies(folder / "run", "total.hlog")
        # Of those that were due in its first second each waited for half a second and more.
        slow[loop] = sum(count for ns, count in found.items() if ns > (stall_s - 1) * 1e9) / total["operations"]
        p99[loop] = total["latency"]["p99_ms"]
        if loop == "open":
            assert total["operations"] == 1200
            assert slow[loop] >= 0.1
            assert stall_s * 1e3 * 0.9 < p99[loop]
        print(f"{loop}: {total['operations']} operations, {slow[loop]:.1%} slow, after {stalled_s:.2f} s")
    assert slow["closed"] < slow["open"] / 4
    assert p99["closed"] < p99["open"]


def test_a_signal_ends_it_and_nothing_is_lost(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """SIGTERM to the command alone; test_bench.py has SIGINT to its process group in a closed loop."""
    process = start(tmp_path, *on(etcd_single), "--step", "200:400:200/60s", "--workers", "2")
    command.until_load(process, tmp_path / "run")
    os.kill(process.pid, signal.SIGTERM)
    result = finish(process, 143)
    assert result["interrupted"] == "SIGTERM"
    assert 0 < result["results"]["total"]["operations"] < 600 * 60
    books = result["books"]
    assert books["writes_ok"] <= books["revision_delta"] <= books["writes_ok"] + books["writes_info"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rate", "fast"), "--rate: 'fast' is not a rate"),
        (("--rate", "0"), "--rate must be at least 0.001"),
        (("--rate", "10", "--stages", "1s:5"), "--rate and --stages exclude each other"),
        (("--stages", "1s"), "--stages: '1s' is not a stage"),
        (("--stages", "1s:5", "--duration", "5s"), "leave out --duration"),
        (("--step", "1:5:1/1s", "--operations", "5"), "leave out --operations"),
        (("--step", "1:5"), "write FROM:TO:BY/DURATION"),
        (("--rate", "10", "--max-in-flight", "0"), "--max-in-flight must be at least 1"),
    ],
)
def test_bad_schedules_are_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    done = command.refusal(capsys, "bench", "--json", "--output", str(tmp_path / "run"), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
