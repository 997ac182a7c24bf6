"""The worker's side of runs: what the users of one worker share in a run, and how the worker says that it is done.

A `Worker` hangs on a Locust environment and lives as long. At every start of a test it reads the run's settings as
Locust's master sent them, opens the client, and makes a `Load` of them, which tells the master `BEGUN` and hands out
operations to the users until the worker's share is used up or the test is stopped. Then the load sends the last
statistics and one `DONE` message, in this order, on the one connection to the master; so a master that has seen `DONE`
has seen every operation.
"""

from __future__ import annotations

import gc
import logging
import math
import random
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import gevent

from cluster.base.endpoint import split_endpoints
from cluster.base.files import writing
from cluster.base.security import Security
from cluster.base.verdict import Verdict
from loadgen.history.format import SUFFIX
from loadgen.history.operation import STOPPED, Operation, Outcome
from loadgen.load import engines, listening
from loadgen.load.locust_internals import (
    count_successes,
    hear_of_stops,
    install_microseconds,
    is_heard_by_others,
    send_stats,
)
from loadgen.load.loop_lag import LoopLag
from loadgen.load.open_loop import OpenLoop
from loadgen.load.protocol import (
    BEGUN,
    CUT_SHORT,
    DONE,
    GO,
    HISTORY_OPTION,
    PACE,
    RANKS_OPTION,
    READY,
    SHARE_DONE,
    START_OPTION,
    UNWRITTEN,
    USERS_OPTION,
    Go,
    OpenLoopCounts,
    Pace,
    Report,
    Snapshot,
    Stats,
    StreamCounts,
)  # fmt: skip
from loadgen.load.recorder import REQUEST_TYPE, Recorder
from loadgen.load.settings import Settings, SettingsError
from loadgen.load.start_line import HOLD_S, StartLine, is_held
from loadgen.load.workload import Keys, owed, plateau, share, timetable

if TYPE_CHECKING:
    from loadgen.client.channel import Channel
    from loadgen.client.etcd import EtcdClient
    from loadgen.engine.core import Drained
    from loadgen.engine.engine import Engine, Revisions
    from loadgen.history.writer import HistoryWriter
    from loadgen.load.json_client import GatewayClient
    from loadgen.load.locust_types import Environment, Runner, WorkerRunner
    from loadgen.load.written import Written

MAX_USERS_PER_WORKER = 1 << 16
# Workers of one machine begin a schedule at one moment. One that hears of it later, or whose clock is elsewhere,
# begins at once.
MOST_AHEAD_NS = 3_000_000_000

logger = logging.getLogger(__name__)


def attach(environment: Environment) -> Worker:
    """Return the worker of a Locust environment; make it and hook it in at the first call."""
    worker = getattr(environment, "raftload", None)
    if worker is None:
        worker = environment.raftload = Worker(environment)
    assert isinstance(worker, Worker)
    return worker


