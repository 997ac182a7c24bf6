"""The two engines of the load path side by side: the same users, bytes and times, without sockets or greenlets.

Both sides run the real `Transport` (or `Lane`), `Connection`, `Recorder`, `Engine` and core over a socket that is a
buffer, an event loop that is a list and a clock that stands still. Only what waits is written again here, in callbacks:
the loop of a user's greenlet, and the waits within `Channel.call`. So a sanitizer, which knows no greenlets, can look
on, and a conversation that failed can be held again from its seed.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from cluster.base.endpoint import Endpoint
from loadgen.client import call as call_module
from loadgen.client import channel, encode, transport
from loadgen.client.channel import _crowd, _may_be_sent_again, never_sent
from loadgen.client.etcd import _BY_NAME, EtcdClient
from loadgen.client.transport import Transport
from loadgen.engine import engine as engine_module
from loadgen.engine import lane as lane_module
from loadgen.engine.core import ADOPTED_, LENT_, OVER_
from loadgen.engine.lane import Lane
from loadgen.history.format import BLOCK, BLOCK_MAGIC, MAGIC, RECORD, Kind
from loadgen.history.operation import STOPPED, Operation, Outcome
from loadgen.history.writer import HistoryWriter
from loadgen.load import engines
from loadgen.load.engine_user import EngineUser, note_revision
from loadgen.load.recorder import Recorder
from loadgen.load.settings import PREFIX_BYTES, Settings
from loadgen.load.workload import Keys, Workload, owed, share
from loadgen.stats.precision import bucket_ns
from loadgen.wire import Code, Connection, LocalError, NoStreamError, Stream

ENDPOINT = Endpoint.parse("127.0.0.1:2379")
OFFSET_NS = 1_000_000_000_000
"""The wall clock less the monotonic one, for both sides."""


class Clock:
    """The monotonic clock, which goes when a test says so."""

    now = 1_000_000_000

    def __call__(self) -> int:
        return self.now


@contextlib.contextmanager
def stopped_clock() -> Iterator[Clock]:
    """Have connections and engines take the time from a clock of the test."""
    clock = Clock()
    with contextlib.ExitStack() as stack:
        for module in (transport, channel, call_module, engine_module, lane_module):
            stack.enter_context(mock.patch.object(module, "perf_counter_ns", clock))
        yield clock


class Loop:
    """An event loop that runs when it is told to. Takes the clock of its timers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.callbacks: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self.timers: list[Timer] = []

    def run_callback(self, callback: Callable[..., object], *args: object) -> None:
        self.callbacks.append((callback, args))

    def timer(self, after: float, repeat: float = 0.0) -> Timer:
        return Timer(self.timers, self._clock.now + round(after * 1e9))

    def run(self) -> None:
        """Run what is to be run now."""
        while self.callbacks:
            callback, args = self.callbacks.popleft()
            callback(*args)

    def go_off(self) -> None:
        """Run the timers whose time has come."""
        for timer in [each for each in self.timers if each.due_ns <= self._clock.now]:
            if timer in self.timers and timer.callback is not None:
                self.timers.remove(timer)
                timer.callback()


class Timer:
    def __init__(self, timers: list[Timer], due_ns: int) -> None:
        self._timers, self.due_ns = timers, due_ns
        self.callback: Callable[[], object] | None = None

    def start(self, callback: Callable[[], object], update: bool = False) -> None:
        self.callback = callback
        self._timers.append(self)

    def stop(self) -> None:
        if self in self._timers:
            self._timers.remove(self)

    close = stop


class Watcher:
    """Watches nothing: tests say when a socket is ready."""

    def __init__(self) -> None:
        self.on = False

    def start(self, _: object) -> None:
        self.on = True

    def stop(self) -> None:
        self.on = False

    def close(self) -> None:
        self.on = False


