"""Unary gRPC calls, one after the other, over a connected socket: for questions to a member, not for load.

``loadgen.wire`` is the client of the load, which ``cluster`` does not import. What asks here may run before gevent has
patched anything, or in a process that gevent never patches, so this is a small blocking client with one stream at a
time (RFC 9113, and the gRPC project's "gRPC over HTTP2").
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from urllib.parse import unquote

import hpack

from cluster.base.errors import EtcdError

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_ACK = _END_STREAM = 0x1
_END_HEADERS, _PADDED, _HAS_PRIORITY = 0x4, 0x8, 0x20
_ENABLE_PUSH, _INITIAL_WINDOW_SIZE = 2, 4
# No answer to a question is as large, so the windows need no renewal.
_LARGEST_ANSWER = 1 << 24
_LARGEST_FRAME = 1 << 14  # the default of SETTINGS_MAX_FRAME_SIZE
_READ_SIZE = 65_536
_UNAVAILABLE = 14

Fields = Iterable[tuple[str, str]]


class NotGrpcError(Exception):
    """The peer does not speak gRPC there; the text says what it does instead.

    Attributes:
        http2: whether it speaks HTTP/2 at all.
    """

    def __init__(self, reason: str, *, http2: bool = False) -> None:
        super().__init__(reason)
        self.http2 = http2


class GrpcSocket:
    """A connection to a gRPC server. It owns the socket that it takes; close it.

    Attributes:
        spoken: whether the peer has sent a frame of HTTP/2.
    """

    def __init__(self, sock: socket.socket, authority: str, scheme: str) -> None:
        """Take a connected socket, and the ``host:port`` and the scheme that requests are to name."""
        self._sock = sock
        self._common = [(":method", "POST"), (":scheme", scheme), (":authority", authority)]
        self._decoder = hpack.Decoder()
        self._incoming = bytearray()
        self._stream = -1
        self.spoken = False
        settings = ((_ENABLE_PUSH, 0), (_INITIAL_WINDOW_SIZE, _LARGEST_ANSWER))
        body = b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in settings)
        self._outgoing = _PREFACE + _frame(_SETTINGS, 0, 0, body)
        self._outgoing += _frame(_WINDOW_UPDATE, 0, 0, _LARGEST_ANSWER.to_bytes(4, "big"))

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def call(self, path: str, message: bytes, until: float, metadata: Fields = ()) -> bytes:
        """Call a unary method.

        Takes its path, the encoded request, a moment of the monotonic clock at which it is given up, and further header
        fields. Returns the encoded answer. Raises EtcdError with the server's status, NotGrpcError, TimeoutError, and
        OSError where the connection is lost.
        """
        self._stream += 2
        left_us = min(max(int((until - time.monotonic()) * 1e6), 1), 99_999_999)
        fields = [
            *self._common, (":path", path), ("te", "trailers"), ("content-type", "application/grpc"),
            ("user-agent", "raftload"), ("grpc-timeout", f"{left_us}u"), *metadata,
        ]  # fmt: skip
        block = b"".join(b"\0" + _literal(name) + _literal(value) for name, value in fields)
        if len(block) > _LARGEST_FRAME:
            raise ValueError("the header fields of a call are too long")
        body = b"\0" + len(message).to_bytes(4, "big") + message
        self._outgoing += _frame(_HEADERS, _END_HEADERS, self._stream, block)
        self._outgoing += _frame(_DATA, _END_STREAM, self._stream, body)
        self._send(until)
        headers: dict[str, str] = {}
        answer = bytearray()
        while True:
            kind, flags, stream, payload = self._next(until)
            if kind == _HEADERS:
                fields_in = self._decoded(payload)  # also of other streams: the table of the codec is one for all
                headers.update(fields_in if stream == self._stream else {})
            elif kind == _DATA and stream == self._stream:
                answer += payload
            elif kind == _RST_STREAM and stream == self._stream:
                raise ConnectionResetError(f"the server ended the call (RST_STREAM {int.from_bytes(payload, 'big')})")
            elif kind == _GOAWAY and int.from_bytes(payload[:4], "big") & 0x7FFFFFFF < self._stream:
                raise ConnectionResetError("the server takes no more calls on this connection")
            if stream == self._stream and kind in (_HEADERS, _DATA) and flags & _END_STREAM:
                return _message(headers, bytes(answer))
            if len(answer) > _LARGEST_ANSWER:
                raise NotGrpcError("its answer is too long", http2=True)

    def _next(self, until: float) -> tuple[int, int, int, bytes]:
        """Return the next frame as kind, flags, stream and content, a header block whole; answer what is to be answered
        at once.
        """
        kind, flags, stream, payload = self._frame(until)
        if kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._outgoing += _frame(kind, _ACK, 0, payload if kind == _PING else b"")
        if kind not in (_DATA, _HEADERS):
            return kind, flags, stream, payload
        if flags & _PADDED:
            payload = payload[1 : len(payload) - payload[0]] if payload else b""
        if kind == _HEADERS:
            payload = payload[5:] if flags & _HAS_PRIORITY else payload
            while not flags & _END_HEADERS:
                more, more_flags, _, part = self._frame(until)
                if more != _CONTINUATION or len(payload) > _LARGEST_FRAME:
                    raise NotGrpcError("its HTTP/2 is malformed", http2=True)
                payload += part
                flags |= more_flags & _END_HEADERS
        return kind, flags, stream, payload

    def _frame(self, until: float) -> tuple[int, int, int, bytes]:
        head = self._read(9, until)
        size = int.from_bytes(head[:3], "big")
        if head.startswith(b"HTTP/1"):
            raise NotGrpcError("it answers in HTTP/1")
        if size > _LARGEST_FRAME:
            raise NotGrpcError("it does not answer in HTTP/2")
        self.spoken = True
        return head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, self._read(size, until)

    def _read(self, size: int, until: float) -> bytes:
        while len(self._incoming) < size:
            self._send(until)
            data = self._sock.recv(_READ_SIZE)
            if not data:
                raise ConnectionResetError("it closed the connection in the middle of its answer")
            self._incoming += data
        taken = bytes(self._incoming[:size])
        del self._incoming[:size]
        return taken

    def _send(self, until: float) -> None:
        """Send what is to be sent, and have the socket wait no longer than until a moment of the monotonic clock."""
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        outgoing, self._outgoing = self._outgoing, b""
        if outgoing:
            send(self._sock, outgoing)

    def _decoded(self, block: bytes) -> dict[str, str]:
        try:
            fields = self._decoder.decode(block, raw=True)
        except (hpack.HPACKError, IndexError, ValueError) as exc:
            raise NotGrpcError("its HTTP/2 is malformed", http2=True) from exc
        return {bytes(name).decode("latin-1"): bytes(value).decode("utf-8", "replace") for name, value in fields}


def send(sock: socket.socket, data: bytes) -> None:
    """Send bytes; nothing is raised where the peer has gone: what it said before, as by an alert of TLS, is to be read.

    Raises TimeoutError.
    """
    try:
        sock.sendall(data)
    except TimeoutError:
        raise
    except OSError:
        pass  # a read says it again


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _literal(text: str) -> bytes:
    """Return a string as HPACK has it without Huffman's code (RFC 7541, sections 5.1 and 5.2)."""
    raw = text.encode()
    size = len(raw)
    if size < 127:
        return bytes((size,)) + raw
    head, size = bytearray((127,)), size - 127
    while size >= 128:
        head.append(size % 128 + 128)
        size //= 128
    return bytes((*head, size)) + raw


def _message(headers: dict[str, str], answer: bytes) -> bytes:
    """Return the message of a whole answer. Raises EtcdError and NotGrpcError."""
    if headers.get(":status") in ("502", "503", "504"):
        raise EtcdError(_UNAVAILABLE, f"HTTP {headers[':status']}: a proxy answers, and nobody behind it")
    status = headers.get("grpc-status")
    if status is None or not headers.get("content-type", "application/grpc").startswith("application/grpc"):
        raise NotGrpcError(f"it answers HTTP {headers.get(':status', 'without a status')}, not gRPC", http2=True)
    if status != "0":
        raise EtcdError(int(status) if status.isdigit() else 2, unquote(headers.get("grpc-message", "")))
    if len(answer) < 5 or answer[0] or len(answer) - 5 != int.from_bytes(answer[1:5], "big"):
        raise NotGrpcError("its answer is malformed", http2=True)
    return answer[5:]
