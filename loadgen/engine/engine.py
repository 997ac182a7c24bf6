"""The plug of the compiled core into the users of a worker: who waits for what, and what Python does for the core.

A user's greenlet waits here while the core does its operations. What the core cannot do it does itself: a *lent*
operation goes the way of the Python engine from its beginning, an *adopted* one from the frame on that was unusual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from time import perf_counter_ns
from typing import TYPE_CHECKING, Protocol

import gevent
from greenlet import getcurrent, greenlet

from loadgen.engine import requests
from loadgen.engine.core import ADOPTED_, LENT_, OVER_, Core, Requests
from loadgen.engine.lane import Lane

if TYPE_CHECKING:
    from loadgen.client.channel import Channel, MakeTransport
    from loadgen.engine.core import Conn, Drained
    from loadgen.history.writer import HistoryWriter
    from loadgen.wire import Stream

# A user's next so many operations are drawn at a time, which takes 45 us.
_DRAWN = 128


def draws(row: int) -> Iterator[int]:
    """Yield how many operations a user draws at a time, time after time; takes its row.

    Few at first, since those that start in the same turn of the event loop wait for each other. After that as many as
    nobody else near it, so that users which go on together do not draw in the same turn.
    """
    yield 1 + row % 8
    yield 1 + row % _DRAWN
    yield from repeat(_DRAWN)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the operations of a run are.

    Attributes:
        types: those of the mix, in its order.
        prefix, digits: of keys: what all begin with, and how many digits their numbers have.
        key_space: how many keys there are.
        value_size, filler: of values: their bytes, and what follows the stamp that makes each of them unique.
        serializable: reads are.
        timeout_ns: how long an operation may take, in nanoseconds.
        quota: operations of this worker in all; None for no limit.
        owing: so many of them, the first ones, may have to be of another type than the drawn one.
        closed_loop: a user's next operation follows its last.
    """

    types: tuple[str, ...]
    prefix: bytes
    digits: int
    key_space: int
    value_size: int
    filler: bytes
    serializable: bool
    timeout_ns: int
    quota: int | None
    owing: int
    closed_loop: bool


class Host(Protocol):
    """What the engine asks of the load that it is part of."""

    def begin_measuring(self) -> None:
        """Take note that the warm-up is over."""

    def interval(self, now_ns: int) -> tuple[int, int]:
        """Return from when until when what returns now is counted together; nanoseconds on the monotonic clock."""

    def absorb(self, f: str, drained: Drained) -> None:
        """Count what came of a type of operation within one interval."""

    def absorb_lags(self, lags: dict[int, int]) -> None:
        """Count how late operations of an open loop were sent, by bucket of `precision.bucket_ns`."""

    def user_ready(self) -> None:
        """Take note that there is an idle user for what is due in an open loop."""


class EngineUser(Protocol):
    """A user whose operations the engine does."""

    process: int

    @property
    def leaving(self) -> bool:
        """Whether it has been told to stop."""

    def block(self, count: int) -> tuple[bytes, bytes]:
        """Draw its next operations: their types, as places in the mix, and the numbers of their keys, 4 bytes each."""

    def carry_out(self, number: int, f: str, key: int, count: Callable[[], int], due_ns: int) -> None:
        """Do an operation that was drawn, as the Python engine does, and record it.

        Takes its number (-1: of the warm-up), its type, its key's number, what returns the count of its value, and when
        it is due.
        """

    def resume(
        self, lane: Lane, stream: Stream, number: int, f: str, key: int, count: int, *, due_ns: int, call_ns: int,
        expected: int,
    ) -> None:  # fmt: skip
        """Record an operation that has ended in an unusual way, on whose connection and how; send it again where due.

        ``expected`` is the revision that it compared with.
        """

    def record_killed(
        self, number: int, f: str, key: int, count: int, *, due_ns: int, call_ns: int, expected: int
    ) -> None:
        """Record an operation that was under way when this user was killed."""


