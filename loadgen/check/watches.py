"""The watches of a history, and what each promises by itself: order, uniqueness, atomicity, bookmarks.

What an event says, and whether one is missing, is judged by ``replay``, which knows the store at each revision.
Rules of the protocol: etcd's ``rpc.proto`` (WatchResponse) and ``server/etcdserver/api/v3rpc/watch.go``.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadgen.check.evidence import Evidence
from loadgen.check.rules import Ledger
from loadgen.check.store import within
from loadgen.check.words import show
from loadgen.history.format import Kind
from loadgen.history.reader import History
from loadgen.progress import ProgressRequests
from loadgen.proto import etcd_pb2 as pb

# Longer answers are decoded: comparing them once for each of their revisions would be quadratic.
_GLANCE = 4096
_CHUNK = 1 << 15
_NEVER = 1 << 63
ALL_WATCHES = -1
"""Watch id of an answer to a progress request: it is about every watch of the stream."""


class Watch:
    """One watch on one stream.

    Attributes:
        label: who watched what, in words.
        member: id of the member that it ran on.
        clock: which clock its times are of.
        key, end: its range. whole: the range holds every key of the run. start: its first revision.
        earliest: where it was to begin now, the revision before which that certainly was not; else 0.
        puts, deletes: which events it asked for. previous: whether it asked for previous key-values.
        created: the revision of the member when it was created. asked_before: how many requests for progress had been
            sent on its stream before it was asked for.
        resumed: the newest revision that was past when it began; below it, events come from the store's history.
        leaving: the newest revision that had come when its end was asked for.
        covered: nothing up to this revision may be missing.
        revisions, rows, low, high, times: its groups of events, one a revision and answer: the revision, the answer's
            row in the history, which of its events, and when it came; in order of revisions.
        head: the revision of the next group; 0 where there is none left.
    """

    def __init__(self, request: Any, label: str, prefix: bytes, clock: int) -> None:
        self.key, self.end = request.key, request.range_end
        self.puts = pb.WatchCreateRequest.NOPUT not in request.filters
        self.deletes = pb.WatchCreateRequest.NODELETE not in request.filters
        self.previous = request.prev_kv
        self.start = request.start_revision
        self.earliest = 0
        last = prefix + b"\xff" * 64
        self.whole = self.puts and self.deletes and within(prefix or b"\0", self.key, self.end)
        self.whole = self.whole and within(last, self.key, self.end)
        self.label = label
        self.clock = clock
        self.member = 0
        self.created = self.asked_before = 0
        self.resumed = 0
        self.leaving = _NEVER
        self.covered = 0
        self.progress = 0
        self.newest = 0
        self.fragment = False
        self.revisions, self.rows = array("q"), array("q")
        self.low, self.high, self.times = array("i"), array("i"), array("q")
        self.head = 0
        self._next = 0
        self._responses: Iterator[tuple[bytes, bytes]] = iter(())
        self._row = -1
        self._data = b""
        self._events: Any = None
        self._split = False

    def wants(self, key: bytes, deletes: bool) -> bool:
        """Whether an event of a key is one that it asked for."""
        return (self.deletes if deletes else self.puts) and within(key, self.key, self.end)

    # ---- its groups, in order of revisions

    def rewind(self, evidence: Evidence) -> None:
        """Puts the groups in order, for ``head`` and ``take``."""
        revisions = np.frombuffer(self.revisions, np.int64) if self.revisions else np.empty(0, np.int64)
        if np.any(revisions[1:] < revisions[:-1]):
            order = np.argsort(revisions, kind="stable").tolist()
            for name in ("revisions", "rows", "low", "high", "times"):
                column = getattr(self, name)
                setattr(self, name, array(column.typecode, [column[each] for each in order]))
        rows: NDArray[Any] = np.array(self.rows, np.int64)
        if len(rows):
            rows = rows[np.concatenate(([True], rows[1:] != rows[:-1]))]
        self._responses = evidence.history.payloads(rows)
        revisions = np.frombuffer(self.revisions, np.int64) if self.revisions else revisions
        self._split = bool(np.any(revisions[1:] == revisions[:-1]))
        self._next, self._row = 0, -1
        self.head = self.revisions[0] if self.revisions else 0

    def begins(self) -> int:
        """The first revision at which it is to be looked at."""
        return min(int(self.start), self.head) if self.head else int(self.start)

    def time(self) -> int:
        """When the next group came."""
        return self.times[self._next]

    def take(self) -> Any:
        """The events of the next revision."""
        number = self._next
        revision = self.revisions[number]
        events = self._slice(number)
        self._next = number = number + 1
        while number < len(self.revisions) and self.revisions[number] == revision:
            events = [*events, *self._slice(number)]
            self._next = number = number + 1
        self.head = self.revisions[number] if number < len(self.revisions) else 0
        return events

    def glance(self) -> tuple[bytes, int, int] | None:
        """What the next revision's events are, as they came: those of watches that glance the same are the same.

        None where they are not to be had without decoding them.
        """
        number = self._next
        row = self.rows[number]
        if row != self._row:
            self._row, self._data, self._events = row, next(self._responses)[1], None
        data = self._data
        if len(data) > _GLANCE or self._split:
            return None
        # What differs between members is in the header, which stands first and is shorter than 128 bytes.
        return data[2 + data[1] :], self.low[number], self.high[number]

    def skip(self) -> None:
        """Passes over the next revision; ``glance`` must have told of it."""
        self._next = number = self._next + 1
        self.head = self.revisions[number] if number < len(self.revisions) else 0

    def _slice(self, number: int) -> Any:
        if self.rows[number] != self._row:
            self._row, self._data, self._events = self.rows[number], next(self._responses)[1], None
        if self._events is None:
            self._events = list(pb.WatchResponse.FromString(self._data).events)
        low, high = self.low[number], self.high[number]
        return self._events if high - low == len(self._events) else self._events[low:high]


class _Stream:
    """One watch stream while it is walked through."""

    def __init__(self, evidence: Evidence, ledger: Ledger, part: int, watcher: int) -> None:
        self._evidence, self._ledger = evidence, ledger
        self._clock = int(evidence.clock_of_part[part])
        self._name = f"stream {watcher}" + (f" of {evidence.history.parts[part].path.name}" if part else "")
        # Each with how often the stream had been asked for its progress before, and a revision that it had shown.
        self._creating: deque[tuple[Any, int, int]] = deque()
        self._header: Any = None
        self._open: dict[int, Watch] = {}
        self._requests = ProgressRequests()
        self.watches: list[Watch] = []

    def sent(self, request: Any) -> None:
        if request.HasField("create_request"):
            shown = self._header.revision if self._header is not None else 0
            self._creating.append((request.create_request, self._requests.asked, shown))
        elif request.HasField("progress_request"):
            self._requests.asked += 1
        elif request.HasField("cancel_request") and request.cancel_request.watch_id in self._open:
            left = self._open[request.cancel_request.watch_id]
            left.leaving = min(left.leaving, left.newest)

    def ended(self) -> None:
        """Takes in that the stream is over: whoever resumes it creates its watches anew."""
        self._creating.clear()
        self._open.clear()
        self._header = None

    def received(self, row: int, at_ns: int, response: Any) -> None:
        header, watch_id = response.header, response.watch_id
        self._header = header
        if response.created:
            self._created(response)
            if response.canceled:
                self._open.pop(watch_id, None)
            return
        events = response.events
        if watch_id == ALL_WATCHES and not events:
            self._requests.told += 1
            for watch in self._open.values():
                # A watch that is being cancelled may have dropped events, and the news of its end come behind this.
                about = self._requests.is_about(watch.created, watch.asked_before, header.revision)
                if about and watch.leaving == _NEVER:
                    self._progress(watch, header.revision)
            return
        found = self._open.get(watch_id)
        if found is None:
            if events:
                self._ledger.broken(
                    "watch.filter", events[0].kv.mod_revision,
                    lambda: f"{self._name} was given events of a watch {watch_id} that it has not, or no more"
                    f" ({self._evidence.time(at_ns)})",
                )  # fmt: skip
            return
        if response.canceled:
            del self._open[watch_id]
            return
        if not events:
            self._progress(found, header.revision)
            return
        self._events(found, row, at_ns, events)
        found.fragment = response.fragment

    def _created(self, response: Any) -> None:
        if not self._creating:
            return
        request, asked, shown = self._creating.popleft()
        revision = response.header.revision
        evidence = self._evidence
        member = response.header.member_id
        since = f", from revision {request.start_revision}" if request.start_revision else ""
        label = f"the watch on {evidence.member_name(member)} ({self._name}, id {response.watch_id}{since})"
        watch = Watch(request, label, evidence.cluster.prefix, self._clock)
        watch.member = member
        watch.created, watch.asked_before = revision, asked
        if not watch.start:
            watch.start, watch.earliest = revision + 1, shown + 1
        else:
            watch.resumed = revision
        self._open[response.watch_id] = watch
        self.watches.append(watch)

    def _progress(self, watch: Watch, revision: int) -> None:
        self._ledger.judged["watch.bookmarkable"] += 1
        watch.progress = max(watch.progress, revision)
        # Before its start a watch owes nothing.
        watch.covered = max(watch.covered, revision)

    def _events(self, watch: Watch, row: int, at_ns: int, events: Any) -> None:
        ledger = self._ledger
        count = len(events)
        low, revision = 0, events[0].kv.mod_revision
        if not watch.newest and watch.earliest:
            # "Now" is when etcd took the watch in; the revision that it says may be a newer one (3.5.30, not 3.5.1).
            watch.start = min(watch.start, max(watch.earliest, revision))
        for high in range(1, count + 1):
            following = events[high].kv.mod_revision if high < count else -1
            if following == revision:
                continue
            if revision > watch.newest:
                watch.newest = revision
                self._keep(watch, row, at_ns, revision, low, high)
            elif watch.fragment and low == 0 and revision == watch.newest:
                self._keep(watch, row, at_ns, revision, low, high)
            else:
                self._again(watch, row, at_ns, revision, low, high, events)
            if revision <= watch.progress:
                self._ahead(watch, at_ns, revision, events[low])
            low, revision = high, following
        ledger.judged["watch.ordered"] += count
        ledger.judged["watch.unique"] += count
        ledger.judged["watch.atomic"] += count
        watch.covered = max(watch.covered, watch.newest)

    def _keep(self, watch: Watch, row: int, at_ns: int, revision: int, low: int, high: int) -> None:
        watch.revisions.append(revision)
        watch.rows.append(row)
        watch.low.append(low)
        watch.high.append(high)
        watch.times.append(at_ns)

    def _ahead(self, watch: Watch, at_ns: int, revision: int, event: Any) -> None:
        progress = watch.progress
        self._ledger.broken(
            "watch.bookmarkable", revision,
            lambda: f"{watch.label} was told that all events up to revision {progress} had come, and then got the event"
            f" of {show(event.kv.key)} of revision {revision} ({self._evidence.time(at_ns)})",
        )  # fmt: skip

    def _again(self, watch: Watch, row: int, at_ns: int, revision: int, low: int, high: int, events: Any) -> None:
        """A revision that is not newer than the newest: one delivered before, or one out of order."""
        when = self._evidence.time(at_ns)
        before = [index for index, each in enumerate(watch.revisions) if each == revision]
        if not before:
            newest = watch.newest
            if revision > watch.progress:
                self._ledger.broken(
                    "watch.ordered", revision,
                    lambda: f"{watch.label} got the event of revision {revision} after that of revision {newest}"
                    f" ({when})",
                )  # fmt: skip
            self._keep(watch, row, at_ns, revision, low, high)
            return
        known = []
        for index in before:
            answer = pb.WatchResponse.FromString(self._evidence.history.response(watch.rows[index]))
            known.extend(answer.events[watch.low[index] : watch.high[index]])
        keys = {event.kv.key for event in known}
        if any(event.kv.key in keys for event in events[low:high]):
            key = next(event.kv.key for event in events[low:high] if event.kv.key in keys)
            first = self._evidence.time(watch.times[before[0]])
            self._ledger.broken(
                "watch.unique", revision,
                lambda: f"{watch.label} got the event of {show(key)} of revision {revision} twice ({first} and {when})",
            )  # fmt: skip
            return
        self._ledger.broken(
            "watch.atomic", revision,
            lambda: f"{watch.label} got the events of revision {revision} in two answers (the second {when})",
        )  # fmt: skip
        self._keep(watch, row, at_ns, revision, low, high)


def _columns(history: History, rows: NDArray[np.int64]) -> Iterator[tuple[int, int, int, int, int]]:
    """Row, part, watcher, kind and time of records, not all of them as Python's numbers at once."""
    for low in range(0, len(rows), _CHUNK):
        chunk = rows[low : low + _CHUNK]
        heads = history.rows[chunk]
        columns = (chunk, history.part[chunk], heads["process"], heads["kind"], heads["return_ns"])
        yield from zip(*(column.tolist() for column in columns), strict=True)


def read_watches(evidence: Evidence, ledger: Ledger) -> list[Watch]:
    """Returns the watches that were created, and judges what each promises by itself."""
    history = evidence.history
    kinds = history.rows["kind"]
    rows = np.flatnonzero((kinds >= Kind.WATCH_SENT) & (kinds <= Kind.WATCH_ENDED))
    streams: dict[tuple[int, int], _Stream] = {}
    parse, parse_request = pb.WatchResponse.FromString, pb.WatchRequest.FromString
    sent, received = int(Kind.WATCH_SENT), int(Kind.WATCH_RECEIVED)
    payloads = history.payloads(rows)
    for row, part, watcher, kind, at_ns in _columns(history, rows):
        request, response = next(payloads)
        stream = streams.get((part, watcher))
        if stream is None:
            stream = streams[part, watcher] = _Stream(evidence, ledger, part, watcher)
        if kind == received:
            stream.received(row, at_ns, parse(response))
        elif kind == sent:
            stream.sent(parse_request(request))
        else:
            stream.ended()
    watches = [watch for stream in streams.values() for watch in stream.watches]
    for watch in watches:
        watch.rewind(evidence)
    if watches:
        ledger.absent("watch.bookmarkable", "no watch was told its progress")
    return watches
