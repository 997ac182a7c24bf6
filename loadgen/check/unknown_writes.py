"""Writes of unknown outcome, and which of them made a revision that no answer tells of.

Several may fit one revision, such as deletions of the same key. Which of them did it is then not known and does not
matter; that there are enough of them does. So revisions and writes are matched (Kuhn's augmenting paths): a revision
is unexplained only if no assignment of all revisions so far leaves a write for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from loadgen.check.evidence import Evidence
from loadgen.check.store import Entry, entry_of
from loadgen.check.watches import Watch
from loadgen.history.format import OK, Method
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto.kv_pb2 import Event

Pair = tuple[bytes, bytes]


class Index:
    """Writes by what they could do. Takes their numbers; leaves revocations of leases out."""

    def __init__(self, evidence: Evidence, numbers: Iterable[int]) -> None:
        self.puts: dict[Pair, list[int]] = {}
        self._deletes: dict[bytes, list[int]] = {}
        self._wide: list[int] = []
        self.empty = True
        for number in sorted(numbers, key=lambda each: int(evidence.call[each])):
            if evidence.method[number] == Method.LEASE_REVOKE:
                continue
            self.empty = False
            request = write_of(evidence, number)
            if isinstance(request, pb.DeleteRangeRequest) and not request.range_end:
                self._deletes.setdefault(request.key, []).append(number)
                continue
            pairs, deletes = puts_of(request)
            for pair in dict.fromkeys(pairs):
                self.puts.setdefault(pair, []).append(number)
            if deletes:
                self._wide.append(number)

    def candidates(self, events: Sequence[Event]) -> Sequence[int]:
        """Return the writes that could have made a revision's events, in the order of their calls."""
        for event in events:
            if event.type == 0:
                return self.puts.get((event.kv.key, event.kv.value), ())
        return (*self._deletes.get(events[0].kv.key, ()), *self._wide) if len(events) else ()


