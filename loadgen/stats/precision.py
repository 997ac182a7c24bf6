"""Microseconds in Locust's own statistics, CSV files, web UI and HTML report.

Locust rounds response times to whole milliseconds in three places: the histogram's keys, the CSV's
percentile columns, and the minimum and maximum that the web UI shows. The first has a documented hook; for
the others, and for the definition of a percentile, functions are replaced, once, in a process that runs Locust.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def percentile(entry: Any, fraction: float) -> float:
    """Return a percentile of a Locust StatsEntry in milliseconds, never outside its minimum and maximum."""
    value: float = entry.get_response_time_percentile(fraction)
    if fraction >= 1.0:
        value = entry.max_response_time
    low, high = float(entry.min_response_time or 0.0), float(entry.max_response_time)
    return min(max(value, low), high)


def install() -> None:
    """Give this process's Locust microsecond precision. May be called more than once."""
    from locust import runners, stats

    # When a test stops, Locust looks up its caller's source file for a debug line: tens of milliseconds in which no
    # answer that is still open gets read. Without the module it does without the line.
    runners.inspect = None
    if stats.bucket_response_time is bucket_response_time:
        return
    stats.bucket_response_time = bucket_response_time
    stats.calculate_response_time_percentile = response_time_percentile
    round_for_ui = stats.StatsEntry.to_dict
    current_of_locust = stats.StatsEntry.get_current_response_time_percentile

    def percentile_fields(self: Any, stats_entry: Any, use_current: bool = False) -> list[Any]:
        if not stats_entry.num_requests:
            return list(self.percentiles_na)
        if use_current and stats_entry.use_response_times_cache:
            current = stats_entry.get_current_response_time_percentile
            return [_microseconds(current(x) or 0.0) for x in self.percentiles_to_report]
        return [_microseconds(percentile(stats_entry, x)) for x in self.percentiles_to_report]

    def to_dict(self: Any, escape_string_values: bool = False) -> dict[str, Any]:
        row = round_for_ui(self, escape_string_values)
        low, high = float(self.min_response_time or 0.0), float(self.max_response_time)
        # A bucket's midpoint may lie outside of what was measured.
        times = {key: min(max(value, low), high) for key, value in row.items() if "response_time" in key}
        times |= {"min_response_time": low, "max_response_time": high}
        return {**row, **{key: _microseconds(value) for key, value in times.items()}}

    def current(self: Any, percent: float) -> float | None:
        value = current_of_locust(self, percent)
        return None if value is None else _microseconds(value)

    stats.StatsEntry.get_current_response_time_percentile = current
    stats.StatsCSV._percentile_fields = percentile_fields
    stats.StatsEntry.to_dict = to_dict


def _microseconds(milliseconds: float) -> float:
    return round(milliseconds, 3)
