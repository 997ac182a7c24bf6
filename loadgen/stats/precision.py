"""The resolution of latencies in Locust's own statistics: eight significant bits of nanoseconds, not milliseconds.

`loadgen.load.locust_internals.install_microseconds` puts these functions in the place of Locust's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from loadgen.stats.hdr import nearest_rank

# 8 significant bits: 128 buckets an octave. A bucket stands for its midpoint, so a reported time is at most
# 1/256 = 0.4 % off, and a second's worth of latencies from 50 us up has about 1,800 keys at the worst.
SIGNIFICANT_BITS = 8


def bucket_ns(latency_ns: int) -> int:
    """Return the midpoint of the log-linear bucket that a latency falls into; nanoseconds in and out."""
    shift = latency_ns.bit_length() - SIGNIFICANT_BITS
    if shift <= 0:
        return latency_ns
    return (latency_ns >> shift << shift) + (1 << shift >> 1)


def bucket_response_time(response_time: float) -> float:
    """Replace Locust's function of this name: milliseconds in and out, at most 0.4 % apart."""
    return bucket_ns(round(response_time * 1e6)) / 1e6


def response_time_percentile(response_times: Mapping[float, int], _: int, fraction: float) -> float:
    """Replace Locust's `calculate_response_time_percentile`, which returns the sample after the nearest rank.

    Of 100 samples it would report the largest as the 99th percentile. Milliseconds; 0 without a sample.
    """
    rank, reached = nearest_rank(fraction, sum(response_times.values())), 0
    for time_ms in sorted(response_times):
        reached += response_times[time_ms]
        if reached >= rank:
            return time_ms
    return 0.0


class StatsEntry(Protocol):
    """What we use of Locust's class of this name, which has no types for us."""

    num_requests: int
    response_times: Mapping[float, int]
    min_response_time: float | None
    max_response_time: float
    use_response_times_cache: bool

    def get_response_time_percentile(self, percent: float) -> float:
        """Return a percentile in milliseconds."""

    def get_current_response_time_percentile(self, percent: float) -> float | None:
        """Return a percentile of the last seconds in milliseconds."""


def percentile(entry: StatsEntry, fraction: float) -> float:
    """Return a percentile of a Locust StatsEntry in milliseconds, never outside its minimum and maximum."""
    value = entry.get_response_time_percentile(fraction)
    if fraction >= 1.0:
        value = entry.max_response_time
    low, high = float(entry.min_response_time or 0.0), float(entry.max_response_time)
    return min(max(value, low), high)
