"""One call on a connection, from request to completion, as one record."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadgen.wire.grpc import Head, MessageReader

NOT_SENT = 1 << 62
"""``Stream.end`` of a request whose last byte has not been handed out for sending."""


class Upload:
    """The part of a request that the peer's flow-control windows still hold back."""

    __slots__ = ("data", "finishing", "window")

    def __init__(self, data: bytearray, window: int, *, finishing: bool) -> None:
        self.data = data
        self.window = window
        self.finishing = finishing


class Request:
    """What is needed to open a stream later, while MAX_CONCURRENT_STREAMS keeps it waiting."""

    __slots__ = ("message", "path", "timeout_ns")

    def __init__(self, path: bytes, message: bytes | None, timeout_ns: int) -> None:
        self.path = path
        self.message = message
        self.timeout_ns = timeout_ns


class Stream:
    """One call; once ended, it is the event that says so.

    Attributes:
        id: the HTTP/2 stream id; 0 while it waits to be opened.
        context: whatever the caller attached; the connection never looks at it.
        code: the gRPC status code it ended with; -1 while it is open.
        message: the one message of a unary answer, without its 5-byte prefix; None where none came.
        cause: a constant that says more than the code does, such as ``connection lost``; None otherwise.
        detail: the varying text that came with the end, for people.
        answered: the status was the server's own, in ``grpc-status``; otherwise we inferred it.
        unprocessed: the server certainly did not act on it (refused, above GOAWAY's last id, never sent).
        streaming: opened with ``open_stream``: messages come as events, ``message`` stays None.
        end: offset in the connection's output just after the request's last byte; of a streaming call, after its
            header.
        deadline_ns, opened_ns, ended_ns, endpoint: for whoever keeps the time and knows the peer; the connection never
            looks at them. The last two are unset until the end; ``opened_ns`` is when a call that had waited for its
            stream got it, unset for others.
    """

    __slots__ = (
        "answered", "cause", "code", "context", "deadline_ns", "detail", "end", "ended_ns", "endpoint", "head", "id",
        "message", "opened_ns", "reader", "request", "streaming", "unprocessed", "upload",
    )  # fmt: skip

    opened_ns: int
    ended_ns: int
    endpoint: str

    def __init__(self, context: object, deadline_ns: int) -> None:
        self.id = 0
        self.context = context
        self.code = -1
        self.message: bytes | None = None
        self.cause: str | None = None
        self.detail = ""
        self.answered = False
        self.unprocessed = False
        self.streaming = False
        self.end = NOT_SENT
        self.deadline_ns = deadline_ns
        self.head: Head | None = None
        self.reader: MessageReader | None = None
        self.request: Request | None = None
        self.upload: Upload | None = None

    def __repr__(self) -> str:
        state = "open" if self.code < 0 else f"code {self.code} {self.cause or self.detail}".rstrip()
        return f"<Stream {self.id}: {state}>"
