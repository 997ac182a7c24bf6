"""Pictures cut to what every format can show, with a note of what is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

from viz.diagrams import mermaid
from viz.diagrams.model import Chart, Model, Row, clean, human_seconds

M = TypeVar("M", bound=Model)

MOST_SPANS = 400
_LONGEST_NOTE = 400
_LEAST = 8


def chart(title: str, started_at: str, duration: float, rows: Sequence[Row], notes: Sequence[str] = ()) -> Chart:
    """Return a chart of at most MOST_SPANS periods, fewer where Mermaid would refuse it: the longest are kept."""
    notes = tuple(clean(each, _LONGEST_NOTE) for each in notes)

    def make(most: int) -> Chart:
        kept, left_out = _longest(rows, most)
        return Chart(title, started_at, duration, kept, (*left_out, *notes))

    return cut(make, MOST_SPANS)


def _longest(rows: Sequence[Row], most: int) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Return the rows with so many of their spans, and what is to be said of the others."""
    every = sorted(((span.end - span.start, number, place) for number, row in enumerate(rows)
                    for place, span in enumerate(row.spans)), reverse=True)  # fmt: skip
    if len(every) <= most:
        return tuple(rows), ()
    kept = {(number, place) for _, number, place in every[:most]}
    longest = every[most][0]
    shown = tuple(
        dataclasses.replace(row, spans=tuple(span for at, span in enumerate(row.spans) if (number, at) in kept))
        for number, row in enumerate(rows)
    )
    return shown, (
        f"{len(every) - most} of {len(every)} periods are left out, none longer than {human_seconds(longest)}",
    )


def cut(make: Callable[[int], M], most: int) -> M:
    """Return what ``make`` gives for at most so many items, fewer where Mermaid would refuse it."""
    while True:
        made = make(most)
        if most <= _LEAST or len(mermaid.render(made)) <= mermaid.LONGEST:
            return made
        most //= 2
