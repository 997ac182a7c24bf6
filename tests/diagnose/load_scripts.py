"""What is done to members beside a load of `raftload bench`: keys filled in, history, watchers, compaction, and so on.

    python -m tests.diagnose.load_scripts SCRIPT HOST:PORT,HOST:PORT [NUMBER...]

Each goes on until it is ended, but for those that fill.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import gevent
from gevent.pool import Pool

from cluster.base.security import Security
from loadgen.client.channel import STATUS
from loadgen.client.etcd import EtcdClient
from loadgen.client.kv import put_op
from loadgen.client.watcher import WATCH
from loadgen.proto import etcd_pb2 as pb

if TYPE_CHECKING:
    from loadgen.history.operation import Operation

PREFIX, PREFIX_END = b"filled/", b"filled0"
HISTORY = b"history/"
HOT_KEY = b"hot"
PUTS = 128
_STREAMS = 20
_PAUSE_S = 0.05
_EXPIRE_S = 12.0


def _client(endpoints: list[str]) -> EtcdClient:
    env = os.environ.get
    security = Security(
        env("ETCDCTL_CACERT"), env("ETCDCTL_CERT"), env("ETCDCTL_KEY"), user=env("ETCDCTL_USER"),
        password=env("ETCDCTL_PASSWORD"),
    )  # fmt: skip
    return EtcdClient(endpoints, timeout_s=30, security=security)


def _done(operation: Operation) -> Operation:
    if operation.response is None:
        raise SystemExit(f"{operation.f}: {operation.error}")
    return operation


def fill(client: EtcdClient, keys: int, size: int) -> None:
    """Put so many keys with values of so many bytes."""
    value = b"v" * size
    each = max(1, min(PUTS, (1 << 20) // (size + 64)))

    def put(first: int) -> None:
        puts = [put_op(b"%s%08d" % (PREFIX, n), value) for n in range(first, min(first + each, keys))]
        _done(client.txn([], puts))

    for _ in Pool(8).imap_unordered(put, range(0, keys, each)):
        pass


def fill_to(client: EtcdClient, mib: int, percent: int) -> None:
    """Put values until every database has so many percent of so many MiB."""
    wanted, value = (mib << 20) * percent / 100, b"v" * 65_536

    def size() -> int:
        return min(int(_done(client.status(each)).response.dbSize) for each in client.endpoints)

    numbers = itertools.count()
    while (now := size()) < wanted:
        left = max(1, int((wanted - now) / 2 / 70_000))
        keys = [b"%s%08d" % (PREFIX, next(numbers)) for _ in range(min(128, left))]
        for operation in Pool(8).imap_unordered(lambda key: client.put(key, value), keys):
            _done(operation)
        gevent.sleep(0.15)  # a database grows when a batch is committed, which is every 100 ms


def history(client: EtcdClient, revisions: int) -> None:
    """Write so many revisions of few keys."""

    def put(number: int) -> None:
        value = b"%032d" % number
        _done(client.txn([], [put_op(b"%s%03d" % (HISTORY, n), value) for n in range(PUTS)]))

    for _ in Pool(8).imap_unordered(put, range(revisions // PUTS)):
        pass


def compaction(client: EtcdClient, first: int, steps: int) -> None:
    """Compact the history in steps, each once the one before is done, and add to it meanwhile."""
    last = int(_done(client.get(HISTORY)).revision)
    for step in range(1, steps + 1):
        _done(client.compact(max(first, last * step // steps), physical=True))
    for _ in itertools.count():
        history(client, 20_000)
        _done(client.compact(int(_done(client.get(HISTORY)).revision), physical=True))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _headers(path: bytes) -> bytes:
    """Return a block of headers for a call, as plain literals."""
    headers = {
        ":method": b"POST", ":scheme": b"http", ":path": path, ":authority": b"etcd",
        "content-type": b"application/grpc", "te": b"trailers",
    }  # fmt: skip
    return b"".join(b"\0%c%b%c%b" % (len(name), name.encode(), len(value), value) for name, value in headers.items())


def _has_ended(read: bytes) -> bool:
    """Return whether frames of HTTP/2 have the headers that end a stream."""
    while len(read) >= 9:
        if read[3] == 1 and read[4] & 1:
            return True
        read = read[9 + int.from_bytes(read[:3], "big") :]
    return False


def watchers(client: EtcdClient, count: int) -> None:
    """Have so many watches of one key, over a few streams, and read what comes without a look at it.

    Whoever took the events apart would be the slower end, and the members would have little to do.
    """
    create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=HOT_KEY)).SerializeToString()
    message = b"\0" + len(create).to_bytes(4, "big") + create
    window = (1 << 31) - 1

    def follow(number: int) -> None:
        host, _, port = client.endpoints[number % len(client.endpoints)].rpartition("/")[2].rpartition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                + _frame(4, 0, 0, b"\0\4" + window.to_bytes(4, "big"))  # the window of streams
                + _frame(8, 0, 0, (window - 65_535).to_bytes(4, "big"))  # the one of the connection
                + _frame(4, 1, 0, b"")
                + _frame(1, 4, 1, _headers(WATCH))
                + b"".join(_frame(0, 0, 1, message) for _ in range(count // _STREAMS))
            )
            while connection.recv(1 << 20):
                pass
        raise RuntimeError("a member closed a stream of watches")

    gevent.joinall([gevent.spawn(follow, number) for number in range(_STREAMS)], raise_error=True)


def hot(client: EtcdClient, rate: int) -> None:
    """Write that key so many times a second."""
    pool, began = Pool(200), time.monotonic()
    for number in itertools.count():
        gevent.sleep(max(0.0, began + number / rate - time.monotonic()))
        pool.spawn(client.put, HOT_KEY, b"%064d" % number)


def lagging(client: EtcdClient, count: int) -> None:
    """Have so many watches begin with the first revision, and begin anew when they have caught up."""

    def follow(number: int) -> None:
        at = client.at(client.endpoints[number % len(client.endpoints)])
        create = pb.WatchCreateRequest(key=HISTORY, range_end=b"history0", start_revision=1)
        request = pb.WatchRequest(create_request=create).SerializeToString()
        while True:
            last = int(_done(at.get(HISTORY)).revision)
            with at.streams().open(WATCH, 30) as call:
                call.send(request)
                while (taken := call.receive(5.0)) is not None:
                    answer = pb.WatchResponse.FromString(taken[0])
                    if answer.events and answer.events[-1].kv.mod_revision >= last - PUTS:
                        break

    gevent.joinall([gevent.spawn(follow, number) for number in range(count)], raise_error=True)


def _leader(client: EtcdClient) -> tuple[str, dict[int, str]]:
    """Return the leader's endpoint, and all by their ids; no endpoint while there is none."""
    said = {endpoint: client.status(endpoint).response for endpoint in client.endpoints}
    ids = {answer.header.member_id: endpoint for endpoint, answer in said.items() if answer is not None}
    leaders = [answer.leader for answer in said.values() if answer is not None]
    return ids.get(max(leaders, default=0), ""), ids


