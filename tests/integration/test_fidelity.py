"""Reported latencies and delays against what others wrote down: the server, and each operation's own times."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cluster.local.cluster import LocalCluster
from loadgen.run import saturation
from tests.support import command
from tests.support.command import workers
from tests.support.processes import children, runs
from tests.support.truth import Served, TruthServer, truth_server
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
MS = 1_000_000
# Histogram buckets are at most 0.8 % wide, and what is reported is rounded to microseconds.
BUCKET, ROUNDED_MS = 0.01, 0.001

# Writes down the times of every measured operation, and how late a greenlet came at the most that slept for 5 ms,
# time and again, in the same event loop.
WRITES_DOWN = """
import json
from pathlib import Path
from time import perf_counter_ns

import gevent
from locust import events
from locustfiles.kv import KeyValueUser as _KeyValueUser

rows, late = [], [0]

def keep(operation, measured):
    if measured:
        rows.append((operation.due_ns, operation.call_ns, operation.return_ns, operation.process))

def probe():
    while True:
        due = perf_counter_ns() + 5_000_000
        gevent.sleep(0.005)
        late[0] = max(late[0], perf_counter_ns() - due)

@events.report_to_master.add_listener
def write(**_):
    Path("raw.json").write_text(json.dumps({"rows": rows, "late_ns": late[0]}))

class WritingDownUser(_KeyValueUser):
    def on_start(self):
        super().on_start()
        if not self.load.sinks:
            self.load.sinks.append(keep)
            gevent.spawn(probe)
"""


def bench(cwd: Path, endpoint: str, *options: str) -> subprocess.Popen[str]:
    """Start a run of reads with one worker that writes down what it does."""
    (cwd / "down.py").write_text(WRITES_DOWN)
    return command.start(
        "bench", "--scenario", "down.py", "--mix", "get", "--read-consistency", "serializable", "--workers", "1",
        "--endpoints", endpoint, "--output", "run", "--json", *options, cwd=cwd,
    )  # fmt: skip


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of sorted values."""
    return values[math.ceil(share * len(values) - 1e-6) - 1]


def from_server(server: TruthServer, result: dict[str, Any]) -> list[Served]:
    """Return what the server wrote down of a run that succeeded as a whole."""
    held = server.of_run(result["run"]["prefix"])
    reported = result["results"]["get"]
    assert len(held) == reported["operations"] == reported["succeeded"]
    assert all(each.answered >= each.due >= each.began >= each.read for each in held)
    return held


def hold_against_the_server(folder: Path, latency: str, users: int, seconds: float) -> None:
    """Run against a server that writes down how long it kept each request, and compare: true on any machine.

    The client saw each request for longer than the server, so each of its percentiles is above the server's. And each
    of U users had one request open at a time: within a time T their latencies add up to U x T at the most, whatever the
    machine did meanwhile. What lies between is what the users themselves took between two requests.
    """
    with truth_server(latency=latency) as server:
        process = bench(folder, server.endpoint, "--concurrency", str(users), "--duration", f"{seconds}s",
                        "--timeout", "60s", "--key-space", "10", "--keep")  # fmt: skip
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    result = json.loads(out)
    reported, held = result["results"]["get"], from_server(server, result)
    raw = json.loads((folder / "raw.json").read_text())["rows"]
    assert len(held) == len(raw) > users

    theirs = sorted(each.took for each in held)
    client = sorted(returned - called for _, called, returned, _ in raw)
    assert all(ours >= server_ns for ours, server_ns in zip(client, theirs, strict=True))
    first, last = min(each.read for each in held), max(each.answered for each in held)
    longest_ns = reported["latency"]["max_ms"] * MS
    ended: dict[int, int] = {}
    for _, called, returned, user in sorted(raw, key=lambda row: row[1]):
        assert called >= ended.get(user, 0), "a user had one request open at a time, so its latencies do not overlap"
        ended[user] = returned
    # At each end of T a request may have been on its way that the server did not have.
    most_ns = users * (last - first + 2 * longest_ns)
    assert reported["latency"]["mean_ms"] * MS * len(raw) <= most_ns * (1 + BUCKET)

    for field, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p99_9_ms", 0.999)):
        off = abs(reported["latency"][field] - percentile(client, share) / MS)
        assert off <= BUCKET * percentile(client, share) / MS + ROUNDED_MS, (field, reported["latency"])
    assert reported["latency"]["max_ms"] == pytest.approx(client[-1] / MS, abs=2 * ROUNDED_MS)
    assert reported["latency"]["min_ms"] == pytest.approx(client[0] / MS, abs=2 * ROUNDED_MS)


