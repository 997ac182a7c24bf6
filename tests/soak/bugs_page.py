"""The page docs/known-bugs.md: on which releases each known bug was found, by what, and in which time.

It is made of the records of `tests.soak.bugs` and `tests.soak.campaign`, and written by both when they end. Of each
cell the rows of the code of its newest row count.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.base.known_bugs import Bug
from cluster.observe.probe import version_key
from loadgen.bugs.catalogue import catalogue
from loadgen.bugs.scenario import Scenario
from loadgen.bugs.trial import Found
from tests.soak.record import recorded
from tests.support.command import ROOT

TRIALS, CAMPAIGN = "bugs.jsonl", "campaign.jsonl"
PAGE = ROOT / "docs" / "known-bugs.md"
Row = dict[str, Any]
OWN, GENERAL, BOTH, NEITHER = "its own track", "the campaign", "both", "-"
_CLEAN = (Found.NOT_AFFECTED, Found.NOT_SHOWN)
_HEAD = """\
# The bugs of etcd that raftload finds

[`raftload bugs`](guides/bugs.md) tries these bugs on your etcd. This page says what it found on which release of etcd.
To try a release yourself, fetch it first: `raftload etcd get 3.5.16`, then `raftload bugs --etcd 3.5.16`.
The binaries were unmodified, and each trial had a new cluster. `python -m tests.soak.bugs` and
`python -m tests.soak.campaign` try the bugs. `python -m tests.soak.bugs --table` writes this page from their records in
`docs/evidence`.

| in the table | means |
| --- | --- |
| found 5/5, 2.1 s | the release has the bug, and five of five trials found it; 2.1 s is the median of whole trials |
| clean 5/5 | the release does not have the bug, and five of five trials found that the guarantee was kept |
| **bold** | a trial did not say what etcd's issues and advisories say of this release, or could not be carried out |
| - | nobody tried it; in the last column: nothing has shown it yet |
| its own track | the scenario that `raftload bugs` has for this bug shows it |
| the campaign | `raftload chaos` with all actors and faults met it: a violation fits this bug's signature |
| both | its own track and the campaign |
"""


def write(path: Path = PAGE) -> None:
    """Write the page from the records that are there."""
    path.write_text(render(recorded(TRIALS, {}), recorded(CAMPAIGN, {})), encoding="utf-8")


def render(trials: Sequence[Row], campaign: Sequence[Row]) -> str:
    """Return the page's text. Takes the rows of both records, in the order in which they were made."""
    cells = _newest(trials, lambda row: (row["bug"], row["etcd"]))
    runs = _newest(checked_last(campaign), lambda row: (row["kind"], row["etcd"]))
    parts = [_HEAD, _summary(cells), _table(cells, _met(runs)), _campaign(runs), _catalogue()]
    return "\n".join(part for part in parts if part)


