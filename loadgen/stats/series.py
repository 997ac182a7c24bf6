"""A run by intervals, merged over its workers: ``series.csv`` and the ``.hlog`` files of a run folder.

Workers send what came back since their last report as histograms by operation type and interval, so every percentile
here is one of all samples of that interval, and none is an average of percentiles. An interval is of 100 ms in runs of
less than two minutes, in which an election would else be one bucket, and of a second in others. The first begins with
the first call and the last ends with the last return, so a rate over an interval's length is one over the time that
there was.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cluster.base.files import histogram_log
from loadgen.stats import hdr

COLUMNS = ("time", "f", "succeeded", "failed", "info", "p50_ms", "p99_ms", "max_ms", "length_s")
TOTAL = "total"
# Times of intervals are counted in ticks, since 1970.
TICKS_S = 10
TICK_NS = 1_000_000_000 // TICKS_S
# A load of less than this is told by the tick, others by the second.
FINE_S = 120
# What came back within one interval: its start and its length in ticks, failures, those of unknown effect among them,
# and of the successes' latencies minimum, maximum and sum in nanoseconds, and the histogram. `Intervals` are by
# operation type.
Row = tuple[int, int, int, int, int, int, int, dict[int, int]]
Intervals = dict[str, list[Row]]
PERCENTILES = {
    "p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99, "p99_9_ms": 0.999, "p99_99_ms": 0.9999,
}  # fmt: skip
# Workers report twice a second. What comes later than this is merged all the same, at some more cost.
_OPEN_S = 10
_LONGEST_GAP_S = 3600
_NOTHING = "0,0,0,,,"


class _Part:
    """One operation type within one interval, over all workers."""

    __slots__ = ("counts", "failed", "info", "max_ns", "summed")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        # What of the counts is in the grid's sums: all that there was when its interval was last closed.
        self.summed: dict[int, int] = {}
        self.failed = self.info = self.max_ns = 0

    def add(self, failed: int, info: int, max_ns: int, counts: Mapping[int, int]) -> None:
        self.failed += failed
        self.info += info
        self.max_ns = max(self.max_ns, max_ns)
        hdr.merge(self.counts, counts)


class Summary:
    """All latencies of one operation type.

    Attributes:
        counts: their histogram; ``min_ns``, ``max_ns`` and ``total_ns`` are exact.
    """

    __slots__ = ("counts", "max_ns", "min_ns", "total_ns")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.min_ns = sys.maxsize
        self.max_ns = self.total_ns = 0

    def extend(self, min_ns: int, max_ns: int, total_ns: int) -> None:
        """Take what is exact of some more latencies."""
        self.min_ns = min(self.min_ns, min_ns)
        self.max_ns = max(self.max_ns, max_ns)
        self.total_ns += total_ns

    @property
    def count(self) -> int:
        """How many they are."""
        return sum(self.counts.values())

    def latencies(self) -> dict[str, float]:
        """Return them as ``latency`` in result.json has them: milliseconds, percentiles within minimum and maximum."""
        found = hdr.percentiles(self.counts, PERCENTILES.values())
        percentiles = dict(zip(PERCENTILES, (min(max(ns, self.min_ns), self.max_ns) for ns in found), strict=True))
        every = {
            "min_ms": self.min_ns,
            "mean_ms": self.total_ns / self.count,
            "median_ms": percentiles["p50_ms"],
            **percentiles,
            "max_ms": self.max_ns,
            "stddev_ms": hdr.deviation(self.counts),
        }
        return {field: round(ns / 1e6, 3) for field, ns in every.items()}


class Series:
    """The intervals of one run."""

    def __init__(self) -> None:
        # Without their histograms: those are the intervals', and added up when somebody asks.
        self._summaries: dict[str, Summary] = {}
        self._ticks, self._seconds = _Grid(1), _Grid(TICKS_S)
        # Whether a worker has reported by the second: the load is longer than what is told by the tick.
        self._is_long = False

    def add(self, intervals: Intervals, shift: int = 0) -> None:
        """Add one worker's intervals since its last report, by type.

        Takes the ticks to add to its clock, where that is not ours.
        """
        for f, rows in intervals.items():
            for there, ticks, failed, info, min_ns, max_ns, total_ns, counts in rows:
                if ticks == 1:
                    part = self._ticks.part(there + shift, f)
                else:
                    self._is_long = True
                    # A clock that is off by a part of a second moves whole seconds to the nearest.
                    part = self._seconds.part((there + shift + ticks // 2) // TICKS_S, f)
                part.add(failed, info, max_ns, counts)
                if counts:
                    self._summaries.setdefault(f, Summary()).extend(min_ns, max_ns, total_ns)
        self._ticks.close_old()
        self._seconds.close_old()

    @property
    def summaries(self) -> dict[str, Summary]:
        """All latencies since the run's start, by operation type and for ``total``."""
        found: dict[str, Summary] = {}
        for f, exact in self._summaries.items():
            counts: dict[int, int] = {}
            for grid in (self._ticks, self._seconds):
                grid.sum_up(f, counts)
            for name in (f, TOTAL):
                summary = found.setdefault(name, Summary())
                summary.extend(exact.min_ns, exact.max_ns, exact.total_ns)
                hdr.merge(summary.counts, counts)
        return found

    @property
    def interval_s(self) -> float:
        """How long an interval is, in seconds."""
        return 1.0 if self._is_long else 1 / TICKS_S

    def _grid(self) -> _Grid:
        """Return the intervals of all, the shorter ones of a long load put into theirs."""
        if not self._is_long:
            return self._ticks
        for at, parts in self._ticks.take():
            for f, closed in parts.items():
                if f != TOTAL:
                    part = closed.part
                    self._seconds.part(at // TICKS_S, f).add(part.failed, part.info, part.max_ns, closed.counts())
        return self._seconds

    def write(self, folder: Path, load: tuple[int, int] | None = None) -> None:
        """Write ``series.csv`` and one ``.hlog`` for each type and for the total. Raises OSError.

        Takes the first call and the last return, in nanoseconds since 1970, where they are known.
        """
        self.write_logs(folder, load=load)
        with (folder / "series.csv").open("w", encoding="ascii") as file:
            file.write(",".join(COLUMNS) + "\n")
            grid = self._grid()
            file.writelines(_rows(grid.intervals(load), grid.length))

    def write_logs(self, folder: Path, suffix: str = "", load: tuple[int, int] | None = None) -> None:
        """Write one ``<type><suffix>.hlog`` for each type and for the total. Takes the load as `write` does.

        Raises OSError.
        """
        intervals = self._grid().intervals(load)
        for f in _names(intervals) if intervals else []:
            # To the millisecond, as in the log; not later than it was, which might be in the next second.
            start_s = intervals[0].start_ns // 1_000_000 / 1000
            lines = [hdr.log_head(start_s)]
            for each in intervals:
                closed = each.parts.get(f)
                if closed is not None and closed.encoded:
                    offset_s = max(0.0, each.start_ns / 1e9 - start_s)
                    lines.append(hdr.log_line(offset_s, each.length_ns / 1e9, closed.part.max_ns, closed.encoded))
            (folder / histogram_log(f, suffix)).write_text("".join(lines), encoding="ascii")


class _Interval(NamedTuple):
    """What came back within an interval: its ticks as they would be of a load without ends, and the time of it that
    there was load, in nanoseconds since 1970 and nanoseconds long."""

    first: int
    end: int
    start_ns: int
    length_ns: int
    parts: dict[str, _Closed]


class _Grid:
    """All intervals of one length.

    Attributes:
        length: of an interval, in ticks.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._open: dict[int, dict[str, _Part]] = {}
        # Intervals that are over, as text: a run of hours would not fit into memory otherwise.
        self._closed: dict[int, dict[str, _Closed]] = {}
        # The histograms of all that were closed, by type. Workers report the same buckets, so to add what they came
        # to in an interval is a fraction of the work that it is to add each report.
        self._sums: dict[str, dict[int, int]] = {}
        self._newest = 0

    def part(self, at: int, f: str) -> _Part:
        """Return what to add an operation type's figures to. Takes the interval's number since 1970."""
        self._newest = max(self._newest, at)
        if at in self._closed:
            # A worker that was held up reports it now.
            self._open[at] = {}
            for name, closed in self._closed.pop(at).items():
                if name != TOTAL:
                    closed.part.counts = closed.counts()
                    closed.part.summed = dict(closed.part.counts)
                    self._open[at][name] = closed.part
        return self._open.setdefault(at, {}).setdefault(f, _Part())

    def close_old(self) -> None:
        """Close what nobody is expected to add to."""
        oldest = self._newest - _OPEN_S * TICKS_S // self.length
        for at in [each for each in self._open if each < oldest]:
            self._close(at)

    def _close(self, at: int) -> None:
        parts = self._open.pop(at)
        total = _Part()
        for f, part in parts.items():
            total.add(part.failed, part.info, part.max_ns, part.counts)
            _add_unsummed(self._sums.setdefault(f, {}), part)
        self._closed[at] = {f: _Closed(part) for f, part in {**parts, TOTAL: total}.items()}

    def _close_all(self) -> None:
        for at in list(self._open):
            self._close(at)

    def sum_up(self, f: str, into: dict[int, int]) -> None:
        """Add all latencies of an operation type to a histogram."""
        hdr.merge(into, self._sums.get(f, {}))
        for parts in self._open.values():
            if f in parts:
                _add_unsummed(into, parts[f])

    def take(self) -> Iterator[tuple[int, dict[str, _Closed]]]:
        """Yield all with their numbers, in their order, and forget them."""
        self._close_all()
        closed, self._closed, self._sums = self._closed, {}, {}
        yield from sorted(closed.items())

    def intervals(self, load: tuple[int, int] | None) -> list[_Interval]:
        """Close all and return them in their order. Takes the load as `Series.write` does."""
        self._close_all()
        width = self.length
        found = [
            _Interval(at * width, (at + 1) * width, at * width * TICK_NS, width * TICK_NS, self._closed[at])
            for at in sorted(self._closed)
        ]
        if not found or load is None:
            return found
        began_ns, ended_ns = load
        tick = began_ns // TICK_NS // width * width
        if 0 < found[0].first - tick < _LONGEST_GAP_S * TICKS_S:
            # The first return came in a later interval than its call.
            found.insert(0, _Interval(tick, tick + width, tick * TICK_NS, width * TICK_NS, {}))
        # A worker's clock is corrected by whole ticks, so what it did may lie outside of the load by a little.
        if (gone := began_ns - found[0].start_ns) < found[0].length_ns:
            found[0] = _cut(found[0], before_ns=max(0, gone))
        if (spare := found[-1].start_ns + found[-1].length_ns - ended_ns) < found[-1].length_ns:
            found[-1] = _cut(found[-1], after_ns=max(0, spare))
        return found


def _add_unsummed(into: dict[int, int], part: _Part) -> None:
    """Add to a histogram what of a part's counts is not yet in its grid's sums."""
    hdr.merge(into, part.counts)
    for key, count in part.summed.items():
        into[key] -= count


def _cut(interval: _Interval, before_ns: int = 0, after_ns: int = 0) -> _Interval:
    """Return an interval without the time before and after the load; a nanosecond of one operation without a length."""
    length_ns = max(1, interval.length_ns - before_ns - after_ns)
    return interval._replace(start_ns=interval.start_ns + before_ns, length_ns=length_ns)


def _names(intervals: Sequence[_Interval]) -> list[str]:
    return [*sorted({f for each in intervals for f in each.parts if f != TOTAL}), TOTAL]


def _rows(intervals: Sequence[_Interval], width: int) -> Iterator[str]:
    """Yield the rows of series.csv; an interval in which nothing came back, as in an outage, has rows too."""
    names, last = _names(intervals), None
    for each in intervals:
        # Workers whose clocks are hours apart are not an outage.
        first = last if last is not None and each.first - last < _LONGEST_GAP_S * TICKS_S else each.first
        for empty in range(first, each.first, width):
            yield from (f"{_seconds(empty * TICK_NS)},{f},{_NOTHING},{_seconds(width * TICK_NS)}\n" for f in names)
        time, length = _seconds(each.start_ns), _seconds(each.length_ns)
        for f in names:
            closed = each.parts.get(f)
            yield f"{time},{f},{closed.row if closed else _NOTHING},{length}\n"
        last = each.end


def _seconds(ns: int) -> str:
    """Return nanoseconds as seconds, exactly and with no digit more than needed.

    >>> _seconds(1_700_000_000_100_000_000), _seconds(1_000_000_000), _seconds(1)
    ('1700000000.1', '1', '0.000000001')
    """
    return f"{ns // 1_000_000_000}.{ns % 1_000_000_000:09}".rstrip("0").rstrip(".")


class _Closed:
    """A part whose interval is over: its figures in series.csv and its histogram, both as text."""

    __slots__ = ("encoded", "part", "row")

    def __init__(self, part: _Part) -> None:
        counts, part.counts = part.counts, {}
        self.part = part
        self.encoded = hdr.encode(counts) if counts else ""
        p50, p99 = (min(ns, part.max_ns) for ns in hdr.percentiles(counts, (0.5, 0.99)))
        times = ",".join(f"{ns / 1e6:.6f}" for ns in (p50, p99, part.max_ns)) if counts else ",,"
        self.row = f"{sum(counts.values())},{part.failed},{part.info},{times}"

    def counts(self) -> dict[int, int]:
        """Return the histogram."""
        return hdr.decode(self.encoded) if self.encoded else {}
