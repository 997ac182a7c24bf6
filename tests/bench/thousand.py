"""What one master costs with many workers: its CPU, its memory, how late it is, and whether its counts are exact.

    python -m tests.bench.thousand [--workers 10,50,200,500,1000] [--seconds 20] [--rate 10 | --rate 0] [--long]

Two real workers of 100 users each run against one member whose data lie in memory, in a closed loop of three types; a
user does ``--rate`` operations a second, or with 0 as many as it can. What they send to their master is recorded. Then
one real `raftload bench` waits for so many workers of other machines, and simulated ones play the recordings to it,
over the loopback interface and at the real rate. A row has

- the master's CPU as a share of one core while the load runs, from the load's begin to the master's end per report, and
  its resident memory at most;
- how late it is: from a worker's heartbeat to the master's answer, of one worker that has a process of its own and of
  all others; how late the simulated workers themselves were; and the longest that one heard nothing of its master;
- the seconds from the master's start until it told the first worker to begin, and from its order to stop to its end;
- whether the result has each operation of the recordings as often as it was played.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from cluster.base.ports import free_ports
from cluster.local.cluster import LocalCluster
from tests.bench.many import cpu_s
from tests.bench.played import Played, Players, Tape, recording

ROOT = Path(__file__).resolve().parents[2]
USERS = 100
# The most that a run may have; simulated workers do what is recorded, whatever they are told.
MOST_USERS = 100_000
SCENARIO = """\
from locust import constant_throughput

from loadgen.user import EtcdUser


class Paced(EtcdUser):
    abstract = False
    wait_time = constant_throughput({rate})
"""


def bench(folder: Path, endpoint: str, port: int, workers: int, seconds: int, scenario: str, *how: str) -> list[str]:
    """Return the command of a master."""
    return [
        sys.executable, *how, "-m", "loadgen.cli", "bench", "--endpoints", endpoint, "--bind", f"127.0.0.1:{port}",
        "--scenario", scenario, "--mix", "get=1,put=1,txn=1", "--expect-workers", str(workers), "--worker-wait", "300s",
        "--concurrency", str(min(USERS * workers, MOST_USERS)), "--duration", f"{seconds}s", "--json",
        "--output", str(folder),
    ]  # fmt: skip


def record(folder: Path, endpoint: str, seconds: int, scenario: str, planned_s: int) -> list[Tape]:
    """Return the tapes of two real workers of a run of so many seconds. Takes for how many it is planned."""
    port, master_port = free_ports(2)
    with recording(port, master_port) as tapes:
        worker = [sys.executable, "-m", "loadgen.cli", "worker", "--master-port", str(port), "--scenario", scenario]
        workers = [subprocess.Popen(worker, cwd=ROOT, stderr=subprocess.DEVNULL) for _ in range(2)]
        try:
            command = bench(folder / "recorded", endpoint, master_port, 2, planned_s, scenario)
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as master:
                while planned_s > seconds and not (tapes and all(tape.began_ns for tape in tapes.values())):
                    time.sleep(0.05)
                if planned_s > seconds:
                    time.sleep(seconds)
                    master.send_signal(signal.SIGINT)
        finally:
            for each in workers:
                each.wait(timeout=60)
    return list(tapes.values())


def play(numbers: range, tapes: list[Tape], port: int, timeout_s: float) -> Played:
    """Play some workers, in a process of its own."""
    return Players(numbers, tapes, port).play(timeout_s)


class Watched:
    """A master and what it costs, from its start."""

    def __init__(self, command: list[str], output: Path) -> None:
        self.began_at = time.monotonic()
        self._output = output.open("w+")
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=self._output, stderr=subprocess.DEVNULL)
        self.samples: list[tuple[float, float]] = []
        self.memory_mib = 0.0
        self.ended_at = 0.0

    def watch(self, timeout_s: float) -> dict[str, Any]:
        """Look at it until it ends; return the result. Raises TimeoutError."""
        while self.process.poll() is None:
            if time.monotonic() > self.began_at + timeout_s:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
                raise TimeoutError("the master does not end")
            try:
                status = Path(f"/proc/{self.process.pid}/status").read_text()
                self.samples.append((time.monotonic(), cpu_s(self.process.pid)))
                peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
            except (OSError, StopIteration, IndexError):
                continue  # It has just ended.
            self.memory_mib = int(peak.split()[1]) / 1024
            time.sleep(0.05)
        self.ended_at = time.monotonic()
        self._output.seek(0)
        result: dict[str, Any] = json.loads(self._output.read())
        return result

    def share(self, began_at: float, ended_at: float) -> float:
        """Return its CPU between two times as a share of one core."""
        (first, used), *_, (last, all_of_it) = [each for each in self.samples if began_at <= each[0] <= ended_at]
        return (all_of_it - used) / (last - first)


def rank(values: list[float], fraction: float) -> float:
    """Return a percentile; nan without values."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(fraction * len(ranked)))] if ranked else float("nan")


