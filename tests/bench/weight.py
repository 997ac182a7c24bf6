"""What the lower weight of an embedded cluster's members does: loop lag, saturation, the members' wait, throughput.

    python -m tests.bench.weight [--nice 0,10] [--rounds 5] [bench's own options]

Each round runs `bench` once with each nice value of the members, in another order each round; 0 is as it was before
members had a lower weight. The rows are medians, and a ratio is the median over the rounds of what was measured in the
same round, to the first value. Without options for `bench` a run is that of `make bench`. Says, too, whether the kernel
shares the CPU out among sessions, since then a nice value works in a session alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cluster.local import keeper

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result

ROOT = Path(__file__).resolve().parents[2]
LIKE_MAKE = ("--operations", "10000", "--concurrency", "20", "--workers", "2", "--seed", "1")
COMMAND = """
import sys
import loadgen.run.target as target
target.MEMBER_NICE = {nice}
from loadgen.cli.entry import raftload
sys.argv = ["raftload", "bench", "--json", *sys.argv[1:]]
sys.exit(raftload())
"""


def run(nice: int, options: Sequence[str]) -> Result:
    """Return the result of one run of `bench` whose members have a nice value that is so much higher."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-P", "-c", COMMAND.format(nice=nice), *options, "--output", f"{folder}/run"],
            capture_output=True, text=True, cwd=folder, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    if done.returncode not in (0, 3):
        raise RuntimeError(f"bench failed with {done.returncode}: {done.stderr}")
    return cast("Result", json.loads(done.stdout))


def _latency(result: Result, field: str) -> float:
    total = result["results"]["total"]
    assert total is not None
    assert total["latency"] is not None
    return float(total["latency"][field] or 0.0)  # type: ignore[literal-required]


def _throughput(result: Result) -> float:
    total = result["results"]["total"]
    assert total is not None
    return total["throughput_ops_s"] or 0.0


def _share(result: Result) -> float:
    target = result["target"]
    wait = target.get("cpu_wait") if target else None
    return (wait["share"] or 0.0) if wait else 0.0


def _loop_lag(result: Result) -> float:
    generator = result["generator"]
    assert generator is not None
    return generator["loop_lag_p99_ms"] or 0.0


FIGURES: dict[str, Callable[[Result], float]] = {
    "loop lag p99, ms": _loop_lag,
    "ops/s": _throughput,
    "p50, ms": lambda result: _latency(result, "p50_ms"),
    "p99, ms": lambda result: _latency(result, "p99_ms"),
    "members' wait, share": _share,
}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nice", default="0,10", help="default: 0,10")
    parser.add_argument("--rounds", type=int, default=5)
    args, options = parser.parse_known_args()
    values = [int(text) for text in args.nice.split(",")]
    began = time.monotonic()
    print(f"the kernel shares the CPU out among sessions: {'yes' if keeper.by_sessions() else 'no'}")
    results: dict[int, list[Result]] = {nice: [] for nice in values}
    for number in range(args.rounds):
        for nice in values[:: -1 if number % 2 else 1]:
            result = run(nice, options or LIKE_MAKE)
            results[nice].append(result)
            told = ", ".join(f"{name} {figure(result):,.3f}" for name, figure in FIGURES.items())
            print(f"  round {number + 1}, nice {nice}: {told}", flush=True)
    heads = (*FIGURES, "saturated", "contended")
    print(f"{'nice':<5}" + "".join(f"{head:>22}" for head in heads))
    for nice, rows in results.items():
        cells = []
        for figure in FIGURES.values():
            median = statistics.median(map(figure, rows))
            pairs = [(figure(a), figure(b)) for a, b in zip(rows, results[values[0]], strict=True)]
            ratio = statistics.median(a / b for a, b in pairs if b) if all(b for _, b in pairs) else 0.0
            cells.append(f"{median:,.3f} ({ratio:.2f})")
        saturated = sum(bool((row["generator"] or {}).get("saturated")) for row in rows)
        contended = sum(bool(((row["target"] or {}).get("cpu_wait") or {}).get("contended")) for row in rows)
        cells += [f"{saturated} of {len(rows)}", f"{contended} of {len(rows)}"]
        print(f"{nice:<5}" + "".join(f"{cell:>22}" for cell in cells))
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
