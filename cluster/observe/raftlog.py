"""Raft events from members' logs: lines in, events out, in an order that could have happened.

The messages have been the same from etcd 3.4 to 3.7; what differs is what stands around them: JSON lines of zap, its
console lines (``--log-format=console``, 3.6 and later), or 3.4's capnslog (``2021-09-11 14:46:26.379622 I | raft: …``,
``raft2021/09/11 14:46:26 INFO: …``; in journald the message alone), all of them in whatever carried them here, see
`log_wrappers`. Times have a millisecond at best and each member has its own clock, so the events of one member keep the
order of its file, and those of several are merged so that no answer comes before its question. `log_join` makes one log
for each member of several files.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, tzinfo
from typing import Literal

from cluster.observe.log_times import Stamp, after, find_stamp, parse_stamp
from cluster.observe.log_wrappers import PASTED, Joiner, Record, apart, source_of, unwrap
from cluster.observe.logs import GO_LOG

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
    seconds, ``yearless`` where some had no year, ``zoned`` where all said their zone.
    """

    member: str
    name: str
    events: tuple[Event, ...]
    first: float
    last: float
    lines: int
    garbage: int
    coarse: bool = False
    yearless: bool = False
    zoned: bool = True


_BESIDE = ("start", "stop", "disconnected")  # what is not Raft's own word
_ID = r"(?P<member>[0-9a-f]{1,16})"
_BY = rf"{_ID} (?:\[[^\]]*\] )?"
_PEER = r"(?P<peer>[0-9a-f]{1,16})"
_TERM = r" at term (?P<term>[0-9]+)"
_END = r"(?![\w-]|[.:]\w)"  # people and exports have something of their own behind a line
_MESSAGE = r"(?P<message>Msg\w+)"
_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("became", re.compile(rf"{_BY}became (?P<detail>follower|pre-candidate|candidate|leader){_TERM}{_END}")),
    ("sent", re.compile(rf"{_BY}sent {_MESSAGE} request to {_PEER}{_TERM}{_END}")),
    ("cast", re.compile(rf"{_BY}cast {_MESSAGE} for {_PEER} \[[^\]]*\]{_TERM}{_END}")),
    ("rejected", re.compile(rf"{_BY}rejected {_MESSAGE} from {_PEER} \[[^\]]*\]{_TERM}{_END}")),
    ("ignored", re.compile(rf"{_BY}ignored {_MESSAGE} from {_PEER} \[[^\]]*\]{_TERM}(?:: (?P<detail>.*)|{_END})")),
    ("refused", re.compile(rf"{_BY}received {_MESSAGE} rejection from {_PEER}{_TERM}{_END}")),
    ("granted", re.compile(rf"{_BY}received {_MESSAGE} from {_PEER}{_TERM}{_END}")),
    (
        "count",
        re.compile(
            rf"{_BY}has received (?P<votes>[0-9]+) {_MESSAGE} votes and (?P<against>[0-9]+) vote rejections{_END}"
        ),
    ),
    (
        "higher",
        re.compile(
            rf"{_BY}received a {_MESSAGE} message with higher term from {_PEER} \[term: (?P<term>[0-9]+)\]{_END}"
        ),
    ),
    ("elected", re.compile(rf"raft\.node: {_ID} elected leader {_PEER}{_TERM}{_END}")),
    ("elected", re.compile(rf"raft\.node: {_ID} changed leader from [0-9a-f]+ to {_PEER}{_TERM}{_END}")),
    ("lost", re.compile(rf"raft\.node: {_ID} lost leader {_PEER}{_TERM}{_END}")),
)
_LOST_PEER = re.compile(r"lost the TCP streaming connection with peer (?P<peer>[0-9a-f]{1,16}) \(")
_CAPNSLOG = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}\.[0-9]+) [A-Z] \| [\w/.-]+: (.*)$")
_RAFT_LOGGER = re.compile(r"raft([0-9]{4})/([0-9]{2})/([0-9]{2}) ([0-9]{2}:[0-9]{2}:[0-9]{2}) \w+: (.*)$")
# What etcd says without a time of its own where journald keeps the time. Short ids are words of any language.
_BARE = re.compile(
    r"(?<![^\s\"'|\]\[:>=])((?:raft\.node: )?[0-9a-f]{8,16} (?:\[[^\]]*\] )?"
    r"(?:became|is starting|sent Msg|cast Msg|rejected Msg|ignored Msg|received|has received|elected leader"
    r"|changed leader|lost leader) .*|lost the TCP streaming connection with peer [0-9a-f]{8,16}\b.*"
    r"|published \{Name:.*|(?:re)?starting member [0-9a-f]{8,16} in cluster .*|received \w+ signal, shutting down.*)$"
)
_NAMED = re.compile(r"\{Name:(.*) ClientURLs:\[")
_NAMED_PLAIN = re.compile(r"(?:published \{Name:(.*) ClientURLs:\[|name = (.*)$)")
# A stack that zap writes below a console line: two lines for each frame, the function and its file.
_FRAME = re.compile(r"(?:^|\s)(?:[\w./-]+\.[^\s=:]+|\S+\.(?:go|s):[0-9]+)$")
# What Go's runtime writes as it ends a process.
_PANIC = re.compile(r"(?:^|\s)(?:panic: |fatal error: |goroutine [0-9]+ \[|\[signal SIG|exit status [0-9]+$)")
_OF_A_PANIC = re.compile(r"(?:^|\s)(?:[\w./*()-]+\(.*\)|\S+\.(?:go|s):[0-9]+(?: \+0x[0-9a-f]+)?|created by .*|\t.*)$")
_GO_LOG = re.compile(rf"(?<![^\s|\]:>]){GO_LOG.pattern}")
# Lines of the tools that show logs: of journalctl, docker compose and stern, and what JSON arrays have.
_OF_A_TOOL = re.compile(
    r"-- (?:Logs begin|Journal begins|No entries|Boot|Reboot|cursor:).*|__CURSOR=.*"
    r"|Attaching to .*|[+-] \S+ \u203a \S+.*|\[|\],?"
)
_FIELD = re.compile(r"\s*_{0,2}[A-Z][A-Z0-9_]*=.*")  # of journald's formats of several lines
_HEADER = re.compile(r"==> (.*) <==")
_BLOCK_TIME = re.compile(r"__REALTIME_TIMESTAMP=([0-9]+)|([^\[]*) \[s=[0-9a-f]+;i=[0-9a-f]+[^\[]*\]")
_BLOCK_MESSAGE = re.compile(r"\s*MESSAGE=(.*)")
_LONGEST_TEXT = 100_000  # characters of a line that no object is in, of which etcd's have some hundred
_BESIDE_FIELDS = {"ts", "level", "logger", "caller", "msg"}  # what formats leave out or write in their own way
_STARTED = ("starting local member", "restarting local member")
_STARTED_PLAIN = re.compile(
    r"(?:starting member|restarting member) (?P<member>[0-9a-f]{1,16}) in cluster (?P<cluster>[0-9a-f]+)"
)
_STOPPED_PLAIN = re.compile(r"received \w+ signal, shutting down")


