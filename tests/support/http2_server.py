"""HTTP/2 servers in this process, scripted frame by frame, over real sockets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import gevent
import gevent.server
import gevent.socket
import hpack
import pytest

from cluster.base.security import Security
from loadgen.client.connect_errors import ConnectError
from loadgen.client.etcd import probe
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import frames
from loadgen.wire.grpc import PREFIX
from tests.support import waiting
from tests.support.waiting import HANG_S

OPEN = [(b":status", b"200"), (b"content-type", b"application/grpc")]
END = [(b"grpc-status", b"0"), (b"grpc-message", b"")]
MESSAGE = pb.PutResponse(header=pb.ResponseHeader(revision=7)).SerializeToString()
Handler = Callable[[gevent.socket.socket, object], None]
Respond = Callable[[int, int], bytes | None]

until = partial(waiting.until, pause_s=0.005, sleep=gevent.sleep)
"""`waiting.until`, for what greenlets of this thread make true."""


def block(fields: list[tuple[bytes, bytes]]) -> bytes:
    """Return a header block that needs no table, so that it can be said at any time."""
    return hpack.Encoder().encode([(*field, True) for field in fields], huffman=False)


def head(stream_id: int, fields: list[tuple[bytes, bytes]], *, end: bool = False) -> bytes:
    return frames.headers(stream_id, block(fields), frames.DEFAULT_FRAME_SIZE, end_stream=end)


def body(stream_id: int, message: bytes = MESSAGE, flags: int = 0) -> bytes:
    return frames.frame(frames.DATA, flags, stream_id, PREFIX.pack(0, len(message)) + message)


def whole(stream_id: int) -> bytes:
    """Return a whole answer, of revision 7: of a put, and of a get that finds nothing."""
    return head(stream_id, OPEN) + body(stream_id) + head(stream_id, END, end=True)


@contextlib.contextmanager
def listening(handle: Handler) -> Iterator[str]:
    """Give connections to a port of loopback to a handler; yield its ``host:port``."""
    server = gevent.server.StreamServer(("127.0.0.1", 0), handle)
    server.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.stop(0.1)


class Server:
    """Greets, and hands each request to a script; knows what it was asked.

    Takes ``respond(connection number, stream id)``, which returns what to say, or None to hang up.
    """

    endpoint = ""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.connections = self.goaways = 0
        self.requests: list[tuple[int, int, bytes]] = []
        self.resets: list[int] = []

    def __call__(self, client: gevent.socket.socket, _: object) -> None:
        self.connections += 1
        number = self.connections
        bodies: dict[int, bytes] = {}
        with contextlib.suppress(OSError):
            client.sendall(frames.settings({}) + frames.window_update(0, 1 << 30))
            received = b""
            while part := client.recv(65_536):
                received += part
                if received.startswith(frames.PREFACE):
                    received = received[len(frames.PREFACE) :]
                while len(received) >= 9:
                    word, flags, stream_id = frames.FRAME_HEADER.unpack_from(received)
                    if len(received) < 9 + (word >> 8):
                        break
                    payload, received = received[9 : 9 + (word >> 8)], received[9 + (word >> 8) :]
                    self.goaways += word & 0xFF == frames.GOAWAY
                    if word & 0xFF == frames.RST_STREAM:
                        self.resets.append(stream_id)
                    if word & 0xFF != frames.DATA:
                        continue
                    so_far = bodies[stream_id] = bodies.get(stream_id, b"") + payload
                    # A message on a stream that stays open counts as a request too.
                    if flags & frames.END_STREAM or len(so_far) == 5 + PREFIX.unpack_from(so_far)[1]:
                        self.requests.append((number, stream_id, bodies.pop(stream_id)))
                        said = self.respond(number, stream_id)
                        if said is None:
                            return
                        client.sendall(said)


Listen = Callable[[Handler], str]
Serve = Callable[[Respond], Server]


def cause_of(endpoint: str, security: Security | None = None, timeout_s: float = HANG_S) -> str:
    """Return why there is no connection, by gRPC."""
    with pytest.raises(ConnectError) as caught:
        probe(endpoint, timeout_s, security)
    assert "\n" not in str(caught.value)
    assert caught.value.hint in str(caught.value)
    return caught.value.cause


def silent(client: gevent.socket.socket, _: object) -> None:
    """Read what comes, and say nothing."""
    while client.recv(1_000):
        pass
