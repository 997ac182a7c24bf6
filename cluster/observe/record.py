"""The observer's ``members.csv`` and ``metrics.csv``, read again and summed up."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from cluster.observe.metrics import HISTOGRAMS, SCALARS, Histogram, Metrics
from cluster.observe.observer import MEMBERS, METRICS

if TYPE_CHECKING:
    from cluster.schema.run_documents import Counted, CountPhases, ObservedMember, ObservedSummary, Phases, Sizes

Row = TypeVar("Row", "Poll", "Scrape")
Phase = Literal["before", "during", "after"]
PHASES: tuple[Phase, ...] = ("before", "during", "after")


@dataclasses.dataclass(frozen=True, slots=True)
class Poll:
    """A member's status at one moment, as far as it answered.

    Attributes:
        at: when it was asked, in seconds since 1970.
        role: ``leader``, ``follower``, ``learner`` or ``no leader``; empty where it did not answer, which leaves
            everything but ``reason`` and how long its first parts took unknown.
        leader: whom it follows, empty for nobody.
        round_trip_ms: from question to answer, the opening of a connection included.
        reason: why it did not answer; alarms of one that did.
        connect_ms, list_ms, status_ms: how long that connection took to open, the list of members, which is asked for
            first and is no part of the round trip, and the status itself; None of what did not come to its end, and
            where that is not known.
    """

    at: float
    member: str
    answers: bool
    role: str
    leader: str
    term: int | None
    commit_index: int | None
    applied_index: int | None
    revision: int | None
    db_size: int | None
    round_trip_ms: float | None
    reason: str
    connect_ms: float | None = None
    list_ms: float | None = None
    status_ms: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Scrape:
    """A member's metrics at one moment; ``phase`` is ``before`` and ``end`` at the two ends of the load."""

    at: float
    member: str
    phase: str
    metrics: Metrics


def read_polls(folder: Path) -> list[Poll]:
    """Return the polls of a run folder, in order of time; none where there is no such file.

    A row that is cut short is left out.
    """

    return sorted(_rows(folder / MEMBERS, _poll), key=lambda each: each.at)


def read_scrapes(folder: Path) -> dict[str, list[Scrape]]:
    """Return the scrapes of a run folder by member, in order of time; none where there is no such file."""

    scrapes: dict[str, list[Scrape]] = {}
    for each in sorted(_rows(folder / METRICS, _scrape), key=lambda each: each.at):
        scrapes.setdefault(each.member, []).append(each)
    return dict(sorted(scrapes.items()))


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """What the observer wrote into a run folder.

    Attributes:
        polls: of all members, in order of time.
        scrapes: by member, each in order of time.
    """

    polls: Sequence[Poll]
    scrapes: Mapping[str, Sequence[Scrape]]


def read(folder: Path) -> Record:
    """Return what the observer wrote into a run folder; nothing where nobody watched."""
    return Record(read_polls(folder), read_scrapes(folder))


