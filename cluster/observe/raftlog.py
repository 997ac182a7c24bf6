"""Raft events from members' logs: lines in, events out, in an order that could have happened.

The messages have been the same from etcd 3.4 to 3.7; what differs is what stands around them: JSON lines of zap, its
console lines (``--log-format=console``, 3.6 and later), or 3.4's capnslog (``2021-09-11 14:46:26.379622 I | raft: …``,
``raft2021/09/11 14:46:26 INFO: …``). Times have a millisecond at best and each member has its own clock, so the events
of one member keep the order of its file, and those of several are merged so that no answer comes before its question.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

from cluster.observe.logs import GO_LOG, zap_entry

Kind = Literal[
    "start", "stop", "became", "sent", "cast", "rejected", "ignored", "granted", "refused", "count", "higher",
    "elected", "lost", "disconnected",
]  # fmt: skip
ROLES = {"follower": "follower", "pre-candidate": "precandidate", "candidate": "candidate", "leader": "leader"}


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One line that says something about Raft.

    Attributes:
        member: who wrote it, its id in hexadecimal.
        at: seconds since 1970 by its clock.
        kind: ``became`` a role; ``sent`` a request for a vote; ``cast``, ``rejected`` or ``ignored`` one;
            ``granted`` or ``refused``, an answer that came back; ``count`` of votes; a ``higher`` term was met;
            a leader was ``elected`` or ``lost``; a peer was ``disconnected``; the process's ``start`` and ``stop``.
        term: as the line has it, 0 where it has none; of ``ignored``, once merged, that of the request.
        peer: the other member's id, or empty.
        message: ``MsgVote``, ``MsgPreVote``, or what met a higher term.
        detail: the role of ``became``, the reason of ``ignored``, ``3 votes, 1 rejection`` of ``count``.
    """

    member: str
    at: float
    kind: Kind
    term: int = 0
    peer: str = ""
    message: str = ""
    detail: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Log:
    """One member's log: its id (empty if it never said), its name, its events and when its first and last
    line was written. ``garbage`` counts lines that no etcd wrote. ``coarse`` where its times of Raft are whole
    seconds.
    """

    member: str
    name: str
    events: tuple[Event, ...]
    first: float
    last: float
    lines: int
    garbage: int
    coarse: bool = False


_ID = r"(?P<member>[0-9a-f]{1,16})"
_BY = rf"{_ID} (?:\[[^\]]*\] )?"
_PEER = r"(?P<peer>[0-9a-f]{1,16})"
_TERM = r" at term (?P<term>\d+)"
_MESSAGE = r"(?P<message>Msg\w+)"
_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("became", re.compile(rf"{_BY}became (?P<detail>follower|pre-candidate|candidate|leader){_TERM}$")),
    ("sent", re.compile(rf"{_BY}sent {_MESSAGE} request to {_PEER}{_TERM}$")),
    ("cast", re.compile(rf"{_BY}cast {_MESSAGE} for {_PEER} \[[^\]]*\]{_TERM}$")),
    ("rejected", re.compile(rf"{_BY}rejected {_MESSAGE} from {_PEER} \[[^\]]*\]{_TERM}$")),
    ("ignored", re.compile(rf"{_BY}ignored {_MESSAGE} from {_PEER} \[[^\]]*\]{_TERM}(?:: (?P<detail>.*))?$")),
    ("refused", re.compile(rf"{_BY}received {_MESSAGE} rejection from {_PEER}{_TERM}$")),
    ("granted", re.compile(rf"{_BY}received {_MESSAGE} from {_PEER}{_TERM}$")),
    ("count", re.compile(rf"{_BY}has received (?P<votes>\d+) {_MESSAGE} votes and (?P<against>\d+) vote rejections$")),
    (
        "higher",
        re.compile(rf"{_BY}received a {_MESSAGE} message with higher term from {_PEER} \[term: (?P<term>\d+)\]$"),
    ),
    ("elected", re.compile(rf"raft\.node: {_ID} elected leader {_PEER}{_TERM}$")),
    ("elected", re.compile(rf"raft\.node: {_ID} changed leader from [0-9a-f]+ to {_PEER}{_TERM}$")),
    ("lost", re.compile(rf"raft\.node: {_ID} lost leader {_PEER}{_TERM}$")),
)
_LOST_PEER = re.compile(r"lost the TCP streaming connection with peer (?P<peer>[0-9a-f]{1,16})\b")
_CAPNSLOG = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) [A-Z] \| \w+: (.*)$")
_RAFT_LOGGER = re.compile(r"raft(\d{4})/(\d\d)/(\d\d) (\d\d:\d\d:\d\d) \w+: (.*)$")
_NAMED = re.compile(r"\{Name:(.*) ClientURLs:\[")
_NAMED_PLAIN = re.compile(r"(?:published \{Name:(.*) ClientURLs:\[|name = (.*)$)")
# A stack that zap writes below a console line: two lines for each frame, the function and its file.
_FRAME = re.compile(r"(?:[\w./-]+\.[^\s=:]+|\S+\.(?:go|s):\d+)$")
_STARTED = ("starting local member", "restarting local member")
_STARTED_PLAIN = re.compile(r"(?:starting member|restarting member) (?P<member>[0-9a-f]{1,16}) in cluster")


