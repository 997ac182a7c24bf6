"""The schedule of an open loop: when each operation is due. Pure: arithmetic only, no clock.

A schedule is a rate over time. Its integral N(t) is how many operations are due by then, and operation n, counted
from 0 over all workers, is due at the t at which N(t) = n. So worker i of w, which has the operations i, i + w,
i + 2w, …, takes turns with the others, the number of operations of a schedule is exact, and nothing that the server
does moves a due time.
"""

from __future__ import annotations

import itertools
import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster.base.units import parse_duration, parse_number

# A schedule of more steps than this is a slip of the keyboard.
_MAX_STEPS = 10_000
# Rates and lengths are floats; this share of an operation too many is their rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Stage:
    """Seconds within which the rate goes linearly from one value to another, in operations per second."""

    length_s: float
    start_rate: float
    end_rate: float

    @property
    def operations(self) -> float:
        """The integral of the rate."""
        return (self.start_rate + self.end_rate) / 2 * self.length_s

    def time_of(self, operations: float) -> float:
        """Return after how many seconds the integral reaches a number; 0 <= ``operations`` <= `operations`."""
        if math.isinf(self.length_s):
            return operations / self.start_rate
        # N(t) = a t + k t^2 / 2 with k = (b - a) / length, solved for t in the form that does not cancel for k near 0.
        slope = (self.end_rate - self.start_rate) / self.length_s
        root = math.sqrt(max(0.0, self.start_rate**2 + 2 * slope * operations))
        return min(2 * operations / (self.start_rate + root), self.length_s) if operations else 0.0


