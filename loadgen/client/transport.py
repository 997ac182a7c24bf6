"""The gevent shell over ``loadgen.wire``: one socket, one connection, many waiting greenlets.

All greenlets that call in one turn of the event loop share one send, and all answers of one read share one time
stamp, taken when the bytes were read: what the generator does afterwards is not the server's latency. Nothing here
needs monkey-patching.
"""

from __future__ import annotations

import _socket
import errno
from collections import deque
from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING, NoReturn

import gevent
import gevent.event
from greenlet import getcurrent, greenlet

from cluster.base.endpoint import Endpoint
from loadgen.client.connect_errors import (
    CLOSED,
    CLOSED_HERE,
    LOST,
    NO_ANSWER,
    NO_STREAM,
    NOT_HTTP2,
    SILENT,
    ConnectError,
    cause_of,
)
from loadgen.client.dialing import dial, foreign
from loadgen.client.event_loop import Watcher
from loadgen.client.streaming import StreamingCall
from loadgen.wire import (
    Code,
    Connection,
    ConnectionEnded,
    Event,
    GoAway,
    Message,
    NoStreamError,
    SettingsReceived,
    Stream,
)

if TYPE_CHECKING:
    from loadgen.client.tls import Tls, TlsOptions

# Larger reads cost more than they save: the allocator then asks the kernel for fresh pages each time.
READ_SIZE = 65_536
_NEVER = 1 << 62
# A streaming call has no deadline, so a peer that vanished without a word is asked: after so many seconds of silence,
# and given up after as many again. etcd takes more than one PING in 5 s amiss (--grpc-keepalive-min-time).
_SILENCE_S = 7.5

_NARROW = 1 << 16


