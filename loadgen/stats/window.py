"""A window that slides over the intervals of a run: what came back in its last seconds, over all workers.

Pure: no clock. It takes the same rows as `loadgen.stats.series.Series`, and times are in its ticks. Histograms are
added where an interval enters the window and taken away where it leaves, so that a look costs the same however long the
window is.
"""

from __future__ import annotations

import sys

from loadgen.stats import hdr
from loadgen.stats.series import PERCENTILES, TICKS_S, TOTAL, Intervals


class Part:
    """Operations of one type that came back within a time.

    Attributes:
        counts: histogram of the latencies of successes; ``total_ns`` is their exact sum.
        failed, info: failures, and those of unknown effect among them.
    """

    __slots__ = ("counts", "failed", "info", "max_ns", "min_ns", "total_ns")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.failed = self.info = self.total_ns = self.max_ns = 0
        self.min_ns = sys.maxsize

    def add(self, other: Part) -> None:
        """Add what another one has."""
        hdr.merge(self.counts, other.counts)
        self.failed += other.failed
        self.info += other.info
        self.total_ns += other.total_ns
        self.max_ns = max(self.max_ns, other.max_ns)
        self.min_ns = min(self.min_ns, other.min_ns)

    def take_away(self, other: Part) -> None:
        """Take away what was added, but for the extremes, which nobody can take away."""
        counts = self.counts
        for key, count in other.counts.items():
            left = counts[key] - count
            if left:
                counts[key] = left
            else:
                del counts[key]
        self.failed -= other.failed
        self.info -= other.info
        self.total_ns -= other.total_ns

    @property
    def succeeded(self) -> int:
        """How many successes there are."""
        return sum(self.counts.values())


class Window:
    """The last seconds of a run.

    Takes how many, to a tenth. It begins and ends at whole seconds once workers report by the second, as they do in
    loads of two minutes and more.

    Attributes:
        length: in ticks.
        end: the first tick that is not in it any more.
    """

    def __init__(self, length_s: float) -> None:
        self.length = round(length_s * TICKS_S)
        self.end = 0
        self._parts: dict[int, dict[str, Part]] = {}
        self._sums: dict[str, Part] = {}
        self._by_second = False

    @property
    def length_s(self) -> float:
        """How long it is, in seconds."""
        return self.length / TICKS_S

    @property
    def start(self) -> int:
        """Its first tick."""
        return self.end - self.length

    def add(self, intervals: Intervals, shift: int = 0) -> None:
        """Add one worker's intervals since its last report. Takes the ticks to add to its clock."""
        for f, rows in intervals.items():
            for there, ticks, failed, info, min_ns, max_ns, total_ns, counts in rows:
                tick = there + shift
                if ticks > 1:
                    self._by_second = True
                    tick = (tick + ticks // 2) // TICKS_S * TICKS_S
                if tick < self.start:
                    continue
                part = Part()
                part.counts, part.failed, part.info = counts, failed, info
                part.min_ns, part.max_ns, part.total_ns = min_ns, max_ns, total_ns
                self._parts.setdefault(tick, {}).setdefault(f, Part()).add(part)
                if tick < self.end:
                    self._sums.setdefault(f, Part()).add(part)

    def move(self, end: int) -> None:
        """Move on to another end, in ticks; never back."""
        if self._by_second:
            end -= end % TICKS_S
        if end <= self.end:
            return
        before, self.end = self.end, end
        for tick, parts in sorted(self._parts.items()):
            if tick >= end:
                break
            for f, part in parts.items():
                if before <= tick:
                    self._sums.setdefault(f, Part()).add(part)
                if tick < self.start:
                    self._sums[f].take_away(part)
            if tick < self.start:
                del self._parts[tick]

    def figures(self, f: str) -> Part:
        """Return what came back of an operation type, or of all as ``total``, with the extremes."""
        found = Part()
        for name, part in self._sums.items():
            if f in (name, TOTAL):
                found.add(part)
        found.min_ns, found.max_ns = sys.maxsize, 0
        for tick, parts in self._parts.items():
            for name, part in parts.items():
                if f in (name, TOTAL) and tick < self.end:
                    found.min_ns, found.max_ns = min(found.min_ns, part.min_ns), max(found.max_ns, part.max_ns)
        return found

    @property
    def types(self) -> list[str]:
        """The operation types that came back since the run's start."""
        return [*self._sums]


def latency_ms(part: Part, field: str) -> float | None:
    """Return a field of ``latency`` of a result, such as ``p99_ms``, in milliseconds; None without a success."""
    if not part.counts:
        return None
    if field == "min_ms":
        return part.min_ns / 1e6
    if field == "max_ms":
        return part.max_ns / 1e6
    if field == "mean_ms":
        return part.total_ns / part.succeeded / 1e6
    fraction = PERCENTILES["p50_ms" if field == "median_ms" else field]
    (found_ns,) = hdr.percentiles(part.counts, (fraction,))
    return min(max(found_ns, part.min_ns), part.max_ns) / 1e6
