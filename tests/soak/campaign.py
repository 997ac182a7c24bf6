"""The general campaign for long: `raftload chaos` with all actors and faults, disks' too, and the bugs that it meets.

    python -m tests.soak.campaign --hour 3.7.3        # an hour, in which nothing may break that no known bug explains
    python -m tests.soak.campaign --find 3.5.1        # a quarter of an hour: which known bugs it finds by itself
    python -m tests.soak.campaign --again DIR         # what --folder DIR kept of an hour, by the check of today

Each slice is a run on a new cluster with the next seed, and a row of docs/evidence/campaign.jsonl. Rows of the same
code, release and kind count, so that it goes on where it was ended. The exit code is 1 where something broke that no
known bug explains, 3 where a slice could not be judged, and else 0. In the end it writes docs/known-bugs.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from cluster.base.binary import EtcdBinary, find_etcd
from cluster.base.known_bugs import known_bugs
from cluster.base.parser import Duration, Whole
from cluster.base.verdict import Verdict
from cluster.faults.plan import DEFAULT, kind_of
from tests.soak import bugs_page
from tests.soak.record import about_now, append, command, recorded, run
from tests.support.command import ROOT

NAME = bugs_page.CAMPAIGN
_CODE = ("cluster/faults", "cluster/local", "loadgen/chaos", "loadgen/check", "loadgen/client", "loadgen/history")
FAULTS = (
    *(name for name in DEFAULT if (kind := kind_of(name)) is None or not kind.request),  # the actors ask for these
    "crash-random", "delay-random", "drop-follower", "slow-disk-leader", "slow-disk-all", "stuck-disk-follower",
    "stuck-disk-leader", "disk-error-random", "disk-full-random",
)  # fmt: skip
# Of the load, and of one slice; a slice that broke something ends before its time.
MINUTES = {"hour": 60.0, "find": 15.0}
SLICE_S = {"hour": 600.0, "find": 180.0}
EVERY_S = 4.0
# What may come of a slice beside its load: the start, faults that take longer to heal, and the check.
_HANGS_S = 1800.0
_LONGEST = 300
_VERDICTS = {each.exit_code: each.value for each in (Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN)}


def main() -> int:
    """Run the slices that are missing, and print what came of all. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.campaign", description=__doc__.splitlines()[0])
    for kind, minutes in MINUTES.items():
        parser.add_argument(
            f"--{kind}", action="append", default=[], metavar="ETCD",
            help=f"{minutes:.0f} minutes on this etcd, a path or a release that was fetched; may be repeated",
        )  # fmt: skip
    parser.add_argument("--for", dest="for_s", type=Duration(1), metavar="DURATION", help="of each, in place of these")
    parser.add_argument("--slice", type=Duration(1), metavar="DURATION", help="of one run (default: 10m, to find 3m)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep the run folders of all slices")
    parser.add_argument("--again", type=Path, metavar="DIR", help="check the run folders of --folder once more")
    parser.add_argument("--jobs", type=Whole(1, 64), default=1, metavar="N", help="runs at a time (default: 1)")
    args = parser.parse_args()
    if args.folder is not None:
        args.folder.mkdir(parents=True, exist_ok=True)
    if args.again is not None:
        return _again(args.again)
    codes = [
        _campaign(kind, find_etcd(each), args.for_s or 60 * MINUTES[kind], args.slice or SLICE_S[kind], args.folder,
                  args.jobs)
        for kind in MINUTES for each in getattr(args, kind)
    ]  # fmt: skip
    bugs_page.write()
    return next((code for code in (1, 3) if code in codes), 0)


def _campaign(kind: str, etcd: EtcdBinary, seconds: float, slice_s: float, folder: Path | None, jobs: int) -> int:
    about = {"code": about_now(*_CODE)["code"], "kind": kind, "etcd": etcd.version}
    rows = bugs_page.checked_last(recorded(NAME, about))
    # What ends early leaves time for another one.
    while (left_s := seconds - 60 * sum(row["minutes"] for row in rows)) > 1:
        first = max((row["seed"] for row in rows), default=0) + 1
        lengths = [slice_s] * int(left_s // slice_s) or [left_s]
        pool = ThreadPoolExecutor(jobs)
        try:
            begun = [pool.submit(one_run, etcd, length, first + n, folder) for n, length in enumerate(lengths)]
            for done in as_completed(begun):
                row = {**about, **done.result()}
                append(NAME, row)
                rows.append(row)
                print(f"{kind} {etcd.version}, seed {row['seed']}: {_line(row)}", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)
    return _summary(kind, etcd.version, rows)


def _again(folder: Path) -> int:
    """Check histories that were recorded before: what a change of the check alone makes of them.

    Each is a row that takes the place of that of its run: ``again`` is the code that checked it.
    """
    code = about_now(*_CODE)["code"]
    campaigns: dict[tuple[str, ...], dict[str, str]] = {}
    for path in sorted(each.parent for each in folder.glob("*/result.json")):
        result = json.loads((path / "result.json").read_text(encoding="utf-8"))
        version, seed = result["target"]["etcd_version"], result["run"]["seed"]
        (*_, run_of) = recorded(NAME, {"etcd": version, "seed": seed, "operations": result["check"]["operations"]})
        words = (sys.executable, "-m", "loadgen.cli", "check", str(path), "--json")
        done = run(*words, timeout_s=_HANGS_S, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)})
        row = {
            **{key: run_of[key] for key in ("code", "kind", "etcd", "seed", "seconds")}, "exit": done.returncode,
            "again": code, **_found({**result, "check": json.loads(done.stdout), "verdict_reasons": [],
                                     "verdict": _VERDICTS[done.returncode]}),
        }  # fmt: skip
        append(NAME, row)
        about = {key: run_of[key] for key in ("kind", "etcd", "code")}
        campaigns[tuple(about.values())] = about
        print(f"{run_of['kind']} {version}, seed {seed}, again: {_line(row)}", flush=True)
    codes = [
        _summary(about["kind"], about["etcd"], bugs_page.checked_last(recorded(NAME, about)))
        for _, about in sorted(campaigns.items())
    ]  # fmt: skip
    bugs_page.write()
    return next((each for each in (1, 3) if each in codes), 0)


