"""The version matrix of `make matrix`: runs what has not run yet on this code, and writes docs/etcd-versions.md.

    python -m tests.matrix                          all that is still to run
    python -m tests.matrix --only 3.7               one release
    python -m tests.matrix --only 3.7:chaos --only 3.6:docker
    python -m tests.matrix --list                   what there is, and what is still to run

Each cell is a real run. What came of it is appended to docs/evidence/etcd-versions.jsonl at once, so Ctrl-C loses
nothing but the cell that runs, and the next call goes on. A cell that failed, or ran on other code (cluster/, loadgen/,
viz/, locustfiles/) or an older release, runs again. On two quiet processors it takes about five minutes a release, two
of them chaos. Exit codes: 0 nothing failed; 1 a cell failed or an etcd could not be had; 2 usage; 130 or 143 a signal.
"""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.base.binary import EtcdBinary
from tests.matrix import cells, document, evidence, targets
from tests.matrix.cells import CELLS, Cell
from tests.matrix.evidence import Evidence
from tests.matrix.place import CellFailed, Place
from tests.support.checkout import code_hash, commit_of
from tests.support.command import ROOT

EVIDENCE = ROOT / "docs" / "evidence" / "etcd-versions.jsonl"
DOCUMENT = ROOT / "docs" / "etcd-versions.md"
Pair = tuple[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the arguments, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.matrix", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="VERSION[:CELL]", action="append", default=[],
                        help="these; repeatable")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="run also what is ok on this code")
    parser.add_argument("--list", action="store_true", help="print each cell's state; run nothing")
    parser.add_argument("--render", action="store_true", help="write the document from the evidence; run nothing")
    options = parser.parse_args(arguments)
    try:
        wanted = choose(options.only)
    except ValueError as exc:
        parser.error(str(exc))
    if options.render:
        _write()
        return 0
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return _list(wanted) if options.list else _run(wanted, again=options.again)
    except KeyboardInterrupt:
        print("stopped; what ran is recorded, and the next call goes on from there", file=sys.stderr)
        return 130


def choose(only: Sequence[str]) -> list[Pair]:
    """Take what ``--only`` says, return pairs of target and cell in the order of the runs. Raises ValueError."""
    names = [cell.name for cell in CELLS]
    every = [(target, name) for target in targets.TARGETS for name in names]
    if not only:
        return every
    chosen: set[Pair] = set()
    for text in only:
        target, _, name = text.partition(":")
        if target not in targets.TARGETS:
            raise ValueError(f"no version {target!r}: there are {', '.join(targets.TARGETS)}")
        if name and name not in names:
            raise ValueError(f"no cell {name!r}: there are {', '.join(names)}")
        chosen.update((target, each) for each in ([name] if name else names))
    return [pair for pair in every if pair in chosen]


def _terminated(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _list(wanted: Sequence[Pair]) -> int:
    code, last = code_hash(ROOT, evidence.CODE), evidence.latest(evidence.read(EVIDENCE))
    print(f"code {code}")
    for target, name in wanted:
        found = last.get((target, name))
        state = "not run" if found is None else found.outcome + ("" if found.code == code else ", on other code")
        print(f"{target + ':' + name:<30} {state:<28} {found.figures if found else ''}".rstrip())
    return 0


def _run(wanted: Sequence[Pair], *, again: bool) -> int:
    code, commit = code_hash(ROOT, evidence.CODE), commit_of(ROOT, evidence.CODE)
    found: dict[str, EtcdBinary] = {}
    missing = []
    for target in dict.fromkeys(target for target, _ in wanted):
        try:
            found[target] = targets.find(target)
        except targets.NoEtcd as exc:
            missing.append(target)
            print(f"{target}: no etcd to run: {exc}", file=sys.stderr)
    versions = {target: binary.version for target, binary in found.items()}
    pairs = [pair for pair in wanted if pair[0] in found]
    left = pairs if again else evidence.to_run(pairs, evidence.read(EVIDENCE), code, versions)
    print(f"{len(left)} of {len(pairs)} cells to run on code {code}", file=sys.stderr)
    failed: list[str] = []
    try:
        for target in dict.fromkeys(target for target, _ in left):
            names = [name for each, name in left if each == target]
            failed += _run_target(Place(target, found[target]), names, code, commit)
    finally:
        _write()
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    print(
        f"{len(left) - len(failed)} ok, {len(failed)} failed; {DOCUMENT.relative_to(ROOT)} is written", file=sys.stderr
    )
    return 1 if failed or missing else 0


def _run_target(place: Place, names: Sequence[str], code: str, commit: str) -> list[str]:
    failed = []
    with place:
        for name in names:
            cell = cells.named(name)
            print(f"{place.binary.version:<8} {name:<20} ", end="", file=sys.stderr, flush=True)
            each = _run_cell(place, cell, code, commit)
            evidence.append(EVIDENCE, each)
            print(f"{each.outcome:<15} {each.seconds:5.1f} s  {each.figures}", file=sys.stderr)
            if each.outcome == "failed":
                failed.append(f"{place.binary.version} {name}: {each.figures} (see {_kept(place, name)})")
        try:
            place.close_shared()
        except CellFailed as failure:
            failed.append(f"{place.binary.version}, the end of the cluster that cells share: {failure}")
    return failed


def _run_cell(place: Place, cell: Cell, code: str, commit: str) -> Evidence:
    begun = time.monotonic()
    outcome: evidence.Outcome
    try:
        with place.cell(cell.name, _kept(place, cell.name)):
            if cell.alone:
                place.close_shared()
            outcome, figures = cell.run(place)
    except Exception as exc:
        outcome, figures = "failed", " ".join(f"{type(exc).__name__}: {exc}".removeprefix("CellFailed: ").split())[:400]
    ended = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Evidence(ended, commit, code, place.target, place.binary.version, cell.name, outcome, figures,
                    round(time.monotonic() - begun, 1))  # fmt: skip


def _kept(place: Place, name: str) -> Path:
    """Where a cell that fails leaves its files."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "raftload" / "matrix" / f"{place.binary.version}-{name}"


def _write() -> None:
    DOCUMENT.write_text(document.render(evidence.read(EVIDENCE)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