def is_above(latency: dict[str, float], held: Sequence[Served]) -> None:
    """Hold a run's latencies against the server's: none of them is below."""
    theirs = sorted(each.took for each in held)
    for field, share in (("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99), ("p99_9_ms", 0.999)):
        assert latency[field] >= percentile(theirs, share) / MS * (1 - BUCKET) - ROUNDED_MS, (field, latency)
    assert latency["max_ms"] >= theirs[-1] / MS - ROUNDED_MS
    assert latency["min_ms"] >= theirs[0] / MS - ROUNDED_MS
    assert latency["mean_ms"] >= sum(theirs) / len(theirs) / MS - ROUNDED_MS


def run_of(folder: Path, engine: str, address: str, *options: str) -> dict[str, Any]:
    """Run reads by one worker of an engine; return the result."""
    process = command.start(
        "bench", "--scenario", "get", "--read-consistency", "serializable", "--workers", "1", "--endpoints", address,
        "--output", "run", "--json", "--timeout", "60s", "--key-space", "10", "--keep", "--engine", engine, *options,
        cwd=folder,
    )  # fmt: skip
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    result: dict[str, Any] = json.loads(out)
    assert result["generator"]["engine"] == engine
    return result


def hold_the_engine_against_the_server(folder: Path, latency: str, users: int, seconds: float) -> None:
    """Do the same with the compiled engine, which writes no single operation down: by what it reports.

    Each of its percentiles is above the server's, and its latencies add up to no more than the users' time; what is
    left between the two is what the answers' way took, and the users between two requests.
    """
    with truth_server(latency=latency) as server:
        result = run_of(
            folder, "compiled", server.endpoint, "--concurrency", str(users), "--duration", f"{seconds}s"
        )  # fmt: skip
    held, reported = from_server(server, result), result["results"]["get"]["latency"]
    assert len(held) > users
    is_above(reported, held)
    first, last = min(each.read for each in held), max(each.answered for each in held)
    most_ns = users * (last - first + 2 * reported["max_ms"] * MS)
    assert reported["mean_ms"] * MS * len(held) <= most_ns * (1 + BUCKET)


HOLD = {"python": hold_against_the_server, "compiled": hold_the_engine_against_the_server}
ENGINES = [pytest.param(engine, marks=pytest.mark.core if engine == "compiled" else ()) for engine in HOLD]
# From 0.2 ms to 2 s in one run.
ALL_AT_ONCE = "0=200,0.5=1000,0.9=20000,0.99=500000,1=2000000"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("latency", "users"), [("20000", 20), (ALL_AT_ONCE, 100)], ids=["20_ms", "200_us_to_2_s"])
def test_the_truth_is_reported(tmp_path: Path, latency: str, users: int, engine: str) -> None:
    HOLD[engine](tmp_path, latency, users, 3)


@pytest.mark.soak
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("delay_us", "users", "seconds"),
    [(200, 1, 8), (2_000, 4, 8), (20_000, 40, 8), (200_000, 150, 12), (1_000_000, 250, 20)],
)
def test_the_truth_is_reported_from_200_us_to_2_s(
    tmp_path: Path, delay_us: int, users: int, seconds: float, engine: str
) -> None:
    # The slow ones, 3 in 100, take twice as long, so p99 and p99.9 are among these.
    HOLD[engine](tmp_path, f"0={delay_us},0.97={delay_us},0.97={2 * delay_us},1={2 * delay_us}", users, seconds)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_truth_of_an_open_loop_is_reported(tmp_path: Path, engine: str) -> None:
    """From sending it is what it is in a closed loop; from when each was due it is that and the start lag."""
    with truth_server(latency=ALL_AT_ONCE) as server:
        result = run_of(tmp_path, engine, server.endpoint, "--rate", "300", "--duration", "3s", "--allow-rate-miss")
    held, reported = from_server(server, result), result["results"]["get"]["latency"]
    assert len(held) == 900
    is_above(reported["service"], held)
    for field in ("min_ms", "mean_ms", "p50_ms", "p99_ms", "max_ms"):
        assert reported[field] >= reported["service"][field] - ROUNDED_MS