class Transport:
    """One connection to one endpoint, over TCP or TLS.

    Takes the endpoint; ``on_end``, called once when no new calls are taken here any more (GOAWAY, loss, close), before
    the calls that this ended are told; and how to speak TLS, without which the connection is plain.

    Attributes: ``open_count``, calls that wait for an answer; ``accepting``, whether new calls are taken;
    ``flushing``, a call of this turn of the event loop has been put out and is to be sent at its end; ``limit``,
    ``room``, ``waiting``, how many streams the peer allows, how many more can be opened, and calls without one.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        on_end: Callable[[Transport], None] | None = None,
        tls: TlsOptions | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._where = str(endpoint)
        self.accepting = False
        self._on_end = on_end
        hub = gevent.get_hub()
        self._loop = hub.loop
        self._run_callback = hub.loop.run_callback
        # Greenlet's own: gevent's asks each time for a `switch_out`, which none of ours has.
        self._switch = greenlet.switch.__get__(hub)
        scheme = b"http" if tls is None else b"https"
        self._connection = connection = self._make_connection(endpoint.http_host.encode(), scheme)
        self.set_metadata = connection.set_metadata
        self._start = connection.start
        self._queued: deque[Stream] = deque()
        self._receive = connection.receive_data
        self._take = connection.data_to_send
        self._tls_options = tls
        self._tls: Tls | None = None
        self._socket: _socket.socket | None = None
        self._recv: Callable[[int], bytes] = _closed
        self._send: Callable[[bytes | memoryview], int] = _closed
        self._reader: Watcher | None = None
        self._writer: Watcher | None = None
        self._timer: Watcher | None = None
        self._armed = _NEVER
        self.flushing = False
        self._streaming: set[StreamingCall] = set()
        # Those of them where somebody waits to send.
        self._blocked: set[StreamingCall] = set()
        self._watchdog: Watcher | None = None
        self._heard = True
        self._asked = False
        self._retired = False
        self._backlog: bytes | memoryview = b""
        self._sent = 0
        self._first = b""
        self._failure: ConnectError | None = None
        self._answered = gevent.event.Event()

    def _make_connection(self, authority: bytes, scheme: bytes) -> Connection:
        return Connection(authority, scheme)

    # ---- life

    def connect(self, timeout_s: float) -> None:
        """Connect and waits for the peer's SETTINGS. Takes seconds. Raises ConnectError."""
        until = perf_counter_ns() + int(timeout_s * 1e9)
        raw, self._tls = dial(self.endpoint, timeout_s, self._tls_options)
        self._socket = raw
        self._recv, self._send = (raw.recv, raw.send) if self._tls is None else (self._tls.recv, self._tls.send)
        self._reader = self._loop.io(raw.fileno(), 1)
        self._writer = self._loop.io(raw.fileno(), 2)
        self._reader.start(self._on_readable)
        self._flush()
        if self._tls is not None:
            self._run_callback(self._on_readable)  # the peer's first bytes may have come with the handshake
        try:
            self._answered.wait(max(0.0, (until - perf_counter_ns()) / 1e9))
        except BaseException:
            self._end(LOST)
            raise
        if not self._connection.ready:
            self._fail(NO_ANSWER)  # unless there is a better reason
            self._end(LOST)
        if self._failure is not None:
            raise self._failure
        self.accepting = self._connection.accepting
        if not self.accepting:
            self._end(LOST)
            raise ConnectError(self.endpoint, CLOSED)

    def close(self) -> None:
        """End the connection and every call on it. May be called again."""
        if self._socket is not None:
            self._connection.close()
            self._flush()
            self._end(CLOSED_HERE)

    @property
    def open_count(self) -> int:
        """Calls that wait for their answer."""
        return self._connection.open_count

    @property
    def limit(self) -> int:
        """How many streams the peer allows at a time."""
        return self._connection.limit

    @property
    def room(self) -> int:
        """How many streams can be opened at once."""
        return self._connection.room

    @property
    def waiting(self) -> int:
        """Calls that wait for a stream."""
        return self._connection.waiting

    # ---- calls

    def call(self, path: bytes, message: bytes, timeout_ns: int, call_ns: int, *, queued: bool = False) -> Stream:
        """Send a unary request and wait for its end.

        Takes the method's path, the encoded message, the time allowed in nanoseconds, and the present on the
        monotonic clock. Returns the stream as it ended; ``ended_ns`` is when its last bytes were read, or when it was
        given up. Raises LocalError where no new calls are taken, NoStreamError where the peer allows no further stream;
        ``queued``: it then waits for one, against the same deadline, and ``opened_ns`` is when it got it, or 0.
        A greenlet killed while it waits gives its call up.
        """
        deadline_ns = call_ns + timeout_ns
        if queued:
            stream = self._connection.call(path, message, timeout_ns, getcurrent(), deadline_ns)
            stream.opened_ns = 0
            if not stream.id:
                self._queued.append(stream)
        else:
            stream = self._start(path, message, timeout_ns, getcurrent(), deadline_ns)
        if deadline_ns < self._armed:
            self._arm(deadline_ns)
        if not self.flushing:
            self.flushing = True
            self._run_callback(self._flush)
        try:
            ended_ns = self._switch()
            while stream.code < 0:
                # Somebody else woke this greenlet; it is ours to wake.
                ended_ns = self._switch()
        except BaseException:
            self.abandon(stream)
            raise
        self.note_end(stream, ended_ns)
        return stream

    def passed_over(self) -> None:
        """Take note that another connection gets the further calls of this turn of the event loop."""

    def abandon(self, stream: Stream) -> None:
        """Give a call up for which nobody waits any more."""
        stream.context = None
        self._connection.reset(stream, Code.CANCELLED, "killed")
        self._flush_soon()

    def note_end(self, stream: Stream, ended_ns: int) -> None:
        """Note when a call of this connection ended, and with whom it was."""
        stream.ended_ns = ended_ns
        stream.endpoint = self._where

    def open(self, path: bytes, on_end: Callable[[StreamingCall], None] | None = None) -> StreamingCall:
        """Take the path of a streaming method, return the call; see ``StreamingCall``. It has no deadline.

        Takes what to call with it when it has ended. Raises LocalError where no new calls are taken, NoStreamError
        where the peer allows no further stream: without a deadline it would wait for ever. While one is open, a peer
        that is silent for long is asked for a sign of life, and the connection ends where none comes.
        """
        if self._connection.accepting and self._connection.room <= 0:
            raise NoStreamError(f"the peer allows {self._connection.limit} streams at a time")

        def ended(call: StreamingCall) -> None:
            self._streaming.discard(call)
            if on_end is not None:
                on_end(call)

        call = StreamingCall(self.endpoint, self._connection, path, self._flush_soon, ended, self._blocked)
        self._streaming.add(call)
        if self._watchdog is None:
            self._heard, self._asked = True, False
            self._watchdog = self._loop.timer(_SILENCE_S, _SILENCE_S)
            self._watchdog.start(self._on_silence)
        self._flush_soon()
        return call

    def _on_silence(self) -> None:
        heard, self._heard = self._heard, False
        if heard:
            self._asked = False
        elif self._asked:
            self._end(SILENT)
        elif self._streaming:
            self._asked = True
            self._connection.ping(b"raftload")
            self._flush_soon()
        elif self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog.close()
            self._watchdog = None

    def _arm(self, deadline_ns: int) -> None:
        """One timer for all calls, set to the earliest deadline known."""
        self._armed = deadline_ns
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
        self._timer = self._loop.timer(max(0.001, (deadline_ns - perf_counter_ns()) / 1e9))
        self._timer.start(self._on_deadline, update=True)

    def _on_deadline(self) -> None:
        # The call for which it was set has long ended, as a rule. Looking at all open ones then, once a timeout's
        # length, is cheaper than keeping them in order.
        now = perf_counter_ns()
        self._armed = _NEVER
        expired = [stream for stream in self._connection.open_streams() if stream.deadline_ns <= now]
        # Those without a stream first: else they would get those that end here, and be sent after their deadline.
        expired.sort(key=lambda stream: stream.id > 0)
        for stream in expired:
            self._connection.reset(stream, Code.DEADLINE_EXCEEDED, None if stream.id else NO_STREAM)
        self._note_opened(now)
        self._flush_soon()
        self._wake(expired, now)
        left = min((stream.deadline_ns for stream in self._connection.open_streams()), default=_NEVER)
        if left < self._armed:
            self._arm(left)

    def _note_opened(self, now: int) -> None:
        """Note when calls that wait for a stream got one; they get them in the order in which they began to wait."""
        queued = self._queued
        while queued and (queued[0].id or queued[0].code >= 0):
            stream = queued.popleft()
            if stream.id:
                stream.opened_ns = now

    def _wake(self, streams: list[Stream], now: int) -> None:
        for stream in streams:
            waiter: greenlet | None = stream.context
            if waiter is not None:
                stream.context = None
                waiter.switch(now)

    # ---- reading

    def _on_readable(self) -> None:
        try:
            data = self._recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._break(exc)
            return
        self._take_in(data, perf_counter_ns())

    def _break(self, exc: OSError) -> None:
        """End the connection, which could not be read."""
        self._fail(cause_of(exc), str(exc))
        self._end(LOST, str(exc))

    def _take_in(self, data: bytes, now: int) -> None:
        """Take what was read, nothing at the peer's end, and when."""
        self._heard = True
        if not data:
            self._end(LOST, "closed by the peer")
            return
        if not self.accepting and not self._connection.ready and not self._plausible(data):
            return
        self._handle(self._events(data, now), now)

    def _handle(self, events: list[Event], now: int) -> None:
        """Wake those whom events are about, and go on with what waits."""
        if self._queued:
            self._note_opened(now)
        if self._connection.ended is not None:
            self.retire()  # before those whom it ended are woken, and call again
        for event in events:
            if event.__class__ is Stream:
                waiter: greenlet | None = event.context
                if waiter is not None:
                    event.context = None
                    waiter.switch(now)
            elif event.__class__ is Message:
                call: StreamingCall | None = event.stream.context  # type: ignore[assignment]
                if call is not None:
                    call.deliver(event.data, now)
            elif event.__class__ is SettingsReceived:
                self._answered.set()
            elif event.__class__ is GoAway:
                self.retire()
            elif event.__class__ is ConnectionEnded:
                self._fail(NOT_HTTP2, event.detail)
                self._flush()
                self._end(LOST, event.detail)
                return
        if self._blocked:
            for call in tuple(self._blocked):
                call.unblock()
        if self._connection.wants_to_send and not self.flushing:
            self._flush()
        if self._retired and not self._connection.open_count:
            self._end(LOST)  # after GOAWAY, with the last answer

    def _events(self, data: bytes, now: int) -> list[Event]:
        """Take what was read and when, return what came of it."""
        return self._receive(data)

    def _plausible(self, data: bytes) -> bool:
        """Tell apart, from the first bytes, those who cannot be etcd without TLS."""
        self._first = (self._first + data)[:8]
        reason = foreign(self._first)
        if reason is not None:
            self._fail(*reason)
            self._end(LOST)
        return reason is None

    # ---- writing

    def _flush_soon(self) -> None:
        if not self.flushing:
            self.flushing = True
            self._run_callback(self._flush)

    def _flush(self) -> None:
        self.flushing = False
        if self._backlog:
            return  # the write watcher goes on; what the connection holds follows then
        data = self._take()
        if data:
            self._write(data)

    def _write(self, data: bytes | memoryview) -> None:
        try:
            size = self._send(data)
        except (BlockingIOError, InterruptedError):
            size = 0
        except OSError as exc:
            if not self._answered.is_set():
                self._on_readable()  # a peer that refuses says why before it closes, such as by an alert of TLS
            self._end(LOST, str(exc))
            return
        self._sent += size
        if size < len(data):
            self._backlog = memoryview(data)[size:]
            assert self._writer is not None
            self._writer.start(self._on_writable)

    def _on_writable(self) -> None:
        assert self._writer is not None
        self._writer.stop()
        data, self._backlog = self._backlog, b""
        self._write(data)
        self._flush()

    # ---- ends

    def retire(self) -> None:
        """Take no new calls from now on; close when the last open one has ended. May be called again."""
        was_accepting, self.accepting = self.accepting, False
        self._retired = True
        if was_accepting and self._on_end is not None:
            self._on_end(self)
        if not self._connection.open_count:
            self._run_callback(self._end, LOST)

    def _fail(self, cause: str, detail: str = "") -> None:
        if not self._answered.is_set():
            self._failure = ConnectError(self.endpoint, cause, detail)
            self._answered.set()

    def _end(self, cause: str, detail: str = "") -> None:
        """Close the socket and wake everybody who waits."""
        raw, self._socket = self._socket, None
        if raw is None:
            return
        now = perf_counter_ns()
        for watcher in (self._reader, self._writer, self._timer, self._watchdog):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._timer = self._watchdog = None
        self._armed = -1  # no more timers
        self._recv = self._send = _closed
        if self._tls is not None:
            self._tls.close()
        raw.close()
        self._fail(CLOSED, detail)
        self.retire()
        ended = self._connection.lost(cause, self._sent, detail)
        # From the hub, whoever called this: only there may another greenlet be switched to.
        self._run_callback(self._wake, [each for each in ended if isinstance(each, Stream)], now)


def _closed(_: object) -> NoReturn:
    raise OSError(errno.ENOTCONN, "closed")


__all__ = ["ConnectError", "Transport"]


class NarrowTransport(Transport):
    """A connection whose streaming calls hold their sender back as soon as 64 KiB wait for a taker."""

    def _make_connection(self, authority: bytes, scheme: bytes) -> Connection:
        return Connection(authority, scheme, _NARROW)
