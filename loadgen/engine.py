"""One distributed run: Locust's master in this process, its workers in theirs, and the run folder.

A `Session` is a master with its workers, ready for any number of runs one after the other (the web UI's way);
a `Run` is one test from the choice of its keys to `result.json`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

from cluster.security import Security
from loadgen import generator, keyspace, load, precision, report, runfolder
from loadgen.etcd import EtcdClient
from loadgen.fleet import HELLO, Fleet, RemoteWorker, correct, identity
from loadgen.kv import WRITES_NOTHING
from loadgen.processes import WorkerProcess
from loadgen.series import Series
from loadgen.settings import Settings
from loadgen.target import Target
from loadgen.units import DELIVERY
from loadgen.witness import Witness
from loadgen.worker import REPORT_INTERVAL_S, make_environment

# Workers of this machine import Locust before they report, a second of a core each, and share the cores.
WORKERS_READY_S, WORKER_READY_S = 60.0, 3.0
# After the last operation's deadline, how long a worker may take to report before it is given up.
REPORT_GRACE_S = 10.0
NO_ANSWER = "did not answer to stop"
# Time for workers to get ready for a schedule that all of them begin at one moment.
OPEN_LOOP_LEAD_NS = 500_000_000

# A worker is called slow when its share took it so many times as long as half of the workers needed, and a second more.
SLOW_FACTOR = 1.5
WORKER_FIELDS = ("cpu_share", "loop_lag_p99_ms", "start_lag_p99_ms", "in_flight_max")
CLOCK_WORTH_SAYING_NS = 100_000_000

logger = logging.getLogger(__name__)


class EngineError(Exception):
    """The run cannot be started: one line that says why and what to do. The exit code is 4."""


class Session:
    """A Locust master and its workers.

    Takes the scenario, how many worker processes to start here and a folder for their logs, how many workers of
    other machines to wait for, the address and port at which those find the master (port 0: any), and how to reach
    the cluster.

    Attributes:
        environment: Locust's, of the master.
        workers: the worker processes, in the order of their numbers; those of other machines follow.
    """

    def __init__(
        self,
        scenario: str,
        workers: int,
        logs: Path,
        expected: int = 0,
        bind: tuple[str, int] = ("127.0.0.1", 0),
        security: Security | None = None,
    ) -> None:
        from locust import runners

        _raise_open_files_limit()
        runners.WORKER_REPORT_INTERVAL = REPORT_INTERVAL_S
        # Locust would drop a worker a minute after its last sign of life and start the test's users anew.
        runners.HEARTBEAT_DEAD_INTERNAL = -(10**9)
        precision.install()
        self.scenario = scenario
        self.security = security or Security()
        self.environment = make_environment(scenario)
        self.environment.raftload_engine = self
        runner = self.runner = self._listen(*bind)
        runner.register_message(HELLO, self._on_hello)
        runner.register_message(load.DONE, self._on_done)
        self.environment.events.worker_report.add_listener(self._on_report)
        self._ready = Event()
        self.done: dict[str, str] = {}
        self.done_at: dict[str, float] = {}
        self.snapshots: dict[str, dict[str, Any]] = {}
        self.fleet = Fleet(runner, identity(scenario), expected, workers + 1)
        local = "127.0.0.1" if bind[0] in ("0.0.0.0", "*") else bind[0]
        self.workers: list[WorkerProcess | RemoteWorker] = [
            WorkerProcess(n, local, runner.server.port, scenario, logs / f"worker-{n}.log", self.security)
            for n in range(1, workers + 1)
        ]
        self.series, self.service = Series(), Series()
        self.prefix = ""

    def _listen(self, host: str, port: int) -> Any:
        from locust.exception import RPCError

        try:
            return self.environment.create_master_runner(host if host != "0.0.0.0" else "*", port)
        except RPCError as error:
            raise EngineError(f"cannot listen for workers on {host}:{port}: {error}; name another --bind") from error

    def wait_ready(self, wait_s: float = 60.0, say: Callable[[str], None] | None = None) -> None:
        """Wait until every worker has reported for work. Raises EngineError where one does not.

        Takes the seconds to wait for other machines, and a function that is told who has reported from them.
        """
        began = time.monotonic()
        here_s = WORKERS_READY_S + WORKER_READY_S * len(self.workers)
        told = ""
        while not (all(worker.client_id for worker in self.workers) and self.fleet.complete):
            for worker in self.workers:
                if death := worker.death():
                    raise EngineError(f"{worker.name} did not start, {death}: {worker.last_words()}")
            if self.fleet.expected and say is not None and told != (told := self.fleet.describe()):
                say(told)
            waited_s = time.monotonic() - began
            if waited_s > here_s and not all(worker.client_id for worker in self.workers):
                raise EngineError(f"the workers were not ready within {here_s:.0f} s; see {self.workers[0].log}")
            if waited_s > wait_s and not self.fleet.complete:
                raise EngineError(
                    f"after {waited_s:.0f} s there are {self.fleet.describe()}; on each other machine start "
                    f"`raftload worker --master-host ADDRESS --master-port {self.runner.server.port}`"
                )
            gevent.sleep(0.01)
        if say is not None and self.fleet.expected and told != self.fleet.describe():
            say(self.fleet.describe())
        self.workers += self.fleet.workers
        self.fleet.close({worker.client_id or "" for worker in self.workers})

    def fire_init(self, web_ui: Any = None) -> None:
        """Tell the scenario's listeners that the environment is there, as plain Locust does."""
        self.environment.events.init.fire(environment=self.environment, runner=self.runner, web_ui=web_ui)

    def worker_of(self, client_id: str) -> WorkerProcess | RemoteWorker | None:
        """Return the worker behind a client id of Locust's protocol."""
        return next((w for w in self.workers if w.client_id == client_id), None)

    def stop_workers(self) -> None:
        """Have every worker stop its users. What `MasterRunner.stop` does, without its wait in whole seconds."""
        from locust.runners import STATE_STOPPING

        runner = self.runner
        runner.environment.events.test_stopping.fire(environment=self.environment)
        runner.update_state(STATE_STOPPING)
        # While there is a dispatcher, Locust gives the users of a worker that stops to those that still run.
        runner._users_dispatcher = None
        runner.send_message("stop")

    def close(self) -> None:
        """End the workers and the master's greenlets; nothing stays."""
        for worker in self.workers:
            worker.end()
        self.fleet.dismiss()
        self.runner.greenlet.kill(block=True)
        # Milliseconds for "quit" to leave, where it goes to another machine.
        self.runner.server.close(linger=1000 if self.fleet.workers else 0)

    def _on_hello(self, environment: Any, msg: Any, **_: Any) -> None:
        if msg.data["number"] == 0:
            self.fleet.hello(msg.node_id, msg.data)
        for worker in self.workers:
            if worker.number == msg.data["number"]:
                worker.client_id = msg.node_id

    def _on_done(self, environment: Any, msg: Any, **_: Any) -> None:
        self.done[msg.node_id] = msg.data["reason"]
        self.done_at[msg.node_id] = time.monotonic()

    def _on_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        # A run of the web UI may begin while the last words of the one before are on their way.
        if load.REPORT not in data or data[load.REPORT]["prefix"] != self.prefix:
            return
        snapshot = self.snapshots[client_id] = data[load.REPORT]
        worker = self.worker_of(client_id)
        offset_ns = worker.clock_offset_ns if isinstance(worker, RemoteWorker) else 0
        correct(snapshot["totals"], offset_ns)
        shift_s = -round(offset_ns / 1e9)
        self.series.add(data[load.SERIES], shift_s)
        self.service.add(data[load.SERVICE], shift_s)


