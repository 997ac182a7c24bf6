"""Schedules of any shape: exact counts, in order, shared without loss, and the integral of their rate."""

from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from loadgen.load import pacing
from loadgen.load.pacing import Schedule, Stage

RATES = st.floats(0.1, 2000) | st.just(0.0)
STAGES = st.lists(st.tuples(st.floats(0.001, 3), RATES, RATES), min_size=1, max_size=5)


def schedule_of(stages: list[tuple[float, float, float]]) -> Schedule:
    schedule = Schedule([Stage(*stage) for stage in stages])
    assume(1 <= schedule.operations <= 5000)
    return schedule


@given(STAGES, st.integers(1, 7))
def test_workers_have_all_operations_and_none_twice(stages: list[tuple[float, float, float]], workers: int) -> None:
    schedule = schedule_of(stages)
    alone = list(pacing.arrivals(schedule, pacing.evenly(0, 1)))
    assert len(alone) == schedule.operations
    assert alone == sorted(alone)
    assert alone[0] >= 0
    assert alone[-1] <= schedule.length_s
    shared = [list(pacing.arrivals(schedule, pacing.evenly(w, workers))) for w in range(workers)]
    assert sorted(due for part in shared for due in part) == alone
    # Nobody has two operations between two of another's: they take turns.
    for w, part in enumerate(shared):
        assert part == alone[w::workers]


@given(STAGES)
def test_the_rate_integrates_to_the_operations_that_are_due(stages: list[tuple[float, float, float]]) -> None:
    schedule = schedule_of(stages)
    dues = list(pacing.arrivals(schedule, pacing.evenly(0, 1)))
    start_s = 0.0
    for number, due in enumerate(dues[:: max(1, len(dues) // 20)]):
        n = number * max(1, len(dues) // 20)
        integral = start_s = 0.0
        for length_s, a, b in stages:
            t = min(max(due - start_s, 0.0), length_s)
            integral += a * t + (b - a) / length_s * t * t / 2
            start_s += length_s
        assert math.isclose(integral, n, rel_tol=1e-6, abs_tol=1e-4)


@given(st.floats(0.5, 5000), st.floats(0.01, 5))
def test_a_constant_rate_has_the_operations_before_its_end(rate: float, length_s: float) -> None:
    schedule = pacing.constant(rate, length_s)
    assume(schedule.operations < 5000)
    assert schedule.operations == math.ceil(rate * length_s * (1 - 1e-9) - 1e-9)
    dues = list(pacing.arrivals(schedule, pacing.evenly(0, 1)))
    assert all(math.isclose(due, n / rate, rel_tol=1e-12, abs_tol=1e-12) for n, due in enumerate(dues))


@given(st.integers(0, 2**32), st.integers(1, 4))
def test_random_arrivals_have_the_rate_of_the_schedule(seed: int, workers: int) -> None:
    # 4,000 expected, in a Poisson process: standard deviation 63.
    schedule = pacing.parse_stages("2s:1000,2s:1000,2s:0")
    dues = [d for w in range(workers) for d in pacing.arrivals(schedule, pacing.poisson(w, workers, seed))]
    assert abs(len(dues) - 4000) < 6.5 * 63
    # Half of them are due in the middle stage.
    assert abs(sum(2 <= due < 4 for due in dues) - 2000) < 6.5 * 45
