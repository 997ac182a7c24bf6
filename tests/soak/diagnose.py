"""The ground truth of `raftload diagnose`: causes are injected, evidence is stored, and diagnoses of it are judged.

    python -m tests.soak.diagnose --collect ETCD...              # five runs of each cause on each of these etcds
    python -m tests.soak.diagnose --collect --half A --cause A06 --runs 1 ETCD
    python -m tests.soak.diagnose --judge --half A               # what today's rules make of what is stored
    python -m tests.soak.diagnose --table                        # the same into docs/diagnose.md

Each run is a row of docs/evidence/diagnose.jsonl, with what probes and the load's run folder tell; rows of the same
code count, so that it goes on where it was ended. What a machine cannot inject is said, and left out. The exit code is
1 where runs failed, or where a diagnosis is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from cluster.base.binary import EtcdBinary, find_etcd
from cluster.base.parser import Whole
from tests.diagnose import injectors, judging, one_run
from tests.diagnose.causes import CAUSES, Cause, Half
from tests.diagnose.judging import Case
from tests.soak.record import append, command, recorded, run
from tests.support.checkout import code_hash
from tests.support.command import ROOT

if TYPE_CHECKING:
    from cluster.schema.diagnose_documents import DiagnosisDocument
    from loadgen.diagnose.facts import Evidence

NAME = "diagnose.jsonl"
PAGE = ROOT / "docs" / "diagnose.md"
BEGIN, END = "<!-- the confusion matrix begins -->", "<!-- the confusion matrix ends -->"
# What evidence comes from. Rules are made of it, and of a cause counts how that one is injected.
_CODE = ("cluster/observe", "loadgen/diagnose", "tests/diagnose")
_EVIDENCE = {"loadgen/diagnose": ("facts.py", "observed.py", "prober.py"),
             "tests/diagnose": ("machine.py", "one_run.py", "scene.py")}  # fmt: skip
_TITLES: dict[Half, str] = {
    "A": "Causes that the rules were made on",
    "B": "Causes that they were evaluated on first, and then mended by",
    "C": "Causes that they were evaluated on then, and mended by",
    "D": "Causes that they were evaluated on last, and mended by",
}
_HANGS_S = 400.0
_LONGEST = 300


def main() -> int:
    """Collect, judge or write the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.diagnose", description=__doc__.splitlines()[0])
    parser.add_argument("etcds", nargs="*", metavar="ETCD", help="paths of etcds, or releases that were fetched")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--collect", action="store_true", help="make the runs that are missing")
    what.add_argument("--judge", action="store_true", help="diagnose what is stored, and print how right that is")
    what.add_argument("--table", action="store_true", help=f"the same into {PAGE.name}")
    what.add_argument("--list", action="store_true", help="print the causes, and which cannot be injected here")
    parser.add_argument("--half", choices=get_args(Half), default="", help="of this part of the causes (default: all)")
    parser.add_argument("--cause", choices=sorted(CAUSES), action="append", default=[], metavar="NAME",
                        help="of this cause, such as A06; may be repeated")  # fmt: skip
    parser.add_argument("--runs", type=Whole(1, 99), default=5, metavar="N", help="of each (default: 5)")
    parser.add_argument("--dry-run", action="store_true", help="with --collect: print the runs that are missing")
    args = parser.parse_args()
    chosen = [
        cause for cause in CAUSES.values()
        if args.half in ("", cause.half) and (not args.cause or cause.name in args.cause)
    ]  # fmt: skip
    if args.list:
        return _list(chosen)
    if args.collect:
        if not args.etcds:
            parser.error("--collect needs an etcd")
        return collect(chosen, [find_etcd(each) for each in args.etcds], args.runs, dry_run=args.dry_run)
    names = {cause.name for cause in chosen}
    cases = judging.judge([row for row in recorded(NAME, {}) if row["cause"] in names], _diagnose)
    if args.table:
        write_table(cases)
    else:
        print(report(cases))
    return 0 if all(case.is_right for case in cases) else 1


def _diagnose(evidence: Evidence) -> DiagnosisDocument:
    from loadgen.diagnose import causes

    return causes.diagnose(evidence).to_json()