class Worker:
    """One process's part in the runs of its Locust environment; in a master it only counts what workers report.

    Attributes:
        load: of the present run, or of the last one where none is on; None before the first one, and while one begins.
        sinks: called with every finished operation and whether it is measured (those of the warm-up are not), in
            the user that did it; for histories and raw samples. They must not wait. Empty, they cost nothing.
        clock_offset_ns: this process's wall clock less its master's, in nanoseconds.
    """

    def __init__(self, environment: Environment) -> None:
        install_microseconds()
        self._environment = environment
        self.load: Load | None = None
        self.sinks: list[Callable[[Operation, bool], None]] = []
        self.clock_offset_ns = 0
        events = environment.events
        listening.listen(events.test_start, self._on_test_start)
        listening.listen(events.test_stopping, self._on_test_stopping)
        listening.listen(events.test_stop, self._on_test_stop)
        listening.listen(events.report_to_master, self._on_report_to_master)
        listening.listen(events.worker_report, self._on_worker_report)

    def _on_test_start(self, environment: Environment, **_: object) -> None:
        from locust.runners import MasterRunner

        if isinstance(environment.runner, MasterRunner):
            return
        hear_of_stops(environment.runner)
        self.load = None
        options = vars(environment.parsed_options)
        settings = Settings.from_options(options, split_endpoints(environment.host))
        if not settings.prefix:
            raise SettingsError(
                "the run has no key prefix; was the master started by raftload or its locustfiles?", option=None
            )
        rank, workers = _rank(environment.runner, options)
        users = int(options.get(USERS_OPTION) or options.get("num_users") or 1)
        reason = engines.choose(
            environment.user_classes, settings, heard=is_heard_by_others(environment.events.request),
            sinks=bool(self.sinks),
        )  # fmt: skip
        engine = None if reason else engines.make(settings, rank, workers)
        folder = str(options.get(HISTORY_OPTION) or "")
        # One that has no part in the run has no number of its own either.
        history = _open_history(Path(folder), settings, rank, environment.runner) if folder and rank < workers else None
        client = _open_client(settings, len(range(rank, users, workers)), engine, history)
        # What importing Locust left on the heap would be walked by every full collection, 20 ms at a time.
        gc.collect()
        gc.freeze()
        starts_at_ns = int(options.get(START_OPTION) or 0) + self.clock_offset_ns
        self.load = Load(
            environment, settings, client, rank=rank, workers=workers, users=users, sinks=self.sinks,
            starts_at_ns=starts_at_ns, engine=engine, engine_reason=reason, history=history,
        )  # fmt: skip
        self.load.begin()

    def hear_master(self) -> None:
        """Hear when the master lets the users begin, and changes their rate; nothing in a process without a master."""
        from locust.runners import WorkerRunner

        if isinstance(self._environment.runner, WorkerRunner):
            listening.handle(self._environment.runner, GO, self._on_go)
            listening.handle(self._environment.runner, PACE, self._on_pace)

    def _on_pace(self, _: str, pace: Pace) -> None:
        load = self.load
        if load is not None and pace["prefix"] == load.settings.prefix.decode("ascii"):
            load.pace(pace["rate"], pace["starts_at_ns"] + self.clock_offset_ns)

    def _on_go(self, _: str, go: Go) -> None:
        load = self.load
        if load is not None and go["prefix"] == load.settings.prefix.decode("ascii"):
            load.go(go["starts_at_ns"] + self.clock_offset_ns)

    def leave(self) -> None:
        """Tell the master that this worker ends, where no run of it is on whose end would tell."""
        runner = self._environment.runner
        if _is_distributed(runner) and (self.load is None or self.load.is_over):
            DONE.send(runner, {"reason": CUT_SHORT, "rank": -1})

    def _on_test_stopping(self, environment: Environment, **_: object) -> None:
        if self.load is not None:
            self.load.stopping()

    def _on_test_stop(self, environment: Environment, **_: object) -> None:
        if self.load is not None:
            self.load.stop()

    def _on_report_to_master(self, client_id: str, data: Stats) -> None:
        if self.load is not None:
            self.load.report().write(data)

    def _on_worker_report(self, client_id: str, data: Stats) -> None:
        """Count what a worker reports in the statistics of Locust's master."""
        report = Report.read(data)
        if report is None:
            return
        if not report.snapshot["locust_counts"]:
            count_successes(self._environment.stats, report.series, report.snapshot["totals"], REQUEST_TYPE)
        if not getattr(self._environment, "raftload_engine", None):
            doubt(self._environment, report.snapshot["problems"])


def doubt(environment: Environment, problems: Sequence[str]) -> None:
    """Say what is wrong with the counts of a run of plain Locust, whose exit code then says inconclusive."""
    for problem in problems:
        logger.error("%s", problem)
    if problems and environment.process_exit_code is None:
        environment.process_exit_code = Verdict.UNKNOWN.exit_code