def move(client: EtcdClient, per_minute: int) -> None:
    """Move leadership to another member so many times a minute."""
    began = time.monotonic()
    for number in itertools.count(1):
        leader, ids = _leader(client)
        others = sorted(each for each, endpoint in ids.items() if endpoint != leader)
        if leader and others:
            client.move_leader(leader, random.choice(others))
        gevent.sleep(max(0.0, began + number * 60 / per_minute - time.monotonic()))


def defragment(client: EtcdClient, every_ms: int) -> None:
    """Defragment the leader again and again, so many milliseconds after the last time began."""
    while True:
        due = time.monotonic() + every_ms / 1000
        leader, _ = _leader(client)
        if leader:
            client.defragment(leader)
        gevent.sleep(max(_PAUSE_S, due - time.monotonic()))


def keep_alive(client: EtcdClient, count: int) -> None:
    """Grant so many leases, and renew each once a second."""
    leases = [int(_done(client.lease_grant(60)).response.ID) for _ in range(count)]
    began = time.monotonic()
    for number in itertools.count():
        gevent.sleep(max(0.0, began + number / count - time.monotonic()))
        client.lease_keepalive(leases[number % count])


def large_puts(client: EtcdClient, size: int, every_ms: int) -> None:
    """Put so many bytes every so many milliseconds."""
    value, began = b"v" * size, time.monotonic()
    for number in itertools.count():
        gevent.sleep(max(0.0, began + number * every_ms / 1000 - time.monotonic()))
        client.put(b"large", value)


