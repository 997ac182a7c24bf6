"""Durations: whatever is written is read back as it was."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.base.units import LONGEST_S, duration_text, parse_duration

UNITS = {"h": 3600, "m": 60, "s": 1, "ms": Fraction(1, 10**3), "us": Fraction(1, 10**6), "ns": Fraction(1, 10**9)}


@given(st.floats(min_value=0, max_value=LONGEST_S))
def test_what_is_written_is_read_back(seconds: float) -> None:
    assert parse_duration(duration_text(seconds)) == parse_duration(duration_text(seconds), plain=False) == seconds


@given(st.floats(min_value=LONGEST_S, exclude_min=True, allow_nan=False, allow_infinity=False))
def test_longer_than_any_clock_counts_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="is not a duration; it is longer than the longest one, 2562048h"):
        parse_duration(duration_text(seconds))


@given(st.lists(st.tuples(st.integers(0, 300_000), st.sampled_from(sorted(UNITS))), min_size=1, max_size=8))
def test_parts_add_up_in_any_order(parts: list[tuple[int, str]]) -> None:
    exact = sum(number * UNITS[unit] for number, unit in parts)
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert math.isclose(parse_duration(text), exact, rel_tol=1e-12)
    assert parse_duration(f" {text}\n") == parse_duration(text)
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(f"{text}1")


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        assert "is not a duration" in str(error)
    else:
        assert seconds >= 0 and math.isfinite(seconds)
