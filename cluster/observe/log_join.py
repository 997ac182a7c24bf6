"""Lines from any number of log files as one log for each member, whichever files they are in and however these overlap.

A line belongs to the member whose id it names. A line that names none belongs to the one member that wrote the others
from where it is from: the same wrapper, or the same file and those that it was rotated into. The files of a member are
joined by time, and a line that several of them hold counts once.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import re
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

from cluster.base.console import printable
from cluster.observe.log_files import open_logs
from cluster.observe.log_times import in_a_year
from cluster.observe.raftlog import Item, Log, Reader, is_coarse, make_log

_STEP_S = 1.0  # a clock that goes back by more may be the begin of another file in the same one
_RACE_S = 0.05  # threads of a member write lines out of order by so much
_APART_S = 60.0  # members that lived together log within this time of each other
_QUARTER_S = 900.0  # zones differ by whole quarters of an hour
_FURTHEST_S = 14 * 3600.0 + _APART_S
_MOST_EMPTY = 8  # of so many files each is told that it has no line about Raft
_SHOWN = 100  # characters of a line that a note shows


@dataclasses.dataclass(frozen=True)
class Logs:
    """The members' logs of some files.

    Attributes:
        logs: one of each member.
        notes: what was left out and what is odd, for the person at the terminal.
        remarks: what of it belongs beside a picture.
        first, last: when the first and last of all lines were written, in seconds since 1970.
    """

    logs: tuple[Log, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...]
    first: float
    last: float


@dataclasses.dataclass
class _Source:
    """One file as it was read: where it is, what a member in it may be called, when it was changed, and what it is."""

    where: str
    folder: Path
    name: str
    changed: float | None
    reader: Reader
    problem: str = ""
    kind: str = ""
    age: tuple[int, int] = (0, 0)


def read_files(paths: Iterable[Path], zone: tzinfo = UTC) -> Logs:
    """Read files, folders and archives. Takes the zone of times that do not say theirs. Raises OSError, UsageError."""
    sources = []
    for file in open_logs(paths):
        reader = Reader(zone)
        reader.read(file.lines())
        sources.append(
            _Source(
                file.where,
                file.path.parent,
                hint(file.path),
                file.changed,
                reader,
                file.problem,
                file.kind,
                _age(file.path),
            )
        )
    return _join(sources, zone)


def read(logs: Iterable[tuple[str, str, Iterable[str]]], zone: tzinfo = UTC) -> Logs:
    """Take logs as where each is from, its member's name if it does not say that itself, and its lines."""
    sources = []
    for where, name, lines in logs:
        reader = Reader(zone)
        reader.read(lines)
        sources.append(_Source(where, Path(), name, None, reader))
    return _join(sources, zone)


_PACKED = re.compile(r"\.(?:gz|bz2|xz|lzma|zst)$", re.IGNORECASE)
_ROTATED = re.compile(
    r"(?<=\.log)\.[0-9]{1,4}$|[.-][0-9]{8}(?:[-T]?[0-9]{4,6})?(?:-[0-9]+)?$"
    r"|[.-][0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T_-][0-9]{2}[-.:][0-9]{2}[-.:][0-9]{2}(?:\.[0-9]+)?)?$|\.(?:old|bak)$",
    re.IGNORECASE,
)
_KIND = re.compile(r"\.(?:log|txt|jsonl?|ndjson|csv|out|err)$", re.IGNORECASE)


def hint(path: Path) -> str:
    """Return what a log file's member may be called, without what rotation and compression add to its name.

    ``etcd-node1.log.2.gz`` gives ``etcd-node1``.
    """
    name = path.name
    for pattern in (_PACKED, _ROTATED, _KIND, _ROTATED):
        name = pattern.sub("", name) or name
    return name


def _age(path: Path) -> tuple[int, int]:
    """Return a key that is lower for an older file of a log, by the number or the time in its name."""
    name = _PACKED.sub("", path.name)
    found = _ROTATED.search(name) or _ROTATED.search(_KIND.sub("", name))
    digits = re.sub("[^0-9]", "", found.group()) if found else ""
    if not digits:
        return 1, 0  # what is still written
    return (0, -int(digits)) if len(digits) < 5 else (0, int(digits))


