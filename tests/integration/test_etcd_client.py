"""The client against a real etcd: what it asks, what it gets, and what it says when etcd is not well."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable

import gevent

from cluster.local.cluster import LocalCluster
from loadgen.client.connect_errors import LOST, REFUSED, ConnectError
from loadgen.client.etcd import EtcdClient, probe, probe_all
from loadgen.client.kv import bytes_prefix_end, delete_op, get_op, mod_revision_is, put_op, value_is, version_is
from loadgen.history.operation import Outcome
from tests.support.waiting import HANG_S, until

ClusterFactory = Callable[..., LocalCluster]


def test_put_get_delete(client: EtcdClient) -> None:
    put = client.put(b"client/a", b"1", process=3, due_ns=1)
    assert (put.f, put.key, put.value, put.process, put.due_ns) == ("put", b"client/a", b"1", 3, 1)
    assert put.due_ns < put.call_ns < put.return_ns
    assert (put.outcome, put.error) == (Outcome.OK, None)
    got = client.get(b"client/a")
    assert got.due_ns == got.call_ns
    assert [(each.key, each.value, each.mod_revision) for each in got.response.kvs] == [
        (b"client/a", b"1", put.revision)
    ]
    client.put(b"client/a", b"2")
    assert client.get(b"client/a", revision=put.revision).response.kvs[0].value == b"1"
    assert client.delete(b"client/a").response.deleted == 1
    assert client.delete(b"client/a").response.deleted == 0
    assert client.get(b"client/a").response.count == 0
    # A member may lag; it must get there.
    until(lambda: client.get(b"client/a", serializable=True).response.count == 0, "a read", sleep=gevent.sleep)


def test_range(client: EtcdClient) -> None:
    prefix = b"client/range/\xff"
    for n in range(5):
        client.put(prefix + b"%d" % n, b"v%d" % n)
    end = bytes_prefix_end(prefix)
    everything = client.range(prefix, end)
    assert (everything.f, everything.response.count) == ("range", 5)
    assert [each.value for each in everything.response.kvs] == [b"v%d" % n for n in range(5)]
    assert client.range(prefix, end, limit=2).response.more
    assert client.range(prefix, end, count_only=True).response.count == 5
    assert [each.value for each in client.range(prefix, end, keys_only=True, serializable=True).response.kvs] == [
        b""
    ] * 5
    assert client.delete(prefix, end).response.deleted == 5


def test_txn(client: EtcdClient) -> None:
    key = b"client/txn"
    client.delete(key)
    created = client.txn([version_is(key, 0)], [put_op(key, b"1")], [get_op(key)])
    assert (created.f, created.key, created.response.succeeded) == ("txn", key, True)
    failed = client.txn([mod_revision_is(key, 0)], [put_op(key, b"2")], [get_op(key)])
    assert not failed.response.succeeded
    assert failed.response.responses[0].response_range.kvs[0].value == b"1"
    done = client.txn([value_is(key, b"1")], [delete_op(key), put_op(key + b"2", b"")])
    assert done.response.responses[0].response_delete_range.deleted == 1
    assert done.revision == created.revision + 1


def test_cas(client: EtcdClient) -> None:
    key = b"client/cas"
    client.delete(key)
    first = client.cas(key, b"1", 0)
    assert (first.f, first.response.succeeded, first.value) == ("txn", True, b"1")
    second = client.cas(key, b"2", 0)
    assert not second.response.succeeded
    assert second.response.responses[0].response_range.kvs[0].mod_revision == first.revision
    assert client.cas(key, b"3", first.revision).response.succeeded
    assert client.get(key).response.kvs[0].value == b"3"


def test_members(client: EtcdClient, etcd_cluster: LocalCluster) -> None:
    listed = client.member_list()
    assert (listed.outcome, len(listed.response.members)) == (Outcome.OK, 3)
    statuses = [client.status(each) for each in etcd_cluster.endpoints]
    assert {each.response.header.member_id for each in statuses} == {each.ID for each in listed.response.members}
    assert len({each.response.leader for each in statuses}) == 1
    client.put(b"client/hash", b"")
    revision = client.get(b"client/hash").revision
    hashes = [client.hash_kv(each, revision) for each in etcd_cluster.endpoints]
    assert len({each.response.hash for each in hashes if each.outcome == Outcome.OK}) == 1


def test_a_value_that_is_too_large_and_a_past_that_is_gone(client: EtcdClient, etcd_single: LocalCluster) -> None:
    large = client.put(b"client/large", bytes(1_600_000))
    assert (large.outcome, large.error) == (Outcome.FAIL, "RequestTooLarge")
    assert client.get(b"client/large").response.count == 0
    with_history = EtcdClient(etcd_single.endpoints)
    revision = [with_history.put(b"a", b"").revision for _ in range(3)][-1]
    assert with_history.compact(revision).outcome == Outcome.OK
    assert with_history.get(b"a", revision=revision - 1).error == "Compacted"
    with_history.close()


def test_many_large_values_do_not_stall(client: EtcdClient) -> None:
    """200 greenlets with 8 KiB values pass the default window at once; every byte comes back."""
    wrong: list[bytes] = []

    def one(n: int) -> None:
        for step in range(3):
            key = b"client/large/%d" % n
            value = (hashlib.sha256(b"%d %d" % (n, step)).digest() * 256)[: 8_192 - step]
            if client.put(key, value).outcome != Outcome.OK or client.get(key).response.kvs[0].value != value:
                wrong.append(key)

    with gevent.Timeout(60):
        gevent.joinall([gevent.spawn(one, n) for n in range(200)], raise_error=True)
    assert not wrong
    assert client.channel.in_flight_max == 200
    client.delete(b"client/large/", bytes_prefix_end(b"client/large/"))


def test_values_of_a_mebibyte(client: EtcdClient) -> None:
    values = [hashlib.sha256(b"%d" % n).digest() * 32_768 for n in range(8)]

    def one(n: int) -> bytes:
        assert client.put(b"client/mebi/%d" % n, values[n]).outcome == Outcome.OK
        value: bytes = client.get(b"client/mebi/%d" % n).response.kvs[0].value
        return value

    with gevent.Timeout(60):
        got = gevent.joinall([gevent.spawn(one, n) for n in range(8)], raise_error=True)
    assert sorted(each.value for each in got) == sorted(values)
    prefix = b"client/mebi/"
    everything = client.range(prefix, bytes_prefix_end(prefix))
    assert [each.value for each in everything.response.kvs] == values
    client.delete(prefix, bytes_prefix_end(prefix))


def test_several_connections_to_several_endpoints(etcd_cluster: LocalCluster) -> None:
    client = EtcdClient(etcd_cluster.endpoints, connections=2)
    gevent.joinall([gevent.spawn(client.get, b"client/a") for _ in range(50)])
    until(lambda: client.channel.connects == 6, "all connections", sleep=gevent.sleep)
    members = {client.get(b"client/a").response.header.member_id for _ in range(12)}
    assert len(members) == 3
    assert client.channel.connects == 6
    client.close()


def test_many_users_with_large_values_read_what_they_wrote(etcd_single: LocalCluster) -> None:
    """200 users over one connection, 8 KiB each time: nothing stalls, and nobody gets another's bytes."""
    client, rounds = EtcdClient(etcd_single.endpoints, timeout_s=HANG_S), 5

    def user(number: int) -> int:
        rng, key = random.Random(number), b"client/users/%d" % number
        for _ in range(rounds):
            value = rng.randbytes(8192)
            assert client.put(key, value).outcome == Outcome.OK
            assert client.get(key).response.kvs[0].value == value
        return rounds

    users = [gevent.spawn(user, number) for number in range(200)]
    gevent.joinall(users, timeout=HANG_S, raise_error=True)
    assert sum(each.get(block=False) for each in users) == 1000
    assert client.channel.connects == 1
    prefix = b"client/users/"
    assert client.delete(prefix, bytes_prefix_end(prefix)).response.deleted == 200
    client.close()


