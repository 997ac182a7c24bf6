"""The document of the bugs that etcds were tried for, and its text, JUnit XML and Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.base.console import Painter, columns, printable, short
from cluster.base.verdict import Verdict
from loadgen.bugs.trial import Found
from loadgen.check.rules import RULES
from loadgen.result import junit

if TYPE_CHECKING:
    from cluster.base.binary import EtcdBinary
    from cluster.schema.bugs_documents import BugRow, Bugs, TriedEtcd
    from loadgen.bugs.parallel import Trial
    from loadgen.bugs.trial import Outcome

_STYLES = {Found.AFFECTED: "red", Found.NOT_AFFECTED: "green", Found.NOT_SHOWN: "dim", Found.NOT_TRIED: "yellow"}
_ORDER = (Found.AFFECTED, Found.NOT_TRIED, Found.NOT_SHOWN, Found.NOT_AFFECTED)
_HEAD = ("BUG", "FOUND", "BROKEN", "FIXED IN")
_LONGEST_WHY = 400


def row(trial: Trial, outcome: Outcome) -> BugRow:
    """Return the row of a trial."""
    scenario, bug = trial.scenario, trial.scenario.bug
    return {
        "issue": bug.issue, "name": bug.name, "summary": bug.summary, "url": bug.url, "fixed_in": list(bug.fixed_in),
        "listed": bug.is_in(trial.binary.version), "certain": scenario.certain, "found": outcome.found.value,
        "guarantee": outcome.rule, "promise": RULES[outcome.rule] if outcome.rule else None,
        "violation": outcome.violation, "reason": outcome.reason, "seconds": round(outcome.seconds, 3),
        "tries": outcome.tries, "folder": str(trial.folder) if outcome.tries else None,
    }  # fmt: skip


def document(
    tried: Sequence[tuple[EtcdBinary, Sequence[BugRow]]], *, thorough: bool, seed: int, stopped_by: str | None
) -> Bugs:
    """Return the document. Takes each etcd with its rows, and the signal that ended it before its time."""
    etcds: list[TriedEtcd] = [
        {"version": binary.version, "path": binary.path, "source": binary.whence, "bugs": list(rows)}
        for binary, rows in tried
    ]
    verdict: Verdict = Verdict.PASS
    rows = [each for etcd in etcds for each in etcd["bugs"]]
    if any(each["found"] == Found.AFFECTED for each in rows):
        verdict = Verdict.FAIL
    elif stopped_by or not rows or any(map(_is_open, rows)):
        verdict = Verdict.UNKNOWN
    return {"schema": "raftload.bugs/1", "thorough": thorough, "seed": seed, "etcds": etcds, "stopped_by": stopped_by,
            "verdict": verdict.value}  # fmt: skip


def _is_open(bug: BugRow) -> bool:
    """Whether a trial leaves it open if the bug is there."""
    return bug["found"] == Found.NOT_TRIED or (bug["found"] == Found.NOT_SHOWN and bug["listed"])


def words(bug: BugRow) -> str:
    """Return what was found in words: ``affected``, ``not shown in 60 s``."""
    return f"{bug['found']} in {bug['seconds']:.0f} s" if bug["found"] == Found.NOT_SHOWN else bug["found"]


def render(found: Bugs, *, color: bool, width: int = 100) -> str:
    """Return the document as people read it: a table for each etcd, what broke, and what that means, in a line or two.

    What is affected stands first.
    """
    paint = Painter(color)
    lines: list[str] = []
    for etcd in found["etcds"]:
        whence = "" if etcd["source"] == etcd["path"] else f"{etcd['source']}: "
        lines += [paint(f"etcd {etcd['version']}", "bold") + f" ({whence}{etcd['path']})", ""]
        if etcd["bugs"]:
            bugs = sorted(etcd["bugs"], key=lambda bug: _ORDER.index(Found(bug["found"])))
            lines += [f"  {line}" for line in _table(bugs, paint)]
            lines += ["", *_reasons(bugs, min(max(width, 60), 120))]
        lines += [*_summary(etcd, thorough=found["thorough"]), ""]
    if found["stopped_by"]:
        lines += [f"ended early by {found['stopped_by']}", ""]
    return "\n".join(lines[:-1])


def _table(bugs: Sequence[BugRow], paint: Painter) -> list[str]:
    rows = [_HEAD, *(
        (bug["name"], words(bug), bug["guarantee"] or "-", ", ".join(bug["fixed_in"]) or "no release yet")
        for bug in bugs
    )]  # fmt: skip
    head, *rest = columns(rows)
    return [paint(head, "dim"), *(paint(line, _STYLES[Found(bug["found"])]) if bug["found"] != Found.NOT_AFFECTED
            else line for line, bug in zip(rest, bugs, strict=True))]  # fmt: skip


def _reasons(bugs: Sequence[BugRow], width: int) -> list[str]:
    """Return what broke of each bug that is there, and why the rest could not be tried, each reason once."""
    lines: list[str] = []
    others: dict[tuple[str, str], list[str]] = {}
    for bug in bugs:
        why = short(printable(bug["violation"] or bug["reason"] or ""), _LONGEST_WHY)
        if bug["found"] == Found.AFFECTED:
            lines += _wrapped(f"{bug['name']}: {bug['summary']}", width, "  ")
            lines += [f"    {bug['url']}", *_wrapped(f"broken: {bug['promise']}", width, "    ")]
            lines += _wrapped(why, width, "    ")
        elif why:
            others.setdefault((words(bug), why), []).append(bug["name"])
    for (what, why), names in others.items():
        lines += _wrapped(f"{', '.join(names)}: {what}: {why}", width, "  ")
    return [*lines, ""] if lines else []


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False)


def _summary(etcd: TriedEtcd, *, thorough: bool) -> list[str]:
    """Return how many bugs there are, which release has fixes, and what may be tried next."""
    bugs = etcd["bugs"]
    counts = [f"{len(some)} {word}" for word in Found if (some := [bug for bug in bugs if bug["found"] == word])]
    lines = [f"etcd {etcd['version']}: {', '.join(counts) or 'nothing was tried'}"]
    affected = [bug for bug in bugs if bug["found"] == Found.AFFECTED]
    fixes = [fix for bug in affected if (fix := _fix(bug, etcd["version"]))]
    unfixed = [bug["name"] for bug in affected if not _fix(bug, etcd["version"])]
    if fixes:
        many = f"{len(fixes)} of these are" if unfixed else "all of these are"
        lines.append(f"{many} fixed in {max(fixes, key=_number)}")
    if unfixed:
        line = ".".join(map(str, _number(etcd["version"])[:2]))
        lines.append(f"not fixed in {line} yet: {', '.join(unfixed)}")
    if any(bug["found"] == Found.NOT_SHOWN for bug in bugs) and not thorough:
        lines.append("what was not shown needs luck: --thorough tries longer")
    return lines


def _fix(bug: BugRow, version: str) -> str:
    """Return the first version of the same line, such as 3.5, that has the fix; empty for none."""
    line = _number(version)[:2]
    return next((each for each in bug["fixed_in"] if _number(each)[:2] == line), "")


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("-", maxsplit=1)[0].split(".") if part.isdigit())


def to_xml(found: Bugs) -> str:
    """Return the document as JUnit XML: a test case for each bug of each etcd, which fails where it is affected.

    What leaves open whether a bug is there is an error, as it is for the exit code.
    """
    cases = [
        (f"etcd {etcd['version']}: {bug['name']}: {bug['summary']}", _case(bug),
         bug["violation"] or bug["reason"] or words(bug), words(bug))
        for etcd in found["etcds"] for bug in etcd["bugs"]
    ]  # fmt: skip
    times_s = [bug["seconds"] for etcd in found["etcds"] for bug in etcd["bugs"]]
    return junit.suite("bugs", cases, sum(times_s), times_s=times_s)


def _case(bug: BugRow) -> str:
    """Return the verdict of a bug's test case."""
    if bug["found"] == Found.AFFECTED:
        return "fail"
    return "unknown" if _is_open(bug) else "pass"


def to_markdown(found: Bugs) -> str:
    """Return the document as Markdown: a row for each bug, and a column for each etcd."""
    by_issue: dict[str, dict[int, BugRow]] = {}
    for at, etcd in enumerate(found["etcds"]):
        for bug in etcd["bugs"]:
            by_issue.setdefault(bug["issue"], {})[at] = bug
    heads = [f"etcd {etcd['version']}" for etcd in found["etcds"]]
    lines = [f"### raftload bugs: {found['verdict'].upper()}", ""]
    lines += [f"| bug | {' | '.join(heads)} | fixed in |", f"| --- | {'--- | ' * len(heads)}--- |"]
    for bugs in by_issue.values():
        bug = next(iter(bugs.values()))
        cells = [_cell(bugs[at]) if at in bugs else "-" for at in range(len(heads))]
        name = f"[{junit.as_markdown(bug['name'])}]({bug['url']}) {junit.as_markdown(bug['summary'])}"
        lines.append(f"| {name} | {' | '.join(cells)} | {', '.join(bug['fixed_in']) or '-'} |")
    return "\n".join(lines) + "\n\n"


def _cell(bug: BugRow) -> str:
    return f"**{words(bug)}**" if bug["found"] == Found.AFFECTED else words(bug)