class Socket:
    """A socket's two buffers.

    Attributes: ``inbox``, what is to be read, an exception where reading fails; ``out``, what was written; ``room``,
    how many bytes more the kernel takes.
    """

    def __init__(self) -> None:
        self.inbox: deque[bytes | OSError] = deque()
        self.out = bytearray()
        self.room = 1 << 40
        self.closed = False

    def recv(self, _: int) -> bytes:
        if not self.inbox:
            raise BlockingIOError
        item = self.inbox.popleft()
        if isinstance(item, OSError):
            raise item
        return item

    def send(self, data: bytes | memoryview) -> int:
        size = min(len(data), self.room)
        if size == 0:
            raise BlockingIOError
        self.out += data[:size]
        self.room -= size
        return size

    def close(self) -> None:
        self.closed = True


class User:
    """One user of a side. Takes the side, and its number in the run."""

    def __init__(self, side: Side, process: int) -> None:
        self.side = self.load = side
        self.process = process
        self.workload = Workload(side.settings, process, side.keys)
        self.client = side.client
        self.serializable = side.settings.read_consistency == "serializable"
        self.leaving = self.over = False
        self.call: Call | None = None
        # Of the compiled side.
        self.row = -1
        self.ended_ns = 0

    def switch(self, ended_ns: int | None) -> None:
        """Go on, as the greenlet of `Engine.serve` does."""
        self.side.woken(self, ended_ns)


class Call:
    """An operation that is Python's: what goes on in `Channel.call` and in whoever called it."""

    def __init__(
        self, user: User, number: int, f: str, key: bytes, value: bytes | None, due_ns: int, call_ns: int,
        expected: int,
    ) -> None:  # fmt: skip
        self.user, self.number, self.f, self.key, self.value = user, number, f, key, value
        self.due_ns, self.call_ns = due_ns, call_ns
        self.path, self._decode = _BY_NAME[f]
        if f == "put":
            self.request = encode.put(key, value or b"")
        elif f == "get":
            self.request = encode.get(key, user.serializable)
        else:
            self.request = encode.cas(key, value or b"", expected)
        self.again = self.resumed = False
        self.stream: Stream | None = None
        self.transport: Transport | None = None
        self._queued_ns = 0

    @property
    def deadline_ns(self) -> int:
        return self.call_ns + self.user.side.timeout_ns

    def begin(self) -> None:
        """Send it, as `Channel.call` does."""
        found = self.user.side.channel.choose()
        self.user.side.channel.use_chosen()
        if found is None:
            self.later()
            return
        try:
            self._send(found, found._connection.start)
        except LocalError:
            self.later()

    def _send(self, through: Transport, start: Callable[..., Stream]) -> None:
        """As `Transport.call` before it waits."""
        self.transport = through
        self.stream = start(self.path, self.request, self.user.side.timeout_ns, self, self.deadline_ns)
        if self.deadline_ns < through._armed:
            through._arm(self.deadline_ns)
        through._flush_soon()

    def later(self) -> None:
        """As `Channel._call_later`; without a connection it waits on the side."""
        side = self.user.side
        while True:
            self.stream, self._queued_ns = None, 0
            if side.clock.now >= self.deadline_ns:
                self.ended(never_sent(Code.DEADLINE_EXCEEDED, None))
                return
            found = side.channel._with_room()
            if found is not None:
                side.channel.turn_to(found)
            elif side.channel._called:
                found = min(side.channel._called, key=_crowd)
            if found is None:
                side.parked.append(self)
                return
            try:
                if found.room > 0:
                    self._send(found, found._connection.start)
                else:
                    self._queued_ns = side.clock.now
                    self._send(found, found._connection.call)
                    assert self.stream is not None
                    self.stream.opened_ns = 0
                    if not self.stream.id:
                        found._queued.append(self.stream)
            except LocalError as error:
                assert not isinstance(error, NoStreamError)
                found.retire()
                continue
            return

    def switch(self, ended_ns: int) -> None:
        """Go on, as the greenlet that waits in `Transport.call` does."""
        stream, through = self.stream, self.transport
        assert stream is not None and through is not None and stream.code >= 0
        through.note_end(stream, ended_ns)
        side = self.user.side
        if self._queued_ns:
            side.channel.stream_waits[bucket_ns((stream.opened_ns or stream.ended_ns) - self._queued_ns)] += 1
        self.take(stream, through)

    def take(self, stream: Stream, through: Transport) -> None:
        """Take a stream that has ended, as `Channel._after` does."""
        side = self.user.side
        if stream.code:
            if side.channel._current is through and not (self.again or self._queued_ns):
                side.channel.turn_to(None)
            if _may_be_sent_again(stream) and not self.again:
                self.again = True
                side.channel.resent += 1
                self.later()
                return
        self.ended(stream)

    def ended(self, stream: Stream) -> None:
        side = self.user.side
        operation = side.client._ended(
            stream, self.path, self.request, self._decode, self.f, self.key, self.value, self.user.process,
            self.due_ns, self.call_ns,
        )  # fmt: skip
        if self.f != "get":
            note_revision(side, operation)  # type: ignore[arg-type]
        side.record(operation, self.number)
        self.user.call = None
        side.done(self.user)

    def kill(self) -> None:
        """As where its greenlet is killed while it waits."""
        side = self.user.side
        if self in side.parked:
            side.parked.remove(self)
        elif self.stream is not None and self.transport is not None:
            self.transport.abandon(self.stream)
        open_ = Operation(
            self.user.process, self.f, self.key, self.value, self.due_ns or self.call_ns, self.call_ns
        )  # fmt: skip
        side.client.give_up(self.path, open_, self.request)
        side.record_open(open_, self.number)


