"""Users that watch what the run writes, and measure how long it takes to come back to them."""

from __future__ import annotations

from collections import OrderedDict
from time import perf_counter_ns
from typing import ClassVar

import gevent

from loadgen.client.kv import bytes_prefix_end
from loadgen.client.watch import Watch
from loadgen.client.watcher import Watcher
from loadgen.history.operation import DELIVERY, Operation, Outcome
from loadgen.load.settings import UNIQUE_VALUE_BYTES
from loadgen.load.user import EtcdUser
from loadgen.load.worker_run import Load
from loadgen.proto.kv_pb2 import Event
from loadgen.wire import Code

# Writes of one worker whose events may still come; older ones are not measured any more.
_REMEMBERED = 65_536


class Written:
    """What one worker wrote in one run: by value, which is unique in a run, since every writer stamps its own.

    Attributes: ``last_revision``, the newest that was acknowledged.
    """

    def __init__(self, load: Load) -> None:
        self.load = load
        self.last_revision = 0
        self._calls: OrderedDict[bytes, tuple[int, bool]] = OrderedDict()

    def sending(self, value: bytes) -> None:
        """Note that a value is about to be sent."""
        self._calls[value] = perf_counter_ns(), not self.load.warming_up
        if len(self._calls) > _REMEMBERED:
            self._calls.popitem(last=False)

    def acknowledged(self, operation: Operation) -> Operation:
        """Take a write that ended, return it."""
        self.last_revision = max(self.last_revision, operation.revision)
        return operation

    def sent(self, value: bytes) -> tuple[int, bool] | None:
        """Return when a value was sent, and whether that is measured; None where this worker did not write it."""
        return self._calls.get(value)


class FollowingUser(EtcdUser):
    """A user that also watches all keys of the run, over a stream of its own.

    Each event that brings a value which this worker wrote counts as one operation ``watch``: its latency goes from the
    moment at which the write was handed to the transport to the moment at which the event was read from the watcher's
    socket, one clock for both. So it holds the commit and the delivery; the commit alone is the write's own latency
    beside it. With U users every write is delivered U times (fan-out), and measured as often as the writer's worker
    has users: watchers of other workers have another clock. A watch that has not caught up with the last write of its
    worker within the deadline counts as one that failed.
    """

    abstract = True
    transports: ClassVar = ("grpc",)

    least_value_size: ClassVar = UNIQUE_VALUE_BYTES

    def on_start(self) -> None:
        """Join the run and wait for the watch."""
        super().on_start()
        load = self.load
        self.written: Written = load.shared.setdefault(Written, Written(load))
        self.watcher: Watcher = self.client.watcher()
        self.watch_of_all = self.begin_watch()
        self.watch_of_all.wait_created(load.settings.timeout_s)
        self._reader = gevent.spawn(self._follow)

    def on_stop(self) -> None:
        """Wait for the events of what this worker wrote last, then leave the run."""
        watch, last, timeout_ns = self.watch_of_all, self.written.last_revision, self.load.settings.timeout_s * 1e9
        began = perf_counter_ns()
        while watch.error is None and (watch.next_revision <= last or watch.inbox.items):
            if perf_counter_ns() - began > timeout_ns:
                break
            gevent.sleep(0.005)
        if watch.next_revision <= last:
            now, error = perf_counter_ns(), watch.error or Code.DEADLINE_EXCEEDED.name
            late = Operation(self.process, DELIVERY, watch.request.key, None, began, began, now, Outcome.FAIL, 0, error)
            self.load.record(late, 0)
        self._reader.kill()
        self.watcher.close()
        super().on_stop()

    def begin_watch(self) -> Watch:
        """Start the watch that this user follows."""
        prefix = self.load.settings.prefix
        return self.watcher.watch(prefix, bytes_prefix_end(prefix))

    def saw(self, event: Event) -> None:
        """Take an event, whoever wrote it."""

    def _follow(self) -> None:
        record, sent, process = self.load.record, self.written.sent, self.process
        for answer in self.watch_of_all:
            read_ns = answer.read_ns
            for event in answer.response.events:
                self.saw(event)
                kv = event.kv
                if (call := sent(kv.value)) is not None:
                    call_ns, measured = call
                    delivered = Operation(
                        process, DELIVERY, kv.key, kv.value, call_ns, call_ns, read_ns, Outcome.OK, kv.mod_revision
                    )
                    record(delivered, 0 if measured else -1)
