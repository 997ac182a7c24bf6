"""The events that the Cluster page lists, in order of when they began."""

from __future__ import annotations

import itertools
import time
from collections import deque

from viz.diagrams.model import iso

KEPT = 200


class Events:
    """The latest events. One that is told of late, such as an election, stands where it began all the same."""

    def __init__(self, keep: int = KEPT) -> None:
        self._events: deque[dict[str, str]] = deque(maxlen=keep)

    def add(self, text: str, kind: str, at: float | None = None) -> dict[str, str]:
        """Add an event and return it, to be changed when more is known of it.

        Takes when it began, in seconds since 1970; None for now.
        """
        event = {"at": iso(time.time() if at is None else at), "kind": kind, "text": text}
        later = sum(1 for _ in itertools.takewhile(lambda other: other["at"] > event["at"], reversed(self._events)))
        if len(self._events) == self._events.maxlen:
            if later == len(self._events):
                return event  # older than all that are kept
            self._events.popleft()
        self._events.insert(len(self._events) - later, event)
        return event

    def remove(self, event: dict[str, str]) -> None:
        """Remove an event that came to nothing."""
        self._events = deque((each for each in self._events if each is not event), self._events.maxlen)

    def last(self, count: int) -> list[dict[str, str]]:
        """Return the latest so many, the latest last."""
        return list(self._events)[-count:]
