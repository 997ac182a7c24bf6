"""The watches of a history, and what each promises by itself: order, uniqueness, atomicity, bookmarks.

What an event says, and whether one is missing, is judged by ``replay``, which knows the store at each revision.
Rules of the protocol: etcd's ``rpc.proto`` (WatchResponse) and ``server/etcdserver/api/v3rpc/watch.go``.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from loadgen.check.evidence import Evidence
from loadgen.check.rules import Ledger
from loadgen.check.spans import Span, Spans
from loadgen.check.store import within
from loadgen.check.words import show
from loadgen.client.watch_progress import ProgressRequests
from loadgen.history.format import Kind
from loadgen.history.reader import History
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto.kv_pb2 import Event

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
        created: the revision of the member when it was created. began_ns, caught_up_ns: when it said so, and when the
            events up to there had come, or the last of them; 0 before that. asked_before: how many requests for
            progress had been sent on its stream before it was asked for.
        resumed: the newest revision that was past when it began; below it, events come from the store's history.
        leaving: the newest revision that had come when its end was asked for.
        refused_beside: whether another watch was refused on its stream while it was open.
        covered: nothing up to this revision may be missing.
        revisions, spans, times: its groups of events, one a revision and answer, in order of revisions: the revision,
            the number in ``Spans``, and when it came.
        place: of the next group. head: its revision, 0 where there is none left. shows: its number; -1 where there are
            several of that revision.
    """

    def __init__(self, request: pb.WatchCreateRequest, label: str, prefix: bytes, clock: int, delivered: Spans) -> None:
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
        self.began_ns = self.caught_up_ns = 0
        self.resumed = 0
        self.leaving = _NEVER
        self.refused_beside = False
        self.covered = 0
        self.progress = 0
        self.newest = 0
        self.fragment = False
        self.revisions, self.spans, self.times = array("q"), array("q"), array("q")
        self.place = self.head = 0
        self.shows = -1
        self._delivered = delivered
        self._row = -1
        self._events: Sequence[Event] = ()

    def wants(self, key: bytes, deletes: bool) -> bool:
        """Return whether an event of a key is one that it asked for."""
        return (self.deletes if deletes else self.puts) and within(key, self.key, self.end)

    # ---- its groups, in order of revisions

    def rewind(self) -> None:
        """Put the groups in order, and go to the first."""
        revisions = np.array(self.revisions, np.int64)
        if np.any(revisions[1:] < revisions[:-1]):
            order = np.argsort(revisions, kind="stable").tolist()
            for name in ("revisions", "spans", "times"):
                column = getattr(self, name)
                setattr(self, name, array(column.typecode, [column[each] for each in order]))
        self._go(0)

    def begins(self) -> int:
        """Return the first revision at which it is to be looked at."""
        return min(int(self.start), self.head) if self.head else int(self.start)

    def pass_over(self) -> None:
        """Go to the next revision."""
        place, count = self.place + 1, len(self.revisions)
        while place < count and self.revisions[place] == self.head:
            place += 1
        self._go(place)

    def _go(self, place: int) -> None:
        revisions = self.revisions
        self.place = place
        if place >= len(revisions):
            self.head, self.shows = 0, -1
            return
        self.head = head = revisions[place]
        self.shows = -1 if place + 1 < len(revisions) and revisions[place + 1] == head else self.spans[place]

    def events(self, place: int) -> Sequence[Event]:
        """Return the events of the revision whose first group is at a place."""
        events = self._group(place)
        for more in range(place + 1, len(self.revisions)):
            if self.revisions[more] != self.revisions[place]:
                break
            events = [*events, *self._group(more)]
        return events

    def count(self, after: int) -> int:
        """Return how many events came of revisions after one."""
        later = np.array(self.revisions, np.int64) > after
        return self._delivered.count(np.array(self.spans, np.int64)[later])

    def _group(self, place: int) -> Sequence[Event]:
        number, delivered = self.spans[place], self._delivered
        if delivered.rows[number] != self._row:
            self._row, self._events = delivered.rows[number], delivered.answer(number)
        low, high = delivered.low[number], delivered.high[number]
        return self._events if high - low == len(self._events) else self._events[low:high]