# Who wrote what


def _join(sources: Sequence[_Source], zone: tzinfo) -> Logs:
    notes: list[str] = []
    found: list[set[str]] = []
    nobodys: list[float] = []
    remarks = _give_years(sources, zone)
    owners, unplaced = _owners(sources)
    sequences: dict[str, list[_Part]] = defaultdict(list)
    hints: dict[str, list[str]] = defaultdict(list)
    alone: dict[str, list[_Source]] = defaultdict(list)
    for number, source in enumerate(sources):
        by_member: dict[str, list[Item]] = defaultdict(list)
        for place, item in enumerate(source.reader.items):
            member = owners.get((number, place), item.member)
            if member:
                by_member[member].append(item)
            else:
                nobodys.append(item.stamp.at)
        for member, items in by_member.items():
            sequences[member].append(_Part(items, source.age))
            if len(by_member) == 1:
                hints[member].append(source.name)
                alone[member].append(source)
            else:
                hints[member].extend(_of_wrapper(items))
        if unplaced[number]:
            notes.append(
                f"{source.where}: left out {unplaced[number]} of {source.reader.lines} lines, which name no member "
                f"where lines of {len(by_member)} members are mixed"
            )
        found.append(set(by_member))
    logs = []
    for member, parts in sequences.items():
        items = _in_order(parts)
        said = [item.name for item in items if item.name]
        log = make_log(member, said[-1] if said else _called(member, hints[member]), items)
        if log.events:
            lines = sum(source.reader.lines for source in alone[member]) or log.lines
            garbage = sum(source.reader.garbage for source in alone[member])
            logs.append(dataclasses.replace(log, lines=lines, garbage=garbage))
    logs = _distinct(logs)
    known = {log.member for log in logs}
    empty = [not members & known for members in found]
    many = sum(empty) > _MOST_EMPTY
    about = [
        note
        for source, none in zip(sources, empty, strict=True)
        if not (many and none)
        for note in _notes(source, empty=none)
    ]
    if many:
        where = [source.where for source, none in zip(sources, empty, strict=True) if none]
        about.append(f"{len(where)} files have no line about Raft, such as {', '.join(where[:3])}")
    notes = about + notes
    remarks += _clusters(logs, sources)
    remarks += _apart(logs, zone)
    every = [at for log in logs for at in (log.first, log.last)] + nobodys
    first, last = (min(every), max(every)) if every else (0.0, 0.0)
    return Logs(tuple(logs), (*notes, *remarks), tuple(remarks), first, last)


def _owners(sources: Sequence[_Source]) -> tuple[dict[tuple[int, int], str], Counter[int]]:
    """Return whose the lines are that name no member, by file and place, and how many in each file are nobody's."""
    by_wrapper: dict[str, set[str]] = defaultdict(set)
    by_file: dict[tuple[Path, str], set[str]] = defaultdict(set)
    by_name: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        for item in source.reader.items:
            if item.member:
                by_wrapper[item.source].add(item.member)
                by_file[source.folder, source.name].add(item.member)
                by_name[source.name].add(item.member)
    owners: dict[tuple[int, int], str] = {}
    unplaced: Counter[int] = Counter()
    for number, source in enumerate(sources):
        items = source.reader.items
        ids = {item.member for item in items if item.member}
        near = ids or by_file[source.folder, source.name] or by_name[source.name]
        blocks = _blocks(items) if len(ids) > 1 else {}
        for place, item in enumerate(items):
            if item.member:
                continue
            known = by_wrapper[item.source] if item.source else set()
            if len(known) == 1:
                owners[number, place] = next(iter(known))
            elif len(near) == 1:
                owners[number, place] = next(iter(near))
            elif place in blocks:
                owners[number, place] = blocks[place]
            elif item.event is not None or item.name:
                unplaced[number] += 1
    return owners, unplaced


