"""The workers' reports second by second, for a chart: operations, failures, and latencies of the successes."""

from __future__ import annotations

import dataclasses

from loadgen.stats import hdr
from loadgen.stats.series import Intervals

QUANTILES = (0.5, 0.99)
# See `Seconds.points`.
Point = tuple[int, int, int, float | None, float | None, float | None]


@dataclasses.dataclass(slots=True)
class _Second:
    failures: int = 0
    max_ns: int = 0
    counts: dict[int, int] = dataclasses.field(default_factory=dict)


class Seconds:
    """The last ``keep_s`` seconds of a load, of which a worker reports every ``interval_s``."""

    def __init__(self, interval_s: float, keep_s: int = 180) -> None:
        self._interval_s = interval_s
        self._keep_s = keep_s
        self._seconds: dict[int, _Second] = {}
        self._first: int | None = None
        self._last = 0

    def clear(self) -> None:
        """Forget everything: another run begins."""
        self._seconds.clear()
        self._first, self._last = None, 0

    def add(self, intervals: Intervals, shift_s: int = 0) -> None:
        """Add one worker's intervals since its last report, as `loadgen.stats.series.Series.add` takes them."""
        for rows in intervals.values():
            for there, failed, _, _, max_ns, _, counts in rows:
                at = there + shift_s
                self._first = at if self._first is None else min(self._first, at)
                self._last = max(self._last, at)
                second = self._seconds.setdefault(at, _Second())
                second.failures += failed
                second.max_ns = max(second.max_ns, max_ns)
                hdr.merge(second.counts, counts)
        for at in [at for at in self._seconds if at < self._last - self._keep_s]:
            del self._seconds[at]

    def points(self, now: float, since: float = 0.0, *, running: bool = True) -> list[Point]:
        """Return the seconds that every worker has reported, from ``since`` on.

        Each is its start in seconds since 1970, successes and failures in it, and p50, p99 and maximum in
        milliseconds, None where nothing succeeded. After a run nothing follows its last second.
        """
        if self._first is None:
            return []
        end = int(now - 2 * self._interval_s)
        if not running:
            end = min(end, self._last + 1)
        return [self._point(at) for at in range(max(self._first, int(since), end - self._keep_s), end)]

    def _point(self, at: int) -> Point:
        second = self._seconds.get(at)
        if second is None:
            return at, 0, 0, None, None, None
        successes = sum(second.counts.values())
        if not successes:
            return at, 0, second.failures, None, None, None
        p50_ns, p99_ns = (min(ns, second.max_ns) for ns in hdr.percentiles(second.counts, QUANTILES))
        p50_ms, p99_ms, max_ms = (round(ns / 1e6, 3) for ns in (p50_ns, p99_ns, second.max_ns))
        return at, successes, second.failures, p50_ms, p99_ms, max_ms
