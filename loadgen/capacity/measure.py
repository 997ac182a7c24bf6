"""A capacity from Python: one run with one open loop, whose rate follows a search."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from loadgen.capacity.found import Found
from loadgen.capacity.member_evidence import Witness
from loadgen.capacity.search import Search
from loadgen.capacity.slo import Slo, parse_all
from loadgen.load import scenarios
from loadgen.load.settings import Settings, SettingsError
from loadgen.run.benchmark import Hooks, Plan, check_load, run_in
from loadgen.run.guard import QuotaWatch
from loadgen.run.target import TargetOptions
from loadgen.run.worker_options import WorkerOptions

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result
    from loadgen.capacity.steering import Steering
    from loadgen.run.run import Run
    from loadgen.run.session import Session

# Beyond what any cluster does.
HIGHEST_RATE = 1e6
DEFAULT_LIMIT_S = 600.0


@dataclasses.dataclass(frozen=True)
class CapacityPlan:
    """What capacity to look for.

    Attributes:
        slos: thresholds that have to hold, such as ``put.p99_ms < 20``.
        settings: the load, without a rate or a length.
        users: those that there are at first.
        start_rate: the first rate that is tried, in operations per second; max_rate: the highest, None for any.
        precision: how far the rates that hold and break may be apart, as a share.
        limit_s: seconds of load after which the search ends, whatever it knows.
        keep: leave the run's keys in the cluster.
        command: the command line, for the record.
    """

    slos: tuple[str, ...]
    settings: Settings = dataclasses.field(default_factory=Settings)
    users: int = 10
    start_rate: float = 100.0
    max_rate: float | None = None
    precision: float = 0.02
    limit_s: float = DEFAULT_LIMIT_S
    keep: bool = False
    command: tuple[str, ...] = ()

    def check(self, target: TargetOptions, scenario: str) -> tuple[Slo, ...]:
        """Return what has to hold. Raises ThresholdError and SettingsError for what cannot be measured."""
        if scenario in scenarios.BY_TIME:
            raise SettingsError(f"scenario {scenario} has steps of its own: name another one", option="--scenario")
        given = [name for name in ("operations", "rate", "stages", "step", "duration_s")
                 if getattr(self.settings, name)]  # fmt: skip
        if given:
            raise SettingsError(f"{given[0]} is not for a capacity: the search sets the rate and the end", option=None)
        if self.max_rate is not None and self.start_rate > self.max_rate:
            raise SettingsError(
                f"the first rate is {self.start_rate:,g} and --max-rate permits {self.max_rate:,g}",
                option="--start-rate", others=["--max-rate"],
            )  # fmt: skip
        check_load(self.settings, target, scenario)
        return parse_all(self.slos, scenarios.types(scenario, self.settings.mix))


class Searching(Hooks):
    """The hooks of a run that is a search. Takes what it is to find, what has to hold, and the caller's hooks."""

    def __init__(self, plan: CapacityPlan, slos: tuple[Slo, ...], hooks: Hooks) -> None:
        self._plan, self._slos, self._hooks = plan, slos, hooks
        self._watch = QuotaWatch(hooks.say)
        self._steering: Steering | None = None
        self._witness: Witness | None = None
        self._run: Run | None = None

    def say(self, message: str) -> None:
        """Hand a message on."""
        self._hooks.say(message)

    def forked(self) -> None:
        """Hand on that the workers are forked."""
        self._hooks.forked()

    def run_made(self, session: Session, run: Run) -> None:
        """Begin to listen to the workers. Raises ThresholdError for a type that a scenario of one's own has not."""
        # Only here: it imports gevent, which `--help` has no use for.
        from loadgen.capacity.steering import Steering

        types = scenarios.types_of(session.environment.user_classes, run.settings.mix)
        slos = parse_all(self._plan.slos, types)
        search = Search(
            [slo.goal for slo in slos],
            start_rate=self._plan.start_rate,
            max_rate=self._plan.max_rate or HIGHEST_RATE,
            precision=self._plan.precision,
            limit_s=self._plan.limit_s,
        )
        self._run, self._slos = run, slos
        self._witness = Witness(run.target)
        self._steering = Steering(session, run, search, slos, self._witness)
        self._hooks.run_made(session, run)

    def load_begins(self, stop: Callable[[str], None]) -> None:
        """Let the caller know how to end the search."""
        self._hooks.load_begins(stop)

    def tick(self, run: Run) -> None:
        """See to the search, and tell the caller how far it is."""
        steering = self._steering
        assert steering is not None
        self._watch.tick(run)
        if self._watch.ended:
            steering.search.end(self._watch.ended)
        steering.tick()
        if isinstance(self._hooks, CapacityHooks):
            self._hooks.searching(run, steering)
        else:
            self._hooks.tick(run)

    def load_ended(self) -> None:
        """Note what was found."""
        steering, witness, run = self._steering, self._witness, self._run
        if steering is not None and witness is not None and run is not None:
            search = steering.search
            search.end(f"the run was interrupted by {run.interrupted}" if run.interrupted else "the load ended early")
            evidence = {number: witness.evidence(number) for number in range(len(search.stays))}
            plan = self._plan
            found = Found(search, self._slos, steering.seen, evidence, plan.start_rate, plan.max_rate, plan.precision)
            run.blocks["capacity"] = found.document()
        self._hooks.load_ended()


class CapacityHooks(Hooks):
    """What a search tells its caller while it goes on, beside what any run does."""

    def searching(self, run: Run, steering: Steering) -> None:
        """Note that the search goes on; called ten times a second."""


def capacity_in(
    folder: Path, plan: CapacityPlan, target: TargetOptions, workers: WorkerOptions, scenario: str, hooks: Hooks
) -> Result:
    """Look for a capacity and return the result document, with ``capacity``, which is in the run folder too.

    Takes a folder that `run_folder.create` has made, what to find, the cluster, who works, the scenario and what to
    call meanwhile. Raises what `loadgen.run.bench` does.
    """
    slos = plan.check(target, scenario)
    load = dataclasses.replace(plan.settings, rate=plan.start_rate)
    run_plan = Plan(load, plan.users, plan.keep, plan.command, allow_rate_miss=True)
    return run_in(folder, run_plan, target, workers, scenario, Searching(plan, slos, hooks))