@dataclasses.dataclass(slots=True)
class Item:
    """A line of etcd's as it was read, or the first or last of several that say nothing of Raft.

    Attributes:
        source: what the wrapper says of where it is from.
        member: the id that the line names as its writer; empty where it names none.
        stamp: when it was written.
        event: what it says, by a member of no name where the line names none.
        name: the member's name, where the line says it.
        started: the member begins here.
        said: what tells a line from another one of the same time and event; 0 where it says nothing about Raft.
    """

    source: str
    member: str
    stamp: Stamp
    event: Event | None = None
    name: str = ""
    started: bool = False
    said: int = 0


def read_log(lines: Iterable[str], name: str = "") -> Log:
    """Take a member's lines, and a name for the case that it does not say its own; return its Log.

    A line is never an error: what is not etcd's is counted. A last line without the end that
    the others have is what a running member was writing at that moment: it counts only where it can be read.
    """
    reader = Reader()
    reader.read(lines)
    started = [item.member for item in reader.items if item.started]
    ids = Counter(item.event.member for item in reader.items if item.event is not None and item.event.member)
    member = started[-1] if started else (ids.most_common(1)[0][0] if ids else "")
    names = [item.name for item in reader.items if item.name]
    made = make_log(
        member, names[-1] if names else name, [item for item in reader.items if item.member in ("", member)]
    )
    return dataclasses.replace(made, name=made.name or member, lines=reader.lines, garbage=reader.garbage)


def make_log(member: str, name: str, items: Sequence[Item]) -> Log:
    """Return a member's log of its lines, which are in order; those that name no member are its own."""
    coarse = is_coarse(items)
    events: list[Event] = []
    times: list[float] = []
    for item in items:
        at = item.stamp.at
        if coarse and item.stamp.coarse and times and at <= times[-1] < at + 1:
            at = times[-1]  # whole seconds: not before the line above it
        times.append(at)
        if item.event is not None:
            events.append(dataclasses.replace(item.event, member=member, at=at))
    first, last = (min(times), max(times)) if times else (0.0, 0.0)
    yearless = any(item.stamp.yearless for item in items)
    zoned = all(item.stamp.zoned for item in items)
    return Log(member, name, tuple(events), first, last, len(items), 0, coarse, yearless, zoned)