class Side:
    """What the users of one engine share. Takes the run's settings, the clock, how long it warms up and is planned
    for, and where its history is recorded.

    Attributes: ``failures``, what the request event told; ``parked``, calls that wait for a connection; ``sockets``,
    ``transports``, of all connections there were.
    """

    revisions: Any

    def __init__(
        self, settings: Settings, clock: Clock, warmup_ns: int, planned_s: float | None, history: HistoryWriter | None
    ) -> None:
        self.settings, self.clock, self.history = settings, clock, history
        self.loop = Loop(clock)
        self.keys = Keys(settings)
        self.client = EtcdClient(["127.0.0.1:2379"], timeout_s=settings.timeout_s, history=history)
        self.channel = self.client.channel
        self.timeout_ns = int(settings.timeout_s * 1e9)
        self.failures: list[tuple[str, object]] = []
        request = SimpleNamespace(_handlers=[None], fire=self._fire)
        environment: Any = SimpleNamespace(events=SimpleNamespace(request=request))
        self.open_loop = settings.schedule() is not None
        self.recorder = Recorder(environment, open_loop=self.open_loop, planned_s=planned_s)
        self.warmup = Recorder(environment)
        self.recorder.clock_offset_ns = self.warmup.clock_offset_ns = OFFSET_NS
        self.quota, self.offset = share(settings.operations, 1, 0)
        self.warm_until_ns = clock.now + warmup_ns
        self.parked: list[Call] = []
        self.users: list[User] = []
        self.sockets: list[Socket] = []
        self.transports: list[Transport] = []
        self._latencies: dict[str, Any] = {}

    def _fire(self, *, name: str, exception: object, **_: object) -> None:
        self.failures.append((name, exception))

    # ---- the load

    def owed(self, number: int) -> str | None:
        return owed(self.settings, self.offset, number) if number >= 0 else None

    def record(self, operation: Operation, number: int) -> None:
        if number >= 0:
            self.recorder.record(operation)
        else:
            self.warmup.count(operation)

    def record_open(self, operation: Operation, number: int) -> None:
        operation.return_ns = self.clock.now
        operation.outcome = Outcome.INFO
        operation.error = STOPPED
        self.record(operation, number)

    # ---- connections

    def _make(self) -> Transport:
        raise NotImplementedError

    def connect(self) -> None:
        """Begin a connection: `Transport.connect` up to where it waits for SETTINGS."""
        made = self._make()
        socket = Socket()
        plain: Any = made
        plain._loop, plain._run_callback = self.loop, self.loop.run_callback
        plain._socket, plain._recv, plain._send = socket, socket.recv, socket.send
        plain._reader, plain._writer = Watcher(), Watcher()
        self.transports.append(made)
        self.sockets.append(socket)
        made._flush()

    def join(self, place: int) -> bool:
        """Take a connection into use where its peer has greeted; return whether it did."""
        made = self.transports[place]
        if not made._connection.ready or made._socket is None or not made._connection.accepting or made.accepting:
            return False
        made.accepting = True
        self.channel._live.append(made)
        self.channel._deal()
        self.unpark()
        return True

    def left(self, made: Transport) -> None:
        """As `Channel._down`."""
        if made in self.channel._live:
            self.channel._live.remove(made)
            self.channel._deal()

    def unpark(self) -> None:
        """Have those who wait for a connection look again."""
        parked, self.parked = self.parked, []
        for call in parked:
            call.later()

    def refuse(self) -> None:
        """End those who wait for a connection: none could be made."""
        parked, self.parked = self.parked, []
        for call in parked:
            call.ended(never_sent(Code.UNAVAILABLE, "connection refused", "no"))

    def read(self, place: int, data: bytes | OSError) -> None:
        """Have a connection read what came, or fail to."""
        made = self.transports[place]
        if made._socket is None:
            return
        self.sockets[place].inbox.append(data)
        made._on_readable()
        self.loop.run()

    def write(self, place: int, room: int) -> None:
        """Have the kernel take so many bytes more."""
        made: Any = self.transports[place]
        self.sockets[place].room = room
        if made._socket is not None and made._writer.on and room:
            made._on_writable()
        self.loop.run()

    def wait(self) -> None:
        """Let happen what is due by the clock."""
        self.loop.go_off()
        late = [each for each in self.parked if each.deadline_ns <= self.clock.now]
        for call in late:
            if call in self.parked:
                self.parked.remove(call)
                call.later()
        self.loop.run()

    # ---- users

    def add_user(self, process: int) -> None:
        user = User(self, process)
        self.users.append(user)
        self.serve(user)
        self.loop.run()

    def serve(self, user: User) -> None:
        raise NotImplementedError

    def done(self, user: User) -> None:
        """Have a user go on whose call has ended."""
        raise NotImplementedError

    def woken(self, user: User, ended_ns: int | None) -> None:
        raise NotImplementedError

    def leave(self, place: int) -> None:
        raise NotImplementedError

    def kill(self, place: int) -> None:
        raise NotImplementedError

    def hand(self, number: int, due_ns: int) -> bool:
        """Begin an operation of an open loop; return whether there was an idle user."""
        raise NotImplementedError

    # ---- what came of it

    def revision(self, key: int) -> int:
        return int(self.revisions.get(self.keys[key], 0))

    def drain(self) -> None:
        """Count what the engine has counted."""

    def series(self) -> object:
        """Return what the load would report: rows by interval, their histograms among them."""
        self.drain()
        return [{f: sorted(rows) for f, rows in part.items()} for part in self.recorder.take_series()]

    in_flight_max = 0
    taken = 0

    def state(self) -> dict[str, object]:
        """Return all that has to be equal on both sides."""
        self.drain()
        last = self.transports[-1] if self.transports else None
        connection = last._connection if last is not None else None
        sender: Any = connection._sender if connection is not None else None
        return {
            "totals": self.recorder.totals(), "warmup": self.warmup.totals(), "failures": self.failures,
            "lags": dict(self.recorder.start_lags), "last call": self.recorder.last_call_ns,
            "revisions": [self.revision(key) for key in range(self.settings.key_space)],
            "resent": self.channel.resent, "waits": dict(self.channel.stream_waits), "in flight": self.in_flight_max,
            "taken": self.taken, "over": [each.over for each in self.users], "parked": len(self.parked),
            "live": [each in self.channel._live for each in self.transports],
            "closed": [each.closed for each in self.sockets],
            "open": [each.open_count for each in self.transports],
            "connection": None if sender is None or connection is None else (
                sender._window, sender.next_id, sender.max_streams, sender.accepting, sorted(sender.blocked),
                connection.waiting, connection.room, connection.ended, connection.ready,
            ),
        }  # fmt: skip