def _blocks(items: Sequence[Item]) -> dict[int, str]:
    """Return whose the lines are that name no member, by their places in a file in which one log follows another.

    Where time goes back, another log begins. Within one, what stands between two lines of a member is its own, but only
    where no member comes back after another one: those are mixed.
    """
    owners: dict[int, str] = {}
    cuts = [
        0,
        *(at for at in range(1, len(items)) if items[at].stamp.at < items[at - 1].stamp.at - _STEP_S),
        len(items),
    ]
    for start, end in itertools.pairwise(cuts):
        named = [(place, items[place].member) for place in range(start, end) if items[place].member]
        order = [member for member, _ in itertools.groupby(member for _, member in named)]
        if not named or len(order) != len(set(order)):
            continue
        before, last = "", start
        for place, member in [*named, (end, "")]:
            for between in range(last, place):
                # A process says its name before its id.
                owners[between] = member if not before or (items[between].name and member) else before
            before, last = member, place + 1
    return owners


def _of_wrapper(items: Iterable[Item]) -> list[str]:
    return [source.strip("[]") for source, _ in Counter(item.source for item in items if item.source).most_common(1)]


def _called(member: str, hints: Sequence[str]) -> str:
    name = next((each for each in hints if each and not each.isdigit() and each not in ("-", "stdin")), "")
    return name or member


def _notes(source: _Source, *, empty: bool) -> Iterator[str]:
    """Yield what was left out of a file, and, where it says nothing about Raft, what it is instead."""
    reader = source.reader
    if source.problem:
        yield f"{source.where}: {source.problem}"
    if reader.may_be_cut:
        yield f"{source.where}: its last line has no end, so the term there may be cut"
    if reader.timeless:
        yield (
            f"{source.where}: left out {reader.timeless} of {reader.lines} lines about Raft, which have no time: "
            "have them written with times, such as by `journalctl -o short-iso-precise`"
        )
    if reader.garbage and (reader.items or reader.timeless or not empty):
        number, line = reader.first_garbage or (0, "")
        yield (
            f"{source.where}: left out {reader.garbage} of {reader.lines} lines, which etcd did not write; "
            f"the first is line {number}: {_shown(line)}"
        )
    if not empty or reader.timeless:
        return
    what = source.kind or ("" if reader.lines else "empty")
    if what:
        yield f"{source.where}: no line about Raft; it is {what}"
    elif reader.items:
        yield f"{source.where}: no line about Raft among {reader.lines}; etcd writes them at level info"
    else:
        line = _shown(reader.first_line)
        yield f"{source.where}: no line about Raft, and none of etcd's among {reader.lines}; the first is: {line}"


def _shown(line: str) -> str:
    line = printable(line)
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "\u2026"


def _distinct(logs: Sequence[Log]) -> list[Log]:
    """Return the logs with a name each, in the order of their names: etcd calls a member ``default`` that has none."""
    counts = Counter(log.name for log in logs)
    named = [
        log if counts[log.name] == 1 else dataclasses.replace(log, name=f"{log.name} ({log.member[:8]})")
        for log in logs
    ]
    return sorted(named, key=lambda log: (log.name, log.member))


# When


def _give_years(sources: Sequence[_Source], zone: tzinfo) -> list[str]:
    """Give times without a year theirs: the one near what else was read, else the last before the file was changed."""
    known: dict[str, float] = {}  # by member the last time that is known, for all of them by no name
    for item in (item for source in sources for item in source.reader.items if not item.stamp.yearless):
        for member in ("", item.member):
            known[member] = max(item.stamp.at, known.get(member, 0.0))
    assumed: dict[str, set[int]] = {}
    for source in sources:
        ids = {item.member for item in source.reader.items}
        near = max((known[each] for each in ids - {""} if each in known), default=known.get(""))
        past = near is None
        near = near or source.changed or time.time()
        for item in source.reader.items:
            if item.stamp.yearless:
                at = in_a_year(item.stamp.at, zone, near, past=past)
                item.stamp = dataclasses.replace(item.stamp, at=at)
                assumed.setdefault(source.where, set()).add(datetime.fromtimestamp(at, zone).year)
    return [
        f"{where}: its times have no year, {' and '.join(map(str, sorted(years)))} is assumed"
        for where, years in assumed.items()
    ]


