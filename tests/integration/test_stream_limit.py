"""MAX_CONCURRENT_STREAMS: further connections where the streams of one are used up; a wait has an end and a name."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import gevent.socket
import pytest

from cluster.local.cluster import LocalCluster
from cluster.observe.probe import version_key
from loadgen.client.channel import Channel
from loadgen.client.connect_errors import NO_STREAM, ConnectError
from loadgen.client.etcd import EtcdClient
from loadgen.history.operation import Operation, Outcome
from loadgen.stats.precision import bucket_ns
from loadgen.wire import Code, frames
from tests.conftest import ClusterFactory
from tests.support import command
from tests.support.etcds import default_and_others, version_of
from tests.support.http2_server import OPEN, Handler, head, until, whole
from tests.support.missing import require
from tests.support.waiting import HANG_S

Listen = Callable[[Handler], str]
LIMIT = 5
# The first that have --max-concurrent-streams.
KNOWN_SINCE = {(3, 4): (3, 4, 22), (3, 5): (3, 5, 5)}


def knows_limit(etcd: str) -> bool:
    version = version_key(version_of(etcd))
    return version >= KNOWN_SINCE.get(version[:2], version)


@pytest.fixture(scope="module")
def limiting() -> str:
    """Return the newest etcd: the limit is a setting of HTTP/2, which each of them sends in the same way."""
    known = [each for each in default_and_others() if knows_limit(each)]
    if not known:
        require("etcds", "no etcd with --max-concurrent-streams, which 3.4.22 and 3.5.5 have: `.ci/etcds` builds one")
    return known[-1]


@pytest.fixture(scope="module")
def narrow(limiting: str) -> Iterator[LocalCluster]:
    """Three members that allow five streams on a connection."""
    with LocalCluster(3, binary=limiting, extra_args=[f"--max-concurrent-streams={LIMIT}"]) as cluster:
        yield cluster


def ask(client: EtcdClient, users: int, each: int) -> list[Operation]:
    """Have so many users read so often, all at the same time."""
    done: list[Operation] = []

    def user() -> None:
        done.extend(client.get(b"limit/key") for _ in range(each))

    gevent.joinall([gevent.spawn(user) for _ in range(users)], raise_error=True)
    return done


@pytest.mark.parametrize("members", [1, 3])
def test_calls_get_further_connections(narrow: LocalCluster, members: int) -> None:
    client = EtcdClient(narrow.endpoints[:members])
    done = ask(client, 30, 20)
    assert {(each.outcome, each.error) for each in done} == {(Outcome.OK, None)}
    assert len(done) == 600
    # 30 streams: 6 connections of 5, at least where all users call at once; and never more than one for each call.
    assert members < client.channel.connected <= 30
    waited = sum(client.channel.stream_waits.values())
    assert 0 < waited < len(done), "those who called before the further connections were there"
    assert client.channel.stream_limit == LIMIT
    client.close()


def test_further_connections_are_called_while_the_first_are_full(narrow: LocalCluster) -> None:
    """So a load that fits on the first ones meets etcd as it would without a limit."""
    client = EtcdClient(narrow.endpoints)
    client.channel.reserve(30, HANG_S)

    def calls() -> dict[bool, int]:
        """Return how many streams there have been on first and on further connections."""
        found = {True: 0, False: 0}
        for each in client.channel._live:
            found[each in client.channel._spares] += each._connection._sender.next_id // 2
        return found

    ask(client, 30, 10)
    before = calls()
    assert min(before.values()) > 0
    ask(client, LIMIT, 20)
    assert calls() == {True: before[True], False: before[False] + LIMIT * 20}
    client.close()


def test_no_call_waits_where_there_are_streams_for_all(narrow: LocalCluster) -> None:
    client = EtcdClient(narrow.endpoints)
    client.channel.reserve(30, HANG_S)
    done = ask(client, 30, 20)
    assert {(each.outcome, each.error) for each in done} == {(Outcome.OK, None)}
    assert client.channel.connected * LIMIT >= 30
    assert client.channel.stream_waits == {}
    client.close()


def test_each_stream_call_finds_a_connection(narrow: LocalCluster) -> None:
    """12 watches and 12 keepalive streams, each over a stream of its own, of one endpoint: 5 connections."""
    client = EtcdClient(narrow.endpoints[:1])
    watches = [client.watcher().watch(b"limit/watched") for _ in range(12)]
    assert all(watch.wait_created(HANG_S) for watch in watches), [watch.interruptions for watch in watches]
    lease = client.lease_grant(60).response.ID
    renewals = [gevent.spawn(client.lease_keeper().renew, lease) for _ in range(12)]
    assert [each.get(timeout=HANG_S).error for each in renewals] == [None] * 12
    assert client.streams().connected == 5
    put = client.put(b"limit/watched", b"v")
    for watch in watches:
        answer = watch.next(HANG_S)
        assert answer is not None
        assert [event.kv.mod_revision for event in answer.response.events] == [put.revision]
    client.close()


def test_a_leaders_connections_are_widened_alone(narrow: LocalCluster) -> None:
    client = EtcdClient(narrow.endpoints, balance="leader")
    done = ask(client, 20, 10)
    assert {(each.outcome, each.error) for each in done} == {(Outcome.OK, None)}
    assert len({each.endpoint for each in done}) == 1
    assert 3 < client.channel.connected <= 2 + 20
    client.close()


def test_without_a_limit_one_connection_does(etcd_single: LocalCluster) -> None:
    client = EtcdClient(etcd_single.endpoints)
    client.channel.reserve(500, HANG_S)
    assert (client.channel.stream_limit, client.channel.connected) == (None, 1)
    ask(client, 100, 5)
    assert (client.channel.connected, client.channel.stream_waits) == (1, {})
    client.close()


# A server that serves one connection, of one stream, and hangs up on any other


class Narrow:
    """Takes what comes on its one connection, and answers a stream when it is told to."""

    def __init__(self, *, limited: bool = True) -> None:
        self.limited = limited
        self.connections = 0
        self.client: gevent.socket.socket | None = None

    def __call__(self, client: gevent.socket.socket, _: object) -> None:
        self.connections += 1
        if self.client is not None:
            client.close()
            return
        self.client = client
        client.sendall(frames.settings({frames.MAX_CONCURRENT_STREAMS: 1} if self.limited else {}))
        while client.recv(65_536):
            pass

    def say(self, data: bytes) -> None:
        assert self.client is not None
        self.client.sendall(data)


def call(channel: Channel, timeout_s: float = HANG_S) -> gevent.Greenlet:
    return gevent.spawn(channel.call, b"/x", b"", int(timeout_s * 1e9), time.perf_counter_ns())


def test_a_call_waits_for_a_stream_against_its_deadline(listen: Listen) -> None:
    server = Narrow()
    client = EtcdClient([listen(server)], timeout_s=1.0)
    # It keeps the stream for longer: one that ended a moment before the others would leave it to them.
    first = call(client.channel, 2.0)
    until(lambda: client.channel.in_flight == 1 and client.channel.stream_limit == 1)
    gone = [gevent.spawn(client.put, b"k", b"v") for _ in range(2)]
    ends = [each.get(timeout=HANG_S) for each in gone]
    # They were never sent, and say for what they waited; the first was.
    assert [(each.outcome, each.error) for each in ends] == [(Outcome.FAIL, NO_STREAM)] * 2
    assert first.get(timeout=HANG_S).code == Code.DEADLINE_EXCEEDED
    assert all(each.latency_ns >= 0.99e9 for each in ends)
    assert sum(client.channel.stream_waits.values()) == 2
    assert min(client.channel.stream_waits) > 0.9e9
    client.close()


def test_a_wait_for_a_stream_is_measured(listen: Listen) -> None:
    server = Narrow()
    channel = Channel([listen(server)])
    first = call(channel)
    until(lambda: channel.in_flight == 1 and channel.stream_limit == 1)
    (connection,) = channel._live
    before_ns = time.perf_counter_ns()
    second = call(channel)
    until(lambda: connection.waiting == 1)
    waits_ns = time.perf_counter_ns()
    gevent.sleep(0.2)
    server.say(whole(1))
    assert first.get(timeout=HANG_S).code == Code.OK
    until(lambda: connection.waiting == 0)
    has_it_ns = time.perf_counter_ns()
    gevent.sleep(0.2)
    server.say(whole(3))
    answered = second.get(timeout=HANG_S)
    assert (answered.code, answered.id) == (Code.OK, 3)
    ((waited_ns, count),) = channel.stream_waits.items()
    assert count == 1
    # From its call until the first one's end, and not until its own answer.
    assert bucket_ns(first.value.ended_ns - waits_ns) <= waited_ns <= bucket_ns(has_it_ns - before_ns)
    channel.close()


def test_only_waits_of_calls_from_a_moment_on_are_counted(listen: Listen) -> None:
    """One that began before it may end after it, as an operation of the warm-up."""
    server = Narrow()
    channel = Channel([listen(server)])
    with contextlib.closing(channel):
        first, second = call(channel), call(channel)
        until(lambda: channel._live and channel._live[0].waiting == 1)
        channel.forget_waits()
        third = call(channel)
        until(lambda: channel._live[0].waiting == 2)
        for stream_id, each in ((1, first), (3, second), (5, third)):
            server.say(whole(stream_id))
            assert each.get(timeout=HANG_S).code == Code.OK
        assert list(channel.stream_waits.values()) == [1]


def test_a_limit_that_is_told_later_is_told(listen: Listen) -> None:
    server = Narrow(limited=False)
    channel = Channel([listen(server)])
    with contextlib.closing(channel):
        first = call(channel)
        until(lambda: channel._live)
        assert channel.stream_limit is None
        server.say(frames.settings({frames.MAX_CONCURRENT_STREAMS: 1}))
        until(lambda: channel._live[0].limit == 1)
        second = call(channel)
        until(lambda: channel._live[0].waiting == 1)
        for stream_id, each in ((1, first), (3, second)):
            server.say(whole(stream_id))
            assert each.get(timeout=HANG_S).code == Code.OK
        assert (channel.stream_limit, sum(channel.stream_waits.values())) == (1, 1)


# A warm-up with more calls at a time than there are streams, and a measurement with fewer. It begins with a user's
# first operation after the warm-up's time, so no user goes on to that before all of them have made their calls.
WAITING = """
import gevent

