"""The logs of real elections, handed over in any way that people hand them over: always the same picture."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.log_inputs import check_picture


@settings(max_examples=examples(60))  # the soak test goes on for as long as it is told
@given(st.integers(0, 2**32 - 1))
def test_the_picture_is_the_same_however_the_logs_are_handed_over(seed: int) -> None:
    check_picture(seed)
