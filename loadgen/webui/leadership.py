"""The roles of the members over time, as they were seen: a row of spans for each member. Pure."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from typing import TypedDict


@dataclasses.dataclass(slots=True)
class Span:
    """A member in one role from ``start`` to ``end``, in seconds since 1970; ``term`` is None where it did not say."""

    start: float
    end: float
    kind: str
    term: int | None


class Row(TypedDict):
    """The spans of one member, each with start, end, kind and term."""

    name: str
    spans: list[list[float | str | None]]


class Leadership:
    """Takes one look after another and keeps the last ``keep_s`` seconds.

    A role holds from the look that saw it to the next one; nothing is said about a stretch of more than ``gap_s``
    seconds without a look.
    """

    def __init__(self, keep_s: float = 180.0, gap_s: float = 5.0) -> None:
        self._keep_s = keep_s
        self._gap_s = gap_s
        self._last_at: float | None = None
        self._rows: dict[str, deque[Span]] = {}

    def look(self, at: float, roles: Mapping[str, tuple[str, int | None]]) -> None:
        """Take the time and what each member is: its role and its term."""
        seen = self._last_at is not None and at - self._last_at <= self._gap_s
        for name, (kind, term) in roles.items():
            row = self._rows.setdefault(name, deque())
            last = row[-1] if row else None
            if last is not None and seen and last.end == self._last_at:
                last.end = at
                if (last.kind, last.term) == (kind, term):
                    continue
            row.append(Span(at, at, kind, term))
        for name, row in list(self._rows.items()):
            while row and row[0].end < at - self._keep_s:
                row.popleft()
            if not row and name not in roles:
                del self._rows[name]
        self._last_at = at

    def rows(self) -> list[Row]:
        """Return the rows as plain values, in the order in which members were first seen."""
        return [
            {"name": name, "spans": [[span.start, span.end, span.kind, span.term] for span in row]}
            for name, row in self._rows.items()
        ]