def _apart(logs: Sequence[Log], zone: tzinfo) -> list[str]:
    """Return a remark where a member's log is of another time than those of all others, or hours from them."""
    lone = [log for log in logs if len(logs) > 1 and all(other is log or _gap(log, other) > _APART_S for other in logs)]
    unzoned = [log for log in logs if not log.zoned]
    offset, sure = _offset(unzoned, [log for log in logs if log.zoned], zone)
    of_whom = ", ".join(log.name for log in unzoned)
    if not lone:
        return [f"the terms in the logs say that the times of {of_whom}, which have no zone, are of {offset}: "
                f"say so with --log-timezone={offset}"] if sure else []  # fmt: skip
    text = f"the members' logs do not overlap in time: {', '.join(f'{log.name} {_span(log)}' for log in logs)}"
    if not unzoned:
        return [text]
    example = f"--log-timezone={offset}" if offset else "--log-timezone ZONE"
    return [f"{text}; the times of {of_whom} have no zone: say theirs with {example}"]


def _clusters(logs: Sequence[Log], sources: Sequence[_Source]) -> list[str]:
    """Return a remark where the logs are of several clusters: a term has one leader at most in one of them."""
    names = {log.member: log.name for log in logs}
    clusters: dict[str, set[str]] = defaultdict(set)
    for cluster, members in (item for source in sources for item in source.reader.clusters.items()):
        clusters[cluster] |= {names[member] for member in members if member in names}
    several = sorted((cluster, sorted(members)) for cluster, members in clusters.items() if members)
    if len(several) > 1:
        whose = "; ".join(f"{cluster}: {', '.join(members)}" for cluster, members in several)
        return [f"the logs are of {len(several)} clusters, which are drawn as one: {whose}"]
    leaders: dict[int, set[str]] = defaultdict(set)
    for log in logs:
        for event in log.events:
            if event.kind == "became" and event.detail == "leader":
                leaders[event.term].add(log.name)
    for term, names_of in sorted(leaders.items()):
        if len(names_of) > 1:
            return [f"{' and '.join(sorted(names_of))} both became leader in term {term}, so the logs are of several "
                    "clusters, or of one that was made anew; they are drawn as one"]  # fmt: skip
    return []


def _gap(one: Log, other: Log) -> float:
    return max(one.first, other.first) - min(one.last, other.last)


def _span(log: Log) -> str:
    first, last = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for at in (log.first, log.last))
    return f"{first} to {last}" if first != last else f"at {first}"


def _offset(unzoned: Sequence[Log], zoned: Sequence[Log], zone: tzinfo) -> tuple[str, bool]:
    """Return the offset from UTC that brings terms of logs without a zone to those of the others, and whether most
    terms, and more than one, agree on it; empty where there is none.

    Members of one cluster learn of a term at nearly the same time.
    """
    theirs, ours = _terms(zoned), _terms(unzoned)
    found: Counter[int] = Counter()
    shared = theirs.keys() & ours.keys()
    for term in shared:
        apart = ours[term] - theirs[term]
        quarters = round(apart / _QUARTER_S)
        if quarters and abs(apart) <= _FURTHEST_S and abs(apart - quarters * _QUARTER_S) <= _APART_S:
            taken = datetime.fromtimestamp(ours[term], zone).utcoffset() or timedelta(0)
            found[quarters * 15 + round(taken.total_seconds() / 60)] += 1
    if not found:
        return "", False
    ((minutes, votes),) = found.most_common(1)
    text = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    return text, votes > 1 and 2 * votes > len(shared)


def _terms(logs: Iterable[Log]) -> dict[int, float]:
    """Return when each term was first heard of."""
    found: dict[int, float] = {}
    for event in (event for log in logs for event in log.events if event.kind == "became" and event.term):
        found[event.term] = min(event.at, found.get(event.term, event.at))
    return found


# In order


@dataclasses.dataclass
class _Part:
    """A member's lines of one file, and how old the file is among those that it was rotated into: the oldest first."""

    items: list[Item]
    age: tuple[int, int]


