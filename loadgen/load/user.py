"""The Locust users: they take the next operation from the run, carry it out, and record its outcome."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, ClassVar, cast

import gevent
import locust
from gevent import GreenletExit
from locust import User, task
from locust.exception import StopUser

from loadgen.history.operation import Operation
from loadgen.load import interrupt, keyspace, listening, start_line
from loadgen.load.engine_user import EngineUser, carry_out, note_revision
from loadgen.load.settings import add_arguments
from loadgen.load.worker_run import Load, attach
from loadgen.load.workload import Workload

if TYPE_CHECKING:
    from loadgen.client.etcd import EtcdClient
    from loadgen.load.locust_types import Environment, Greenlet


class RunUser(User):  # type: ignore[misc]
    """A user that takes part in a worker's run.

    Attributes:
        load: what the users of the worker share.
        process: its number, unique in the run.
        paced: it has a ``wait_time``. Locust's loop around a task costs a turn of the event loop; users without a pause
            go through it once.
        leaving: it has been told to stop, and begins no operation.
    """

    abstract = True
    leaving = False
    _counted = False

    def on_start(self) -> None:
        """Join the worker's run."""
        load = attach(self.environment).load
        if load is None:
            raise GreenletExit  # The run did not begin, and ends: its alarm says why. Locust logs any other exception.
        self.load: Load = load
        self.process = self.load.user_started()
        self._counted = True
        self.paced = type(self).wait_time is not User.wait_time

    def on_stop(self) -> None:
        """Leave the worker's run."""
        self._leave(None)

    def start(self, group: object) -> Greenlet:
        """Start its greenlet, as Locust has it.

        One that dies of an exception is counted out: Locust notes the exception, and the run must not wait for it.
        """
        greenlet: Greenlet = super().start(group)
        greenlet.link_exception(self._leave)
        return greenlet

    def _leave(self, _: object) -> None:
        if self._counted:
            self._counted = False
            self.load.user_stopped()

    def stop(self, force: bool = False) -> bool:
        """Stop, as Locust has it: one that pauses is killed, in the next turn of the event loop.

        A pause that ends in this turn must not lead to an operation, which would be killed before its answer.
        """
        self.leaving = True
        return bool(super().stop(force))


class EtcdUser(RunUser):
    """A user that drives etcd with the run's mix of puts, gets and transactions.

    A scenario is a subclass; it may fix the mix, and set Locust's ``wait_time`` for users that pause between
    operations. Without a ``wait_time`` a user's next operation follows its last at once (a closed loop). A mix may name
    other operations: each is a method of that name, which takes a key and a value drawn for it and returns the
    Operation, whose ``f`` is the name. A scenario that one transport cannot run says in ``transports`` which can.
    Where ``holds_start`` is true, the users of all workers begin together, once each has done ``make_ready``. What its
    users record beside the operations of the mix stands in ``beside_mix``. While an operation of an open loop is done,
    ``due_ns`` is when it was due, on the monotonic clock; else it is 0.
    """

    abstract = True
    mix: ClassVar[Mapping[str, float] | None] = None
    transports: ClassVar[tuple[str, ...]] = ("grpc", "gateway")
    beside_mix: ClassVar[tuple[str, ...]] = ()
    holds_start: ClassVar[bool] = False
    due_ns = 0

    def on_start(self) -> None:
        """Join the worker's run."""
        super().on_start()
        settings = self.load.settings
        self.serializable = settings.read_consistency == "serializable"
        # The gateway's client has fewer operations; scenarios that do others exclude it in `transports`.
        self.client = cast("EtcdClient", self.load.client)
        self.workload = Workload(settings, self.process, self.load.keys)
        self._do: dict[str, Callable[..., Operation]] = {f: getattr(self, f) for f in settings.mix}
        self.make_ready()
        if not self.load.wait_for_start():
            raise GreenletExit  # Locust logs any other exception that ends `on_start`.
        # Those that start in the same turn of the event loop all do so first: what is called is sent at its end, so it
        # would be late by what the start of the others takes.
        gevent.sleep(0)

    def make_ready(self) -> None:
        """Get ready what the user measures with, such as a watch; see ``holds_start``."""

    @task  # type: ignore[untyped-decorator]
    def operate(self) -> None:
        """Do operations until there is none left to do or the test is stopped."""
        load, do = self.load, self._do
        if load.engine is not None:
            load.engine.serve(EngineUser(self))
            raise StopUser
        if load.open_loop is not None and not self.leaving:
            load.open_loop.serve(self.operate_once)
            raise StopUser
        take, draw, record, owing = load.take, self.workload.next, load.record, len(load.settings.mix)
        while True:
            if self.leaving:
                raise StopUser
            number = take()
            if number is None:
                raise StopUser
            f, key, value = draw(load.owed(number) if number < owing else None)
            called = perf_counter_ns()
            try:
                operation = do[f](key, value)
            except GreenletExit:
                load.record_open(Operation(self.process, f, key, value, called, called), number)
                raise
            record(operation, number)
            if self.paced:
                return

    def do(self, f: str, key: bytes, value: bytes | None) -> Operation:
        """Do an operation of the mix."""
        return self._do[f](key, value)

    def operate_once(self, number: int, due_ns: int) -> None:
        """Do one operation of an open loop. Takes its number, -1 in the warm-up, and when it was due."""
        f, key, value = self.workload.next(self.load.owed(number))
        carry_out(self, number, f, key, value, due_ns)

    def stop(self, force: bool = False) -> bool:
        """Stop, as `RunUser` has it; an operation that the compiled engine does comes to its end."""
        load = getattr(self, "load", None)
        if load is not None and load.engine is not None:
            load.engine.leave(self.process)
        return super().stop(force)

    def put(self, key: bytes, value: bytes) -> Operation:
        """Write a key."""
        operation = self.client.put(key, value, process=self.process, due_ns=self.due_ns)
        note_revision(self.load, operation)
        return operation

    def get(self, key: bytes, _: None = None) -> Operation:
        """Read a key, as the run's read consistency says."""
        return self.client.get(key, serializable=self.serializable, process=self.process, due_ns=self.due_ns)

    def txn(self, key: bytes, value: bytes) -> Operation:
        """Write a key if nobody else has since this worker last saw it; else read it, and so see it."""
        expected = self.load.revisions.get(key, 0)
        operation = self.client.cas(key, value, expected, process=self.process, due_ns=self.due_ns)
        note_revision(self.load, operation)
        return operation


def _add_locust_arguments(parser: argparse.ArgumentParser) -> None:
    """Give plain Locust and its web UI the parameters of the load."""
    group = parser.add_argument_group("raftload", "The load on etcd.")
    for action in add_arguments(group):
        # As Locust's parser does for what is in no group.
        action.include_in_web_ui = True  # type: ignore[attr-defined]


def _on_parser(parser: argparse.ArgumentParser, **_: object) -> None:
    _add_locust_arguments(parser)


def _on_init(environment: Environment, **_: object) -> None:
    if listening.attach(environment):
        interrupt.attach()
    attach(environment).hear_master()
    keyspace.attach(environment)
    start_line.attach(environment)


listening.listen(locust.events.init_command_line_parser, _on_parser)
listening.listen(locust.events.init, _on_init)
