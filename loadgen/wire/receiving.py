"""The incoming half of a connection: frames in, events out.

Nearly every answer is three frames: a head that says "200, gRPC", one whole message, trailers that say "status 0".
``receive_data`` takes those in its own loop, head and message in one step; every other frame goes through a table of
handlers, those of a stream below it and those of the connection in ``control``.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from loadgen.wire import frames
from loadgen.wire.control import Control
from loadgen.wire.errors import ErrorCode, RemoteError
from loadgen.wire.events import ConnectionEnded, Event, Message
from loadgen.wire.grpc import PREFIX, Code, Head, MessageReader, code_of_http, code_of_reset
from loadgen.wire.headers import MAX_HEADER_LIST, HeaderDecoder
from loadgen.wire.sending import Sender
from loadgen.wire.stream import Stream

STREAM_WINDOW = 16 << 20
# Bytes received between two WINDOW_UPDATEs. Answers of unary calls are consumed as they arrive, so the peer never runs
# short; messages of a streaming call when their taker says so. The connection's window is given back in any case: one
# slow taker must not stop the rest.
_ACKNOWLEDGE_CONNECTION = 1 << 20
# Of a stream's window, which its owner may have made smaller: a quarter.
_PARTS = 4
# What a hostile peer can make us keep of one header block: so many pieces.
_MAX_FRAGMENTS = 128

_LAST_HEADERS = frames.END_HEADERS | frames.END_STREAM
# What one DATA frame has room for.
_LONGEST_MESSAGE = frames.DEFAULT_FRAME_SIZE - PREFIX.size

_unpack_header = frames.FRAME_HEADER.unpack_from
_unpack_message = Struct(">IBIBI").unpack_from  # a frame's header, then a message's


class Receiver:
    """Bytes in, events out; replies go to the sending half.

    Attributes: ``ready``, the peer's SETTINGS have come; ``ended``, how the connection ended, None while it lives;
    ``stream_window``, how many bytes of a streaming call its taker may leave.
    """

    __slots__ = (
        "_acknowledge_stream", "_decoder", "_fragments", "_handlers", "_pieces", "_sender", "_special", "_streams",
        "_tail", "_unacknowledged", "ended", "ready", "stream_window",
    )  # fmt: skip

    def __init__(self, sender: Sender, stream_window: int = STREAM_WINDOW) -> None:
        self._sender = sender
        self.stream_window = stream_window
        self._acknowledge_stream = stream_window // _PARTS
        self._streams = sender.streams
        self._decoder = HeaderDecoder(Head)
        self._tail = b""
        self._unacknowledged = 0
        # Only SETTINGS may come first, only CONTINUATION between the pieces of a header block.
        self._special = True
        self._pieces: list[bytes] = []
        self._fragments: tuple[int, int] | None = None
        self.ready = False
        self.ended: ConnectionEnded | None = None
        control = Control(sender)
        self._handlers: dict[int, Callable[[int, int, bytes, list[Event]], None]] = {
            frames.DATA: self._on_data,
            frames.HEADERS: self._on_headers,
            frames.PRIORITY: self._on_priority,
            frames.RST_STREAM: self._on_rst_stream,
            frames.SETTINGS: control.on_settings,
            frames.PUSH_PROMISE: self._on_push_promise,
            frames.PING: control.on_ping,
            frames.GOAWAY: control.on_goaway,
            frames.WINDOW_UPDATE: self._on_window_update,
            frames.CONTINUATION: self._on_continuation,
        }

    def receive_data(self, data: bytes) -> list[Event]:
        """Take bytes as they were read, return what came of them, in order.

        Raises nothing: where the peer breaks the protocol every open call is ended, ``ConnectionEnded`` is the last
        event, and GOAWAY is among the next bytes to send.
        """
        events: list[Event] = []
        if self.ended is not None:
            return events
        if self._tail:
            data = self._tail + data
        pos = 0
        end = len(data)
        streams = self._streams
        blocked = self._sender.blocked
        memo = self._decoder.memo
        taken = 0
        try:
            while end - pos >= 9:
                word, flags, stream_id = _unpack_header(data, pos)
                start = pos + 9
                stop = start + (word >> 8)
                if stop > end:
                    if word >> 8 > frames.DEFAULT_FRAME_SIZE:
                        raise RemoteError("frame too large", ErrorCode.FRAME_SIZE_ERROR)
                    break
                pos = stop
                # Both blocks: HEADERS in one piece, without padding or priority, whose block is known.
                if (
                    flags == frames.END_HEADERS
                    and word & 0xFF == frames.HEADERS
                    and not self._special
                    and (stream := streams.get(stream_id)) is not None
                    and stream.head is None
                    and (head := memo.get(data[start:stop])) is not None
                    and head.opens
                ):
                    stream.head = head
                    if end - pos >= 14 and not stream.streaming:
                        # As a rule the message follows at once, alone in its DATA.
                        word, flags, of, compressed, size = _unpack_message(data, pos)
                        stop = pos + 14 + size
                        if (
                            of == stream_id
                            and word == size + 5 << 8  # and of the kind 0, which is DATA
                            and flags == compressed == 0
                            and stop <= end
                            and size <= _LONGEST_MESSAGE
                        ):
                            stream.message = data[pos + 14 : stop]
                            taken += size + 5
                            pos = stop
                    continue
                if (
                    flags == _LAST_HEADERS
                    and word & 0xFF == frames.HEADERS
                    and not self._special
                    and (stream := streams.get(stream_id)) is not None
                    and stream.message is not None
                    and stream.reader is None  # in which a second message may have begun
                    and (head := memo.get(data[start:stop])) is not None
                    and head.succeeds
                    and not blocked
                ):
                    del streams[stream_id]
                    stream.code = 0
                    stream.answered = True
                    events.append(stream)
                    continue
                self._on_frame(word & 0xFF, flags, stream_id & 0x7FFFFFFF, data[start:stop], events)
        except RemoteError as exc:
            self._fail(exc, events)
            return events
        self._tail = data[pos:]
        self._unacknowledged += taken
        if self._unacknowledged >= _ACKNOWLEDGE_CONNECTION:
            self._sender.put(frames.window_update(0, self._unacknowledged))
            self._unacknowledged = 0
        if self._sender.waiting:
            self._sender.open_waiting()
        return events

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) > frames.DEFAULT_FRAME_SIZE:
            raise RemoteError("frame too large", ErrorCode.FRAME_SIZE_ERROR)
        if self._special:
            if not self.ready:
                if kind != frames.SETTINGS or flags & frames.ACK:
                    raise RemoteError("the first frame is not SETTINGS")
                self.ready = True
                self._special = False
            elif kind != frames.CONTINUATION or self._fragments is None or stream_id != self._fragments[0]:
                raise RemoteError("a header block was interrupted")
        handler = self._handlers.get(kind)
        if handler is not None:  # unknown kinds are ignored (section 5.5)
            handler(flags, stream_id, payload, events)

    # ---- frames of a stream

    def _on_data(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        stream = self._stream(stream_id)
        # Padding counts as well, and so does what comes for a stream that we have given up (section 6.9).
        self._unacknowledged += len(payload)
        size = len(payload)
        if flags & frames.PADDED:
            payload = frames.unpadded(payload)
        if stream is None:
            return
        if stream.head is None:
            self._break(stream, "DATA before HEADERS", events)
            return
        reader = stream.reader
        if reader is None:
            if (
                not stream.streaming
                and stream.message is None
                and not flags & frames.END_STREAM
                and len(payload) >= PREFIX.size
                and PREFIX.unpack_from(payload) == (0, len(payload) - PREFIX.size)
            ):
                # The one message, whole, where other streams' frames stood between it and its head.
                stream.message = payload[PREFIX.size :]
                return
            reader = stream.reader = MessageReader()
        try:
            messages = reader.feed(payload)
        except ValueError as exc:
            self._break(stream, str(exc), events)
            return
        if stream.streaming:
            for message in messages:
                reader.held += len(message) + PREFIX.size
                events.append(Message(stream, message))
        elif messages:
            if stream.message is not None or len(messages) > 1:
                self._break(stream, "more than one message", events)
                return
            stream.message = messages[0]
        reader.unacknowledged += size
        if flags & frames.END_STREAM:
            # Without trailers there is no status, whatever else has come.
            self._finish(stream, stream.head, events)
        else:
            # A message that is larger than the window is let in whole: what has no end yet is never held.
            self._acknowledge(stream_id, reader)

    def consumed(self, stream: Stream, message: bytes) -> None:
        """Take a message that ``receive_data`` returned for a streaming call, and whose taker is done with it."""
        reader = stream.reader
        if reader is not None and stream.code < 0:
            reader.held -= len(message) + PREFIX.size
            self._acknowledge(stream.id, reader)

    def _acknowledge(self, stream_id: int, reader: MessageReader) -> None:
        free = reader.unacknowledged - reader.held
        if free >= self._acknowledge_stream:
            self._sender.put(frames.window_update(stream_id, free))
            reader.unacknowledged = reader.held

    def _on_headers(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        self._stream(stream_id)
        if flags & frames.PADDED:
            payload = frames.unpadded(payload)
        if flags & frames.HAS_PRIORITY:
            if len(payload) < 5:
                raise RemoteError("HEADERS too short for its priority", ErrorCode.FRAME_SIZE_ERROR)
            payload = payload[5:]
        if flags & frames.END_HEADERS:
            self._on_block(stream_id, payload, flags & frames.END_STREAM, events)
        else:
            self._fragments = (stream_id, flags & frames.END_STREAM)
            self._pieces = [payload]
            self._special = True

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if self._fragments is None:
            raise RemoteError("CONTINUATION without HEADERS")
        self._pieces.append(payload)
        if len(self._pieces) > _MAX_FRAGMENTS or sum(map(len, self._pieces)) > MAX_HEADER_LIST:
            raise RemoteError("header block too long", ErrorCode.ENHANCE_YOUR_CALM)
        if flags & frames.END_HEADERS:
            end_stream = self._fragments[1]
            block = b"".join(self._pieces)
            self._pieces = []
            self._fragments = None
            self._special = False
            self._on_block(stream_id, block, end_stream, events)

    def _on_block(self, stream_id: int, block: bytes, end_stream: int, events: list[Event]) -> None:
        # Decoded even where nobody waits for it: the table must follow (section 4.3).
        head = self._decoder.decode(block)
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if head.malformed:
            self._break(stream, head.malformed, events)
        elif stream.head is not None:
            if head.http_status or not end_stream:
                self._break(stream, "trailers that are not the end", events)
            else:
                self._finish(stream, head, events)
        elif not head.http_status:
            self._break(stream, "an answer without :status", events)
        elif 100 <= head.http_status < 200:
            if end_stream:
                self._break(stream, "an informational answer that ends the stream", events)
        elif end_stream:
            self._finish(stream, head, events)
        elif head.opens:
            stream.head = head
        else:
            # Not gRPC: a proxy's error page. Its body is of no use.
            self._finish(stream, head, events, reset=True)

    def _on_rst_stream(self, _flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        stream = self._stream(stream_id)
        error = frames.uint32(payload)
        if stream is not None:
            stream.unprocessed = error == ErrorCode.REFUSED_STREAM
            cause = "stream refused" if stream.unprocessed else None
            self._sender.end(stream, code_of_reset(error), cause, f"RST_STREAM with error {error}")
            events.append(stream)

    def _on_priority(self, _flags: int, stream_id: int, payload: bytes, _events: list[Event]) -> None:
        if stream_id == 0:
            raise RemoteError("PRIORITY on stream 0")
        if len(payload) != 5:
            raise RemoteError("PRIORITY of a wrong size", ErrorCode.FRAME_SIZE_ERROR)

    def _on_push_promise(self, _flags: int, _stream_id: int, _payload: bytes, _events: list[Event]) -> None:
        raise RemoteError("PUSH_PROMISE although we disabled push")

    def _on_window_update(self, _flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        stream = self._stream(stream_id) if stream_id else None
        increment = frames.uint32(payload) & 0x7FFFFFFF
        if stream_id == 0:
            if increment == 0:
                raise RemoteError("WINDOW_UPDATE of nothing")
            self._sender.widen(None, increment)
        elif stream is not None:
            if increment == 0:
                self._break(stream, "WINDOW_UPDATE of nothing", events)
                return
            try:
                self._sender.widen(stream, increment)
            except OverflowError:
                self._break(stream, "stream window overflow", events, ErrorCode.FLOW_CONTROL_ERROR)

    # ---- ends

    def _stream(self, stream_id: int) -> Stream | None:
        """Return the open stream, or None for one that has ended; one that never was is an error (section 5.1)."""
        stream = self._streams.get(stream_id)
        if stream is None and (stream_id % 2 == 0 or stream_id >= self._sender.next_id):
            raise RemoteError(f"a frame on stream {stream_id}, which was never opened")
        return stream

    def _finish(self, stream: Stream, head: Head, events: list[Event], *, reset: bool = False) -> None:
        """End a stream as its last headers say."""
        if head.status < 0:
            code, detail = code_of_http(head.http_status), "no grpc-status"
            if head.http_status != 200 and head.http_status:
                detail = f"HTTP status {head.http_status}"
            elif not head.grpc and head.http_status:
                detail = "not a gRPC answer"
        else:
            code, detail = Code(head.status), head.text
            stream.answered = True
            if code is Code.OK and stream.message is None and not stream.streaming:
                code, detail, stream.answered = Code.INTERNAL, "an answer without a message", False
            elif code is Code.OK and stream.reader is not None and stream.reader.partial:
                code, detail, stream.answered = Code.INTERNAL, "a message was cut off", False
        if reset or stream.upload is not None:
            # The rest of the request, if any, is of no use to anybody now.
            self._sender.put(frames.rst_stream(stream.id, ErrorCode.CANCEL))
        self._sender.end(stream, code, None, detail)
        events.append(stream)

    def _break(
        self, stream: Stream, detail: str, events: list[Event], error: ErrorCode = ErrorCode.PROTOCOL_ERROR
    ) -> None:
        """End one stream on which the peer broke the rules; the connection goes on (section 5.4.2)."""
        self._sender.put(frames.rst_stream(stream.id, error))
        self._sender.end(stream, Code.INTERNAL, "protocol error", detail)
        events.append(stream)

    def _fail(self, exc: RemoteError, events: list[Event]) -> None:
        """End the connection and everything on it (section 5.4.1)."""
        self._sender.refuse_new()
        self._tail = b""
        for stream in (*self._streams.values(), *self._sender.waiting):
            stream.unprocessed = stream.id == 0
            self._sender.end(stream, Code.INTERNAL, "protocol error", str(exc))
            events.append(stream)
        self._sender.put(frames.goaway(0, exc.code, str(exc).encode()))
        self.ended = ConnectionEnded(exc.code, str(exc))
        events.append(self.ended)
