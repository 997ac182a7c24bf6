"""Watches of real clusters: what etcd promises of them reaches whoever watches, through losses too."""

from __future__ import annotations

from collections.abc import Callable

import gevent

from cluster.local.cluster import LocalCluster
from loadgen.client.connect_errors import CLOSED_HERE, LOST
from loadgen.client.etcd import EtcdClient
from loadgen.client.kv import bytes_prefix_end, delete_op, put_op
from loadgen.client.transport import NarrowTransport
from loadgen.client.watch import COMPACTED, NODELETE, NOPUT, Watch, WatchAnswer
from loadgen.history.operation import Outcome
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto import kv_pb2
from tests.support.waiting import HANG_S, until

ClusterFactory = Callable[..., LocalCluster]
MEBI = 1 << 20


def put(client: EtcdClient, key: bytes, value: bytes = b"v") -> int:
    done = client.put(key, value)
    assert done.outcome == Outcome.OK, done
    return done.revision


def events(watch: Watch, count: int, timeout_s: float = HANG_S) -> list[kv_pb2.Event]:
    """Return the next so many events of a watch."""
    got: list[kv_pb2.Event] = []
    with gevent.Timeout(timeout_s):
        while len(got) < count:
            answer = watch.next()
            assert answer is not None, watch.error
            got += answer.response.events
    return got


def created(watch: Watch) -> Watch:
    assert watch.wait_created(HANG_S), (watch.error, watch.interruptions)
    return watch


def member_of(cluster: LocalCluster, endpoint: str) -> str:
    return next(each.name for each in cluster.members if each.client_url == endpoint)


def in_thread(function: Callable[..., object], *args: object) -> None:
    """Cluster control blocks; in the hub's thread pool the greenlets run on meanwhile."""
    gevent.get_hub().threadpool.apply(function, args)


def test_events_in_order_with_stamps(client: EtcdClient, etcd_cluster: LocalCluster) -> None:
    prefix = b"watch/order/"
    watch = created(client.watch(prefix, bytes_prefix_end(prefix)))
    assert watch.created_revision > 0
    done = [client.put(prefix + b"%d" % n, b"%d" % n) for n in range(20)]
    got: list[tuple[bytes, int, WatchAnswer]] = []
    with gevent.Timeout(HANG_S):
        while len(got) < 20:
            answer = watch.next()
            assert answer is not None
            got += [(event.kv.key, event.kv.mod_revision, answer) for event in answer.response.events]
    assert [(key, revision) for key, revision, _ in got] == [(each.key, each.revision) for each in done]
    for each, (_, _, answer) in zip(done, got, strict=True):
        assert answer.read_ns > each.call_ns
        assert answer.endpoint in etcd_cluster.endpoints
        (raw,) = answer.raw
        assert pb.WatchResponse.FromString(raw) == answer.response
    watch.cancel()
    assert (watch.error, watch.next()) == ("cancelled", None)


def test_from_a_revision_with_previous_values_and_filters(client: EtcdClient) -> None:
    key = b"watch/past"
    first = put(client, key, b"1")
    second = put(client, key, b"2")
    third = client.delete(key).revision
    everything = events(client.watch(key, start_revision=first, prev_kv=True), 3)
    assert [(each.type, each.kv.mod_revision, each.prev_kv.value) for each in everything] == [
        (kv_pb2.Event.PUT, first, b""), (kv_pb2.Event.PUT, second, b"1"), (kv_pb2.Event.DELETE, third, b"2"),
    ]  # fmt: skip
    puts, deletes = (client.watch(key, start_revision=first, filters=[each]) for each in (NODELETE, NOPUT))
    assert [each.kv.mod_revision for each in events(puts, 2)] == [first, second]
    assert [each.kv.mod_revision for each in events(deletes, 1)] == [third]


def test_a_narrow_stream_that_is_not_read_holds_the_member_back(client: EtcdClient) -> None:
    key, puts = b"watch/narrow", 60
    narrow = EtcdClient(client.endpoints, make_streams=NarrowTransport)
    try:
        unread, read = created(narrow.watch(key)), created(client.watch(key))
        for _ in range(puts):
            put(client, key, b"v" * 8192)
        events(read, puts)
        assert len(unread.inbox.items) <= 8
        assert len(events(unread, puts)) == puts
    finally:
        narrow.close()


def test_one_transaction_is_one_answer(client: EtcdClient) -> None:
    prefix = b"watch/txn/"
    put(client, prefix + b"a")
    watch = created(client.watch(prefix, bytes_prefix_end(prefix)))
    client.txn([], [put_op(prefix + b"b", b""), put_op(prefix + b"c", b""), delete_op(prefix + b"a")])
    answer = watch.next(HANG_S)
    assert answer is not None
    assert {each.kv.mod_revision for each in answer.response.events} == {answer.response.header.revision}
    assert len(answer.response.events) == 3


def test_many_watches_on_one_stream(client: EtcdClient, etcd_cluster: LocalCluster) -> None:
    watcher = client.at(etcd_cluster.endpoints[0]).watcher()
    watches = [watcher.watch(b"watch/many/%d" % n, watch_id=1000 + n if n % 2 else 0) for n in range(40)]
    for each in watches:
        created(each)
    assert len({each.id for each in watches}) == 40
    assert [each.id for each in watches[1::2]] == [1000 + n for n in range(1, 40, 2)]
    twice = watcher.watch(b"watch/many/0", watch_id=1001)
    assert not twice.wait_created(HANG_S)
    assert (twice.error, twice.next()) == ("refused", None)
    assert "duplicate" in twice.reason
    revisions = [put(client, b"watch/many/%d" % n) for n in range(40)]
    for each in watches[:20]:
        assert [event.kv.mod_revision for event in events(each, 1)] == [revisions[watches.index(each)]]
    for each in watches[10:]:
        each.cancel()
    put(client, b"watch/many/5")
    put(client, b"watch/many/15")
    assert len(events(watches[5], 1)) == 1
    assert watches[15].next() is None
    assert watcher.streams == 1
    # The last one takes the stream along; the next opens another.
    for each in watches:
        each.cancel()
    put(client, b"watch/many/0")
    created(watcher.watch(b"watch/many/0"))
    assert watcher.streams == 2
    watcher.close()


