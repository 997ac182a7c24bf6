"""Servers that lie, flood, hang up and change their mind, over real sockets.

Whatever they do, every open call ends with the right outcome, the next one finds a connection, nothing hangs and
nothing grows. OK is said only of what was answered whole; FAIL only of what certainly was not executed, and of reads;
INFO of every other write.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.server
import hpack
import pytest

from cluster.base.security import Security
from cluster.local.cluster import LocalCluster
from loadgen.client.call import MALFORMED
from loadgen.client.channel import Channel
from loadgen.client.connect_errors import LOST
from loadgen.client.etcd import EtcdClient
from loadgen.client.kv import bytes_prefix_end
from loadgen.history.operation import Operation, Outcome
from loadgen.load import keyspace
from loadgen.load.keyspace import KeySpace, KeySpaceError
from loadgen.load.settings import PREFIX_BYTES, Settings
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import Code, frames
from loadgen.wire.grpc import PREFIX
from tests.support.certificates import Authority
from tests.support.http2_server import (
    END,
    MESSAGE,
    OPEN,
    Listen,
    Serve,
    Server,
    block,
    body,
    head,
    until,
    whole,
)
from tests.support.ports import take_ports
from tests.support.waiting import HANG_S

WATCH = b"/etcdserverpb.Watch/Watch"
PROTOCOL = "protocol error"
Script = Callable[[int], bytes]


def is_clean(channel: Channel) -> bool:
    """No call is left in any table."""
    return channel.in_flight == 0 and all(not each.open_count for each in (*channel._live, *channel._draining))


# One stream at a time: what is said of a put on it, and what comes of that


def padded(stream_id: int) -> bytes:
    data = PREFIX.pack(0, len(MESSAGE)) + MESSAGE
    return (
        frames.frame(frames.HEADERS, frames.PADDED | frames.END_HEADERS, stream_id, b"\x05" + block(OPEN) + bytes(5))
        + frames.frame(frames.DATA, frames.PADDED, stream_id, b"\xff" + data + bytes(255))
        + head(stream_id, END, end=True)
    )


def dribbled(stream_id: int) -> bytes:
    data = PREFIX.pack(0, len(MESSAGE)) + MESSAGE
    pieces = [data[n : n + 1] for n in range(len(data))]
    return (
        head(stream_id, OPEN)
        + b"".join(frames.frame(frames.DATA, 0, stream_id, each) for each in (b"", *pieces, b""))
        + head(stream_id, END, end=True)
    )


def in_pieces(stream_id: int, count: int, fields: list[tuple[bytes, bytes]], first_flags: int = 0) -> bytes:
    data = block(fields)
    size = -(-len(data) // count)
    parts = [data[n : n + size] for n in range(0, len(data), size)]
    said = frames.frame(frames.HEADERS, first_flags, stream_id, parts[0])
    for n, part in enumerate(parts[1:], 2):
        said += frames.frame(frames.CONTINUATION, frames.END_HEADERS if n == len(parts) else 0, stream_id, part)
    return said


ON_ITS_STREAM: dict[str, tuple[Script, Outcome, str | None]] = {
    "trailers only": (
        lambda s: head(s, [*OPEN, (b"grpc-status", b"14")], end=True), Outcome.INFO, "UNAVAILABLE",
    ),
    "trailers only, refused": (
        lambda s: head(s, [*OPEN, (b"grpc-status", b"7")], end=True), Outcome.FAIL, "PERMISSION_DENIED",
    ),
    "trailers only, OK and nothing": (lambda s: head(s, [*OPEN, *END], end=True), Outcome.INFO, "INTERNAL"),
    "a status that gRPC does not know": (
        lambda s: head(s, [*OPEN, (b"grpc-status", b"42")], end=True), Outcome.INFO, "UNKNOWN",
    ),
    "reset in mid-body": (
        lambda s: head(s, OPEN) + frames.frame(frames.DATA, 0, s, PREFIX.pack(0, 100) + b"x") + frames.rst_stream(s, 8),
        Outcome.INFO, "CANCELLED",
    ),
    "reset, internal error": (lambda s: frames.rst_stream(s, 2), Outcome.INFO, "INTERNAL"),
    "reset, unknown error": (lambda s: frames.rst_stream(s, 0xFFFF), Outcome.INFO, "UNKNOWN"),
    "message cut off by the trailers": (
        lambda s: head(s, OPEN) + frames.frame(frames.DATA, 0, s, PREFIX.pack(0, 9) + b"x") + head(s, END, end=True),
        Outcome.INFO, "INTERNAL",
    ),
    "message, and the beginning of another": (
        lambda s: head(s, OPEN) + body(s) + frames.frame(frames.DATA, 0, s, b"\0\0") + head(s, END, end=True),
        Outcome.INFO, "INTERNAL",
    ),
    "a message that is none": (
        lambda s: head(s, OPEN) + body(s, b"\xff\xff") + head(s, END, end=True), Outcome.INFO, MALFORMED,
    ),
    "no trailers": (lambda s: head(s, OPEN) + body(s, flags=frames.END_STREAM), Outcome.INFO, "UNKNOWN"),
    "HTTP 503 of a proxy": (
        lambda s: head(s, [(b":status", b"503"), (b"content-type", b"text/html")]) + body(s, b"<html>"),
        Outcome.INFO, "UNAVAILABLE",
    ),
    "HTTP 401 of a proxy": (lambda s: head(s, [(b":status", b"401")], end=True), Outcome.INFO, "UNAUTHENTICATED"),
    "wrong content-type": (
        lambda s: head(s, [(b":status", b"200"), (b"content-type", b"text/plain")]) + body(s), Outcome.INFO, "UNKNOWN",
    ),
    "no :status": (lambda s: head(s, [(b"content-type", b"application/grpc")]), Outcome.INFO, PROTOCOL),
    "upper case": (lambda s: head(s, [*OPEN, (b"X-Y", b"z")]), Outcome.INFO, PROTOCOL),
    "compressed": (
        lambda s: head(s, OPEN) + frames.frame(frames.DATA, 0, s, PREFIX.pack(1, 1) + b"x"), Outcome.INFO, PROTOCOL,
    ),
    "a message of 4 GiB": (
        lambda s: head(s, OPEN) + frames.frame(frames.DATA, 0, s, PREFIX.pack(0, 0xFFFFFFFF)), Outcome.INFO, PROTOCOL,
    ),
    "two messages": (lambda s: head(s, OPEN) + body(s) + body(s), Outcome.INFO, PROTOCOL),
    "DATA first": (body, Outcome.INFO, PROTOCOL),
    "WINDOW_UPDATE of nothing": (lambda s: frames.window_update(s, 0), Outcome.INFO, PROTOCOL),
    "trailers without an end": (lambda s: head(s, OPEN) + body(s) + head(s, END), Outcome.INFO, PROTOCOL),
    "padded frames": (padded, Outcome.OK, None),
    "a byte a frame, and empty frames": (dribbled, Outcome.OK, None),
    "CONTINUATION": (lambda s: in_pieces(s, 7, OPEN) + body(s) + head(s, END, end=True), Outcome.OK, None),
    "100 Continue": (lambda s: head(s, [(b":status", b"100")]) * 3 + whole(s), Outcome.OK, None),
    "50 KiB of headers": (
        lambda s: head(s, [*OPEN, *((b"x%d" % n, bytes(1_000)) for n in range(45))])
        + body(s) + head(s, END, end=True),
        Outcome.OK, None,
    ),
    "its window to the largest": (lambda s: frames.window_update(s, 0x7FFF0000) + whole(s), Outcome.OK, None),
    "all of it again, late": (
        lambda s: whole(s) + whole(s) + frames.rst_stream(s, 8) + frames.window_update(s, 1), Outcome.OK, None,
    ),
    "frames nobody knows": (
        lambda s: frames.frame(0xEE, 0xFF, s, b"?") + frames.frame(frames.PRIORITY, 0, s, bytes(5)) + whole(s),
        Outcome.OK, None,
    ),
    "2,000 PINGs": (lambda s: frames.ping(b"12345678") * 2_000 + whole(s), Outcome.OK, None),
    "SETTINGS up and down": (
        lambda s: b"".join(frames.settings({4: n, 1: n % 3 * 4096, 3: n % 7}) for n in range(200))
        + frames.settings({3: 100, 4: 65_535}) + whole(s),
        Outcome.OK, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ON_ITS_STREAM)
def test_what_concerns_one_stream_ends_that_alone(serve: Serve, name: str) -> None:
    script, outcome, error = ON_ITS_STREAM[name]
    # The first request is kept waiting, the second is the victim, then all is well.
    server = serve(lambda _, stream_id: {1: b"", 3: script(3) + whole(1)}.get(stream_id, whole(stream_id)))
    client = EtcdClient([server.endpoint], timeout_s=HANG_S)
    with gevent.Timeout(HANG_S):
        bystander = gevent.spawn(client.get, b"kept waiting")
        until(lambda: len(server.requests) == 1)
        victim = client.put(b"k", b"v")
        assert (victim.outcome, victim.error) == (outcome, error)
        assert bystander.get().outcome == Outcome.OK
        assert [client.put(b"k", b"v").outcome for _ in range(3)] == [Outcome.OK] * 3
    assert (client.channel.connects, client.channel.resent, server.goaways) == (1, 0, 0)
    assert is_clean(client.channel)
    client.close()


# A whole connection


def header_bomb(stream_id: int) -> bytes:
    """Return a few bytes that mean 20 MB: one large entry of the table, again and again (RFC 7541, section 7.3)."""
    large = hpack.Encoder().encode([(b"x", b"y" * 4_000)], huffman=False)
    return frames.headers(stream_id, block(OPEN) + large + b"\xbe" * 5_000, frames.DEFAULT_FRAME_SIZE)


TO_THE_CONNECTION: dict[str, Script] = {
    "garbage": lambda _: b"\xff" * 100,
    "HTTP/1.1": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n" * 5,
    "a frame that is too large": lambda s: frames.frame(frames.DATA, 0, s, bytes(16_385)),
    "a frame header that says 16 MB": lambda s: frames.FRAME_HEADER.pack(0xFFFFFF00, 0, s),
    "PUSH_PROMISE": lambda s: frames.frame(frames.PUSH_PROMISE, 4, s, b"\0\0\0\x02" + block(OPEN)),
    "RST_STREAM on stream 0": lambda _: frames.rst_stream(0, 0),
    "RST_STREAM of 3 bytes": lambda s: frames.frame(frames.RST_STREAM, 0, s, b"123"),
    "DATA on stream 0": lambda _: frames.frame(frames.DATA, 0, 0, b"x"),
    "HEADERS on a stream of its own": lambda _: head(2, OPEN),
    "HEADERS on a stream that is not there yet": lambda _: head(99_999, OPEN),
    "padding longer than its frame": lambda s: frames.frame(frames.DATA, frames.PADDED, s, b"\xff"),
    "HPACK that is none": lambda s: frames.frame(frames.HEADERS, frames.END_HEADERS, s, b"\xff" * 20),
    "a header bomb": header_bomb,
    "100 KiB of headers": lambda s: head(s, [*OPEN, *((b"x%d" % n, bytes(1_000)) for n in range(100))]),
    "CONTINUATION without end": lambda s: (
        frames.frame(frames.HEADERS, 0, s, block(OPEN)) + frames.frame(frames.CONTINUATION, 0, s) * 5_000
    ),
    "CONTINUATION of nothing": lambda s: frames.frame(frames.CONTINUATION, 4, s, block(OPEN)),
    "a header block that is interrupted": lambda s: (
        frames.frame(frames.HEADERS, 0, s, block(OPEN)) + frames.ping(bytes(8))
    ),
    "WINDOW_UPDATE of nothing": lambda _: frames.window_update(0, 0),
    "a window that overflows": lambda _: frames.window_update(0, 0x7FFFFFFF) * 2,
    "SETTINGS of 5 bytes": lambda _: frames.frame(frames.SETTINGS, 0, 0, b"12345"),
    "SETTINGS on a stream": lambda s: frames.frame(frames.SETTINGS, 0, s),
    "an initial window of 4 GiB": lambda _: frames.settings({4: 0xFFFFFFFF}),
    "a frame size of 1": lambda _: frames.settings({5: 1}),
    "a frame size of 4 GiB": lambda _: frames.settings({5: 0xFFFFFFFF}),
    "push enabled": lambda _: frames.settings({2: 1}),
    "5,000 SETTINGS at once": lambda _: frames.settings({}) * 7_000,
    "PING of 7 bytes": lambda _: frames.frame(frames.PING, 0, 0, bytes(7)),
    "GOAWAY of 4 bytes": lambda _: frames.frame(frames.GOAWAY, 0, 0, bytes(4)),
}


@pytest.mark.parametrize("name", TO_THE_CONNECTION)
def test_what_concerns_the_connection_ends_all_on_it(serve: Serve, name: str) -> None:
    script = TO_THE_CONNECTION[name]

    def respond(number: int, stream_id: int) -> bytes:
        if number > 1:
            return whole(stream_id)
        return script(3) if len(server.requests) == 3 else b""

    server = serve(respond)
    client = EtcdClient([server.endpoint], timeout_s=HANG_S)
    with gevent.Timeout(HANG_S):
        read = gevent.spawn(client.get, b"k")
        until(lambda: len(server.requests) == 1)
        stream = client.channel.open(WATCH, HANG_S)
        stream.send(b"a message")
        until(lambda: len(server.requests) == 2)
        write = client.put(b"k", b"v")
        assert (write.outcome, write.error) == (Outcome.INFO, PROTOCOL)
        assert (read.get().outcome, read.get().error) == (Outcome.FAIL, PROTOCOL)
        assert stream.receive() is None
        assert (stream.ended, stream.error) == (True, PROTOCOL)
        assert client.put(b"k", b"v").outcome == Outcome.OK
        until(lambda: server.goaways == 1)  # it was told why
    assert (client.channel.connects, client.channel.resent) == (2, 0)
    assert is_clean(client.channel)
    client.close()


def linger(client: Any) -> None:
    """Has close() reset the connection."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


