"""How often the scenarios of `raftload bugs` show their bugs, and how long they take, on many releases of etcd.

    python -m tests.soak.bugs ETCD...                   # five trials of each bug on each of these etcds
    python -m tests.soak.bugs --only 15247 --times 1 ETCD
    python -m tests.soak.bugs --table               # writes docs/known-bugs.md again, and tries nothing

Each trial is a row of docs/evidence/bugs.jsonl; rows of the same code count, so that it goes on where it was ended. In
the end it writes docs/known-bugs.md.
The exit code is 0 where every bug that is certain was found in each trial on a release that has it and in none on
another one, and no trial found a bug in a release that is known not to have it.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from pathlib import Path
from typing import Any

from cluster.base.binary import EtcdBinary, find_etcd
from cluster.base.parser import Whole
from loadgen.bugs import parallel
from loadgen.bugs.catalogue import select
from loadgen.bugs.parallel import Trial
from loadgen.bugs.scenario import Scenario
from loadgen.bugs.trial import Found
from tests.soak import bugs_page
from tests.soak.record import about_now, append, command, recorded

NAME = bugs_page.TRIALS
_CODE = ("cluster/local", "loadgen/bugs", "loadgen/check", "loadgen/client")


def main() -> int:
    """Make the trials that are missing, and print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.bugs", description=__doc__.splitlines()[0])
    parser.add_argument("etcds", nargs="*", metavar="ETCD", help="paths of etcds, or releases that were fetched")
    parser.add_argument("--only", metavar="BUG", action="append", default=[], help="of this bug; may be repeated")
    parser.add_argument("--times", type=Whole(1), default=5, metavar="N", help="trials of each (default: 5)")
    parser.add_argument("--jobs", type=Whole(1, 64), default=1, metavar="N", help="at a time (default: 1)")
    parser.add_argument("--table", action="store_true", help="only write docs/known-bugs.md from what is recorded")
    args = parser.parse_args()
    if args.table == bool(args.etcds):
        parser.error("name etcds to try, or --table alone")
    if args.table:
        bugs_page.write()
        return 0
    code = about_now(*_CODE)["code"]
    binaries = [find_etcd(each) for each in args.etcds]
    asked = [(scenario, binary) for scenario in select(args.only) for binary in binaries]
    with tempfile.TemporaryDirectory(prefix="raftload-bugs-") as folder:
        trials = [
            Trial(scenario, binary, Path(folder) / f"{scenario.issue}-{binary.version}-{number}", seed=number + 1)
            for scenario, binary in asked
            for number in range(len(_rows(code, scenario, binary)), args.times)
        ]
        with contextlib.closing(parallel.run(trials, args.jobs, lambda _: None)) as tried:
            for trial, outcome in tried:
                row = {
                    **_about(code, trial.scenario, trial.binary), "found": outcome.found,
                    "seconds": round(outcome.seconds, 1), "rule": outcome.rule, "violation": outcome.violation,
                    "reason": outcome.reason,
                }  # fmt: skip
                append(NAME, row)
                why = outcome.reason or outcome.violation or ""
                print(f"{row['bug']} on {row['etcd']}: {row['found']}, {row['seconds']} s {why}".rstrip(), flush=True)
    bugs_page.write()
    good = [_line(scenario, binary, _rows(code, scenario, binary)) for scenario, binary in asked]
    return 0 if all(good) else 1


def _about(code: str, scenario: Scenario, binary: EtcdBinary) -> dict[str, Any]:
    return {"code": code, "bug": scenario.issue, "etcd": binary.version}


def _rows(code: str, scenario: Scenario, binary: EtcdBinary) -> list[dict[str, Any]]:
    return recorded(NAME, _about(code, scenario, binary))


def _line(scenario: Scenario, binary: EtcdBinary, rows: list[dict[str, Any]]) -> bool:
    """Print what came of one bug on one etcd, and return whether it is what is known of them."""
    known = scenario.bug.is_in(binary.version)
    found = sum(row["found"] == Found.AFFECTED for row in rows)
    clean = sum(row["found"] in (Found.NOT_AFFECTED, Found.NOT_SHOWN) for row in rows)
    took = statistics.median(row["seconds"] for row in rows) if rows else 0.0
    good = found == len(rows) if known and scenario.certain else known or clean == len(rows)
    print(
        f"{scenario.issue:20} {binary.version:8} {'has it' if known else 'fixed':7} found {found} clean {clean}"
        f" of {len(rows)}, median {took:.1f} s{'' if good else '  <-- not as known'}"
    )
    return good


if __name__ == "__main__":
    command(main)
