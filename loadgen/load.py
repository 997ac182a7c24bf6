"""The worker's side of a run: what all users of one worker share, and how the worker says that it is done.

A `Load` hangs on a Locust environment and lives as long. At every start of a test it reads the run's settings
as Locust's master sent them, opens the client, and hands out operations to the users until the worker's share
is used up or the test is stopped. Then it sends the last statistics and one `DONE` message, in this order, on
the one connection to the master; so a master that has seen DONE has seen every operation.
"""

from __future__ import annotations

import gc
import logging
import resource
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

from loadgen import precision
from loadgen.lag import LoopLag
from loadgen.operation import Operation, Outcome
from loadgen.recorder import STOPPED, Recorder
from loadgen.settings import PREFIX_BYTES, Settings
from loadgen.workload import Keys, owed, share

DONE = "raftload_done"
SHARE_DONE = "share done"
REPORT = "raftload"
SERIES = "raftload_series"
MAX_USERS_PER_WORKER = 1 << 16

logger = logging.getLogger(__name__)


def attach(environment: Any) -> Load:
    """Return the load of a Locust environment; make it and hook it in at the first call."""
    load = getattr(environment, "raftload", None)
    if load is None:
        load = environment.raftload = Load(environment)
    assert isinstance(load, Load)
    return load


