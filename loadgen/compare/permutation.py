"""The judgement of figures of several runs of each side: which differ, by how much, and what to run where it is open.

A run gives each figure one value, and the runs are what there is chance in: two runs of the same differ by far more
than the operations within them let expect. So the test is one of runs. Were BASE and NEW the same, each arrangement of
the runs into two sides would be as likely as the one that was made. Of each arrangement the statistic is the largest
difference of any figure, each measured by its spread (the t of Student), and ``p`` is the share of arrangements
that come to at least what a figure has in fact. So the probability of any false finding among all figures is
at most ALPHA, whatever the distribution of the figures is and however they hang together: P. H. Westfall and
S. S. Young, "Resampling-Based Multiple Testing", Wiley 1993, chapter 2. `scipy.stats.permutation_test` goes through the
arrangements: all of them, or so many at random where there are more.

The interval is Student's, of the difference of logarithms, for all figures together. Its level is that of one figure
out of as many independent ones as would have such large statistics (see `_independent`). A finding needs both, so the
interval takes away findings and adds none.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loadgen.compare.verdict import MOST_MORE, Figure, More, Word, is_slower

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHA = 0.005
"""The probability of any false ``slower`` or ``faster`` among all figures of a comparison."""
POWER = 0.9
"""The probability with which the runs that are said to be missing find the difference that was seen."""
TOO_SHORT = "so short a run is not sure of it by itself; make the runs longer"
GROSS = 2.0
"""A ratio that too few runs may show: see `gross`."""
MOST_ARRANGEMENTS = 9_999
"""More are not gone through one by one; then so many are drawn."""
GROSS_FIELDS = ("p50_ms", "throughput_ops_s")
# A figure is not known more exactly than its bucket, whose width is 0.4 % in result.json.
_LEAST_DEVIATION = 0.001
_FEW_ARRANGEMENTS = 20
# An interval of more than a thousand times says nothing; of three runs it can be beyond any number.
_WIDEST = math.log(1000)


@dataclasses.dataclass(frozen=True, slots=True)
class Values:
    """What is known of one figure.

    Attributes:
        base, new: its value in each run, above 0.
        own: the standard deviation of its logarithm within a run, as the runs themselves tell; 0 where they do not.
        apart: whether NEW is beyond GROSS times BASE, and that by what each run knows of itself.
    """

    base: tuple[float, ...]
    new: tuple[float, ...]
    own: float = 0.0
    apart: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts.

    Attributes:
        figures: each with its verdict.
        arrangements: how many the test went through; None where there were too few to find anything.
    """

    figures: tuple[Figure, ...]
    arrangements: int | None


def judge(figures: Mapping[str, Values], within: float) -> Judged:
    """Return the verdict on each figure. All have the same runs.

    Takes the share by which figures may differ and are the same.
    """
    if not figures:
        return Judged((), None)
    runs = _Runs(figures)
    found = []
    for index, (name, values) in enumerate(figures.items()):
        low, high = runs.interval(index)
        p = float(runs.p[index]) if runs.p is not None else None
        word = _word(name, values, (low, high), p, within)
        more = runs.missing(index, within) if word is Word.CANNOT_TELL else None
        likely = runs.likely(name, index, within) if more else None
        reason = TOO_SHORT if word is Word.CANNOT_TELL and more is None and runs.is_unsure(index) else None
        noise = float(runs.spread[index]) if runs.freedom else None
        found.append(Figure(name, values.base, values.new, low, high, p, noise, word, more, reason, likely))
    return Judged(tuple(found), runs.arrangements if runs.p is not None else None)


def _word(
    name: str, values: Values, interval: tuple[float | None, float | None], p: float | None, within: float
) -> Word:
    low, high = interval
    if low is not None and high is not None:
        if 1 - within <= low and high <= 1 + within:
            return Word.SAME
        if p is not None and p <= ALPHA and not low <= 1 <= high:
            return Word.SLOWER if is_slower(name, low) else Word.FASTER
    if p is None and values.apart and name.endswith(GROSS_FIELDS):
        return Word.SLOWER if is_slower(name, values.new[0] / values.base[0]) else Word.FASTER
    return Word.CANNOT_TELL