def test_progress(client: EtcdClient) -> None:
    watcher = client.watcher()
    watch = created(watcher.watch(b"watch/progress"))
    other = put(client, b"watch/elsewhere")
    reached = 0
    with gevent.Timeout(HANG_S):
        while reached < other:
            assert watcher.request_progress()
            answer = watch.next(1.0)
            if answer is not None:
                assert not answer.response.events
                reached = answer.response.header.revision
    assert watch.next_revision == reached + 1
    watcher.close()
    assert not watcher.request_progress()


def test_compaction(etcd_single: LocalCluster) -> None:
    client = EtcdClient(etcd_single.endpoints)
    revisions = [put(client, b"k") for _ in range(5)]
    assert client.compact(revisions[3]).outcome == Outcome.OK
    watch = client.watch(b"k", start_revision=revisions[0])
    with gevent.Timeout(HANG_S):
        answers = list(watch)
    assert answers[-1].response.canceled
    assert (watch.error, watch.compact_revision) == (COMPACTED, revisions[3])
    assert [each.kv.mod_revision for each in events(client.watch(b"k", start_revision=revisions[3]), 2)] == revisions[
        3:
    ]
    client.close()


def test_fragments_are_put_together(etcd_single: LocalCluster) -> None:
    """One revision of 6 MiB: more than the server's limit for one answer (--max-request-bytes and some)."""
    client = EtcdClient(etcd_single.endpoints)
    first = put(client, b"k/first")
    for n in range(6):
        put(client, b"k/%d" % n, bytes((n,)) * MEBI)
    pieces = 0
    watch = client.watch(b"k/", b"k0", start_revision=first, fragment=True)
    got: list[kv_pb2.Event] = []
    with gevent.Timeout(HANG_S):
        while len(got) < 7:
            answer = watch.next()
            assert answer is not None
            pieces = max(pieces, len(answer.raw))
            assert not answer.response.fragment
            got += answer.response.events
    assert [each.kv.mod_revision for each in got] == list(range(first, first + 7))
    assert [each.kv.value[:1] for each in got[1:]] == [bytes((n,)) for n in range(6)]
    assert pieces > 1
    client.close()


def test_goes_on_after_the_member_is_lost(make_cluster: ClusterFactory, fixed_etcd: str) -> None:
    """Writers never stop; the watched member is killed twice; every event comes once, in order."""
    cluster = make_cluster(3, binary=fixed_etcd)
    watched = cluster.endpoints[0]
    client = EtcdClient([each for each in cluster.endpoints if each != watched], timeout_s=5)
    anywhere = EtcdClient(cluster.endpoints)
    prefix = b"lost/"
    end = bytes_prefix_end(prefix)
    watches = [
        created(each)
        for each in (
            client.at(watched).watch(prefix, end, progress_notify=True),
            anywhere.watch(prefix, end),
            client.at(watched).watch(prefix, end, prev_kv=True),
        )
    ]
    stop: list[bool] = []
    written: list[int] = []

    def write() -> None:
        n = 0
        while not stop:
            done = client.put(prefix + b"%d" % (n % 7), b"%d" % n)
            n += 1
            if done.outcome == Outcome.OK:
                written.append(done.revision)

    writer = gevent.spawn(write)
    name = member_of(cluster, watched)
    for _ in range(2):
        more = len(written) + 50
        until(lambda more=more: len(written) >= more, "writes", sleep=gevent.sleep)  # type: ignore[misc]
        in_thread(cluster.kill, name)
        gevent.sleep(0.2)
        in_thread(cluster.start, name)
    stop.append(True)
    writer.join()
    final = put(client, prefix + b"final", b"")
    in_thread(cluster.wait_healthy, HANG_S)
    there = client.at(watched).get(prefix + b"final").response.kvs[0].mod_revision
    assert there == final, "the killed member has another history"
    for watch in watches:
        revisions: list[int] = []
        with gevent.Timeout(HANG_S):
            while not revisions or revisions[-1] < final:
                answer = watch.next()
                assert answer is not None
                revisions += [each.kv.mod_revision for each in answer.response.events]
        assert revisions == sorted(set(revisions))
        # An unacknowledged write may show; an acknowledged one must.
        assert set(written) <= set(revisions)
        assert watch.error is None
    assert {cause for _, cause in watches[0].interruptions} >= {LOST}
    assert len(watches[0].interruptions) >= 2
    client.close()
    anywhere.close()
    assert [each.error for each in watches] == [CLOSED_HERE] * 3
    late = client.watch(b"k")
    assert not late.wait_created(HANG_S)
    assert late.error == CLOSED_HERE


def test_a_killed_greenlet_gives_its_watch_up(client: EtcdClient) -> None:
    watcher = client.watcher()
    kept, given_up = created(watcher.watch(b"watch/killed")), created(watcher.watch(b"watch/killed"))
    waiting = gevent.spawn(given_up.next)
    gevent.sleep(0.02)
    waiting.kill()
    assert given_up.error == "killed"
    put(client, b"watch/killed")
    assert len(events(kept, 1)) == 1
    assert watcher.watches == [kept]
    watcher.close()