class Load:
    """What the users of one worker share in one run.

    Takes Locust's environment, the run's settings, a connected client, the worker's place, what to call with each
    operation (see `Worker`), when an open loop begins, on this process's wall clock in nanoseconds, and the history
    that the client and the engine record in.

    Attributes:
        settings: of the run.
        client: the run's client of etcd.
        keys: the run's keys.
        rank, workers: this worker's place in the run, from 0, and how many there are.
        users: how many there are over all workers.
        engine: the compiled engine that does the users' operations; None where they do them in Python.
        engine_reason: why they do, else empty.
        revisions: the revision at which this worker last saw each key modified, for compare-and-swap.
        shared: what else the users of a scenario share, by whatever they like.
        warm_until_ns: when the warm-up ends and the measurement begins, on the monotonic clock.
        open_loop: hands out the run's operations; None in a closed loop, and before the start that users wait for.
        start_line: where users wait until those of all workers are ready; None where each begins when it is.
        written: what watching users wrote, and how it came back; None without such.
        sinks: see `Worker`.
    """

    def __init__(
        self, environment: Environment, settings: Settings, client: EtcdClient | GatewayClient, *, rank: int,
        workers: int, users: int, sinks: list[Callable[[Operation, bool], None]], starts_at_ns: int,
        engine: Engine | None = None, engine_reason: str = "", history: HistoryWriter | None = None,
    ) -> None:  # fmt: skip
        self._environment = environment
        self._history = history
        self.engine = engine
        self.engine_reason = engine_reason
        self.settings = settings
        self.client = client
        self.rank, self.workers, self.users = rank, workers, users
        self.sinks = sinks
        self.keys = Keys(settings)
        self.revisions: dict[bytes, int] | Revisions = {} if engine is None else engine.revisions(len(settings.prefix))
        self.shared: dict[object, Any] = {}
        quota, self._offset = share(settings.operations, workers, rank)
        self._quota = quota if rank < workers else 0
        self._taken = 0
        self._next_user = 0
        self._active = 0
        schedule = settings.schedule()
        length_s = settings.duration_s if schedule is None or math.isinf(schedule.length_s) else schedule.length_s
        self.recorder = Recorder(environment, open_loop=schedule is not None, planned_s=length_s)
        self.warmup = Recorder(environment)
        self._cpu_started: float | None = None
        self._cpu_s = 0.0
        self._running = True
        self._stopping = self._alone = False
        self._paces = 0
        self._rng = random.Random(f"users/{settings.seed}/{rank}")
        self.warm_until_ns = time.perf_counter_ns() + round(settings.warmup_s * 1e9)
        self._lag = LoopLag(gevent.get_hub())
        self.open_loop: OpenLoop | None = None
        self.written: Written | None = None
        self.start_line = StartLine(self._tell_ready) if is_held(environment.user_classes) else None
        if engine is not None:
            engine.begin(cast("EtcdClient", client).channel, self, self.warm_until_ns)
        # It calls back from the event loop, so it comes last.
        if schedule is not None and self._quota != 0 and self.start_line is None:
            self.open_loop = self._make_open_loop(starts_at_ns)

    # -- the run --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Tell the master that this worker is connected and starts its users."""
        runner = self._environment.runner
        if _is_distributed(runner):
            BEGUN.send(runner, {"prefix": self.settings.prefix.decode("ascii")})
        else:
            gevent.spawn(self._tell_every_second)
        if self._quota == 0:
            # No user may ever be started here, so nobody else would say that the share is done.
            gevent.spawn(self._finish, SHARE_DONE)

    def wait_for_start(self) -> bool:
        """Wait, as a user that is ready, until all are; not where users of this scenario begin when they are.

        Returns whether the user begins: not where the test was stopped before.
        """
        if self.start_line is None:
            return True
        if not self.start_line.wait():
            self._alone = True
            self.go(0)
        return not self._stopping

    def _tell_ready(self, ready: int) -> None:
        """Tell the master how many users are ready; without one, start them once those of the first batch are."""
        runner = self._environment.runner
        if _is_distributed(runner):
            prefix = self.settings.prefix.decode("ascii")
            READY.send(runner, {"prefix": prefix, "ready": ready, "users": runner.target_user_count})
            return
        rate = getattr(self._environment.parsed_options, "spawn_rate", None) or 1
        if ready >= min(runner.target_user_count, max(1, int(rate))):
            self.go(time.time_ns())

    def go(self, starts_at_ns: int) -> None:
        """Let the users begin. Takes when an open loop begins, on this process's wall clock in nanoseconds."""
        line = self.start_line
        if line is None or line.is_open:
            return
        self.warm_until_ns = time.perf_counter_ns() + round(self.settings.warmup_s * 1e9)
        if self._running and self._quota != 0 and self.settings.schedule() is not None:
            self.open_loop = self._make_open_loop(starts_at_ns)
        line.open()

    def pace(self, rate: float, starts_at_ns: int) -> None:
        """Change the rate of an open loop; nothing where there is none, or it has ended.

        Takes operations per second over all workers, and from when on, on this process's wall clock in nanoseconds;
        from now on where that is over.
        """
        if self.open_loop is None:
            return
        # Who sets the rate looks at what came of it by parts of a second.
        self.recorder.count_by_tick()
        starts_ns = time.perf_counter_ns() + max(0, starts_at_ns - time.time_ns())
        dues = plateau(self.settings, self.rank, self.workers, rate, starts_ns, self._paces)
        self._paces += 1
        self.open_loop.change(starts_ns, dues)

    @property
    def is_over(self) -> bool:
        """Whether the master was told that this worker does nothing more."""
        return not self._running

    @property
    def is_ending(self) -> bool:
        """Whether nothing more is handed out: the worker's share is used up, or the test is being stopped."""
        if self._stopping:
            return True
        if self.open_loop is not None:
            return self.open_loop.ended
        return self._quota is not None and self._begun >= self._quota

    @property
    def _begun(self) -> int:
        """How many operations of a closed loop's measurement were begun."""
        return self._taken if self.engine is None else self.engine.taken

    def _make_open_loop(self, starts_at_ns: int) -> OpenLoop:
        """Return the worker's part of a schedule. Takes when it begins, on the wall clock in nanoseconds."""
        settings, rank, workers = self.settings, self.rank, self.workers
        ahead_ns = starts_at_ns - time.time_ns()
        start_ns = time.perf_counter_ns() + (ahead_ns if 0 < ahead_ns < MOST_AHEAD_NS else 0)
        classes = self._environment.user_classes

        def start_user(group: object) -> None:
            # Scenarios with several kinds of users have them in the proportion of their weights.
            (kind,) = self._rng.choices(classes, [each.weight or 1 for each in classes])
            kind(self._environment).start(group)

        return OpenLoop(
            timetable(settings, rank, workers, start_ns),
            limit=min(max(1, share(settings.max_in_flight, workers, rank)[0] or 0), MAX_USERS_PER_WORKER // 2),
            begin=self._begin_measuring,
            start_user=start_user,
            end=self._on_open_loop_end,
            hands=self.engine,
        )

    def user_started(self) -> int:
        """Count a user in; return its process number, unique in the run."""
        self._active += 1
        self._next_user += 1
        return self.rank * MAX_USERS_PER_WORKER + self._next_user

    def place(self, process: int) -> int:
        """Return a user's place among those of all workers, from 0. Takes the number that `user_started` gave it."""
        return (process % MAX_USERS_PER_WORKER - 1) * self.workers + self.rank

    def user_stopped(self) -> None:
        """Count a user out; the last one out after the share was used up ends the worker's run."""
        self._active -= 1
        if self.open_loop is not None:
            if self.open_loop.ended:
                self._on_open_loop_end()
        elif self._active == 0 and self._quota is not None and self._begun >= self._quota:
            gevent.spawn(self._finish, SHARE_DONE)

    def take(self) -> int | None:
        """Return the number, from 0, of the worker's next operation; None when its share is used up.

        During the warm-up operations are not numbered: the answer is -1.
        """
        if self._cpu_started is None:
            if time.perf_counter_ns() < self.warm_until_ns:
                return -1
            self._begin_measuring()
        taken = self._taken
        if self._quota is not None and taken >= self._quota:
            return None
        self._taken = taken + 1
        return taken

    def _begin_measuring(self) -> None:
        """Count CPU and loop lag from now on: the warm-up, if there was one, is over."""
        if self._cpu_started is None:
            self._cpu_started = _cpu_seconds()
            if (channel := getattr(self.client, "channel", None)) is not None:
                channel.forget_waits()
            self._lag.stop()
            self._lag = LoopLag(gevent.get_hub())

    @property
    def warming_up(self) -> bool:
        """Whether the measurement has not begun yet."""
        return self._cpu_started is None

    def owed(self, number: int) -> str | None:
        """Return the type that operation ``number`` of this worker must have, None for any."""
        return owed(self.settings, self._offset, number) if 0 <= number < len(self.settings.mix) else None

    def record(self, operation: Operation, number: int) -> None:
        """Count a finished operation; ``number`` is what `take` gave it."""
        if number >= 0:
            self.recorder.record(operation)
        else:
            # The warm-up counts its writes, for the books, and nothing else.
            self.warmup.count(operation)
        if self.sinks:
            for sink in self.sinks:
                sink(operation, number >= 0)

    def record_open(self, operation: Operation, number: int) -> None:
        """Count an operation whose user was stopped while it was open: nobody knows whether it took effect."""
        operation.return_ns = time.perf_counter_ns()
        operation.outcome = Outcome.INFO
        operation.error = STOPPED
        self.record(operation, number)

    # -- what the compiled engine asks; see `engine.Host` ----------------------------------------------------

    def begin_measuring(self) -> None:
        """Take note that the warm-up is over."""
        self._begin_measuring()

    def interval(self, now_ns: int) -> tuple[int, int]:
        """Return from when until when what returns now is counted together; nanoseconds on the monotonic clock."""
        return self.recorder.interval(now_ns)

    def absorb(self, f: str, drained: Drained) -> None:
        """Count what came of a type of operation within one interval."""
        self.recorder.absorb(f, drained)
        self.warmup.absorb_warmup(f, drained)

    def absorb_lags(self, lags: dict[int, int]) -> None:
        """Count how late operations of an open loop were sent."""
        self.recorder.absorb_lags(lags)

    def user_ready(self) -> None:
        """Hand what is due to a user that is new."""
        if self.open_loop is not None:
            self.open_loop.user_ready()

    # -- the end --------------------------------------------------------------------------------------------

    def stopping(self) -> None:
        """Hand out nothing more: the test is about to be stopped."""
        self._stopping = True
        if self.start_line is not None:
            self.start_line.open()
        if self._running and self.open_loop is not None:
            self.open_loop.stop()

    def stop(self) -> None:
        """End the worker's run where it has not ended: the test is stopped, and its users are gone."""
        if self._running and self.open_loop is not None:
            self.open_loop.join(self.settings.timeout_s + 0.5)
        self._finish(CUT_SHORT)

    def _on_open_loop_end(self) -> None:
        """End the worker's run once the open loop's last operation has; a stopped one ends with Locust's stop."""
        loop = self.open_loop
        if self._active == 0 and (loop is None or not loop.stopped):
            gevent.spawn(self._finish, SHARE_DONE)

    def _finish(self, reason: str) -> None:
        """Send the last statistics, then DONE. Only the first call of a run does anything."""
        if not self._running:
            return
        self._running = False
        runner = self._environment.runner
        if self._cpu_started is not None:
            self._cpu_s = _cpu_seconds() - self._cpu_started
        self._lag.stop()
        self.client.close()
        if self._history is not None:
            self._history.close()
        if _is_distributed(runner):
            send_stats(runner)
            DONE.send(runner, {"reason": reason, "rank": self.rank})
            # Locust waits this long after a stop before the worker is ready again; it is drained already.
            self._environment.stop_timeout = 0
        else:
            self._tell_locust()
            doubt(self._environment, self._problems())
            if reason == SHARE_DONE:
                gevent.spawn(runner.quit if self._environment.web_ui is None else runner.stop)

    def _tell_every_second(self) -> None:
        while self._running:
            gevent.sleep(1)
            self._tell_locust()

    def _tell_locust(self) -> None:
        """Count what was done since the last call in Locust's statistics, where there is no master to do it."""
        recorder = self.recorder
        if self.engine is not None:
            self.engine.drain()
        latencies, _ = recorder.take_series()
        if not recorder.fires_each:
            count_successes(self._environment.stats, latencies, recorder.totals(), REQUEST_TYPE)

    def report(self) -> Report:
        """Return what to tell the master: all that was done, and what came back since the last call."""
        if self.engine is not None:
            self.engine.drain()
        return Report(self._snapshot(), *self.recorder.take_series())

    def _snapshot(self) -> Snapshot:
        cpu_s = self._cpu_s
        if self._running and self._cpu_started is not None:
            cpu_s = _cpu_seconds() - self._cpu_started
        # The gateway's client has no channel: a user has one request under way at the most.
        channel = getattr(self.client, "channel", None)
        return {
            "prefix": self.settings.prefix.decode("ascii"),
            "locust_counts": self.recorder.fires_each,
            "totals": self.recorder.totals(),
            "warmup": self.warmup.totals(),
            "cpu_s": cpu_s,
            "wall_s": self._lag.watched_s,
            "engine": engines.PYTHON if self.engine is None else engines.COMPILED,
            "engine_reason": self.engine_reason,
            # The gateway's users have one each.
            "in_flight": getattr(self.engine or channel, "in_flight", self._active),
            "in_flight_max": getattr(self.engine or channel, "in_flight_max", self._next_user),
            "resent": getattr(channel or self.client, "resent", 0),
            "loop_lag_p99_ms": self._lag.percentile_ms(0.99),
            "open_loop": self._open_loop_snapshot(),
            "streams": self._stream_counts(),
            "problems": [] if self._running else self._problems(),
        }

    def _stream_counts(self) -> StreamCounts | None:
        channel: Channel | None = getattr(self.client, "channel", None)
        if channel is None:
            return None
        limit, connections = channel.stream_limit, channel.connected_max
        return {"limit": limit, "connections": connections, "waits": dict(channel.stream_waits)}

    def _problems(self) -> list[str]:
        """Return sentences about what there is to doubt of this worker's counts."""
        found = [] if self.written is None else self.written.problems()
        if self._alone:
            found.append(f"the users began although not all were ready: the master said nothing for {HOLD_S:.0f} s")
        return found

    def _open_loop_snapshot(self) -> OpenLoopCounts | None:
        """Return what became of the schedule."""
        loop = self.open_loop
        if loop is None:
            return None
        return {
            "scheduled": loop.scheduled,
            "dropped": loop.dropped,
            "start_lags": dict(self.recorder.start_lags),
            "length_s": max(0, loop.last_due_ns - loop.first_due_ns) / 1e9,
            "overrun_s": max(0, self.recorder.last_call_ns - loop.last_due_ns) / 1e9,
        }


def _open_history(folder: Path, settings: Settings, rank: int, runner: Runner) -> HistoryWriter:
    """Return where this worker records what it does and sees; a failure to write ends the run. Raises FileError."""
    from loadgen.history.writer import HistoryWriter

    def failed(reason: str) -> None:
        # It may be the event loop that has written, which must not wait.
        gevent.spawn(UNWRITTEN.send, runner, {"reason": reason})

    path = folder / f"worker-{rank + 1}{SUFFIX}"
    with writing(path):
        history = HistoryWriter(path, failed=failed, worker=rank + 1, prefix=settings.prefix.decode("ascii"))
    history.flush_every()
    return history


def _open_client(
    settings: Settings, users: int, engine: Engine | None, history: HistoryWriter | None
) -> EtcdClient | GatewayClient:
    """Return a connected client for the settings' transport, with streams for so many users, and lanes for an engine.

    What it and the engine do is recorded in the history. The gateway's client has none.

    How to speak TLS and who logs in is in this process's environment, where the master of workers on this machine has
    put it: the settings travel in messages that anybody on the way could read.
    """
    security = Security.from_environment()
    if settings.transport == "gateway":
        from loadgen.load.json_client import GatewayClient

        endpoints = settings.endpoints[:1] if settings.balance == "first" else settings.endpoints
        return GatewayClient(endpoints, timeout_s=settings.timeout_s, security=security)
    from loadgen.client.etcd import EtcdClient
    from loadgen.client.transport import Transport

    if engine is not None and history is not None:
        engine.record_in(history)
    client = EtcdClient(
        settings.endpoints,
        timeout_s=settings.timeout_s,
        connections=settings.connections,
        security=security,
        balance=settings.balance,
        history=history,
        make_transport=Transport if engine is None else engine.make_transport,
    )
    # Connect before the first operation, or its latency would be that of a TCP handshake. What this cannot
    # reach the operations will not either, and they say so.
    client.get(settings.prefix, serializable=True)
    client.channel.reserve(users, settings.timeout_s)
    return client


def _rank(runner: Runner, options: Mapping[str, object]) -> tuple[int, int]:
    """Return this worker's place in the run and how many share it, as the master wrote them down."""
    ranks = str(options.get(RANKS_OPTION) or "").split(",")
    client_id = getattr(runner, "client_id", "")
    if ranks == [""]:
        return 0, 1
    return (ranks.index(client_id) if client_id in ranks else len(ranks)), len(ranks)


def _is_distributed(runner: Runner | None) -> TypeGuard[WorkerRunner]:
    from locust.runners import LocalRunner

    return runner is not None and not isinstance(runner, LocalRunner)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
