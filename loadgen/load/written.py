"""The writes of one worker that its users watch: how often each is due to come back, and how often it has."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING

from loadgen.history.operation import Operation, Outcome

if TYPE_CHECKING:
    from loadgen.load.worker_run import Load

# Writes of one worker whose deliveries may still come; older ones are given up.
_REMEMBERED = 65_536
# So many of the missing deliveries are named.
_NAMED = 3


class Write:
    """One write that is on its way to its watchers.

    Attributes:
        key, call_ns: what was written, and when it was handed to the transport.
        measured: it is not part of the warm-up.
        number: of this worker's writes, from 0.
        due, got: how many of this worker's watches had been confirmed when it was sent; how many have delivered it.
        revision: at which etcd acknowledged it; 0 before that.
    """

    __slots__ = ("call_ns", "due", "got", "key", "measured", "number", "revision")

    def __init__(self, key: bytes, number: int, due: int, *, measured: bool) -> None:
        self.key, self.number, self.due, self.measured = key, number, due, measured
        self.got = self.revision = 0
        self.call_ns = perf_counter_ns()

    @property
    def missing(self) -> int:
        """How many deliveries of it have not come, as far as it is known to have happened."""
        return self.due - self.got if self.measured and (self.revision or self.got) else 0


class Written:
    """What one worker wrote in one run, by value, which is unique in a run, since every writer stamps its own.

    Takes the worker's run.

    Attributes:
        last_revision: the newest that was acknowledged.
        writers: the process numbers of users that may still write.
        delivered: how many deliveries were counted of measured writes.
    """

    def __init__(self, load: Load) -> None:
        self.last_revision = 0
        self.writers: set[int] = set()
        self.delivered = 0
        self._load = load
        self._watchers = 0
        self._number = 0
        self._writes: OrderedDict[bytes, Write] = OrderedDict()
        self._unanswered: dict[int, None] = {}
        self._unconfirmed: Counter[str] = Counter()
        self._given_up = 0

    # ---- who watches

    def join(self) -> int:
        """Count in a watch that was confirmed; return the number of the first write that is due to it."""
        self._watchers += 1
        return self._number

    def leave(self) -> int:
        """Count out a watch; return the number of the first write that is no longer due to it."""
        self._watchers -= 1
        return self._number

    def unconfirmed(self, cause: str) -> None:
        """Note a watch that is not there, and why."""
        self._unconfirmed[cause] += 1

    # ---- writes

    def write(self, key: bytes, value: bytes, do: Callable[[], Operation]) -> Operation:
        """Do a write whose event will bring a value; return its operation.

        A transaction that did not succeed has written nothing.
        """
        number, self._number = self._number, self._number + 1
        write = Write(key, number, self._watchers, measured=not self._load.warming_up)
        self._writes[value] = write
        self._unanswered[number] = None
        if len(self._writes) > _REMEMBERED:
            self._given_up += self._writes.popitem(last=False)[1].missing
        try:
            operation = do()
        finally:
            del self._unanswered[number]
        if operation.outcome is Outcome.OK and getattr(operation.response, "succeeded", True):
            write.revision = operation.revision
            self.last_revision = max(self.last_revision, operation.revision)
            if write.got >= write.due:
                self._writes.pop(value, None)
        elif operation.outcome is not Outcome.INFO:
            self._writes.pop(value, None)
        return operation

    def are_answered(self, before: int) -> bool:
        """Return whether every write of a lower number has ended."""
        return next(iter(self._unanswered), before) >= before

    # ---- deliveries

    def find(self, value: bytes) -> Write | None:
        """Return the write of a value; None where this worker did not write it, or all who were to see it have."""
        return self._writes.get(value)

    def deliver(self, write: Write, value: bytes) -> None:
        """Count one delivery."""
        write.got += 1
        self.delivered += write.measured
        if write.got >= write.due and write.revision:
            self._writes.pop(value, None)

    def problems(self) -> list[str]:
        """Return sentences about what is missing: watches that were not confirmed, and deliveries that did not come."""
        found = [
            f"{count} {'watches were' if count > 1 else 'watch was'} not confirmed before the load: {cause}"
            for cause, count in self._unconfirmed.items()
        ]
        owed = [write for write in self._writes.values() if write.missing]
        missing = sum(write.missing for write in owed) + self._given_up
        if missing:
            named = ", ".join(
                f"{write.key.decode('latin-1')} (revision {write.revision or '?'}) reached {write.got} of {write.due}"
                for write in owed[:_NAMED]
            )
            more = ", …" if len(owed) > _NAMED or (self._given_up and owed) else ""
            found.append(
                f"{missing:,} of {self.delivered + missing:,} deliveries are missing"
                + (f": {named}{more}" if named else f", of writes that {_REMEMBERED:,} others followed")
            )
        return found
