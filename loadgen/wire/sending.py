"""The outgoing half of a connection: requests, the peer's limits, and the bytes to write.

A small request that the windows allow is packed into HEADERS and DATA in one go. Everything else takes the long way:
a request of ``call`` waits for a free stream (MAX_CONCURRENT_STREAMS), and each body for the windows (RFC 9113,
section 5.2), both in the order of calling.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from struct import Struct

from loadgen.wire import frames
from loadgen.wire.errors import ErrorCode, LocalError, NoStreamError, RemoteError
from loadgen.wire.grpc import PREFIX, Code, request_fields
from loadgen.wire.headers import HeaderEncoder
from loadgen.wire.stream import Request, Stream, Upload

_TEMPLATES = 256
HeaderTemplate = tuple[Callable[..., bytes], bytes, bytes]
"""Of requests of one method: what packs one, its first bytes, and the header block."""


class Sender:
    """Requests in, bytes to write out.

    Attributes:
        streams: the open ones by id; shared with the receiving half.
        waiting: calls that have no stream yet.
        blocked: open streams whose body the windows hold back, oldest first.
        queued: bytes put out for writing since the beginning.
        accepting: new calls are taken.
        max_streams: how many may be open at a time.
        next_id: of the next stream to be opened.
    """

    __slots__ = (
        "_authority", "_encoder", "_initial_window", "_max_frame_size", "_metadata", "_out", "_room", "_scheme",
        "_templates", "_window", "accepting", "blocked", "max_streams", "next_id", "queued", "replies", "streams",
        "waiting",
    )  # fmt: skip

    def __init__(self, authority: bytes, scheme: bytes) -> None:
        self.streams: dict[int, Stream] = {}
        self.waiting: deque[Stream] = deque()
        self.blocked: dict[int, Stream] = {}
        self.queued = 0
        self.replies = 0
        self.accepting = True
        self.next_id = 1
        self._authority = authority
        self._scheme = scheme
        self._metadata: tuple[tuple[bytes, bytes], ...] = ()
        self._encoder = HeaderEncoder()
        self._templates: dict[tuple[bytes, int], HeaderTemplate] = {}
        self._out: list[bytes] = []
        self._window = frames.DEFAULT_WINDOW
        self._initial_window = frames.DEFAULT_WINDOW
        self._max_frame_size = frames.DEFAULT_FRAME_SIZE
        # RFC 9113 has no limit until the peer names one.
        self.max_streams = 1 << 31
        # The longest body that may take the short way, as far as streams and frames go.
        self._room = min(self._initial_window, self._max_frame_size)

    # ---- requests

    def set_metadata(self, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        """Take what every request opened from now on carries beside gRPC's own header fields."""
        self._metadata = fields
        self._templates.clear()

    def call(self, path: bytes, message: bytes, timeout_ns: int, context: object, deadline_ns: int) -> Stream:
        """Take a unary request, return its stream, which may have to wait; see ``Connection.call``."""
        try:
            return self.start(path, message, timeout_ns, context, deadline_ns)
        except NoStreamError:
            stream = Stream(context, deadline_ns)
            stream.request = Request(path, message, timeout_ns)
            self._enqueue(stream)
            return stream

    def start(self, path: bytes, message: bytes, timeout_ns: int, context: object, deadline_ns: int) -> Stream:
        """Take a unary request, return its stream; see ``Connection.start``."""
        length = len(message) + 5
        template = self._templates.get((path, timeout_ns))
        stream_id = self.next_id
        if (
            template is None
            or length > self._room
            or length > self._window
            or len(self.streams) >= self.max_streams
            or stream_id > frames.LARGEST_STREAM_ID
        ):
            if len(self.streams) >= self.max_streams and self.accepting:
                raise NoStreamError(f"the peer allows {self.max_streams} streams at a time")
            stream = Stream(context, deadline_ns)
            stream.request = Request(path, message, timeout_ns)
            self._enqueue(stream)
            return stream
        stream = Stream(context, deadline_ns)
        stream.id = stream_id
        self.next_id = stream_id + 2
        self.streams[stream_id] = stream
        self._window -= length
        pack, prefix, block = template
        data = pack(prefix, stream_id, block, length << 8, 1, stream_id, 0, length - 5) + message
        self._out.append(data)
        self.queued = stream.end = self.queued + len(data)
        return stream

    def open_stream(self, path: bytes, timeout_ns: int, context: object, deadline_ns: int) -> Stream:
        """Take a streaming method's path, return its stream; see ``Connection.open_stream``."""
        stream = Stream(context, deadline_ns)
        stream.streaming = True
        stream.upload = Upload(bytearray(), 0, finishing=False)
        stream.request = Request(path, None, timeout_ns)
        self._enqueue(stream)
        return stream

    def send_message(self, stream: Stream, message: bytes) -> None:
        """Take an open stream and one more message for it."""
        upload = stream.upload
        if upload is None or upload.finishing or stream.code >= 0:
            raise LocalError("the stream takes no more messages")
        upload.data += PREFIX.pack(0, len(message))
        upload.data += message
        self._push(stream)

    def finish(self, stream: Stream) -> None:
        """Half-closes an open stream: no more messages from us."""
        upload = stream.upload
        if upload is not None and not upload.finishing and stream.code < 0:
            upload.finishing = True
            self._push(stream)

    def _enqueue(self, stream: Stream) -> None:
        if not self.accepting or self.next_id > frames.LARGEST_STREAM_ID:
            self.refuse_new()
            raise LocalError("the connection takes no new streams")
        self.waiting.append(stream)
        self.open_waiting()

    def open_waiting(self) -> None:
        """Open calls that wait, as many as the peer allows."""
        while self.waiting and self.accepting and self.free() > 0:
            if self.next_id > frames.LARGEST_STREAM_ID:
                self.refuse_new()
                return
            self._open(self.waiting.popleft())

    def _open(self, stream: Stream) -> None:
        request = stream.request
        assert request is not None
        stream.request = None
        stream.id = self.next_id
        self.next_id += 2
        block = self._header_block(request.path, request.timeout_ns)
        self.put(frames.headers(stream.id, block, self._max_frame_size))
        self.streams[stream.id] = stream
        if request.message is not None:
            body = bytearray(PREFIX.pack(0, len(request.message)))
            body += request.message
            stream.upload = Upload(body, 0, finishing=True)
        else:
            stream.end = self.queued  # with its first bytes the server may begin to act
        assert stream.upload is not None
        stream.upload.window = self._initial_window
        self._push(stream)

    def _header_block(self, path: bytes, timeout_ns: int) -> bytes:
        template = self._templates.get((path, timeout_ns))
        if template is not None:
            return template[2]
        fields = [*request_fields(path, self._authority, self._scheme, timeout_ns), *self._metadata]
        block, steady = self._encoder.encode(fields)
        if not steady or len(self._templates) >= _TEMPLATES:
            self._templates.clear()
        elif len(block) <= frames.DEFAULT_FRAME_SIZE:
            # HEADERS' header up to its flags, stream id, block, then the header of DATA and of the message in it.
            prefix = frames.frame(frames.HEADERS, frames.END_HEADERS, 0, block)[:5]
            self._templates[path, timeout_ns] = (Struct(f">5sI{len(block)}sIBIBI").pack, prefix, block)
        return block

    def open_count(self) -> int:
        """Return how many streams are open."""
        return len(self.streams)

    def free(self) -> int:
        """Return how many more the peer allows; 0 or less for none."""
        return self.max_streams - self.open_count()

    # ---- bodies under flow control

    def _push(self, stream: Stream) -> None:
        """Send of a stream's body what the windows allow, and note the rest as blocked."""
        upload = stream.upload
        if stream.id == 0 or upload is None:
            return
        data = upload.data
        while data:
            size = min(len(data), self._window, upload.window, self._max_frame_size)
            if size <= 0:
                self.blocked[stream.id] = stream
                return
            last = upload.finishing and size == len(data)
            part = bytes(memoryview(data)[:size])
            del data[:size]
            self._window -= size
            upload.window -= size
            self.put(frames.frame(frames.DATA, frames.END_STREAM if last else 0, stream.id, part))
            if last:
                self._sent(stream)
                return
        self.blocked.pop(stream.id, None)
        if upload.finishing:
            self.put(frames.frame(frames.DATA, frames.END_STREAM, stream.id))
            self._sent(stream)

    def _sent(self, stream: Stream) -> None:
        stream.upload = None
        if not stream.streaming:
            stream.end = self.queued
        self.blocked.pop(stream.id, None)

    def pump(self) -> None:
        """Send of the blocked bodies what the windows now allow, oldest first."""
        for stream in list(self.blocked.values()):
            if self._window <= 0:
                return
            self._push(stream)

    def widen(self, stream: Stream | None, increment: int) -> None:
        """Apply a WINDOW_UPDATE, to the connection where ``stream`` is None (section 6.9).

        Raises RemoteError where the connection's window would overflow; OverflowError where a stream's would.
        """
        if stream is None:
            self._window += increment
            if self._window > frames.LARGEST_WINDOW:
                raise RemoteError("connection window overflow", ErrorCode.FLOW_CONTROL_ERROR)
            self.pump()
        elif stream.upload is not None:
            stream.upload.window += increment
            if stream.upload.window > frames.LARGEST_WINDOW:
                raise OverflowError
            self._push(stream)

    # ---- the peer's settings

    def apply_setting(self, name: int, value: int) -> None:
        """Apply one of the peer's settings (section 6.5.2); unknown ones are ignored. Raises RemoteError."""
        if name == frames.INITIAL_WINDOW_SIZE:
            if value > frames.LARGEST_WINDOW:
                raise RemoteError("initial window too large", ErrorCode.FLOW_CONTROL_ERROR)
            change = value - self._initial_window
            self._initial_window = value
            for stream in self.streams.values():
                if stream.upload is not None:
                    stream.upload.window += change  # may become negative (section 6.9.2)
                    if stream.upload.window > frames.LARGEST_WINDOW:
                        raise RemoteError("stream window overflow", ErrorCode.FLOW_CONTROL_ERROR)
        elif name == frames.MAX_FRAME_SIZE:
            if not frames.DEFAULT_FRAME_SIZE <= value <= frames.LARGEST_FRAME_SIZE:
                raise RemoteError("maximum frame size out of range")
            self._max_frame_size = value
        elif name == frames.MAX_CONCURRENT_STREAMS:
            self.max_streams = value
        elif name == frames.HEADER_TABLE_SIZE:
            if self._encoder.set_table_size(value):
                self._templates.clear()
        elif name == frames.ENABLE_PUSH and value != 0:
            raise RemoteError("a server must not enable push")
        self._room = min(self._initial_window, self._max_frame_size) if self.accepting else -1

    # ---- ends

    def end(self, stream: Stream, code: Code, cause: str | None = None, detail: str = "") -> None:
        """End a stream, and take it out of the books, wherever it stood."""
        stream.code = int(code)
        stream.cause = cause
        stream.detail = detail
        stream.upload = None
        stream.request = None
        if stream.id:
            self.streams.pop(stream.id, None)
            self.blocked.pop(stream.id, None)
        elif stream in self.waiting:
            self.waiting.remove(stream)

    def refuse_new(self) -> None:
        """From now on calls raise LocalError."""
        self.accepting = False
        self._room = -1

    # ---- output

    def put(self, data: bytes) -> None:
        """Queue bytes for writing."""
        self._out.append(data)
        self.queued += len(data)

    @property
    def pending(self) -> bool:
        """Whether ``take`` would return anything."""
        return bool(self._out)

    def take(self) -> bytes:
        """Return what is queued, and forget it."""
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self.replies = 0
        return data
