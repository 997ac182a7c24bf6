"""Starts of `raftload bench` beside busy loops: how many succeed, and how long each takes.

    python -m tests.soak.starts --count 100

It appends a line for each start to docs/evidence/starts.jsonl and goes on where it was ended before: starts of the same
commit with the same options count. The exit code is 0 where all of them succeeded within the time allowed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.local import LocalCluster

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = ROOT / "docs" / "evidence" / "starts.jsonl"
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
    about = {"commit": commit(), "processors": len(os.sched_getaffinity(0)), **options}
    done = recorded(about)
    if done:
        print(f"{len(done)} of {args.count} starts of {about['commit']} are in {EVIDENCE.relative_to(ROOT)} already")
    with LocalCluster(1) as cluster, busy_loops(args.busy):
        for number in range(len(done) + 1, args.count + 1):
            row = {**about, **start(cluster, args.workers, args.operations)}
            done.append(row)
            EVIDENCE.parent.mkdir(exist_ok=True)
            with EVIDENCE.open("a") as file:
                file.write(json.dumps(row) + "\n")
            verdict = "started" if row["ok"] else f"FAILED: {row['error']}"
            print(f"{number} of {args.count}: {row['seconds']:.1f} s, {verdict}", flush=True)
    took = [row["seconds"] for row in done]
    good = [row for row in done if row["ok"] and row["seconds"] <= args.within]
    print(f"{len(good)} of {len(done)} starts succeeded within {args.within:g} s; "
          f"median {statistics.median(took):.1f} s, longest {max(took):.1f} s")  # fmt: skip
    return 0 if len(good) == len(done) else 1


def start(cluster: LocalCluster, workers: int, operations: int) -> dict[str, Any]:
    """Run one to its end; return whether all workers did their part, and how many seconds it took."""
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(prefix="raftload-starts-") as folder:
        began = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "loadgen.cli", "bench", "--workers", str(workers), "--operations",
                 str(operations), "--endpoints", ",".join(cluster.endpoints), "--json"],
                cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
                timeout=HANGS_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"at": at, "seconds": HANGS_S, "ok": False, "error": "it did not end"}
        seconds = round(time.monotonic() - began, 2)
    error = f"exit {done.returncode}: {done.stderr.strip()[-300:]}" if done.returncode else ""
    if not error:
        result = json.loads(done.stdout)
        rows, total = result["generator"]["workers"], result["results"]["total"]["operations"]
        if (len(rows), total) != (workers, operations) or not all(row["operations"] for row in rows):
            error = f"{total} operations by {[row['operations'] for row in rows]}"
    return {"at": at, "seconds": seconds, "ok": not error, "error": error}


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keep so many processors busy meanwhile."""
    loops = [subprocess.Popen(["yes"], stdout=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def recorded(about: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the starts on record that were made alike."""
    if not EVIDENCE.exists():
        return []
    rows: list[dict[str, Any]] = [json.loads(line) for line in EVIDENCE.read_text().splitlines()]
    return [row for row in rows if about.items() <= row.items()]


def commit() -> str:
    """Return the commit that is checked out, ``+`` after it where the code differs from it."""
    git = ["git", "-C", str(ROOT)]
    name = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True).stdout
    changed = subprocess.run([*git, "status", "--porcelain", "--", "loadgen", "cluster", "locustfiles", "viz"],
                             capture_output=True, text=True, check=True).stdout  # fmt: skip
    return name.strip() + ("+" if changed else "")


if __name__ == "__main__":
    raise SystemExit(main())