def snapshots(client: EtcdClient, count: int, every_ms: int) -> None:
    """Stream so many snapshots at once, each again when so many milliseconds have gone since it began."""

    def stream(number: int) -> None:
        endpoint = client.endpoints[number % len(client.endpoints)]
        while True:
            due = time.monotonic() + every_ms / 1000
            _done(client.snapshot(len, endpoint))
            gevent.sleep(max(0.0, due - time.monotonic()))

    gevent.joinall([gevent.spawn(stream, number) for number in range(count)], raise_error=True)


def connections(client: EtcdClient, count: int) -> None:
    """Have so many clients that connect, ask for the status once and hang up, again and again."""

    def connect(number: int) -> None:
        host, _, port = client.endpoints[number % len(client.endpoints)].rpartition("/")[2].rpartition(":")
        asks = (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(4, 0, 0, b"")
            + _frame(1, 4, 1, _headers(STATUS))
            + _frame(0, 1, 1, b"\0" * 5)
        )
        while True:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 30) as connection:
                connection.sendall(asks)
                read = b""
                while not _has_ended(read) and (more := connection.recv(65_536)):
                    read += more

    gevent.joinall([gevent.spawn(connect, number) for number in range(count)], raise_error=True)


def deletes(client: EtcdClient, keys: int) -> None:
    """Fill in so many keys, and delete them all at once, again and again."""
    while True:
        fill(client, keys, 100)
        client.delete(PREFIX, PREFIX_END)


def logins(client: EtcdClient, count: int) -> None:
    """Have so many clients that log in with the password, again and again."""
    name, password = os.environ["ETCDCTL_USER"], os.environ["ETCDCTL_PASSWORD"]

    def log_in(number: int) -> None:
        at = client.at(client.endpoints[number % len(client.endpoints)])
        while True:
            at.authenticate(name, password)

    gevent.joinall([gevent.spawn(log_in, number) for number in range(count)], raise_error=True)


def compact_often(client: EtcdClient, every_ms: int) -> None:
    """Compact the history up to now, every so many milliseconds."""
    while True:
        gevent.sleep(every_ms / 1000)
        if revision := client.get(HOT_KEY).revision:
            client.compact(int(revision))


def move_once(client: EtcdClient) -> None:
    """Move the leadership to another member, and wait until all know."""
    leader, ids = _leader(client)
    wanted = next(each for each, endpoint in sorted(ids.items()) if endpoint != leader)
    _done(client.move_leader(leader, wanted))
    while _leader(client)[0] != ids[wanted]:
        gevent.sleep(_PAUSE_S)


def hashes(client: EtcdClient, count: int) -> None:
    """Have so many clients that ask for the hash of all keys, again and again."""

    def ask(number: int) -> None:
        while True:
            _done(client.hash_kv(client.endpoints[number % len(client.endpoints)]))

    gevent.joinall([gevent.spawn(ask, number) for number in range(count)], raise_error=True)


def expiring(client: EtcdClient, count: int) -> None:
    """Grant so many leases with a key each, let all expire at once, and begin anew."""

    def grant(number: int) -> None:
        granted = client.lease_grant(max(2, round(until - time.monotonic()))).response
        if granted is not None:
            client.put(b"expires/%05d" % number, b"v", lease=granted.ID)

    pool = Pool(64)
    while True:
        until = time.monotonic() + _EXPIRE_S
        for _ in pool.imap_unordered(grant, range(count)):
            pass
        gevent.sleep(max(0.0, until - time.monotonic()))


SCRIPTS: dict[str, Callable[..., None]] = {
    each.__name__: each
    for each in (
        fill, fill_to, history, compaction, watchers, hot, lagging, move, defragment, keep_alive, large_puts, snapshots,
        connections, deletes, logins, compact_often, move_once, hashes, expiring,
    )
}  # fmt: skip


def main() -> None:
    """Run a script at some endpoints."""
    name, endpoints, *numbers = sys.argv[1:]
    client = _client(endpoints.split(","))
    try:
        SCRIPTS[name](client, *map(int, numbers))
    finally:
        client.close()


if __name__ == "__main__":
    main()
