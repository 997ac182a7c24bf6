"""The events of watches, by revision and answer; what members deliver alike is decoded once."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from loadgen.history.reader import History
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto.kv_pb2 import Event

# How much of the answers that came last is compared with the next ones.
_LATELY = 1 << 22

Span = tuple[int, int]
"""Events of one revision in one answer: the revision, and their number in ``Spans``."""


class Spans:
    """What watches were delivered, revision by revision, in order of answers.

    Members deliver the same, and an answer is decoded once where it differs from a recent one in the header alone.

    Attributes:
        rows, low, high: by number, a row in the history, and which of its events.
    """

    def __init__(self, history: History) -> None:
        self.rows, self.low, self.high = array("q"), array("i"), array("i")
        self._history = history
        self._lately: dict[bytes, tuple[int, list[Span]]] = {}
        self._size = 0
        self._row = -1
        self._walk: Iterator[tuple[int, bytes]] = iter(())

    def lately(self, body: bytes) -> tuple[int, list[Span]] | None:
        """Return watch id and spans of an answer that came lately; take it from the end of its header on."""
        return self._lately.get(body)

    def add(self, row: int, events: Sequence[Event]) -> list[Span]:
        """Return the spans of an answer with events."""
        spans = []
        low, count, revision = 0, len(events), events[0].kv.mod_revision
        for high in range(1, count + 1):
            following = events[high].kv.mod_revision if high < count else -1
            if following != revision:
                spans.append((revision, len(self.rows)))
                self.rows.append(row)
                self.low.append(low)
                self.high.append(high)
                low, revision = high, following
        return spans

    def remember(self, body: bytes, watch_id: int, spans: list[Span]) -> None:
        """Keep an answer for ``lately``."""
        self._size += len(body)
        if self._size > _LATELY:
            self._lately.clear()
            self._size = len(body)
        self._lately[body] = watch_id, spans

    def rewind(self) -> None:
        """Go to the first answer; ``answer`` costs least where answers are asked for in order."""
        rows = np.unique(np.array(self.rows, np.int64))
        answers = (response for _, response in self._history.payloads(rows))
        self._walk, self._row = zip(rows.tolist(), answers, strict=True), -1

    def answer(self, number: int) -> Sequence[Event]:
        """Return all events of the answer that a span is in."""
        row = self.rows[number]
        if row > self._row:
            for at, data in self._walk:
                if at == row:
                    self._row = at
                    return pb.WatchResponse.FromString(data).events
        return pb.WatchResponse.FromString(self._history.response(row)).events

    def count(self, numbers: NDArray[np.int64]) -> int:
        """Return how many events spans have in all."""
        if not len(numbers):
            return 0
        low, high = np.frombuffer(self.low, np.intc), np.frombuffer(self.high, np.intc)
        return int((high[numbers] - low[numbers]).sum())
