"""A run folder as the report needs it: every file that is there, read, and what is missing, named."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cluster.base.errors import ClusterError, UsageError
from cluster.base.files import histogram_log
from cluster.faults.kinds import HEAL, KINDS, undoing
from cluster.observe import record
from cluster.observe.record import Poll, Scrape
from cluster.observe.timeline import Timeline
from viz.diagrams import elections
from viz.report import hlog

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result

_SEEN = {"effect", "failed"}
_LASTING = {kind.name for kind in KINDS.values() if kind.undone_by}
# Whatever ends a fault, and what does nothing else.
_ENDS = {HEAL, *(kind.name for kind in KINDS.values() if kind.brings_back)}
_UNDO = undoing()


class RunError(UsageError):
    """The folder holds no result that could be drawn; one line."""


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """What came back within some time, of one operation type; latencies are None where nothing succeeded.

    Attributes:
        at: its start, in seconds since 1970.
        length_s: for how long there was load in it.
        succeeded, failed: operations.
    """

    at: float
    length_s: float
    succeeded: int
    failed: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None

    @property
    def end(self) -> float:
        """When it ended, in seconds since 1970."""
        return self.at + self.length_s


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Something that was done to members, and until when it lasted: its undo, or the end of the run.

    Attributes:
        begin, end: seconds since 1970.
        text: what was seen of it.
        number: its row in the table of faults, counted from 1.
    """

    kind: str
    members: tuple[str, ...]
    begin: float
    end: float
    text: str
    number: int = 0


@dataclasses.dataclass(frozen=True)
class RunData:
    """All that is known of one run.

    Attributes:
        series: intervals by operation type, and ``total``.
        latencies: intervals of each operation type's histogram log, as `viz.report.hlog.read` has them.
        polls, scrapes: what the members said.
        history: the members' logs.
        missing: what could not be drawn, a line each.
        begin, end: of the time axis, seconds since 1970.
    """

    folder: Path
    result: Result
    series: Mapping[str, Sequence[Interval]]
    latencies: Mapping[str, Sequence[tuple[float, Mapping[int, int]]]]
    polls: Sequence[Poll]
    scrapes: Mapping[str, Sequence[Scrape]]
    faults: Sequence[Fault]
    history: elections.History
    missing: tuple[str, ...]
    begin: float
    end: float

    @property
    def id(self) -> str:
        """What the run is called."""
        return str(self.result["run"].get("id") or self.folder.name)


def load(folder: Path, result: Result | None = None) -> RunData:
    """Read a run folder. Takes its result where that was just made, else reads ``result.json``.

    Raises RunError where there is none.
    """
    result = _result(folder) if result is None else result
    missing: list[str] = []
    series = _series(folder, missing)
    polls, scrapes = record.read_polls(folder), record.read_scrapes(folder)
    if not polls:
        missing.append("members.csv: the members were not polled, so their outages and replication lag are not known")
    begin, end = _span(result, series, polls)
    history = elections.read_files(_member_logs(folder, polls))
    if polls and not history.logs:
        missing.append("logs of the members: the elections are not drawn, and leadership is from the polls")
    missing += history.notes
    return RunData(
        folder=folder,
        result=result,
        series=series,
        latencies=_latencies(folder, result["results"], missing),
        polls=polls,
        scrapes=scrapes,
        faults=_numbered(_faults(folder, end, missing), result),
        history=history,
        missing=tuple(missing),
        begin=begin,
        end=end,
    )


def found_at(document: Mapping[str, object], path: Sequence[str]) -> object:
    """Return what stands in a document at a path of keys; None where one of them is not there."""
    value: object = document
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _result(folder: Path) -> Result:
    path = folder / "result.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise RunError(f"{path}: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise RunError(f"{path}: not JSON, or cut short ({exc})") from exc
    if not isinstance(document, dict) or not all(isinstance(document.get(part), dict) for part in ("run", "results")):
        raise RunError(f"{path}: not a result document")
    return cast("Result", document)