def read_log(lines: Iterable[str], name: str = "") -> Log:
    """Take a member's lines, and a name for the case that it does not say its own; return its Log.

    A line is never an error: what is not etcd's is counted. A last line without the end that
    the others have is what a running member was writing at that moment: it counts only where it can be read.
    """
    reader = _Reader(name)
    with_ends = False
    for line in lines:
        with_ends = with_ends or line.endswith("\n")
        if line.strip():
            reader.feed(line.strip(), whole=line.endswith("\n") or not with_ends)
    return reader.log()


class _Reader:
    def __init__(self, name: str) -> None:
        self._name = name
        self._ids: Counter[str] = Counter()
        self._local = ""
        self._events: list[Event] = []
        self._times: list[float] = []
        self._lines = self._garbage = 0
        self._unfinished = False  # the line read last is no line of etcd's and has no end
        self._coarse = False
        self._below_console = False

    def feed(self, line: str, *, whole: bool) -> None:
        self._lines += 1
        self._unfinished = False
        try:
            entry = zap_entry(line)
            if entry is not None:
                self._below_console = not line.startswith("{")
                self._zap(entry)
            elif GO_LOG.match(line) or (self._below_console and _FRAME.match(line)):
                return
            else:
                self._below_console = False
                self._plain(line)
        except (ValueError, TypeError, KeyError, OverflowError):
            self._garbage += 1
            self._unfinished = not whole

    def log(self) -> Log:
        member = self._local or (self._ids.most_common(1)[0][0] if self._ids else "")
        events = tuple(
            dataclasses.replace(event, member=member) for event in self._events if event.member in ("", member)
        )
        first, last = (min(self._times), max(self._times)) if self._times else (0.0, 0.0)
        left_out = int(self._unfinished)
        lines, garbage = self._lines - left_out, self._garbage - left_out
        return Log(member, self._name or member, events, first, last, lines, garbage, self._coarse)

    def _zap(self, entry: dict[str, object]) -> None:
        at, text = parse_time(str(entry["ts"])), str(entry["msg"])
        self._times.append(at)
        local = str(entry.get("local-member-id") or "")
        named = _NAMED.match(str(entry.get("local-member-attributes") or ""))
        if named:
            self._name = named.group(1)
        if text in _STARTED and local:
            self._local = local
            self._events.append(Event(local, at, "start"))
        elif text == "lost TCP streaming connection with remote peer":
            self._events.append(Event(local, at, "disconnected", peer=str(entry["remote-peer-id"])))
        elif text.startswith("received signal; shutting down"):
            self._events.append(Event("", at, "stop"))
        else:
            self._raft(at, text)

    def _plain(self, line: str) -> None:
        found = _CAPNSLOG.search(line)
        if found:
            at, text = parse_time(found.group(1)), found.group(2)
        else:
            found = _RAFT_LOGGER.search(line)
            if found is None:
                raise ValueError("not a line of etcd's log")
            year, month, day, clock, text = found.groups()
            at = parse_time(f"{year}-{month}-{day} {clock}")
            if self._times and at <= self._times[-1] < at + 1:
                at = self._times[-1]  # whole seconds: not before the line above it
            self._coarse = True
        self._times.append(at)
        named, started, lost = _NAMED_PLAIN.search(text), _STARTED_PLAIN.search(text), _LOST_PEER.search(text)
        if named:
            self._name = next(filter(None, named.groups()), self._name)
        if started:
            self._local = started.group("member")
            self._events.append(Event(self._local, at, "start"))
        elif lost:
            self._events.append(Event("", at, "disconnected", peer=lost.group("peer")))
        else:
            self._raft(at, text)

    def _raft(self, at: float, text: str) -> None:
        for kind, pattern in _PATTERNS:
            found = pattern.match(text)
            if found is None:
                continue
            parts = found.groupdict(default="")
            detail = ROLES.get(parts.get("detail", ""), parts.get("detail", ""))
            if kind == "count":
                votes, against = int(parts["votes"]), int(parts["against"])
                detail = f"{votes} vote{'s' * (votes != 1)}, {against} rejection{'s' * (against != 1)}"
            message = parts.get("message", "").removesuffix("Resp")
            self._ids[parts["member"]] += 1
            term = int(parts.get("term") or 0)
            self._events.append(Event(parts["member"], at, kind, term, parts.get("peer", ""), message, detail))
            return


