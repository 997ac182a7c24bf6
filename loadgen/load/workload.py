"""The seeded choice of operation, key and value, and when operations are due. Pure: no I/O, no clock."""

from __future__ import annotations

import itertools
import random
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache

from loadgen.load import pacing
from loadgen.load.settings import UNIQUE_VALUE_BYTES, Settings

# Above so many keys, their table would cost a worker more memory than formatting costs it time.
_TABLE_KEYS = 100_000
_FILLER_BYTES = 1 << 16


class Keys:
    """All keys of a run: the run's prefix, then the key's number in decimal, padded to the key size."""

    def __init__(self, settings: Settings) -> None:
        if not settings.prefix:
            raise ValueError("the keys have no prefix")
        self._format = settings.prefix.replace(b"%", b"%%") + b"%%0%dd" % settings.digits
        self.count = settings.key_space
        # Returns the key of a number, counted from 0.
        self.lookup: Callable[[int], bytes] = (
            [self._format % n for n in range(self.count)].__getitem__
            if self.count <= _TABLE_KEYS
            else self._format.__mod__
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> bytes:
        """Return key ``number``, counted from 0."""
        return self.lookup(number)

    def __iter__(self) -> Iterator[bytes]:
        return (self[number] for number in range(self.count))


class Values:
    """The values that one process writes, each of them different from 16 bytes up.

    A value is the writer's number and a count, 8 hexadecimal digits each, then filler that is the same for
    every value of the seed: so any value can be checked, byte by byte, against what its first 16 bytes say.
    """

    def __init__(self, seed: int, process: int, size: int) -> None:
        self._process = b"%08x" % process
        self._size = size
        self._filler = filler(seed, size - UNIQUE_VALUE_BYTES)
        self._numbers = itertools.count()

    def next(self) -> bytes:
        """Return the next value, of exactly the size asked for."""
        return self[next(self._numbers)]

    def __getitem__(self, count: int) -> bytes:
        """Return the value of a count, from 0, of exactly the size asked for."""
        value = b"%b%08x%b" % (self._process, count, self._filler)
        # Too small for the whole stamp: keep the digits that change most.
        return value if self._size >= UNIQUE_VALUE_BYTES else value[UNIQUE_VALUE_BYTES - self._size :]


class Workload:
    """What one process does next.

    Two workloads of equal settings and process give the same sequence, on any machine.
    """

    def __init__(self, settings: Settings, process: int, keys: Keys | None = None) -> None:
        self._rng = random.Random(f"{settings.seed}/{process}")
        self._keys = keys if keys is not None else Keys(settings)
        self._types = tuple(settings.mix)
        total = sum(settings.mix.values())
        self._bounds = [weight / total for weight in itertools.accumulate(settings.mix.values())][:-1]
        self._values = Values(settings.seed, process, settings.value_size)
        # Bound once: these are looked up for every operation of a run.
        self._random, self._count, self._key = self._rng.random, len(self._keys), self._keys.lookup
        self._only = self._types[0] if len(self._types) == 1 else None

    def next(self, forced: str | None = None) -> tuple[str, bytes, bytes | None]:
        """Return ``(f, key, value)`` of the next operation; the value is None for a get.

        Takes a type to use in place of the drawn one, where a run owes every type an operation.
        """
        f = self._only or self._types[bisect_right(self._bounds, self._random())]
        key = self._key(int(self._random() * self._count))
        f = forced or f
        return f, key, None if f == "get" else self._values.next()

    def block(self, count: int) -> tuple[bytes, bytes]:
        """Return the next operations, as `next` would draw them: their types and their keys.

        A type is a byte, its place in the mix; a key its number, 4 bytes in the machine's order. Whoever draws so
        counts the values itself, and gets them from `value`.
        """
        random, bounds, keys = self._random, self._bounds, self._count
        if self._only:
            return bytes(count), array("I", [int(random() * keys) for _ in range(count)]).tobytes()
        drawn = [(bisect_right(bounds, random()), int(random() * keys)) for _ in range(count)]
        return bytes(f for f, _ in drawn), array("I", [key for _, key in drawn]).tobytes()

    def value(self, count: int) -> bytes:
        """Return this process's value of a count, from 0."""
        return self._values[count]


@lru_cache(maxsize=4)
def filler(seed: int, size: int) -> bytes:
    """Return ``size`` pseudo-random printable bytes for a seed; none where size is not positive."""
    if size <= 0:
        return b""
    rng = random.Random(f"filler/{seed}")
    block = bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz0123456789", k=min(size, _FILLER_BYTES)))
    return (block * (size // len(block) + 1))[:size]


def share(operations: int | None, workers: int, index: int) -> tuple[int | None, int]:
    """Return worker ``index``'s share of a run's operations and how many the workers before it have.

    >>> [share(10, 4, i) for i in range(4)]
    [(3, 0), (3, 3), (2, 6), (2, 8)]
    """
    if operations is None:
        return None, 0
    each, rest = divmod(operations, workers)
    return each + (index < rest), each * index + min(index, rest)


def owed(settings: Settings, offset: int, number: int) -> str | None:
    """Return the type that a worker's operation ``number`` (from 0) must have, None for the drawn one.

    The run's first operations, counted over all workers (``offset`` before this worker), are one of each
    type: so a mixed run executes every type, however few operations it has.
    """
    types = tuple(settings.mix)
    place = offset + number
    return types[place] if place < len(types) else None


def plateau(settings: Settings, rank: int, workers: int, rate: float, start_ns: int, number: int) -> Iterator[int]:
    """Yield when one worker's operations are due from a moment on at another rate than the settings'.

    Takes the worker's place, from 0, of how many; operations per second over all workers; the moment in nanoseconds on
    the monotonic clock; and how many such changes there were before.
    """
    positions = _positions(settings, rank, workers, number + 1)
    return (start_ns + round(due_s * 1e9) for due_s in pacing.arrivals(pacing.constant(rate), positions))


def _positions(settings: Settings, rank: int, workers: int, number: int = 0) -> Iterator[float]:
    """Yield a worker's positions in a schedule: see `pacing`. Takes how many schedules there were before."""
    if settings.arrivals == "poisson":
        return pacing.poisson(rank + number * workers, workers, settings.seed)
    return pacing.evenly(rank, workers)


def timetable(settings: Settings, rank: int, workers: int, start_ns: int) -> Iterator[tuple[int, int]]:
    """Return one worker's part of an open loop: see `pacing.timetable`.

    Takes the worker's place, from 0, of how many, and when the schedule begins, in nanoseconds on the monotonic clock.
    """
    schedule = settings.schedule()
    assert schedule is not None, "a closed loop has no timetable"
    warmup = pacing.constant(schedule.warmup_rate, settings.warmup_s)
    return pacing.timetable(
        pacing.arrivals(warmup, pacing.evenly(rank, workers)) if settings.warmup_s else iter(()),
        pacing.arrivals(schedule, _positions(settings, rank, workers)),
        start_ns,
        settings.warmup_s,
        share(settings.operations, workers, rank)[0],
    )
