"""A connection whose usual requests and answers are the core's, and whose every other frame is `loadgen.wire`'s.

The core and the sending half share one state: the numbers that both change live in the core's `Conn`, so there is
nothing to keep in step. An operation of the core's that meets something unusual is adopted: it becomes a `wire.Stream`
as if Python had sent it, and ends as all others do.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from loadgen.client.etcd import PUT, RANGE, TXN
from loadgen.client.transport import READ_SIZE, Transport
from loadgen.engine import requests
from loadgen.engine.core import Conn
from loadgen.wire import Connection, Event, NoStreamError, Stream
from loadgen.wire.errors import ErrorCode, RemoteError
from loadgen.wire.frames import DEFAULT_FRAME_SIZE, FRAME_HEADER, GOAWAY
from loadgen.wire.grpc import Head
from loadgen.wire.receiving import Receiver
from loadgen.wire.sending import HeaderTemplate, Sender
from loadgen.wire.stream import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.base.endpoint import Endpoint
    from loadgen.client.tls import TlsOptions
    from loadgen.engine.engine import Engine

_BY_PATH = {RANGE: requests.GET, PUT: requests.PUT, TXN: requests.TXN}
# What a stream of the core's has for its head: all that open an answer mean the same.
_OPENING = Head([(b":status", b"200"), (b"content-type", b"application/grpc")])


def _shared(name: str) -> Any:
    """Return an attribute of the sending half that lives in the core."""

    def read(sender: LaneSender) -> Any:
        return getattr(sender.conn, name)

    def write(sender: LaneSender, value: Any) -> None:
        setattr(sender.conn, name, value)

    return property(read, write)


class _Blocks(dict[tuple[bytes, int], HeaderTemplate]):
    """Header blocks of requests that may be sent again as they are; the core knows those of its requests."""

    def __init__(self, conn: Conn, timeout_ns: int) -> None:
        super().__init__()
        self._conn, self._timeout_ns = conn, timeout_ns

    def __setitem__(self, key: tuple[bytes, int], template: HeaderTemplate) -> None:
        super().__setitem__(key, template)
        path, timeout_ns = key
        if timeout_ns == self._timeout_ns and path in _BY_PATH:
            self._conn.set_block(_BY_PATH[path], template[2])

    def clear(self) -> None:
        super().clear()
        for f in _BY_PATH.values():
            self._conn.set_block(f, None)


class _Heads(dict[bytes, Head]):
    """Header blocks of answers whose meaning is known; the core knows the usual ones."""

    def __init__(self, conn: Conn) -> None:
        super().__init__()
        self._conn = conn

    def __setitem__(self, block: bytes, head: Head) -> None:
        super().__setitem__(block, head)
        if block and (head.opens or head.succeeds):
            self._conn.know(block, head.opens)

    def clear(self) -> None:
        super().clear()
        self._conn.forget()


class LaneSender(Sender):
    """A sending half that shares its state with the core."""

    __slots__ = ("conn",)
    accepting = _shared("accepting")
    max_streams = _shared("max_streams")
    next_id = _shared("next_id")
    queued = _shared("queued")
    replies = _shared("replies")
    _room = _shared("room")
    _window = _shared("window")

    def __init__(self, authority: bytes, scheme: bytes, conn: Conn, timeout_ns: int) -> None:
        self.conn = conn
        super().__init__(authority, scheme)
        self._out = conn  # type: ignore[assignment]  # it takes bytes as a list does, and `take` is ours
        self._templates = _Blocks(conn, timeout_ns)
        conn.share(self.streams, self.blocked, self.waiting)

    def start(self, path: bytes, message: bytes, timeout_ns: int, context: object, deadline_ns: int) -> Stream:
        """Take a unary request of Python's, return its stream; see ``Connection.start``."""
        if self.accepting and self.free() <= 0:
            raise NoStreamError(f"the peer allows {self.max_streams} streams at a time")
        stream = Stream(context, deadline_ns)
        stream.request = Request(path, message, timeout_ns)
        self._enqueue(stream)
        return stream

    def open_count(self) -> int:
        """Return how many streams are open."""
        return super().open_count() + self.conn.open

    def take(self) -> bytes:
        """Return what is queued, and forget it."""
        self.replies = 0
        return self.conn.take()