HANG_UPS: dict[str, Callable[[Any], None]] = {
    "closed": lambda _: None,
    "reset": linger,
    "half-closed": lambda client: client.shutdown(socket.SHUT_WR),
    "in mid-frame": lambda client: client.sendall(head(1, OPEN) + body(1)[:-3]),
    "in mid-header": lambda client: client.sendall(b"\0\0\x05\0"),
    "after a garbled GOAWAY": lambda client: client.sendall(frames.goaway(0x7FFFFFFF, 0, b"bye" * 1_000)),
}


@pytest.mark.parametrize("name", HANG_UPS)
def test_hanging_up(listen: Listen, name: str) -> None:
    """Before it is greeted nothing was sent; after that a write is of unknown effect."""
    connections = requests = 0
    told = gevent.event.Event()

    def handle(client: Any, _: object) -> None:
        nonlocal connections, requests
        connections += 1
        number = connections
        client.sendall(frames.settings({}))
        received = b""
        while part := client.recv(65_536):
            received += part
            if b"unique" in received:
                requests += 1
                if number == 1:
                    HANG_UPS[name](client)
                    if name == "half-closed":
                        # It stays there, so only the end of what it says tells that it will not answer.
                        told.wait()
                    client.close()
                    return
                client.sendall(whole(1))
                received = b""

    client = EtcdClient([listen(handle)], timeout_s=HANG_S)
    with gevent.Timeout(HANG_S):
        write = client.put(b"unique", b"v")
        told.set()
        assert (write.outcome, write.error) == (Outcome.INFO, LOST)
        assert client.put(b"unique", b"v").outcome == Outcome.OK
    assert (client.channel.resent, client.channel.connects, requests) == (0, 2, 2)
    client.close()


