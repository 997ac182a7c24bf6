"""Histograms: their buckets, their percentiles against sorted samples, their logs against another implementation."""

from __future__ import annotations

import math
import statistics

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given
from hypothesis import strategies as st

from loadgen.stats import hdr

DAY_NS = 86_400 * 10**9
LATENCIES = st.lists(st.integers(1, 3600 * 10**9) | st.integers(1, 5000) | st.integers(10**5, 10**7), min_size=1)


def histogram(values: list[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for value in values:
        hdr.merge(counts, {hdr.bucket(value): 1})
    return counts


@given(st.integers(1, DAY_NS))
def test_a_bucket_holds_its_value_and_its_middle(value: int) -> None:
    low = hdr.bucket(value)
    assert low <= value <= low * (1 + 1 / 1024)
    assert hdr.bucket(hdr.middle(low)) == low
    assert abs(hdr.middle(low) - value) <= value / 2048


@given(LATENCIES, st.floats(0, 1))
def test_a_percentile_is_that_of_the_sorted_samples(values: list[int], fraction: float) -> None:
    values.sort()
    exact = values[max(1, math.ceil(fraction * len(values) - 1e-9 * len(values))) - 1]
    (found,) = hdr.percentiles(histogram(values), (fraction,))
    assert abs(found - exact) <= exact / 2048


@given(st.lists(LATENCIES, min_size=1, max_size=4))
def test_merged_histograms_are_the_histogram_of_all(parts: list[list[int]]) -> None:
    merged: dict[int, int] = {}
    for part in parts:
        hdr.merge(merged, histogram(part))
    assert merged == histogram([value for part in parts for value in part])


@given(LATENCIES)
def test_other_tools_read_what_we_write_and_we_what_they_write(values: list[int]) -> None:
    counts = histogram(values)
    oracle = HdrHistogram(1, DAY_NS, 3)
    for value in values:
        oracle.record_value(value)
    assert hdr.decode(oracle.encode().decode()) == counts
    theirs = HdrHistogram.decode(hdr.encode(counts))
    assert theirs.total_count == len(values)
    for percent in (0, 50, 90, 99, 99.9, 100):
        assert theirs.get_value_at_percentile(percent) == oracle.get_value_at_percentile(percent)


def test_a_log_is_read_by_another_implementation(tmp_path) -> None:  # type: ignore[no-untyped-def]
    seconds = [[1_000_000, 2_000_000], [3_000_000], [250_000] * 7]
    path = tmp_path / "put.hlog"
    text = hdr.log_head(1_700_000_000.0)
    for offset, values in enumerate(seconds):
        text += hdr.log_line(offset, 1.0, max(values), hdr.encode(histogram(values)))
    path.write_text(text)
    total = HdrHistogram(1, DAY_NS, 3)
    reader = HistogramLogReader(str(path), total)
    read = list(iter(reader.get_next_interval_histogram, None))
    reader.close()
    assert [each.get_total_count() for each in read] == [2, 1, 7]
    assert read[1].get_start_time_stamp() == 1_700_000_001_000
    assert hdr.read_log(text) == [(1_700_000_000.0 + n, 1.0, histogram(values)) for n, values in enumerate(seconds)]


@pytest.mark.parametrize("text", ["", "HISTFAAA", "!", hdr.encode({5: 1})[:-8], hdr.encode({5: 1})[4:]])
def test_what_is_no_histogram_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HdrHistogram"):
        hdr.decode(text)


@given(LATENCIES)
def test_a_deviation_is_that_of_the_samples(values: list[int]) -> None:
    """Within 1/2048 of their root mean square, by Minkowski's inequality."""
    exact, mean_square = statistics.pstdev(values), statistics.fmean(value * value for value in values)
    assert abs(hdr.deviation(histogram(values)) - exact) <= math.sqrt(mean_square) * (1 / 2048 + 1e-6)
