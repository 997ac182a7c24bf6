"""The search for a capacity against models of servers: is what it finds right, how often, and does it end?"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from loadgen.capacity.search import Block, Decision, Goal, Phase, Search
from tests.support.servers import BLOCK_S, SYSTEMS, Shares, run

P99 = Goal(0.01, 0.02)
MANY, FEW = 60, 25


def search_of(goals: tuple[Goal, ...] = (P99,), **options: float) -> Search:
    return Search(goals, **{"start_rate": 50.0, "max_rate": 1e6, **options})


@pytest.mark.parametrize("seed", range(MANY))
def test_a_server_of_a_known_rate_is_measured_within_3_percent(seed: int) -> None:
    system = SYSTEMS["fifo"](seed)
    search = search_of(system.goals)
    spent_s = run(search, system.model)
    assert search.answer is not None, search.reason
    assert search.answer == pytest.approx(system.truth, rel=0.03)
    low, high = search.bracket()
    assert low is not None and high is not None
    assert low <= system.truth * 1.01 and high >= system.truth * 0.99
    assert spent_s < 180
    limit = search.limit
    assert limit is not None and limit.decision is Decision.BREAKS
    assert limit.broken == (0,) or limit.is_growing


@pytest.mark.parametrize(
    ("name", "near", "share"),
    [("knee", 0.05, 0.9), ("steep knee", 0.05, 0.95), ("queue", 0.1, 0.85), ("long queue", 0.1, 0.9),
     ("bursts", 0.15, 0.8), ("drift", 0.06, 0.85), ("neighbour", 0.06, 0.8)],
)  # fmt: skip
def test_other_servers_are_measured_about_as_well_as_they_can_be(name: str, near: float, share: float) -> None:
    """Random arrivals, shares that grow slowly, bursts, a capacity that moves, a neighbour who takes the CPU."""
    good, wrong = 0, Counter[str]()
    for seed in range(FEW):
        system = SYSTEMS[name](seed)
        search = search_of(system.goals)
        run(search, system.model)
        good += search.answer is not None and abs(search.answer / system.truth - 1) < near
        low, high = search.bracket()
        wrong["low"] += low is not None and low > system.truth * (1 + near)
        wrong["high"] += high is not None and high < system.truth * (1 - near)
    assert good >= share * FEW
    assert wrong["low"] <= 0.1 * FEW and wrong["high"] <= 0.1 * FEW


@pytest.mark.parametrize("share", [0.008, 0.0125])
def test_a_stay_decides_wrongly_about_as_seldom_as_it_says(share: float) -> None:
    """Near the bound, where it is hard: looked at after each block, at most 1 % in 500 stays are surely wrong."""
    wrong = 0
    for seed in range(500):
        model = Shares(lambda *_: share, seed)
        search = search_of(start_rate=1000, max_rate=1000)
        while search.stays[0].decision is None:
            search.add(model(1000))
        stay = search.stays[0]
        right = Decision.HOLDS if share < P99.share else Decision.BREAKS
        wrong += stay.is_sure and stay.decision is not right
    assert wrong <= 5


@pytest.mark.parametrize("seed", range(FEW))
def test_whatever_a_server_answers_the_search_ends(seed: int) -> None:
    """Blocks of anything at all: silence, floods, all failing."""
    rng = random.Random(seed)
    search = search_of((P99, Goal(0.001)))
    for _ in range(20_000):
        if search.rate is None:
            break
        due = round(search.rate * BLOCK_S)
        back = rng.choice((0, due, due, rng.randrange(due + 1)))
        counts = ((back, rng.choice((0, 0, back))), (back, rng.choice((0, 0, 0, back))))
        search.add(Block(BLOCK_S, due, rng.choice((0, 0, due - back)), back, rng.choice((0, 0, due, 10**6)), counts))
    assert search.is_done
    assert search.answer is not None or search.reason


def blocks(search: Search, make: Callable[[float], Block]) -> None:
    while search.rate is not None:
        search.add(make(search.rate))


def fine(rate: float, **more: int) -> Block:
    due = round(rate * BLOCK_S)
    return Block(BLOCK_S, due, more.get("dropped", 0), due, more.get("in_flight", 1), ((due, more.get("bad", 0)),))


def test_what_holds_at_the_highest_permitted_rate_has_no_limit() -> None:
    search = search_of(max_rate=750.0)
    blocks(search, fine)
    assert search.answer == pytest.approx(750)
    assert search.limit is None and search.bracket()[1] is None
    assert max(stay.rate for stay in search.stays) == 750


def test_where_nothing_holds_it_goes_down_and_says_so() -> None:
    search = search_of()
    blocks(search, lambda rate: fine(rate, bad=round(rate * BLOCK_S)))
    assert search.answer is None and search.reason == Search.NONE_HOLDS
    assert search.stays[-1].rate == 1


@pytest.mark.parametrize("start_rate", [1.0, 100.0, 10_000.0, 1e6])
def test_that_nothing_holds_is_known_after_a_few_stays(start_rate: float) -> None:
    """Where what is bad is just too much, so that each stay takes its time."""
    search, spent_s = search_of(start_rate=start_rate), 0.0
    credit = 0.0
    while search.rate is not None:
        due = round(search.rate * BLOCK_S)
        credit += 0.011 * due
        bad, spent_s = int(credit), spent_s + BLOCK_S
        credit -= bad
        search.add(fine(search.rate, bad=bad))
        if search.low is not None:
            break  # at a few operations a second none of them need be bad
    assert len(search.stays) <= 8 and spent_s <= 80


def test_below_a_first_rate_that_broke_the_capacity_is_found() -> None:
    search = search_of(start_rate=20_000.0)
    blocks(search, lambda rate: fine(rate, bad=round(rate * BLOCK_S) if rate > 150 else 0))
    assert search.answer == pytest.approx(150, rel=0.03)


def test_a_generator_that_is_late_is_not_taken_for_the_server() -> None:
    search = search_of()

    def make(rate: float) -> Block:
        due = round(rate * BLOCK_S)
        return fine(rate) if rate < 500 else Block(BLOCK_S, due, 0, due, 1, ((due, due),), is_late=True)

    blocks(search, make)
    limit = search.limit
    assert search.answer == pytest.approx(500, rel=0.03)
    assert limit is not None and limit.decision is Decision.LATE


def test_after_a_stay_that_broke_the_load_is_low_until_the_backlog_is_gone() -> None:
    search = search_of(start_rate=100.0)
    while search.rate == 100:
        search.add(fine(100))
    while search.phase is Phase.PROBING:
        search.add(Block(BLOCK_S, 100, 0, 50, 500, ((50, 50),)))
    assert search.phase is Phase.DRAINING
    rate = search.rate
    assert rate is not None and rate < 100
    for _ in range(3):
        assert not search.add(Block(BLOCK_S, 10, 0, 60, 400, ((60, 60),)))
    assert search.add(Block(BLOCK_S, 10, 0, 60, 1, ((60, 60),)))
    assert search.phase is not Phase.DRAINING


def test_a_backlog_that_does_not_drain_ends_it() -> None:
    search = search_of()
    blocks(search, lambda _: Block(BLOCK_S, 50, 0, 0, 10_000, ((0, 0),)))
    assert search.answer is None and "did not drain" in search.reason


def test_a_rate_at_which_operations_in_flight_become_more_breaks_before_they_are_slow() -> None:
    """Within a bound of a second nothing is slow for a long time, and yet the server never keeps up."""
    search = Search([Goal(0.01, 1.0)], start_rate=2000, max_rate=2000)
    level = 10
    while search.stays[0].decision is None:
        level += 25
        search.add(fine(2000, in_flight=level))
    assert search.stays[0].decision is Decision.BREAKS and search.stays[0].is_growing


def test_what_never_came_back_is_found_out_at_once() -> None:
    search = search_of(start_rate=1000.0)
    count = 0
    while search.stays[0].decision is None:
        count += 1
        search.add(Block(BLOCK_S, 500, 0, 0, 500 * count, ((0, 0),)))
    assert search.stays[0].decision is Decision.BREAKS
    assert len(search.stays[0].blocks) == 2


def test_dropped_operations_count_against_every_goal() -> None:
    search = search_of((Goal(0.01, 0.02), Goal(0.001)), start_rate=1000.0)
    while search.stays[0].decision is None:
        search.add(Block(BLOCK_S, 500, 100, 400, 5, ((400, 0), (400, 0))))
    assert search.stays[0].broken == (0, 1)


def test_where_nothing_came_back_that_a_goal_is_about_nothing_is_said_to_break() -> None:
    search = search_of((P99, Goal(0.01, 0.02)), start_rate=1000.0)
    blocks(search, lambda _: Block(BLOCK_S, 500, 0, 500, 1, ((500, 0), (0, 0))))
    assert search.answer is None and "no operation that a threshold is about came back" in search.reason
    assert all(stay.decision is None for stay in search.stays)


def test_where_nothing_of_a_type_came_back_another_goal_may_still_break() -> None:
    search = search_of((P99, Goal(0.01, 0.02)), start_rate=1000.0)
    while search.stays[0].decision is None:
        search.add(Block(BLOCK_S, 500, 0, 500, 1, ((500, 500), (0, 0))))
    assert search.stays[0].broken == (0,)


def test_the_time_bounds_it() -> None:
    search = search_of(limit_s=10.0)
    assert run(search, SYSTEMS["knee"](1).model) <= 10.5
    assert search.answer is None and "no more time" in search.reason


def test_an_end_from_outside_keeps_what_was_found() -> None:
    search = search_of(max_rate=400.0)
    while search.low != 400:
        search.add(fine(search.rate or 0))
    search.end("the run was interrupted by SIGINT")
    assert search.rate is None and search.low == 400 and search.reason == "the run was interrupted by SIGINT"
    search.end("again")
    assert "SIGINT" in search.reason