def gross(base: Sequence[tuple[float, float]], new: Sequence[tuple[float, float]]) -> bool:
    """Tell whether a figure of each run of NEW is beyond GROSS times that of each of BASE, or below 1 / GROSS of it.

    Takes between which values each run's figure is.

    >>> gross([(1.0, 1.1)], [(2.3, 2.5)]), gross([(1.0, 1.2)], [(2.3, 2.5)]), gross([(4.0, 5.0)], [(1.0, 1.9)])
    (True, False, True)
    """
    if not base or not new:
        return False
    above = min(low for low, _ in new) >= GROSS * max(high for _, high in base)
    below = min(low for low, _ in base) >= GROSS * max(high for _, high in new)
    return above or below


def least_p(base: int, new: int) -> float:
    """Return the smallest p that so many runs of each side can have.

    Sides of one size can be exchanged, so each arrangement is there twice.

    >>> least_p(1, 1), round(least_p(5, 5), 4), round(least_p(4, 6), 4), round(least_p(6, 6), 4)
    (1.0, 0.0079, 0.0048, 0.0022)
    """
    return (2 if base == new else 1) / math.comb(base + new, base)


class _Runs:
    """All runs of both sides as a table of the figures' logarithms.

    Attributes:
        freedom: how many runs there are beyond the one of each side that the means take.
        spread: the standard deviation between runs, by figure; where there is none to tell, that within runs.
        p: of each figure; None where there are too few runs for any to be small.
        arrangements: how many were gone through.
    """

    def __init__(self, figures: Mapping[str, Values]) -> None:
        first = next(iter(figures.values()))
        self._base, self._new = len(first.base), len(first.new)
        self._table = np.log(np.array([(*each.base, *each.new) for each in figures.values()]).T)
        self._own = np.array([max(each.own, _LEAST_DEVIATION) for each in figures.values()])
        self.freedom = self._base + self._new - 2
        halves = self._table[: self._base], self._table[self._base :]
        self._difference = halves[1].mean(axis=0) - halves[0].mean(axis=0)
        self.spread = self._spread(*halves) if self.freedom else self._own
        self.p: NDArray[np.float64] | None = None
        self.arrangements = 0
        null = self._arranged() if self.freedom else None
        if null is not None and least_p(self._base, self._new) <= ALPHA:
            observed = abs(self._difference) / (self.spread * self._unit(self._base, self._new))
            beyond = (null[:, None] >= observed * (1 - 1e-9)).sum(axis=0)
            drawn = 0 if self._are_all(null) else 1  # of those drawn at random, the one that was made is one more
            self.p = (beyond + drawn) / (len(null) + drawn)
        # The probability that the interval of one figure misses its ratio.
        self._level = 1 - (1 - ALPHA) ** (1 / self._independent(null))

    def _spread(self, base: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the pooled standard deviation of each figure in two sides, whose runs are the last axis but one.

        It is never less than the runs' own: what a run does not know exactly two runs do not know better by chance.
        """
        squares = sum(
            ((side - side.mean(axis=-2, keepdims=True)) ** 2).sum(axis=-2) for side in (base, new)
        )  # fmt: skip
        return np.asarray(np.maximum(np.sqrt(squares / self.freedom), self._own))

    @staticmethod
    def _unit(base: int, new: int) -> float:
        return math.sqrt(1 / base + 1 / new)

    def _arranged(self) -> NDArray[np.float64]:
        """Return the largest statistic of any figure in each arrangement."""
        from scipy import stats

        unit = self._unit(self._base, self._new)

        def largest(base: NDArray[np.intp], new: NDArray[np.intp], axis: int = -1) -> NDArray[np.float64]:
            halves = [self._table[np.moveaxis(np.asarray(side), axis, -1)] for side in (base, new)]
            difference = abs(halves[1].mean(axis=-2) - halves[0].mean(axis=-2))
            return np.asarray((difference / (self._spread(*halves) * unit)).max(axis=-1))

        runs = self._base + self._new
        if 1 in (self._base, self._new):  # scipy takes no side of one; each run is it once
            rest = np.array([np.delete(np.arange(runs), one) for one in range(runs)])
            single = np.arange(runs)[:, None]
            self.arrangements = runs
            return largest(single, rest) if self._base == 1 else largest(rest, single)
        result = stats.permutation_test(
            (np.arange(self._base), np.arange(self._base, runs)), largest, vectorized=True,
            permutation_type="independent", alternative="greater", n_resamples=MOST_ARRANGEMENTS,
            rng=np.random.default_rng(self._base * 1000 + self._new),
        )  # fmt: skip
        self.arrangements = len(result.null_distribution)
        return np.asarray(result.null_distribution)

    def _are_all(self, null: NDArray[np.float64]) -> bool:
        return len(null) == math.comb(self._base + self._new, self._base)

    def _independent(self, null: NDArray[np.float64] | None) -> float:
        """Return of how many independent figures the largest statistic would be as large as in these arrangements.

        Figures of one run hang together, so that is fewer than there are. Of few arrangements it says nothing; then
        it is as many.
        """
        from scipy import special

        figures = self._table.shape[1]
        if null is None or len(null) < _FEW_ARRANGEMENTS:
            return float(figures)
        share = 0.9 if len(null) >= 100 else 0.5
        one = 2 * float(special.stdtr(self.freedom, -float(np.quantile(null, share))))
        return min(float(figures), max(1.0, math.log(share) / math.log1p(-min(one, 0.999))))

    @functools.cached_property
    def _quantile(self) -> float:
        """Student's, for the interval of one figure."""
        from scipy import special

        return float(special.stdtrit(self.freedom, 1 - self._level / 2))

    def interval(self, index: int) -> tuple[float | None, float | None]:
        """Return the ends of the interval of a figure's ratio; None where so few runs leave about any possible."""
        if not self.freedom:
            return None, None
        half = self._quantile * self.spread[index] * self._unit(self._base, self._new)
        if half > _WIDEST:
            return None, None
        return math.exp(self._difference[index] - half), math.exp(self._difference[index] + half)

    def missing(self, index: int, within: float) -> More | None:
        """Return the runs after which a figure is told with the probability POWER; None where that are too many.

        The difference is taken to be the one that was seen, and the spread to be the one that is as likely too large as
        too small, given what was seen. The sides are made equal, so far as runs that there are allow.
        """
        gap, room = self._gap_and_room(index, within)
        enough = max(gap, room) / (float(self.spread[index]) * self._widened)
        return next((more for more, needed in self._plans if needed <= enough), None)

    def is_unsure(self, index: int) -> bool:
        """Tell whether the spread of a figure is that within runs, so that longer ones would help more than others."""
        return bool(self.spread[index] <= self._own[index])

    def likely(self, name: str, index: int, within: float) -> Word:
        """Return the verdict to which the runs that are missing lead, where the difference is the one that was seen."""
        gap, room = self._gap_and_room(index, within)
        if room >= gap:
            return Word.SAME
        return Word.SLOWER if is_slower(name, math.exp(self._difference[index])) else Word.FASTER

    def _gap_and_room(self, index: int, within: float) -> tuple[float, float]:
        """Return how far a figure's logarithms are apart, and how far from where they are no longer the same."""
        gap = abs(float(self._difference[index]))
        return gap, math.log1p(within) - gap

    @functools.cached_property
    def _widened(self) -> float:
        """By how much the spread is likely larger than the one that was seen: the median of the latter is below it."""
        from scipy import special

        return math.sqrt(self.freedom / float(special.chdtri(self.freedom, 0.5))) if self.freedom else 1.0

    @functools.cached_property
    def _plans(self) -> list[tuple[More, float]]:
        """What to run, the least first, and which difference it finds with the probability POWER, in spreads."""
        from scipy import special

        sizes = [
            (max(self._base, wanted), max(self._new, wanted))
            for wanted in range(min(self._base, self._new) + 1, max(self._base, self._new) + MOST_MORE + 1)
        ]
        sizes = [
            (base, new) for base, new in sizes
            if max(base - self._base, new - self._new) <= MOST_MORE and least_p(base, new) <= ALPHA
        ]  # fmt: skip
        freedoms = np.array([base + new - 2 for base, new in sizes])
        factors = special.stdtrit(freedoms, 1 - self._level / 2) + special.stdtrit(freedoms, POWER)
        return [
            (More(base - self._base, new - self._new), float(factor) * self._unit(base, new))
            for (base, new), factor in zip(sizes, factors, strict=True)
        ]
