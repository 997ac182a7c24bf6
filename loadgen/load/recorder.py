"""The counts and latencies of a worker, by type and interval, reported twice a second and not once an operation.

Locust's request event costs about 5 us an operation: two statistics entries, a clock reading each, keyword
arguments through a hook. Here an operation costs a tenth of that, and the same numbers reach the same
`StatsEntry` objects when the master hears of them: in a worker that would be a turn of the loop of 2 ms, twice a
second, in which no answer is read. Where somebody else listens to the request event it is fired for each operation
as ever, and Locust does the counting.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from cluster.base.console import printable
from cluster.base.errors import grpc_code_name
from loadgen.history.operation import DELIVERY, IN_MIX, Operation, Outcome
from loadgen.load.locust_internals import is_heard_by_others
from loadgen.load.protocol import Counts
from loadgen.stats import hdr
from loadgen.stats.precision import bucket_ns
from loadgen.stats.series import FINE_S, TICK_NS, TICKS_S, Intervals, Row

if TYPE_CHECKING:
    from loadgen.engine.core import Drained
    from loadgen.load.locust_types import Environment

REQUEST_TYPE = "etcd"
_OK = Outcome.OK
# Characters of a server's text.
_LONGEST_TEXT = 200


@dataclasses.dataclass(slots=True)
class Totals:
    """What one operation type came to since the run's start, in one worker.

    Attributes:
        succeeded, failed, info: operations by outcome; ``failed`` holds those of unknown effect too, and
            ``info`` says how many they are.
        committed, not_committed: successful transactions by the branch they took; deletes, by whether anything was
            there.
        first_call_ns, last_return_ns: of successes and failures, on the monotonic clock.
        error_texts: of each error that has no name of etcd's, what the server said with the first one.
    """

    succeeded: int = 0
    failed: int = 0
    info: int = 0
    committed: int = 0
    not_committed: int = 0
    first_call_ns: int = sys.maxsize
    last_return_ns: int = 0
    error_texts: dict[str, str] = dataclasses.field(default_factory=dict)

    def note_text(self, operation: Operation) -> None:
        """Keep what the server said with a failure, where it is the first of an error that etcd has no name for."""
        error = operation.error
        if operation.detail and operation.code and error == grpc_code_name(operation.code):
            self.error_texts.setdefault(error, printable(operation.detail)[:_LONGEST_TEXT])

    def as_dict(self, clock_offset_ns: int) -> Counts:
        """Return the totals with the two times moved to the wall clock, so that machines compare."""
        row = cast(Counts, dataclasses.asdict(self))
        if self.last_return_ns:
            row["first_call_ns"] += clock_offset_ns
            row["last_return_ns"] += clock_offset_ns
        return row


class Interval:
    """What came back of one operation type within a time of the wall clock.

    Attributes:
        tick, ticks: its start since 1970 and its length, in ticks of `loadgen.stats.series`.
        start_ns, end_ns: the same time on the monotonic clock.
        counts: histogram (`loadgen.stats.hdr`) of the latencies of successes, with their exact minimum, maximum and sum
            in ``min_ns``, ``max_ns``, ``total_ns``.
        failed, info: as in `Totals`.
        service: the same of the times from sending, in an open loop; None in a closed one, where both are one.
    """

    __slots__ = (
        "counts", "end_ns", "failed", "info", "max_ns", "min_ns", "service", "start_ns", "tick", "ticks", "total_ns",
    )  # fmt: skip

    def __init__(self, tick: int, ticks: int, start_ns: int) -> None:
        self.tick, self.ticks = tick, ticks
        self.start_ns = start_ns
        self.end_ns = start_ns + ticks * TICK_NS
        self.counts: defaultdict[int, int] = defaultdict(int)
        self.min_ns = sys.maxsize
        self.max_ns = 0
        self.total_ns = 0
        self.failed = 0
        self.info = 0
        self.service: Interval | None = None

    def add(self, latency_ns: int) -> None:
        """Count one success."""
        self.counts[hdr.bucket(latency_ns)] += 1
        self.total_ns += latency_ns
        self.min_ns = min(self.min_ns, latency_ns)
        self.max_ns = max(self.max_ns, latency_ns)

    def add_all(self, min_ns: int, max_ns: int, total_ns: int, counts: Mapping[int, int]) -> None:
        """Count successes that somebody else has counted."""
        hdr.merge(self.counts, counts)
        self.total_ns += total_ns
        self.min_ns = min(self.min_ns, min_ns)
        self.max_ns = max(self.max_ns, max_ns)

    def in_service(self) -> Interval:
        """Return the same of the times from sending."""
        if self.service is None:
            self.service = Interval(self.tick, self.ticks, self.start_ns)
        return self.service

    def as_row(self) -> Row:
        """Return what `loadgen.stats.series.Series.add` takes, as plain numbers for the master."""
        times = self.min_ns, self.max_ns, self.total_ns
        return self.tick, self.ticks, self.failed, self.info, *times, dict(self.counts)


_NEVER = Interval(0, 1, -TICK_NS)


class _Track:
    """One operation type: its totals, the intervals that were not reported yet, whether its answers may say if it wrote
    anything, and whether an open loop says when it is due (not when a watch delivers)."""

    __slots__ = ("interval", "intervals", "scheduled", "tells_effect", "totals")

    def __init__(self, f: str) -> None:
        self.tells_effect = f not in IN_MIX
        self.scheduled = f != DELIVERY
        self.totals = Totals()
        self.intervals: dict[tuple[int, int], Interval] = {}
        self.interval = _NEVER


class Recorder:
    """Counts one worker's operations in one run.

    Takes Locust's environment, whether operations have due times of their own, and for how long the load is planned, in
    seconds; None where nobody knows. A load of less than two minutes is counted by the tick, also beyond its plan; one
    of unknown length by the tick for two minutes, and by the second from then on.

    Attributes:
        start_lags: in an open loop, how many operations were sent how long after they were due: counts by
            `bucket_ns`, failures and successes.
        last_call_ns: when the last one was sent, on the monotonic clock.
        fires_each: whether the request event is fired for each operation, so that Locust counts successes too.
    """

    def __init__(self, environment: Environment, *, open_loop: bool = False, planned_s: float | None = None) -> None:
        self._environment = environment
        self._open_loop = open_loop
        # From when on it counts by the second, on the monotonic clock; None: two minutes after the first return.
        self._coarse_from_ns = None if planned_s is None else sys.maxsize if planned_s < FINE_S else 0
        self.start_lags: defaultdict[int, int] = defaultdict(int)
        self.last_call_ns = 0
        # Any other listener than Locust's own wants to see each request.
        self.fires_each = is_heard_by_others(environment.events.request)
        self._tracks: dict[str, _Track] = {}
        self.clock_offset_ns = time.time_ns() - time.perf_counter_ns()

    def totals(self) -> dict[str, Counts]:
        """Return what each operation type came to since the run's start, as `Totals.as_dict` does."""
        return {f: track.totals.as_dict(self.clock_offset_ns) for f, track in self._tracks.items()}

    def record(self, operation: Operation) -> None:
        """Count one finished operation."""
        track = self._tracks.get(operation.f)
        if track is None:
            track = self._tracks[operation.f] = _Track(operation.f)
        totals, interval = track.totals, track.interval
        call, returned = operation.call_ns, operation.return_ns
        # min() and max() would cost more than all the rest of this.
        if call < totals.first_call_ns:  # noqa: PLR1730
            totals.first_call_ns = call
        if returned > totals.last_return_ns:  # noqa: PLR1730
            totals.last_return_ns = returned
        if not interval.start_ns <= returned < interval.end_ns:
            interval = self._turn(track, returned)
        if self._open_loop and track.scheduled:
            self._record_lag(operation, interval)
        if operation.outcome is not _OK:
            self._record_failure(operation, totals, interval)
            return
        totals.succeeded += 1
        if operation.f == "txn":
            if operation.response.succeeded:
                totals.committed += 1
            else:
                totals.not_committed += 1
        elif track.tells_effect:
            _count_effect(operation, totals)
        latency = returned - operation.due_ns
        # hdr.bucket, in line.
        shift = latency.bit_length() - 11
        interval.counts[latency >> shift << shift if shift > 0 else latency] += 1
        interval.total_ns += latency
        if latency < interval.min_ns:  # noqa: PLR1730
            interval.min_ns = latency
        if latency > interval.max_ns:  # noqa: PLR1730
            interval.max_ns = latency
        if self.fires_each:
            self._fire(operation, latency / 1e6)

    def count(self, operation: Operation) -> None:
        """Count an operation in the totals alone: for what is not part of the measurement."""
        totals = self._track(operation.f).totals
        if operation.outcome is Outcome.OK:
            totals.succeeded += 1
            if operation.f != "put":
                _count_effect(operation, totals)
        else:
            totals.failed += 1
            totals.info += operation.outcome is Outcome.INFO

    def count_by_tick(self) -> None:
        """Count by the tick from now on, however long the load is."""
        self._coarse_from_ns = sys.maxsize

    def interval(self, returned_ns: int) -> tuple[int, int]:
        """Return from when until when what returns then is counted in one interval, on the monotonic clock."""
        _, ticks, start_ns = self._bounds(returned_ns)
        return start_ns, start_ns + ticks * TICK_NS

    def absorb(self, f: str, drained: Drained) -> None:
        """Count what the compiled core has counted of a type of the mix, within one interval; see `Core.drain`."""
        succeeded, committed, _, _, first_call_ns, first_ns, last_return_ns, last_call_ns, latency, service = drained
        if not succeeded:
            return
        track = self._track(f)
        totals, interval = track.totals, track.interval
        totals.succeeded += succeeded
        if f == "txn":
            totals.committed += committed
            totals.not_committed += succeeded - committed
        totals.first_call_ns = min(totals.first_call_ns, first_call_ns)
        totals.last_return_ns = max(totals.last_return_ns, last_return_ns)
        # As `record` does: of the intervals that overlap where counting by the second begins, the first return's.
        if not interval.start_ns <= first_ns < interval.end_ns:
            interval = self._turn(track, first_ns)
        interval.add_all(*latency)
        if self._open_loop:
            self.last_call_ns = max(self.last_call_ns, last_call_ns)
            interval.in_service().add_all(*service)

    def absorb_lags(self, lags: Mapping[int, int]) -> None:
        """Count how late operations were sent, by the least value of each of `bucket_ns`'s buckets."""
        for lag_ns, count in lags.items():
            self.start_lags[bucket_ns(lag_ns)] += count

    def absorb_warmup(self, f: str, drained: Drained) -> None:
        """Count what the compiled core has counted in the warm-up, as `count` does."""
        _, _, succeeded, committed, *_ = drained
        if succeeded:
            totals = self._track(f).totals
            totals.succeeded += succeeded
            if f == "txn":
                totals.committed += committed
                totals.not_committed += succeeded - committed

    def _track(self, f: str) -> _Track:
        track = self._tracks.get(f)
        if track is None:
            track = self._tracks[f] = _Track(f)
        return track

    def _record_lag(self, operation: Operation, interval: Interval) -> None:
        """Count how late an operation was sent, and how long the server took from there."""
        call_ns = operation.call_ns
        self.start_lags[bucket_ns(max(0, call_ns - operation.due_ns))] += 1
        self.last_call_ns = max(self.last_call_ns, call_ns)
        if operation.outcome is _OK:
            interval.in_service().add(operation.return_ns - call_ns)

    def _turn(self, track: _Track, returned_ns: int) -> Interval:
        """Return the interval of a return on the monotonic clock, and make it the type's present one."""
        tick, ticks, start_ns = self._bounds(returned_ns)
        interval = track.intervals.get((tick, ticks))
        if interval is None:
            interval = track.intervals[tick, ticks] = Interval(tick, ticks, start_ns)
        track.interval = interval
        return interval

    def _bounds(self, returned_ns: int) -> tuple[int, int, int]:
        """Return of the interval of a return its start and length in ticks, and its start on the monotonic clock."""
        if self._coarse_from_ns is None:
            self._coarse_from_ns = returned_ns + FINE_S * TICKS_S * TICK_NS
        ticks = 1 if returned_ns < self._coarse_from_ns else TICKS_S
        tick = (returned_ns + self.clock_offset_ns) // TICK_NS // ticks * ticks
        return tick, ticks, tick * TICK_NS - self.clock_offset_ns

    def _record_failure(self, operation: Operation, totals: Totals, interval: Interval) -> None:
        totals.failed += 1
        totals.note_text(operation)
        interval.failed += 1
        if operation.outcome is Outcome.INFO:
            totals.info += 1
            interval.info += 1
        # Without a response time a failure is counted and stays out of the percentiles, which are of successes.
        self._fire(operation, None)

    def _fire(self, operation: Operation, response_time: float | None) -> None:
        self._environment.events.request.fire(
            request_type=REQUEST_TYPE,
            name=operation.f,
            response_time=response_time,
            response_length=0,
            exception=operation.error,
            context={},
            start_time=(operation.call_ns + self.clock_offset_ns) / 1e9,
            url=None,
            response=None,
        )

    def take_series(self) -> tuple[Intervals, Intervals]:
        """Return the intervals, by type, since the last call: of latencies and of service times.

        Each as `Interval.as_row` makes them.
        """
        latencies: Intervals = {}
        service: Intervals = {}
        for f, track in self._tracks.items():
            intervals, track.intervals, track.interval = track.intervals.values(), {}, _NEVER
            if intervals:
                latencies[f] = [each.as_row() for each in intervals]
            if served := [each.service.as_row() for each in intervals if each.service is not None]:
                service[f] = served
        return latencies, service


def _count_effect(operation: Operation, totals: Totals) -> None:
    """Count whether a transaction took its first branch, or a delete deleted anything; others do not say."""
    response = operation.response
    effect = getattr(response, "succeeded", getattr(response, "deleted", None))
    if effect is not None:
        totals.committed += bool(effect)
        totals.not_committed += not effect
