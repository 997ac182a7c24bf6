"""The load of a run as its workers have reported it so far, and the conditions that end the run.

Everything here is the master's: a worker does and reports the same whether anybody looks or not.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from loadgen.load.protocol import Counts, Report
from loadgen.result.abort import AbortCondition
from loadgen.run import totals
from loadgen.stats import hdr
from loadgen.stats.series import TICK_NS, TOTAL, Intervals
from loadgen.stats.window import Window

if TYPE_CHECKING:
    from loadgen.load.locust_types import RequestStats
    from loadgen.run.session import Session

# A worker that has not reported for so long is not waited for any longer.
SILENT_NS = 3_000_000_000
# What a report may take to come here: what returned before it was sent may come so much later.
ON_ITS_WAY_NS = 200_000_000
# Bounds of the buckets of latencies for Prometheus: 0.1 ms to 10 s, which is etcd's range from memory to an election.
BOUNDS_S = (
    *(round(step * decade, 7) for decade in (1e-4, 1e-3, 1e-2, 1e-1, 1.0) for step in (1, 1.5, 2, 3, 5, 7)), 10.0,
)  # fmt: skip
# How often conditions are judged: as often as workers report.
JUDGE_S = 0.5


class Buckets:
    """Latencies by the upper bounds of buckets, as Prometheus counts them.

    Takes the bounds in seconds, ascending.

    Attributes:
        counts: latencies above the bound before and up to this one; at the end those above all.
        total_ns: their sum.
    """

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self.bounds_s = bounds_s
        self._bounds_ns = [round(bound * 1e9) for bound in bounds_s]
        self.counts = [0] * (len(bounds_s) + 1)
        self.total_ns = 0

    def add(self, counts: Mapping[int, int], total_ns: int) -> None:
        """Add a histogram of `loadgen.stats.hdr`, each of whose buckets goes where its middle belongs."""
        found, bounds = self.counts, self._bounds_ns
        for key, count in counts.items():
            found[bisect_left(bounds, hdr.middle(key))] += count
        self.total_ns += total_ns


class Live:
    """What the workers of a session have reported of the run that is on.

    Takes the session, and the bounds of the buckets into which latencies are counted, in seconds; none for no buckets.

    Attributes:
        latencies, service: buckets by operation type, from when an operation was due and from when it was sent.
    """

    def __init__(self, session: Session, bounds_s: Sequence[float] = ()) -> None:
        self._session = session
        self._bounds_s = bounds_s
        self._heard_ns: dict[str, int] = {}
        self._windows: dict[tuple[float, bool], Window] = {}
        self.latencies: dict[str, Buckets] = {}
        self.service: dict[str, Buckets] = {}

    def hear(self, client_id: str, report: Report, shift: int) -> None:
        """Take a worker's report. Takes its client id, and the ticks to add to its clock."""
        self._heard_ns[client_id] = time.time_ns()
        for (_, is_service), window in self._windows.items():
            window.add(report.service if is_service else report.series, shift)
        if self._bounds_s:
            self._count(self.latencies, report.series)
            self._count(self.service, report.service)

    def _count(self, into: dict[str, Buckets], intervals: Intervals) -> None:
        for f, rows in intervals.items():
            buckets = into.get(f)
            if buckets is None:
                buckets = into[f] = Buckets(self._bounds_s)
            for *_, total_ns, counts in rows:
                buckets.add(counts, total_ns)

    def window(self, length_s: float, *, service: bool = False) -> Window:
        """Return the last seconds of the load, from the first call for it on; of service times where asked for."""
        return self._windows.setdefault((length_s, service), Window(length_s))

    def move(self) -> int:
        """Move all windows on to what all workers that still work have reported; return the tick at which they end."""
        now_ns = time.time_ns()
        done = self._session.done
        heard = [
            self._heard_ns.get(worker.client_id or "", 0)
            for worker in self._session.workers
            if not worker.gone and (worker.client_id or "") not in done
        ]
        end = (max(min(heard, default=now_ns), now_ns - SILENT_NS) - ON_ITS_WAY_NS) // TICK_NS
        for window in self._windows.values():
            window.move(end)
        return end

    def totals(self) -> dict[str, Counts]:
        """Return what each operation type came to since the run's start over all workers, all as ``total``."""
        return totals.counted(self._session.snapshots.values())

    @property
    def in_flight(self) -> int:
        """Operations that were under way when the workers last reported."""
        done = self._session.done
        return sum(each["in_flight"] for client_id, each in self._session.snapshots.items() if client_id not in done)


def causes(stats: RequestStats, f: str = TOTAL) -> dict[str, int]:
    """Return how many failures of an operation type, or of all, there were since the run's start, by cause."""
    found: dict[str, int] = {}
    for each in stats.errors.values():
        if f in (TOTAL, each.name):
            found[str(each.error)] = found.get(str(each.error), 0) + each.occurrences
    return found


class Watch:
    """The conditions that end a run, judged while it goes on.

    Takes the conditions, what workers report, and Locust's statistics, which have the causes of failures.

    Attributes:
        values: what was last measured, by condition; None where there was no sample, or not enough time yet.
    """

    def __init__(self, conditions: Sequence[AbortCondition], live: Live, stats: RequestStats) -> None:
        self.values: dict[AbortCondition, float | None] = dict.fromkeys(conditions)
        self._live, self._stats = live, stats
        self._judged_at = 0.0
        # Of each condition about a cause: when, and how many failures there were by then.
        self._caused: dict[AbortCondition, deque[tuple[int, dict[str, int]]]] = {
            each: deque() for each in conditions if each.threshold.cause is not None
        }
        self._windows = {
            each: (live.window(each.duration_s), live.window(each.duration_s, service=True)) for each in conditions
        }

    def broken(self, load_s: float, *, is_ending: bool) -> tuple[AbortCondition, float] | None:
        """Return the first condition that holds, with its value; None where none does.

        Takes for how many seconds the measured load has been going on, and whether some workers have done their share.
        """
        now = time.monotonic()
        if now - self._judged_at < JUDGE_S or not self.values:
            return None
        self._judged_at = now
        end = self._live.move()
        began = time.time_ns() // TICK_NS - int(load_s * 1e9) // TICK_NS
        found = None
        for condition in self.values:
            window, service = self._windows[condition]
            caused = self._causes(condition, end)
            enough = load_s > 0 and window.start >= began
            value = condition.value(window, service, caused) if enough else None
            self.values[condition] = value
            if value is None or (is_ending and condition.falls_at_the_end):
                continue
            if condition.threshold.holds(value):
                found = found or (condition, value)
        return found

    def _causes(self, condition: AbortCondition, end: int) -> Mapping[str, int]:
        """Return the failures by cause within a condition's last seconds, which end at a tick."""
        seen = self._caused.get(condition)
        if seen is None:
            return {}
        now = causes(self._stats, condition.threshold.type)
        seen.append((end, now))
        start = end - self._windows[condition][0].length
        while len(seen) > 1 and seen[1][0] <= start:
            seen.popleft()
        before = seen[0][1] if seen[0][0] <= start else {}
        return {cause: count - before.get(cause, 0) for cause, count in now.items()}
