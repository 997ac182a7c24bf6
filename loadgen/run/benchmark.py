"""A benchmark from Python: workers, the cluster under load, one run, and its result document."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.security import Security
from cluster.base.signals import importing
from cluster.base.units import parse_duration
from cluster.schema.run_documents import Blocks
from loadgen.load import otel, patching, scenarios
from loadgen.load.settings import Settings, SettingsError, check_size
from loadgen.result.abort import AbortCondition
from loadgen.result.threshold import TYPES, Threshold
from loadgen.run import exporter, run_folder
from loadgen.run.target import TargetOptions
from loadgen.run.worker_options import WorkerOptions

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result
    from loadgen.load.locust_types import UserClass
    from loadgen.run.run import Run
    from loadgen.run.session import Session

DEFAULT_OPERATIONS = 1000
# Of keys and values, in a run that is to be checked.
MAX_STORE_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is to do.

    Attributes:
        settings: the load. It ends when its ``operations`` are done, after its ``duration_s``, or with its schedule;
            where nothing is said, after 1,000 operations.
        users: Locust users over all workers.
        keep: leave the run's keys in the cluster.
        command: the command line, for the record.
        thresholds: expressions that judge the result, such as ``put.p99_ms < 50``.
        allow_rate_miss: an open loop that did not keep its schedule can still pass.
        history: record every operation in ``history/`` of the run folder, for `raftload check`.
        abort_on: conditions that end the run while it goes on, such as ``total.success_rate < 0.9 for 5s``; its verdict
            is fail then.
        metrics_listen: where to serve metrics for Prometheus meanwhile, such as ``:9464``; None for nowhere.
        otel: whether workers tell OpenTelemetry of the run, as Locust does; it takes the Python engine then.
        prefix: what all keys of the run begin with, ASCII; empty for 5 bytes that no key begins with.
        blocks: what else is to stand in run.json, of checks that judge a run by more than thresholds.
    """

    settings: Settings = dataclasses.field(default_factory=Settings)
    users: int = 10
    keep: bool = False
    command: tuple[str, ...] = ()
    thresholds: tuple[str, ...] = ()
    allow_rate_miss: bool = False
    history: bool = False
    abort_on: tuple[str, ...] = ()
    metrics_listen: str | None = None
    otel: bool = False
    prefix: bytes = b""
    blocks: Blocks = dataclasses.field(default_factory=Blocks)


class Hooks:
    """What a run tells its caller while it goes on. Each method here does nothing: override those you want."""

    def say(self, message: str) -> None:
        """Take a message for the person who waits, such as a warning: one line."""

    def forked(self) -> None:
        """Note that the workers are forked: from now on this process may handle signals, which it does not share.

        Called while SIGINT and SIGTERM are held back.
        """

    def run_made(self, session: Session, run: Run) -> None:
        """Note that the run is made, and its load is about to begin."""

    def load_begins(self, stop: Callable[[str], None]) -> None:
        """Note that the load begins.

        Takes what ends it early; that takes a signal's name, for ``interrupted`` of the result. Called again, also
        after the load, it has the run end at once, with what was measured.
        """

    def tick(self, run: Run) -> None:
        """Note that the load goes on; called ten times a second, and once more when it has ended."""

    def load_ended(self) -> None:
        """Note that the load has ended or failed, and the results are about to be written."""