def test_the_server_ends_with_whoever_started_it() -> None:
    """A killed test would leave a process that nobody ends."""
    with truth_server(latency=1000):
        pass  # there is a compiler
    script = "import sys, time; from tests.support.truth import running\n"
    script += "with running(latency=1000): print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT, env=ENV) as test:
        assert test.stdout is not None
        assert test.stdout.readline()
        (server,) = children(test.pid)
        test.kill()
        until(lambda: not runs(server), "the server's end")


def test_a_slot_that_is_busy_is_waited_for(tmp_path: Path) -> None:
    """Who waits behind whom is computed again from when each request was read: to the nanosecond."""
    slots, service_us, users = 3, 2_000, 12
    with truth_server(slots=slots, service=service_us) as server:
        result = run_of(tmp_path, "python", server.endpoint, "--concurrency", str(users), "--operations", "600")
    free = [0] * slots
    for each in server.served:
        began = max(each.read, min(free))
        free.remove(min(free))
        free.append(began + service_us * 1000)
        assert (each.began, each.due) == (began, free[-1])
    held = from_server(server, result)
    is_above(result["results"]["get"]["latency"], held)
    # More users than slots: the slots are the limit, in a rate that can be told beforehand.
    took_s = (max(each.due for each in held) - min(each.began for each in held)) / 1e9
    assert took_s >= len(held) / (slots / service_us * 1e6) * (1 - 1e-9)


def test_the_server_takes_any_client_and_answers_what_it_does_not_know() -> None:
    import grpc

    from loadgen.proto import etcd_pb2 as pb

    with truth_server(latency=1_000) as server, grpc.insecure_channel(server.endpoint) as channel:

        def call(method: str, request: Any, kind: Any) -> Any:
            return channel.unary_unary(
                f"/etcdserverpb.{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=kind.FromString,
            )(request, timeout=60)

        revisions = [
            call("KV/Put", pb.PutRequest(key=b"key %d" % n, value=b"v" * 100_000), pb.PutResponse).header.revision
            for n in range(100)
        ]
        assert revisions == list(range(revisions[0], revisions[0] + 100))
        assert call("KV/Range", pb.RangeRequest(key=b"key"), pb.RangeResponse).count == 1
        assert call("KV/Range", pb.RangeRequest(key=b"key", range_end=b"kez"), pb.RangeResponse).count == 0
        with pytest.raises(grpc.RpcError) as raised:
            call("Lease/LeaseGrant", pb.RangeRequest(), pb.RangeResponse)
        assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert [each.key for each in server.served] == [*(b"key %d" % n for n in range(100)), b"key"]
    assert all(each.took >= MS for each in server.served)


def test_a_server_that_stalls_and_refuses_says_of_whom(tmp_path: Path) -> None:
    with truth_server(latency=5_000, stall="0.4:0.3", refuse="0.8:3600:0.5") as server:
        process = bench(tmp_path, server.endpoint, "--concurrency", "4", "--duration", "2s", "--keep")
        result = result_of(process)
    held, reported = server.of_run(result["run"]["prefix"]), result["results"]["get"]
    refused = [each for each in held if each.refused]
    assert reported["operations"] == len(held)
    assert reported["errors"] == {"UNAVAILABLE": len(refused)} and refused
    began = min(each.read for each in server.served)
    stall, again = began + 400 * MS, began + 700 * MS
    assert all(began + 800 * MS <= each.read for each in refused)
    # What was to be answered then is answered at the end of the stall, and what came meanwhile is served from then on.
    assert {each.due for each in held if each.read < stall <= each.due} <= {again}
    assert {each.due for each in held if stall <= each.read < again} <= {again + 5 * MS}


