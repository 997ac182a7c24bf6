"""How often `raftload compare` is wrong: false findings among runs of the same, and real differences that it misses.

    python -m tests.soak.compare record --folder DIR     # 30 real runs; the machine must have nothing else to do
    python -m tests.soak.compare                         # simulated comparisons of runs like these

`record` goes on where it was ended before, and writes what the runs measured to tests/data/compare/runs.json. The
simulation appends its rows to docs/evidence/compare.jsonl and goes on there: rows of the same code and data count.

The exit code is 0 where the rate of comparisons with any false finding is at most 1 % with 95 % confidence, no two
recorded runs are grossly different, a real difference of 5 % is found with as many more runs as were asked for, and
that number is right within a factor of two.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from cluster.base.parser import Duration
from loadgen.compare import permutation, run_figures
from tests.soak import record as soak
from tests.soak.record import ROOT, about_now, append, command, recorded
from tests.support.simulated_runs import (
    DATA,
    PILOT,
    SHIFT,
    SHIFTED,
    Recorded,
    false_findings,
    gross_pairs,
    pilots,
    runs_needed,
)

NAME = "compare.jsonl"
# Of each so many comparisons one row.
_CHUNK = 500
# The fewest runs of each side that can find anything: of one size, and of two.
_SIZES = ((6, 6), (4, 6))
_MOST_RATE, _LEAST_FOUND = 0.01, 0.8
_PILOTS = 20
# Where runs differ more, a difference of 5 % takes more runs than anybody is asked for.
_MOST_DEVIATION = 0.04


def main() -> int:
    """Record, or simulate what is missing. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.compare", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("record", "simulate"), default="simulate")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the recorded runs are")
    parser.add_argument("--runs", type=int, default=30, metavar="N", help="runs to record (default: 30)")
    parser.add_argument("--length", type=Duration(5), default=12.0, metavar="S", help="of a run (default: 12s)")
    parser.add_argument("--for", dest="at_most", type=Duration(), default=1e9, metavar="S",
                        help="begin no further run after so long")  # fmt: skip
    parser.add_argument("--comparisons", type=int, default=10_000, metavar="N", help="of each size (default: 10,000)")
    parser.add_argument("--pilots", type=int, default=200, metavar="N", help="with a real difference (default: 200)")
    args = parser.parse_args()
    if args.what == "record":
        if args.folder is None:
            parser.error("record needs --folder")
        count = record(args.folder, args.runs, args.length, time.monotonic() + args.at_most)
        print(f"{count} of {args.runs} runs are in {DATA.relative_to(ROOT)}")
        return 0 if count >= args.runs else 3
    data = Recorded.read()
    good = [_is_rarely_wrong(data, sizes, args.comparisons) for sizes in _SIZES]
    good += [_is_never_gross(data), _finds(data.quieter(_MOST_DEVIATION), args.pilots)]
    return 0 if all(good) else 1


def _about(**what: Any) -> dict[str, Any]:
    # How many processors there are is no matter to a simulation.
    return {"code": about_now("loadgen/compare", "tests/data/compare")["code"], **what}


def _is_rarely_wrong(data: Recorded, sizes: tuple[int, int], comparisons: int) -> bool:
    """Simulate comparisons of runs of the same; tell whether few enough find a difference."""
    from scipy import stats

    about = _about(what="the same", base=sizes[0], new=sizes[1], recorded_runs=len(data.own))
    done = recorded(NAME, about)
    while (count := sum(row["comparisons"] for row in done)) < comparisons:
        chunk = min(_CHUNK, comparisons - count)
        seed = 1000 * sizes[0] + len(done)
        false = false_findings(data, np.random.default_rng(seed), sizes, chunk)
        row = {**about, "seed": seed, "comparisons": chunk, "false": false}
        append(NAME, row)
        done.append(row)
        print(f"{sizes[0]} and {sizes[1]} runs of the same: {count + chunk} of {comparisons}", flush=True)
    false, count = sum(row["false"] for row in done), sum(row["comparisons"] for row in done)
    # Two-sided with 90 % has the upper end of 95 % (Clopper and Pearson).
    upper = stats.binomtest(false, count).proportion_ci(0.9, "exact").high
    print(f"{sizes[0]} and {sizes[1]} runs of the same: {false} of {count} comparisons found any difference; "
          f"at most {100 * upper:.2f} % with 95 % confidence")  # fmt: skip
    return bool(upper <= _MOST_RATE)