class Load:
    """What the users of one worker share.

    Attributes:
        settings: of the present run.
        client: the present run's client of etcd.
        keys: the present run's keys.
        revisions: the revision at which this worker last saw each key modified, for compare-and-swap.
        sinks: called with every finished operation and whether it is measured (those of the warm-up are not), in
            the user that did it; for histories and raw samples. They must not wait. Empty, they cost nothing.
    """

    settings: Settings
    client: Any
    keys: Keys
    revisions: dict[bytes, int]

    def __init__(self, environment: Any) -> None:
        precision.install()
        self._environment = environment
        self._running = False
        self._begun = False
        self._ended = Event()
        self.sinks: list[Callable[[Operation, bool], None]] = []
        events = environment.events
        events.test_start.add_listener(self._on_test_start)
        events.test_stop.add_listener(self._on_test_stop)
        # First in line: Locust's own listener takes the statistics that this one completes.
        events.report_to_master._handlers.insert(0, self._on_report_to_master)

    # -- the run --------------------------------------------------------------------------------------------

    def _on_test_start(self, environment: Any, **_: Any) -> None:
        from locust.runners import MasterRunner

        if isinstance(environment.runner, MasterRunner):
            return
        self._begun = False
        options = vars(environment.parsed_options)
        endpoints = tuple(e.strip() for e in str(environment.host or "").split(",") if e.strip())
        self.settings = Settings.from_options(options, endpoints)
        if len(self.settings.prefix) != PREFIX_BYTES:
            raise ValueError("the run has no key prefix; was the master started by raftload or its locustfiles?")
        rank, workers = _rank(environment.runner, options)
        quota, self._offset = share(self.settings.operations, workers, rank)
        self._quota = quota if rank < workers else 0
        self._taken = 0
        self._rank = rank
        self._next_user = 0
        self._active = 0
        self.keys = Keys(self.settings)
        self.revisions = {}
        self.recorder = Recorder(environment)
        self.warmup = Recorder(environment)
        self._warm_until_ns = time.perf_counter_ns() + round(self.settings.warmup_s * 1e9)
        self._cpu_started: float | None = None
        self._cpu_s = 0.0
        self.client = _open_client(self.settings)
        # What importing Locust left on the heap would be walked by every full collection, 20 ms at a time.
        gc.collect()
        gc.freeze()
        self._lag = LoopLag(gevent.get_hub())
        self._ended.clear()
        self._running = self._begun = True
        if not _is_distributed(environment.runner):
            gevent.spawn(self._flush_every_second)
        if self._quota == 0:
            # No user may ever be started here, so nobody else would say that the share is done.
            gevent.spawn(self._finish, SHARE_DONE)

    def user_started(self) -> int:
        """Count a user in; return its process number, unique in the run."""
        self._active += 1
        self._next_user += 1
        return self._rank * MAX_USERS_PER_WORKER + self._next_user

    def user_stopped(self) -> None:
        """Count a user out; the last one out after the share was used up ends the worker's run."""
        self._active -= 1
        if self._active == 0 and self._quota is not None and self._taken >= self._quota:
            gevent.spawn(self._finish, SHARE_DONE)

    def take(self) -> int | None:
        """Return the number, from 0, of the worker's next operation; None when its share is used up.

        During the warm-up operations are not numbered: the answer is -1.
        """
        if self._cpu_started is None:
            if time.perf_counter_ns() < self._warm_until_ns:
                return -1
            self._cpu_started = _cpu_seconds()
            self._lag.stop()
            self._lag = LoopLag(gevent.get_hub())
        taken = self._taken
        if self._quota is not None and taken >= self._quota:
            return None
        self._taken = taken + 1
        return taken

    def owed(self, number: int) -> str | None:
        """Return the type that operation ``number`` of this worker must have, None for any."""
        return owed(self.settings, self._offset, number) if number >= 0 else None

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

    # -- the end --------------------------------------------------------------------------------------------

    def _on_test_stop(self, environment: Any, **_: Any) -> None:
        if self._running:
            self._finish("stopped")

    def _finish(self, reason: str) -> None:
        """Send the last statistics, then DONE. Only the first call of a run does anything."""
        if not self._running:
            self._ended.wait(timeout=5)
            return
        self._running = False
        runner = self._environment.runner
        if self._cpu_started is not None:
            self._cpu_s = _cpu_seconds() - self._cpu_started
        self._lag.stop()
        self.client.close()
        if _is_distributed(runner):
            runner._send_stats()
            runner.send_message(DONE, {"reason": reason, "rank": self._rank})
            # Locust waits this long after a stop before the worker is ready again; it is drained already.
            self._environment.stop_timeout = 0
        else:
            self.recorder.flush()
            if reason == SHARE_DONE:
                gevent.spawn(runner.quit if self._environment.web_ui is None else runner.stop)
        self._ended.set()

    def _on_report_to_master(self, client_id: str, data: dict[str, Any]) -> None:
        if not self._begun:
            return
        self.recorder.flush()
        data[REPORT] = self.snapshot()
        data[SERIES] = self.recorder.take_series()

    def _flush_every_second(self) -> None:
        while self._running:
            gevent.sleep(1)
            self.recorder.flush()

    def snapshot(self) -> dict[str, Any]:
        """Return what this worker did since the run's start, as plain numbers for the master.

        ``cpu_s`` is user and system time of this process since its first measured operation, and ``wall_s`` the
        time itself, in seconds.
        """
        cpu_s = self._cpu_s
        if self._running and self._cpu_started is not None:
            cpu_s = _cpu_seconds() - self._cpu_started
        offset = self.recorder.clock_offset_ns
        # The gateway's client has no channel: a user has one request under way at the most, and none is resent.
        channel = getattr(self.client, "channel", None)
        return {
            "prefix": self.settings.prefix.decode("ascii"),
            "totals": {f: totals.as_dict(offset) for f, totals in self.recorder.totals.items()},
            "warmup": {f: totals.as_dict(offset) for f, totals in self.warmup.totals.items()},
            "cpu_s": cpu_s,
            "wall_s": self._lag.watched_s,
            "in_flight_max": getattr(channel, "in_flight_max", self._next_user),
            "resent": getattr(channel, "resent", 0),
            "loop_lag_p99_ms": self._lag.percentile_ms(0.99),
        }


def _open_client(settings: Settings) -> Any:
    """Return a connected client for the settings' transport."""
    if settings.transport == "gateway":
        from loadgen.gateway import GatewayClient

        return GatewayClient(settings.endpoints, timeout_s=settings.timeout_s)
    from loadgen.etcd import EtcdClient

    client = EtcdClient(settings.endpoints, timeout_s=settings.timeout_s, connections=settings.connections)
    # Connect before the first operation, or its latency would be that of a TCP handshake. What this cannot
    # reach the operations will not either, and they say so.
    client.get(settings.prefix, serializable=True)
    return client


def _rank(runner: Any, options: dict[str, Any]) -> tuple[int, int]:
    """Return this worker's place in the run and how many share it, as the master wrote them down."""
    ranks = str(options.get("worker_ranks") or "").split(",")
    client_id = getattr(runner, "client_id", "")
    if ranks == [""]:
        return 0, 1
    return (ranks.index(client_id) if client_id in ranks else len(ranks)), len(ranks)


def _is_distributed(runner: Any) -> bool:
    from locust.runners import LocalRunner

    return runner is not None and not isinstance(runner, LocalRunner)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
