"""HTTP/2 frames as bytes (RFC 9113, sections 4 and 6): constants, and one function per frame we send.

Frames that arrive are walked in place by ``receiving``; what several kinds have in common is unpacked here.
"""

from __future__ import annotations

from struct import Struct

from loadgen.wire.errors import ErrorCode, RemoteError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

ACK = 0x1  # of SETTINGS and PING
END_STREAM = 0x1  # of DATA and HEADERS
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

DEFAULT_WINDOW = 65_535
DEFAULT_FRAME_SIZE = 16_384
LARGEST_FRAME_SIZE = (1 << 24) - 1
LARGEST_WINDOW = (1 << 31) - 1
LARGEST_STREAM_ID = (1 << 31) - 1

# A frame's header is 24 bits of length, 8 of type, 8 of flags, 32 of stream: read as length and type in one word.
FRAME_HEADER = Struct(">IBI")
SETTING = Struct(">HI")
UINT32 = Struct(">I")
GOAWAY_HEAD = Struct(">II")
_CONTROL = Struct(">IBII")
_pack_header = FRAME_HEADER.pack


def frame(kind: int, flags: int, stream_id: int, payload: bytes | bytearray | memoryview = b"") -> bytes:
    """Take a frame's parts, return its bytes."""
    return _pack_header(len(payload) << 8 | kind, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame (section 6.5)."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(name, value) for name, value in values.items()))


def settings_ack() -> bytes:
    """Return the acknowledgement of the peer's SETTINGS."""
    return frame(SETTINGS, ACK, 0)


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    """Return a PING frame; the payload is of 8 bytes (section 6.7)."""
    return frame(PING, ACK if ack else 0, 0, payload)


def rst_stream(stream_id: int, code: int) -> bytes:
    """Return a RST_STREAM frame (section 6.4)."""
    return _CONTROL.pack(4 << 8 | RST_STREAM, 0, stream_id, code)


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection (section 6.9)."""
    return _CONTROL.pack(4 << 8 | WINDOW_UPDATE, 0, stream_id, increment)


def goaway(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    """Return a GOAWAY frame (section 6.8)."""
    return frame(GOAWAY, 0, 0, GOAWAY_HEAD.pack(last_stream_id, code) + debug)


def headers(stream_id: int, block: bytes, max_frame_size: int, *, end_stream: bool = False) -> bytes:
    """Take an encoded header block, return it as HEADERS and as many CONTINUATION frames as it needs."""
    first, rest = block[:max_frame_size], block[max_frame_size:]
    flags = (END_STREAM if end_stream else 0) | (0 if rest else END_HEADERS)
    out = frame(HEADERS, flags, stream_id, first)
    while rest:
        part, rest = rest[:max_frame_size], rest[max_frame_size:]
        out += frame(CONTINUATION, 0 if rest else END_HEADERS, stream_id, part)
    return out


def unpadded(payload: bytes) -> bytes:
    """Return what a padded payload holds (section 6.1). Raises RemoteError."""
    if not payload or payload[0] >= len(payload):
        raise RemoteError("padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]


def uint32(payload: bytes) -> int:
    """Return the one number of 32 bits that a payload is. Raises RemoteError."""
    if len(payload) != UINT32.size:
        raise RemoteError("frame of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
    value: int = UINT32.unpack(payload)[0]
    return value