def _is_never_gross(data: Recorded) -> bool:
    """Tell whether no two recorded runs are grossly different."""
    runs, gross = len(data.own), gross_pairs(data)
    print(f"{gross} of {runs * (runs - 1) // 2} pairs of recorded runs are grossly different")
    return gross == 0


def _finds(data: Recorded, count: int) -> bool:
    """Simulate comparisons with a real difference; tell whether it is found with the runs that were asked for."""
    about = _about(
        what=f"{SHIFTED} x {SHIFT}", pilot=PILOT, recorded_runs=len(data.own), deviation=round(data.deviation, 4)
    )
    done = recorded(NAME, about)
    needed = next((row["needed"] for row in done), None) or runs_needed(data, np.random.default_rng(1), 200)
    while sum(row["pilots"] for row in done) < count:
        seed = 5_000_000 + len(done)
        sizes = pilots(data, np.random.default_rng(seed), _PILOTS)
        row = {**about, "seed": seed, "pilots": len(sizes), "needed": needed, "sizes": [size for size, _ in sizes],
               "found": sum(found for _, found in sizes)}  # fmt: skip
        append(NAME, row)
        done.append(row)
    sizes = [size for row in done for size in row["sizes"]]
    known = [size for size in sizes if size is not None]
    found, said = sum(row["found"] for row in done), statistics.median(known) if known else 0
    print(f"{SHIFTED} x {SHIFT}: {needed} runs of each side find it in {100 * permutation.POWER:g} %; after {PILOT} of "
          f"each {said:g} are asked for (median; too many in {len(sizes) - len(known)} of {len(sizes)}), and with as "
          f"many it is found in {found} of {len(known)}")  # fmt: skip
    return bool(known) and needed / 2 <= said <= needed * 2 and found >= _LEAST_FOUND * len(known)


def record(folder: Path, count: int, length: float, ends_at: float) -> int:
    """Make the runs that are missing, until a time, and write what all measured. Returns how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        run = folder / f"run-{number:02}"
        if (run / "result.json").exists():
            continue
        if time.monotonic() + length > ends_at:
            break
        words = ["bench", "--duration", f"{length:g}s", "--output", str(run), "--seed", str(number)]
        done = soak.run(sys.executable, "-m", "loadgen.cli", *words, cwd=ROOT, stderr=subprocess.PIPE)
        print(f"{run.name}: exit {done.returncode}", flush=True)
    runs = [run_figures.read(str(each.parent)) for each in sorted(folder.glob("run-*/result.json"))]
    names = [name for name in runs[0].values if all(name in run.values and name in run.own for run in runs)]
    document: dict[str, Any] = {
        "made_by": f"python -m tests.soak.compare record, runs of {length:g} s on fresh embedded clusters",
        "etcd": runs[0].document()["etcd_version"],
        "figures": names,
        "runs": [
            {"values": [float(f"{run.values[name]:.5g}") for name in names],
             "own": [float(f"{run.own[name].deviation:.3g}") for name in names]}
            for run in runs
        ],
    }  # fmt: skip
    DATA.parent.mkdir(parents=True, exist_ok=True)
    DATA.write_text(_compact(document), encoding="utf-8")
    return len(runs)


def _compact(document: dict[str, Any]) -> str:
    """Return the document with a line for each run."""
    runs = ",\n  ".join(json.dumps(run) for run in document["runs"])
    head = json.dumps({**document, "runs": []}, indent=1).removesuffix("[]\n}")
    return f"{head}[\n  {runs}\n ]\n}}\n"


if __name__ == "__main__":
    command(main)
