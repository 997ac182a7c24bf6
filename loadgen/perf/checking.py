"""One check: its load as a run like any other, judged by etcdctl's pass marks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from loadgen.perf.loads import Check
from loadgen.run import Hooks, Plan, TargetOptions, WorkerOptions
from loadgen.run.benchmark import run_in
from loadgen.run.guard import QuotaWatch

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result
    from loadgen.run.run import Run
    from loadgen.run.session import Session

SCENARIO = "put"


class _Watched(Hooks):
    """Hooks that pass everything on to others, and end a run before its cluster's quota."""

    def __init__(self, inner: Hooks) -> None:
        self._inner = inner
        self._watch = QuotaWatch(inner.say)

    def say(self, message: str) -> None:
        """Pass it on."""
        self._inner.say(message)

    def forked(self) -> None:
        """Pass it on."""
        self._inner.forked()

    def run_made(self, session: Session, run: Run) -> None:
        """Pass it on."""
        self._inner.run_made(session, run)

    def load_begins(self, stop: Callable[[str], None]) -> None:
        """Pass it on."""
        self._inner.load_begins(stop)

    def tick(self, run: Run) -> None:
        """Pass it on, and look at the quota."""
        self._inner.tick(run)
        self._watch.tick(run)

    def load_ended(self) -> None:
        """Pass it on."""
        self._inner.load_ended()


def plan_of(check: Check, workers: WorkerOptions, command: tuple[str, ...] = (), max_rate: float | None = None) -> Plan:
    """Return a check as the plan of a run. Takes who works, the command line, and the rate that is never exceeded."""
    return Plan(
        check.settings(workers.total, max_rate), users=check.clients, command=command, allow_rate_miss=True,
        prefix=check.prefix.encode("ascii"), blocks={"perf": check.block()},
    )  # fmt: skip


def run(folder: Path, check: Check, plan: Plan, target: TargetOptions, workers: WorkerOptions, hooks: Hooks) -> Result:
    """Run a check in a run folder that was made, and return its result.

    Raises what `loadgen.run.bench` raises, and SettingsError where there are keys under the check's prefix.
    """
    return run_in(folder, plan, target, workers, SCENARIO, _Watched(hooks) if check.heavy else hooks)
