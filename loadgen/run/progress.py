"""The progress of a run as events for programs, one each second; ``loadgen/schema/progress.schema.json``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cluster.base.console import Events
from loadgen.stats.series import TOTAL
from loadgen.stats.window import latency_ms

if TYPE_CHECKING:
    from loadgen.run.run import Run

EVERY_S = 1.0
# Over so many seconds a rate and a percentile are taken.
WINDOW_S = 1.0


class Progress:
    """Tells of one run; says at once that it has started. Takes the run, and where to tell it."""

    def __init__(self, run: Run, events: Events) -> None:
        self._run, self._events = run, events
        self._window = run.live.window(WINDOW_S)
        self._told_at = time.monotonic()
        self._is_told_of_end = False
        settings = run.settings
        events.emit(
            "started", run=run.folder.name, folder=str(run.folder), scenario=run.scenario,
            endpoints=list(settings.endpoints), users=run.users, workers=run.workers,
            loop="closed" if settings.schedule() is None else "open", rate=settings.rate,
            operations=settings.operations, duration_s=settings.duration_s, warmup_s=settings.warmup_s,
        )  # fmt: skip

    def tick(self) -> None:
        """Tell how far the run is, where that is due: each second, and once more at the end of the load."""
        run, now = self._run, time.monotonic()
        if self._is_told_of_end or (now - self._told_at < EVERY_S and not run.over):
            return
        self._told_at, self._is_told_of_end = now, run.over
        run.live.move()
        totals = run.live.totals()
        types = {f: self._figures(f, counts["succeeded"] + counts["failed"], counts["failed"])
                 for f, counts in sorted(totals.items())}  # fmt: skip
        of_all = types.pop(TOTAL, None) or self._figures(TOTAL, 0, 0)
        self._events.emit(
            "progress", elapsed_s=round(run.elapsed_s, 3), **of_all, in_flight=0 if run.over else run.live.in_flight,
            types=types,
        )  # fmt: skip

    def _figures(self, f: str, operations: int, failures: int) -> dict[str, float | None]:
        """Return the counts of an operation type since the start, and its rate and percentiles of the last second."""
        part = self._window.figures(f)
        found: dict[str, float | None] = {
            "operations": operations,
            "failures": failures,
            "rate": (part.succeeded + part.failed) / self._window.length_s,
        }
        for field in ("p50_ms", "p99_ms"):
            value = latency_ms(part, field)
            found[field] = None if value is None else round(value, 3)
        return found
