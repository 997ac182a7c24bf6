"""The delay that the generator itself adds: for how long the event loop keeps a ready socket waiting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from time import perf_counter_ns

from loadgen.client import timer
from loadgen.client.event_loop import Hub
from loadgen.stats import hdr
from loadgen.stats.precision import bucket_ns

_PROBE_NS = 10_000_000
# Turns are counted by length in units of 2**_UNIT ns, from _LONG of them on in 2**_COARSE times that.
_UNIT, _COARSE = 10, 7
_LONG = 4096


class LoopLag:
    """Watches the turns of this thread's gevent loop.

    A turn is busy from the moment the poll returns until the next poll. What arrives in a busy turn of length L
    waits for the rest of it, and of all moments of the run, those at which an arrival would wait longer than x
    are the first L - x of each turn longer than x. So the share of waits above x is the sum of these over the
    whole time, and a percentile is the x at which it has the share that is left.

    That does not see what comes before a turn: a loop that was woken and is not given a processor. So a timer also
    goes off every 10 ms, and how late the loop hears of it is a wait too; of those that are missed meanwhile as well.
    """

    def __init__(self, hub: Hub) -> None:
        self._turns: dict[int, int] = {}
        self._started_ns = perf_counter_ns()
        self._stopped_ns: int | None = None
        # `check` runs right after the poll and `prepare` right before it: the first before any socket is read,
        # the second after gevent has run its callbacks, which it does in a `prepare` of its own.
        loop = hub.loop
        self._probed: dict[int, int] = {}
        self._probe_due_ns = self._started_ns + _PROBE_NS
        self._probe = timer.make(loop, self._probes) if timer.PRECISE else None
        if self._probe is not None:
            self._probe.set(self._probe_due_ns)
        self._watchers = (loop.check(ref=False, priority=loop.MAXPRI), loop.prepare(ref=False, priority=loop.MINPRI))
        for watcher, callback in zip(self._watchers, watch(self._turns), strict=True):
            watcher.start(callback)

    def _probes(self) -> None:
        now = perf_counter_ns()
        while self._probe_due_ns <= now:
            hdr.merge(self._probed, {bucket_ns(now - self._probe_due_ns): 1})
            self._probe_due_ns += _PROBE_NS
        assert self._probe is not None
        self._probe.set(self._probe_due_ns)

    @property
    def watched_s(self) -> float:
        """Seconds from its making to now, or to its stop."""
        return ((self._stopped_ns or perf_counter_ns()) - self._started_ns) / 1e9

    def percentile_ms(self, fraction: float) -> float:
        """Return the wait, in milliseconds, that arrivals stay under at that fraction of all moments."""
        busy_ns = wait_exceeded(lengths(self._turns), self.watched_s * 1e9 * (1 - fraction))
        return max(busy_ns, *hdr.percentiles(self._probed, (fraction,))) / 1e6

    def stop(self) -> None:
        """Stop watching; the percentiles stay."""
        self._stopped_ns = perf_counter_ns()
        if self._probe is not None:
            self._probe.close()
        for watcher in self._watchers:
            watcher.stop()


def watch(turns: dict[int, int]) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what to call right after each poll, and right before the next: they count the turns between, by length.

    Takes where to count them, for `lengths`. Functions with variables of their own, not methods: at a low rate each
    operation takes two turns of the loop, and with TLS four.
    """
    woke_ns = perf_counter_ns()
    count = turns.get

    def woke() -> None:
        nonlocal woke_ns
        woke_ns = perf_counter_ns()

    def sleeps() -> None:
        units = (perf_counter_ns() - woke_ns) >> _UNIT
        if units >= _LONG:
            units = units >> _COARSE << _COARSE
        turns[units] = count(units, 0) + 1

    return woke, sleeps


def lengths(turns: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """Return turns that `watch` counted by their length, rounded down, as (count, sum of lengths) in nanoseconds."""
    return {
        units << _UNIT: (count, count * ((2 * units + (1 if units < _LONG else 1 << _COARSE)) << _UNIT >> 1))
        for units, count in turns.items()
    }


def wait_exceeded(turns: Mapping[int, Sequence[int]], over_ns: float) -> float:
    """Return the wait x for which the turns' parts beyond x add up to ``over_ns``; 0 where all do not.

    Takes turns by their length, rounded down, as (count, sum of lengths), all in nanoseconds.
    """
    keys = sorted(turns, reverse=True)
    count = total = 0
    for key, shorter in zip_longest(keys, keys[1:], fillvalue=0):
        count += turns[key][0]
        total += turns[key][1]
        wait = (total - over_ns) / count
        if wait >= shorter:
            return wait
    return 0.0
