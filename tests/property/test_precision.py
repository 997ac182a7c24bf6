"""The histogram's buckets keep what they promise: 0.4 %."""

from hypothesis import given
from hypothesis import strategies as st

from loadgen.stats.precision import bucket_ns, bucket_response_time


@given(st.integers(1, 3600 * 10**9))
def test_a_bucket_is_within_its_bound_and_stands_for_itself(latency_ns: int) -> None:
    bucket = bucket_ns(latency_ns)
    assert abs(bucket - latency_ns) <= latency_ns / 256
    assert bucket_ns(bucket) == bucket


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_buckets_keep_the_order(a: int, b: int) -> None:
    low, high = sorted((a, b))
    assert bucket_ns(low) <= bucket_ns(high)


def test_an_octave_has_128_buckets() -> None:
    assert len({bucket_ns(ns) for ns in range(1 << 20, 1 << 21, 64)}) == 128


@given(st.floats(0.001, 1e6))
def test_milliseconds_are_bucketed_alike(milliseconds: float) -> None:
    assert abs(bucket_response_time(milliseconds) - milliseconds) <= milliseconds / 256 + 1e-6
