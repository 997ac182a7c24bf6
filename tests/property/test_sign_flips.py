"""The sign flips of `raftload ab`: held to scipy's, and to what other units, orders and names must not change."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from loadgen.ab.sign_flips import ALPHA, FEWEST, arrangements, judge
from loadgen.compare.verdict import Figure, Word

NAMES = ("put.p50_ms", "put.p99_ms", "put.throughput_ops_s")
Pairs = dict[str, tuple[list[float], list[float]]]


@st.composite
def pairs(draw: st.DrawFn, fewest: int = FEWEST, most: int = 12) -> Pairs:
    """Return figures of so many pairs, also of equal values and of large differences."""
    count = draw(st.integers(fewest, most))
    value = st.one_of(st.floats(0.01, 1000), st.sampled_from((1.0, 2.0)))
    values = st.lists(value, min_size=count, max_size=count)
    return {name: (draw(values), draw(values)) for name in NAMES[: draw(st.integers(1, len(NAMES)))]}


@settings(max_examples=25)
@given(pairs(most=10))
def test_the_probabilities_are_those_of_scipy(found: Pairs) -> None:
    differences = np.array([np.log(new) - np.log(base) for base, new in found.values()])
    scales = np.sqrt((differences**2).sum(axis=1)) + 1e-300

    def largest(signs: np.ndarray, axis: int = -1) -> np.ndarray:
        # All signs are drawn alike for all figures: the one sample is of ones, and each flip of it is an arrangement.
        del axis
        return np.abs(signs @ differences.T / scales).max(axis=-1)

    ones = np.ones(differences.shape[1])
    theirs = permutation_test((ones,), largest, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    null = theirs.null_distribution
    assert len(null) == arrangements(len(ones))
    for row, figure in zip(differences / scales[:, None], judge(found, 0.05), strict=True):
        assert figure.p == pytest.approx(np.mean(null >= abs(row.sum()) - 1e-9 * math.sqrt(len(ones))))


@given(pairs(fewest=1))
def test_a_verdict_is_covered_by_its_interval_and_its_probability(found: Pairs) -> None:
    for figure in judge(found, 0.05):
        if figure.low is not None and figure.high is not None:
            assert figure.low * (1 - 1e-9) <= figure.ratio <= figure.high * (1 + 1e-9)
        if figure.word in (Word.SLOWER, Word.FASTER):
            assert figure.p is not None and figure.p <= ALPHA
            assert figure.low is not None and figure.high is not None and not figure.low <= 1 <= figure.high
            assert (figure.ratio > 1) == ((figure.word is Word.SLOWER) != (figure.unit == "1/s"))
        if figure.word is Word.SAME:
            assert figure.low is not None and figure.high is not None
            assert figure.low >= 0.95 - 1e-9 and figure.high <= 1.05 + 1e-9
        assert (figure.more is None) or (figure.word is Word.CANNOT_TELL and figure.more.most > 0)


@given(pairs(), st.floats(0.001, 1000))
def test_units_and_the_order_of_the_pairs_change_nothing(found: Pairs, unit: float) -> None:
    turned = {
        name: ([unit * v for v in base[::-1]], [unit * v for v in new[::-1]]) for name, (base, new) in found.items()
    }
    for ours, theirs in zip(judge(found, 0.05), judge(turned, 0.05), strict=True):
        assert ours.p == theirs.p
        assert ends(ours) == pytest.approx(ends(theirs), rel=1e-6)


@given(pairs())
def test_exchanged_sides_exchange_the_verdict(found: Pairs) -> None:
    exchanged = {name: (new, base) for name, (base, new) in found.items()}
    for ours, theirs in zip(judge(found, 0.05), judge(exchanged, 0.05), strict=True):
        assert ours.p == theirs.p
        low, high = ends(theirs)
        assert ends(ours) == pytest.approx((1 / high, 1 / low), rel=1e-6)
        opposite = {Word.SLOWER: Word.FASTER, Word.FASTER: Word.SLOWER}
        if Word.SAME not in (ours.word, theirs.word):  # of which the bounds are shares, up and down
            assert theirs.word is opposite.get(ours.word, ours.word)


@given(pairs(fewest=1, most=FEWEST - 1))
def test_of_too_few_pairs_nothing_is_told_but_how_many_are_missing(found: Pairs) -> None:
    count = len(next(iter(found.values()))[0])
    for figure in judge(found, 0.05):
        assert figure.word is Word.CANNOT_TELL and figure.low is None and figure.p is None
        assert figure.words(0.05) == f"cannot tell: {FEWEST - count} more pair{'s' if FEWEST - count > 1 else ''}"


def ends(figure: Figure) -> tuple[float, float]:
    """Return the ends of an interval, wide ones where it has none."""
    return (figure.low or 1e-300, figure.high or 1e300)
