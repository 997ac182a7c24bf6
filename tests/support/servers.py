"""Servers of a known capacity, as models: what a load at a rate comes to, block by block.

They are deterministic for a seed, and have no clock: what a search does in minutes takes milliseconds.
"""

from __future__ import annotations

import dataclasses
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence

from loadgen.capacity.search import Block, Goal, Search

BLOCK_S = 0.5
Model = Callable[[float], Block]


def run(search: Search, model: Model, most: int = 5000) -> float:
    """Let a search ask a model until it is done; return the seconds that its load would have taken."""
    spent_s = 0.0
    while search.rate is not None:
        search.add(model(search.rate))
        spent_s += BLOCK_S
        assert spent_s < most * BLOCK_S, "it does not end"
    return spent_s


@dataclasses.dataclass(frozen=True, slots=True)
class System:
    """A server whose capacity is known: its model, that capacity in operations per second, and what has to hold."""

    model: Model
    truth: float
    goals: tuple[Goal, ...]


class Fifo:
    """A server of so many slots and one queue, to which operations come at even intervals.

    Takes the slots, the mean service time in seconds, the goals, and what draws a service time, of which the mean is 1;
    by default it is constant. ``speed`` returns how fast the server is after so many seconds, 1 for as it should be.
    """

    def __init__(
        self, slots: int, service_s: float, goals: Sequence[Goal], *, draw: Callable[[], float] = lambda: 1.0,
        interval: Callable[[], float] = lambda: 1.0, speed: Callable[[float], float] = lambda _: 1.0,
    ) -> None:  # fmt: skip
        self._free = [0.0] * slots
        self._service_s, self._goals = service_s, goals
        self._draw, self._interval, self._speed = draw, interval, speed
        self._now = self._next = 0.0
        self._open: list[tuple[float, float]] = []

    def __call__(self, rate: float) -> Block:
        end = self._now + BLOCK_S
        due, free, step = 0, self._free, 1 / rate
        # The next operation was due at the rate before.
        at = min(self._next, self._now + step * self._interval())
        opened = self._open
        while at < end:
            slot = 0 if len(free) == 1 else min(range(len(free)), key=free.__getitem__)
            begins = max(at, free[slot])
            free[slot] = begins + self._service_s * self._draw() / self._speed(at)
            opened.append((free[slot], free[slot] - at))
            due += 1
            at += step * self._interval()
        self._next, self._now = at, end
        back = [latency for returns, latency in opened if returns <= end]
        self._open = [each for each in opened if each[0] > end]
        counts = tuple((len(back), _over(back, goal.bound_s)) for goal in self._goals)
        return Block(BLOCK_S, due, 0, len(back), len(self._open), counts)


def _over(latencies: Sequence[float], bound_s: float | None) -> int:
    return 0 if bound_s is None else sum(each > bound_s for each in latencies)


class Shares:
    """A server of which at each rate a known share of operations is bad, and which has no queue.

    Takes that share by the rate and the second; the seed; how strongly blocks differ (0: not, else the share of a block
    is drawn from a Beta distribution with this ratio of its variance to that of a single operation), and how much of a
    block's deviation the next one keeps.
    """

    def __init__(
        self, share: Callable[[float, float], float], seed: int, *, spread: float = 0.0, memory: float = 0.0
    ) -> None:
        self._share, self._rng = share, random.Random(seed)
        self._spread, self._memory = spread, memory
        self._now = 0.0
        self._drawn = self._rng.random()

    def __call__(self, rate: float) -> Block:
        self._now += BLOCK_S
        share = min(1.0, self._share(rate, self._now))
        if self._spread and 0 < share < 1:
            if self._rng.random() >= self._memory:
                self._drawn = self._rng.random()
            share = _beta_quantile(self._drawn, share, self._spread)
        count = round(rate * BLOCK_S)
        bad = _binomial(self._rng, count, share)
        return Block(BLOCK_S, count, 0, count, 3, ((count, bad),))


def _beta_quantile(at: float, mean: float, spread: float) -> float:
    """Return about the quantile of a share that is 0 most of the time, and else `spread`: a burst or none."""
    often = min(1.0, mean / spread)
    return spread if at < often else 0.0


def _binomial(rng: random.Random, count: int, share: float) -> int:
    """Draw how many of so many are bad."""
    if share <= 0:
        return 0
    mean = count * share
    if mean > 30:
        return max(0, min(count, round(rng.gauss(mean, math.sqrt(mean * (1 - share))))))
    # Knuth's, for the few that there are: Poisson.
    bound, bad, product = math.exp(-mean), 0, rng.random()
    while product > bound:
        bad += 1
        product *= rng.random()
    return min(bad, count)


def _fifo(seed: int) -> System:
    """Even arrivals at slots that take a known time: the p99 jumps at slots / time."""
    rng = random.Random(seed)
    slots, rate = rng.choice([1, 4, 16]), rng.uniform(150, 1500)
    goals = (Goal(0.01, slots / rate + 0.02),)
    return System(Fifo(slots, slots / rate, goals), rate, goals)


def _queue(seed: int, bound_s: float = 0.02) -> System:
    """M/M/1, of which the time in the system is exponential: P(T > t) = exp(-(mu - lambda) t)."""
    rng = random.Random(seed)
    rate, goals = rng.uniform(400, 1500), (Goal(0.01, bound_s),)

    def draw() -> float:
        return rng.expovariate(1)

    return System(Fifo(1, 1 / rate, goals, draw=draw, interval=draw), rate - math.log(100) / bound_s, goals)


def _knee(seed: int, power: float = 6, *, spread: float = 0.0, memory: float = 0.0, drift: float = 0.0) -> System:
    """A share of bad operations that grows with the rate; ``drift`` is what the capacity gains in 120 s."""
    rate, goals = random.Random(seed).uniform(500, 20_000), (Goal(0.01, 0.02),)

    def share(at: float, now_s: float) -> float:
        return 0.01 * (at / (rate * (1 + drift * min(1.0, now_s / 120)))) ** power

    return System(Shares(share, seed, spread=spread, memory=memory), rate * (1 + drift), goals)


def _neighbour(seed: int) -> System:
    """A server that has two fifths of its speed for a second, once in a minute or so."""
    rng = random.Random(seed)
    rate, starts = rng.uniform(300, 1500), [rng.expovariate(1 / 60)]
    while starts[-1] < 1000:
        starts.append(starts[-1] + 1 + rng.expovariate(1 / 60))
    goals = (Goal(0.01, 4 / rate + 0.02),)

    def speed(now_s: float) -> float:
        at = bisect_right(starts, now_s) - 1
        return 0.4 if at >= 0 and now_s < starts[at] + 1 else 1.0

    return System(Fifo(4, 4 / rate, goals, speed=speed), rate, goals)


SYSTEMS: dict[str, Callable[[int], System]] = {
    "fifo": _fifo,
    "queue": _queue,
    "long queue": lambda seed: _queue(seed, 0.1),
    "knee": _knee,
    "steep knee": lambda seed: _knee(seed, 12),
    "bursts": lambda seed: _knee(seed, spread=0.05, memory=0.3),
    "drift": lambda seed: _knee(seed, 12, drift=-0.05),
    "neighbour": _neighbour,
}
"""By name, what makes one from a seed."""