class LaneReceiver(Receiver):
    """A receiving half that gets the frames that the core does not take. Takes who adopts all of its operations."""

    __slots__ = ("_adopt_all",)
    _sender: LaneSender

    @property
    def _unacknowledged(self) -> int:
        return self._sender.conn.unacknowledged

    @_unacknowledged.setter
    def _unacknowledged(self, count: int) -> None:
        self._sender.conn.unacknowledged = count

    def __init__(self, sender: LaneSender, adopt_all: Callable[[], None]) -> None:
        super().__init__(sender)
        self._adopt_all = adopt_all
        self._decoder.memo = _Heads(sender.conn)
        on_goaway = self._handlers[GOAWAY]

        def goaway(flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
            adopt_all()  # those above its last stream end with it
            on_goaway(flags, stream_id, payload, events)

        self._handlers[GOAWAY] = goaway

    @property
    def special(self) -> bool:
        """Whether the next frame must be of a certain kind."""
        return self._special

    def take(self, frame: bytes, events: list[Event]) -> None:
        """Take one frame, or the header of one that is too large, and the events to add to.

        Of a read as a whole, what is to be done at its end is the core's.
        """
        word, flags, stream_id = FRAME_HEADER.unpack_from(frame)
        try:
            if word >> 8 > DEFAULT_FRAME_SIZE:
                raise RemoteError("frame too large", ErrorCode.FRAME_SIZE_ERROR)
            self._on_frame(word & 0xFF, flags, stream_id & 0x7FFFFFFF, frame[9:], events)
        except RemoteError as exc:
            self._fail(exc, events)

    def _fail(self, exc: RemoteError, events: list[Event]) -> None:
        self._adopt_all()
        super()._fail(exc, events)


class LaneConnection(Connection):
    """The client's end of one connection that the core uses, too. Takes what `Connection` does, and its lane."""

    __slots__ = ()

    def __init__(self, authority: bytes, scheme: bytes, lane: Lane, timeout_ns: int) -> None:
        sender = LaneSender(authority, scheme, lane.conn, timeout_ns)
        self.begin(sender, LaneReceiver(sender, lane.adopt_all))

    @property
    def special(self) -> bool:
        """Whether only Python may take the next frame."""
        assert isinstance(self._receiver, LaneReceiver)
        return self._receiver.special

    def take_frame(self, frame: bytes, events: list[Event]) -> None:
        """Take a frame that the core does not, and the events to add to."""
        assert isinstance(self._receiver, LaneReceiver)
        self._receiver.take(frame, events)

    def enter(self, stream: Stream) -> None:
        """Take an operation that the core has sent, as if it had been sent here."""
        self._sender.streams[stream.id] = stream

    def sort(self) -> None:
        """Put all calls in the order in which they were sent, as if all had been sent here."""
        streams = self._sender.streams
        ordered = sorted(streams.items())
        streams.clear()
        streams.update(ordered)

    def open_waiting(self) -> None:
        """Open calls that wait for a stream, as many as the peer allows."""
        self._sender.open_waiting()


class _Ending:
    """What waits for the end of an operation of the core's where ends of Python's come before it.

    Takes the engine, and the user; -1: nobody's, but what was lent is to be done now.
    """

    __slots__ = ("_engine", "_user")

    def __init__(self, engine: Engine, user: int) -> None:
        self._engine, self._user = engine, user

    def switch(self, ended_ns: int) -> None:
        """Go on with the user, as a greenlet would."""
        core = self._engine.core
        if self._user >= 0:
            core.finish(self._user, ended_ns)
        if core.attention:
            self._engine.attend()


class Lane(Transport):
    """One connection to one endpoint, on which the core's operations and those of Python go side by side.

    Takes the engine, then what `Transport` takes.
    """

    _connection: LaneConnection

    def __init__(
        self,
        engine: Engine,
        endpoint: Endpoint,
        on_end: Callable[[Transport], None] | None = None,
        tls: TlsOptions | None = None,
    ) -> None:
        self._engine = engine
        self._core = engine.core
        self.conn = Conn(self)
        self._found: list[Event] = []
        super().__init__(endpoint, on_end, tls)
        self.conn.endpoint = engine.endpoint_number(str(endpoint))
        self._core.connect(self.conn)

    def _make_connection(self, authority: bytes, scheme: bytes) -> LaneConnection:
        return LaneConnection(authority, scheme, self, self._engine.timeout_ns)

    # ---- the core's side

    def choose(self, now_ns: int) -> Conn:
        """Have the core use this connection in this turn of the event loop, and send at its end."""
        deadline_ns = now_ns + self._engine.timeout_ns
        if deadline_ns < self._armed:
            self._arm(deadline_ns)
        if not self.flushing:
            self.flushing = True
            self._run_callback(self._end_turn)
        self.conn.chosen = True
        return self.conn

    def passed_over(self) -> None:
        """Have the core ask which connection its next operation goes to."""
        self.conn.chosen = False

    def _end_turn(self) -> None:
        # What was lent in this turn is sent with the rest.
        if self._core.attention:
            self._engine.attend()
        self._flush()

    def unusual(self, frame: bytes, user: int) -> None:
        """Take a frame that the core does not, and whose operation it is about; -1: none that is under way."""
        if user >= 0:
            self.adopt(user)
        self._connection.take_frame(frame, self._found)
        self.conn.special = self._connection.special
        if self._connection.ended is not None:
            self.conn.dead = True

    def ended(self, users: list[int]) -> None:
        """Take whose operations have ended, after all ends before; those that are lent come first."""
        self._found += [self._ending(-1), *map(self._ending, users)]

    def _ending(self, user: int) -> Stream:
        stream = Stream(_Ending(self._engine, user), 0)
        stream.code = 0
        return stream

    def pump(self) -> None:
        """Open calls that wait for a stream."""
        self._connection.open_waiting()

    def adopt(self, user: int) -> Stream:
        """Make a stream of the core's operation of a user; whoever waits for it is woken as for any other."""
        stream_id, end, call_ns, begun, message = self._core.adopt(self.conn, user)
        stream = Stream(self._engine.waiter(user), call_ns + self._engine.timeout_ns)
        stream.id, stream.end, stream.message = stream_id, end, message
        if begun:
            stream.head = _OPENING
        self._connection.enter(stream)
        self._engine.adopted(user, self, stream)
        return stream

    def adopt_all(self) -> None:
        """Make streams of all of the core's operations here, in the order in which they were sent."""
        for user in self._core.open_rows(self.conn):
            self.adopt(user)
        self._connection.sort()

    # ---- the transport's

    def _events(self, data: bytes, now: int) -> list[Event]:
        self._core.feed(self.conn, data, now)
        found, self._found = self._found, []
        return found

    def _on_readable(self) -> None:
        # What happens once a turn, in one frame of Python: that takes 1.8 us a turn instead of 2.8. All else is as in
        # every connection.
        try:
            data = self._recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._break(exc)
            return
        now = perf_counter_ns()
        if data and self.accepting:
            self._heard = True
            self._core.feed(self.conn, data, now)
            if self._found or self._queued or self._blocked:
                found, self._found = self._found, []
                self._handle(found, now)
            elif not self.flushing and len(self.conn):
                self._flush()
        else:
            self._take_in(data, now)
        if self._core.attention:
            self._engine.attend()

    def _flush(self) -> None:
        self.conn.chosen = False
        super()._flush()

    def _on_deadline(self) -> None:
        for user in self._core.open_rows(self.conn, perf_counter_ns() - self._engine.timeout_ns):
            self.adopt(user)
        self._connection.sort()
        super()._on_deadline()
        first = self._core.first_call(self.conn)
        if first is not None and first + self._engine.timeout_ns < self._armed:
            self._arm(first + self._engine.timeout_ns)

    def _end(self, cause: str, detail: str = "") -> None:
        if self._socket is not None:
            self.adopt_all()
            self.conn.dead = True
            self._core.disconnect(self.conn)
        super()._end(cause, detail)