class PythonSide(Side):
    """The engine in Python: `load.user.EtcdUser.operate` and `load.open_loop.OpenLoop.serve`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.revisions = {}
        self._active = 0
        self._measuring = False
        self._idle: list[User] = []

    def _make(self) -> Transport:
        return Transport(ENDPOINT, self.left)

    def serve(self, user: User) -> None:
        user.over = False
        if self.open_loop:
            self._idle.append(user)
        elif user.leaving or (number := self._take()) is None:
            user.over = True
        else:
            self._begin(user, number, 0)

    def _take(self) -> int | None:
        """As `Load.take`."""
        if not self._measuring:
            if self.clock.now < self.warm_until_ns:
                return -1
            self._measuring = True
        if self.quota is not None and self.taken >= self.quota:
            return None
        self.taken += 1
        return self.taken - 1

    def _begin(self, user: User, number: int, due_ns: int) -> None:
        f, key, value = user.workload.next(self.owed(number) if number < len(self.settings.mix) else None)
        self._active += 1
        self.in_flight_max = max(self.in_flight_max, self._active)
        expected = self.revisions.get(key, 0) if f == "txn" else 0
        user.call = Call(user, number, f, key, value, due_ns, self.clock.now, expected)
        user.call.begin()

    def done(self, user: User) -> None:
        self._active -= 1
        self.serve(user)

    def leave(self, place: int) -> None:
        self.users[place].leaving = True
        self.loop.run()

    def kill(self, place: int) -> None:
        user = self.users[place]
        if user.call is not None:
            user.call.kill()
            user.call = None
            self._active -= 1
        elif user in self._idle:
            self._idle.remove(user)
        user.over = True
        self.loop.run()

    def hand(self, number: int, due_ns: int) -> bool:
        if not self._idle:
            return False
        self._begin(self._idle.pop(), number, due_ns)
        return True


class CompiledSide(Side):
    """The compiled engine: `Engine.serve` in callbacks, all else as it is."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.engine = engines.make(self.settings, 0, 1)
        if self.history is not None:
            self.engine.record_in(self.history)
        self.engine._run_callback = self.loop.run_callback
        self.engine.begin(self.channel, self, self.warm_until_ns)
        self.core = self.engine.core
        self.revisions = self.engine.revisions(PREFIX_BYTES)
        # Operations that the core has done from the beginning to the end.
        self.by_the_core = 0

    # -- as `Load` is the engine's host

    def begin_measuring(self) -> None:
        pass

    def interval(self, now_ns: int) -> tuple[int, int]:
        return self.recorder.interval(now_ns)

    def absorb(self, f: str, drained: Any) -> None:
        self.by_the_core += drained[0] + drained[2]
        self.recorder.absorb(f, drained)
        self.warmup.absorb_warmup(f, drained)

    def absorb_lags(self, lags: dict[int, int]) -> None:
        self.recorder.absorb_lags(lags)

    def user_ready(self) -> None:
        pass

    # -- as `Engine.serve`

    def _make(self) -> Transport:
        return self.engine.make_transport(ENDPOINT, self.left)

    def serve(self, user: User) -> None:
        engine: Any = self.engine
        row = user.row = self.core.enlist(user.process)
        engine._users[row], engine._rows[user.process] = EngineUser(user), row  # type: ignore[arg-type]
        engine._greenlets[row], engine._draws[row] = user, engine_module.draws(row)
        self.core.start(row, self.clock.now)
        self._go_on(user)

    def _go_on(self, user: User) -> None:
        core, engine, row = self.core, self.engine, user.row
        state = core.state(row)
        if state == OVER_:
            self._release(user)
        elif state == LENT_:
            number, code, key, _, due_ns, _, _ = core.look(row)
            f = ("get", "put", "txn")[code]
            f = (self.owed(number) if number < len(self.settings.mix) else None) or f
            value = None if f == "get" else user.workload.value(core.count_value(row))
            name = self.keys[key]
            expected = self.revisions.get(name, 0) if f == "txn" else 0
            due_ns = due_ns if self.open_loop else 0
            user.call = Call(user, number, f, name, value, due_ns, self.clock.now, expected)
            user.call.begin()
        elif state == ADOPTED_ and engine._adopted[row][1].code >= 0:
            number, code, key, count, due_ns, call_ns, expected = core.look(row)
            lane, stream = engine._adopted.pop(row)
            lane.note_end(stream, user.ended_ns)
            f = ("get", "put", "txn")[code]
            name, value = EngineUser(user)._named(f, key, count - 1)  # type: ignore[arg-type]
            user.call = Call(user, number, f, name, value, due_ns, call_ns, expected)
            user.call.take(stream, lane)
        else:
            engine._waiting[row] = user  # type: ignore[assignment]

    def woken(self, user: User, ended_ns: int | None) -> None:
        self.engine._waiting.pop(user.row, None)
        user.ended_ns = ended_ns or user.ended_ns
        self._go_on(user)

    def done(self, user: User) -> None:
        self.core.start(user.row, self.clock.now)
        self._go_on(user)

    def _release(self, user: User) -> None:
        engine = self.engine
        user.over = True
        del engine._users[user.row], engine._rows[user.process], engine._greenlets[user.row]
        del engine._draws[user.row]
        engine._waiting.pop(user.row, None)
        self.core.release(user.row)

    def leave(self, place: int) -> None:
        self.users[place].leaving = True
        self.engine.leave(self.users[place].process)
        self.loop.run()

    def kill(self, place: int) -> None:
        user = self.users[place]
        if not user.over:
            engine = self.engine
            if user.call is not None:
                user.call.kill()
                user.call = None
            else:
                engine._give_up(user.row, engine._users[user.row])
            self._release(user)
        self.loop.run()

    def hand(self, number: int, due_ns: int) -> bool:
        return self.engine.hand(number, due_ns)

    def drain(self) -> None:
        self.engine.drain()

    @property
    def in_flight_max(self) -> int:  # type: ignore[override]
        return self.engine.in_flight_max

    @property
    def taken(self) -> int:  # type: ignore[override]
        return self.engine.taken