class Engine:
    """The operations of one worker's users. Takes what they are.

    Attributes:
        core: where they are done.
        timeout_ns: see `Plan`.
    """

    def __init__(self, plan: Plan) -> None:
        made = requests.templates(
            plan.types, plan.prefix, plan.digits, plan.filler, plan.value_size, serializable=plan.serializable
        )
        self._codes = {f: requests.TYPES.index(f) for f in plan.types}
        self._to_codes = bytes(self._codes[f] for f in plan.types).ljust(256, b"\xff")
        quota = -1 if plan.quota is None else plan.quota
        self.core = Core(self, Requests(plan.prefix, plan.digits, made), plan.key_space, plan.owing, quota)
        self.core.closed_loop = plan.closed_loop
        self.timeout_ns = plan.timeout_ns
        self._host: Host
        self._channel: Channel
        hub = gevent.get_hub()
        self._run_callback: Callable[..., object] = hub.loop.run_callback
        self._switch: Callable[[], int | None] = greenlet.switch.__get__(hub)
        self._users: dict[int, EngineUser] = {}
        self._draws: dict[int, Iterator[int]] = {}
        self._rows: dict[int, int] = {}
        self._greenlets: dict[int, greenlet] = {}
        # Those that wait for the core, and not within an operation that they do themselves.
        self._waiting: dict[int, greenlet] = {}
        self._adopted: dict[int, tuple[Lane, Stream]] = {}
        self._history: HistoryWriter | None = None

    @property
    def make_transport(self) -> MakeTransport:
        """What makes the connections of the channel that the operations go over."""
        return partial(Lane, self)

    def begin(self, channel: Channel, host: Host, warm_until_ns: int) -> None:
        """Take what was missing at first; no user may be served before.

        That is the channel that `make_transport` was given to, the load, and when its warm-up ends on the monotonic
        clock.
        """
        self._channel, self._host = channel, host
        self.core.warm_until = warm_until_ns

    def record_in(self, history: HistoryWriter) -> None:
        """Have each operation recorded there, also those that Python does not see; before there is a connection."""
        self._history = history
        self.core.recording = True
        history.draw_from(self.core.take_history)

    @property
    def active(self) -> int:
        """How many operations are under way."""
        return self.core.active

    # ---- users

    def serve(self, user: EngineUser) -> None:
        """Do a user's operations until there is none left, or it leaves; called in its greenlet."""
        core = self.core
        row = core.enlist(user.process)
        me = getcurrent()
        self._users[row], self._rows[user.process], self._greenlets[row] = user, row, me
        self._draws[row] = draws(row)
        try:
            if user.leaving:
                core.leave(row)
            core.start(row, perf_counter_ns())
            self._host.user_ready()
            ended_ns = 0
            while (state := core.state(row)) != OVER_:
                if state == LENT_:
                    number, f, key, _, due_ns, _, _ = core.look(row)
                    user.carry_out(number, requests.TYPES[f], key, partial(core.count_value, row), due_ns)
                elif state == ADOPTED_ and self._adopted[row][1].code >= 0:
                    self._resume(row, user, ended_ns)
                else:
                    self._waiting[row] = me
                    ended_ns = self._switch() or ended_ns
                    self._waiting.pop(row, None)
                    continue
                core.start(row, perf_counter_ns())
        except BaseException:
            self._waiting.pop(row, None)
            self._give_up(row, user)
            raise
        finally:
            del self._users[row], self._rows[user.process], self._greenlets[row], self._draws[row]
            core.release(row)

    def leave(self, process: int) -> None:
        """Have a user begin nothing more; what is under way comes to its end."""
        row = self._rows.get(process)
        if row is not None:
            self.core.leave(row)
            self._run_callback(self.attend)

    def hand(self, number: int, due_ns: int) -> bool:
        """Begin an operation of an open loop (-1: of the warm-up); return whether an idle user was there for it."""
        if not self.core.hand(number, due_ns, perf_counter_ns()):
            return False
        if self.core.attention:
            self._run_callback(self.attend)
        return True

    def close(self) -> None:
        """Have all users begin nothing more."""
        self.core.close()
        self._run_callback(self.attend)

    def attend(self) -> None:
        """Wake the users that have something to do; called in the hub."""
        attention = self.core.attention
        while attention:
            rows = attention[:]
            attention.clear()
            for row in rows:
                waiting = self._waiting.pop(row, None)
                if waiting is not None:
                    waiting.switch(None)

    def _resume(self, row: int, user: EngineUser, ended_ns: int) -> None:
        number, f, key, count, due_ns, call_ns, expected = self.core.look(row)
        # It is the user's from here on, who records it also where it is killed.
        lane, stream = self._adopted.pop(row)
        lane.note_end(stream, ended_ns)
        user.resume(
            lane, stream, number, requests.TYPES[f], key, count - 1, due_ns=due_ns, call_ns=call_ns, expected=expected
        )

    def _give_up(self, row: int, user: EngineUser) -> None:
        """Give up the operation of a user that is killed."""
        if (conn := self.core.connection(row)) is not None:
            conn.lane.adopt(row)
        if (adopted := self._adopted.pop(row, None)) is not None:
            lane, stream = adopted
            lane.abandon(stream)
            number, f, key, count, due_ns, call_ns, expected = self.core.look(row)
            user.record_killed(
                number, requests.TYPES[f], key, count - 1, due_ns=due_ns, call_ns=call_ns, expected=expected
            )

    # ---- counts

    @property
    def taken(self) -> int:
        """How many operations of a closed loop's measurement were begun."""
        return self.core.taken

    @property
    def in_flight(self) -> int:
        """The operations that are under way."""
        return self.core.active

    @property
    def in_flight_max(self) -> int:
        """The most operations that were under way at a time."""
        return self.core.active_max

    def revisions(self, digits_from: int) -> Revisions:
        """Return at which revision each key was last seen modified. Takes where in a key its number begins."""
        return Revisions(self.core, digits_from)

    def drain(self) -> None:
        """Hand on what was counted since the last time."""
        for f, code in self._codes.items():
            if (drained := self.core.drain(code)) is not None:
                self._host.absorb(f, drained)
        if not self.core.closed_loop and (lags := self.core.drain_lags()):
            self._host.absorb_lags(lags)

    # ---- what the core asks

    def choose(self, now_ns: int) -> Conn | None:
        """Return the connection for this turn of the event loop; None where there is none."""
        lane = self._channel.choose()
        if not isinstance(lane, Lane) or not lane.conn.accepting or lane.conn.full:
            return None
        self._channel.use_chosen()
        return lane.choose(now_ns)

    def draw(self, row: int) -> tuple[bytes, bytes]:
        """Return a user's next operations: their types, and the numbers of their keys."""
        types, keys = self._users[row].block(next(self._draws[row]))
        return types.translate(self._to_codes), keys

    def begin_measuring(self) -> None:
        """Take note that the warm-up is over."""
        self._host.begin_measuring()

    def turn(self, now_ns: int) -> tuple[int, int]:
        """Hand on what was counted in the interval that is over; return the bounds of the present one."""
        self.drain()
        return self._host.interval(now_ns)

    def keep_history(self) -> None:
        """Have the history take what was recorded: there is enough for a block."""
        assert self._history is not None
        self._history.flush()

    # ---- what lanes ask

    def endpoint_number(self, url: str) -> int:
        """Return what stands for an endpoint in the history; 0 without one."""
        return 0 if self._history is None else self._history.endpoint(url)

    def waiter(self, row: int) -> greenlet:
        """Return the greenlet that waits for a user's operation."""
        return self._greenlets[row]

    def adopted(self, row: int, lane: Lane, stream: Stream) -> None:
        """Take a user's operation that is Python's from now on."""
        self._adopted[row] = lane, stream


class Revisions:
    """At which revision each key was last seen modified, as the core knows it; by key."""

    def __init__(self, core: Core, digits_from: int) -> None:
        self._core = core
        self._from = digits_from

    def get(self, key: bytes, default: int) -> int:
        """Return a key's, ``default`` where none is known."""
        return self._core.revision(int(key[self._from :])) or default

    def __setitem__(self, key: bytes, revision: int) -> None:
        self._core.set_revision(int(key[self._from :]), revision)
