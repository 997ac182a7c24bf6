"""The words in which a comparison answers: of each figure, and of all together."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from cluster.base.units import parse_number

if TYPE_CHECKING:
    from cluster.schema import compare_documents

MOST_MORE = 100
"""More runs than these nobody is told to make."""
TOO_NOISY = "the runs differ too much among themselves"


class Word(enum.StrEnum):
    """The verdict on NEW, of one figure or of all. CANNOT_TELL: the runs show neither a difference nor that there is
    none."""

    SLOWER = "slower"
    FASTER = "faster"
    SAME = "same"
    CANNOT_TELL = "cannot tell"

    @property
    def exit_code(self) -> int:
        """Of a command that comes to it: 0 same or faster, 1 slower, 3 cannot tell."""
        return {Word.SLOWER: 1, Word.CANNOT_TELL: 3}.get(self, 0)

    @property
    def style(self) -> str:
        """How a terminal shows it, a key of ``cluster.base.console.STYLES``."""
        return {Word.SLOWER: "red", Word.CANNOT_TELL: "yellow"}.get(self, "green")

    @property
    def look(self) -> str:
        """How a page shows it, a CSS class of ``viz/assets/report.css``."""
        return {Word.SLOWER: "fail", Word.CANNOT_TELL: "unknown"}.get(self, "pass")


@dataclasses.dataclass(frozen=True, slots=True)
class More:
    """How many runs of BASE and of NEW are missing until a verdict is likely; of pairs both are the same."""

    base: int
    new: int

    @property
    def most(self) -> int:
        """The larger of both."""
        return max(self.base, self.new)

    def __str__(self) -> str:
        """In words: ``5 more runs of each``, ``2 more runs of NEW``."""
        if self.base == self.new:
            return f"{_runs(self.base)} of each"
        if not self.base or not self.new:
            return f"{_runs(self.most)} of {'BASE' if self.base else 'NEW'}"
        return f"{_runs(self.base)} of BASE and {self.new} of NEW"


def _runs(count: int) -> str:
    return f"{count} more run{'' if count == 1 else 's'}"


def percent(share: float) -> str:
    """Return a share as people write it.

    >>> percent(0.05), percent(0.125)
    ('5 %', '12.5 %')
    """
    return f"{100 * share:.3g} %"


def parse_share(text: str) -> float:
    """Return a share, such as ``5%`` or ``0.05``, from above 0 to below 1. Raises ValueError.

    >>> parse_share("5%"), parse_share("0.05")
    (0.05, 0.05)
    """
    stripped = text.strip()
    number = parse_number(stripped.removesuffix("%").strip()) / (100 if stripped.endswith("%") else 1)
    if not 0 < number < 1:
        raise ValueError(f"{text!r} is not a share above 0 and below 1, such as 5% or 0.05")
    return number


def change(ratio: float) -> str:
    """Return a ratio as the change that it is; of a large one how many times.

    >>> change(1.052), change(0.9), change(1.0), change(2.5), change(0.25)
    ('+5.2 %', '-10.0 %', '+0.0 %', 'x 2.50', 'x 0.25')
    """
    return f"{100 * (ratio - 1):+.1f} %" if 0.5 <= ratio <= 2 else f"x {ratio:.2f}"


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One figure of both sides, and the verdict on it.

    Attributes:
        name: as thresholds name it, ``put.p99_ms``.
        base, new: the values of the runs of each side, in milliseconds or operations per second, all above 0.
        low, high: the ends of the interval of new / base; None where there are too few runs.
        p: the probability of such a difference in any figure where there is none; None where there are too few runs.
        noise: the standard deviation of the logarithm between runs of the same; None where it is not known.
        word: the verdict.
        more: the runs that are missing, of CANNOT_TELL alone; None where they would be more than MOST_MORE.
        reason: why it cannot be told, beside that there are too few runs.
        likely: the verdict to which ``more`` leads, where the difference is the one that was seen.
    """

    name: str
    base: tuple[float, ...]
    new: tuple[float, ...]
    low: float | None
    high: float | None
    p: float | None
    noise: float | None
    word: Word
    more: More | None = None
    reason: str | None = None
    likely: Word | None = None

    @property
    def unit(self) -> Literal["ms", "1/s"]:
        """Of its values."""
        return "1/s" if is_rate(self.name) else "ms"

    @property
    def ratio(self) -> float:
        """new / base, of the geometric means."""
        return mean(self.new) / mean(self.base)

    def words(self, within: float) -> str:
        """Return the verdict as people read it. Takes the share by which figures may differ and are the same."""
        return words(self.word, within, self.more, self.reason)

    def row(self, within: float) -> compare_documents.FigureRow:
        """Return it as the document has it. Takes the share by which figures may differ and are the same."""
        return {
            "name": self.name,
            "unit": self.unit,
            "base": _rounded(mean(self.base)),
            "new": _rounded(mean(self.new)),
            "base_values": [_rounded(value) for value in self.base],
            "new_values": [_rounded(value) for value in self.new],
            "ratio": _rounded(self.ratio),
            "interval": None if self.low is None or self.high is None else [_rounded(self.low), _rounded(self.high)],
            "p": None if self.p is None else _rounded(self.p),
            "noise": None if self.noise is None else _rounded(self.noise),
            "verdict": self.word.value,
            "words": self.words(within),
            "more": as_document(self.more),
            "reason": self.reason,
        }