class UnknownWrites(Index):
    """The writes of unknown outcome. ``resolved``: those that happened, with the revision that each made."""

    def __init__(self, evidence: Evidence, watches: list[Watch]) -> None:
        numbers = evidence.unknown()
        super().__init__(evidence, numbers)
        self._evidence, self._watches = evidence, watches
        self.count = len(numbers)
        self.resolved: dict[int, int] = {}
        self._made: dict[int, int] = {}
        self._options: dict[int, list[int]] = {}
        self._shown: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def assign(self, revision: int, options: Sequence[int]) -> int | None:
        """Give a revision one of the writes that could have made it; others may get another than they had.

        Returns the write, or None where there are not enough of them. One that was invoked when somebody had already
        seen the revision is taken last of all.
        """
        self._options[revision] = [number for number in options if self._in_time(number, revision)]
        if (number := self._augmented(revision)) is not None:
            return number
        late = next((number for number in options if number not in self.resolved), None)
        if late is not None:
            self._give(revision, late)
        return late

    def _augmented(self, start: int) -> int | None:
        wanted: dict[int, int] = {}  # by which revision, on the way from the start
        waiting = deque((start,))
        while waiting:
            revision = waiting.popleft()
            for number in self._options.get(revision, ()):
                if number in wanted:
                    continue
                wanted[number] = revision
                if number in self.resolved:
                    waiting.append(self.resolved[number])
                    continue
                free: int | None = number
                while free is not None:
                    # Each revision on the way gets the write that it wants, and gives the one that it had.
                    taker = wanted[free]
                    had = self._made.get(taker)
                    self._give(taker, free)
                    free = had
                return self._made[start]
        return None

    def _give(self, revision: int, number: int) -> None:
        self.resolved[number] = revision
        self._made[revision] = number

    def _in_time(self, number: int, revision: int) -> bool:
        """Return whether a write was invoked before anybody could have seen the revision, or a newer one."""
        clock = int(self._evidence.clocks[number])
        if clock not in self._shown:
            self._shown[clock] = self._first_shown(clock)
        revisions, first = self._shown[clock]
        place = int(np.searchsorted(revisions, revision, side="left"))
        return place == len(first) or int(self._evidence.call[number]) <= int(first[place])

    def _first_shown(self, clock: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the revisions in order, and for each when it or a newer one was first shown to a client."""
        evidence = self._evidence
        told = (evidence.outcome == OK) & (evidence.revision > 0) & (evidence.clocks == clock)
        shown = [watch for watch in self._watches if watch.clock == clock and watch.times]
        revisions = np.concatenate(
            [evidence.revision[told], *(np.frombuffer(watch.revisions, np.int64) for watch in shown)]
        )
        times = np.concatenate([evidence.back[told], *(np.frombuffer(watch.times, np.int64) for watch in shown)])
        order = np.argsort(revisions, kind="stable")
        return revisions[order], np.minimum.accumulate(times[order][::-1])[::-1]


WriteRequest = pb.PutRequest | pb.DeleteRangeRequest | pb.TxnRequest
_WRITES: dict[int, type[WriteRequest]] = {
    Method.PUT: pb.PutRequest, Method.DELETE_RANGE: pb.DeleteRangeRequest, Method.TXN: pb.TxnRequest,
}  # fmt: skip


def write_of(evidence: Evidence, number: int) -> WriteRequest:
    """Return the request of a write, decoded."""
    return evidence.request(number, _WRITES[int(evidence.method[number])])


def puts_of(request: WriteRequest) -> tuple[list[Pair], bool]:
    """Return the keys and values that a request may put, and whether it may write without putting any."""
    if isinstance(request, pb.PutRequest):
        return [(request.key, request.value)], False
    if isinstance(request, pb.DeleteRangeRequest):
        return [], True
    pairs: list[Pair] = []
    deletes = False
    for branch in (request.success, request.failure):
        for operation in branch:
            kind = operation.WhichOneof("request")
            if kind == "request_put":
                pairs.append((operation.request_put.key, operation.request_put.value))
            elif kind == "request_delete_range":
                deletes = True
            elif kind == "request_txn":
                inner, more = puts_of(operation.request_txn)
                pairs.extend(inner)
                deletes = deletes or more
    return pairs, deletes


# ---- evidence of a write in the answers to other operations


def read_revisions(evidence: Evidence) -> set[int]:
    """Return the revisions of all keys that reads found: their writes were there for somebody."""
    found: set[int] = set()
    numbers = np.flatnonzero((evidence.method == Method.RANGE) & (evidence.outcome == OK))
    for _, response in evidence.history.payloads(evidence.rows[numbers]):
        found.update(kv.mod_revision for kv in pb.RangeResponse.FromString(response).kvs)
    return found


def read_entries(evidence: Evidence, known: set[int], base: int) -> dict[int, dict[bytes, Entry]]:
    """Return the keys that reads found to be of revisions after ``base`` that are not ``known``, by revision."""
    seen: dict[int, dict[bytes, Entry]] = {}
    numbers = np.flatnonzero((evidence.method == Method.RANGE) & (evidence.outcome == OK))
    for _, response in evidence.history.payloads(evidence.rows[numbers]):
        for kv in pb.RangeResponse.FromString(response).kvs:
            if kv.mod_revision > base and kv.mod_revision not in known and kv.value:
                seen.setdefault(kv.mod_revision, {})[kv.key] = entry_of(kv)
    return seen


def writers(evidence: Evidence, others: Iterable[int]) -> dict[Pair, int]:
    """Return which acknowledged operation put a value to a key; ``others`` are known to have happened too."""
    done = np.isin(evidence.method, (Method.PUT, Method.TXN)) & (evidence.outcome == OK) & (evidence.writes > 0)
    return {
        pair: number
        for number in (*np.flatnonzero(done).tolist(), *others)
        for pair in puts_of(write_of(evidence, number))[0]
    }