def test_killed_and_started_again(make_cluster: ClusterFactory, fixed_etcd: str) -> None:
    cluster = make_cluster(1, binary=fixed_etcd)
    name = cluster.members[0].name
    client = EtcdClient(cluster.endpoints, timeout_s=HANG_S)
    stop = []
    seen = []

    def user(n: int) -> None:
        while not stop:
            seen.append(client.put(b"k%d" % n, b"v"))

    def wait_for(count: int) -> None:
        until(lambda: len(seen) >= count, f"{count} operations", sleep=gevent.sleep)

    users = [gevent.spawn(user, n) for n in range(20)]
    wait_for(200)
    killed = time.monotonic()
    cluster.kill(name)
    until(lambda: any(each.error == REFUSED for each in seen), "a refusal", sleep=gevent.sleep)
    down = len(seen)
    # In the hub's thread pool, so that the users run on meanwhile.
    gevent.get_hub().threadpool.apply(cluster.start, (name,))
    until(lambda: seen[-1].outcome == Outcome.OK, "a success", sleep=gevent.sleep)
    down_s = time.monotonic() - killed
    wait_for(down + 100)
    stop.append(True)
    gevent.joinall(users)
    causes = {(each.outcome, each.error) for each in seen if each.outcome != Outcome.OK}
    assert (Outcome.FAIL, REFUSED) in causes
    assert causes <= {
        (Outcome.FAIL, REFUSED),
        (Outcome.INFO, LOST),
        (Outcome.FAIL, LOST),
        (Outcome.INFO, "UNAVAILABLE"),
        (Outcome.FAIL, "connection closed at once"),
    }
    # They wait for the outcome of attempts, which are 25 ms apart at the least; they do not spin.
    assert sum(each.error == REFUSED for each in seen) <= 20 * (down_s / 0.025 + 2)
    acknowledged = sum(each.outcome == Outcome.OK for each in seen)
    unsure = sum(each.outcome == Outcome.INFO for each in seen)
    written = sum(client.get(b"k%d" % n).response.kvs[0].version for n in range(20))
    assert acknowledged <= written <= acknowledged + unsure
    client.close()