def parse_time(text: str) -> float:
    """Take a time of ISO 8601 (UTC where it does not say) or seconds since 1970, return the latter.

    Raises ValueError.
    """
    try:
        seconds = float(text)
    except ValueError:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if not 0 <= seconds < 1e11:
        raise ValueError(f"no time: {text}")
    return seconds


# Order


_ASKS = {"cast", "rejected", "ignored"}


def merge(logs: Sequence[Log]) -> list[Event]:
    """Return the events of all members, each member's in the order of its file, by time where that leaves a choice, and
    what follows from another member's event after it, whatever the clocks say.
    """
    queues = [list(reversed(events)) for events in _with_terms_of_requests(logs)]
    waiting = Counter(key for queue in queues for event in queue for key in _gives(event))
    given: Counter[tuple[object, ...]] = Counter()
    used: Counter[tuple[object, ...]] = Counter()
    merged: list[Event] = []
    while any(queues):
        heads = [(queue[-1].at, number) for number, queue in enumerate(queues) if queue]
        free = [head for head in heads if not _blocked(queues[head[1]][-1], waiting, given, used)]
        event = queues[min(free or heads)[1]].pop()
        for key in _gives(event):
            waiting[key] -= 1
            given[key] += 1
        need = _needs(event)
        if need and event.kind not in ("higher", "elected"):
            used[need] += 1
        merged.append(event)
    return merged


def _with_terms_of_requests(logs: Sequence[Log]) -> list[list[Event]]:
    """Return the events, those of ignored requests with the term of the request.

    A member that ignores a request logs its own term, which is lower. Its request is the first of that sender which it
    had not ignored yet. No clock is used.
    """
    asked: dict[tuple[str, str, str], list[Event]] = {}
    for log in logs:
        for event in log.events:
            if event.kind == "sent":
                asked.setdefault((event.member, event.peer, event.message), []).append(event)

    def mended(event: Event) -> Event:
        if event.kind != "ignored":
            return event
        requests = asked.get((event.peer, event.member, event.message), [])
        own = event.term if event.message == "MsgPreVote" else event.term + 1  # a pre-vote is logged with the old term
        while requests and requests[0].term < own:
            requests.pop(0)
        return dataclasses.replace(event, term=requests.pop(0).term) if requests else event

    return [[mended(event) for event in log.events] for log in logs]


def _blocked(
    event: Event,
    waiting: Counter[tuple[object, ...]],
    given: Counter[tuple[object, ...]],
    used: Counter[tuple[object, ...]],
) -> bool:
    """Return whether the event that must come before it is still to come."""
    need = _needs(event)
    return need is not None and waiting[need] > 0 and given[need] <= used[need]


def _gives(event: Event) -> list[tuple[object, ...]]:
    if event.kind == "sent":
        return [("asked", event.member, event.peer, event.message, event.term)]
    if event.kind in ("cast", "rejected"):
        return [("answered", event.member, event.peer, event.message, event.term)]
    if event.kind == "became" and event.detail == "leader":
        return [("leads", event.member, event.term)]
    return []


def _needs(event: Event) -> tuple[object, ...] | None:
    if event.kind in _ASKS:
        return ("asked", event.peer, event.member, event.message, event.term)
    if event.kind in ("granted", "refused") and event.peer != event.member:
        return ("answered", event.peer, event.member, event.message, event.term)
    if event.kind == "higher" and event.message in ("MsgVote", "MsgPreVote"):
        return ("asked", event.peer, event.member, event.message, event.term)
    if event.kind == "higher":
        return ("leads", event.peer, event.term)
    if event.kind == "elected" and event.peer != event.member:
        return ("leads", event.peer, event.term)
    return None