class _Stream:
    """One watch stream while it is walked through. ``delivered`` counts the events of watches that it has."""

    def __init__(self, evidence: Evidence, ledger: Ledger, spans: Spans, part: int, watcher: int) -> None:
        self._evidence, self._ledger, self._spans = evidence, ledger, spans
        self._clock = int(evidence.clock_of_part[part])
        self._name = f"stream {watcher}" + (f" of {evidence.history.parts[part].path.name}" if part else "")
        # Each with how often the stream had been asked for its progress before, and a revision that it had shown.
        self._creating: deque[tuple[pb.WatchCreateRequest, int, int]] = deque()
        self._latest = b""
        self._open: dict[int, Watch] = {}
        self._requests = ProgressRequests()
        self.watches: list[Watch] = []
        self.delivered = 0

    def sent(self, request: pb.WatchRequest) -> None:
        if request.HasField("create_request"):
            shown = pb.WatchResponse.FromString(self._latest).header.revision
            self._creating.append((request.create_request, self._requests.asked, shown))
        elif request.HasField("progress_request"):
            self._requests.asked += 1
        elif request.HasField("cancel_request") and request.cancel_request.watch_id in self._open:
            left = self._open[request.cancel_request.watch_id]
            left.leaving = min(left.leaving, left.newest)

    def ended(self) -> None:
        """Take in that the stream is over: whoever resumes it creates its watches anew."""
        self._creating.clear()
        self._open.clear()
        self._latest = b""

    def received(self, row: int, at_ns: int, data: bytes) -> None:
        """Take in an answer, as it came."""
        self._latest = data
        # The header stands first in every answer of etcd (field 1), and is shorter than 128 bytes.
        body = data[2 + data[1] :] if data[:1] == b"\n" else data
        if (known := self._spans.lately(body)) and (found := self._open.get(known[0])):
            self._events(found, at_ns, known[1])
            found.fragment = False
            return
        response = pb.WatchResponse.FromString(data)
        header, watch_id = response.header, response.watch_id
        if response.created:
            if not response.canceled:
                self._created(response, at_ns)
            elif self._creating:  # refused: what the answer has for an id may be that of another watch
                self._creating.popleft()
                for watch in self._open.values():
                    watch.refused_beside = True
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
                    lambda: f"{self._name} got events of watch {watch_id}, which it had not created or had ended"
                    f" ({self._evidence.time(at_ns)})",
                )  # fmt: skip
            return
        if response.canceled:
            del self._open[watch_id]
            return
        if not events:
            self._progress(found, header.revision)
            return
        spans = self._spans.add(row, events)
        self._events(found, at_ns, spans)
        found.fragment = response.fragment
        if not response.fragment:
            self._spans.remember(body, watch_id, spans)

    def _created(self, response: pb.WatchResponse, at_ns: int) -> None:
        if not self._creating:
            return
        request, asked, shown = self._creating.popleft()
        revision = response.header.revision
        evidence = self._evidence
        member = response.header.member_id
        since = f", from revision {request.start_revision}" if request.start_revision else ""
        label = f"the watch on {evidence.member_name(member)} ({self._name}, id {response.watch_id}{since})"
        watch = Watch(request, label, evidence.cluster.prefix, self._clock, self._spans)
        watch.member = member
        watch.created, watch.asked_before, watch.began_ns = revision, asked, at_ns
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

    def _events(self, watch: Watch, at_ns: int, spans: list[Span]) -> None:
        first = spans[0][0]
        if watch.newest < watch.created:
            watch.caught_up_ns = at_ns
        if not watch.newest and watch.earliest:
            # "Now" is when etcd took the watch in; the revision that it says may be a newer one (3.5.30, not 3.5.1).
            watch.start = min(watch.start, max(watch.earliest, first))
        for revision, number in spans:
            if revision > watch.newest:
                watch.newest = revision
                self._keep(watch, at_ns, revision, number)
            elif watch.fragment and revision == watch.newest and revision == first:
                self._keep(watch, at_ns, revision, number)
            else:
                self._again(watch, at_ns, revision, number)
            if revision <= watch.progress:
                self._ahead(watch, at_ns, revision, number)
        self.delivered += self._spans.high[spans[-1][1]]
        watch.covered = max(watch.covered, watch.newest)

    def _keep(self, watch: Watch, at_ns: int, revision: int, number: int) -> None:
        watch.revisions.append(revision)
        watch.spans.append(number)
        watch.times.append(at_ns)

    def _of(self, number: int) -> Sequence[Event]:
        """Return the events of a span."""
        return self._spans.answer(number)[self._spans.low[number] : self._spans.high[number]]

    def _ahead(self, watch: Watch, at_ns: int, revision: int, number: int) -> None:
        progress = watch.progress
        self._ledger.broken(
            "watch.bookmarkable", revision,
            lambda: f"{watch.label} was told that all events up to revision {progress} had come, and then got the event"
            f" of {show(self._of(number)[0].kv.key)} of revision {revision} ({self._evidence.time(at_ns)})",
        )  # fmt: skip

    def _again(self, watch: Watch, at_ns: int, revision: int, number: int) -> None:
        """Record a revision that is not newer than the newest: one delivered before, or one out of order."""
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
            self._keep(watch, at_ns, revision, number)
            return
        keys = {event.kv.key for index in before for event in self._of(watch.spans[index])}
        events = self._of(number)
        if any(event.kv.key in keys for event in events):
            key = next(event.kv.key for event in events if event.kv.key in keys)
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
        self._keep(watch, at_ns, revision, number)


