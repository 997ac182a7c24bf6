"""The worker's side of a chaos run: users that ask for everything, watchers beside them, and one history of it all.

A worker's users share a client for each member, so every operation is known to have gone to one; user n asks member n
modulo their number. What they did and saw is in ``<run folder>/history/worker-<n>.hist``. The watchers outlive the
users: when the master has healed the cluster it says up to which revision they must have seen, and they end after it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, ClassVar

import gevent
from gevent import GreenletExit
from locust import task
from locust.exception import StopUser

from cluster.base import exits
from cluster.base.security import Security
from loadgen.chaos.traffic import SeenStore, Shape, ShapeFields, Traffic
from loadgen.chaos.watch_streams import WatcherOptions, Watchers
from loadgen.client.etcd import EtcdClient
from loadgen.history.format import SUFFIX
from loadgen.history.operation import REFUSAL, Operation, Outcome
from loadgen.history.writer import HistoryWriter
from loadgen.load import listening
from loadgen.load.protocol import CHAOS_OPTION, CLOSE, CLOSED, SUSPECT, UNWRITTEN, Close
from loadgen.load.user import RunUser  # brings the parameters of the load to Locust's command line
from loadgen.load.worker_run import Load
from loadgen.proto import etcd_pb2 as pb

if TYPE_CHECKING:
    from loadgen.load.locust_types import Environment, Runner, WorkerRunner

# A member that is down refuses at once: what is asked meanwhile is nothing but refusals.
_AFTER_FAILURE_S = 0.02

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class ChaosSettings:
    """What the master tells every worker of a chaos run, as one JSON text among Locust's options.

    Attributes:
        history: folder for the worker's history; empty: none is kept, as under plain Locust.
        shape: of the traffic, without prefix and seed, which are the run's.
        watching: which watchers there are.
    """

    history: str = ""
    shape: ShapeFields = dataclasses.field(default_factory=ShapeFields)
    watching: WatcherOptions = dataclasses.field(default_factory=WatcherOptions)

    def to_option(self) -> str:
        """Return it as text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_option(cls, text: str) -> ChaosSettings:
        """Take what ``to_option`` made, or nothing."""
        values = json.loads(text or "{}")
        return cls(**{**values, "watching": WatcherOptions(**values.get("watching", {}))})


class WorkerState:
    """What the users of one worker share in one run."""

    def __init__(self, load: Load, environment: Environment) -> None:
        settings = load.settings
        options = vars(environment.parsed_options)
        orders = ChaosSettings.from_option(str(options.get(CHAOS_OPTION) or ""))
        self.prefix = settings.prefix
        self.shape = Shape(prefix=settings.prefix, seed=settings.seed, **orders.shape)
        self._runner = environment.runner
        self.known = SeenStore()
        self.history: HistoryWriter | None = None
        if orders.history:
            path = Path(orders.history) / f"worker-{load.rank + 1}{SUFFIX}"
            self.history = HistoryWriter(
                path, failed=self._unwritten, worker=load.rank + 1, prefix=settings.prefix.decode("ascii")
            )
            self.history.flush_every()
        security = Security.from_environment()
        self.clients = [
            EtcdClient([endpoint], timeout_s=settings.timeout_s, history=self.history, security=security)
            for endpoint in settings.endpoints
        ]
        self.watchers = Watchers(
            settings.endpoints, self.shape, orders.watching, self.known, self.history, self.suspect,
            rank=load.rank, workers=load.workers, seed=settings.seed, security=security,
        )  # fmt: skip
        self._suspected = False
        self.watchers.start()

    def suspect(self, seen: str) -> None:
        """Tell the master, once, of an answer or event that cannot be where etcd keeps its promises."""
        if not self._suspected and self.history is not None:
            self._suspected = True
            SUSPECT.send(self._runner, {"seen": seen})

    def _unwritten(self, reason: str) -> None:
        UNWRITTEN.send(self._runner, {"reason": reason})

    def close(self, revision: int, timeout_s: float) -> None:
        """End the watchers once they have seen a revision, or after so many seconds, and close the history."""
        self.watchers.close(revision, timeout_s)
        for client in self.clients:
            client.close()
        if self.history is not None:
            self.history.close()


_states: dict[bytes, WorkerState] = {}


def worker_state(load: Load, environment: Environment) -> WorkerState:
    """Return the state of a worker's present run; make it at the first call, and end that of an earlier run."""
    prefix = load.settings.prefix
    if prefix not in _states:
        for old in list(_states):
            _states.pop(old).close(0, 0.0)
        _states[prefix] = WorkerState(load, environment)
    return _states[prefix]


class ConsistencyUser(RunUser):
    """Asks everything that etcd's promises are about, at one member, as fast as it answers."""

    abstract = True
    mix: ClassVar = {"put": 1.0, "txn": 1.0}

    def on_start(self) -> None:
        """Join the worker's run and share its state."""
        super().on_start()
        self.worker_state = worker_state(self.load, self.environment)
        self.client = self.worker_state.clients[self.process % len(self.worker_state.clients)]
        self.traffic = Traffic(self.worker_state.shape, self.process, self.worker_state.known)

    @task  # type: ignore[untyped-decorator]
    def operate(self) -> None:
        """Do operations until there is none left to do or the test is stopped."""
        load, known, fence = self.load, self.worker_state.known, self.worker_state.shape.fence
        draw, send, record = self.traffic.next, self.client.send, load.record
        while True:
            if self.leaving:
                raise StopUser
            number = load.take()
            if number is None:
                raise StopUser
            request = draw()
            floor = known.acknowledged
            called = perf_counter_ns()
            try:
                message = request.message
                if isinstance(message, pb.LeaseKeepAliveRequest):  # a stream's message, not a call's
                    operation = self.client.lease_keepalive(message.ID, process=self.process)
                else:
                    operation = send(request.f, message, key=request.key, process=self.process)
            except GreenletExit:
                load.record_open(Operation(self.process, request.f, request.key, None, called, called), number)
                raise
            known.learn(request, operation, fence)
            failed = operation.outcome is not Outcome.OK
            if failed and operation.error == request.refusal:
                operation.f, operation.outcome, failed = REFUSAL, Outcome.OK, False
            record(operation, number)
            if failed:
                gevent.sleep(_AFTER_FAILURE_S)
            elif request.linear and operation.f != REFUSAL and operation.revision < floor + (request.f == "put"):
                self.worker_state.suspect(
                    f"{operation.f} of process {operation.process} was answered at revision {operation.revision}, after"
                    f" revision {floor} had been seen"
                )
            if self.paced:
                return


def on_init(environment: Environment, runner: Runner | None = None, **_: object) -> None:
    """Let a worker's runner take the order to close its history; nothing in other processes."""
    from locust import runners

    if not isinstance(runner, runners.WorkerRunner):
        return

    def close(_: str, order: Close) -> None:
        gevent.spawn(_close, runner, order)

    listening.handle(runner, CLOSE, close)


def _close(runner: WorkerRunner, order: Close) -> None:
    problem = None
    for prefix in list(_states):
        try:
            _states.pop(prefix).close(order["revision"], order["timeout_s"])
        except Exception as error:
            logger.exception("the history could not be closed")
            problem = exits.describe(error)
    CLOSED.send(runner, {"problem": problem})