import locustfiles.put

warmed = []

class WarmingUser(locustfiles.put.PutUser):
    def on_start(self):
        super().on_start()
        assert self.load.warming_up
        calls = [gevent.spawn(self.client.get, b"limit/key") for _ in range(40)]
        gevent.joinall(calls, raise_error=True)
        assert self.client.channel.stream_waits
        warmed.append(self)
        while len(warmed) < 2:
            gevent.sleep(0.01)
"""


def test_waits_of_the_warm_up_are_not_those_of_the_measurement(
    make_cluster: ClusterFactory, limiting: str, tmp_path: Path
) -> None:
    cluster = make_cluster(1, binary=limiting, storage="memory", extra_args=(f"--max-concurrent-streams={LIMIT}",))
    done = command.bench_with(
        WAITING, "--warmup", "1s", "--operations", "100", "--workers", "1", "--concurrency", "2", "--json",
        "--endpoints", cluster.endpoints[0], cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["results"]["total"]["succeeded"] == 100
    assert [note for note in result["notes"] if "waited" in note] == []


def test_a_streaming_call_says_that_there_is_no_stream(listen: Listen) -> None:
    server = Narrow()
    endpoint = listen(server)
    channel = Channel([endpoint])
    first = channel.open(b"/x", HANG_S)
    began = time.monotonic()
    with pytest.raises(ConnectError) as refused:
        channel.open(b"/x", 0.5)
    assert time.monotonic() - began >= 0.5
    assert refused.value.cause == NO_STREAM
    assert "--max-concurrent-streams" in str(refused.value)
    # One that waits gets the stream of the one that ends.
    waiting = gevent.spawn(channel.open, b"/x", HANG_S)
    until(lambda: channel._openers == 1)
    server.say(head(1, [*OPEN, (b"grpc-status", b"0")], end=True))
    assert waiting.get(timeout=HANG_S).stream.id == 3
    assert first.ended
    channel.close()


def test_failing_connections_are_not_piled_up(listen: Listen) -> None:
    """Further connections that cannot be made are tried again, and are no reason for still more of them."""
    server = Narrow()
    channel = Channel([listen(server)])
    calls = [call(channel, 2.0) for _ in range(10)]
    gevent.joinall(calls, timeout=HANG_S)
    assert len(channel._keepers) <= 10
    assert channel.connects == 1
    channel.close()
