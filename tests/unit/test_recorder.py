"""A worker's intervals: their length, by how long the load is planned, and what falls into which."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from loadgen.history.operation import Operation, Outcome
from loadgen.load.recorder import Recorder

S = 1_000_000_000


def recorded(planned_s: float | None, *returns_s: float) -> list[tuple[float, int, int]]:
    """Return the intervals of puts that returned then: their start, their ticks, and how many returned in them."""
    environment: Any = SimpleNamespace(events=SimpleNamespace(request=SimpleNamespace(_handlers=[None])))
    recorder = Recorder(environment, planned_s=planned_s)
    recorder.clock_offset_ns = 1000 * S
    for at in returns_s:
        returned = round(at * S)
        recorder.record(Operation(1, "put", b"k", b"v", returned - 10, returned - 10, returned, Outcome.OK))
    latencies, _ = recorder.take_series()
    return [(row[0] / 10, row[1], sum(row[-1].values())) for row in latencies["put"]]


def test_a_load_of_less_than_two_minutes_is_counted_by_the_tick_to_its_end() -> None:
    assert recorded(119.9, 5.0, 5.05, 5.1, 5.95, 5.08, 130.0) == [
        (1005.0, 1, 3), (1005.1, 1, 1), (1005.9, 1, 1), (1130.0, 1, 1),
    ]  # fmt: skip


def test_a_longer_load_is_counted_by_the_second() -> None:
    assert recorded(120.0, 5.0, 5.05, 5.95, 6.0) == [(1005.0, 10, 3), (1006.0, 10, 1)]


def test_a_load_of_unknown_length_is_counted_by_the_second_once_it_has_taken_two_minutes() -> None:
    # The second in which the two minutes end is counted both ways.
    assert recorded(None, 5.25, 125.2, 125.3, 125.9, 126.5) == [
        (1005.2, 1, 1), (1125.2, 1, 1), (1125.0, 10, 2), (1126.0, 10, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("planned_s", [1.0, None, 600.0])
def test_each_success_is_in_one_interval(planned_s: float | None) -> None:
    found = recorded(planned_s, *(5 + n * 0.7 for n in range(400)))
    assert sum(count for _, _, count in found) == 400