@dataclasses.dataclass
class Plan:
    """What a run is to do and where it goes.

    Attributes:
        users: Locust users over all workers.
        duration_s: after how many seconds to stop, None to go on until the operations are done.
        keep: leave the run's keys in the cluster.
        command: the command line, for the record.
        thresholds: expressions that judge the result.
        allow_rate_miss: an open loop that did not keep its schedule can still pass.
    """

    settings: Settings
    users: int
    duration_s: float | None = None
    keep: bool = False
    command: tuple[str, ...] = ()
    thresholds: tuple[str, ...] = ()
    allow_rate_miss: bool = False


class Run:
    """One test on a session, from its keys to its result.

    Attributes:
        revision_before: of the store, before the load.
        blocks: what else is to stand in run.json, by name.
    """

    def __init__(self, session: Session, target: Target, plan: Plan, folder: Path) -> None:
        self._session = session
        self._target = target
        self._plan = plan
        self.folder = folder
        self.interrupted: str | None = None
        self.lost: dict[str, str] = {}
        self._stop_asked_at: float | None = None
        self._problems: list[str] = []
        self._notes: list[str] = []
        self._started_at = runfolder.utc_now()
        self.blocks: dict[str, Any] = {}

    def begin(self) -> None:
        """Choose and write the keys, open the files, and note what the cluster is before the load.

        Raises KeySpaceError, FolderError.
        """
        session, plan = self._session, self._plan
        self._witness = Witness(self.folder, self._target.watched(), self._target.security)
        self._client = EtcdClient(
            plan.settings.endpoints, timeout_s=max(10.0, plan.settings.timeout_s), security=session.security
        )
        self._space = keyspace.KeySpace(self._client, plan.settings)
        self.settings = self._space.prepare()
        options = session.environment.parsed_options
        options.num_users = plan.users
        keyspace.share_out(session.environment, self.settings)
        session.environment.host = ",".join(self.settings.endpoints)
        # Users in mid-operation are waited for until their deadline, and a little.
        session.environment.stop_timeout = self.settings.timeout_s + 0.5
        session.done.clear()
        session.done_at.clear()
        session.snapshots.clear()
        session.series, session.service, session.prefix = Series(), Series(), self.settings.prefix.decode("ascii")
        self._target.before()
        self.revision_before = self._space.revision()
        self._csv = runfolder.LocustCsv(session.environment, self.folder)
        self._write_run_json({}, None)
        self._witness.load_begins()

    def start(self) -> None:
        """Let Locust start the users."""
        self._clock_started = time.monotonic()
        runner, users = self._session.runner, self._plan.users
        options = self._session.environment.parsed_options
        setattr(options, load.START_OPTION, time.time_ns() + OPEN_LOOP_LEAD_NS)
        self._starter = gevent.spawn(runner.start, users, max(users, 1))

    def wait(self, tick: Callable[[Run], None] | None = None) -> None:
        """Wait until every worker has done its share, or has stopped after `ask_stop`, or is lost.

        Takes a function to call ten times a second, for a progress line.
        """
        while not self._over():
            gevent.sleep(0.02 if self.elapsed_s < 2 else 0.1)
            if self._plan.duration_s is not None and self.elapsed_s > self._plan.duration_s + self._before_and_after_s:
                self.ask_stop()
            if tick is not None:
                tick(self)

    @property
    def _before_and_after_s(self) -> float:
        """What a run of a given duration takes beside it; the workers of an open loop know its end themselves."""
        settings = self.settings
        grace_s = settings.timeout_s + REPORT_GRACE_S if settings.schedule() else 0.0
        return settings.warmup_s + grace_s

    def ask_stop(self, signal_name: str | None = None) -> None:
        """Have the workers stop issuing operations and wait for those that are open."""
        if signal_name is not None and self.interrupted is None:
            self.interrupted = signal_name
        if self._stop_asked_at is None:
            self._stop_asked_at = time.monotonic()
            if self._starter is not None:
                self._starter.join(timeout=1)
            self._session.stop_workers()

    def started_by_locust(self) -> None:
        """Note that Locust is starting the users by itself: the web UI asked it to."""
        self._clock_started = time.monotonic()
        self._starter = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the users were started."""
        return time.monotonic() - self._clock_started

    @property
    def stats(self) -> Any:
        """Locust's statistics of the run so far."""
        return self._session.environment.stats

    def finish(self) -> dict[str, Any]:
        """Close the books, remove the keys, write the run folder and return the result document.

        Raises FolderError. What the cluster no longer answers is a problem in the result, not an error.
        """
        revision_after: int | None = None
        self._witness.load_ended()
        with self._noting("close the books"):
            revision_after = self._space.revision()
        with self._noting("ask the cluster's members"):
            self._target.after()
        if not self._plan.keep:
            with self._noting("remove the run's keys"):
                self._space.remove()
        self._client.close()
        with self._noting("gather what the members said"):
            self._target.observer = self._witness.close()
        if self._starter is not None:
            self._starter.kill()
        self._csv.close()
        measured = self._measured()
        self._write_series(measured)
        self._write_run_json(measured, revision_after)
        return report.write(self.folder)

    def abandon(self) -> None:
        """Remove the keys and close the files of a run that was begun and will not be finished."""
        self._witness.abandon()
        with contextlib.suppress(Exception):
            self._csv.close()
        with contextlib.suppress(Exception):
            self._space.remove()
            self._client.close()

    # -- watching the workers -------------------------------------------------------------------------------

    def _over(self) -> bool:
        session, over = self._session, True
        for worker in session.workers:
            client_id = worker.client_id or ""
            if isinstance(worker, RemoteWorker) and worker.name in self.lost and self._is_back(worker):
                # It was cut off for a while; its reports have waited for the network, so nothing is missing.
                self._notes.append(f"{worker.name} was {self.lost.pop(worker.name)}, and came back: it counts")
            if client_id in session.done or worker.name in self.lost:
                continue
            if death := worker.death():
                # It may have reported and left between the two looks.
                gevent.sleep(0.2)
                if client_id not in session.done:
                    self.lost[worker.name] = death
                continue
            asked = self._stop_asked_at
            if asked is not None and time.monotonic() > asked + self.settings.timeout_s + REPORT_GRACE_S:
                self.lost[worker.name] = NO_ANSWER
                continue
            over = False
        return over

    def _is_back(self, worker: RemoteWorker) -> bool:
        return self.lost[worker.name] != NO_ANSWER and worker.death() is None

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._problems.append(f"could not {what}: {error}")

    # -- the record -----------------------------------------------------------------------------------------

    def _snapshots(self) -> list[dict[str, Any]]:
        return list(self._session.snapshots.values())

    def _write_series(self, measured: dict[str, Any]) -> None:
        """Write the seconds and the distributions, and hold them against what the workers counted."""
        session = self._session
        series = session.series
        try:
            series.write(self.folder)
            session.service.write_logs(self.folder, ".service")
        except OSError as error:
            raise runfolder.FolderError(f"cannot write into {self.folder}: {error.strerror}") from error
        for f, row in measured.items():
            there = series.summaries[f].count if f in series.summaries else 0
            if there != row["succeeded"]:
                self._problems.append(f"{f}: the workers counted {row['succeeded']} successes, and series.csv {there}")

    def _measured(self) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for snapshot in self._snapshots():
            for f, totals in snapshot["totals"].items():
                for name in (f, "total"):
                    _accumulate(rows.setdefault(name, {}), totals)
        measured = {f: _measured_row(row, f) for f, row in rows.items()}
        for f, summary in self._session.service.summaries.items():
            measured[f]["service"] = summary.latencies()
        return measured

    def _books(self, revision_after: int | None) -> dict[str, Any]:
        ok = info = 0
        unsure = False
        for snapshot in self._snapshots():
            for part in ("totals", "warmup"):
                for f, totals in snapshot[part].items():
                    if f in WRITES_NOTHING:
                        continue
                    told = totals["committed"] + totals["not_committed"]
                    ok += totals["succeeded"] if f == "put" else totals["committed"]
                    info += totals["info"]
                    # As of a lease that was revoked, of which nobody knows whether it had keys.
                    unsure = unsure or (f != "put" and told != totals["succeeded"])
        delta = None if revision_after is None else revision_after - self.revision_before
        # A lost worker's last second is unknown, and on a cluster that is not ours others may have written.
        known = delta is not None and not self.lost and self._target.ours and not unsure
        return {
            "revision_before": self.revision_before,
            "revision_after": revision_after,
            "revision_delta": delta,
            "writes_ok": ok,
            "writes_info": info,
            "balanced": ok <= delta <= ok + info if known and delta is not None else None,
        }

    def _generator(self, measured: dict[str, Any]) -> dict[str, Any]:
        total = self.stats.total
        p99 = precision.percentile(total, 0.99) if total.response_times else None
        return {
            **generator.block(self._snapshots(), measured.get("total", {}).get("operations", 0), p99),
            "workers_started": len(self._session.workers),
            "workers_lost": len(self.lost),
            "workers": self._workers(),
        }

    def _workers(self) -> list[dict[str, Any]]:
        """What each worker did; null for what one that was lost did not say."""
        session, rows = self._session, []
        for worker in session.workers:
            snapshot = session.snapshots.get(worker.client_id or "")
            remote = worker if isinstance(worker, RemoteWorker) else None
            done = sum(row["succeeded"] + row["failed"] for row in snapshot["totals"].values()) if snapshot else None
            error_ns = remote.clock_error_ns if remote else None
            rows.append({
                "name": worker.name,
                "host": remote.host if remote else None,
                "operations": done,
                "cpu_us_per_op": round(snapshot["cpu_s"] / done * 1e6, 3) if snapshot and done else None,
                **(generator.of_worker(snapshot) if snapshot else dict.fromkeys(WORKER_FIELDS)),
                "clock_offset_ms": round(remote.clock_offset_ns / 1e6, 3) if remote else None,
                "clock_error_ms": None if error_ns is None else round(error_ns / 1e6, 3),
                "lost": self.lost.get(worker.name),
            })  # fmt: skip
        return rows

    def _about_workers(self) -> list[str]:
        """Sentences about workers that a reader should know of."""
        session = self._session
        notes = [f"a worker was turned away ({who}): {why}" for who, why in session.fleet.turned_away.items()]
        took = sorted(session.done_at.values())
        if self._stop_asked_at is None and len(took) > 1:
            middle = took[len(took) // 2] - self._clock_started
            for worker in session.workers:
                own = session.done_at.get(worker.client_id or "", 0.0) - self._clock_started
                if own > SLOW_FACTOR * middle + 1.0:
                    notes.append(
                        f"{worker.name} was slow: {own:.1f} s for its share, half of them {middle:.1f} s or less"
                    )
        notes += [
            f"the clock of {worker.host} is {worker.clock_offset_ns / 1e6:+,.1f} ms off ours; its times are corrected"
            for worker in session.fleet.workers
            if abs(worker.clock_offset_ns) > CLOCK_WORTH_SAYING_NS
        ]
        return list(dict.fromkeys(notes))

    def _write_run_json(self, measured: dict[str, Any], revision_after: int | None) -> None:
        plan, settings, ended = self._plan, self.settings, bool(measured) or revision_after is not None
        wanted = settings.operations
        how = self._generator(measured)
        done = sum(row["operations"] for f, row in measured.items() if f not in ("total", DELIVERY))
        if (
            ended
            and wanted
            and done + how["dropped"] != wanted
            and not self.lost
            and not self.interrupted
            and not plan.duration_s
        ):
            self._problems.append(f"{done} of {wanted} operations were executed")
        runfolder.write_json(
            self.folder / "run.json",
            {
                "schema": "raftload.run/1",
                "id": self.folder.name,
                "scenario": self._session.scenario,
                "started_at": runfolder.iso(self._started_at),
                "ended_at": runfolder.iso(runfolder.utc_now()) if ended else None,
                "command": list(plan.command),
                "seed": settings.seed,
                "loop": "open" if settings.schedule() else "closed",
                "rate": settings.rate,
                "stages": settings.stages or None,
                "step": settings.step or None,
                "arrivals": settings.arrivals if settings.schedule() else None,
                "max_in_flight": settings.max_in_flight if settings.schedule() else None,
                "allow_rate_miss": plan.allow_rate_miss,
                "workers": len(self._session.workers),
                "users": plan.users,
                "transport": settings.transport,
                "key_size": settings.key_size,
                "value_size": settings.value_size,
                "key_space": settings.key_space,
                "mix": dict(settings.mix),
                "operations": settings.operations,
                "duration_s": plan.duration_s,
                "connections": settings.connections,
                "balance": settings.balance,
                "timeout_s": settings.timeout_s,
                "warmup_s": settings.warmup_s,
                "read_consistency": settings.read_consistency,
                "prefix": settings.prefix.decode("ascii"),
                "versions": versions(),
                "target": self._target.as_dict(),
                "measured": measured,
                "warmup": self._warmup(),
                "preloaded_keys": self._space.preloaded,
                "generator": how,
                "books": self._books(revision_after),
                "interrupted": self.interrupted,
                "lost_workers": [{"name": name, "reason": reason} for name, reason in self.lost.items()],
                "problems": self._problems,
                "notes": self._notes + self._about_workers() + self._witness.notes,
                "thresholds": list(plan.thresholds),
                **self.blocks,
            },
        )

    def _warmup(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for snapshot in self._snapshots():
            for f, totals in snapshot["warmup"].items():
                total[f] = total.get(f, 0) + totals["succeeded"] + totals["failed"]
        return total


def versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("raftload", "locust", "gevent", "protobuf", "hpack", "pandas"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "source"
    return found


def _accumulate(row: dict[str, int], totals: dict[str, int]) -> None:
    for name, value in totals.items():
        if name == "first_call_ns":
            row[name] = min(row.get(name, value), value)
        elif name == "last_return_ns":
            row[name] = max(row.get(name, value), value)
        else:
            row[name] = row.get(name, 0) + value


def _measured_row(row: dict[str, int], f: str) -> dict[str, Any]:
    measured: dict[str, Any] = {
        "operations": row["succeeded"] + row["failed"],
        "succeeded": row["succeeded"],
        "failed": row["failed"],
        "info": row["info"],
        "duration_s": max(0, row["last_return_ns"] - row["first_call_ns"]) / 1e9,
    }
    if f == "txn" or (f != "total" and row["committed"] + row["not_committed"] > 0):
        measured["branches"] = {"success": row["committed"], "failure": row["not_committed"]}
    return measured


def _raise_open_files_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
