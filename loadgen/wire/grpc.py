"""gRPC's mapping onto HTTP/2: message framing, request and response headers, statuses.

Source: the gRPC project's "gRPC over HTTP2" and "HTTP to gRPC Status Code Mapping" documents.
"""

from __future__ import annotations

import enum
import re
from struct import Struct

from loadgen.wire.errors import ErrorCode

PREFIX = Struct(">BI")
"""Before every message: compressed flag, length."""

MAX_MESSAGE = 256 << 20
"""Bytes of one message that we accept."""


class Code(enum.IntEnum):
    """gRPC status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_OF_HTTP = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}

_OF_RESET = {
    ErrorCode.NO_ERROR: Code.INTERNAL,
    ErrorCode.PROTOCOL_ERROR: Code.INTERNAL,
    ErrorCode.INTERNAL_ERROR: Code.INTERNAL,
    ErrorCode.FLOW_CONTROL_ERROR: Code.INTERNAL,
    ErrorCode.SETTINGS_TIMEOUT: Code.INTERNAL,
    ErrorCode.FRAME_SIZE_ERROR: Code.INTERNAL,
    ErrorCode.REFUSED_STREAM: Code.UNAVAILABLE,
    ErrorCode.CANCEL: Code.CANCELLED,
    ErrorCode.COMPRESSION_ERROR: Code.INTERNAL,
    ErrorCode.CONNECT_ERROR: Code.INTERNAL,
    ErrorCode.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}

_UNITS = (("n", 1), ("u", 1_000), ("m", 1_000_000), ("S", 1_000_000_000), ("M", 60_000_000_000))


def code_of_http(status: int) -> Code:
    """Take the HTTP status of an answer without ``grpc-status``, return the gRPC code that stands for it."""
    return _OF_HTTP.get(status, Code.UNKNOWN)


def code_of_reset(error: int) -> Code:
    """Take RST_STREAM's error code, return the gRPC code that stands for it."""
    try:
        return _OF_RESET.get(ErrorCode(error), Code.UNKNOWN)
    except ValueError:
        return Code.UNKNOWN


def encode_timeout(timeout_ns: int) -> bytes:
    """Take nanoseconds, return ``grpc-timeout``'s value: at most 8 digits and a unit, rounded up.

    >>> encode_timeout(5_000_000_000)
    b'5000000u'
    """
    timeout_ns = max(timeout_ns, 1)
    for unit, size in _UNITS:
        value = -(-timeout_ns // size)
        if value < 100_000_000:
            return f"{value}{unit}".encode()
    return b"99999999M"


def percent_decode(value: bytes) -> str:
    """Take ``grpc-message``'s value, return its text; what is not valid is kept as it stands."""
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes((int(found[1], 16),)), value)
    return raw.decode("utf-8", "replace")


def request_fields(path: bytes, authority: bytes, scheme: bytes, timeout_ns: int) -> list[tuple[bytes, bytes]]:
    """Take a method's path and the deadline in nanoseconds (0: none), return the request's header fields."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", scheme),
        (b":path", path),
        (b":authority", authority),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"raftload"),
    ]
    if timeout_ns:
        fields.insert(4, (b"grpc-timeout", encode_timeout(timeout_ns)))
    return fields


class Head:
    """A header block of an answer, head or trailers, as gRPC reads it.

    Attributes:
        http_status: from ``:status``; 0 where there is none (trailers).
        status: from ``grpc-status``; -1 where there is none.
        text: from ``grpc-message``.
        grpc: the content type is gRPC's.
        malformed: what is wrong with it as HTTP/2 (RFC 9113, section 8.3), or empty.
        opens: it is the normal beginning of an answer: 200, gRPC, no status yet.
        succeeds: it is the normal end of an answer: trailers with status 0.
    """

    __slots__ = ("grpc", "http_status", "malformed", "opens", "status", "succeeds", "text")

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        self.http_status = 0
        self.status = -1
        self.text = ""
        self.grpc = False
        self.malformed = ""
        regular = False
        for name, value in fields:
            if name[:1] == b":":
                if regular or name != b":status" or self.http_status or not _is_status(value):
                    self.malformed = "misplaced, repeated or invalid pseudo-header field"
                else:
                    self.http_status = int(value)
                continue
            regular = True
            if name == b"grpc-status":
                known = value.isdigit() and len(value) <= 2 and int(value) <= Code.UNAUTHENTICATED
                self.status = int(value) if known else Code.UNKNOWN
            elif name == b"grpc-message":
                self.text = percent_decode(value)
            elif name == b"content-type":
                self.grpc = value.lower().startswith(b"application/grpc")
            elif name.lower() != name:
                self.malformed = "upper case in a field name"
        self.opens = self.http_status == 200 and self.grpc and self.status < 0 and not self.malformed
        self.succeeds = self.http_status == 0 and self.status == 0 and not self.malformed


def _is_status(value: bytes) -> bool:
    return len(value) == 3 and value.isdigit() and value[:1] != b"0"


class MessageReader:
    """Takes the bytes of DATA frames, returns whole messages.

    Attributes: ``unacknowledged``, bytes of the stream's window not given back yet; ``held``, how many of them belong
    to messages that their taker has not consumed, and stay with us until then.
    """

    __slots__ = ("_buffer", "held", "unacknowledged")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.unacknowledged = 0
        self.held = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came, return the messages it completed.

        Raises ValueError for a compressed message (we never offer compression) or one above ``MAX_MESSAGE``.
        """
        buffer = self._buffer
        buffer += data
        messages = []
        while len(buffer) >= 5:
            compressed, size = PREFIX.unpack_from(buffer)
            if compressed:
                raise ValueError("compressed message")
            if size > MAX_MESSAGE:
                raise ValueError("message too large")
            if len(buffer) < size + 5:
                break
            with memoryview(buffer) as view:
                messages.append(bytes(view[5 : size + 5]))
            del buffer[: size + 5]
        return messages

    @property
    def partial(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._buffer)
