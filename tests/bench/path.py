"""A worker's cost of an operation apart from system calls: all of our own code, against a peer in memory.

    python -m tests.bench.path [--types get,put,txn] [--operations 20000] [--engine python|compiled]

Locust's users, the client, HTTP/2 both ways, protobuf and the counting run as ever; only the socket is replaced. 20
users call in each turn of the event loop, and the figure is that of the fastest turns (the 1st percentile, in
microseconds an operation, the peer's share taken off). So it is steady to 2 % also on a busy machine, where a run's CPU
per operation may be three times what it is on an idle one: use it to compare two versions of the code.
"""

from __future__ import annotations

import argparse
import contextlib
from struct import Struct
from time import perf_counter_ns
from types import SimpleNamespace
from typing import Any

import gevent
from locust.env import Environment
from locust.exception import StopUser

from loadgen.client.transport import Transport
from loadgen.load.settings import add_arguments
from loadgen.load.worker_run import attach
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto import kv_pb2
from loadgen.user import EtcdUser
from loadgen.wire import frames
from loadgen.wire.grpc import PREFIX
from tests.support.truth import block

USERS = 20
_HEADER = pb.ResponseHeader(cluster_id=14841639068965178418, member_id=10276657743932975437, revision=100234)
_KV = kv_pb2.KeyValue(key=b"k" * 32, create_revision=3, mod_revision=34567, version=12, value=b"v" * 64)
_PUT = pb.ResponseOp(response_put=pb.PutResponse(header=pb.ResponseHeader(revision=100234)))
ANSWERS = {
    "get": pb.RangeResponse(header=_HEADER, kvs=[_KV], count=1),
    "put": pb.PutResponse(header=_HEADER),
    "txn": pb.TxnResponse(header=_HEADER, succeeded=True, responses=[_PUT]),
}


class Peer:
    """Answers every request of a connection with one answer, as a socket would, in the next turn of the event loop.

    Attributes: ``turns``, nanoseconds from one reading of ``USERS`` answers to the next, less what the peer took.
    """

    def __init__(self, answer: bytes) -> None:
        body = PREFIX.pack(0, len(answer)) + answer
        opening = block((b":status", b"200"), (b"content-type", b"application/grpc"))
        closing = block((b"grpc-status", b"0"), (b"grpc-message", b""))
        parts = (
            frames.frame(frames.HEADERS, frames.END_HEADERS, 0, opening),
            frames.frame(frames.DATA, 0, 0, body),
            frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 0, closing),
        )
        # Three frames around their stream's id.
        self._pack = Struct("".join(f"5sI{len(part) - 9}s" for part in parts).join((">", ""))).pack
        self._heads = [part[:5] for part in parts]
        self._bodies = [part[9:] for part in parts]
        self._answers: list[bytes] = []
        self._read_ns = self._own_ns = 0
        self.turns: list[int] = []

    def attach(self, transport: Transport) -> None:
        """Take the place of a transport's socket."""
        self._transport = transport
        self._run_callback = gevent.get_hub().loop.run_callback
        transport._socket = SimpleNamespace(close=lambda: None)  # type: ignore[assignment]
        transport._recv, transport._send = self.recv, self.send
        transport._flush()
        transport._answered.wait(5)
        transport.accepting = True

    def send(self, data: Any) -> int:
        began, at, size = perf_counter_ns(), 0, len(data)
        if data[:3] == frames.PREFACE[:3]:
            self._answers.append(frames.settings({}) + frames.window_update(0, 1 << 30))
            at = len(frames.PREFACE)
        (opening, message, closing), (first, second, third) = self._heads, self._bodies
        while at < size:
            word, flags, of = frames.FRAME_HEADER.unpack_from(data, at)
            at += 9 + (word >> 8)
            if word & 0xFF == frames.DATA and flags & frames.END_STREAM:
                self._answers.append(self._pack(opening, of, first, message, of, second, closing, of, third))
        if self._answers:
            self._run_callback(self._readable)
        self._own_ns += perf_counter_ns() - began
        return size

    def recv(self, _: int) -> bytes:
        now = perf_counter_ns()
        if self._read_ns and len(self._answers) == USERS:
            self.turns.append(now - self._read_ns - self._own_ns)
        self._read_ns, self._own_ns = now, 0
        data = b"".join(self._answers)
        self._answers.clear()
        return data

    def _readable(self) -> None:
        if self._transport._socket is not None and self._answers:
            self._transport._on_readable()


def measure(f: str, operations: int, engine: str) -> float:
    """Return microseconds an operation."""
    peer = Peer(ANSWERS[f].SerializeToString())
    Transport.connect = lambda transport, _: peer.attach(transport)  # type: ignore[method-assign,assignment]
    kind = type("BenchUser", (EtcdUser,), {"abstract": False, "mix": {f: 1.0}})
    environment = Environment(user_classes=[kind], host="127.0.0.1:2379")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args(["--operations", str(operations), "--mix", f"{f}=1", "--engine", engine])
    options.key_prefix = "path/"
    environment.parsed_options = options
    environment.create_local_runner()
    attach(environment)._on_test_start(environment)

    def use() -> None:
        user = kind(environment)
        user.on_start()
        with contextlib.suppress(StopUser):
            user.operate()

    gevent.joinall([gevent.spawn(use) for _ in range(USERS)], raise_error=True)
    peer.turns.sort()
    return peer.turns[len(peer.turns) // 100] / USERS / 1e3


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="get,put,txn")
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--engine", choices=("python", "compiled"), default="python")
    args = parser.parse_args()
    for f in args.types.split(","):
        print(f"{f:<4} {measure(f, args.operations, args.engine):6.2f} us", flush=True)


if __name__ == "__main__":
    main()