def is_coarse(items: Iterable[Item]) -> bool:
    """Return whether lines have whole seconds for what they say about Raft; one with a fraction of 0 is no reason."""
    precise = Counter(item.stamp.coarse for item in items if item.event is not None and item.event.kind not in _BESIDE)
    return precise[True] > precise[False]


class Reader:
    """Reads the lines of one file, whichever members they are from.

    Attributes:
        items: the lines that are etcd's, in the order of the file; of those that say nothing about Raft only the ends.
        lines, garbage: how many there are, and how many of them no etcd wrote.
        first_garbage: the first of these with its number; None where there is none.
        first_line: the first line that is not empty.
        timeless: how many lines about Raft have no time anywhere.
        clusters: the members of each cluster, by their ids, as far as lines say so.
        may_be_cut: the last line has no end, and ends with a number.
    """

    def __init__(self, zone: tzinfo = UTC) -> None:
        """Take the zone of times that do not say theirs."""
        self.items: list[Item] = []
        self.lines = self.garbage = self.timeless = 0
        self.first_garbage: tuple[int, str] | None = None
        self.first_line = ""
        self.clusters: dict[str, set[str]] = {}
        self.may_be_cut = False
        self._zone = zone
        self._joiner = Joiner()
        self._header = ""
        self._below_console = self._below_panic = False
        self._block: Stamp | None = None  # of journald's formats of several lines
        self._last: dict[str, float] = {}  # by source, of times without a zone
        self._sources: set[str] = set()  # those of etcd's lines that are the message alone
        self._ended: tuple[int, int] | None = None

    def read(self, lines: Iterable[str]) -> None:
        """Take the lines, each with its end where it has one."""
        with_ends = False
        line = ""
        before, items = (0, 0), 0
        for line in lines:
            with_ends = with_ends or line.endswith("\n")
            if line.strip():
                self.first_line = self.first_line or line.strip()
                before = self.lines, self.garbage
                self.lines += 1
                items = len(self.items)
                for each in self._joiner.feed(line.rstrip("\r\n")):
                    self._feed_all(each)
        for each in self._joiner.close():
            self._feed_all(each)
        if with_ends and not line.endswith("\n"):
            self._doubt(line, items)
        if with_ends and line.strip() and not line.endswith("\n") and self.garbage > before[1]:
            # What a running member was writing.
            self.lines, self.garbage = before
            if self.first_garbage is not None and self.first_garbage[0] > self.lines:
                self.first_garbage = None

    def _doubt(self, line: str, before: int) -> None:
        """Note a last line that has no end and ends with a term, which may be cut; leave out one that is.

        Takes how many items stand before it. A member's terms never fall, and a number that is cut is a lower one.
        """
        item = self.items[-1] if len(self.items) > before else None
        if item is None or item.event is None or not line.endswith(f"at term {item.event.term}"):
            return
        highest = max((each.event.term for each in self.items[:before] if each.event and each.member == item.member),
                      default=0)  # fmt: skip
        if item.event.term < highest:
            self.items.pop()
            self.garbage += 1
        else:
            self.may_be_cut = True

    def _feed_all(self, line: str) -> None:
        """Take a line, or what were several before something joined them."""
        parts = apart(line)
        self.lines += len(parts) - 1
        for each in parts:
            self._feed(each)

    def _feed(self, line: str) -> None:
        line = line.strip()
        if not line:
            return
        if len(line) > _LONGEST_TEXT and "{" not in line:
            line = line[:_LONGEST_TEXT]
        known = False
        for record in unwrap(line, self._zone):
            if record.torn:
                self.lines += 1
                self.garbage += 1
                self.first_garbage = self.first_garbage or (self.lines - 1, record.text)
                continue
            try:
                known = (self._zap(record, record.entry) if record.entry is not None else self._plain(record)) or known
            except (ValueError, TypeError, KeyError, OverflowError):
                continue
        if not known:
            self.garbage += self._joiner.joined
            if self.first_garbage is None:
                self.first_garbage = self.lines - self._joiner.joined + 1, line

    def _add(self, item: Item) -> None:
        if self._header:
            item.source = f"{self._header} {item.source}"
        if not item.stamp.zoned:
            item.stamp = after(item.stamp, self._last.get(item.source, 0.0), self._zone)
            self._last[item.source] = item.stamp.at
        if item.event is None and not item.name and len(self.items) > 1:
            # Of several lines that say nothing only the first and the last are kept, by time in both directions.
            one, two = self.items[-2:]
            alike = all(
                (each.event, each.name, each.source, each.member) == (None, "", item.source, item.member)
                for each in (one, two)
            )
            times = one.stamp.at, two.stamp.at, item.stamp.at
            if alike and list(times) in (sorted(times), sorted(times, reverse=True)):
                self.items[-1] = item
                return
        self.items.append(item)

    def _zap(self, record: Record, entry: dict[str, object]) -> bool:
        stamp, text = parse_stamp(str(entry["ts"]), self._zone), str(entry["msg"])
        self._below_console, self._below_panic = record.console, False
        local = str(entry.get("local-member-id") or "")
        named = _NAMED.match(str(entry.get("local-member-attributes") or ""))
        name = named.group(1) if named else ""
        started = text in _STARTED and bool(local)
        cluster = str(entry.get("cluster-id") or "0")
        if local and cluster != "0":
            self.clusters.setdefault(cluster, set()).add(local)
        event: Event | None = None
        if started:
            event = Event(local, stamp.at, "start")
        elif text == "lost TCP streaming connection with remote peer":
            event = Event(local, stamp.at, "disconnected", peer=str(entry["remote-peer-id"]))
        elif text.startswith("received signal; shutting down"):
            event = Event(local, stamp.at, "stop")
        else:
            event = _raft(stamp.at, PASTED.sub("", text) if "[K" in text else text)
        member = event.member if event is not None else local
        said = hash((text, *sorted(f"{key}={entry[key]}" for key in entry.keys() - _BESIDE_FIELDS))) if event else 0
        self._add(Item(record.source, member, stamp, event, name, started, said))
        return True

    def _plain(self, record: Record) -> bool:
        line = record.text
        stamp: Stamp | None
        found = _CAPNSLOG.search(line)
        if found is not None:
            stamp, text = parse_stamp(found.group(1), self._zone), found.group(2)
        elif (found := _RAFT_LOGGER.search(line)) is not None:
            year, month, day, clock, text = found.groups()
            stamp = parse_stamp(f"{year}-{month}-{day} {clock}", self._zone)
        elif '"msg":' not in line and line[-1:] != "}" and (found := _BARE.search(line)) is not None:
            # Not a part of an object of zap's, of which nobody knows what it ends with.
            prefix, text = line[: found.start()], found.group(1)
            stamp = find_stamp(prefix, self._zone) or record.stamp or self._block
            if stamp is None:
                self.timeless += 1
                return True
            source = source_of(prefix)
            if source:
                self._sources.add(source)
        else:
            return self._beside(record)
        self._below_console = self._below_panic = False
        source = " ".join(filter(None, (record.source, source_of(line[: found.start()]))))
        named, started, lost = _NAMED_PLAIN.search(text), _STARTED_PLAIN.search(text), _LOST_PEER.search(text)
        name = next(filter(None, named.groups()), "") if named else ""
        event: Event | None
        if started:
            event = Event(started.group("member"), stamp.at, "start")
            self.clusters.setdefault(started.group("cluster"), set()).add(event.member)
        elif lost:
            event = Event("", stamp.at, "disconnected", peer=lost.group("peer"))
        elif _STOPPED_PLAIN.search(text):
            event = Event("", stamp.at, "stop")
        else:
            event = _raft(stamp.at, text) or _raft(stamp.at, text.rstrip(" \"'`],"))
        said = hash(text) if event else 0
        self._add(Item(source, event.member if event else "", stamp, event, name, started is not None, said))
        return True

    def _beside(self, record: Record) -> bool:
        """Return whether a line without a word about Raft belongs to etcd, or to the tool that showed its log."""
        line = record.text
        if _GO_LOG.search(line) is not None or (self._below_console and _FRAME.search(line) is not None):
            return True
        if _PANIC.search(line) is not None:
            self._below_panic = True
            return True
        if self._below_panic and _OF_A_PANIC.search(line) is not None:
            return True
        self._below_console = self._below_panic = False
        header, block, message = _HEADER.fullmatch(line), _BLOCK_TIME.fullmatch(line), _BLOCK_MESSAGE.fullmatch(line)
        if header is not None:
            self._header = header.group(1)
            return True
        if block is not None:
            self._block = parse_stamp(block[1]) if block[1] else find_stamp(block[2], self._zone)
            return True
        if message is not None or (self._block is not None and _FIELD.fullmatch(line) is not None):
            return True
        if _OF_A_TOOL.fullmatch(line) is not None:
            return True
        shown = source_of(line)
        source = next((each for each in self._sources if shown.startswith(each)), None)
        if source is None:
            return False
        stamp = find_stamp(line, self._zone) or record.stamp
        if stamp is not None:
            self._add(Item(" ".join(filter(None, (record.source, source))), "", stamp))
        return True


def _raft(at: float, text: str) -> Event | None:
    """Return what a message of Raft's says; None for any other."""
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
        term = int(parts.get("term") or 0)
        return Event(parts["member"], at, kind, term, parts.get("peer", ""), message, detail)
    return None


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
