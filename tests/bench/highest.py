"""One worker's highest rate: the compiled engine against a server that is no limit, over real sockets.

    python -m tests.bench.highest [--users 1000] [--connections 1] [--seconds 5] [--types get,put,txn]

The server is replay.c of tests/support/native, which the C compiler builds: it answers each request with the same
bytes. It has one half of the processors, the worker's part (engine, lanes, channel, client; not Locust) the other.
Operations per second, of the clock and of the CPU that the process took.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import gevent
import hpack

from loadgen.client.etcd import EtcdClient
from loadgen.engine.engine import Engine, Plan
from loadgen.history.writer import HistoryWriter
from loadgen.load.settings import Settings
from loadgen.load.workload import Workload, filler
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto import kv_pb2
from loadgen.wire import frames
from tests.bench import peers
from tests.support import native

if TYPE_CHECKING:
    from loadgen.engine.core import Drained

HEAD = pb.ResponseHeader(cluster_id=1 << 60, member_id=1 << 61, revision=123_456, raft_term=3)
FOUND = kv_pb2.KeyValue(key=b"k" * 32, value=b"v" * 64, create_revision=5, mod_revision=77, version=3)
MESSAGES = {
    "get": pb.RangeResponse(header=HEAD, kvs=[FOUND], count=1),
    "put": pb.PutResponse(header=HEAD),
    "txn": pb.TxnResponse(
        header=HEAD,
        succeeded=True,
        responses=[pb.ResponseOp(response_put=pb.PutResponse(header=pb.ResponseHeader(revision=123_456)))],
    ),
}


def answers(message: bytes) -> Iterator[bytes]:
    """Yield what a server sends for a connection's first, second and further requests; stream ids are 0."""
    encoder = hpack.Encoder()
    for _ in range(3):
        opens = encoder.encode([(":status", "200"), ("content-type", "application/grpc")])
        closes = encoder.encode([("grpc-status", "0"), ("grpc-message", "")])
        yield (
            frames.frame(frames.HEADERS, frames.END_HEADERS, 0, opens)
            + frames.frame(frames.DATA, 0, 0, b"\0" + len(message).to_bytes(4, "big") + message)
            + frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 0, closes)
        )


@contextlib.contextmanager
def replaying(message: bytes, connections: int) -> Iterator[int]:
    """Run a server that answers with a message; yield its port."""
    program = native.build("replay")
    with subprocess.Popen([program, str(connections)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            for each in answers(message):
                server.stdin.write(len(each).to_bytes(4, "big") + each)
            server.stdin.close()
            yield int(server.stdout.readline())
        finally:
            server.kill()


class Host:
    """A load that counts and nothing else."""

    def __init__(self) -> None:
        self.succeeded = 0

    def begin_measuring(self) -> None:
        """Do nothing."""

    def interval(self, now_ns: int) -> tuple[int, int]:
        """Return the tenth of a second that begins now."""
        return now_ns, now_ns + 100_000_000

    def absorb(self, f: str, drained: Drained) -> None:
        """Count successes."""
        self.succeeded += drained[0]

    def absorb_lags(self, lags: dict[int, int]) -> None:
        """Do nothing."""

    def user_ready(self) -> None:
        """Do nothing."""


class User:
    """A user whose lent operations are done as ever and not counted."""

    leaving = False

    def __init__(self, client: EtcdClient, settings: Settings, process: int) -> None:
        self.process = process
        self._client = client
        self.block = Workload(settings, process).block

    def carry_out(self, number: int, f: str, key: int, count: Any, due_ns: int) -> None:
        """Do an operation, so that the connection's header blocks are learnt."""
        if f == "get":
            self._client.get(b"bench")
        elif f == "put":
            self._client.put(b"bench", b"v")
        else:
            self._client.cas(b"bench", b"v", 0)

    def resume(self, *_: object, **__: object) -> None:
        """Do nothing."""

    def record_killed(self, *_: object, **__: object) -> None:
        """Do nothing."""


def highest(
    f: str, port: int, users: int, connections: int, seconds: float, history: HistoryWriter | None = None
) -> tuple[float, float]:
    """Return operations per second of the clock, and of CPU. Takes where they are recorded, None for nowhere."""
    settings = Settings(mix={f: 1.0}, prefix=b"abcd/")
    engine = Engine(
        Plan(types=(f,), prefix=b"abcd/", digits=27, key_space=1000, value_size=64, filler=filler(1, 48),
             serializable=False, timeout_ns=5_000_000_000, quota=None, owing=0, closed_loop=True)
    )  # fmt: skip
    if history is not None:
        engine.record_in(history)
    client = EtcdClient([f"127.0.0.1:{port}"], connections=connections, make_transport=engine.make_transport)
    host = Host()
    engine.begin(client.channel, host, 0)
    for _ in range(3 * connections):
        client.get(b"warm")
    all_users = [User(client, settings, n) for n in range(users)]
    greenlets = [gevent.spawn(engine.serve, each) for each in all_users]
    gevent.sleep(1)
    engine.drain()
    before, began, cpu = host.succeeded, time.perf_counter(), time.process_time()
    gevent.sleep(seconds)
    engine.drain()
    took, used, done = time.perf_counter() - began, time.process_time() - cpu, host.succeeded - before
    for each in all_users:
        engine.leave(each.process)
    gevent.joinall(greenlets, timeout=5)
    client.close()
    return done / took, done / used


def main() -> None:
    """Measure each type in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--types", default=tuple(MESSAGES), type=lambda text: text.split(","))
    args = parser.parse_args()
    for f in args.types:
        with peers.apart(partial(replaying, MESSAGES[f].SerializeToString(), args.connections)) as port:
            rate, by_cpu = highest(f, port, args.users, args.connections, args.seconds)
        print(
            f"{f}: {rate:,.0f} operations/s, {by_cpu:,.0f} per second of CPU, {1e6 / by_cpu:.2f} us of CPU an operation"
            f" ({args.users:,} users, {args.connections} connections)",
            flush=True,
        )


if __name__ == "__main__":
    main()
