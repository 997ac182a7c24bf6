"""Schedules as tables: what the arithmetic in the comments says."""

from __future__ import annotations

import math
from itertools import islice, pairwise

import pytest

from loadgen.load import pacing


def dues(schedule: pacing.Schedule, *operations: int) -> list[float | None]:
    return [schedule.due_s(n) for n in operations]


def test_a_constant_rate() -> None:
    # 4 in a second: 0, 1/4, 2/4, …; 2.5 s hold 10 of them, the last at 9/4.
    schedule = pacing.constant(4, 2.5)
    assert dues(schedule, 0, 1, 2, 9, 10) == [0, 0.25, 0.5, 2.25, None]
    assert schedule.operations == 10
    assert pacing.constant(4).operations == math.inf
    assert pacing.constant(4).due_s(4_000_000) == 1_000_000


def test_a_rate_that_does_not_divide_its_length() -> None:
    # 3/s for 1.1 s: due at 0, 0.33, 0.67, 1.0; 3.3 of them are 4.
    assert pacing.constant(3, 1.1).operations == 4
    assert pacing.constant(3, 1.0).operations == 3
    # One in ten seconds: the first one is due at once.
    assert pacing.constant(0.1, 1).operations == 1


def test_ramps_and_what_is_under_them() -> None:
    # (0+500)/2*10 = 2,500; (500+2000)/2*30 = 37,500; (2000+0)/2*10 = 10,000; 50,000 in all.
    schedule = pacing.parse_stages("10s:500,30s:2000,10s:0")
    assert schedule.operations == 50_000
    assert schedule.length_s == 50
    # N(t) = 25 t^2 within the first stage: 25 at 1 s, 100 at 2 s.
    assert dues(schedule, 0, 25, 100, 2500) == [0, 1, 2, 10]
    # Second stage: N(10+t) = 2500 + 500 t + 25 t^2, so 2500 + 500 + 25 = 3025 at 11 s.
    assert schedule.due_s(3025) == pytest.approx(11)
    # Third stage: 40000 + 2000 t - 100 t^2; half way, t = 5: 40000 + 10000 - 2500 = 47500.
    assert schedule.due_s(47_500) == pytest.approx(45)
    assert schedule.due_s(50_000) is None


def test_a_stage_of_no_length_jumps() -> None:
    # At once 100/s, held for 2 s: 200; then at once 10/s for 1 s: 10.
    schedule = pacing.parse_stages("0s:100,2s:100,0s:10,1s:10")
    assert schedule.operations == 210
    assert dues(schedule, 0, 100, 199, 200, 201) == [0, 1, 1.99, 2, 2.1]


def test_a_pause_in_the_middle_is_passed_over() -> None:
    # 10/s for 1 s, nothing for 5 s, 10/s for 1 s.
    schedule = pacing.parse_stages("0s:10,1s:10,0s:0,5s:0,0s:10,1s:10")
    assert schedule.operations == 20
    assert dues(schedule, 9, 10, 11) == [0.9, 6.0, 6.1]


def test_steps() -> None:
    # 10 s at 500, 1000, …, 4000: (500 + 4000) * 8 / 2 * 10 = 180,000.
    schedule = pacing.parse_step("500:4000:500/10s")
    assert (schedule.operations, schedule.length_s) == (180_000, 80)
    assert dues(schedule, 0, 5000, 15_000) == [0, 10, 20]
    # 1, 4, 7 and no 10, which is beyond 9; down: 3, 2, 1.
    assert pacing.parse_step("1:9:3/1s").operations == 12
    assert pacing.parse_step("3:1:1/2s").operations == 12


def test_the_warm_up_has_the_first_rate_above_zero() -> None:
    assert pacing.constant(7).warmup_rate == 7
    assert pacing.parse_stages("10s:500,10s:0").warmup_rate == 500
    assert pacing.parse_step("20:10:5/1s").warmup_rate == 20


def test_workers_take_turns() -> None:
    # 4/s over 2 workers: 0.0 0.5 1.0 … and 0.25 0.75 …
    schedule = pacing.constant(4, 2)
    assert list(pacing.arrivals(schedule, pacing.evenly(0, 2))) == [0, 0.5, 1.0, 1.5]
    assert list(pacing.arrivals(schedule, pacing.evenly(1, 2))) == [0.25, 0.75, 1.25, 1.75]


def test_random_arrivals_are_those_of_their_seed() -> None:
    schedule = pacing.constant(100, 10)
    first = list(pacing.arrivals(schedule, pacing.poisson(0, 2, 1)))
    assert first == list(pacing.arrivals(schedule, pacing.poisson(0, 2, 1)))
    assert first != list(pacing.arrivals(schedule, pacing.poisson(1, 2, 1)))
    assert first != list(pacing.arrivals(schedule, pacing.poisson(0, 2, 2)))
    endless = pacing.arrivals(pacing.constant(100), pacing.poisson(0, 1, 1))
    gaps = list(islice(endless, 20_001))
    gaps = [b - a for a, b in pairwise(gaps)]
    # Exponential with mean 1/100: standard deviation 1/100 too, and 1/e of all gaps are longer than the mean.
    assert sum(gaps) / len(gaps) == pytest.approx(0.01, rel=0.03)
    assert math.sqrt(sum((g - 0.01) ** 2 for g in gaps) / len(gaps)) == pytest.approx(0.01, rel=0.05)
    assert sum(g > 0.01 for g in gaps) / len(gaps) == pytest.approx(1 / math.e, rel=0.03)


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        (pacing.parse_stages, "", "is not a stage; write DURATION:RATE"),
        (pacing.parse_stages, "500", "is not a stage; write DURATION:RATE"),
        (pacing.parse_stages, "10x:500", "'10x' is not a duration"),
        (pacing.parse_stages, "10s:fast", "'fast' is not a rate"),
        (pacing.parse_stages, "10s:-5", "'-5' is not a rate"),
        (pacing.parse_stages, "10s:0", "is a schedule of no operations"),
        (pacing.parse_stages, "10s:inf", "'inf' is not a rate"),
        (pacing.parse_step, "500:4000/10s", "write FROM:TO:BY/DURATION"),
        (pacing.parse_step, "500:4000:500", "write FROM:TO:BY/DURATION"),
        (pacing.parse_step, "500:4000:0/10s", "must be above 0"),
        (pacing.parse_step, "1:1000000:1/1s", "1,000,000 steps"),
        (pacing.parse_step, "5:5:5/0s", "is a schedule of no operations"),
        (pacing.parse_rate, "2k", "'2k' is not a rate"),
    ],
)  # fmt: skip
def test_what_is_no_schedule_is_one_clear_line(parse, text: str, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
