"""Runs of the whole suite, some of them beside busy loops: how many are green, and how long each takes.

    python -m tests.soak.whole --count 6 --busy 2

It runs `make test` and appends a line for each run to docs/evidence/whole.jsonl. Runs of the same code, tests included,
count, so it goes on where it was ended before. The exit code is 0 where every run was green.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.soak.record import CODE, ROOT, about_now, append, busy_loops, command, recorded, run

NAME = "whole.jsonl"
_SUMMARY = re.compile(r"^=+ (.*) in [0-9.]+s.*=+$", re.MULTILINE)


def main() -> int:
    """Run as often as it takes. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.whole", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=6, metavar="N", help="runs in all (default: 6)")
    parser.add_argument(
        "--busy", type=int, default=2, metavar="N", help="how many of them beside two busy loops (default: 2)"
    )
    args = parser.parse_args()
    about = about_now(*CODE, "docs")
    done = recorded(NAME, about)
    for loops, count in ((0, args.count - args.busy), (2, args.busy)):
        for number in range(1 + sum(row["busy_loops"] == loops for row in done), count + 1):
            row = {**about, "busy_loops": loops, **suite(loops)}
            done.append(row)
            append(NAME, row)
            print(
                f"{number} of {count} beside {loops} busy loops: {row['seconds']:.0f} s, {row['summary']}", flush=True
            )
    for loops in (0, 2):
        rows = [row for row in done if row["busy_loops"] == loops]
        if rows:
            seconds = [row["seconds"] for row in rows]
            green = sum(row["ok"] for row in rows)
            took = f"median {statistics.median(seconds):.0f} s, longest {max(seconds):.0f} s"
            print(f"beside {loops} busy loops: {green} of {len(rows)} green; {took}")
    return 0 if all(row["ok"] for row in done) else 1


def suite(loops: int) -> dict[str, Any]:
    """Run the suite once; return whether it is green, how many seconds it took, and what pytest said of it."""
    began = time.monotonic()
    with busy_loops(loops) if loops else contextlib.nullcontext():
        done = run("make", "test", cwd=ROOT, stderr=subprocess.PIPE)
    seconds = round(time.monotonic() - began, 1)
    found = _SUMMARY.findall(done.stdout)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    load = round(os.getloadavg()[1], 1)
    summary = found[-1] if found else f"no summary, exit code {done.returncode}"
    if done.returncode:
        log = Path(tempfile.gettempdir(), f"raftload-whole-{time.time():.0f}.log")
        log.write_text(done.stdout + done.stderr)
        print(f"failed: what it printed is in {log}", flush=True)
    return {"seconds": seconds, "ok": done.returncode == 0, "summary": summary, "failed": failed, "load_5min": load}


if __name__ == "__main__":
    command(main)
