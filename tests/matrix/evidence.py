"""The record of the matrix: a line of JSON for each cell that ran, appended and never changed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

Outcome = Literal["ok", "known", "failed", "not-applicable"]
# What a cell measures: another commit with the same files has the same results.
CODE = ("cluster", "loadgen", "viz", "locustfiles")


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """One cell that ran.

    Attributes:
        time: when it ended, ISO 8601 in UTC.
        commit: what was checked out, with a ``+`` where its code was changed.
        code: a hash of CODE that ran.
        target: a column of the matrix, ``3.7`` or ``3.5.1``.
        version: the release that ran, ``3.7.3``.
        cell: its name.
        outcome: ``known`` where nothing failed but for bugs of this release that are known, and named in ``figures``;
            ``not-applicable`` where this release has no such thing, which was tried.
        figures: what was seen, in one line.
        seconds: how long it took.
    """

    time: str
    commit: str
    code: str
    target: str
    version: str
    cell: str
    outcome: Outcome
    figures: str
    seconds: float


def read(path: Path) -> list[Evidence]:
    """Take a file, return what is in it, in order; nothing where there is no file.

    A last line that is cut short, by a full disk or a power loss, is left out. Raises ValueError for any other that
    is none.
    """
    if not path.exists():
        return []
    found = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            each = Evidence(**json.loads(line))
            if each.outcome not in get_args(Outcome):
                raise ValueError(f"no outcome {each.outcome!r}")
        except (ValueError, TypeError) as exc:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number}: {exc}") from exc
        found.append(each)
    return found


def append(path: Path, evidence: Evidence) -> None:
    """Add a line, as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    start = "\n" if text and not text.endswith("\n") else ""
    with path.open("a", encoding="utf-8") as file:
        file.write(start + json.dumps(dataclasses.asdict(evidence), ensure_ascii=False) + "\n")


def latest(records: Iterable[Evidence]) -> dict[tuple[str, str], Evidence]:
    """Return the last record of each target and cell, by these; of a target's older release there is none."""
    ordered = list(records)
    newest = {each.target: each.version for each in ordered}
    return {(each.target, each.cell): each for each in ordered if each.version == newest[each.target]}


def to_run(
    wanted: Sequence[tuple[str, str]], records: Iterable[Evidence], code: str, versions: dict[str, str]
) -> list[tuple[str, str]]:
    """Return which of the wanted pairs of target and cell are still to run, in their order.

    A cell need not run again that did not fail, on the same code and the same release of etcd. Takes the release of
    each target; one that is not there is to be found out, and its cells stay.
    """
    last = latest(records)

    def is_done(pair: tuple[str, str]) -> bool:
        found = last.get(pair)
        return (
            found is not None
            and found.outcome != "failed"
            and found.code == code
            and found.version == versions.get(pair[0], "")
        )

    return [pair for pair in wanted if not is_done(pair)]
