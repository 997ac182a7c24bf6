"""Comparisons of simulated runs, which differ among themselves as recorded runs of one thing do.

A simulated run is one of the recorded ones with noise: the differences between runs are smoothed (a kernel of the
runs' own covariance, their variance kept), and what a run does not know of itself by its block bootstrap is added anew.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loadgen.compare import permutation
from loadgen.compare.permutation import Values
from loadgen.compare.verdict import Word, overall

DATA = Path(__file__).parent.parent / "data" / "compare" / "runs.json"
WITHIN = 0.05
SHIFT = 1.05
SHIFTED = "total.p99_ms"
PILOT = 6
"""Runs of each side with which a comparison begins: the fewest that can find anything."""


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What real runs of one thing measured.

    Attributes:
        names: of the figures.
        logarithms: of their values, a row for each run.
        own: the standard deviations within the runs, alike.
    """

    names: tuple[str, ...]
    logarithms: NDArray[np.float64]
    own: NDArray[np.float64]

    @classmethod
    def read(cls) -> Recorded:
        """Return the runs that were recorded."""
        document = json.loads(DATA.read_text(encoding="utf-8"))
        values, own = (np.array([run[part] for run in document["runs"]]) for part in ("values", "own"))
        return cls(tuple(document["figures"]), np.log(values), own)

    def drawn(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Return the logarithms of the figures of so many simulated runs."""
        runs, figures = self.logarithms.shape
        centred = self.logarithms - self.logarithms.mean(axis=0)
        width = 1.06 * runs**-0.2
        kernel = random.normal(size=(count, runs)) @ centred / math.sqrt(runs - 1)
        picked = random.integers(runs, size=count)
        smooth = (centred[picked] + width * kernel) / math.sqrt(1 + width**2)
        return self.logarithms.mean(axis=0) + smooth + self.own[picked] * random.normal(size=(count, figures))

    @property
    def deviation(self) -> float:
        """By how much SHIFTED differs between the runs: the standard deviation of its logarithm."""
        return float(self.logarithms[:, self.names.index(SHIFTED)].std(ddof=1))

    def quieter(self, deviation: float = 0.03) -> Recorded:
        """Return runs that differ no more than on a machine with nothing else to do. Takes the most of `deviation`."""
        times = min(1.0, deviation / self.deviation)
        middle = self.logarithms.mean(axis=0)
        return Recorded(self.names, middle + (self.logarithms - middle) * times, self.own * times)

    def judged(self, base: NDArray[np.float64], new: NDArray[np.float64]) -> permutation.Judged:
        """Return what is judged of simulated runs."""
        own = np.sqrt((self.own**2).mean(axis=0))
        return permutation.judge(
            {name: Values(tuple(np.exp(base[:, i])), tuple(np.exp(new[:, i])), float(own[i]))
             for i, name in enumerate(self.names)},
            WITHIN,
        )  # fmt: skip


def false_findings(data: Recorded, random: np.random.Generator, sizes: tuple[int, int], comparisons: int) -> int:
    """Return how many of so many comparisons of runs of the same find a difference in any figure."""
    found = 0
    for _ in range(comparisons):
        base, new = data.drawn(random, sizes[0]), data.drawn(random, sizes[1])
        words = {figure.word for figure in data.judged(base, new).figures}
        found += not words.isdisjoint({Word.SLOWER, Word.FASTER})
    return found


def gross_pairs(data: Recorded) -> int:
    """Return how many of all pairs of recorded runs would be called grossly different."""
    low, high = np.exp(data.logarithms - 2.6 * data.own), np.exp(data.logarithms + 2.6 * data.own)
    telling = [i for i, name in enumerate(data.names) if name.endswith(permutation.GROSS_FIELDS)]
    return sum(
        any(permutation.gross([(low[a, i], high[a, i])], [(low[b, i], high[b, i])]) for i in telling)
        for a, b in itertools.combinations(range(len(low)), 2)
    )


def pilots(data: Recorded, random: np.random.Generator, count: int) -> list[tuple[int | None, bool]]:
    """Compare runs with a real difference; return how many runs of each side it took in all, and whether it was found.

    First there are few runs; where they do not tell, as many more are made as is said. None where that are too many.
    """
    found = []
    index = data.names.index(SHIFTED)
    one = Recorded((SHIFTED,), data.logarithms[:, [index]], data.own[:, [index]])
    for _ in range(count):
        base, new = one.drawn(random, PILOT), one.drawn(random, PILOT) + math.log(SHIFT)
        verdict = overall(one.judged(base, new).figures)
        size: int | None = PILOT
        if verdict.word is Word.CANNOT_TELL:
            size = None if verdict.more is None else PILOT + verdict.more.most
        if size is not None and size > PILOT:
            base = np.concatenate([base, one.drawn(random, size - PILOT)])
            new = np.concatenate([new, one.drawn(random, size - PILOT) + math.log(SHIFT)])
            verdict = overall(one.judged(base, new).figures)
        found.append((size, verdict.word is Word.SLOWER))
    return found


def runs_needed(data: Recorded, random: np.random.Generator, tries: int) -> int:
    """Return with how many runs of each side the real difference is found as often as POWER says, by trying."""
    index = data.names.index(SHIFTED)
    one = Recorded((SHIFTED,), data.logarithms[:, [index]], data.own[:, [index]])

    def share(size: int) -> float:
        words = [
            overall(one.judged(one.drawn(random, size), one.drawn(random, size) + math.log(SHIFT)).figures).word
            for _ in range(tries)
        ]
        return words.count(Word.SLOWER) / tries

    low, high = PILOT - 1, 12
    while share(high) < permutation.POWER:
        low, high = high, high * 2
    while high - low > max(1, high // 10):
        middle = (low + high) // 2
        low, high = (low, middle) if share(middle) >= permutation.POWER else (middle, high)
    return high