def _in_order(parts: Sequence[_Part]) -> list[Item]:
    """Return a member's lines in one order, those that several parts hold once.

    The order within a part is kept where it can be the one in which they were written. Between parts it is that of
    time; at one time, a part that began earlier goes first.
    """
    coarse = is_coarse(item for part in parts for item in part.items)
    stages = _Stages([item for part in parts for item in part.items], coarse)
    found = [(piece, part.age) for part in parts for piece in _pieces(part.items, coarse, stages)]
    if len(found) == 1:
        return found[0][0]
    pieces = []
    for piece, age in found:
        times = [_time(item, coarse) for item in piece]
        precise = min((item.stamp.at for item in piece if not item.stamp.coarse), default=min(times))
        pieces.append(_Piece(piece, times, min(times), max(times), age, (precise, stages.of(piece[0]))))
    pieces.sort(key=lambda each: each.age)
    ages = [each.age for each in pieces]
    if len(set(ages)) == len(ages) and all(
        before.last <= after.first + _RACE_S for before, after in itertools.pairwise(pieces)
    ):
        groups = list(range(len(pieces)))
    else:
        pieces.sort(key=lambda each: (each.first, each.last, each.age, each.order))
        groups = _overlapping(pieces)
    return _merged(pieces, groups, stages)


def _time(item: Item, coarse: bool) -> float:
    return float(int(item.stamp.at)) if coarse else item.stamp.at


@dataclasses.dataclass
class _Piece:
    """Lines in order, their times, the first and last of these, and what says which of two pieces is the older one."""

    items: list[Item]
    times: list[float]
    first: float
    last: float
    age: tuple[int, int]
    order: tuple[object, ...]


def _overlapping(pieces: Sequence[_Piece]) -> list[int]:
    """Return for each piece which group of overlapping ones it belongs to; the groups follow each other in time."""
    groups = [0]
    end = pieces[0].last
    for before, each in itertools.pairwise(pieces):
        slack = min(_RACE_S, 0.1 * (each.last - each.first), 0.1 * (before.last - before.first))
        groups.append(groups[-1] + (each.first >= end - slack))
        end = max(end, each.last)
    return groups


def _merged(pieces: Sequence[_Piece], groups: Sequence[int], stages: _Stages) -> list[Item]:
    """Return the lines of all pieces, each after those that stand before it in any piece, the earliest first."""
    numbers: dict[tuple[object, ...], int] = {}
    items: list[Item] = []
    priorities: list[tuple[object, ...]] = []
    followers: list[set[int]] = []
    for rank, piece in enumerate(pieces):
        seen: Counter[tuple[object, ...]] = Counter()
        before: int | None = None
        for place, item in enumerate(piece.items):
            key = (item.stamp.at, item.event, item.name, item.said)
            seen[key] += 1
            number = numbers.setdefault((*key, seen[key]), len(items))
            if number == len(items):
                items.append(item)
                priorities.append((groups[rank], piece.times[place], stages.of(item), rank, place))
                followers.append(set())
            if before is not None and before != number:
                followers[before].add(number)
            before = number
    waits = Counter(number for each in followers for number in each)
    free = [(priorities[number], number) for number in range(len(items)) if not waits[number]]
    heapq.heapify(free)
    by_time = iter(sorted(range(len(items)), key=priorities.__getitem__))
    done: set[int] = set()
    found: list[Item] = []
    while len(done) < len(items):
        # Where two pieces hold the same lines in another order, time decides.
        number = heapq.heappop(free)[1] if free else next(by_time)
        if number in done:
            continue
        done.add(number)
        found.append(items[number])
        for after in followers[number]:
            waits[after] -= 1
            if waits[after] == 0:
                heapq.heappush(free, (priorities[after], after))
    return found


