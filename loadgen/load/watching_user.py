"""Users that watch what the run writes, and measure how long it takes to come back to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter_ns
from typing import ClassVar

import gevent

from loadgen.client.kv import bytes_prefix_end
from loadgen.client.watch import Watch
from loadgen.client.watcher import Watcher
from loadgen.history.operation import DELIVERY, Operation, Outcome
from loadgen.load.settings import UNIQUE_VALUE_BYTES
from loadgen.load.user import EtcdUser
from loadgen.load.written import Written
from loadgen.proto.kv_pb2 import Event
from loadgen.wire import Code


class FollowingUser(EtcdUser):
    """A user that also watches all keys of the run, over a stream of its own.

    Each event that brings a value which this worker wrote counts as one operation ``watch``: its latency goes from the
    moment at which the write was handed to the transport to the moment at which the event was read from the watcher's
    socket, one clock for both. So it holds the commit and the delivery; the commit alone is the write's own latency
    beside it. With U users every write is delivered U times (fan-out), and measured as often as the writer's worker
    has users: watchers of other workers have another clock. No user writes before the watches of all are confirmed, in
    all workers, and none stops to watch before the last one of its worker has written. A watch that has not caught up
    with the last write of its worker within the deadline counts as one that failed. What was due and did not come is a
    problem of the run.
    """

    abstract = True
    transports: ClassVar = ("grpc",)
    beside_mix: ClassVar = (DELIVERY,)
    holds_start: ClassVar = True

    least_value_size: ClassVar = UNIQUE_VALUE_BYTES
    watcher: Watcher | None = None
    # Of this worker's writes, those that are due to its watch: from the first number, before the second.
    _first = _left = math.inf
    _reader: gevent.Greenlet | None = None

    def make_ready(self) -> None:
        """Begin the watch, and wait until it is confirmed."""
        load = self.load
        if load.written is None:
            load.written = Written(load)
        self.written: Written = load.written
        self.written.writers.add(self.process)
        self.watcher = self.client.watcher()
        self.watch_of_all = watch = self.begin_watch()
        if watch.wait_created(load.settings.timeout_s):
            self._first = self.written.join()
        else:
            interrupted = watch.interruptions[-1][1] if watch.interruptions else None
            self.written.unconfirmed(watch.reason or watch.error or interrupted or Code.DEADLINE_EXCEEDED.name)
        self._reader = gevent.spawn(self._follow, watch)

    def on_stop(self) -> None:
        """Wait for the events of what this worker wrote last, then leave the run."""
        # One that is killed while it gets ready has a part of this.
        if self._reader is not None:
            self._see_the_last(self.written)
            self._reader.kill()
        if self.watcher is not None:
            self.watcher.close()
        super().on_stop()

    def _see_the_last(self, written: Written) -> None:
        watch, began = self.watch_of_all, perf_counter_ns()
        written.writers.discard(self.process)
        until_ns = began + self.load.settings.timeout_s * 1e9

        def wait(condition: Callable[[], bool]) -> None:
            while not condition() and perf_counter_ns() < until_ns:
                gevent.sleep(0.005)

        if self.load.is_ending:
            wait(lambda: not written.writers)
        if self._first < math.inf:
            self._left = left = written.leave()
            wait(lambda: written.are_answered(left))
        last = written.last_revision
        wait(lambda: watch.error is not None or (watch.next_revision > last and not watch.inbox.items))
        if watch.next_revision <= last:
            now, error = perf_counter_ns(), watch.error or Code.DEADLINE_EXCEEDED.name
            late = Operation(self.process, DELIVERY, watch.request.key, None, began, began, now, Outcome.FAIL, 0, error)
            self.load.record(late, 0)

    def _leave(self, ended: object) -> None:
        if self.watcher is not None:
            self.written.writers.discard(self.process)
        super()._leave(ended)

    def begin_watch(self) -> Watch:
        """Start the watch that this user follows."""
        assert self.watcher is not None
        prefix = self.load.settings.prefix
        return self.watcher.watch(prefix, bytes_prefix_end(prefix))

    def saw(self, event: Event) -> None:
        """Take an event, whoever wrote it."""

    def _follow(self, watch: Watch) -> None:
        record, written, process = self.load.record, self.written, self.process
        find, deliver, first = written.find, written.deliver, self._first
        for answer in watch:
            read_ns = answer.read_ns
            for event in answer.response.events:
                self.saw(event)
                kv = event.kv
                write = find(kv.value)
                # Of what was written before this watch was confirmed it may have seen a part.
                if write is not None and first <= write.number < self._left:
                    deliver(write, kv.value)
                    call_ns = write.call_ns
                    delivered = Operation(
                        process, DELIVERY, kv.key, kv.value, call_ns, call_ns, read_ns, Outcome.OK, kv.mod_revision
                    )
                    record(delivered, 0 if write.measured else -1)