STARTS = """
import json
from pathlib import Path
from time import perf_counter_ns

from locust import events
from loadgen.user import EtcdUser

began, called = [], []

@events.report_to_master.add_listener
def write(**_):
    Path("starts.json").write_text(json.dumps([began, called]))

class StartingUser(EtcdUser):
    def make_ready(self):
        began.append(perf_counter_ns())
        if not self.load.sinks:
            self.load.sinks.append(lambda operation, measured: called.append(operation.call_ns))
"""


def test_the_start_of_users_is_in_no_latency(tmp_path: Path) -> None:
    """Those that start together all do before the first of them calls: what it calls is sent after all of them."""
    with truth_server(latency=1_000) as server:
        done = command.bench_with(
            STARTS, "--workers", "1", "--concurrency", "50", "--operations", "50", "--mix", "get", "--endpoints",
            server.endpoint, "--json", cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    began, called = json.loads((tmp_path / "starts.json").read_text())
    assert (len(began), len(called)) == (50, 50)
    assert max(began) < min(called)


LOOPS = {"closed": ("--concurrency", "2"), "open": ("--rate", "300", "--allow-rate-miss")}
STOP_S = 0.15
Windows = list[tuple[int, int]]


def stopping(process: subprocess.Popen[str], raw: Path) -> Windows:
    """Stop the worker of a run for a while, again and again, until the run is over.

    Returns from when to when it stood still, in nanoseconds of the monotonic clock: at the least.
    """
    windows: Windows = []
    while process.poll() is None:
        with suppress(ProcessLookupError, FileNotFoundError):
            worker = next(iter(workers(process.pid)), None) if raw.exists() else None
            if worker is not None:
                os.kill(worker, signal.SIGSTOP)
                while Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] not in "TZ":
                    time.sleep(0.001)
                began = time.perf_counter_ns()
                time.sleep(STOP_S)
                windows.append((began, time.perf_counter_ns()))
                os.kill(worker, signal.SIGCONT)
        time.sleep(STOP_S)
    return windows


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.communicate(timeout=120)
    assert process.returncode in (0, 3), err
    result: dict[str, Any] = json.loads(out)
    return result


# The generator's delay can only have raised a latency: it leaves the second one open, and no other.
THRESHOLDS = (
    "--threshold", "get.p99_ms < 100000", "--threshold", "get.p99_ms > 0", "--threshold", "get.success_rate >= 0.9",
)  # fmt: skip


def follows_the_rule(result: dict[str, Any], loop: str) -> bool:
    """Hold the verdict on the generator against its delay, and the thresholds' against that; return the first."""
    block = result["generator"]
    delay = block["start_lag_p99_ms" if loop == "open" else "loop_lag_p99_ms"]
    limit = max(saturation.LEAST_DELAY_MS, saturation.DELAY_SHARE * result["results"]["total"]["latency"]["p99_ms"])
    saturated: bool = block["saturated"]
    assert saturated is (delay > limit) or abs(delay - limit) <= 2 * ROUNDED_MS
    verdicts = [each["verdict"] for each in result["thresholds"]]
    assert verdicts == (["pass", "unknown", "pass"] if saturated else ["pass"] * 3)
    assert (block["saturated_by"] is None) is not saturated
    if saturated:
        (worker,) = block["workers"]
        own = worker["cpu_share"] > saturation.BUSY_WORKER
        assert block["saturated_by"].endswith(
            "their own work fills a core; add workers" if own else "other processes use the CPU"
        )
    return saturated


