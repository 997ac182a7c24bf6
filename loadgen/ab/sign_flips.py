"""The verdict on pairs of turns, by sign flips of their differences over all figures together. Pure.

In each pair a coin has said which side goes first, and where the clusters are raftload's own each pair has two new
ones. So where the sides are the same, NEW and BASE of a pair could as well have their names exchanged: the difference
of their logarithms has either sign with the same probability, however noisy, skewed or drifting the machine is. The
test counts in how many of the arrangements of signs the largest difference of any figure is as large as the one that
was measured: R. A. Fisher, "The Design of Experiments" (1935), section 21; B. Phipson and G. K. Smyth, "Permutation
P-values should never be zero", Statistical Applications in Genetics and Molecular Biology 9 (2010), where the
arrangements are drawn and not all counted. The largest of all figures, each divided by its own scale, is compared with
the largest of all: so the probability of a single false verdict in the whole family is bounded, however the figures
depend on each other (P. H. Westfall and S. S. Young, "Resampling-Based Multiple Testing", Wiley 1993, section 2.3:
single-step maxT).

The interval of a figure is what is left when every ratio is tried that the test rejects (E. L. Lehmann and J. P.
Romano, "Testing Statistical Hypotheses", 3rd edition, section 5.4), so it excludes 1 just where the test finds a
difference.

scipy's `permutation_test` gives the same probabilities and is what the tests hold this to; it gives no interval.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loadgen.compare.permutation import ALPHA, POWER
from loadgen.compare.verdict import Figure, More, Word, is_slower

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[np.float64]

FEWEST = 1 + math.ceil(math.log2(1 / ALPHA))
"""The least pairs of which anything can be told: of n pairs the smallest probability is 2 / 2^n."""
MOST_MORE_PAIRS = 1000
"""More pairs than these nobody is told to run."""
TEST = "sign flips of the pairs' differences, the largest of all figures"
# Of so many pairs all arrangements are counted; of more, as many are drawn.
_ALL_UP_TO = 14
_DRAWN = 1 << (_ALL_UP_TO - 1)
# What differs by this is a tie, of sums in another order.
_TIE = 1e-9
# The normal distribution's quantile of POWER.
_Z_POWER = statistics.NormalDist().inv_cdf(POWER)
_MOST_STEPS, _HALVINGS = 60, 24


class MorePairs(More):
    """How many pairs are missing until a verdict is likely."""

    __slots__ = ()

    def __str__(self) -> str:
        """In words: ``5 more pairs``."""
        return f"{self.most} more pair{'' if self.most == 1 else 's'}"


def judge(
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]], within: float, *, seed: int = 1
) -> list[Figure]:
    """Return each figure with the verdict on it.

    Takes the values of BASE and of NEW by the figures' names, all above 0 and of the same pairs in the same order; the
    share within which figures are the same; and the seed of what is drawn.
    """
    if not pairs:
        return []
    names = list(pairs)
    base, new = (np.log(np.array([pairs[name][side] for name in names], dtype=np.float64)) for side in (0, 1))
    flips = _Flips((new - base).T, seed)
    return [_judged(name, pairs[name], flips, at, within) for at, name in enumerate(names)]


def arrangements(pairs: int) -> int | None:
    """Return of how many arrangements of signs of so many pairs the probabilities come; None where they are too few.

    >>> arrangements(3), arrangements(10), arrangements(40)
    (None, 1024, 8192)
    """
    if pairs < FEWEST:
        return None
    return 1 << pairs if pairs <= _ALL_UP_TO else _DRAWN


class _Flips:
    """The differences of all figures under every arrangement of signs.

    Takes a row a pair, with the difference of the logarithms of each figure, and a seed.
    """

    def __init__(self, differences: Numbers, seed: int) -> None:
        self.differences = differences
        self.pairs = len(differences)
        signs = _signs(self.pairs, seed)
        self._signs_sum = signs.sum(axis=1)
        self._sums = signs @ differences
        self._sizes = _sizes(self._sums, (differences**2).sum(axis=0), self.pairs)
        self._largest = self._sizes.max(axis=1)

    def p(self, figure: int) -> float:
        """Return the probability of a difference as large as this figure's in any figure, where there is none."""
        return float(np.mean(self._largest >= self._sizes[0, figure] - _TIE))

    def interval(self, figure: int) -> tuple[float, float]:
        """Return the ends of the differences that the test does not reject, which may be infinite."""
        others = np.delete(self._sizes, figure, axis=1).max(axis=1, initial=0.0)
        return self._end(figure, others, -1), self._end(figure, others, 1)

    def _end(self, figure: int, others: Numbers, side: int) -> float:
        values = self.differences[:, figure]
        kept = middle = float(values.mean())
        step = max(float(values.std()), 1e-9)
        for _ in range(_MOST_STEPS):
            rejected = kept + side * step
            if self._is_rejected(figure, others, rejected):
                break
            kept, step = rejected, 2 * step
        else:
            return side * math.inf
        for _ in range(_HALVINGS):
            between = (kept + rejected) / 2
            if self._is_rejected(figure, others, between):
                rejected = between
            else:
                kept = between
        return rejected if kept != middle else middle

    def _is_rejected(self, figure: int, others: Numbers, shift: float) -> bool:
        shifted = self.differences[:, figure] - shift
        sums = self._sums[:, figure] - shift * self._signs_sum
        sizes = _sizes(sums, (shifted**2).sum(), self.pairs)
        return bool(np.mean(np.maximum(sizes, others) >= sizes[0] - _TIE) <= ALPHA)


