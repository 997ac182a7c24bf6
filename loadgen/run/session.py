"""Locust's master in this process, its workers in theirs, and the messages between them.

A `Session` is ready for any number of runs one after the other, as the web UI has them.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gevent

from cluster.base import exits
from cluster.base.errors import RaftloadError
from cluster.base.exits import Failure
from cluster.base.security import Security
from loadgen.load import keyspace, listening, patching
from loadgen.load.locust_internals import (
    bury,
    close_master,
    forget,
    install_microseconds,
    listeners_kept,
    port_of,
    set_master_timing,
    stop_workers,
)  # fmt: skip
from loadgen.load.protocol import BEGUN, DONE, FAILED, HELLO, Begun, Done, Failed, Hello, Report, Snapshot, Stats
from loadgen.load.settings import Settings
from loadgen.load.start_line import Starter
from loadgen.run.local_workers import WorkerProcess
from loadgen.run.remote_workers import RemoteWorker, RemoteWorkers, correct, identity
from loadgen.run.worker import make_environment
from loadgen.stats.series import TICK_NS, Series

if TYPE_CHECKING:
    from loadgen.load.locust_types import MasterRunner, WebUI
    from loadgen.run.exporter import Exporter
    from loadgen.run.live import Live
    from loadgen.run.run import Run

# Workers of this machine make their Locust runners before they report, and share the cores.
WORKERS_READY_S, WORKER_READY_S = 60.0, 3.0
# A worker that is not connected to the cluster within this time is not waited for any longer.
LATEST_BEGIN_S = 10.0
# A worker and its master are told to end within this time, where all of a service is.
OWN_SIGNAL_S = 0.1
NO_WORKER = "no worker is left; start it again"

logger = logging.getLogger(__name__)


class EngineError(RaftloadError):
    """The run cannot be started: one line that says why and what to do."""


class Session:
    """A Locust master and its workers. `start` it, and `close` it.

    Takes the scenario, the worker processes of this machine as `processes.fork_workers` made them for it, a folder
    for the master's log, how many workers of other machines to wait for, the address and port at which those find the
    master (port 0: any), and how to reach the cluster.

    Attributes:
        alarm: where what listeners raise ends the run, from now until `close`.
        environment: Locust's, of the master.
        workers: the worker processes, in the order of their numbers; those of other machines follow.
        prefix: of the keys of the run that is on; what workers report of another is passed over.
        begun: when each worker was connected and started its users, by its client id, in seconds of the monotonic
            clock.
        done: why each worker stopped, by its client id; ``done_at``: when, in seconds of the monotonic clock.
        snapshots: what each worker last counted, by its client id.
        starter: lets users begin together, where the scenario's do.
        series: latencies from when an operation was due, over all workers; ``service``: from when it was sent.
        live: who else hears of each report of the run that is on; None for nobody.
        run: the run that is on, or the last one.
        exporter: what serves /metrics of its runs; None where nothing does.
    """

    def __init__(
        self,
        scenario: str,
        workers: Sequence[WorkerProcess],
        logs: Path,
        expected: int = 0,
        bind: tuple[str, int] = ("127.0.0.1", 0),
        security: Security | None = None,
    ) -> None:
        patching.import_locust()
        # Registers what hears of every session; what hears of this one is taken away with it.
        import loadgen.load.user  # noqa: F401

        set_master_timing()
        install_microseconds()
        self.run: Run | None = None
        self.exporter: Exporter | None = None
        self._expect("")
        self.scenario = scenario
        self.security = security or Security()
        self.alarm = listening.Alarm(logs / "master.log")
        self.alarm.install()
        self._listeners = contextlib.ExitStack()
        self._listeners.enter_context(listeners_kept())
        try:
            self._make(workers, expected, bind)
        except BaseException:
            for worker in workers:
                worker.end()
            self._listeners.close()
            self.alarm.close()
            raise

    def _make(self, workers: Sequence[WorkerProcess], expected: int, bind: tuple[str, int]) -> None:
        self.environment = make_environment(self.scenario)
        self.environment.raftload_engine = self
        self._processes = [*workers]
        self.workers: list[WorkerProcess | RemoteWorker] = [*workers]
        # Each message asks who sent it.
        self._by_id: dict[str, WorkerProcess | RemoteWorker] = {}
        self._local = "127.0.0.1" if bind[0] in ("0.0.0.0", "*") else bind[0]
        wanted = identity(self.scenario)
        # From here on messages may come, at every turn of the event loop: what they are for has to be there.
        runner = self.runner = self._listen(*bind)
        self.remote = RemoteWorkers(runner, wanted, expected, len(workers) + 1)
        self.starter = Starter(self.environment)
        listening.handle(runner, HELLO, self._on_hello)
        listening.handle(runner, BEGUN, self._on_begun)
        listening.handle(runner, DONE, self._on_done)
        listening.handle(runner, FAILED, self._on_failed)
        listening.listen(self.environment.events.worker_report, self._on_report)

    def start(self) -> None:
        """Have the workers of this machine report for work. The first may do so before the last is told."""
        for worker in self._processes:
            worker.start(self._local, port_of(self.runner))

    def _listen(self, host: str, port: int) -> MasterRunner:
        from locust.exception import RPCError

        try:
            return self.environment.create_master_runner(host if host != "0.0.0.0" else "*", port)
        except RPCError as error:
            raise EngineError(f"cannot listen for workers on {host}:{port}: {error}; name another --bind") from error

    def prepare(self, settings: Settings, users: int) -> None:
        """Have the next test that Locust starts be a run. Takes its load, with the prefix of its keys, and its users.

        What workers reported of the run before is forgotten.
        """
        environment = self.environment
        environment.parsed_options.num_users = users
        keyspace.share_out(environment, settings)
        environment.host = ",".join(settings.endpoints)
        # Users in mid-operation are waited for until their deadline, and a little.
        environment.stop_timeout = settings.timeout_s + 0.5
        self._expect(settings.prefix.decode("ascii"))

    def _expect(self, prefix: str) -> None:
        self.prefix = prefix
        self.begun: dict[str, float] = {}
        self.done: dict[str, str] = {}
        self.done_at: dict[str, float] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.series, self.service = Series(), Series()
        self.live: Live | None = None

    def wait_ready(self, wait_s: float = 60.0, say: Callable[[str], None] | None = None) -> None:
        """Wait until every worker has reported for work. Raises EngineError where one does not.

        Takes the seconds to wait for other machines, and a function that is told who has reported from them.
        """
        began = time.monotonic()
        here_s = WORKERS_READY_S + WORKER_READY_S * len(self.workers)
        told = ""
        while True:
            for worker in self._processes:
                self._check_lives(worker)
            if all(worker.client_id for worker in self.workers) and self.remote.complete:
                break
            if self.remote.expected and say is not None and told != (told := self.remote.describe()):
                say(told)
            waited_s = time.monotonic() - began
            if waited_s > here_s and not all(worker.client_id for worker in self.workers):
                log = self.workers[0].log
                raise EngineError(f"the workers were not ready within {here_s:.0f} s; see {log}", refers_to=log)
            if waited_s > wait_s and not self.remote.complete:
                raise EngineError(
                    f"after {waited_s:.0f} s there are {self.remote.describe()}; on each other machine start "
                    f"`raftload worker --master-host ADDRESS --master-port {port_of(self.runner)}`"
                )
            gevent.sleep(0.01)
        if say is not None and self.remote.expected and told != self.remote.describe():
            say(self.remote.describe())
        self.workers += self.remote.workers
        self._by_id |= {worker.client_id: worker for worker in self.remote.workers}
        self.remote.close({worker.client_id or "" for worker in self.workers})

    def _check_lives(self, worker: WorkerProcess) -> None:
        """Raise EngineError where a worker has ended before the load."""
        death = worker.death()
        if death is None:
            return
        self.inquire(worker)
        if worker.told:
            # Whoever ends a service or a container tells all of its processes: the master, too, which then says so.
            gevent.sleep(OWN_SIGNAL_S)
            raise EngineError(f"{worker.name} was {death} before the load")
        raise EngineError(f"{worker.name} did not start, {death}: {worker.last_words()}")

    def fire_init(self, web_ui: WebUI | None = None) -> None:
        """Tell the scenario's listeners that the environment is there, as plain Locust does."""
        self.environment.events.init.fire(environment=self.environment, runner=self.runner, web_ui=web_ui)

    @property
    def has_begun(self) -> bool:
        """Whether every worker of this run is connected to the cluster and has started its users."""
        return all(worker.client_id in self.begun for worker in self.workers if not worker.gone)

    def worker_of(self, client_id: str) -> WorkerProcess | RemoteWorker | None:
        """Return the worker behind a client id of Locust's protocol."""
        return self._by_id.get(client_id)

    def bury(self, client_id: str) -> None:
        """Let Locust know that a worker is lost: it would wait for its users at the end of the test, and we before."""
        self.starter.lose(client_id)
        bury(self.runner, client_id)

    def inquire(self, worker: WorkerProcess | RemoteWorker) -> None:
        """End the run where a worker's end is a bug of ours that it could not tell of. Takes one that has ended."""
        if isinstance(worker, WorkerProcess) and worker.failed:
            words = worker.last_words().partition(": internal error: ")[2].partition("; please report")[0]
            what = f"{worker.name}: {words or worker.death()}"
            self.alarm.ring(Failure(exits.BUG, what, "", worker.log))

    def halt(self) -> None:
        """End the workers of this machine at once, in mid-operation, and tell the others to quit."""
        for worker in self._processes:
            worker.end(grace_s=0)
        self.remote.dismiss()

    @property
    def is_deserted(self) -> bool:
        """Whether no worker is left: Locust would start nothing, and tell nobody."""
        return all(worker.gone and worker.death() for worker in self.workers)

    def drop_dead(self) -> list[str]:
        """Go on without the workers that have ended; return a sentence about each.

        Raises EngineError where none is left.
        """
        dead = [(worker, death) for worker in self.workers if worker.gone and (death := worker.death())]
        for worker, _ in dead:
            self.workers.remove(worker)
            self._by_id.pop(worker.client_id or "", None)
            forget(self.runner, worker.client_id or "")
        if not self.workers:
            raise EngineError(NO_WORKER)
        return [f"{worker.name} was lost before this run ({death})" for worker, death in dead]

    def stop_workers(self) -> None:
        """Have every worker stop its users."""
        stop_workers(self.runner)

    def close(self) -> None:
        """End the workers and the master's greenlets; nothing stays."""
        # What is reported from now on changes nothing any more.
        with self.alarm.held():
            for worker in self._processes:
                worker.end()
            self.remote.dismiss()
            # Time for "quit" to leave, where it goes to another machine.
            close_master(self.runner, linger_ms=1000 if self.remote.workers else 0)
        self._listeners.close()
        self.alarm.close()

    def _on_hello(self, client_id: str, hello: Hello) -> None:
        # Whoever reaches the port of workers of other machines can send anything.
        number = hello.get("number") or 0
        if number == 0:
            self.remote.hello(client_id, hello)
        for worker in self._processes:
            if worker.number == number:
                self._by_id.pop(worker.client_id or "", None)
                worker.client_id = client_id
                self._by_id[client_id] = worker

    def _on_begun(self, client_id: str, begun: Begun) -> None:
        if self.worker_of(client_id) is not None and begun["prefix"] == self.prefix:
            self.begun[client_id] = time.monotonic()

    def _on_done(self, client_id: str, done: Done) -> None:
        # One that is told to end after its share says so again.
        if self.worker_of(client_id) is None or client_id in self.done:
            return
        self.done[client_id] = done["reason"]
        self.done_at[client_id] = time.monotonic()
        if client_id not in self.begun:
            # Told to end before it had users: the others need not wait for them.
            self.bury(client_id)

    def _on_failed(self, client_id: str, failed: Failed) -> None:
        worker = self.worker_of(client_id) or self.remote.worker_of(client_id)
        if worker is None:
            logger.warning("a worker that is not of this session failed: %s", failed)
            return
        failure = listening.from_message(failed, worker.name, worker.log or self.alarm.log)
        logger.critical("the run ends: %s\n%s", failure.what, failure.trace)
        self.alarm.ring(failure)

    def _on_report(self, client_id: str, data: Stats, **_: object) -> None:
        # A run of the web UI may begin while the last words of the one before are on their way.
        worker = self.worker_of(client_id)
        report = Report.read(data)
        if worker is None or report is None or report.snapshot["prefix"] != self.prefix:
            return
        self.snapshots[client_id] = report.snapshot
        offset_ns = worker.clock_offset_ns if isinstance(worker, RemoteWorker) else 0
        correct(report.snapshot["totals"], offset_ns)
        shift = -round(offset_ns / TICK_NS)
        self.series.add(report.series, shift)
        self.service.add(report.service, shift)
        if self.live is not None:
            self.live.hear(client_id, report, shift)
