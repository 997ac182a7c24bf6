"""One HTTP/2 connection of a gRPC client (RFC 9113): bytes and calls in, events and bytes out.

The two halves are ``sending`` and ``receiving``; this is what their owner sees of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from loadgen.wire import frames
from loadgen.wire.errors import ErrorCode
from loadgen.wire.events import ConnectionEnded, Event
from loadgen.wire.grpc import Code
from loadgen.wire.headers import MAX_HEADER_LIST
from loadgen.wire.receiving import STREAM_WINDOW, Receiver
from loadgen.wire.sending import Sender
from loadgen.wire.stream import Stream

CONNECTION_WINDOW = 1 << 30


class Connection:
    """The client's end of one connection.

    Takes the authority (``host:port``) and scheme that requests name, and how many bytes the taker of a streaming call
    may leave, where that is not ``STREAM_WINDOW``. Call ``data_to_send`` after construction,
    after every call and after every ``receive_data``, and write what it returns, in order.
    """

    __slots__ = (
        "_receiver", "_sender", "call", "consumed", "data_to_send", "finish", "open_stream", "receive_data",
        "send_message", "start",
    )  # fmt: skip

    start: Callable[[bytes, bytes, int, object, int], Stream]
    """``start(path, message, timeout_ns, context, deadline_ns)``: sends a unary request and returns its ``Stream``,
    which ``receive_data`` returns again once it has ended. ``timeout_ns`` (0: none) is told to the server;
    ``deadline_ns`` is only kept. Raises NoStreamError when the peer allows no further stream at present, LocalError
    when the connection takes no new ones."""
    call: Callable[[bytes, bytes, int, object, int], Stream]
    """``call(path, message, timeout_ns, context, deadline_ns)``: as ``start``, but a request for which there is no
    stream waits for one, in the order of calling. Until then its ``id`` is 0."""
    open_stream: Callable[[bytes, int, object, int], Stream]
    """``open_stream(path, timeout_ns, context, deadline_ns)``: as ``call``, for streaming methods: messages go by
    ``send_message`` and ``finish``, come as ``Message`` events, and the stream itself comes when it has ended."""
    consumed: Callable[[Stream, bytes], None]
    """``consumed(stream, message)``: the taker of a ``Message`` is done with it. Until then the message counts against
    the stream's window, which is what bounds the memory of a slow taker."""
    send_message: Callable[[Stream, bytes], None]
    """``send_message(stream, message)``: one more message on a stream from ``open_stream``."""
    finish: Callable[[Stream], None]
    """``finish(stream)``: no more messages from us on it."""
    data_to_send: Callable[[], bytes]
    """``data_to_send()``: the bytes to write now, once."""
    receive_data: Callable[[bytes], list[Event]]
    """``receive_data(data)``: takes bytes as they were read, returns what came of them. Raises nothing: where the peer
    breaks the protocol every open call is ended, ``ConnectionEnded`` is the last event, and GOAWAY is sent."""

    def __init__(self, authority: bytes, scheme: bytes = b"http", stream_window: int = STREAM_WINDOW) -> None:
        sender = Sender(authority, scheme)
        self.begin(sender, Receiver(sender, stream_window))

    def begin(self, sender: Sender, receiver: Receiver) -> None:
        """Take both halves, and put out what a client says first."""
        self._sender = sender
        self._receiver = receiver
        # Bound once: one Python frame less on every call.
        self.start = sender.start
        self.call = sender.call
        self.open_stream = sender.open_stream
        self.send_message = sender.send_message
        self.finish = sender.finish
        self.data_to_send = sender.take
        self.receive_data = receiver.receive_data
        self.consumed = receiver.consumed
        settings = {frames.ENABLE_PUSH: 0, frames.INITIAL_WINDOW_SIZE: receiver.stream_window}
        settings[frames.MAX_HEADER_LIST_SIZE] = MAX_HEADER_LIST
        sender.put(frames.PREFACE + frames.settings(settings))
        sender.put(frames.window_update(0, CONNECTION_WINDOW - frames.DEFAULT_WINDOW))

    # ---- what the owner asks and tells

    def set_metadata(self, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        """Take header fields for every request that is opened from now on, in place of those taken before."""
        self._sender.set_metadata(fields)

    @property
    def ready(self) -> bool:
        """Whether the peer's SETTINGS have come: it speaks HTTP/2."""
        return self._receiver.ready

    @property
    def ended(self) -> ConnectionEnded | None:
        """How the peer broke the protocol; None while it has not."""
        return self._receiver.ended

    @property
    def accepting(self) -> bool:
        """Whether new calls are taken."""
        return self._sender.accepting

    @property
    def wants_to_send(self) -> bool:
        """Whether ``data_to_send`` would return anything."""
        return self._sender.pending

    @property
    def queued(self) -> int:
        """Bytes that ``data_to_send`` has returned or would return now, since the beginning."""
        return self._sender.queued

    @property
    def open_count(self) -> int:
        """Calls that have not ended."""
        return self._sender.open_count() + len(self._sender.waiting)

    @property
    def limit(self) -> int:
        """How many streams the peer allows at a time; beyond any need while it has named no limit."""
        return self._sender.max_streams

    @property
    def room(self) -> int:
        """How many streams can be opened at once; 0 or less where the next one would wait."""
        return self._sender.free() - len(self._sender.waiting)

    @property
    def waiting(self) -> int:
        """Calls that wait for a stream."""
        return len(self._sender.waiting)

    def open_streams(self) -> Iterator[Stream]:
        """Iterate over the calls that have not ended; take a copy before ending any."""
        yield from self._sender.streams.values()
        yield from self._sender.waiting

    def reset(self, stream: Stream, code: Code, cause: str | None = None) -> None:
        """Give a call up: end it with ``code`` and tell the peer, if it knows of the call at all.

        The stream is not returned by ``receive_data`` afterwards.
        """
        if stream.code >= 0:
            return
        if stream.id:
            self._sender.put(frames.rst_stream(stream.id, ErrorCode.CANCEL))
        else:
            stream.unprocessed = True
        self._sender.end(stream, code, cause)
        self._sender.open_waiting()

    def ping(self, payload: bytes) -> None:
        """Send a PING of 8 bytes; its echo comes as ``PingAcknowledged``."""
        self._sender.put(frames.ping(payload))

    def close(self) -> None:
        """Say goodbye: take no new calls, and put GOAWAY among the next bytes to send."""
        if self._receiver.ended is None and self._sender.accepting:
            self._sender.refuse_new()
            self._sender.put(frames.goaway(0, ErrorCode.NO_ERROR))

    def lost(self, cause: str, sent: int, detail: str = "") -> list[Event]:
        """Take a constant cause and how many bytes the socket took in all; the transport has lost its peer.

        Returns every call that was open, ended UNAVAILABLE; ``unprocessed`` where its last byte was not written.
        """
        events: list[Event] = []
        self._sender.refuse_new()
        for stream in list(self.open_streams()):
            stream.unprocessed = stream.end > sent
            self._sender.end(stream, Code.UNAVAILABLE, cause, detail)
            events.append(stream)
        return events
