"""A user's side of its operations: what the two engines have in common, and what the compiled one asks."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING

from gevent import GreenletExit

from loadgen.history.operation import Operation, Outcome

if TYPE_CHECKING:
    from loadgen.engine.lane import Lane
    from loadgen.load.user import EtcdUser
    from loadgen.load.worker_run import Load
    from loadgen.wire import Stream


def carry_out(user: EtcdUser, number: int, f: str, key: bytes, value: bytes | None, due_ns: int) -> None:
    """Have a user do an operation, and record it.

    Takes its number (-1: of the warm-up), what it is, and when it is due on the monotonic clock; 0 in a closed loop.
    """
    called_ns = perf_counter_ns()
    user.due_ns = due_ns
    try:
        operation = user.do(f, key, value)
    except GreenletExit:
        user.load.record_open(Operation(user.process, f, key, value, due_ns or called_ns, called_ns), number)
        raise
    if due_ns:
        operation.due_ns = due_ns
    user.load.record(operation, number)


def note_revision(load: Load, operation: Operation) -> None:
    """Note at which revision a key was last modified, as a put or a compare-and-swap that has ended told."""
    if operation.outcome is not Outcome.OK:
        return
    revisions, key, answer = load.revisions, operation.key, operation.response
    if operation.f == "put" or answer.succeeded:
        revisions[key] = operation.revision
    else:
        # A server may say nothing of the branch that it took.
        found = answer.responses[0].response_range.kvs if answer.responses else ()
        revisions[key] = found[0].mod_revision if found else 0


class EngineUser:
    """A user whose operations the compiled engine does; see `loadgen.engine.engine.EngineUser`."""

    def __init__(self, user: EtcdUser) -> None:
        self._user = user
        self._load = user.load
        self._open_loop = user.load.settings.schedule() is not None
        self.process = user.process
        self.block = user.workload.block

    @property
    def leaving(self) -> bool:
        """Whether it has been told to stop."""
        return self._user.leaving

    def carry_out(self, number: int, f: str, key: int, count: Callable[[], int], due_ns: int) -> None:
        """Do an operation that was drawn and that the engine does not do."""
        f = self._load.owed(number) or f
        value = None if f == "get" else self._user.workload.value(count())
        carry_out(self._user, number, f, self._load.keys[key], value, due_ns if self._open_loop else 0)

    def resume(
        self, lane: Lane, stream: Stream, number: int, f: str, key: int, count: int, *, due_ns: int, call_ns: int,
        expected: int,
    ) -> None:  # fmt: skip
        """Record an operation of the engine's that ended in an unusual way, once it has been sent again where due."""
        user = self._user
        name, value = self._named(f, key, count)
        try:
            operation = user.client.resume(
                lane, stream, f, name, value, process=self.process, due_ns=due_ns, call_ns=call_ns,
                mod_revision=expected, serializable=user.serializable,
            )  # fmt: skip
        except GreenletExit:
            self._load.record_open(Operation(self.process, f, name, value, due_ns, call_ns), number)
            raise
        if f != "get":
            note_revision(self._load, operation)
        self._load.record(operation, number)

    def record_killed(
        self, number: int, f: str, key: int, count: int, *, due_ns: int, call_ns: int, expected: int
    ) -> None:
        """Record an operation of the engine's that was under way when this user was killed."""
        name, value = self._named(f, key, count)
        self._user.client.abandon(
            f, name, value, process=self.process, due_ns=due_ns, call_ns=call_ns, mod_revision=expected,
            serializable=self._user.serializable,
        )  # fmt: skip
        self._load.record_open(Operation(self.process, f, name, value, due_ns, call_ns), number)

    def _named(self, f: str, key: int, count: int) -> tuple[bytes, bytes | None]:
        return self._load.keys[key], None if f == "get" else self._user.workload.value(count)
