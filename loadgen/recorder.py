"""What a worker's operations came to, handed to Locust's statistics once a report and not once an operation.

Locust's request event costs about 5 us an operation: two statistics entries, a clock reading each, keyword
arguments through a hook. Here an operation costs a tenth of that, and the same numbers reach the same
`StatsEntry` objects when a worker reports. Where somebody else listens to the request event it is fired for
each operation as ever, and Locust does the counting.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any

from loadgen.operation import Operation, Outcome
from loadgen.precision import SIGNIFICANT_BITS, bucket_ns

REQUEST_TYPE = "etcd"
STOPPED = "STOPPED"


@dataclasses.dataclass(slots=True)
class Totals:
    """What one operation type came to since the run's start, in one worker.

    Attributes:
        succeeded, failed, info: operations by outcome; ``failed`` holds those of unknown effect too, and
            ``info`` says how many they are.
        committed, not_committed: successful transactions by the branch they took.
        first_call_ns, last_return_ns: of successes and failures, on the monotonic clock.
    """

    succeeded: int = 0
    failed: int = 0
    info: int = 0
    committed: int = 0
    not_committed: int = 0
    first_call_ns: int = sys.maxsize
    last_return_ns: int = 0

    def as_dict(self, clock_offset_ns: int) -> dict[str, int]:
        """Return the totals with the two times moved to the wall clock, so that machines compare."""
        row = dataclasses.asdict(self)
        if self.last_return_ns:
            row["first_call_ns"] += clock_offset_ns
            row["last_return_ns"] += clock_offset_ns
        return row


class _Pending:
    """Successes of one operation type since the last report."""

    __slots__ = ("buckets", "count", "length", "max_ns", "min_ns", "seconds", "total_ns")

    def __init__(self) -> None:
        self.count = 0
        self.total_ns = 0
        self.min_ns = sys.maxsize
        self.max_ns = 0
        self.length = 0
        self.buckets: dict[int, int] = {}
        self.seconds: dict[int, int] = {}


class Recorder:
    """Counts one worker's operations in one run."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        # Locust's runner is the first listener; any other wants to see each request.
        self._fire_each = len(environment.events.request._handlers) > 1
        self._pending: dict[str, _Pending] = {}
        self.totals: dict[str, Totals] = {}
        self.clock_offset_ns = time.time_ns() - time.perf_counter_ns()

    def record(self, operation: Operation, length: int = 0) -> None:
        """Count one finished operation; ``length`` is the size of its answer in bytes."""
        f = operation.f
        totals = self.totals.get(f)
        if totals is None:
            totals = self.totals[f] = Totals()
            self._pending[f] = _Pending()
        totals.first_call_ns = min(totals.first_call_ns, operation.call_ns)
        returned = operation.return_ns
        totals.last_return_ns = max(totals.last_return_ns, returned)
        if operation.outcome is not Outcome.OK:
            self._record_failure(operation, totals)
            return
        totals.succeeded += 1
        if f == "txn":
            if operation.response.succeeded:
                totals.committed += 1
            else:
                totals.not_committed += 1
        latency = returned - operation.due_ns
        if self._fire_each:
            self._fire(operation, latency / 1e6, length)
            return
        pending = self._pending[f]
        pending.count += 1
        pending.total_ns += latency
        pending.length += length
        pending.min_ns = min(pending.min_ns, latency)
        pending.max_ns = max(pending.max_ns, latency)
        shift = latency.bit_length() - SIGNIFICANT_BITS
        bucket = latency >> shift << shift if shift > 0 else latency
        buckets = pending.buckets
        buckets[bucket] = buckets.get(bucket, 0) + 1
        second = (returned + self.clock_offset_ns) // 1_000_000_000
        seconds = pending.seconds
        seconds[second] = seconds.get(second, 0) + 1

    def count(self, operation: Operation) -> None:
        """Count an operation in the totals alone: for what is not part of the measurement."""
        totals = self.totals.setdefault(operation.f, Totals())
        if operation.outcome is Outcome.OK:
            totals.succeeded += 1
            if operation.f == "txn":
                totals.committed += operation.response.succeeded
        else:
            totals.failed += 1
            totals.info += operation.outcome is Outcome.INFO

    def _record_failure(self, operation: Operation, totals: Totals) -> None:
        totals.failed += 1
        if operation.outcome is Outcome.INFO:
            totals.info += 1
        # Without a response time a failure is counted and stays out of the percentiles, which are of successes.
        self._fire(operation, None, 0)

    def _fire(self, operation: Operation, response_time: float | None, length: int) -> None:
        self._environment.events.request.fire(
            request_type=REQUEST_TYPE,
            name=operation.f,
            response_time=response_time,
            response_length=length,
            exception=operation.error,
            context={},
            start_time=(operation.call_ns + self.clock_offset_ns) / 1e9,
            url=None,
            response=None,
        )

    def flush(self) -> None:
        """Move what was counted since the last call into Locust's statistics."""
        stats = self._environment.stats
        for f, pending in self._pending.items():
            if not pending.count:
                continue
            self._pending[f] = _Pending()
            times: dict[float, int] = {}
            for bucket, count in pending.buckets.items():
                key = bucket_ns(bucket) / 1e6
                times[key] = times.get(key, 0) + count
            last = (self.totals[f].last_return_ns + self.clock_offset_ns) / 1e9
            for entry in (stats.total, stats.entries[f, REQUEST_TYPE]):
                _add(entry, pending, times, last)


def _add(entry: Any, pending: _Pending, times: dict[float, int], last: float) -> None:
    """Add successes to a StatsEntry: what `StatsEntry.log` does, for many at once."""
    second = int(last)
    if entry.use_response_times_cache and entry.last_request_timestamp and second > int(entry.last_request_timestamp):
        entry._cache_response_times(second - 1)
    entry.num_requests += pending.count
    entry.total_response_time += pending.total_ns / 1e6
    low, high = pending.min_ns / 1e6, pending.max_ns / 1e6
    entry.min_response_time = low if entry.min_response_time is None else min(low, entry.min_response_time)
    entry.max_response_time = max(high, entry.max_response_time)
    entry.total_content_length += pending.length
    entry.last_request_timestamp = max(last, entry.last_request_timestamp or 0.0)
    for key, count in times.items():
        entry.response_times[key] += count
    for second, count in pending.seconds.items():
        entry.num_reqs_per_sec[second] += count
