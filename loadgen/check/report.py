"""The document of a check, made from a run folder, and its text."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from cluster.base.console import Painter
from cluster.base.known_bugs import BUGS, bug_of
from cluster.base.verdict import Verdict, overall
from cluster.schema import repeat
from loadgen.check.rules import OF_CALLS, RULES, Result, in_order

if TYPE_CHECKING:
    from cluster.observe.raftlog import Log
    from cluster.schema.run_documents import Check, ExplainedBy, Guarantee
    from loadgen.check.judge import Report
    from loadgen.history.reader import History

# That a refused write is there, or an acknowledged one is gone, says more than what follows from it.
_TELLING = ("kv.failed", "durability.acknowledged")


def judged(folder: Path, rules: Sequence[str] = tuple(RULES)) -> Check:
    """Return the check document of a run folder. Raises HistoryError where it has no history, and OSError."""
    history, report = found(folder, rules)
    run = _run(folder)
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
        "news": [result.rule for result in _in_order(report.results) if result.unexplained],
        "explained": _explained(report.results),
        "verdict": overall(result.verdict for result in report.results).value,
    }


def found(folder: Path, rules: Sequence[str] = tuple(RULES)) -> tuple[History, Report]:
    """Return the history of a run folder, and what it says of each rule that it can say something of.

    Raises HistoryError where it has no history, or a record of calls that is damaged, and OSError.
    """
    from loadgen.check.judge import check
    from loadgen.history.calls import has_calls, read_calls
    from loadgen.history.reader import read

    calls = read_calls(folder) if has_calls(folder) else None
    if calls is None:  # no load records any; whoever asks for these rules alone is told so
        rules = [rule for rule in rules if rule not in OF_CALLS] or rules
    history = read(folder)
    return history, check(history, rules, _logs(folder / "logs"), calls)


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
        "unexplained": result.unexplained,
        "reason": result.reason or None,
        "violations": [
            {"revision": finding.revision, "text": finding.text,
             "bug": bug_of(finding.issue).name if finding.issue else None}
            for finding in result.findings
        ],
    }  # fmt: skip


def _broken(results: Sequence[Result]) -> list[str]:
    return [result.rule for result in _in_order(results)]


def _in_order(results: Sequence[Result]) -> list[Result]:
    """Return the broken guarantees: first those with violations that no known bug explains, by the first of these.

    Of several at one revision, those that say most stand first.
    """
    order = (*_TELLING, *RULES)
    broken = [result for result in results if result.findings]
    return sorted(broken, key=lambda result: (*in_order(result.findings[0]), order.index(result.rule)))


def _explained(results: Sequence[Result]) -> list[ExplainedBy]:
    """Return what each known bug explains, the one with the most first."""
    by_issue = {
        bug.issue: [result for result in results if bug.issue in result.explained] for bug in BUGS
    }  # fmt: skip
    found: list[ExplainedBy] = [
        {"bug": bug.name, "issue": issue, "summary": bug.summary, "url": bug.url, "fixed_in": [*bug.fixed_in],
         "guarantees": [result.rule for result in by], "places": sum(result.explained[issue] for result in by)}
        for issue, by in by_issue.items() if by and (bug := bug_of(issue))
    ]  # fmt: skip
    return sorted(found, key=lambda each: -each["places"])


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


def news(document: Check) -> list[str]:
    """Return the guarantees with violations that no known bug explains; of a document of before, all broken ones."""
    return document.get("news", document["broken"])


def _violations(document: Check, paint: Painter, width: int) -> list[str]:
    """Return what broke each guarantee: what no known bug explains, and then a line for each bug."""
    named = {row["name"]: row for row in document["guarantees"]}
    explained = document.get("explained", [])
    lines = []
    for number, row in enumerate(map(named.__getitem__, news(document))):
        found, count = row["violations"][0], row.get("unexplained", row["broken"])
        if number == 0:
            which = " that no known bug explains" if explained else ""
            lines += ["", paint(f"The first violation{which}, at revision {found['revision']}:", "red")]
        elif number == 1:
            lines += ["", "Also broken, with the first violation of each:"]
        lines += ["", paint(f"{row['name']} is broken: {row['promise']}", "red")]
        lines += textwrap.wrap(found["text"], width, initial_indent="  ", subsequent_indent="  ")
        if number == 0 and document.get("nearest_fault"):
            lines.append(f"  Nearest fault: {document['nearest_fault']}")
        if count > 1:
            lines.append(f"  … and {count - 1:,} more, from revision {found['revision']} on")
    if explained:
        rest = "The other violations are of known bugs:"
        if not lines:
            rest = "No news: each violation is of a known bug:"
            if document.get("nearest_fault"):
                rest += f"\n  Nearest fault: {document['nearest_fault']}"
        lines += ["", paint(rest, "yellow")]
        for bug in explained:
            text = f"{bug['bug']}{_fixed(bug['fixed_in'])}, {_places(bug['places'])}: {', '.join(bug['guarantees'])}"
            lines += textwrap.wrap(f"{text}; {bug['summary']}", width, initial_indent="  ", subsequent_indent="    ")
            lines += _example(document, bug, width)
    return lines


def _example(document: Check, bug: ExplainedBy, width: int) -> list[str]:
    """Return the first violation that a bug explains, in words."""
    named = {row["name"]: row for row in document["guarantees"]}
    for rule in document["broken"]:
        for each in named[rule]["violations"]:
            if each.get("bug") == bug["bug"]:
                text = f"{rule} at revision {each['revision']}: {each['text']}"
                return textwrap.wrap(text, width, initial_indent="    such as ", subsequent_indent="      ")
    return []


def _fixed(versions: Sequence[str]) -> str:
    return f" (fixed in {', '.join(versions)})" if versions else " (not fixed)"


def _places(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def render(document: Check, *, color: bool, width: int = 100, verdict: str = "verdict") -> str:
    """Return a check document as text, without a final newline.

    Takes what its last line calls the verdict: of a run that has one of its own, this is another.
    """
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
    lines += _violations(document, paint, width)
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
    lines.append(f"{verdict:<10} {paint(document['verdict'], Verdict(document['verdict']).style)}")
    return "\n".join(line.rstrip() for line in lines)
