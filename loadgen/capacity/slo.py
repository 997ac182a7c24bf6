"""What a capacity is asked for: thresholds that say from when on an operation is bad, and how many may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from loadgen.capacity.search import Goal
from loadgen.result.threshold import TOTAL, TYPES, Threshold, ThresholdError
from loadgen.stats import hdr
from loadgen.stats.series import PERCENTILES

SUCCESS_RATE = "success_rate"
_SERVICE = "service."
_QUANTILES = {**PERCENTILES, "median_ms": 0.5}
WOULD_DO = "such as 'put.p99_ms < 20' or 'total.success_rate >= 0.999'"


@dataclasses.dataclass(frozen=True, slots=True)
class Slo:
    """A threshold that holds as long as few enough operations are bad.

    An operation is bad for a latency that takes longer, or fails: then it never came back in time.

    Attributes:
        threshold: as it was given.
        goal: the same for the search.
        type: an operation type, or ``total``.
        is_service: whether its latency is from sending, and not from when an operation was due.
    """

    threshold: Threshold
    goal: Goal
    is_service: bool = False

    @property
    def type(self) -> str:
        """The operation type that it is about, or ``total``."""
        return self.threshold.type

    @property
    def bound_ns(self) -> int | None:
        """From how many nanoseconds on an operation is bad; None where it has to fail for that."""
        return None if self.threshold.field == SUCCESS_RATE else round(self.threshold.bound * 1e6)

    @property
    def quantile(self) -> float | None:
        """Which share of the latencies its percentile is of; None for a success rate."""
        return _QUANTILES.get(self.threshold.field.removeprefix(_SERVICE))

    def bad(self, counts: Mapping[int, int], failed: int) -> tuple[int, int]:
        """Return how many operations of its type there were, and how many were bad.

        Takes the histogram of the latencies of those that succeeded, and how many failed.
        """
        bound_ns = self.bound_ns
        over = 0 if bound_ns is None else sum(n for key, n in counts.items() if hdr.middle(key) > bound_ns)
        return sum(counts.values()) + failed, over + failed

    @classmethod
    def parse(cls, text: str, types: Collection[str] | None = TYPES) -> Slo:
        """Return what a text such as ``put.p99_ms < 20`` means. Takes the types that there are, None for any.

        Raises ThresholdError for what is no threshold, and for what no rate can be searched for.
        """
        threshold = Threshold.parse(text, types)
        field, operator, bound = threshold.field, threshold.operator, threshold.bound
        said = repr(text)
        if field == "throughput_ops_s":
            raise ThresholdError(
                f"{said}: the throughput is what the capacity is; say what must hold at it, {WOULD_DO}"
            )
        if threshold.is_count:
            raise ThresholdError(
                f"{said} is a count, which grows with the length of the run; write a share, such as "
                f"'{threshold.type}.success_rate >= 0.999'"
            )
        if field == SUCCESS_RATE:
            share = round(1 - bound, 12)
            if operator not in (">", ">=") or not 0 <= share < 1:
                raise ThresholdError(
                    f"{said}: a success rate is held from below, by > or >= and a share above 0 and of at most 1"
                )
            if operator == ">" and not share:
                raise ThresholdError(f"{said}: no success rate is above 1; write >= 1 where nothing may fail")
            return cls(threshold, Goal(share))
        quantile = _QUANTILES.get(field.removeprefix(_SERVICE))
        if quantile is None:
            raise ThresholdError(f"{said}: no share of operations is told by {field}; name a percentile, {WOULD_DO}")
        if operator not in ("<", "<=") or bound <= 0:
            raise ThresholdError(f"{said}: a latency is held from above, by < or <= and milliseconds above 0")
        is_service = field.startswith(_SERVICE)
        # What is open for long tells of a latency from when it was due.
        return cls(threshold, Goal(round(1 - quantile, 12), None if is_service else bound / 1e3), is_service)


def parse_all(texts: Collection[str], types: Collection[str] | None) -> tuple[Slo, ...]:
    """Return what some texts mean, and see that a run has what they are about.

    Takes the types that the run has, None where its scenario is not known yet. Raises ThresholdError.
    """
    if not texts:
        raise ThresholdError(f"say what has to hold with --slo, {WOULD_DO}")
    slos = tuple(Slo.parse(text, None if types is None else {*TYPES, *types}) for text in texts)
    for slo in slos:
        if types is not None and slo.type != TOTAL:
            slo.threshold.check_is_run(types)
    return slos