def operations_in(path: Path) -> list[tuple[object, ...]]:
    """Return the operations in a history file, field by field, with the URL of the endpoint and both messages.

    The file must be whole. It is read here once more: the reader needs numpy, which no sanitizer has to look at.
    """
    data, at = path.read_bytes(), len(MAGIC)
    assert data.startswith(MAGIC)
    urls = {0: ""}
    heads: list[tuple[Any, ...]] = []
    messages = b""
    while at < len(data):
        magic, count, size, crc = BLOCK.unpack_from(data, at)
        records = data[at + BLOCK.size :][: count * RECORD.size]
        payload = data[at + BLOCK.size + len(records) :][:size]
        assert magic == BLOCK_MAGIC
        assert zlib.crc32(payload, zlib.crc32(records)) == crc
        heads += RECORD.iter_unpack(records)
        messages += payload
        at += BLOCK.size + len(records) + size
    found: list[tuple[object, ...]] = []
    place = 0
    for kind, method, outcome, code, process, endpoint, *rest, request_size, size in heads:
        request, said = messages[place:][:request_size], messages[place + request_size :][:size]
        place += request_size + size
        if kind == Kind.ENDPOINT:
            urls[endpoint] = said.decode()
        elif kind == Kind.OPERATION:
            found.append((method, outcome, code, process, urls[endpoint], *rest, request, said))
    assert heads[-1][0] == Kind.END
    assert json.loads(messages[-heads[-1][-1] :])["records"] == len(heads) - 1
    return found


__all__ = ["CompiledSide", "Connection", "Lane", "PythonSide", "Side", "operations_in", "stopped_clock"]