@pytest.mark.parametrize("loop", LOOPS)
def test_the_delay_that_a_generator_reports_is_what_it_had(
    etcd_single: LocalCluster, tmp_path: Path, loop: str
) -> None:
    """Quiet or not, as the machine has it: what is said of the generator follows from what was written down."""
    process = bench(tmp_path, etcd_single.endpoints[0], "--duration", "3s", *THRESHOLDS, *LOOPS[loop])
    result = result_of(process)
    raw = json.loads((tmp_path / "raw.json").read_text())
    follows_the_rule(result, loop)
    block = result["generator"]
    if loop == "open":
        lags = sorted(call - due for due, call, *_ in raw["rows"])
        true_ms = percentile(lags, 0.99) / MS
        assert block["start_lag_p99_ms"] == pytest.approx(true_ms, rel=BUCKET, abs=2 * ROUNDED_MS)
    # Whatever kept an answer waiting kept a sleeper waiting that went to sleep 5 ms before at the most, and gevent's
    # timers may come a millisecond later.
    assert 0 < block["loop_lag_p99_ms"] <= raw["late_ns"] / MS + 6


@pytest.mark.parametrize("loop", LOOPS)
def test_a_generator_that_is_kept_from_its_processor_says_so(
    etcd_single: LocalCluster, tmp_path: Path, loop: str
) -> None:
    """It is stopped, for certain, half of the time: then latencies decide nothing but upper bounds."""
    process = bench(tmp_path, etcd_single.endpoints[0], "--duration", "3s", *THRESHOLDS, *LOOPS[loop])
    windows = stopping(process, tmp_path / "raw.json")
    result = result_of(process)
    rows = json.loads((tmp_path / "raw.json").read_text())["rows"]
    if loop == "open":
        # What fell due while it stood still was sent when it went on, at the earliest.
        floor = sorted(
            max([0, *(until - due for began, until in windows if began <= due <= until)]) for due, *_ in rows
        )
        least_ms = percentile(floor, 0.99) / MS
        said_ms = result["generator"]["start_lag_p99_ms"]
    else:
        # Of all moments of the run, those at which an answer had to wait for so long.
        first, last = min(row[1] for row in rows), max(row[2] for row in rows)
        moments = range(first, last, MS)
        floor = sorted(max([0, *(until - at for began, until in windows if began <= at <= until)]) for at in moments)
        least_ms = percentile(floor, 0.99) / MS - 10  # the probe comes every 10 ms
        said_ms = result["generator"]["loop_lag_p99_ms"]
    assert least_ms > STOP_S * 500, "it stood still for too little of the run to tell"
    assert said_ms >= least_ms * (1 - BUCKET)
    assert follows_the_rule(result, loop)
    assert result["verdict"] == "unknown"
    late = "sent operations" if loop == "open" else "read answers"
    assert result["generator"]["saturated_by"].startswith(f"workers {late} up to "), result["generator"]


@pytest.mark.soak
@pytest.mark.parametrize(("users", "value_size"), [(10_000, 64), (10_000, 4096), (20, 1 << 20)])
def test_many_users_and_large_values_fit_into_one_worker(
    etcd_single: LocalCluster, tmp_path: Path, users: int, value_size: int
) -> None:
    bench = subprocess.Popen(
        [sys.executable, "-m", "loadgen.cli", "bench", "--endpoints", ",".join(etcd_single.endpoints), "--workers", "1",
         "--mix", "get" if users > 1000 else "put=1,get=1",
         "--concurrency", str(users), "--value-size", str(value_size), "--operations", str(max(400, 3 * users)),
         "--timeout", "60s", "--output", str(tmp_path / "run"), "--json"],
        cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    peak_kib = 0
    while bench.poll() is None:
        with suppress(OSError, StopIteration):
            for worker in workers(bench.pid):
                lines = Path(f"/proc/{worker}/status").read_text().splitlines()
                line = next(each for each in lines if each.startswith("VmHWM:"))
                peak_kib = max(peak_kib, int(line.split()[1]))
        time.sleep(0.05)
    out, err = bench.communicate()
    assert bench.returncode in (0, 3), err
    result = json.loads(out)
    print(f"\n{users:,} users, values of {value_size:,} B: {peak_kib / 1024:.0f} MiB")
    assert result["results"]["total"]["succeeded"] == max(400, 3 * users)
    assert result["books"]["writes_ok"] == result["books"]["revision_delta"]
    assert peak_kib < 300_000