def test_probe(etcd_cluster: LocalCluster) -> None:
    info = probe(etcd_cluster.endpoints[0], HANG_S)
    assert info.version.startswith("3.")
    assert info.leader
    answers = probe_all([*etcd_cluster.endpoints, "127.0.0.1:1"], HANG_S)
    assert len({each.cluster_id for each in answers.values() if not isinstance(each, ConnectError)}) == 1
    refused = answers["127.0.0.1:1"]
    assert isinstance(refused, ConnectError)
    assert refused.cause == REFUSED


def test_a_member_that_hangs_does_not_keep_all_users(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(3)
    leader = cluster.leader(HANG_S)
    hangs = next(member.name for member in cluster.members if member != leader)
    client = EtcdClient(cluster.endpoints, timeout_s=0.5)
    client.get(b"k")
    # One that hangs before it is connected to is never called.
    until(lambda: client.channel.connects == 3, "all connections", sleep=gevent.sleep)
    cluster.pause(hangs)
    rounds = 6
    seen: list[Outcome] = []

    def user() -> None:
        timeouts = 0
        while timeouts < rounds:
            seen.append(client.get(b"k", serializable=True).outcome)
            timeouts += seen[-1] != Outcome.OK

    # They wait for the hanging member together, and when they give up, together, the next call goes elsewhere.
    with gevent.Timeout(HANG_S):
        gevent.joinall([gevent.spawn(user) for _ in range(4)], raise_error=True)
    cluster.resume(hangs)
    client.close()
    assert seen.count(Outcome.OK) >= 4 * (rounds - 1)
