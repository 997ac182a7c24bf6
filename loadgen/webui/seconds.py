"""The workers' reports second by second, for a chart: operations, failures, and latencies of the successes."""

from __future__ import annotations

import dataclasses

from cluster.observe import samples
from loadgen.stats import hdr
from loadgen.stats.series import TICKS_S, Intervals

# See `Seconds.points`.
Point = tuple[int, float, float, float | None, float | None, float | None]
P50, P99 = 0.5, 0.99
# The last seconds that a p99 may be of, where one has too few successes for it.
_LONGEST_P99_S = 10
# A second at an end of the run of which there was less load than this counts with its neighbour.
_LEAST_S = 0.5


@dataclasses.dataclass(slots=True)
class _Second:
    report: int = 0
    failures: int = 0
    max_ns: int = 0
    counts: dict[int, int] = dataclasses.field(default_factory=dict)

    def add(self, failures: int, max_ns: int, counts: dict[int, int]) -> None:
        self.failures += failures
        self.max_ns = max(self.max_ns, max_ns)
        hdr.merge(self.counts, counts)


class Seconds:
    """The last ``keep_s`` seconds of a load, of which a worker reports every ``interval_s``."""

    def __init__(self, interval_s: float, keep_s: int = 180) -> None:
        self._interval_s = interval_s
        self._keep_s = keep_s
        self._reports = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything: another run begins."""
        self._seconds: dict[int, _Second] = {}
        self._first: int | None = None
        self._last = 0
        self._began_s, self._ended_s = float("inf"), 0.0

    def add(self, intervals: Intervals, shift: int = 0, load: tuple[int, int] | None = None) -> None:
        """Add one worker's intervals since its last report, as `loadgen.stats.series.Series.add` takes them.

        Takes the worker's first call and its last return, in nanoseconds since 1970, where they are known.
        """
        self._reports += 1
        for rows in intervals.values():
            for there, ticks, failed, _, _, max_ns, _, counts in rows:
                at = (there + shift + ticks // 2) // TICKS_S
                self._first = at if self._first is None else min(self._first, at)
                self._last = max(self._last, at)
                second = self._seconds.setdefault(at, _Second())
                second.add(failed, max_ns, counts)
                second.report = self._reports
        for at in [at for at in self._seconds if at < self._last - self._keep_s]:
            del self._seconds[at]
        if load is not None:
            self._began_s, self._ended_s = min(self._began_s, load[0] / 1e9), max(self._ended_s, load[1] / 1e9)

    def changed_since(self, reports: int) -> tuple[float, int]:
        """Return the first second of which more is known than after so many reports, and how many there were by now.

        Infinity for no second.
        """
        changed = (at for at, second in self._seconds.items() if second.report > reports)
        return min(changed, default=float("inf")), self._reports

    def points(self, now: float, since: float = 0.0, *, running: bool = True) -> list[Point]:
        """Return the seconds that every worker has reported, from ``since`` on.

        Each is its start in seconds since 1970, successes and failures per second of the load in it, and p50, p99 and
        maximum in milliseconds, None where nothing succeeded; p99 of the last seconds that hold enough successes for
        it, None where ten do not. The first second begins with the load, and after a run the last one ends with it:
        one of less than half a second counts with its neighbour. After a run nothing follows its last second.
        """
        if self._first is None:
            return []
        first, end = self._first, int(now - 2 * self._interval_s)
        if not running:
            end = min(end, self._last + 1)
        # Of each second that is shown, those that count with it.
        groups = {at: [at] for at in range(max(first, int(since) - 1, end - self._keep_s), end)}
        if first in groups and (running or self._last > first) and self._length_s(first, running=running) < _LEAST_S:
            alone = groups.pop(first)
            if first + 1 in groups:
                groups[first + 1] += alone
        last = self._last
        if not running and last in groups and last - 1 in groups and self._length_s(last, running=running) < _LEAST_S:
            groups[last - 1] += groups.pop(last)
        return [self._point(at, group, running=running) for at, group in groups.items() if at >= int(since)]

    def _length_s(self, at: int, *, running: bool) -> float:
        """Return for how much of a second there was load."""
        began = self._began_s if at < self._began_s < at + 1 else at
        ended = self._ended_s if not running and at == self._last and at < self._ended_s < at + 1 else at + 1
        return max(1e-9, ended - began)

    def _point(self, at: int, group: list[int], *, running: bool) -> Point:
        second = self._sum(group)
        length_s = sum(self._length_s(each, running=running) for each in group)
        successes = sum(second.counts.values())
        rates = [count if length_s == 1 else round(count / length_s, 1) for count in (successes, second.failures)]
        if not successes:
            return at, rates[0], rates[1], None, None, None
        (p50_ns,) = hdr.percentiles(second.counts, (P50,))
        p50_ms, max_ms = (round(ns / 1e6, 3) for ns in (min(p50_ns, second.max_ns), second.max_ns))
        return at, rates[0], rates[1], p50_ms, self._p99_ms(group), max_ms

    def _p99_ms(self, group: list[int]) -> float | None:
        """Return the p99 of seconds and as many before them as it takes; None where that are too many."""
        for before in range(_LONGEST_P99_S):
            found = self._sum([*group, *range(min(group) - before, min(group))])
            if samples.are_enough(sum(found.counts.values()), P99):
                (p99_ns,) = hdr.percentiles(found.counts, (P99,))
                return round(min(p99_ns, found.max_ns) / 1e6, 3)
        return None

    def _sum(self, group: list[int]) -> _Second:
        found = _Second()
        for at in group:
            if (second := self._seconds.get(at)) is not None:
                found.add(second.failures, second.max_ns, second.counts)
        return found


class Reader:
    """What one page has been told of the seconds of a load."""

    def __init__(self, seconds: Seconds) -> None:
        self._seconds = seconds
        self._since, self._reports = 0.0, 0

    def news(self, now: float, *, running: bool) -> list[Point]:
        """Return the points since the last call, and those before them that are others now. Takes what `points` does.

        The report of a worker that had no processor for a while tells of seconds that the page was told of before.
        """
        changed, self._reports = self._seconds.changed_since(self._reports)
        points = self._seconds.points(now, min(self._since, changed), running=running)
        # The last two are told again: at the end of a run the rest of it counts with one of them.
        self._since = points[-1][0] - 1 if points else self._since
        return points