def _series(folder: Path, missing: list[str]) -> dict[str, list[Interval]]:
    path = folder / "series.csv"
    if not path.is_file():
        missing.append("series.csv: latency and throughput over time are not drawn")
        return {}
    found: dict[str, list[Interval]] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            try:
                times = [float(row[key]) if row[key] else None for key in ("p50_ms", "p99_ms", "max_ms")]
                # Runs of versions that counted by the second alone do not say how long an interval is.
                at, length_s = float(row["time"]), float(row.get("length_s", 1))
                interval = Interval(at, length_s, int(row["succeeded"]), int(row["failed"]), *times)
            except (ValueError, KeyError, TypeError):
                continue  # cut short
            if math.isfinite(at) and 0 < length_s < math.inf:
                found.setdefault(row["f"], []).append(interval)
    # A run that was idle for long has no rows for it.
    return {f: sorted(intervals, key=lambda each: each.at) for f, intervals in found.items()}


def _latencies(folder: Path, types: Iterable[str], missing: list[str]) -> dict[str, list[tuple[float, dict[int, int]]]]:
    found = {}
    types = list(types)
    names = {histogram_log(f, suffix): f"{f}{suffix}" for f in types for suffix in ("", ".service")}
    for path in sorted(folder.glob("*.hlog")):
        try:
            intervals = hlog.read(path)
        except (OSError, ValueError) as exc:
            missing.append(f"{path.name}: {exc}")
            continue
        if intervals:
            found[names.get(path.name, path.stem)] = sorted(intervals, key=operator.itemgetter(0))
    if not found:
        missing.append("*.hlog: latency by percentile is not drawn")
    return {f: found[f] for f in dict.fromkeys([*types, *found]) if f in found}


def _span(result: Result, series: Mapping[str, Sequence[Interval]], polls: Sequence[Poll]) -> tuple[float, float]:
    """Return the time axis: the time of the load, else the time of the polls, else that of the run."""
    intervals = series.get("total") or ()
    if intervals:
        return intervals[0].at, intervals[-1].end
    if polls:
        return polls[0].at, polls[-1].at
    run = result["run"]
    times = [seconds_of(text) for text in (run.get("started_at"), run.get("ended_at")) if text]
    return (times[0], max(times[-1], times[0] + 1)) if times else (0.0, 1.0)


def seconds_of(text: str) -> float:
    """ISO 8601 as seconds since 1970. Raises ValueError."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _member_logs(folder: Path, polls: Sequence[Poll]) -> list[Path]:
    names = {poll.member for poll in polls}
    logs = sorted((folder / "logs").glob("*.log"))
    return [path for path in logs if path.stem in names] or [p for p in logs if p.stem.startswith("etcd-node")]


def _numbered(faults: Sequence[Fault], result: Result) -> list[Fault]:
    """Return faults with the numbers of the table's rows: of chaos the rounds, of which a compaction is no event."""
    chaos = result.get("chaos")
    rounds = [(seconds_of(row["at"]), row["number"]) for row in chaos["faults"]] if chaos else []
    numbered = []
    for number, fault in enumerate(faults, 1):
        # The two times of one moment may differ by the millisecond to which they are rounded.
        begun = [row for at, row in rounds if at <= fault.begin + 0.002]
        numbered.append(dataclasses.replace(fault, number=begun[-1] if begun else number))
    return numbered


def _faults(folder: Path, end: float, missing: list[str]) -> list[Fault]:
    try:
        rows = Timeline(folder / "events.csv").read()
        # A row that was cut says nothing.
        events = [(seconds_of(row["time"]), row) for row in rows if row["detail"] is not None]
    except (ClusterError, OSError, ValueError, KeyError, TypeError) as exc:
        missing.append(f"events.csv: {exc}")
        return []
    found = []
    # What comes next, as seen from each event: each fault's effect, and what ends the faults of each member.
    effects: dict[str, tuple[float, str]] = {}
    over: dict[str, tuple[int, float]] = {}
    for number, (at, row) in reversed([*enumerate(events)]):
        members, fault = tuple(row["members"].split()), row["fault"]
        if row["phase"] == "begin" and fault not in _UNDO:
            seen_at, seen = effects.get(fault, (end, ""))
            undone = min((over[member] for member in members if member in over), default=(0, end))
            until = undone[1] if fault in _LASTING else seen_at
            found.append(Fault(fault, members, at, max(at, until), seen or f"{fault}: {', '.join(members)}"))
        if row["phase"] in _SEEN:
            effects[fault] = at, row["detail"]
        if row["phase"] == "effect" and fault in _ENDS:
            over |= dict.fromkeys(members, (number, at))
    return found[::-1]
