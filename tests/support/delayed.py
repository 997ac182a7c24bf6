"""A server that answers a GET after a known delay, and a client as small as can be that measures it.

    python -m tests.support.delayed serve ETCD_HOST:PORT DELAY_US
    python -m tests.support.delayed measure HOST:PORT SECONDS THREADS

`serve` prints its port. A GET of one key is answered, without asking anybody, after the delay, and 3 in 100 after
twice the delay; all else goes to the etcd behind it. `measure` prints the latencies, in nanoseconds, that blocking
sockets see: from the send of a request to the read of its end, with nothing in between but the kernel.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import threading
import time

SLOW_SHARE = 0.03
PATH = "/etcdserverpb.KV/Range"


def serve(behind: str, delay_s: float) -> None:
    import grpc

    from loadgen.proto import etcd_pb2 as pb

    rng = random.Random(1)
    answer = pb.RangeResponse(header=pb.ResponseHeader(revision=1)).SerializeToString()

    async def main() -> None:
        channel = grpc.aio.insecure_channel(behind)

        class Handler(grpc.GenericRpcHandler):
            def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
                forward = channel.unary_unary(details.method)

                async def handle(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
                    if details.method == PATH and not pb.RangeRequest.FromString(request).range_end:
                        await asyncio.sleep(delay_s * (2 if rng.random() < SLOW_SHARE else 1))
                        return answer
                    try:
                        return await forward(request)
                    except grpc.aio.AioRpcError as error:
                        await context.abort(error.code(), error.details())
                        raise

                return grpc.unary_unary_rpc_method_handler(handle)

        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Handler(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(port, flush=True)
        await server.wait_for_termination()

    asyncio.run(main())


class Blocking:
    """One connection with one request at a time. RFC 9113, sections 3.4, 4.1 and 6."""

    def __init__(self, authority: str) -> None:
        from hpack import Encoder

        from loadgen import encode

        host, port = authority.split(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A window that no run here uses up.
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") +
                             _frame(8, 0, 0, (1 << 30).to_bytes(4, "big")))  # fmt: skip
        self._fields = [
            (":method", "POST"), (":scheme", "http"), (":path", PATH), (":authority", authority),
            ("te", "trailers"), ("content-type", "application/grpc"),
        ]  # fmt: skip
        self._encoder = Encoder()
        message = encode.get(b"k" * 32)
        self._body = b"\0" + len(message).to_bytes(4, "big") + message
        self._stream = -1
        self._buffer = b""

    def call(self) -> int:
        """Send one request and read to its end; return nanoseconds."""
        self._stream += 2
        request = _frame(1, 4, self._stream, self._encoder.encode(self._fields)) + _frame(
            0, 1, self._stream, self._body
        )
        began = time.perf_counter_ns()
        self._socket.sendall(request)
        while not self._ended():
            data = self._socket.recv(65536)
            ended = time.perf_counter_ns()
            if not data:
                raise ConnectionError("closed")
            self._buffer += data
        return ended - began

    def _ended(self) -> bool:
        """Take the frames that are whole; tell whether our stream's end was among them."""
        found = False
        while len(self._buffer) >= 9 and len(self._buffer) >= 9 + (size := int.from_bytes(self._buffer[:3], "big")):
            kind, flags = self._buffer[3], self._buffer[4]
            stream = int.from_bytes(self._buffer[5:9], "big")
            payload, self._buffer = self._buffer[9 : 9 + size], self._buffer[9 + size :]
            if kind in (4, 6) and not flags & 1:  # SETTINGS and PING are acknowledged
                self._socket.sendall(_frame(kind, 1, 0, payload if kind == 6 else b""))
            found |= stream == self._stream and kind in (0, 1) and flags & 1 == 1
        return found


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def measure(authority: str, seconds: float, threads: int) -> None:
    found: list[int] = []
    until = time.monotonic() + seconds

    def run() -> None:
        connection = Blocking(authority)
        while time.monotonic() < until:
            found.append(connection.call())

    running = [threading.Thread(target=run) for _ in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], float(sys.argv[3]) / 1e6)
    else:
        measure(sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
