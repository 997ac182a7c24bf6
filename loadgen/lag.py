"""How long the event loop keeps a ready socket waiting: the delay that the generator itself adds."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any


class LoopLag:
    """Watches the turns of this thread's gevent loop.

    A turn is busy from the moment the poll returns until the next poll: whatever arrives meanwhile waits
    for at most that long. Turns are weighted by their length, so the p99 answers: of all moments of the run, at 99 %
    of them an arriving answer waited no longer than this.
    """

    def __init__(self, hub: Any) -> None:
        self._busy_ns: dict[int, int] = {}
        self._total_ns = 0
        self._woke_ns = self._started_ns = perf_counter_ns()
        # `check` runs right after the poll, `prepare` right before it.
        self._watchers = (hub.loop.check(), hub.loop.prepare())
        self._watchers[0].start(self._woke)
        self._watchers[1].start(self._sleeps)
        for watcher in self._watchers:
            watcher.ref = False

    def _woke(self) -> None:
        self._woke_ns = perf_counter_ns()

    def _sleeps(self) -> None:
        busy = perf_counter_ns() - self._woke_ns
        self._total_ns += busy
        # Powers of two by eighths: a dozen keys, and 12 % is fine for an upper bound.
        shift = max(0, busy.bit_length() - 3)
        key = (busy >> shift) + 1 << shift
        self._busy_ns[key] = self._busy_ns.get(key, 0) + busy

    def percentile_ms(self, fraction: float) -> float:
        """Return the bound, in milliseconds, that a wait stays under at that fraction of all moments."""
        elapsed = perf_counter_ns() - self._started_ns
        over = elapsed * (1 - fraction)
        for key in sorted(self._busy_ns, reverse=True):
            over -= self._busy_ns[key]
            if over < 0:
                return key / 1e6
        return 0.0

    def stop(self) -> None:
        """Stop watching."""
        for watcher in self._watchers:
            watcher.stop()