def _signs(pairs: int, seed: int) -> Numbers:
    """Return arrangements of signs, a row each, of which the first is as measured.

    Those with all signs exchanged are left out where all are counted: the test looks at sizes.
    """
    if pairs <= _ALL_UP_TO:
        return np.array([(1, *rest) for rest in itertools.product((1, -1), repeat=pairs - 1)], dtype=np.float64)
    drawn = np.random.default_rng(seed).choice((-1.0, 1.0), size=(_DRAWN, pairs))
    drawn[0] = 1.0
    return drawn


def _sizes(sums: Numbers, squares: Numbers, pairs: int) -> Numbers:
    """Return how large sums of differences are, from 0 to 1; takes the sum of the squares of the differences.

    It grows with Student's t, of which it is t / sqrt(t^2 + pairs - 1), and needs no care where all differences are
    the same. Signs change no square.
    """
    scale = np.sqrt(pairs * squares)
    return np.abs(sums) / np.where(scale > 0, scale, 1.0)


def _judged(
    name: str, values: tuple[Sequence[float], Sequence[float]], flips: _Flips, at: int, within: float
) -> Figure:
    differences = flips.differences[:, at]
    noise = float(differences.std(ddof=1)) / math.sqrt(2) if flips.pairs > 1 else None
    base, new = tuple(values[0]), tuple(values[1])
    if flips.pairs < FEWEST:
        missing = FEWEST - flips.pairs
        return Figure(name, base, new, None, None, None, noise, Word.CANNOT_TELL, MorePairs(missing, missing))
    low, high = flips.interval(at)
    p = flips.p(at)
    word = _word(name, low, high, p, within)
    more, likely = None, None
    if word is Word.CANNOT_TELL:
        middle = float(differences.mean())
        room = max(abs(middle), math.log1p(within) - middle if middle > 0 else middle - math.log1p(-within))
        missing = _missing(room, float(differences.std(ddof=1)), low, high, flips.pairs)
        if missing <= MOST_MORE_PAIRS:
            more = MorePairs(missing, missing)
            differs = Word.SLOWER if is_slower(name, math.exp(middle)) else Word.FASTER
            likely = differs if room == abs(middle) else Word.SAME
    bounded = math.isfinite(low) and math.isfinite(high)
    return Figure(
        name, base, new, math.exp(low) if bounded else None, math.exp(high) if bounded else None, p, noise,
        word, more, likely=likely,
    )  # fmt: skip


def _word(name: str, low: float, high: float, p: float, within: float) -> Word:
    """Return the verdict from an interval of the logarithm of new / base, and the probability."""
    if math.log1p(-within) <= low and high <= math.log1p(within):
        return Word.SAME
    if p <= ALPHA and (low > 0 or high < 0):
        return Word.SLOWER if is_slower(name, 2.0 if low > 0 else 0.5) else Word.FASTER
    return Word.CANNOT_TELL


def _missing(room: float, spread: float, low: float, high: float, pairs: int) -> int:
    """Return with how many more pairs the interval likely is no wider to either side than some room.

    The interval of n pairs is as wide as the present one by the square root of n, and the mean of n pairs lies as far
    beside the true one as POWER says.
    """
    width = (high - low) / 2 if math.isfinite(high - low) else 4 * spread / math.sqrt(pairs)
    reach = width * math.sqrt(pairs) + _Z_POWER * spread
    return max(1, math.ceil(min((reach / room) ** 2, 1e9)) - pairs)