def bench(
    plan: Plan | None = None,
    target: TargetOptions | None = None,
    workers: WorkerOptions | None = None,
    *,
    scenario: str = "kv",
    folder: Path | None = None,
    hooks: Hooks | None = None,
) -> Result:
    """Run a benchmark and return its result document, which is in the run folder as ``result.json`` too.

    Patches the standard library with gevent, forks workers, and ends them: call it in the main thread, before the
    process has started other threads. It prints nothing and handles no signal.

    Takes what to do (1,000 operations by 10 users); the cluster to load (an embedded one of three members that lives as
    long as the run); who works (two processes); the scenario, by name or by a locustfile's path; the run folder, which
    must be empty or not there (``runs/<time>-<scenario>``); and what to call meanwhile. A folder is taken back where
    the run does not begin, unless something in it says why.

    Raises ThresholdError, ScenarioError and SettingsError for what cannot be, ClusterError where the cluster cannot be
    started or reached, EngineError where the workers cannot, KeySpaceError where etcd refuses the run's keys,
    FolderError and FileError where the folder cannot be made or written, IncompleteFolderError, which has the result,
    where that happens after the load, and ListenerError where a listener or a worker has raised.
    """
    plan, target, workers = plan or Plan(), target or TargetOptions(), workers or WorkerOptions()
    plan = dataclasses.replace(plan, settings=bounded(plan.settings, scenario))
    check_load(plan.settings, target, scenario)
    check_thresholds(plan.thresholds, plan.settings, scenario, plan.abort_on)
    exporter.check(plan.metrics_listen)
    otel.check(plan.otel)
    workers.check_target(target.endpoints)
    if plan.history:
        check_history(plan.settings, workers)
    hooks = hooks or Hooks()
    planned = run_folder.planned(scenarios.check(scenario), folder)
    with run_folder.for_a_run(planned, exact=folder is not None, say=hooks.say) as made:
        return run_in(made, plan, target, workers, scenario, hooks)


def bounded(load: Settings, scenario: str) -> Settings:
    """Return a load with an end: a schedule's, the scenario's, or 1,000 operations where nothing was said.

    Raises SettingsError for operations in a scenario that goes by time.
    """
    if load.stages or load.step:
        schedule = load.schedule()
        assert schedule is not None
        return dataclasses.replace(load, duration_s=schedule.length_s)
    if scenario in scenarios.BY_TIME and load.operations is not None:
        raise SettingsError(
            f"scenario {scenario} goes by time: give --duration, not --operations",
            option="--operations", others=["--duration"],
        )  # fmt: skip
    if load.operations is not None or load.duration_s is not None:
        return load
    if scenario in scenarios.BY_TIME:
        return dataclasses.replace(load, duration_s=parse_duration(scenarios.BY_TIME[scenario]))
    return dataclasses.replace(load, operations=DEFAULT_OPERATIONS)


def check_load(load: Settings, target: TargetOptions, scenario: str) -> None:
    """Raise SettingsError for a load that the run's embedded cluster refuses; another one is asked when it is there."""
    if target.kind == "embedded":
        types = scenarios.types(scenario, load.mix) or ("put",)
        check_size(dataclasses.replace(load, mix=dict.fromkeys(types, 1.0)))


def check_history(load: Settings, workers: WorkerOptions) -> None:
    """Raise SettingsError for a load whose history cannot be recorded."""
    if load.transport != "grpc":
        raise SettingsError("--history is for --transport grpc", option="--history", others=["--transport"])
    if workers.expected:
        raise SettingsError(
            "--history is for workers on this machine: those of others cannot write into the run folder",
            option="--history", others=["--expect-workers"],
        )  # fmt: skip
    size = load.key_space * (load.key_size + load.value_size)
    if size > MAX_STORE_BYTES:
        raise SettingsError(
            f"--history: at the end each member's keys are read at once, and {load.key_space:,} of them have "
            f"{size >> 20:,} MiB, more than {MAX_STORE_BYTES >> 20}: give a smaller --key-space or --value-size",
            option="--history", others=["--key-space", "--value-size"],
        )  # fmt: skip


def check_thresholds(expressions: Sequence[str], load: Settings, scenario: str, abort_on: Sequence[str] = ()) -> None:
    """Raise ThresholdError for a text that is no threshold, and for one on a type that the run does not have.

    The same for conditions that end a run. Which types a scenario of somebody's own has is known when its file is
    loaded: see `check_own_thresholds`.
    """
    types = scenarios.types(scenario, load.mix)
    for expression in expressions:
        threshold = Threshold.parse(expression, None if types is None else TYPES)
        if types is not None:
            threshold.check_is_run(types)
    for text in abort_on:
        condition = AbortCondition.parse(text, None if types is None else TYPES)
        condition.check_loop(open_loop=load.schedule() is not None)
        if types is not None:
            condition.threshold.check_is_run(types)


