"""A comparison by turns from Python: its sides, its pairs on one session of workers, its folder and its document.

    from loadgen.ab import by_turns

    base, new = (by_turns.Side(Plan(Settings(connections=each))) for each in (1, 4))
    document, folder = by_turns.run(by_turns.Sides(base, new), by_turns.Judging(pairs=12))
    print(document["words"])

Each pair has a turn of either side, one after the other, in an order that a coin says. Where the clusters are
raftload's own, each pair has two new ones, which are both up for both turns: what differs from one cluster to the next
by chance, such as which member leads and where its files lie, is then part of what differs between pairs, and is not
taken for the version's. The first pair warms up, and does not count. The number of pairs is fixed beforehand: who
looks again and again until there is a difference finds one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.errors import UsageError
from cluster.base.files import write_bytes, writing
from loadgen.ab import turns
from loadgen.ab.folder import COMPARED, TURNS
from loadgen.ab.turns import SIDES, SideName, Turn
from loadgen.load import patching, scenarios
from loadgen.load.settings import SettingsError
from loadgen.run import Hooks, Plan, TargetOptions, WorkerOptions, run_folder
from loadgen.run.benchmark import bounded, check_load, forked_session, to_its_end

if TYPE_CHECKING:
    from cluster.schema.compare_documents import Compared
    from loadgen.run.session import Session
    from loadgen.run.target import Target

DEFAULT_PAIRS, DEFAULT_TURN_S, DEFAULT_WARMUP_S, DEFAULT_WITHIN = 16, 2.0, 0.5, 0.05


@dataclasses.dataclass(frozen=True)
class Side:
    """What one side runs: the plan of each of its turns, and its cluster."""

    plan: Plan = dataclasses.field(default_factory=Plan)
    target: TargetOptions = dataclasses.field(default_factory=TargetOptions)


@dataclasses.dataclass(frozen=True)
class Sides:
    """BASE and NEW."""

    base: Side
    new: Side

    def __getitem__(self, name: SideName) -> Side:
        return self.base if name == "base" else self.new


@dataclasses.dataclass(frozen=True)
class Judging:
    """How many pairs count, within which share figures are the same, and patterns of those to judge, none for all."""

    pairs: int = DEFAULT_PAIRS
    within: float = DEFAULT_WITHIN
    figures: tuple[str, ...] = ()


class AbHooks(Hooks):
    """What a comparison tells its caller beside what a run tells.

    Attributes:
        stopped_by: set it to the name of a signal to have no further turn begin.
    """

    stopped_by: str | None = None

    def turn_begins(self, pair: int, pairs: int, side: SideName) -> None:
        """Note that a turn begins. Takes the number of its pair, 0 where it warms up, and how many there are."""

    def pair_done(self, pair: int, pairs: int, document: Compared) -> None:
        """Note that a pair is over. Takes the comparison of the pairs so far."""


def run(
    sides: Sides,
    judging: Judging | None = None,
    workers: WorkerOptions | None = None,
    *,
    scenario: str = "kv",
    folder: Path | None = None,
    hooks: AbHooks | None = None,
) -> tuple[Compared, Path]:
    """Compare two sides by turns, and return the comparison and its folder.

    Takes the sides; how many pairs there are and how they are judged; who works; the scenario; the folder, which must
    be empty or not there (``runs/<time>-ab``); and what to call meanwhile. Which side goes first in each pair follows
    from the seed of BASE. Raises what `loadgen.run.bench` raises, of either side.
    """
    judging, workers, hooks = judging or Judging(), workers or WorkerOptions(), hooks or AbHooks()
    sides = checked(sides, workers, scenario)
    planned = run_folder.planned("ab", folder)
    with run_folder.for_a_run(planned, exact=folder is not None, say=hooks.say) as made:
        return run_in(made, sides, judging, workers, scenario, hooks), made


def checked(sides: Sides, workers: WorkerOptions, scenario: str) -> Sides:
    """Return the sides with an end of each turn.

    Raises SettingsError for what cannot be compared, and ScenarioError.
    """
    scenarios.check(scenario)
    if sides.base.target.security != sides.new.target.security:
        raise SettingsError("both sides are reached with the same TLS and login options", option="--endpoints")
    found = []
    for name in SIDES:
        side = sides[name]
        if side.target.kind == "docker" and not side.target.endpoints:
            raise SettingsError(
                "ab makes clusters of processes; start two clusters yourself, and give --endpoints twice",
                option="--backend",
            )
        load = side.plan.settings
        if load.operations is None and load.duration_s is None and load.schedule() is None:
            load = dataclasses.replace(load, duration_s=DEFAULT_TURN_S)
        load = bounded(load, scenario)
        check_load(load, side.target, scenario)
        workers.check_target(side.target.endpoints)
        found.append(dataclasses.replace(side, plan=dataclasses.replace(side.plan, settings=load)))
    return Sides(*found)


def differences(sides: Sides) -> dict[str, tuple[str, str]]:
    """Return the parameters in which the sides differ, with both values as texts."""
    base, new = (side.target for side in (sides.base, sides.new))
    of_targets = {
        "endpoints": (",".join(base.endpoints), ",".join(new.endpoints)),
        "etcd": (base.etcd or "default", new.etcd or "default"),
        "nodes": (str(base.nodes or ""), str(new.nodes or "")),
        "concurrency": (str(sides.base.plan.users), str(sides.new.plan.users)),
        "turn": (str(sides.base.plan.settings.duration_s), str(sides.new.plan.settings.duration_s)),
    }
    loads = (side.plan.settings.to_options() for side in (sides.base, sides.new))
    return {
        **{name: values for name, values in of_targets.items() if values[0] != values[1]},
        **turns.settings_that_differ(*loads),
    }


def order(seed: int, pair: int) -> tuple[SideName, SideName]:
    """Return which side goes first in a pair, and which second: a coin's word, from the seed.

    >>> [order(1, pair)[0] for pair in range(6)]
    ['new', 'new', 'new', 'base', 'new', 'base']
    """
    return SIDES if random.Random(f"{seed}/{pair}").random() < 0.5 else (SIDES[1], SIDES[0])


def run_in(
    folder: Path, sides: Sides, judging: Judging, workers: WorkerOptions, scenario: str, hooks: AbHooks
) -> Compared:
    """Do what `run` does in a folder that `run_folder.create` has made, with sides that were `checked`."""
    with patching.uncollected():
        patching.patch()
        import loadgen.run.run  # noqa: F401 - before the fork, as what a turn needs

    logs = folder / "logs"
    with run_folder.logging_to(logs / "master.log"), contextlib.ExitStack() as stack:
        session = stack.enter_context(forked_session(scenario, workers, logs, hooks, sides.base.target.security))
        session.fire_init()
        session.start()
        return _Pairs(folder, sides, judging, session, workers.wait_s, hooks).run()


class _Pairs:
    """The pairs of a comparison on a session that was started.

    Takes the folder, the sides, how to judge them, the session, how long to wait for its workers, and what to call.
    """

    def __init__(
        self, folder: Path, sides: Sides, judging: Judging, session: Session, wait_s: float, hooks: AbHooks
    ) -> None:
        self._folder, self._sides, self._judging, self._pairs = folder, sides, judging, judging.pairs
        self._session, self._wait_s, self._hooks = session, wait_s, hooks
        self._seed = sides.base.plan.settings.seed
        self._turns: list[Turn] = []
        self._targets: dict[SideName, Target] = {}

    def run(self) -> Compared:
        """Run the pairs, until there are enough or the caller wants no more; return their comparison."""
        with contextlib.ExitStack() as stack:
            for name in SIDES:
                if self._sides[name].target.endpoints:
                    self._targets[name] = self._opened(name, stack, self._folder / "logs", self._hooks.say)
            for pair in range(self._pairs + 1):
                if self._hooks.stopped_by:
                    break
                self._pair(pair)
        return self._document()

    def _opened(self, name: SideName, stack: contextlib.ExitStack, logs: Path, say: Callable[[str], None]) -> Target:
        """Return the target of a side; the one of BASE where it is the same, so that no cluster is asked twice."""
        target = self._sides[name].target
        if "base" in self._targets and target == self._sides.base.target:
            return self._targets["base"]
        return stack.enter_context(target.open(logs, lambda message: say(f"{name.upper()}: {message}")))

    def _pair(self, pair: int) -> None:
        """Run a pair: both clusters are up, and one after the other is under load."""
        folders = {name: self._folder / name / f"{pair:03d}" for name in SIDES}
        for folder in folders.values():
            with writing(f"into {folder}", folder):
                (folder / "logs").mkdir(parents=True)
        say = self._hooks.say if pair == 0 else _unsaid
        with contextlib.ExitStack() as stack:
            # All that is opened before the first turn is there for both.
            targets = {
                name: self._targets.get(name) or self._opened(name, stack, folders[name] / "logs", say)
                for name in SIDES
            }  # fmt: skip
            if pair == 0:
                self._session.wait_ready(self._wait_s, self._hooks.say)
            for place, name in enumerate(order(self._seed, pair), 1):
                if self._hooks.stopped_by:
                    return
                self._hooks.turn_begins(pair, self._pairs, name)
                self._turn(pair, name, place, targets[name], folders[name])
        for pattern in self._judging.figures:
            if not turns.figure_names(self._turns, (pattern,)):
                raise UsageError(turns.why_none(self._turns, pattern))
        # Between the pairs, so that it costs no turn the CPU.
        self._hooks.pair_done(pair, self._pairs, self._document())

    def _turn(self, pair: int, name: SideName, place: int, target: Target, folder: Path) -> None:
        """Run a turn and note what it measured; one that a signal has cut short is not noted."""
        from loadgen.load import keyspace
        from loadgen.run.run import Run

        session, hooks = self._session, self._hooks
        for sentence in session.drop_dead():
            hooks.say(f"warning: {sentence}")
        plan = self._sides[name].plan
        load = keyspace.for_scenario(session.environment.user_classes, plan.settings)
        endpoints = target.usable(serializable=load.only_serializable_reads)
        # Both turns of a pair have the same operations, those of another pair others.
        load = dataclasses.replace(load, endpoints=endpoints, seed=load.seed + pair)
        with Run(session, target, dataclasses.replace(plan, settings=load), folder) as run:
            result = to_its_end(run, session, hooks, others_follow=True)
        if run.interrupted:
            return
        lost = [f"{worker} was lost ({reason})" for worker, reason in run.lost.items()]
        self._turns.append(turns.turn_of(result, pair, name, place, f"{name}/{folder.name}", lost))
        with writing(self._folder / TURNS):
            write_bytes(self._folder / TURNS, turns.to_csv(self._turns).encode())

    def _document(self) -> Compared:
        """Return the comparison of the turns so far, and write it."""
        stopped = self._hooks.stopped_by
        done = len(turns.pairs_of(self._turns))
        notes = [f"ended by {stopped} after {done} of {self._pairs} pairs"] if stopped else []
        document = turns.compare(
            self._turns, self._judging.within, self._seed, differences(self._sides), notes, self._judging.figures,
            self._folder,
        )  # fmt: skip
        run_folder.write_json(self._folder / COMPARED, document)
        return document


def _unsaid(message: str) -> None:
    """Say nothing: what there is to say of a cluster was said of the first one."""
