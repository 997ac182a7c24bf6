"""Starts of `raftload bench` beside busy loops: how many succeed, and how long each takes.

    python -m tests.soak.starts --count 100

It appends a line for each start to docs/evidence/starts.jsonl and goes on where it was ended before: starts of the same
code with the same options count. The exit code is 0 where all of them succeeded within the time allowed.
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
from typing import Any

from cluster.local.cluster import LocalCluster
from tests.soak.record import ROOT, about_now, append, busy_loops, command, recorded, run

NAME = "starts.jsonl"
HANGS_S = 300


def main() -> int:
    """Start as often as it takes. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.starts", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100, metavar="N", help="starts in all (default: 100)")
    parser.add_argument("--workers", type=int, default=8, metavar="N", help="worker processes of each (default: 8)")
    parser.add_argument("--operations", type=int, default=300, metavar="N", help="operations of each (default: 300)")
    parser.add_argument("--busy", type=int, default=2, metavar="N", help="busy loops beside them (default: 2)")
    parser.add_argument("--within", type=float, default=30.0, metavar="S", help="seconds allowed (default: 30)")
    args = parser.parse_args()
    options = {"workers": args.workers, "operations": args.operations, "busy": args.busy}
    about = {**about_now("cluster", "loadgen", "viz", "locustfiles"), **options}
    done = recorded(NAME, about)
    if done:
        print(f"{len(done)} of {args.count} starts of this code are in docs/evidence/{NAME} already")
    with LocalCluster(1) as cluster, busy_loops(args.busy):
        for number in range(len(done) + 1, args.count + 1):
            row = {**about, **start(cluster, args.workers, args.operations)}
            done.append(row)
            append(NAME, row)
            verdict = "started" if row["ok"] else f"FAILED: {row['error']}"
            print(f"{number} of {args.count}: {row['seconds']:.1f} s, {verdict}", flush=True)
    took = [row["seconds"] for row in done]
    good = [row for row in done if row["ok"] and row["seconds"] <= args.within]
    print(f"{len(good)} of {len(done)} starts succeeded within {args.within:g} s; "
          f"median {statistics.median(took):.1f} s, longest {max(took):.1f} s")  # fmt: skip
    return 0 if len(good) == len(done) else 1


def start(cluster: LocalCluster, workers: int, operations: int) -> dict[str, Any]:
    """Run one to its end; return whether all workers did their part, and how many seconds it took."""
    with tempfile.TemporaryDirectory(prefix="raftload-starts-") as folder:
        began = time.monotonic()
        try:
            done = run(
                sys.executable, "-m", "loadgen.cli", "bench", "--workers", str(workers), "--operations",
                str(operations), "--endpoints", ",".join(cluster.endpoints), "--json", timeout_s=HANGS_S,
                cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"seconds": HANGS_S, "ok": False, "error": "it did not end"}
        seconds = round(time.monotonic() - began, 2)
    error = f"exit {done.returncode}: {done.stderr.strip()[-300:]}" if done.returncode else ""
    if not error:
        result = json.loads(done.stdout)
        rows, total = result["generator"]["workers"], result["results"]["total"]["operations"]
        if (len(rows), total) != (workers, operations) or not all(row["operations"] for row in rows):
            error = f"{total} operations by {[row['operations'] for row in rows]}"
    return {"seconds": seconds, "ok": not error, "error": error}


if __name__ == "__main__":
    command(main)