def check_own_thresholds(
    expressions: Sequence[str], load: Settings, user_classes: Sequence[UserClass], abort_on: Sequence[str] = ()
) -> None:
    """Do the same for the user classes of a scenario; takes the load with the mix that they bring."""
    types = scenarios.types_of(user_classes, load.mix)
    if types is None:
        return
    known = {*TYPES, *types}
    for threshold in (
        *(Threshold.parse(each, known) for each in expressions),
        *(AbortCondition.parse(each, known).threshold for each in abort_on),
    ):
        threshold.check_is_run(types)


def run_in(
    folder: Path, plan: Plan, target: TargetOptions, workers: WorkerOptions, scenario: str, hooks: Hooks
) -> Result:
    """Do what `bench` does in a folder that `run_folder.create` has made, with options that were checked."""
    with patching.uncollected():
        patching.patch()
        from loadgen.load import keyspace
        from loadgen.run.run import Run

    logs = folder / "logs"
    with run_folder.logging_to(logs / "master.log"), contextlib.ExitStack() as stack:
        metrics = stack.enter_context(exporter.listening(plan.metrics_listen))
        session = stack.enter_context(forked_session(scenario, workers, logs, hooks, target.security, plan.otel))
        exporter.serve(metrics, session, hooks.say)
        session.fire_init()
        settings = keyspace.for_scenario(session.environment.user_classes, plan.settings)
        check_own_thresholds(plan.thresholds, settings, session.environment.user_classes, plan.abort_on)
        session.start()
        # The workers get ready while the cluster elects its first leader.
        cluster = stack.enter_context(target.open(logs, hooks.say))
        endpoints = cluster.usable(serializable=settings.only_serializable_reads)
        plan = dataclasses.replace(plan, settings=dataclasses.replace(settings, endpoints=endpoints))
        session.wait_ready(workers.wait_s, hooks.say)
        with Run(session, cluster, plan, folder) as run:
            return to_its_end(run, session, hooks)


def to_its_end(run: Run, session: Session, hooks: Hooks, *, others_follow: bool = False) -> Result:
    """Start the users of a run that was made, wait for its end, and return its result.

    Takes what to call meanwhile, and whether the session is to be ready for another run then. Raises what `bench`
    raises during the load and after it.
    """
    for note in run.notes_before:
        hooks.say(f"note: {note}")
    hooks.run_made(session, run)
    try:
        run.start()
        hooks.load_begins(run.ask_stop)
        run.wait(hooks.tick)
    finally:
        hooks.load_ended()
    if others_follow:
        from loadgen.load.locust_internals import bring_to_rest

        bring_to_rest(session.runner)
    with session.alarm.held():
        result = run.finish()
    session.alarm.check()
    if run.unwritten:
        raise run_folder.IncompleteFolderError(run.unwritten, result, run.folder)
    return result


@contextlib.contextmanager
def forked_session(
    scenario: str,
    workers: WorkerOptions,
    logs: Path,
    hooks: Hooks,
    security: Security | None = None,
    with_otel: bool = False,
) -> Iterator[Session]:
    """Yield a session whose workers are forked and wait for `Session.start`; close it at the end.

    For a process that `patching.patch` has patched. Takes the scenario, who works, a folder for the logs, what to call,
    how to reach the cluster, and whether the workers tell OpenTelemetry. Raises EngineError.
    """
    from loadgen.run.local_workers import fork_workers
    from loadgen.run.session import Session

    security = security or Security()
    # Who forks is not interrupted between two workers, and a worker does not get what was meant for its master.
    with importing():
        processes = fork_workers(workers.local, scenario, logs, security, with_otel)
        hooks.forked()
    with contextlib.closing(Session(scenario, processes, logs, workers.expected, workers.bind, security)) as session:
        yield session
