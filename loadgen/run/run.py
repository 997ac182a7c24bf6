"""One distributed run on a `Session`: its keys, its users, its end, and the run folder."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import gevent

from cluster.base.errors import ClusterError
from cluster.base.exits import Failure, ListenerError
from cluster.base.files import FileError, writing
from cluster.schema import repeat
from loadgen.client.etcd import EtcdClient
from loadgen.history.format import FOLDER
from loadgen.history.operation import DELIVERY
from loadgen.load import keyspace, listening
from loadgen.load.locust_internals import CsvFiles
from loadgen.load.protocol import CUT_SHORT, HISTORY_OPTION, START_OPTION, UNWRITTEN, Snapshot
from loadgen.load.start_line import HOLD_S
from loadgen.result import abort
from loadgen.result import document as report
from loadgen.result.abort import AbortCondition
from loadgen.result.threshold import TYPES
from loadgen.run import run_folder, saturation, totals
from loadgen.run.cluster_recorder import ClusterRecorder
from loadgen.run.live import BOUNDS_S, Live, Watch
from loadgen.run.local_workers import WorkerProcess
from loadgen.run.master_history import MasterHistory, make_writer
from loadgen.run.member_cpu import MemberCpu
from loadgen.run.remote_workers import RemoteWorker
from loadgen.run.session import LATEST_BEGIN_S, Session
from loadgen.run.target import ClusterState, Target
from loadgen.stats import precision
from loadgen.stats.series import TOTAL

if TYPE_CHECKING:
    from cluster.schema.run_documents import Aborted, Blocks, CpuWait, Generator, Measured, ObserverCost, Result
    from cluster.schema.run_documents import Run as RunDocument
    from loadgen.load.locust_types import RequestStats
    from loadgen.load.settings import Settings
    from loadgen.run.benchmark import Plan

# After the last operation's deadline, how long a worker may take to report before it is given up.
REPORT_GRACE_S = 10.0
# Seconds that a request for the run's keys may take before it goes to another member.
CONTROL_TIMEOUT_S = 5.0
NO_ANSWER = "did not answer to stop"
SECOND_SIGNAL = "ended by a second signal"
# After a second signal, how long the cluster is still asked, such as to remove the run's keys.
LAST_QUESTIONS_S = 2.0
# Time for workers to get ready for a schedule that all of them begin at one moment.
OPEN_LOOP_LEAD_NS = 500_000_000

logger = logging.getLogger(__name__)


class Run:
    """One test on a session, from its keys to its result.

    To make one chooses and writes the keys, opens the files, and notes what the cluster is before the load. As a
    context manager it ends a run that its block has left with an exception: with what was measured where a listener
    raised, else with nothing.

    Takes the session, the cluster under load, what to do, and the run folder. Raises KeySpaceError, FileError, and
    ClusterError where the leader is to be called and etcd does not tell who that is.

    Attributes:
        settings: the load, with the prefix of the run's keys.
        revision_before: of the store, before the load.
        blocks: what else is to stand in run.json.
        interrupted: the name of the signal that ended the load, None without one.
        aborted: the condition that ended it, as the result has it; None without one.
        target: the cluster under load.
        users: Locust users over all workers.
        result: the result document, once there is one.
        live: what the workers have reported so far.
        watch: the conditions that end the load while it goes on.
        lost: why workers were lost, by their names.
        over: whether the load is over.
        unwritten: why a file of the folder could not be written, empty where all were.
    """

    def __init__(self, session: Session, target: Target, plan: Plan, folder: Path) -> None:
        self._session = session
        self.target = target
        self._plan = plan
        self.folder = folder
        self.interrupted: str | None = None
        self.aborted: Aborted | None = None
        self.result: Result | None = None
        self.users = plan.users
        self.lost: dict[str, str] = {}
        self.blocks: Blocks = {**plan.blocks}
        self._starter: gevent.Greenlet | None = None
        self._load_began: float | None = None
        self._stop_asked_at: float | None = None
        self.over = False
        self.unwritten = ""
        self._history: MasterHistory | None = None
        self._is_hurried = False
        self._questions: gevent.Greenlet | None = None
        self._revision_after: int | None = None
        self._keys_removed = False
        self._problems: list[str] = []
        self._notes = target.notes()
        if plan.history:
            self._notes.append(f"every operation is recorded in {FOLDER}/, for `raftload check`")
        self._began_at = run_folder.utc_now()
        self._after: ClusterState | None = None
        self._observed: ObserverCost | None = None
        self._member_cpu = MemberCpu(target)
        self._undo = contextlib.ExitStack()
        if plan.settings.balance == "leader":
            target.expect_leader_shown()
        try:
            self._cluster_recorder = ClusterRecorder(folder, target.watched(), target.security)
            self._undo.callback(self._cluster_recorder.abandon)
            # Whatever the load's deadline is: its keys are written and removed by larger requests than its own.
            timeout_s = max(CONTROL_TIMEOUT_S, plan.settings.timeout_s)
            self._client = EtcdClient(target.usable(), timeout_s=timeout_s, security=session.security)
            self._undo.callback(self._client.close)
            self._space = keyspace.KeySpace(self._client, plan.settings, plan.prefix)
            self._undo.callback(self._space.remove)
            setattr(session.environment.parsed_options, HISTORY_OPTION, "")
            self.settings = self._space.prepare(self._begin_history if plan.history else None)
            self._check_history()
            session.prepare(self.settings, plan.users)
            self.live = session.live = Live(session, BOUNDS_S if session.exporter else ())
            types = {*TYPES, *self.settings.mix}
            conditions = [AbortCondition.parse(text, types, lambda: None) for text in plan.abort_on]
            self.watch = Watch(conditions, self.live, self.stats)
            self._before = target.ask()
            self.revision_before = self._space.revision()
            with writing(f"into {folder}", folder):
                self._csv = CsvFiles(session.environment, folder / run_folder.CSV_PREFIX)
            self._undo.callback(self._csv.close)
            run_folder.write_json(folder / "run.json", self._document({}, None))
            self._cluster_recorder.load_begins()
            session.run = self
        except BaseException:
            self.abandon()
            raise

    def _begin_history(self, settings: Settings) -> None:
        """Have everything be recorded from here on. Takes the load, whose keys have their prefix and no value yet.

        Raises FileError.
        """
        session, target = self._session, self.target
        with writing(f"into {self.folder}", self.folder):
            writer = make_writer(self.folder, settings.prefix, self._is_unwritten)
        history = self._history = MasterHistory(
            settings.endpoints, settings.prefix, writer, security=session.security
        )  # fmt: skip
        self._undo.callback(history.close)
        listening.handle(session.runner, UNWRITTEN, lambda _, unwritten: self._is_unwritten(unwritten["reason"]))
        setattr(session.environment.parsed_options, HISTORY_OPTION, str(writer.path.parent.absolute()))
        history.begin(self._space.revision(), target.names(), exclusive=target.ours, watched=False)
        self._client.record_in(writer)

    def _check_history(self) -> None:
        """Raise FileError where what was recorded before the load cannot be written."""
        if self._history is not None:
            self._history.flush()
        if self.unwritten:
            raise FileError(self.unwritten)

    def _end_history(self) -> None:
        """Read what each member holds, as the last word of the history."""
        history = self._history
        assert history is not None
        try:
            # A member that has ended agrees with nobody.
            revision = history.agree(0.0) if self.target.ended_members() else history.agree()
        except ClusterError as error:
            self.doubt(f"what each member holds was not read: {error}")
            return
        history.read_members(revision)

    def _is_unwritten(self, reason: str) -> None:
        """End the load: what comes now would not be in the history."""
        self.unwritten = self.unwritten or reason
        if self._load_began is not None and not self.over:
            gevent.spawn(self.ask_stop)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ListenerError):
            self.cut_short(error.failure)
        elif error is not None:
            self.abandon()

    @property
    def notes_before(self) -> list[str]:
        """What there is to say before the load begins, a sentence each."""
        return self._space.notes

    def start(self) -> None:
        """Let Locust start the users."""
        self._member_cpu.begins()
        self._load_began = time.monotonic()
        runner, users = self._session.runner, self._plan.users
        options = self._session.environment.parsed_options
        setattr(options, START_OPTION, time.time_ns() + OPEN_LOOP_LEAD_NS)
        self._starter = gevent.spawn(runner.start, users, max(users, 1))

    def wait(self, tick: Callable[[Run], None] | None = None) -> None:
        """Wait until every worker has done its share, or has stopped after `ask_stop`, or is lost.

        Takes a function to call ten times a second and at the end, for a progress line.
        """
        warms_up = self.settings.warmup_s > 0
        while not self._over():
            if warms_up and self.load_s >= self.settings.warmup_s:
                warms_up = False
                self._member_cpu.begins()
            gevent.sleep(0.02 if self.elapsed_s < 2 else 0.1)
            duration_s = self.settings.duration_s
            if duration_s is not None and self.load_s > duration_s + self._before_and_after_s:
                self.ask_stop()
            self._judge()
            if tick is not None:
                tick(self)
        self._member_cpu.ends()
        self.over = True
        if tick is not None:
            tick(self)

    def _judge(self) -> None:
        """End the load where one of the conditions holds for that."""
        if self._stop_asked_at is not None:
            return
        measured_s = self.load_s - self.settings.warmup_s
        if (broken := self.watch.broken(measured_s, is_ending=bool(self._session.done))) is not None:
            condition, value = broken
            self.aborted = {
                "expression": str(condition), "value": value, "elapsed_s": round(self.elapsed_s, 3)
            }  # fmt: skip
            logger.warning("the load is %s", abort.reason(self.aborted))
            self.ask_stop()

    @property
    def _before_and_after_s(self) -> float:
        """What a run of a given duration takes beside it; the workers of an open loop know its end themselves."""
        settings = self.settings
        grace_s = settings.timeout_s + REPORT_GRACE_S if settings.schedule() else 0.0
        return settings.warmup_s + grace_s

    def ask_stop(self, signal_name: str | None = None) -> None:
        """Have the workers stop issuing operations and wait for those that are open. The users were started before.

        Takes the name of the signal that asks for it. A further signal, and one that comes when the load is over, waits
        for nothing any more.
        """
        if signal_name is not None:
            if self.interrupted is not None or self.over:
                self.hurry()
                return
            self.interrupted = signal_name
        if self._stop_asked_at is None:
            self._stop_asked_at = time.monotonic()
            if self._starter is not None:
                self._starter.join(timeout=1)
            self._session.stop_workers()

    def hurry(self) -> None:
        """Wait no longer: end the workers in mid-operation, and, once they are gone, what the cluster is asked.

        What was reported until then is the result.
        """
        again, self._is_hurried = self._is_hurried, True
        if not self.over:
            for worker in self._session.workers:
                if (worker.client_id or "") not in self._session.done and worker.name not in self.lost:
                    self._lose(worker, SECOND_SIGNAL)
            if not again:
                self._session.halt()
        elif self._questions is not None:
            self._questions.kill(block=False)

    @property
    def is_stopping(self) -> bool:
        """Whether the workers were told to stop."""
        return self._stop_asked_at is not None

    def started_by_locust(self) -> None:
        """Note that Locust is starting the users by itself: the web UI asked it to."""
        self._member_cpu.begins()
        self._load_began = time.monotonic()

    def stopped_by_locust(self) -> None:
        """Note that Locust has told the workers to stop by itself: the web UI asked it to."""
        if self._stop_asked_at is None and not self.over:
            self._stop_asked_at = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the users were started; 0 until then."""
        return 0.0 if self._load_began is None else time.monotonic() - self._load_began

    @property
    def load_s(self) -> float:
        """Seconds since the last worker started its users or let them begin, the warm-up among them; 0 until then.

        A duration counts from there: on a machine that is short of CPU a worker takes seconds to connect.
        """
        session, now = self._session, time.monotonic()
        latest = (now if self._load_began is None else self._load_began) + LATEST_BEGIN_S
        if session.starter.holds:
            return max(0.0, now - (session.starter.opened_at or latest + HOLD_S))
        present = [worker.client_id or "" for worker in session.workers if worker.name not in self.lost]
        began = max((session.begun.get(client_id, latest) for client_id in present), default=latest)
        return max(0.0, now - began)

    @property
    def scenario(self) -> str:
        """The scenario of its users, by name or by a locustfile's path."""
        return self._session.scenario

    @property
    def workers(self) -> int:
        """How many worker processes there are."""
        return len(self._session.workers)

    @property
    def stats(self) -> RequestStats:
        """Locust's statistics of the run so far."""
        return self._session.environment.stats

    def finish(self) -> Result:
        """Close the books, remove the keys, write the run folder and return the result document.

        What the cluster no longer answers is a problem in the result, not an error, and so is a file that cannot be
        written, which ``unwritten`` tells: the others are.
        """
        self._member_cpu.ends()
        questions = self._questions = gevent.spawn(self._ask_at_the_end)
        questions.join(LAST_QUESTIONS_S if self._is_hurried else None)
        questions.kill()
        if self._is_hurried and not self._plan.keep and not self._keys_removed:
            self._problems.append(f"the run's keys, which begin with {self.settings.prefix.decode()}, were not removed")
        self._client.close()
        if self._history is not None:
            self._write(self._history.close)
        self._cluster_recorder.abandon()
        if self._starter is not None:
            self._starter.kill()
        session = self._session
        self._write(self._csv.close)
        tables = self._csv.final()
        for path, text in tables.items():
            self._write(partial(path.write_bytes, text))
        load = totals.load(self._snapshots())
        self._write(partial(session.series.write, self.folder, load))
        self._write(partial(session.service.write_logs, self.folder, ".service", load))
        measured = totals.measured(self._snapshots(), session.service)
        self._problems += totals.missing_samples(measured, session.series)
        self._problems += totals.doubts(session.workers, session.snapshots)
        document = self._document(measured, self._revision_after)
        self._write(partial(run_folder.write_json, self.folder / "run.json", document))
        if self.unwritten:
            # From what the files would say; what is missing on disk is said in the result alone.
            self._problems.append(f"the run folder is not complete: {self.unwritten}")
            result = report.build(self.folder, document, tables)
        else:
            result = report.build(self.folder)
        self._write(partial(run_folder.write_json, self.folder / "result.json", result))
        self.result = result
        return result

    def doubt(self, problem: str) -> None:
        """Note a problem of the result, in a sentence."""
        self._problems.append(problem)

    def noting(self, what: str, do: Callable[[], object]) -> None:
        """Do what belongs to the end of a run; where that raises, it is a problem in the result."""
        with self._noting(what):
            do()

    def _ask_at_the_end(self) -> None:
        """Ask the cluster what it is now, and remove the keys. A second signal ends this in between."""
        if ended := self.target.ended_members():
            self._problems.append(f"{', '.join(ended)} ended during the run; the reason is in {self.folder / 'logs'}")
            if 2 * len(ended) >= len(self.target.endpoints):
                self._space.expect_no_answer()
        with self._noting("scrape the members' metrics"):
            self._cluster_recorder.load_ended()
        with self._noting("count the operations"):
            self._revision_after = self._space.revision()
        with self._noting("ask the cluster's members"):
            self._after = self.target.ask()
        if self._history is not None:
            with self._noting("read what each member holds"):
                self._end_history()
            self._history.close()
        if not self._plan.keep:
            with self._noting("remove the run's keys"):
                self._space.remove()
                self._keys_removed = True
        with self._noting("collect the members' metrics and logs"):
            self._observed = self._cluster_recorder.close()

    def _write(self, write: Callable[[], object]) -> None:
        """Write a file of the folder; where it cannot be written, go on with the others."""
        try:
            with writing(f"into {self.folder}", self.folder):
                write()
        except FileError as error:
            self.unwritten = self.unwritten or str(error)

    def cut_short(self, failure: Failure) -> None:
        """End the load at once and write what was reported until then. Takes what ended the run.

        What else goes wrong now goes into the log: the failure is what the command says.
        """
        session = self._session
        with session.alarm.held():
            session.halt()
            logger.warning("the load has ended")
            if self._load_began is None:
                self.abandon()
                return
            self._problems.append(f"the run was ended: {failure.what}")
            for worker in session.workers:
                if (worker.client_id or "") not in session.done:
                    self.lost.setdefault(worker.name, "ended with the run")
            try:
                self.finish()
            except Exception:
                logger.exception("the results until then could not be written")
                self.abandon()

    def abandon(self) -> None:
        """Remove the keys and close the files of a run that was begun, however far, and will not be finished."""
        with contextlib.suppress(Exception):
            self._undo.close()

    # -- watching the workers -------------------------------------------------------------------------------

    def _over(self) -> bool:
        session, over = self._session, True
        for worker in session.workers:
            client_id = worker.client_id or ""
            if isinstance(worker, RemoteWorker) and worker.name in self.lost and self._is_back(worker):
                # It was cut off for a while; its reports have waited for the network, so nothing is missing.
                self._notes.append(
                    f"{worker.name} was {self.lost.pop(worker.name)}, but came back, so its results count"
                )
            if client_id in session.done or worker.name in self.lost:
                continue
            if death := worker.death():
                # It may have reported and left between the two looks.
                self._let_arrive(worker)
                if client_id not in session.done:
                    session.inquire(worker)
                    self._lose(worker, death)
                continue
            asked = self._stop_asked_at
            if asked is not None and time.monotonic() > asked + self.settings.timeout_s + REPORT_GRACE_S:
                self._lose(worker, NO_ANSWER)
                continue
            over = False
        return over

    def _let_arrive(self, worker: WorkerProcess | RemoteWorker) -> None:
        """Wait for what a worker that has ended may have said before.

        One that ended by itself has said that it was done: on a busy machine that arrives after the news of its end.
        """
        left = isinstance(worker, WorkerProcess) and worker.left
        until = time.monotonic() + (REPORT_GRACE_S if left else 0.2)
        while (worker.client_id or "") not in self._session.done and time.monotonic() < until:
            gevent.sleep(0.02)

    def _lose(self, worker: WorkerProcess | RemoteWorker, reason: str) -> None:
        self.lost[worker.name] = reason
        self._session.bury(worker.client_id or "")

    def _is_back(self, worker: RemoteWorker) -> bool:
        return self.lost[worker.name] not in (NO_ANSWER, SECOND_SIGNAL) and worker.death() is None

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._problems.append(f"could not {what}: {error}")

    # -- the record -----------------------------------------------------------------------------------------

    def _snapshots(self) -> list[Snapshot]:
        return list(self._session.snapshots.values())

    def _generator(self, operations: int) -> Generator:
        session, total = self._session, self.stats.total
        p99 = precision.percentile(total, 0.99) if total.response_times else None
        return {
            **saturation.block(self._snapshots(), operations, p99),
            "workers_started": len(session.workers),
            "workers_lost": len(self.lost),
            "workers": totals.workers(session.workers, session.snapshots, self.lost),
        }

    def _cpu_wait(self, measured: Mapping[str, Measured]) -> CpuWait | None:
        session = self._session
        sums = (each.summaries.get(TOTAL) for each in (session.service, session.series))
        latencies_s = next((each.total_ns / 1e9 for each in sums if each is not None), 0.0)
        duration_s = measured["total"]["duration_s"] if "total" in measured else 0.0
        return self._member_cpu.block(duration_s or 0.0, latencies_s)

    def _about_workers(self) -> list[str]:
        """Return sentences about workers that a reader should know of."""
        session = self._session
        notes = [f"a worker was refused ({who}): {why}" for who, why in session.remote.refused.items()]
        if self._stop_asked_at is None and self._load_began is not None:
            took_s = {worker: at - self._load_began for worker, at in session.done_at.items()}
            notes += totals.slow_workers(session.workers, took_s)
        notes += totals.clocks_off(session.remote.workers)
        return list(dict.fromkeys(notes + totals.streams(self._snapshots())))

    def _document(self, measured: Mapping[str, Measured], revision_after: int | None) -> RunDocument:
        """Return run.json with what is known: before the load without the measured rows and a revision."""
        ended = bool(measured) or revision_after is not None
        how = self._generator(measured["total"]["operations"] if "total" in measured else 0)
        if ended:
            self._check_count(measured, how["dropped"] or 0)
            self._check_end()
        # A lost worker's last second is unknown, and on a cluster that is not ours others may have written.
        alone = not self.lost and self.target.ours
        document = {
            "schema": "raftload.run/1",
            "id": self.folder.name,
            "scenario": self._session.scenario,
            "started_at": run_folder.iso(self._began_at),
            "ended_at": run_folder.iso(run_folder.utc_now()) if ended else None,
            **self._parameters(),
            "versions": totals.versions(),
            "target": self.target.as_dict(self._before, self._after, self._observed, self._cpu_wait(measured)),
            "measured": measured,
            "warmup": totals.warmup(self._snapshots()),
            "preloaded_keys": self._space.preloaded,
            "generator": how,
            "books": totals.books(self._snapshots(), self.revision_before, revision_after, alone=alone),
            "interrupted": self.interrupted,
            "aborted": self.aborted,
            "abort_on": list(self._plan.abort_on),
            "lost_workers": [{"name": name, "reason": reason} for name, reason in self.lost.items()],
            "problems": self._problems,
            "notes": self._notes + self._space.notes + self._about_workers() + self._cluster_recorder.notes,
            "thresholds": list(self._plan.thresholds),
            **self.blocks,
        }
        return cast("RunDocument", document)

    def _check_count(self, measured: Mapping[str, Measured], dropped: int) -> None:
        """Note it as a problem where other than the wanted operations were executed, and nothing explains it."""
        wanted = self.settings.operations
        cut_short = self.lost or self.interrupted or self.aborted or self.settings.duration_s
        done = sum(row["operations"] for f, row in measured.items() if f not in ("total", DELIVERY))
        if wanted and done + dropped != wanted and not cut_short:
            self._problems.append(f"{done} of {wanted} operations were executed")

    def _check_end(self) -> None:
        """Note it as a problem where a worker stopped without its share done and without being asked to."""
        if self._starter is None:
            return  # The web UI says when.
        session, asked_at = self._session, self._stop_asked_at or math.inf
        for worker in session.workers:
            client_id = worker.client_id or ""
            if session.done.get(client_id) == CUT_SHORT and session.done_at[client_id] < asked_at:
                self._problems.append(f"{worker.name} stopped before the end of the run")

    def _parameters(self) -> dict[str, object]:
        plan = self._plan
        return {
            "command": list(plan.command),
            "environment": repeat.environment(self.target.kind, self.target.etcd),
            **self.settings.to_document(),
            "allow_rate_miss": plan.allow_rate_miss,
            "workers": len(self._session.workers),
            "users": plan.users,
            "duration_s": self.settings.duration_s,
            "series_interval_s": self._session.series.interval_s,
        }