def test_a_flood_of_pings_to_one_who_is_not_read(listen: Listen) -> None:
    """Answers that nobody reads pile up to a bound, and then the connection ends: not the memory."""
    flooded = gevent.event.Event()

    def handle(client: Any, _: object) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        with contextlib.suppress(OSError):
            client.sendall(frames.settings({}))
            client.recv(100)
            while True:
                client.sendall(frames.ping(bytes(8)) * 3_000)
        flooded.set()

    client = EtcdClient([listen(handle)], timeout_s=HANG_S)
    with gevent.Timeout(HANG_S):
        write = client.put(b"k", b"v")
        assert (write.outcome, write.error) == (Outcome.INFO, PROTOCOL)
        flooded.wait()
    client.close()


def test_an_answer_larger_than_every_window(serve: Serve) -> None:
    """64 MiB in one message, through windows of 16: they are given back as the answer is read."""
    pieces = 4_096
    size = pieces * 16_000
    server = serve(lambda *_: b"")

    def respond(_: int, stream_id: int) -> bytes:
        first = frames.frame(frames.DATA, 0, stream_id, PREFIX.pack(0, size))
        return (
            head(stream_id, OPEN)
            + first
            + frames.frame(frames.DATA, 0, stream_id, bytes(16_000)) * pieces
            + head(stream_id, END, end=True)
        )

    server.respond = respond
    channel = Channel([server.endpoint])
    with gevent.Timeout(HANG_S):
        stream = channel.call(b"/x", b"", int(HANG_S * 1e9), time.perf_counter_ns())
    assert (stream.code, len(stream.message or b"")) == (Code.OK, size)
    channel.close()


