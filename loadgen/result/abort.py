"""A condition that ends a run while it goes on, from its text: ``total.success_rate < 0.9 for 5s``. Pure: no clock."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from cluster.base.console import short
from cluster.base.units import parse_duration
from loadgen.result.threshold import (
    COUNT_FIELDS,
    LATENCY_FIELDS,
    RATE_FIELDS,
    SERVICE_FIELDS,
    TYPES,
    Threshold,
    ThresholdError,
)
from loadgen.stats.window import Window, latency_ms

if TYPE_CHECKING:
    from cluster.schema.run_documents import Aborted

# Workers report twice a second: less would be judged by a single report.
SHORTEST_S, LONGEST_S = 1.0, 600.0
_FORM = re.compile(r"(?P<bound>.*\S)\s+for\s+(?P<duration>\S+)\s*", re.DOTALL)
_EXAMPLE = "'total.success_rate < 0.9 for 5s'"


@dataclasses.dataclass(frozen=True, slots=True)
class AbortCondition:
    """A condition that ends a run where it holds for the last seconds of it.

    Attributes:
        threshold: what holds then, such as ``total.success_rate < 0.9``; its ``holds`` says so.
        duration_s: over how many seconds its number is taken.
        duration: the same as it was given.
    """

    threshold: Threshold
    duration_s: float
    duration: str

    @classmethod
    def parse(
        cls,
        text: str,
        types: Collection[str] | None = TYPES,
        causes: Callable[[], Collection[str] | None] | None = None,
    ) -> AbortCondition:
        """Return the condition that a text means, ``<type>.<field> <operator> <number> for <duration>``.

        Takes which types and causes there may be, as `Threshold.parse` does. Raises ThresholdError.
        """
        match = _FORM.fullmatch(text)
        if not match:
            raise ThresholdError(
                f"{short(text, 100)!r} does not say for how long; write <type>.<field> <operator> <number> for "
                f"<duration>, such as {_EXAMPLE}"
            )
        threshold = Threshold.parse(match["bound"], types, causes)
        try:
            duration_s = parse_duration(match["duration"])
        except ValueError as error:
            raise ThresholdError(f"{short(text, 100)!r}: {error}") from error
        if not SHORTEST_S <= duration_s <= LONGEST_S:
            raise ThresholdError(f"{short(text, 100)!r}: the duration must be between 1s and 10m")
        return cls(threshold, duration_s, match["duration"])

    def check_loop(self, *, open_loop: bool) -> None:
        """Raise ThresholdError for a service latency where the run has none."""
        if self.threshold.field in SERVICE_FIELDS and not open_loop:
            raise ThresholdError(f"{str(self)!r}: service latency is measured in an open loop only (--rate)")

    def __str__(self) -> str:
        return f"{self.threshold} for {self.duration}"

    @property
    def falls_at_the_end(self) -> bool:
        """Whether it may hold because some of the workers have done their share, and for no other reason."""
        by_time = self.threshold.field in (*COUNT_FIELDS, "throughput_ops_s") or self.threshold.cause is not None
        return by_time and self.threshold.operator in ("<", "<=", "==")

    def value(self, window: Window, service: Window, causes: Mapping[str, int]) -> float | None:
        """Return the number that it is about; None without a sample, as a latency of no success.

        Takes the last seconds of the run by latencies and by service times, and how many failures of its type there
        were in them by cause. How many operations a window has, and at what rate, is known also where that is none.
        """
        name, field = self.threshold.type, self.threshold.field
        if self.threshold.cause is not None:
            return float(causes.get(self.threshold.cause, 0))
        if field in SERVICE_FIELDS:
            return latency_ms(service.figures(name), field.removeprefix("service."))
        part = window.figures(name)
        if field in LATENCY_FIELDS:
            return latency_ms(part, field)
        succeeded = part.succeeded
        operations = succeeded + part.failed
        if field in RATE_FIELDS:
            if field == "throughput_ops_s":
                return operations / window.length_s
            return succeeded / operations if operations else None
        return float(
            {"operations": operations, "succeeded": succeeded, "failed": part.failed, "info": part.info}[field]
        )


def reason(aborted: Aborted) -> str:
    """Return why a run was ended, in one line: ``ended after 7.2 s by --abort-on '…': it was 0.42``."""
    unit = " ms" if "_ms " in aborted["expression"] else ""
    why = f"--abort-on '{aborted['expression']}': it was {aborted['value']:,.6g}{unit}"
    return f"ended after {aborted['elapsed_s']:.1f} s by {why}"