def is_rate(name: str) -> bool:
    """Tell whether a figure is a throughput, of which more is better; else it is a latency in milliseconds."""
    return name.endswith("throughput_ops_s")


def is_slower(name: str, ratio: float) -> bool:
    """Tell whether a ratio new / base of a figure means that NEW is slower."""
    return ratio < 1 if is_rate(name) else ratio > 1


def mean(values: Sequence[float]) -> float:
    """Return the geometric mean of values above 0.

    >>> round(mean([1.0, 100.0]), 9)
    10.0
    """
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def words(word: Word, within: float, more: More | None = None, reason: str | None = None) -> str:
    """Return a verdict as people read it.

    Takes the share within which figures are the same, and of CANNOT_TELL the runs that are missing, or why.

    >>> words(Word.SAME, 0.05), words(Word.CANNOT_TELL, 0.05, More(5, 5)), words(Word.CANNOT_TELL, 0.05)
    ('same within 5 %', 'cannot tell: 5 more runs of each', 'cannot tell: the runs differ too much among themselves')
    """
    if word is Word.SAME:
        return f"{word} within {percent(within)}"
    if word is Word.CANNOT_TELL:
        return f"{word}: {reason or (more and str(more)) or TOO_NOISY}"
    return word.value


def as_document(more: More | None) -> compare_documents.MoreRuns | None:
    """Return what is missing as the document has it."""
    return None if more is None else {"base": more.base, "new": more.new}


@dataclasses.dataclass(frozen=True, slots=True)
class Overall:
    """The verdict on all figures.

    Attributes:
        word: the verdict.
        more: the runs that are missing, of CANNOT_TELL alone; None where they would be too many, or would not help.
        reasons: why, a line each.
    """

    word: Word
    more: More | None
    reasons: tuple[str, ...]

    def words(self, within: float) -> str:
        """Return it as people read it. Takes the share by which figures may differ and are the same."""
        doubted = self.word is Word.CANNOT_TELL and self.more is None and self.reasons
        return words(self.word, within, self.more, self.reasons[0] if doubted else None)


def overall(figures: Sequence[Figure], doubts: Sequence[str] = ()) -> Overall:
    """Return the verdict on all figures.

    SLOWER where one of them is. CANNOT_TELL where one of the others cannot be told: unknown is never pass. FASTER where
    some are and the others are the same. What makes the runs useless as evidence, ``doubts``, comes before all.
    """
    if doubts or not figures:
        return Overall(Word.CANNOT_TELL, None, tuple(doubts) or ("both sides have no figure in common",))
    found = {word: [figure for figure in figures if figure.word is word] for word in Word}
    for word in (Word.SLOWER, Word.CANNOT_TELL, Word.FASTER):
        if not found[word]:
            continue
        if word is not Word.CANNOT_TELL:
            return Overall(word, None, tuple(_in_short(figure) for figure in found[word]))
        more = _missing(found[word])
        noisy = [figure.name for figure in found[word] if figure.more is None]
        reasons = [f"{len(found[word])} of {len(figures)} figures cannot be told"] if more else []
        reasons += [f"{figure.name}: {figure.reason}" for figure in found[word] if figure.reason]
        if noisy and not more and not reasons:
            reasons = [f"{TOO_NOISY}: {', '.join(noisy)}"]
        return Overall(word, more, tuple(reasons))
    return Overall(Word.SAME, None, (f"all of {len(figures)} figures",))


def _missing(figures: Sequence[Figure]) -> More | None:
    """Return the runs after which there likely is a verdict; None where they are too many.

    That is when the first of the figures that look slower is shown to be, since one is enough, or when all are told.
    """
    slower = [figure.more for figure in figures if figure.more is not None and figure.likely is Word.SLOWER]
    every = [figure.more for figure in figures if figure.more is not None]
    if len(every) == len(figures):
        slower.append(More(max(more.base for more in every), max(more.new for more in every)))
    return min(slower, key=lambda more: (more.most, more.base + more.new), default=None)


def _in_short(figure: Figure) -> str:
    between = f" ({change(figure.low)} to {change(figure.high)})" if figure.low and figure.high else ""
    return f"{figure.name} {change(figure.ratio)}{between}"


def _rounded(value: float) -> float:
    """Return a value to six digits that count."""
    return float(f"{value:.6g}")