def test_reconnecting_backs_off_with_jitter(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs up at once is not hammered, and ten clients do not come back in step."""
    met = 0

    def handle(client: Any, _: object) -> None:
        nonlocal met
        met += 1
        client.close()

    endpoint = listen(handle)
    channels = [Channel([endpoint]) for _ in range(10)]
    pauses: dict[Channel, list[float]] = {channel: [] for channel in channels}
    sleep = gevent.sleep

    def at_once(seconds: float = 0) -> None:
        """Note the pauses of what keeps a connection, and make none."""
        mine = next((channel for channel in channels if gevent.getcurrent() in channel._keepers), None)
        if mine is not None:
            pauses[mine].append(seconds)
        sleep(0 if mine is not None else seconds)

    monkeypatch.setattr(gevent, "sleep", at_once)
    for channel in channels:
        gevent.spawn(channel.call, b"/x", b"", int(HANG_S * 1e9), time.perf_counter_ns())
    until(lambda: all(len(each) >= 9 for each in pauses.values()))
    for channel in channels:
        channel.close()
    assert met >= 10 * 9
    # 50 ms, doubled each time up to 2 s, and halved at the most by chance.
    for each in pauses.values():
        for number, seconds in enumerate(each):
            longest = min(0.05 * 2**number, 2.0)
            assert longest / 2 <= seconds <= longest
    for together in zip(*pauses.values(), strict=False):
        assert len(set(together)) == 10
        assert max(together) - min(together) > min(together) / 10, "they came back at the same moment"


# Under load: nothing lost, nothing sent twice


def unique_puts(
    client: EtcdClient,
    users: int,
    running: Callable[[], bool],
    done: list[Operation] | None = None,
    prefix: bytes = b"unique/",
) -> list[Operation]:
    """Users that put keys that nobody else does, each once; returns the operations, which are in ``done`` as well."""
    done = [] if done is None else done

    def user(number: int) -> None:
        step = 0
        while running():
            done.append(client.put(b"%b%d/%d" % (prefix, number, step), b"v" * (step % 5 * 9_000)))
            step += 1

    gevent.joinall([gevent.spawn(user, number) for number in range(users)], raise_error=True)
    return done


@pytest.mark.parametrize("graceful", [False, True])
def test_goaways_under_load(serve: Serve, graceful: bool) -> None:
    """Every 50 requests the server says goodbye: it answers what is below its last stream id, and never sees the rest.

    ``graceful`` is Go's way: first a GOAWAY that forbids nothing (RFC 9113, section 6.8), later the real one.
    """
    rng = random.Random(1)
    processed: Counter[bytes] = Counter()
    ignored = 0
    last: dict[int, int] = {}
    count: Counter[int] = Counter()

    def respond(number: int, stream_id: int) -> bytes | None:
        nonlocal ignored
        if stream_id > last.get(number, 1 << 31):
            ignored += 1
            return b""
        processed[pb.PutRequest.FromString(server.requests[-1][2][5:]).key] += 1
        count[number] += 1
        said = whole(stream_id)
        if graceful and count[number] == 40:
            said = frames.goaway(0x7FFFFFFF, 0) + said
        if count[number] == 50:
            last[number] = stream_id
            said += frames.goaway(stream_id, 0, b"max_age")
        return said if rng.random() < 0.9 else frames.ping(bytes(8)) + said

    server = serve(respond)
    client = EtcdClient([server.endpoint], timeout_s=HANG_S, connections=3)
    with gevent.Timeout(HANG_S):
        done = unique_puts(client, 30, lambda: len(last) < 12)
    by = Counter((each.outcome, each.error) for each in done)
    # It is sent again once; met by a second GOAWAY it is a failure, which certainly was not executed.
    assert set(by) <= {(Outcome.OK, None), (Outcome.FAIL, "going away")}, by
    assert by[Outcome.OK, None] > 0.8 * len(done)
    assert set(processed.values()) == {1}, "a put was processed twice"
    assert sorted(processed) == sorted(each.key for each in done if each.outcome is Outcome.OK)
    assert client.channel.resent >= ignored - by[Outcome.FAIL, "going away"]
    assert client.channel.connects >= 12
    client.close()


def test_refused_streams_under_load(serve: Serve) -> None:
    rng = random.Random(2)
    processed: Counter[bytes] = Counter()
    refused = 0

    def respond(_: int, stream_id: int) -> bytes:
        nonlocal refused
        if rng.random() < 0.1:
            refused += 1
            return frames.rst_stream(stream_id, 7)
        processed[pb.PutRequest.FromString(server.requests[-1][2][5:]).key] += 1
        return whole(stream_id)

    server = serve(respond)
    client = EtcdClient([server.endpoint], timeout_s=HANG_S)
    with gevent.Timeout(HANG_S):
        done = unique_puts(client, 20, lambda: len(processed) < 1_000)
    by = Counter((each.outcome, each.error) for each in done)
    assert set(by) <= {(Outcome.OK, None), (Outcome.FAIL, "stream refused")}  # refused, sent again once, and refused
    assert sorted(processed) == sorted(each.key for each in done if each.outcome is Outcome.OK)
    assert set(processed.values()) == {1}
    assert client.channel.resent + by[Outcome.FAIL, "stream refused"] == refused
    client.close()


@pytest.fixture(scope="module")
def restarting(fixed_etcd: str) -> Iterator[LocalCluster]:
    """Three members, of which a test stops one under load and starts it again."""
    with LocalCluster(3, binary=fixed_etcd) as cluster:
        yield cluster


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_a_member_restarted_under_load(restarting: LocalCluster, how: str) -> None:
    """Real etcd: what was acknowledged is there, what failed is not, and no put was executed twice."""
    cluster, prefix = restarting, f"unique/{how}/".encode()
    client = EtcdClient(cluster.endpoints, timeout_s=5, connections=2)
    stop = gevent.event.Event()
    done: list[Operation] = []
    load = gevent.spawn(unique_puts, client, 30, lambda: not stop.is_set(), done, prefix)
    pool = gevent.get_hub().threadpool
    leader = cluster.leader(HANG_S)
    assert leader is not None
    try:
        until(lambda: len(done) > 100)
        pool.apply(getattr(cluster, how), (leader.name,))
        down = len(done)
        until(lambda: len(done) > down + 10)
        pool.apply(cluster.start, (leader.name,))
        pool.apply(cluster.wait_healthy, (60,))
        restarted = len(done)
        until(lambda: len(done) > restarted + 100)
    finally:
        stop.set()
    load.get(timeout=HANG_S)
    found = client.at(leader.client_url).range(prefix, bytes_prefix_end(prefix), keys_only=True)
    assert found.outcome == Outcome.OK
    versions = {kv.key: kv.version for kv in found.response.kvs}
    assert set(versions.values()) == {1}, "a put was executed twice"
    by: dict[Outcome, set[bytes]] = {outcome: set() for outcome in Outcome}
    for each in done:
        by[each.outcome].add(each.key)
    assert len(by[Outcome.OK]) > 50
    assert by[Outcome.OK] <= set(versions)
    assert not by[Outcome.FAIL] & set(versions)
    assert set(versions) <= by[Outcome.OK] | by[Outcome.INFO]
    client.close()


def test_nothing_grows_over_many_lost_connections(serve: Serve) -> None:
    """60 connections that die in every way leave no transport, no stream and no descriptor behind."""
    ways = list(TO_THE_CONNECTION.values())
    server = serve(lambda number, stream_id: ways[number % len(ways)](stream_id) if stream_id > 5 else whole(stream_id))
    clients = [EtcdClient([server.endpoint], timeout_s=HANG_S) for _ in range(12)]

    def use(client: EtcdClient) -> None:
        while client.channel.connects < 5:
            gevent.joinall([gevent.spawn(client.put, b"k", b"v") for _ in range(10)])

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with gevent.Timeout(HANG_S):
        gevent.joinall([gevent.spawn(use, client) for client in clients], raise_error=True)
    assert server.connections >= 60
    until(lambda: all(is_clean(client.channel) for client in clients))
    assert all(len(client.channel._draining) <= 2 for client in clients)
    for client in clients:
        client.close()
    until(lambda: len(os.listdir("/proc/self/fd")) < before + 5)  # noqa: PTH208


# TLS in the middle of things


def test_keys_are_updated_in_mid_connection(tmp_path: Path) -> None:
    """TLS 1.3's KeyUpdate (RFC 8446, section 4.6.3), asked of us between two requests by OpenSSL's own server."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to serve with")
    authority = Authority(tmp_path)
    pair = authority.sign("server", "127.0.0.1")
    port = take_ports(1)
    server = subprocess.Popen(
        ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", pair.cert, "-key", pair.key, "-tls1_3",
         "-alpn", "h2", "-naccept", "1", "-msg"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    os.set_blocking(server.stdout.fileno(), False)
    seen = bytearray()

    def wait_for(what: bytes) -> None:
        def came() -> bool:
            seen.extend(server.stdout.read() or b"")  # type: ignore[union-attr]
            return what in seen

        until(came)

    def wait_for_renewals(count: int) -> None:
        def came() -> bool:
            seen.extend(server.stdout.read() or b"")  # type: ignore[union-attr]
            return len(re.findall(rb">>> TLS 1.3, Handshake \[length 0005\], KeyUpdate", seen)) == count

        until(came)

    def say(what: bytes) -> None:
        server.stdin.write(what)  # type: ignore[union-attr]

    try:
        wait_for(b"ACCEPT")
        say(frames.settings({}))
        client = EtcdClient([f"https://127.0.0.1:{port}"], security=Security(cacert=authority.cert), timeout_s=HANG_S)
        for number, stream_id in enumerate((1, 3, 5)):
            asked = gevent.spawn(client.put, b"key-%d" % number, b"v")
            wait_for(b"key-%d" % number)
            # s_server takes a line that begins with K as an order to renew both sides' keys.
            say(b"K\n")
            # It reads orders and text from the same pipe.
            wait_for_renewals(number + 1)
            say(whole(stream_id))
            assert asked.get(timeout=HANG_S).outcome == Outcome.OK
        assert client.channel.connects == 1
        # Ours follow, each with what we write next (as its -msg tells).
        assert len(re.findall(rb"<<< TLS 1.3, Handshake \[length 0005\], KeyUpdate", seen)) == 2
        client.close()
    finally:
        server.kill()
        server.wait()
        server.stdin.close()
        server.stdout.close()


# The keys of a run


def refused(stream_id: int, code: Code) -> bytes:
    return head(stream_id, [*OPEN, (b"grpc-status", b"%d" % code), (b"grpc-message", b"")], end=True)


def keys_at(server: Server) -> tuple[EtcdClient, KeySpace]:
    settings = Settings.from_options({"mix": "put", "operations": "1"}, (server.endpoint,))
    client = EtcdClient((server.endpoint,))
    return client, KeySpace(client, settings)


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.UNAUTHENTICATED])
def test_a_run_waits_for_the_end_of_an_election_and_until_its_login_is_known(serve: Serve, code: Code) -> None:
    asked: list[int] = []

    def respond(_: int, stream_id: int) -> bytes:
        asked.append(stream_id)
        return refused(stream_id, code) if len(asked) <= 3 else whole(stream_id)

    client, keys = keys_at(serve(respond))
    with contextlib.closing(client):
        assert len(keys.prepare().prefix) == PREFIX_BYTES
        assert len(asked) == 4
        assert keys.revision() == 7


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (Code.UNKNOWN, "etcdserver: too many requests"),
        (Code.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner"),
        (Code.UNAVAILABLE, "etcdserver: rpc not supported for learner"),
        (Code.UNAVAILABLE, "etcdserver: request timed out, possibly due to previous leader failure"),
        (Code.UNKNOWN, "etcdserver: leader changed"),
        (Code.UNKNOWN, "auth: revision in header is old"),
        (Code.INVALID_ARGUMENT, "etcdserver: revision of auth store is old"),
        (Code.UNKNOWN, "raft proposal dropped"),
    ],
)
def test_what_a_member_cannot_answer_now_is_asked_again(serve: Serve, code: Code, text: str) -> None:
    asked: list[int] = []

    def respond(_: int, stream_id: int) -> bytes:
        asked.append(stream_id)
        fields = [*OPEN, (b"grpc-status", b"%d" % code), (b"grpc-message", text.encode())]
        return head(stream_id, fields, end=True) if len(asked) <= 3 else whole(stream_id)

    client, keys = keys_at(serve(respond))
    with contextlib.closing(client):
        assert len(keys.prepare().prefix) == PREFIX_BYTES
        assert len(asked) == 4


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.PERMISSION_DENIED])
def test_a_run_waits_for_nothing_else_and_not_for_ever(
    serve: Serve, code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyspace, "PATIENCE_S", 0.25)
    server = serve(lambda _, stream_id: refused(stream_id, code))
    client, keys = keys_at(server)
    waits = code is Code.UNAVAILABLE
    with contextlib.closing(client):
        with pytest.raises(KeySpaceError, match=rf"cannot look for a free key prefix: {code.name}"):
            keys.prepare()
        asked = len(server.requests)
        assert asked > 1 if waits else asked == 1
        with pytest.raises(KeySpaceError, match=rf"cannot read the cluster's revision: {code.name}"):
            keys.revision()
        assert len(server.requests) == asked + 1, "it has waited before"
