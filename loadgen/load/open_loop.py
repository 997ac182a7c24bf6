"""One worker's open loop: every operation is handed to a user when it is due, however the server fares.

Users are Locust's; those that have nothing to do wait in a stack, and where none waits another one is started, up
to a bound. What is due while that many operations are open is dropped, and counted.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import Protocol

import gevent
from gevent.pool import Group
from greenlet import getcurrent, greenlet

from loadgen.client import timer
from loadgen.client.event_loop import Loop

# After so many in one turn of the event loop what they wrote is sent, and answers are read, before the next.
_BATCH = 32


class Hands(Protocol):
    """Users that are no greenlets of the loop's: the compiled engine's."""

    @property
    def active(self) -> int:
        """How many operations are under way."""

    def hand(self, number: int, due_ns: int) -> bool:
        """Begin an operation; return whether an idle user was there for it."""

    def close(self) -> None:
        """Have all users begin nothing more."""


class OpenLoop:
    """Takes the number (-1: of the warm-up) and the due time of each operation, in order, on the monotonic clock.

    ``limit`` bounds the operations that are open. ``begin`` is called when the first measured operation is due,
    ``start_user`` to start one more user in a group, ``end`` when all was handed out. ``hands`` does the operations
    where the users are the compiled engine's, who call `user_ready` and not `serve`. ``clock`` gives the monotonic
    time in nanoseconds, and ``make_timer`` a timer of an event loop that goes off by that clock: a simulation brings
    its own.

    Attributes:
        scheduled: measured operations that were due until the end, or until `stop`.
        dropped: of these, those that were never sent.
        first_due_ns, last_due_ns: when the first and the last of them were due, on the monotonic clock.
        ended: nothing is handed out any more.
        stopped: it ended by `stop`, before its time.
    """

    def __init__(
        self,
        timetable: Iterator[tuple[int, int]],
        *,
        limit: int,
        begin: Callable[[], None],
        start_user: Callable[[Group], object],
        end: Callable[[], None],
        hands: Hands | None = None,
        clock: Callable[[], int] = perf_counter_ns,
        make_timer: Callable[[Loop, Callable[[], None]], timer.Timer] = timer.make,
    ) -> None:
        self.scheduled = 0
        self.dropped = 0
        self.first_due_ns = self.last_due_ns = 0
        self.ended = self.stopped = False
        self._open = 0
        self._limit = limit
        self._hands = hands
        self._begin, self._start_user, self._end = begin, start_user, end
        self._idle: list[greenlet] = []
        self._pending: deque[tuple[int, int]] = deque()
        self._group = Group()
        hub = gevent.get_hub()
        self._switch = hub.switch
        self._loop = hub.loop
        self._timetable = timetable
        # From when on operations are due otherwise, and when.
        self._changes: deque[tuple[int, Iterator[int]]] = deque()
        self._next = next(timetable, None)
        self._clock = clock
        self._timer = make_timer(hub.loop, self._on_time)
        # Even where nothing is due: the end comes from the event loop, when whoever made this has it.
        self._timer.set(clock() if self._next is None else self._next[1])

    def serve(self, operate: Callable[[int, int], object]) -> None:
        """Do operations as they are due until there is none left; called in a user's greenlet.

        Takes a function of an operation's number (-1: of the warm-up) and its due time.
        """
        me, pending = getcurrent(), self._pending
        while pending or not self.ended:
            item = pending.popleft() if pending else self._wait(me)
            if item is None:
                continue
            number, due_ns = item
            self._open += 1
            try:
                operate(number, due_ns)
            finally:
                self._open -= 1

    def user_ready(self) -> None:
        """Hand what is due and not begun to the engine's users, of whom one is new."""
        hands, pending = self._hands, self._pending
        assert hands is not None, "its users call `serve`"
        while pending and hands.hand(*pending[0]):
            pending.popleft()
        if self.ended and not pending:
            hands.close()

    def change(self, at_ns: int, dues: Iterator[int]) -> None:
        """Have operations be due otherwise from a moment on, which is not before that of the last change.

        Takes the moment, and when they are due from there on, both on the monotonic clock.
        """
        if self.ended:
            return
        self._changes.append((at_ns, dues))
        self._go_over(self._next[0] if self._next is not None else self.scheduled)
        self._timer.set(self._clock() if self._next is None else self._next[1])

    def stop(self) -> None:
        """Hand out nothing more. What was due and is not sent yet counts as dropped."""
        if self.ended:
            return
        self.stopped = True
        unsent = [number for number, _ in self._pending]
        self._pending.clear()
        now = self._clock()
        while self._next is not None and self._next[1] <= now:
            unsent.append(self._count())
        self.dropped += sum(number >= 0 for number in unsent)
        self._finish()

    def join(self, timeout_s: float) -> None:
        """Wait so long for the users that this loop started, then kill those that are left."""
        self._group.join(timeout=timeout_s)
        self._group.kill()

    # -- in the hub -----------------------------------------------------------------------------------------

    def _on_time(self) -> None:
        now = self._clock()
        for _ in range(_BATCH):
            if self._next is None or self._next[1] > now:
                break
            due_ns = self._next[1]
            number = self._count()
            active = self._open if self._hands is None else self._hands.active
            if active + len(self._pending) >= self._limit:
                self.dropped += number >= 0
            elif self._hands is not None and self._hands.hand(number, due_ns):
                pass
            elif self._idle:
                # Runs until the operation waits for its answer.
                self._idle.pop().switch((number, due_ns))
            else:
                self._pending.append((number, due_ns))
                self._start_user(self._group)
        if self._next is None:
            self._finish()
        else:
            self._timer.set(self._next[1])

    def _count(self) -> int:
        """Count the next operation as due, go on to the one after it, and return its number."""
        assert self._next is not None
        number, due_ns = self._next
        if number == 0:
            self.first_due_ns = due_ns
            self._begin()
        if number >= 0:
            self.scheduled += 1
            self.last_due_ns = due_ns
        self._next = next(self._timetable, None)
        if self._changes:
            self._go_over(number + 1)
        return number

    def _go_over(self, number: int) -> None:
        """Leave the next operation out for that of a change which comes before it, and takes its number."""
        while self._changes and (self._next is None or self._next[1] >= self._changes[0][0]):
            _, dues = self._changes.popleft()
            self._timetable = zip(itertools.count(max(0, number)), dues, strict=False)
            self._next = next(self._timetable, None)

    def _finish(self) -> None:
        self.ended = True
        self._timer.close()
        waiting, self._idle = self._idle, []
        for user in waiting:
            self._loop.run_callback(user.switch, None)
        if self._hands is not None and not self._pending:
            self._hands.close()
        self._end()

    # -- in users -------------------------------------------------------------------------------------------

    def _wait(self, me: greenlet) -> tuple[int, int] | None:
        """Wait to be handed an operation; return None where somebody else, or the end, has woken this greenlet."""
        self._idle.append(me)
        item = None
        try:
            item = self._switch()
        finally:
            if item.__class__ is not tuple and me in self._idle:
                self._idle.remove(me)
        return item if item.__class__ is tuple else None