def _columns(history: History, rows: NDArray[np.int64]) -> Iterator[tuple[int, int, int, int, int]]:
    """Row, part, watcher, kind and time of records, not all of them as Python's numbers at once."""
    for low in range(0, len(rows), _CHUNK):
        chunk = rows[low : low + _CHUNK]
        heads = history.rows[chunk]
        columns = (chunk, history.part[chunk], heads["process"], heads["kind"], heads["return_ns"])
        yield from zip(*(column.tolist() for column in columns), strict=True)


def read_watches(evidence: Evidence, ledger: Ledger) -> list[Watch]:
    """Return the watches that were created, and judge what each promises by itself."""
    history = evidence.history
    kinds = history.rows["kind"]
    rows = np.flatnonzero((kinds >= Kind.WATCH_SENT) & (kinds <= Kind.WATCH_ENDED))
    streams: dict[tuple[int, int], _Stream] = {}
    spans = Spans(history)
    sent, received = int(Kind.WATCH_SENT), int(Kind.WATCH_RECEIVED)
    payloads = history.payloads(rows)
    for row, part, watcher, kind, at_ns in _columns(history, rows):
        request, response = next(payloads)
        stream = streams.get((part, watcher))
        if stream is None:
            stream = streams[part, watcher] = _Stream(evidence, ledger, spans, part, watcher)
        if kind == received:
            stream.received(row, at_ns, response)
        elif kind == sent:
            stream.sent(pb.WatchRequest.FromString(request))
        else:
            stream.ended()
    watches = [watch for stream in streams.values() for watch in stream.watches]
    spans.rewind()
    for watch in watches:
        watch.rewind()
    for rule in ("watch.ordered", "watch.unique", "watch.atomic"):
        ledger.judged[rule] += sum(stream.delivered for stream in streams.values())
    if watches:
        ledger.absent("watch.bookmarkable", "no watch was told its progress")
    return watches