def measure(
    folder: Path, endpoint: str, workers: int, seconds: int, scenario: str, tapes: list[Tape], how: list[str]
) -> str:
    """Return a row of the table."""
    (port,) = free_ports(1)
    timeout_s = 300.0 + 3 * seconds
    out = folder / f"{workers}.json"
    master = Watched(bench(folder / f"run{workers}", endpoint, port, workers, seconds, scenario, *how), out)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        one = pool.submit(play, range(1), tapes, port, timeout_s)
        others = pool.submit(play, range(1, workers), tapes, port, timeout_s)
        result = master.watch(timeout_s)
        alone, rest = one.result(), others.result()
    began, stopped = min(alone.began_at, rest.began_at), min(alone.stopped_at, rest.stopped_at)
    used_s = master.samples[-1][1] - next(cpu for at, cpu in master.samples if at >= began)
    reports = sum(tapes[number % len(tapes)].reports for number in range(workers))
    wanted: dict[str, int] = {}
    for number in range(workers):
        for f, count in tapes[number % len(tapes)].totals.items():
            wanted[f] = wanted.get(f, 0) + count
    found = {f: row["operations"] for f, row in result["results"].items() if f != "total" and row is not None}
    doubts = [each for each in result["problems"] if "revision" not in each]
    exact = "yes" if found == wanted and not result["lost_workers"] and not doubts else f"NO: {found} of {wanted}"
    cells = (
        f"{workers:,}", f"{sum(wanted.values()) / (stopped - began):,.0f}",
        f"{master.share(began + 2, stopped):.2f}", f"{1e6 * used_s / reports:.0f}", f"{master.memory_mib:.0f}",
        *(f"{rank(alone.waits_ms, q):.1f}" for q in (0.5, 1.0)),
        *(f"{rank(rest.waits_ms, q):.1f}" for q in (0.5, 0.99, 1.0)),
        f"{rank(alone.late_ms + rest.late_ms, 0.99):.1f}", f"{max(alone.silent_s, rest.silent_s):.1f}",
        f"{alone.unanswered + rest.unanswered}",
        f"{began - master.began_at:.1f}", f"{max(alone.told_s, rest.told_s):.2f}", f"{master.ended_at - stopped:.1f}",
        exact, "; ".join(doubts),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "workers", "played ops/s", "CPU, cores", "us a report", "memory MiB", "one: p50 ms", "max",
    "all: p50 ms", "p99", "max", "players late p99 ms", "silent s", "unanswered",
    "to begin s", "told s", "to end s", "exact", "doubts",
)  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default=[10, 50, 200, 500, 1000], type=lambda text: [*map(int, text.split(","))])
    parser.add_argument("--seconds", type=int, default=20, help="of each run (default: 20)")
    parser.add_argument("--rate", type=float, default=10, help="operations a second of each user, 0: all that it can")
    parser.add_argument("--long", action="store_true", help="reports of a long run, whose workers count by the second")
    parser.add_argument("--python", default="", help="options of the master's Python, as '-m cProfile -o FILE'")
    args = parser.parse_args()
    with (
        LocalCluster(1, storage="memory", quota_backend_bytes=4 << 30) as cluster,
        tempfile.TemporaryDirectory() as name,
    ):
        folder, scenario = Path(name), "kv"
        if args.rate:
            scenario = f"{name}/paced.py"
            Path(scenario).write_text(SCENARIO.format(rate=args.rate))
        planned_s = 1000 if args.long else args.seconds
        tapes = record(folder, cluster.endpoints[0], args.seconds, scenario, planned_s)
        for tape in tapes:
            print(f"recorded: {tape.totals}, {len(tape.messages)} messages, {tape.report_bytes:,.0f} bytes a report")
        print("| " + " | ".join(HEAD) + " |", flush=True)
        for workers in args.workers:
            row = measure(
                folder, cluster.endpoints[0], workers, args.seconds, scenario, tapes, args.python.split()
            )  # fmt: skip
            print(row, flush=True)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(ROOT)
    main()