class Tail(Generic[Row]):
    """What the observer has written into a file since one last looked; of much that nobody looked at, the end.

    Takes the file, which need not be there yet, and what makes a row of its columns.
    """

    # Ten minutes of a cluster of three, and a tenth of a second of a processor.
    MOST_BYTES = 1 << 20

    def __init__(self, path: Path, read: Callable[[Mapping[str, str]], Row]) -> None:
        self._path = path
        self._read: Callable[[Mapping[str, str]], Row] = read
        self._at = 0
        self._columns = ""

    def rows(self) -> list[Row]:
        """Return the rows that were written since the last call. Raises OSError where they cannot be read."""
        return list(_read_all(self._lines(), self._read))

    def _lines(self) -> list[str]:
        """Return the columns, and the lines that are new."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            if not self._columns:
                head = file.readline()
                if not head.endswith(b"\n"):
                    return []
                self._columns, self._at = head.decode("utf-8", "replace"), len(head)
            most_from = file.seek(0, os.SEEK_END) - self.MOST_BYTES
            if most_from > self._at:
                file.seek(most_from)
                self._at = most_from + len(file.readline())
            file.seek(self._at)
            text = file.read()
        whole: bytes = text[: text.rfind(b"\n") + 1]
        self._at += len(whole)
        return [self._columns, *whole.decode("utf-8", "replace").splitlines()]


def polls_tail(folder: Path) -> Tail[Poll]:
    """Return what follows the polls of a run that goes on. Takes its folder."""
    return Tail(folder / MEMBERS, _poll)


def scrapes_tail(folder: Path) -> Tail[Scrape]:
    """Return what follows the scrapes of a run that goes on. Takes its folder."""
    return Tail(folder / METRICS, _scrape)


def _rows(path: Path, read: Callable[[Mapping[str, str]], Row]) -> Iterator[Row]:
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        yield from _read_all(file, read)


def _read_all(lines: Iterable[str], read: Callable[[Mapping[str, str]], Row]) -> Iterator[Row]:
    for row in csv.DictReader(lines):
        if None in row.values():
            continue  # cut short by whatever ended the observer
        try:
            yield read(row)
        except (ValueError, KeyError):
            continue


def _poll(row: Mapping[str, str]) -> Poll:
    return Poll(
        at=_seconds(row["time"]),
        member=row["member"],
        answers=row["answers"] == "1",
        role=row["role"],
        leader=row["leader"],
        term=_whole(row["term"]),
        commit_index=_whole(row["commit_index"]),
        applied_index=_whole(row["applied_index"]),
        revision=_whole(row["revision"]),
        db_size=_whole(row["db_size"]),
        round_trip_ms=float(row["round_trip_ms"]) if row["round_trip_ms"] else None,
        reason=row["reason"],
        **{name: float(row[name]) for name in ("connect_ms", "list_ms", "status_ms") if row.get(name)},
    )


def _scrape(row: Mapping[str, str]) -> Scrape:
    # What an older raftload did not read has no column: it is as unknown as what a member did not tell.
    values = {column: float(row[column]) for column in SCALARS if row.get(column)}
    found = {column: Histogram.from_cell(row.get(column, "")) for column in HISTOGRAMS}
    histograms = {column: histogram for column, histogram in found.items() if histogram is not None}
    return Scrape(_seconds(row["time"]), row["member"], row["phase"], Metrics(values, histograms))


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _whole(text: str) -> int | None:
    return int(text) if text else None


def between(scrapes: Sequence[Scrape], column: str) -> Histogram | None:
    """Return what a histogram counted from the first scrape to the last, restarts of the member included.

    What a member counted between its last scrape and its end is lost with it. None of less than two scrapes.
    """
    total: Histogram | None = None
    for earlier, later in itertools.pairwise(scrapes):
        now, then = (each.metrics.histograms.get(column) for each in (later, earlier))
        if now is not None:
            part = now.since(None if later.metrics.restarted_since(earlier.metrics) else then)
            total = part if total is None else total.plus(part)
    return total


def grown(scrapes: Sequence[Scrape], column: str) -> int | None:
    """By how many a counter grew from the first scrape to the last, restarts included; None where it was not there."""
    total = growth(scrapes, column)
    return None if total is None else round(total)


def growth(scrapes: Sequence[Scrape], column: str) -> float | None:
    """Return the same of a counter of seconds or bytes, not rounded."""
    total: float | None = None
    for earlier, later in itertools.pairwise(scrapes):
        now, then = (each.metrics.values.get(column) for each in (later, earlier))
        if now is not None:
            again = later.metrics.restarted_since(earlier.metrics) or then is None
            total = (total or 0.0) + now - (0.0 if again or then is None else then)
    return total


def restarts(scrapes: Sequence[Scrape]) -> int:
    """Return how often the member was another process than at the scrape before."""
    return sum(later.metrics.restarted_since(earlier.metrics) for earlier, later in itertools.pairwise(scrapes))


def leader_changes(polls: Iterable[Poll]) -> int | None:
    """Return the number of elections won between the first and the last poll: terms with a leader, less the first.

    A term that began and ended between two polls is missed. None where no leader was seen.
    """
    terms = {poll.term for poll in polls if poll.role == "leader"}
    return len(terms) - 1 if terms else None


def phases(scrapes: Sequence[Scrape]) -> dict[Phase, list[Scrape]]:
    """One member's scrapes before, during and after the load, each with the one at its beginning.

    Before the load is all the member's life up to then: the first of these is a scrape of nothing.
    """
    born = Scrape(0.0, scrapes[0].member, "", Metrics({}, {}))
    begin = next((i for i, each in enumerate(scrapes) if each.phase == "before"), 0)
    end = next((i for i, each in enumerate(scrapes) if each.phase == "end"), len(scrapes) - 1)
    return {"before": [born, scrapes[begin]], "during": list(scrapes[begin : end + 1]), "after": list(scrapes[end:])}


def summary(found: Record) -> ObservedSummary:
    """Return what the members said of themselves, for ``target`` of a result; empty where nobody watched.

    ``leader_changes``; ``wal_fsync_p99_ms`` and ``backend_commit_p99_ms`` of the slowest member before, during and
    after the load; and ``observed``, a list with the figures of each member.
    """
    polls, scrapes = found.polls, found.scrapes
    if not polls:
        return {}
    rows: list[ObservedMember] = []
    for name in dict.fromkeys([*scrapes, *sorted({poll.member for poll in polls})]):
        mine = [poll for poll in polls if poll.member == name]
        rows.append({"name": name, "polls": len(mine), "unanswered": sum(not poll.answers for poll in mine),
                     **_sizes(mine), **_counted(scrapes.get(name, []))})  # fmt: skip
    return {
        "leader_changes": leader_changes(polls),
        "wal_fsync_p99_ms": _slowest([row["wal_fsync_p99_ms"] for row in rows]),
        "backend_commit_p99_ms": _slowest([row["backend_commit_p99_ms"] for row in rows]),
        "observed": rows,
    }


def _slowest(members: Sequence[Phases | None]) -> Phases:
    def worst(phase: Phase) -> float | None:
        figures = (each[phase] for each in members if each)
        return max((each for each in figures if each is not None), default=None)

    return {"before": worst("before"), "during": worst("during"), "after": worst("after")}


def _sizes(polls: Sequence[Poll]) -> Sizes:
    sizes = [poll.db_size for poll in polls if poll.db_size is not None]
    return {"db_size_first": sizes[0] if sizes else None, "db_size_last": sizes[-1] if sizes else None,
            "db_size_max": max(sizes, default=None)}  # fmt: skip


def _counted(scrapes: Sequence[Scrape]) -> Counted:
    parts = phases(scrapes) if scrapes else {phase: [] for phase in PHASES}
    load = parts["during"]
    values = [each.metrics.values for each in load]
    fsyncs, fsync_p99_ms = _phases(parts, "wal_fsync")
    commits, commit_p99_ms = _phases(parts, "backend_commit")
    return {
        "restarts": restarts(scrapes),
        "proposals_failed": grown(load, "proposals_failed"),
        "slow_applies": grown(load, "slow_applies"),
        "heartbeat_failures": grown(load, "heartbeat_failures"),
        "proposals_pending_max": max((int(v["proposals_pending"]) for v in values if "proposals_pending" in v),
                                     default=None),
        "rss_bytes_max": max((int(v["rss_bytes"]) for v in values if "rss_bytes" in v), default=None),
        "wal_fsyncs": fsyncs,
        "wal_fsync_p99_ms": fsync_p99_ms,
        "backend_commits": commits,
        "backend_commit_p99_ms": commit_p99_ms,
    }  # fmt: skip


def _phases(parts: Mapping[Phase, Sequence[Scrape]], column: str) -> tuple[CountPhases, Phases]:
    """Return how often a histogram's event happened before, during and after the load, and how long it took at p99."""
    before, during, after = (between(parts[phase], column) for phase in PHASES)
    counts: CountPhases = {"before": _count(before), "during": _count(during), "after": _count(after)}
    return counts, {"before": p99_ms(before), "during": p99_ms(during), "after": p99_ms(after)}


def _count(histogram: Histogram | None) -> int | None:
    return None if histogram is None else histogram.count


def p99_ms(histogram: Histogram | None) -> float | None:
    """Return the 99th percentile in milliseconds, to the microsecond; None of no observation."""
    quantile = None if histogram is None else histogram.quantile(0.99)
    return None if quantile is None else round(quantile * 1e3, 3)
