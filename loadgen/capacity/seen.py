"""Operations that came back in some time of a search, over all workers: latencies, failures, start lags."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loadgen.history.operation import DELIVERY
from loadgen.run import saturation
from loadgen.stats import hdr
from loadgen.stats.series import TOTAL, Intervals

if TYPE_CHECKING:
    from loadgen.capacity.slo import Slo
    from loadgen.load.protocol import Report


@dataclasses.dataclass(slots=True)
class Seen:
    """What came back in some time, over all workers.

    Attributes:
        latencies: from when an operation was due, by type and for ``total``: histograms.
        service: the same from when it was sent.
        failed: failures by type and for ``total``.
        start_lags: how late operations were sent, as a histogram.
    """

    latencies: dict[str, dict[int, int]] = dataclasses.field(default_factory=dict)
    service: dict[str, dict[int, int]] = dataclasses.field(default_factory=dict)
    failed: dict[str, int] = dataclasses.field(default_factory=dict)
    start_lags: dict[int, int] = dataclasses.field(default_factory=dict)

    def add(self, report: Report, first_tick: int, shift: int) -> None:
        """Take what a worker reports that came back from a tick on. Takes the ticks to add to its clock, too."""
        _sum(self.latencies, report.series, first_tick, shift)
        _sum(self.service, report.service, first_tick, shift)
        for f, rows in report.series.items():
            failed = sum(row[2] for row in rows if row[0] + shift >= first_tick)
            for name in _names(f):
                self.failed[name] = self.failed.get(name, 0) + failed

    def merge(self, other: Seen) -> None:
        """Take what was seen in other time as well."""
        for mine, theirs in ((self.latencies, other.latencies), (self.service, other.service)):
            for f, counts in theirs.items():
                hdr.merge(mine.setdefault(f, {}), counts)
        for f, count in other.failed.items():
            self.failed[f] = self.failed.get(f, 0) + count
        hdr.merge(self.start_lags, other.start_lags)

    def percentile_ms(self, quantile: float, f: str = TOTAL, *, service: bool = False) -> float | None:
        """Return a percentile of the latencies of a type; None without a success."""
        counts = (self.service if service else self.latencies).get(f)
        return hdr.percentiles(counts, (quantile,))[0] / 1e6 if counts else None

    @property
    def start_lag_p99_ms(self) -> float | None:
        """Return how long after they were due 99 % of the operations were sent at the latest; None without any."""
        return hdr.percentiles(self.start_lags, (0.99,))[0] / 1e6 if self.start_lags else None

    def is_late(self, slos: Sequence[Slo]) -> bool:
        """Tell whether a latency broke its bound because the generator was late.

        It was late by the rule of a whole run, and without that the bound would hold: what is sent late is also read
        late.
        """
        lag, p99 = self.start_lag_p99_ms, self.percentile_ms(0.99)
        if lag is None or p99 is None or lag <= max(saturation.LEAST_DELAY_MS, saturation.DELAY_SHARE * p99):
            return False
        for slo in slos:
            if slo.quantile is not None:
                due = self.percentile_ms(slo.quantile, slo.type, service=slo.is_service)
                sent = self.percentile_ms(slo.quantile, slo.type, service=True)
                bound = slo.threshold.bound
                if due is not None and sent is not None and due > bound >= sent - lag:
                    return True
        return False


def _sum(into: dict[str, dict[int, int]], intervals: Intervals, first_tick: int, shift: int) -> None:
    for f, rows in intervals.items():
        for row in rows:
            if row[0] + shift >= first_tick:
                for name in _names(f):
                    hdr.merge(into.setdefault(name, {}), row[-1])


def _names(f: str) -> tuple[str, ...]:
    """Return what operations of a type count for; what a watch delivers is no operation that was due."""
    return (f,) if f == DELIVERY else (f, TOTAL)
