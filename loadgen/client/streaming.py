"""One streaming call: messages go and come one by one, for as long as both sides like.

A taker that is slow holds the sender back: of what it has not taken, at most the stream's window
(``loadgen.wire.receiving.STREAM_WINDOW``) and the message under way are kept. So does a peer that is slow to take ours:
``send`` then waits.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from types import TracebackType

import gevent
import gevent.event

from cluster.base.endpoint import Endpoint
from cluster.base.errors import error_name
from loadgen.client.mailbox import Mailbox
from loadgen.wire import Code, Connection, Stream

# Bytes of our messages that may wait for the peer's window before ``send`` waits as well.
_MOST_UNSENT = 1 << 20
CANCELLED = "cancelled"
KILLED = "killed"


class StreamingCall:
    """What ``Transport.open`` returns. Used by greenlets of one process; one at a time receives.

    Use it as a context manager: leaving it gives up a call that has not ended. A greenlet killed while it waits here
    gives up the call too; ``gevent.Timeout`` does not.

    Attributes:
        endpoint: who is at the other end.
        ended_ns: when the end was read, or the call given up; 0 while it is open.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        connection: Connection,
        path: bytes,
        flush: Callable[[], None],
        on_end: Callable[[StreamingCall], None],
        blocked: set[StreamingCall],
    ) -> None:
        self.endpoint = endpoint
        self._on_end = on_end
        self._blocked = blocked
        self.ended_ns = 0
        self._connection = connection
        self._flush = flush
        self._inbox: Mailbox[tuple[bytes, int]] = Mailbox()
        self._room = gevent.event.Event()
        # Ended by the transport as a greenlet would be woken: through ``switch``.
        self._stream = connection.open_stream(path, 0, self, 1 << 62)
        self._stream.endpoint = str(endpoint)

    def __enter__(self) -> StreamingCall:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        self.cancel()

    # ---- how it ended

    @property
    def ended(self) -> bool:
        """Whether it has ended; messages may still wait to be taken."""
        return self._stream.code >= 0

    @property
    def code(self) -> int:
        """The gRPC status it ended with; -1 while it is open."""
        return self._stream.code

    @property
    def error(self) -> str | None:
        """Why it ended, as a constant: a cause, or the error's name; None while it is open, and for OK."""
        stream = self._stream
        if stream.code <= 0:
            return None
        return stream.cause or error_name(stream.code, stream.detail if stream.answered else "")

    @property
    def stream(self) -> Stream:
        """The wire's own record of it, with ``detail``, ``answered`` and ``unprocessed``."""
        return self._stream

    # ---- messages

    def send(self, message: bytes) -> bool:
        """Send one message; return False where the call has ended.

        Waits while the peer's window holds back more than a mebibyte of what was sent before.
        """
        while not self.ended and self._full():
            self._room.clear()
            self._blocked.add(self)
            try:
                self._room.wait()
            except gevent.Timeout:
                raise
            except BaseException:
                self.cancel(KILLED)
                raise
        if self.ended:
            return False
        self._connection.send_message(self._stream, message)
        self._flush()
        return True

    def _full(self) -> bool:
        upload = self._stream.upload
        return upload is not None and len(upload.data) > _MOST_UNSENT

    def finish(self) -> None:
        """Say that no more messages come from us; theirs may."""
        if not self.ended:
            self._connection.finish(self._stream)
            self._flush()

    def receive(self, timeout_s: float | None = None) -> tuple[bytes, int] | None:
        """Return the next message and when its last byte was read, in nanoseconds on the monotonic clock.

        None where the call has ended and nothing is left, or nothing came within ``timeout_s`` seconds; ``ended``
        tells them apart.
        """
        taken = self.take(timeout_s)
        if taken is not None:
            self.consumed(taken[0])
        return taken

    def take(self, timeout_s: float | None = None) -> tuple[bytes, int] | None:
        """As ``receive``, for whoever keeps the message: it counts against the window until ``consumed``."""
        try:
            return self._inbox.take(timeout_s)
        except (gevent.Timeout, RuntimeError):
            raise
        except BaseException:
            self.cancel(KILLED)
            raise

    def consumed(self, message: bytes) -> None:
        """Say that a message from ``take`` is not kept any more."""
        self._connection.consumed(self._stream, message)
        if self._connection.wants_to_send:
            self._flush()

    def cancel(self, cause: str = CANCELLED) -> None:
        """Give the call up, and what has not been taken of it. May be called again."""
        if self.ended:
            return
        self._stream.context = None
        self._connection.reset(self._stream, Code.CANCELLED, cause)
        self._inbox.items.clear()
        self._flush()
        self.switch(perf_counter_ns())

    # ---- from the transport, in the hub

    def deliver(self, message: bytes, read_ns: int) -> None:
        """Take a message and when it was read.

        The taker runs after every socket of this turn of the event loop was read: what it does is no part of the time
        at which a message on another connection was.
        """
        self._inbox.put((message, read_ns))

    def unblock(self) -> None:
        """Let those go on who wait to send, where there is room again."""
        if not self._full():
            self._blocked.discard(self)
            self._room.set()

    def switch(self, ended_ns: int) -> None:
        """Take when the call ended."""
        self.ended_ns = self._stream.ended_ns = ended_ns
        self._inbox.end()
        self._blocked.discard(self)
        self._room.set()
        self._on_end(self)