def checked_last(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of campaigns, of each run the one that was made last: its history may have been checked again."""
    return list({(row["kind"], row["etcd"], row["code"], row["seed"]): row for row in rows}.values())


def _newest(rows: Sequence[Row], cell_of: Callable[[Row], tuple[str, str]]) -> dict[tuple[str, str], list[Row]]:
    """Return the rows of each cell that are of the same code as its last one."""
    code = {cell_of(row): row["code"] for row in rows}
    cells: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["code"] == code[cell_of(row)]:
            cells.setdefault(cell_of(row), []).append(row)
    return cells


def _met(runs: dict[tuple[str, str], list[Row]]) -> set[str]:
    """Return the names of the bugs that campaigns have met."""
    return {bug["bug"] for rows in runs.values() for row in rows for bug in row["explained"]}


def _summary(cells: dict[tuple[str, str], list[Row]]) -> str:
    """Return what came of all trials, in a sentence."""
    found = clean = having = others = 0
    bugs = set()
    for (issue, version), rows in cells.items():
        if (scenario := catalogue().get(issue)) is None:
            continue
        if scenario.bug.is_in(version):
            shown = sum(row["found"] == Found.AFFECTED for row in rows)
            found, having = found + shown, having + len(rows)
            bugs |= {issue} if shown else set()
        else:
            clean, others = clean + sum(row["found"] in _CLEAN for row in rows), others + len(rows)
    return (
        f"{len(bugs)} of {len(catalogue())} bugs were found: by {found:,} of {having:,} trials on releases that have "
        f"them. {clean:,} of {others:,}\ntrials on releases without the bug were clean.\n"
    )


def _table(cells: dict[tuple[str, str], list[Row]], met: set[str]) -> str:
    versions = sorted({version for _, version in cells}, key=version_key)
    lines = [_line(["bug", *versions, "shown by"]), _line(["---"] * (len(versions) + 2))]
    for issue, scenario in catalogue().items():
        rows = {version: cells.get((issue, version), []) for version in versions}
        own = any(row["found"] == Found.AFFECTED for each in rows.values() for row in each)
        by = {(True, True): BOTH, (True, False): OWN, (False, True): GENERAL, (False, False): NEITHER}
        words = [_cell(scenario, version, rows[version]) for version in versions]
        lines.append(_line([_linked(scenario.bug), *words, by[own, scenario.bug.name in met]]))
    return "\n".join(lines) + "\n"


def _cell(scenario: Scenario, version: str, rows: Sequence[Row]) -> str:
    """Return what came of the trials of one bug on one release, in words."""
    if not rows:
        return "-"
    shown = [row["seconds"] for row in rows if row["found"] == Found.AFFECTED]
    clean = sum(row["found"] in _CLEAN for row in rows)
    if scenario.bug.is_in(version):
        good = len(shown) == len(rows)
        text = f"found {len(shown)}/{len(rows)}" + (f", {statistics.median(shown):.1f} s" if shown else "")
    else:
        good = clean == len(rows)
        text = f"clean {clean}/{len(rows)}"
    if untried := sum(row["found"] == Found.NOT_TRIED for row in rows):
        text += f", {untried} could not be tried"
    return text if good else f"**{text}**"


def _catalogue() -> str:
    """Return what each bug is, what it breaks, and where it is fixed."""
    lines = ["## What they are", "", _line(["bug", "what happens", "breaks", "fixed in"]), _line(["---"] * 4)]
    for scenario in catalogue().values():
        bug = scenario.bug
        breaks = ", ".join(f"`{rule}`" for rule in scenario.breaks)
        lines.append(_line([_linked(bug), bug.summary, breaks, ", ".join(bug.fixed_in) or "no release yet"]))
    return "\n".join(lines) + "\n"


def _campaign(runs: dict[tuple[str, str], list[Row]]) -> str:
    """Return what the campaigns met; nothing where none was run."""
    if not runs:
        return ""
    lines = [
        "## What the campaign met by itself", "",
        "The campaign is `raftload chaos` with all actors and faults. It looks for no bug in particular. Each run has",
        "a new cluster. The last column has the guarantees with unexplained violations: these fit the signature of no",
        "known bug of that release ([chaos.md](chaos.md#known-bugs-and-news)).", "",
        _line(["etcd", "minutes", "runs", "operations", "faults", "known bugs met, after", "unexplained"]),
        _line(["---"] * 7),
    ]  # fmt: skip
    for (_, version), rows in sorted(runs.items(), key=lambda item: (version_key(item[0][1]), item[0][0])):
        within: dict[str, float] = {}
        minutes = 0.0
        for row in rows:
            minutes += row["minutes"]
            for bug in row["explained"]:
                within.setdefault(bug["bug"], minutes)
        met = ", ".join(f"{bug} ({at:.0f} min)" for bug, at in within.items())
        broken = ", ".join(dict.fromkeys(each["guarantee"] for row in rows for each in row["broken"]))
        operations, faults = (sum(row.get(name, 0) for row in rows) for name in ("operations", "faults"))
        unjudged = sum(bool(row["error"]) or row["exit"] == 3 for row in rows)
        count = f"{len(rows)}{f', {unjudged} not judged' if unjudged else ''}"
        said = [f"{minutes:.0f}", count, f"{operations:,}", str(faults), met or "none", broken or "nothing"]
        lines.append(_line([version, *said]))
    return "\n".join(lines) + "\n"


def _linked(bug: Bug) -> str:
    return f"[{bug.issue if bug.issue.isdigit() else bug.name}]({bug.url})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