def _pieces(items: list[Item], coarse: bool, stages: _Stages) -> Iterator[list[Item]]:
    """Yield a member's lines of one file as they were written: one piece, or several where parts of a log follow each
    other in a wrong order or overlap.

    Exports may have the newest line first, or lines of one log in any order. A clock that was set back is none of this:
    terms go on growing.
    """
    times = [_time(item, coarse) for item in items]
    on = sum(after > before for before, after in itertools.pairwise(times))
    back = sum(after < before for before, after in itertools.pairwise(times))
    if back > 2 * on:
        items, times, back = items[::-1], times[::-1], on
    if (back >= 3 and 4 * back > on and not _grows(items)) or not _campaigned(items):
        once = {(item.stamp.at, item.event, item.name, item.said): item for item in items}
        yield sorted(once.values(), key=lambda item: (_time(item, coarse), stages.of(item)))
        return
    # What comes next at each place: a line about Raft, and the term in which the member becomes something.
    following: list[tuple[Item | None, int | None]] = [(None, None)]
    for item in reversed(items):
        line, term = following[-1]
        if item.event is not None:
            line, term = item, item.event.term if item.event.kind == "became" else term
        following.append((line, term))
    following.reverse()
    start = highest = 0
    known: set[tuple[float, object]] = set()
    for place in range(1, len(items)):
        item, before = items[place], items[place - 1]
        if before.event is not None:
            known.add((before.stamp.at, before.event))
            highest = max(highest, before.event.term if before.event.kind == "became" else 0)
        if item.stamp.at < before.stamp.at - _STEP_S and _is_another(*following[place], highest, known):
            yield items[start:place]
            start, highest = place, 0
    yield items[start:]


def _grows(items: Iterable[Item]) -> bool:
    """Return whether the terms in which a member became something never fall."""
    terms = [item.event.term for item in items if item.event is not None and item.event.kind == "became"]
    return all(before <= after for before, after in itertools.pairwise(terms))


def _campaigned(items: Iterable[Item]) -> bool:
    """Return whether each leader was a candidate just before, where its candidacy is among the lines: a tool that
    sorts lines as texts breaks the order of those of one time.
    """
    became = [item.event for item in items if item.event is not None and item.event.kind == "became"]
    candidacies = {event.term for event in became if event.detail == "candidate"}
    return all(
        event.detail != "leader"
        or event.term not in candidacies
        or (before.detail, before.term) == ("candidate", event.term)
        for before, event in itertools.pairwise(became)
    ) and not (became and became[0].detail == "leader" and became[0].term in candidacies)


def _is_another(line: Item | None, term: int | None, highest: int, known: Collection[tuple[float, object]]) -> bool:
    """Return whether another part of a log begins: it knows an older term or none, or begins with a line of before.

    Takes its first line about Raft, its first term, the highest term before, and the lines before.
    """
    return (line is not None and (line.stamp.at, line.event) in known) or term is None or term < highest


_STAGES = {"start": 0, "higher": 1, "lost": 10, "elected": 15, "ignored": 6, "stop": 16, "disconnected": 3}
_STAGES_OF_A_VOTE = {"cast": 3, "rejected": 3, "granted": 11, "refused": 12, "count": 13, "sent": 9}


class _Stages:
    """Where a line stands among those of its time, by what Raft does first, for lines whose own order is lost."""

    def __init__(self, items: Iterable[Item], coarse: bool) -> None:
        """Take all lines of a member: a count of votes follows an answer, which says the term."""
        self._coarse = coarse
        self._terms: dict[tuple[float, str], int] = {}
        for item in items:
            if item.event is not None and item.event.kind in ("granted", "refused"):
                key = _time(item, coarse), item.event.message
                self._terms[key] = max(item.event.term, self._terms.get(key, 0))

    def of(self, item: Item) -> tuple[int, int, str, str, str]:
        """Return a key to sort by."""
        event = item.event
        if event is None:
            return 0, 0, "", "", ""
        term = event.term
        stage = _STAGES_OF_A_VOTE.get(event.kind, _STAGES.get(event.kind, 2))
        if event.kind == "became":
            stage = {"follower": 2, "precandidate": 7, "candidate": 7, "leader": 14}[event.detail]
        elif event.kind == "granted" and event.peer == event.member:
            stage = 8
        elif event.kind == "count":
            term = self._terms.get((_time(item, self._coarse), event.message), 0)
        return term, stage, event.message, event.peer, event.detail