def one_run(etcd: EtcdBinary, seconds: float, seed: int, folder: Path | None) -> dict[str, Any]:
    """Run the campaign once, and return what came of it. Keeps the run folder, where told to."""
    rounds = max(1, round(seconds / EVERY_S))
    words = (
        "chaos", "--etcd", str(etcd.path), "--actors", "all", "--faults", ",".join(FAULTS), "--every", f"{EVERY_S:g}s",
        "--rounds", str(rounds), "--duration", f"{seconds:.0f}s", "--seed", str(seed), "--workers", "1", "--json",
    )  # fmt: skip
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="raftload-campaign-", dir=folder) as temporary:
        kept = Path(temporary, "run")
        done = run(
            sys.executable, "-m", "loadgen.cli", *words, "--output", str(kept), timeout_s=seconds + _HANGS_S,
            cwd=temporary, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE,
        )  # fmt: skip
        row: dict[str, Any] = {"seed": seed, "seconds": round(time.monotonic() - began, 1), "exit": done.returncode}
        if done.returncode not in (0, 1, 3):
            # It counts as over, so that it is not tried for ever.
            error = done.stderr.strip()[-_LONGEST:]
            return {**row, "minutes": round(seconds / 60, 2), "error": error, "broken": [], "explained": [], "open": []}
        result = json.loads(done.stdout)
        if folder is not None:
            kept.rename(folder / f"{etcd.version}-{seed}-{int(time.time())}")
    return {**row, **_found(result)}


def _found(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a row says of a result."""
    chaos, check = result["chaos"], result["check"]
    named = {row["name"]: row for row in check["guarantees"]}
    return {
        "minutes": round(result["run"]["duration_s"] / 60, 2),
        "operations": check["operations"], "watches": check["watches"], "faults": len(chaos["faults"]),
        "actors": sum(chaos["actors"].values()), "verdict": result["verdict"], "stopped_by": chaos["stopped_by"],
        "broken": [
            {"guarantee": name, "times": named[name]["unexplained"],
             "first": named[name]["violations"][0]["text"][:_LONGEST]}
            for name in check["news"]
        ],
        "explained": [{key: bug[key] for key in ("bug", "guarantees", "places")} for bug in check["explained"]],
        "open": [reason[:_LONGEST] for reason in result["verdict_reasons"] if result["verdict"] != "fail"],
        "error": "",
    }  # fmt: skip


def _line(row: dict[str, Any]) -> str:
    """Return a slice in words."""
    if row["error"]:
        return f"exit code {row['exit']}: {row['error']}"
    explained = ", ".join(f"{each['bug']} {each['places']} times" for each in row["explained"])
    broken = "; ".join(f"{each['guarantee']} {each['times']} times: {each['first']}" for each in row["broken"])
    words = f"{row['minutes']:.1f} minutes, {row['operations']:,} operations, {row['faults']} faults, {row['verdict']}"
    parts = {"known": explained, "NOT EXPLAINED": broken, "open": "; ".join(row["open"][:2])}
    return words + "".join(f"; {name}: {text}" for name, text in parts.items() if text)


def _summary(kind: str, version: str, rows: Sequence[dict[str, Any]]) -> int:
    """Print what came of all slices on a release, and return the exit code."""
    minutes, after = 0.0, {}
    for row in rows:
        minutes += row["minutes"]
        for each in row["explained"]:
            after.setdefault(each["bug"], minutes)
    news = sum(len(row["broken"]) for row in rows)
    unjudged = sum(bool(row["error"]) or row["exit"] == 3 for row in rows)
    print(
        f"{kind} {version}: {minutes:.1f} minutes, {len(rows)} slices, {news} broken that no known bug explains,"
        f" {unjudged} not judged; {len(after)} of the {len(known_bugs(version))} known bugs of this release were"
        " met" + "".join(f"\n  {bug} within {at:.1f} minutes" for bug, at in after.items()),
        flush=True,
    )
    return 1 if news else 3 if unjudged else 0


if __name__ == "__main__":
    command(main)
