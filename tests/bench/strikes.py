"""What it costs to trap a member's system calls: a call by itself, and puts to a member.

    python -m tests.bench.strikes [--part calls|disk|memory] [--rounds 5] [--operations 4000] [--concurrency 20]

``calls``: microseconds of the clock that a call on a file in memory takes a process, and the CPU that the process
beside it takes for each: bare, trapped, and timed. ``disk`` and ``memory``: throughput and p99 of puts of `raftload
bench` at one etcd member each, by turns, in another order each round; with data on disk, and in memory where a sync
costs nothing and so what is added shows most. A ratio is the median over the rounds of what was measured in the same
round. No rule is set.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from cluster.local.cluster import LocalCluster
from cluster.local.strike_keeper import Striker
from cluster.local.strike_rules import DEFAULT, FOR_DISKS

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result

ROOT = Path(__file__).resolve().parents[2]
CALL = """
import os, sys, time
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
count = int(sys.argv[3])
do = {"fdatasync": lambda: os.fdatasync(file), "pwrite64": lambda: os.pwrite(file, b".", 0)}[sys.argv[2]]
best = []
for _ in range(10):
    began = time.perf_counter()
    for _ in range(count // 10):
        do()
    best.append((time.perf_counter() - began) / (count // 10))
print(sorted(best)[5] * 1e6)
"""
VARIANTS: dict[str, tuple[Sequence[str], bool]] = {
    "bare": ((), False),
    "sync, rename": (DEFAULT, False),
    "sync, rename, timed": (DEFAULT, True),
    "for faults of disks": (FOR_DISKS, False),
    "and write": ((*DEFAULT, "pwrite64", "write"), False),
}
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def call(name: str, trapped: Sequence[str], *, timed: bool, count: int) -> tuple[float, float]:
    """Return the microseconds of a call, and those of CPU that the process beside it takes for one."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
        striker = Striker(trapped, timed=timed) if trapped else None
        if striker is not None:
            stack.callback(striker.close)
            striker.ask({"op": "rules"})  # it has started
        process = subprocess.Popen(
            [sys.executable, "-c", CALL, f"{folder}/a.wal", name, str(count)], stdout=subprocess.PIPE, text=True,
            preexec_fn=striker.in_child(None) if striker is not None else None,  # noqa: PLW1509 (one thread)
        )  # fmt: skip
        if striker is None:
            return float(process.communicate()[0]), 0.0
        before = _cpu_s(striker)
        striker.started()
        took = float(process.communicate()[0])
        return took, (_cpu_s(striker) - before) / count * 1e6


def _cpu_s(striker: Striker) -> float:
    fields = Path(f"/proc/{striker.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def calls(rounds: int) -> None:
    """Print what a call costs."""
    for name in ("fdatasync", "pwrite64"):
        costs: dict[str, list[tuple[float, float]]] = {"bare": [], "trapped": []}
        if name == "fdatasync":
            costs["timed"] = []
        for number in range(rounds):
            for how in list(costs)[:: -1 if number % 2 else 1]:
                trapped = () if how == "bare" else (name,)
                costs[how].append(call(name, trapped, timed=how == "timed", count=200_000 if how == "bare" else 20_000))
        for how, rows in costs.items():
            took, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
            print(f"{name:<10} {how:<8} {took:8.1f} us, {cpu:6.1f} us of CPU beside it", flush=True)


def bench(endpoint: str, operations: int, concurrency: int) -> tuple[float, float]:
    """Return puts per second and the p99 in milliseconds of one run."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "loadgen.cli", "bench", "--json", "--endpoints", endpoint, "--mix", "put=1",
             "--workers", "1", "--operations", str(operations), "--concurrency", str(concurrency),
             "--output", f"{folder}/run"],
            capture_output=True, text=True, cwd=folder, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    if done.returncode not in (0, 3):
        raise RuntimeError(f"bench failed with {done.returncode}: {done.stderr}")
    row = cast("Result", json.loads(done.stdout))["results"]["put"]
    assert row is not None
    assert row["latency"] is not None
    return row["throughput_ops_s"] or 0.0, row["latency"]["p99_ms"] or 0.0


def puts(storage: Literal["disk", "memory"], rounds: int, operations: int, concurrency: int) -> None:
    """Print what puts cost."""
    with contextlib.ExitStack() as stack:
        members = {
            name: stack.enter_context(LocalCluster(1, storage=storage, strikes=trapped, timed=timed)).endpoints[0]
            for name, (trapped, timed) in VARIANTS.items()
        }
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in members}
        for number in range(rounds):
            for name in list(members)[:: -1 if number % 2 else 1]:
                rows[name].append(bench(members[name], operations, concurrency))
    for name, figures in rows.items():
        rate, p99 = (statistics.median(column) for column in zip(*figures, strict=True))
        pairs = list(zip(figures, rows["bare"], strict=True))
        of_rate, of_p99 = (statistics.median(a[n] / b[n] for a, b in pairs) for n in (0, 1))
        print(f"{storage:<7} {name:<20} {rate:>8,.0f} puts/s ({of_rate:.2f})  p99 {p99:>8.2f} ms ({of_p99:.2f})")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("calls", "disk", "memory"), help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--operations", type=int, default=4000)
    parser.add_argument("--concurrency", type=int, default=20)
    args = parser.parse_args()
    began = time.monotonic()
    parts: tuple[Literal["calls", "disk", "memory"], ...] = ("calls", "disk", "memory")
    for part in parts if args.part is None else (args.part,):
        if part == "calls":
            calls(args.rounds)
        else:
            puts(part, args.rounds, args.operations, args.concurrency)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
