"""The document of a check, made from a run folder, and its text."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from cluster.base.console import Painter
from cluster.base.verdict import Verdict, overall
from cluster.schema import repeat
from loadgen.check.rules import RULES, Result

if TYPE_CHECKING:
    from cluster.observe.raftlog import Log
    from cluster.schema.run_documents import Check, Guarantee

# That a refused write is there, or an acknowledged one is gone, says more than what follows from it.
_TELLING = ("kv.failed", "durability.acknowledged")


def judged(folder: Path, rules: Sequence[str] = tuple(RULES)) -> Check:
    """Return the check document of a run folder. Raises HistoryError where it has no history, and OSError."""
    from loadgen.check.judge import check
    from loadgen.history.reader import read

    history = read(folder)
    run = _run(folder)
    report = check(history, rules, _logs(folder / "logs"))
    return {
        "schema": "raftload.check/1",
        "run": folder.resolve().name,
        "command": repeat.words(run["command"], run["seed"]) or None,
        "environment": run["environment"],
        "etcd_version": run["etcd_version"],
        "operations": report.operations,
        "watches": report.watches,
        "lease_overdue_s": report.lease_overdue_s,
        "nearest_fault": report.nearest_fault,
        "files": [{"name": part.path.name, "cut": part.cut or None} for part in history.parts],
        "guarantees": [_row(result) for result in report.results],
        "broken": _broken(report.results),
        "verdict": overall(result.verdict for result in report.results).value,
    }


def _logs(folder: Path) -> list[Log]:
    """Read members' logs; files that are no member's are left out."""
    from cluster.observe.raftlog import read_log

    logs = []
    for path in sorted(folder.rglob("*.log")) if folder.is_dir() else ():
        with path.open(encoding="utf-8", errors="replace") as lines:
            log = read_log(lines, path.stem)
        if log.member and log.events:
            logs.append(log)
    return logs


def _row(result: Result) -> Guarantee:
    return {
        "name": result.rule,
        "promise": RULES[result.rule],
        "verdict": result.verdict.value,
        "judged": result.judged,
        "broken": result.broken,
        "reason": result.reason or None,
        "violations": [{"revision": finding.revision, "text": finding.text} for finding in result.findings],
    }


def _broken(results: Sequence[Result]) -> list[str]:
    """Return the broken guarantees by their first violation; of several at one revision, those that say most first."""
    order = (*_TELLING, *RULES)
    broken = [result for result in results if result.findings]
    broken.sort(key=lambda result: (result.findings[0].revision, order.index(result.rule)))
    return [result.rule for result in broken]


class _Repeated(TypedDict):
    """What a run.json says of how to do the run again."""

    command: list[str]
    seed: int | None
    environment: dict[str, str | None]
    etcd_version: str | None


def _run(folder: Path) -> _Repeated:
    """Return what repeats the run, as far as its run.json says."""
    try:
        found = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    run = found if isinstance(found, dict) else {}
    command, environment, target = run.get("command"), run.get("environment"), run.get("target")
    return {
        "command": [str(word) for word in command] if isinstance(command, list) else [],
        "seed": run.get("seed"),
        "environment": dict(environment) if isinstance(environment, dict) else {},
        "etcd_version": target.get("etcd_version") if isinstance(target, dict) else None,
    }


def render(document: Check, *, color: bool, width: int = 100) -> str:
    """Return a check document as text, without a final newline."""
    width = max(60, min(width, 120))
    paint = Painter(color)
    rows = document["guarantees"]
    first = max(len(row["name"]) for row in rows)
    lines = [f"{document['run']}: {document['operations']:,} operations, {document['watches']:,} watches", ""]
    lines.append(f"{'guarantee':<{first}}  {'verdict':<7}  {'judged':>11}")
    for row in rows:
        judged_ = f"{row['judged']:,}" if row["judged"] else "-"
        line = f"{row['name']:<{first}}  {paint(row['verdict'].ljust(7), Verdict(row['verdict']).style)}  {judged_:>11}"
        if row["broken"]:
            line += f"  broken {row['broken']:,} times" if row["broken"] > 1 else "  broken once"
        elif row["reason"]:
            room = max(20, width - first - 24)
            line += f"  {textwrap.shorten(row['reason'], room, placeholder=' …')}"
        lines.append(line)
    named = {row["name"]: row for row in rows}
    for number, row in enumerate(map(named.__getitem__, document["broken"])):
        found = row["violations"][0]
        if number == 0:
            lines += ["", paint(f"The first violation, at revision {found['revision']}:", "red")]
        elif number == 1:
            lines += ["", "Also broken, with the first violation of each:"]
        lines += ["", paint(f"{row['name']} is broken: {row['promise']}", "red")]
        lines += textwrap.wrap(found["text"], width, initial_indent="  ", subsequent_indent="  ")
        if number == 0 and document.get("nearest_fault"):
            lines.append(f"  Nearest fault: {document['nearest_fault']}")
        if row["broken"] > 1:
            lines.append(f"  … and {row['broken'] - 1:,} more, from revision {found['revision']} on")
    unknown = [row for row in rows if row["verdict"] == Verdict.UNKNOWN]
    if unknown:
        lines.append("")
        for row in unknown:
            text = f"{row['name']} is unknown: {row['reason']}"
            lines += textwrap.wrap(text, width, subsequent_indent="  ")
    lines.append("")
    for file in document["files"]:
        if file["cut"]:
            lines.append(f"note       {file['name']}: {file['cut']}")
    if document["lease_overdue_s"] is not None:
        lines.append(f"leases     outlived their TTL by at most {document['lease_overdue_s']:.2f} s")
    if document["command"]:
        lines.append(f"repeat     {repeat.line(document['command'], document.get('environment') or {})}")
    if version := document.get("etcd_version"):
        lines.append(f"etcd       {version}")
    lines.append(f"verdict    {paint(document['verdict'], Verdict(document['verdict']).style)}")
    return "\n".join(line.rstrip() for line in lines)