def _list(chosen: Sequence[Cause]) -> int:
    for cause in chosen:
        reason = injectors.why_not(cause.name)
        whom = f" of {cause.of}" if cause.of else ""
        print(f"{cause.name}  {cause.label}{whom}: {cause.injected}" + (f"  <-- not here: {reason}" if reason else ""))
    return 0


# The runs


def evidence_code() -> str:
    """Return what stands for the code that evidence comes from."""
    others = [
        f"{folder}/{path.name}"
        for folder, names in _EVIDENCE.items() for path in (ROOT / folder).iterdir() if path.name not in names
    ]  # fmt: skip
    return code_hash(ROOT, _CODE, others)


def collect(chosen: Sequence[Cause], etcds: Sequence[EtcdBinary], runs: int, *, dry_run: bool = False) -> int:
    """Make the runs that are missing, one of each cause and etcd before the second of any. Returns the exit code."""
    code, injected = evidence_code(), injectors.sources()
    there = {
        (row["cause"], row["etcd"], row["run_number"])
        for row in recorded(NAME, {"code": code}) if row["injected"] == injected.get(row["cause"])
    }  # fmt: skip
    missing = [
        (number, etcd, cause)
        for number in range(1, runs + 1) for etcd in etcds for cause in chosen
        if (cause.name, etcd.version, number) not in there
    ]  # fmt: skip
    reasons = {cause.name: injectors.why_not(cause.name) for cause in {cause for _, _, cause in missing}}
    for name, reason in sorted(reasons.items()):
        if reason:
            print(f"{name} is left out: {reason}", flush=True)
    failed = 0
    for number, etcd, cause in missing:
        if reasons[cause.name]:
            continue
        title = f"{cause.name} on {etcd.version}, run {number}"
        if dry_run:
            print(title)
            continue
        began = time.monotonic()
        row, error = one(cause.name, etcd)
        if row is not None:
            about = {"code": code, "injected": injected[cause.name], "processors": len(os.sched_getaffinity(0))}
            append(NAME, {**about, "cause": cause.name, "etcd": etcd.version, "run_number": number, **row})
        failed += row is None
        print(f"{title}: {error or 'stored'}, {time.monotonic() - began:.0f} s", flush=True)
    return 1 if failed else 0


def one(cause: str, etcd: EtcdBinary) -> tuple[dict[str, Any] | None, str]:
    """Run a cause once, in a process of its own; return what the row has of it, or None and why there is none."""
    try:
        done = run(
            *one_run.words(cause, str(etcd.path)), timeout_s=_HANGS_S, stderr=subprocess.PIPE, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, f"not done within {_HANGS_S:g} s"
    if done.returncode:
        return None, f"exit code {done.returncode}: {done.stderr.strip()[-_LONGEST:]}"
    return json.loads(done.stdout), ""


# What came of them


def report(cases: Sequence[Case]) -> str:
    """Return the figures of the cases, by half and source, and each that is wrong."""
    parts = []
    for half in get_args(Half):
        for source in judging.SOURCES:
            found = [case for case in cases if case.cause.half == half and case.source == source]
            if found:
                parts.append(f"half {half}, {source}: {judging.summary(found)}\n" + "\n".join(judging.table(found)))
    wrong = [str(case) for case in cases if not case.is_right]
    return "\n\n".join([*parts, "\n".join(["wrong:", *wrong]) if wrong else "none is wrong"])


def write_table(cases: Sequence[Case]) -> None:
    """Write the tables into the page between their two marks. Raises SystemExit where it has none."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{PAGE} lacks a line {BEGIN} or {END}")
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{tables(cases)}\n{rest[rest.index(END) :]}", encoding="utf-8")


def tables(cases: Sequence[Case]) -> str:
    """Return what stands there: for each half and source the matrix, and how many are right by release."""
    parts = []
    for half, title in _TITLES.items():
        for source in judging.SOURCES:
            found = [case for case in cases if case.cause.half == half and case.source == source]
            if not found:
                continue
            releases = sorted({case.etcd for case in found})
            right = ", ".join(
                f"{etcd}: {judging.share(case.is_right for case in found if case.etcd == etcd)}" for etcd in releases
            )
            what = "probes" if source == "probes" else "run folders"
            parts += [f"**{title}, from {what}.** {judging.summary(found).capitalize()}. By release: {right}.", ""]
            parts += [*judging.table(found), ""]
    return "\n".join(parts).rstrip()


if __name__ == "__main__":
    command(main)