class Schedule:
    """Stages one after the other.

    Attributes:
        stages: those of some length.
        length_s: seconds in all; infinite for a rate without an end.
        operations: how many are due within it, before the end; infinite likewise.
        warmup_rate: the first rate above 0.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = [stage for stage in stages if stage.length_s > 0]
        self._starts_s = [0.0, *itertools.accumulate(stage.length_s for stage in self.stages)]
        self._before = [0.0, *itertools.accumulate(stage.operations for stage in self.stages)]
        self.length_s = self._starts_s[-1]
        self.integral = self._before[-1]
        self.operations: float = (
            self.integral if math.isinf(self.integral) else math.ceil(self.integral * (1 - _ROUNDING) - _ROUNDING)
        )
        self.warmup_rate = next((rate for s in self.stages for rate in (s.start_rate, s.end_rate) if rate > 0), 0.0)

    def rate_at(self, at_s: float) -> float:
        """Return the rate at a time, in operations per second; 0 before the first stage and after the last."""
        if not 0 <= at_s < self.length_s:
            return 0.0
        at = bisect_right(self._starts_s, at_s) - 1
        stage = self.stages[at]
        return stage.start_rate + (stage.end_rate - stage.start_rate) * (at_s - self._starts_s[at]) / stage.length_s

    def due_s(self, position: float) -> float | None:
        """Return when the integral of the rate reaches ``position``, in seconds; None where it does not.

        For a whole number n that is when operation n is due.
        """
        if position >= self.integral:
            return None
        at = bisect_right(self._before, position) - 1
        return self._starts_s[at] + self.stages[at].time_of(position - self._before[at])


def constant(rate: float, length_s: float = math.inf) -> Schedule:
    """Return the schedule of a rate that stays: operation n is due at n / rate."""
    return Schedule([Stage(length_s, rate, rate)])


def parse_stages(text: str) -> Schedule:
    """Return the schedule of ``10s:500,30s:2000,10s:0``: from 0 to 500/s in 10 s, to 2,000/s in 30 s, to 0 in 10 s.

    Each stage is a linear ramp from the rate before it, 0 at first, as in k6; one of length 0 jumps. Raises
    ValueError.
    """
    stages = []
    rate = 0.0
    for part in text.split(","):
        length_text, colon, rate_text = part.partition(":")
        if not colon:
            raise ValueError(f"{part.strip()!r} is not a stage; write DURATION:RATE, such as 30s:2000")
        length_s, target = parse_duration(length_text), parse_rate(rate_text)
        stages.append(Stage(length_s, rate, target))
        rate = target
    return _checked(stages, text)


def parse_step(text: str) -> Schedule:
    """Return the schedule of ``500:4000:500/10s``: 10 s at 500/s, 10 s at 1,000/s, and so on to 4,000/s.

    The last plateau is the last one that is not beyond the end; an end below the start goes down. Raises ValueError.
    """
    rates, slash, length_text = text.partition("/")
    parts = rates.split(":")
    if not slash or len(parts) != 3:
        raise ValueError(f"{text!r} is not a step schedule; write FROM:TO:BY/DURATION, such as 500:4000:500/10s")
    first, last, by = (parse_rate(part) for part in parts)
    length_s = parse_duration(length_text)
    if by <= 0:
        raise ValueError(f"the step in {text!r} must be above 0")
    count = math.floor(abs(last - first) / by + _ROUNDING) + 1
    if count > _MAX_STEPS:
        raise ValueError(f"{text!r} has {count:,} steps; at most {_MAX_STEPS:,} are possible")
    sign = 1 if last >= first else -1
    plateaus = [first + sign * by * number for number in range(count)]
    return _checked([Stage(length_s, rate, rate) for rate in plateaus], text)


def parse_rate(text: str) -> float:
    """Return the operations per second that a text such as ``2000`` or ``0.5`` means. Raises ValueError."""
    try:
        rate = parse_number(text)
    except ValueError:
        rate = -1.0
    if rate < 0:
        raise ValueError(f"{text.strip()!r} is not a rate; write operations per second, such as 2000")
    return rate


def _checked(stages: list[Stage], text: str) -> Schedule:
    schedule = Schedule(stages)
    if not schedule.operations:
        raise ValueError(f"{text!r} is a schedule of no operations")
    return schedule


def evenly(worker: int, workers: int) -> Iterator[float]:
    """Yield the positions of one worker's operations, which alternate with the others'.

    >>> list(itertools.islice(evenly(1, 3), 4))
    [1, 4, 7, 10]
    """
    return itertools.count(worker, workers)


def poisson(worker: int, workers: int, seed: int) -> Iterator[float]:
    """Yield random positions, so that the operations of all workers together are a Poisson process.

    A Poisson process of rate 1 mapped by `Schedule.due_s` is one of the schedule's rate, whatever its shape (the
    inversion method: Çinlar, "Introduction to Stochastic Processes", 1975, chapter 4); workers are independent, and
    each has its share.
    """
    rng = random.Random(f"arrivals/{seed}/{worker}")
    return itertools.accumulate(rng.expovariate(1 / workers) for _ in itertools.count())


def arrivals(schedule: Schedule, positions: Iterator[float]) -> Iterator[float]:
    """Yield the due times of the operations at these positions, in seconds, until the schedule ends."""
    due_s = schedule.due_s
    for position in positions:
        due = due_s(position)
        # The integral's own rounding must not add an operation at the very end.
        if due is None or (isinstance(position, int) and position >= schedule.operations):
            return
        yield due


def timetable(
    warmup: Iterator[float], measured: Iterator[float], start_ns: int, warmup_s: float, quota: int | None
) -> Iterator[tuple[int, int]]:
    """Yield each operation's number, -1 in the warm-up, and when it is due in nanoseconds.

    Takes due times in seconds, of the warm-up from ``start_ns`` on and of what is measured from ``warmup_s`` later on,
    and how many of the latter there are at the most.

    >>> list(timetable(iter([0.0]), iter([0.0, 0.5, 1.0]), 7, 2.0, 2))
    [(-1, 7), (0, 2000000007), (1, 2500000007)]
    """
    for due_s in warmup:
        yield -1, start_ns + round(due_s * 1e9)
    for number, due_s in enumerate(measured):
        if number == quota:
            return
        yield number, start_ns + round((warmup_s + due_s) * 1e9)
