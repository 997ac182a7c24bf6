"""Every service of the client against a real etcd."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from cluster.local.cluster import LocalCluster
from cluster.observe.probe import version_key
from loadgen.client.auth import READ
from loadgen.client.etcd import EtcdClient
from loadgen.client.kv import bytes_prefix_end, compare, get_op, put_op, txn_op, version_is
from loadgen.client.lease import lease_key
from loadgen.client.maintenance import NOSPACE
from loadgen.history.format import FAIL, Kind, Method
from loadgen.history.operation import Operation, Outcome
from loadgen.history.reader import read
from loadgen.history.writer import HistoryWriter
from loadgen.proto import etcd_pb2 as pb
from tests.support.waiting import HANG_S, until

ClusterFactory = Callable[..., LocalCluster]


@pytest.fixture
def alone(make_cluster: ClusterFactory) -> Iterator[EtcdClient]:
    """Yield a client of a single member that the test may do anything to."""
    made = EtcdClient(make_cluster(1).endpoints)
    yield made
    made.close()


def ok(operation: Operation) -> Operation:
    assert operation.outcome == Outcome.OK, operation
    assert operation.return_ns > operation.call_ns
    return operation


# Which member, and what went over the wire


def test_who_served_it(client: EtcdClient, etcd_cluster: LocalCluster) -> None:
    ids = {each: ok(client.status(each)).response.header.member_id for each in etcd_cluster.endpoints}
    assert len(set(ids.values())) == 3
    for _ in range(6):
        done = ok(client.put(b"api/who", b""))
        assert done.response.header.member_id == ids[done.endpoint]
    for endpoint, member_id in ids.items():
        aimed = client.at(endpoint)
        assert aimed is client.at(endpoint)
        done = ok(aimed.get(b"api/who"))
        assert (done.endpoint, done.response.header.member_id) == (endpoint, member_id)
    nobody = client.at("127.0.0.1:1").put(b"api/who", b"")
    assert (nobody.outcome, nobody.endpoint) == (Outcome.FAIL, "")
    client.close()
    assert client.at(etcd_cluster.endpoints[0]).get(b"api/who").error == "client closed"


def test_all_that_goes_over_streams_is_recorded(etcd_cluster: LocalCluster, tmp_path: Path) -> None:
    writer = HistoryWriter(tmp_path / "a.hist")
    client = EtcdClient(etcd_cluster.endpoints, history=writer)
    lease = ok(client.lease_grant(60)).response.ID
    kept = ok(client.lease_keepalive(lease, process=7))
    watch = client.at(etcd_cluster.endpoints[1]).watch(b"api/recorded")
    assert watch.wait_created(HANG_S)
    ok(client.put(b"api/recorded", b"v"))
    answer = watch.next(HANG_S)
    assert answer is not None
    watch.cancel()
    ok(client.lease_revoke(lease))
    assert client.lease_keepalive(lease).error == "LeaseNotFound"
    waiting = gevent.spawn(client.get, b"api/recorded")
    gevent.sleep(0)
    waiting.kill()
    client.close()
    writer.close()
    history = read(tmp_path)
    rows = {kind: (history.rows["kind"] == kind).nonzero()[0].tolist() for kind in Kind}
    renewals = [row for row in rows[Kind.OPERATION] if history.rows["method"][row] == Method.LEASE_KEEP_ALIVE]
    kept_row, gone_row = renewals
    assert pb.LeaseKeepAliveResponse.FromString(history.response(kept_row)) == kept.response
    assert (int(history.rows["process"][kept_row]), history.endpoint(kept_row)) == (7, kept.endpoint)
    assert (int(history.rows["outcome"][gone_row]), history.response(gone_row)) == (
        FAIL, b"etcdserver: requested lease not found",
    )  # fmt: skip
    assert history.response(rows[Kind.OPERATION][-1]) == b"killed"
    (create,) = rows[Kind.WATCH_SENT]
    assert pb.WatchRequest.FromString(history.request(create)).create_request == watch.request
    created, event = rows[Kind.WATCH_RECEIVED]
    assert pb.WatchResponse.FromString(history.response(created)).created
    assert (history.response(event), int(history.rows["call_ns"][event])) == (answer.raw[0], answer.read_ns)
    assert history.endpoint(event) == answer.endpoint == etcd_cluster.endpoints[1]
    (ended,) = rows[Kind.WATCH_ENDED]
    assert history.response(ended) == b"cancelled"


# Keys and values


def test_options_of_put_and_delete(client: EtcdClient) -> None:
    key = b"api/put"
    client.delete(key)
    lease = ok(client.lease_grant(60)).response.ID
    assert not ok(client.put(key, b"1", lease=lease, prev_kv=True)).response.HasField("prev_kv")
    assert ok(client.put(key, b"2", ignore_lease=True, prev_kv=True)).response.prev_kv.value == b"1"
    assert ok(client.get(key)).response.kvs[0].lease == lease
    ok(client.put(key, b"", ignore_value=True))
    (kv,) = ok(client.get(key)).response.kvs
    assert (kv.value, kv.lease, kv.version) == (b"2", 0, 3)
    assert client.put(b"api/none", b"", ignore_value=True).error == "KeyNotFound"
    assert [each.value for each in ok(client.delete(key, prev_kv=True)).response.prev_kvs] == [b"2"]
    ok(client.lease_revoke(lease))


def test_options_of_range(client: EtcdClient) -> None:
    prefix = b"api/range/"
    end = bytes_prefix_end(prefix)
    client.delete(prefix, end)
    revisions = [
        ok(client.put(prefix + key, value)).revision for key, value in ((b"b", b"1"), (b"a", b"3"), (b"c", b"2"))
    ]
    ok(client.put(prefix + b"b", b"1"))

    def keys(**options: object) -> list[bytes]:
        found = ok(client.range(prefix, end, **options))  # type: ignore[arg-type]
        return [each.key.removeprefix(prefix) for each in found.response.kvs]

    request = pb.RangeRequest
    assert keys() == [b"a", b"b", b"c"]
    assert keys(sort_order=request.DESCEND) == [b"c", b"b", b"a"]
    assert keys(sort_order=request.ASCEND, sort_target=request.VALUE) == [b"b", b"c", b"a"]
    assert keys(sort_order=request.DESCEND, sort_target=request.VERSION, limit=1) == [b"b"]
    assert keys(sort_order=request.ASCEND, sort_target=request.CREATE) == [b"b", b"a", b"c"]
    assert keys(sort_order=request.ASCEND, sort_target=request.MOD) == [b"a", b"c", b"b"]
    assert keys(min_mod_revision=revisions[1], max_mod_revision=revisions[2]) == [b"a", b"c"]
    assert keys(min_create_revision=revisions[1]) == [b"a", b"c"]
    assert keys(max_create_revision=revisions[0]) == [b"b"]
    assert keys(revision=revisions[0]) == [b"b"]
    # Pages: what the rest of the prefix holds, as of the first page.
    page = ok(client.range(prefix, end, limit=2))
    assert (page.response.more, page.response.count) == (True, 3)
    ok(client.put(prefix + b"d", b""))
    rest = ok(client.range(page.response.kvs[-1].key + b"\0", end, limit=2, revision=page.revision))
    assert [each.key for each in rest.response.kvs] == [prefix + b"c"]
    assert not rest.response.more


def test_transactions_in_transactions(client: EtcdClient) -> None:
    prefix = b"api/txn/"
    end = bytes_prefix_end(prefix)
    client.delete(prefix, end)
    lease = ok(client.lease_grant(60)).response.ID
    inner = txn_op([version_is(prefix + b"a", 0)], [put_op(prefix + b"a", b"1", lease=lease)], [get_op(prefix + b"a")])
    first = ok(client.txn([], [inner, put_op(prefix + b"b", b"5")]))
    assert first.response.responses[0].response_txn.succeeded
    second = ok(client.txn([], [inner])).response.responses[0].response_txn
    assert (second.succeeded, second.responses[0].response_range.kvs[0].value) == (False, b"1")
    a, b = prefix + b"a", prefix + b"b"
    for holds in (
        compare(b, "value", ">", b"4"),
        compare(a, "value", "!=", b"2"),
        compare(a, "version", "=", 1),
        compare(a, "lease", "=", lease),
        compare(b, "mod", "<", first.revision + 1),
        compare(a, "create", "=", first.revision),
        compare(prefix, "create", "=", first.revision, end),
    ):
        assert ok(client.txn([holds], [])).response.succeeded, holds
    for fails in (
        compare(b, "value", "<", b"4"),
        compare(a, "version", ">", 1),
        compare(b, "lease", "=", lease),
        compare(prefix, "value", "=", b"1", end),
    ):
        assert not ok(client.txn([fails], [])).response.succeeded, fails
    ok(client.lease_revoke(lease))
    client.delete(prefix, end)


# Leases


def test_leases(client: EtcdClient, etcd_cluster: LocalCluster) -> None:
    granted = ok(client.lease_grant(30))
    lease = granted.response.ID
    assert (granted.f, granted.response.TTL) == ("lease_grant", 30)
    assert ok(client.lease_grant(30, 777)).response.ID == 777
    assert client.lease_grant(30, 777).error == "LeaseExist"
    ok(client.put(b"api/leased", b"", lease=lease))
    left = ok(client.lease_time_to_live(lease, keys=True)).response
    assert (left.grantedTTL, list(left.keys), 0 < left.TTL <= 30) == (30, [b"api/leased"], True)
    assert {lease, 777} <= {each.ID for each in ok(client.lease_list()).response.leases}
    kept = ok(client.lease_keepalive(lease, process=4))
    assert (kept.f, kept.key, kept.process, kept.response.TTL) == ("lease_keepalive", lease_key(lease), 4, 30)
    assert kept.endpoint in etcd_cluster.endpoints
    for each in (lease, 777):
        ok(client.lease_revoke(each))
    assert client.lease_revoke(lease).error == "LeaseNotFound"
    assert ok(client.lease_time_to_live(lease)).response.TTL == -1
    gone = client.lease_keepalive(lease)
    assert (gone.outcome, gone.error) == (Outcome.FAIL, "LeaseNotFound")
    assert ok(client.get(b"api/leased")).response.count == 0


def test_keepalives_of_many_on_one_stream(client: EtcdClient) -> None:
    keeper = client.lease_keeper()
    leases = [ok(client.lease_grant(60)).response.ID for _ in range(20)]
    renewals = [gevent.spawn(keeper.renew, each) for each in leases for _ in range(3)]
    assert all(ok(each.get(timeout=HANG_S)).response.TTL == 60 for each in renewals)
    assert [each.value.key for each in renewals[::3]] == [lease_key(each) for each in leases]
    assert keeper.streams == 1
    keeper.close()
    ok(keeper.renew(leases[0]))  # it opens another
    assert keeper.streams == 2
    for each in leases:
        client.lease_revoke(each)


def test_a_lease_is_kept_until_it_is_gone(client: EtcdClient) -> None:
    # It is renewed every third of it, and there remain 4 s for a machine on which a renewal comes late.
    ttl = ok(client.lease_grant(6)).response.TTL
    kept, left = (ok(client.lease_grant(ttl)).response.ID for _ in range(2))
    keeper = client.lease_keeper()
    keeping = keeper.keep(kept, ttl)
    with gevent.Timeout(HANG_S):
        while ok(client.lease_time_to_live(left)).response.TTL >= 0:
            gevent.sleep(0.1)
    assert ok(client.lease_time_to_live(kept)).response.TTL >= 0
    ok(client.lease_revoke(kept))
    assert keeping.get(timeout=HANG_S).error == "LeaseNotFound"


def test_keepalive_through_a_loss(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(1)
    name = cluster.members[0].name
    with contextlib.closing(EtcdClient(cluster.endpoints, timeout_s=HANG_S)) as patient:
        lease = ok(patient.lease_grant(120)).response.ID
    client = EtcdClient(cluster.endpoints, timeout_s=1.0)
    until(lambda: client.lease_keepalive(lease).outcome == Outcome.OK, "a renewal", sleep=gevent.sleep)
    cluster.pause(name)
    late = client.lease_keepalive(lease)
    assert (late.outcome, late.error) == (Outcome.INFO, "DEADLINE_EXCEEDED")
    cluster.resume(name)
    # The answer that came too late is not taken for the next one's.
    with gevent.Timeout(HANG_S):
        while client.lease_keepalive(lease).outcome != Outcome.OK:
            pass
    waiting = gevent.spawn(client.lease_keepalive, lease)
    gevent.sleep(0)
    waiting.kill()
    cluster.kill(name)
    gone = client.lease_keepalive(lease)
    assert (gone.outcome, gone.response) in ((Outcome.INFO, None), (Outcome.FAIL, None))
    gevent.get_hub().threadpool.apply(cluster.start, (name,))
    with gevent.Timeout(HANG_S):
        while client.lease_keepalive(lease).outcome != Outcome.OK:
            gevent.sleep(0.05)
    client.close()


# Members and maintenance


def test_members(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(3)
    client = EtcdClient(cluster.endpoints)
    before = {each.ID for each in ok(client.member_list()).response.members}
    with gevent.Timeout(HANG_S):
        # Refused as "unhealthy" until the members have known each other for 5 s.
        while (added := client.member_add(["http://127.0.0.1:1"], learner=True)).error == "Unhealthy":
            gevent.sleep(0.2)
    ok(added)
    assert (added.f, added.response.member.isLearner, len(added.response.members)) == ("member_add", True, 4)
    learner = added.response.member.ID
    assert client.member_promote(learner).error == "LearnerNotReady"
    moved = ok(client.member_update(learner, ["http://127.0.0.1:2"])).response.members
    assert next(each.peerURLs for each in moved if learner == each.ID) == ["http://127.0.0.1:2"]
    assert {each.ID for each in ok(client.member_remove(learner)).response.members} == before
    assert client.member_remove(learner).error == "MemberNotFound"

    status = ok(client.status(cluster.endpoints[0])).response
    by_id = {ok(client.status(each)).response.header.member_id: each for each in cluster.endpoints}
    target = next(each for each in by_id if each != status.leader)
    refused = client.move_leader(by_id[target], target)
    assert (refused.outcome, refused.error) == (Outcome.FAIL, "NotLeader")
    assert ok(client.move_leader(by_id[status.leader], target)).f == "move_leader"
    with gevent.Timeout(HANG_S):
        while ok(client.status(by_id[target])).response.leader != target:
            gevent.sleep(0.02)
    client.close()


def test_maintenance(alone: EtcdClient) -> None:
    endpoint = alone.endpoints[0]
    for n in range(40):
        last = ok(alone.put(b"k%d" % (n % 20), bytes((n,)) * 50_000)).revision
    hashed = ok(alone.hash_kv(endpoint, last)).response.hash
    blob = bytearray()
    taken = ok(alone.snapshot(blob.extend))
    assert (taken.f, taken.response.remaining_bytes, len(blob) > 2_000_000) == ("snapshot", 0, True)
    assert hashlib.sha256(blob[:-32]).digest() == blob[-32:]
    ok(alone.compact(last, physical=True))
    size = ok(alone.status()).response.dbSize
    ok(alone.defragment(endpoint))
    assert ok(alone.status(endpoint)).response.dbSize < size
    ok(alone.put(b"k0", b""))
    assert ok(alone.hash_kv()).response.hash != hashed

    member_id = ok(alone.status()).response.header.member_id
    assert not ok(alone.alarm_list()).response.alarms
    ok(alone.alarm_activate(member_id, NOSPACE))
    assert [(each.memberID, each.alarm) for each in ok(alone.alarm_list()).response.alarms] == [(member_id, NOSPACE)]
    full = alone.put(b"k", b"v")
    assert (full.outcome, full.error) == (Outcome.INFO, "NoSpace")
    ok(alone.alarm_deactivate(member_id, NOSPACE))
    ok(alone.put(b"k", b"v"))


def test_a_snapshot_that_fails(alone: EtcdClient) -> None:
    def full(_: bytes) -> None:
        raise OSError("disk full")

    ok(alone.put(b"k", b"v"))
    with pytest.raises(OSError, match="disk full"):
        alone.snapshot(full)
    refused = alone.snapshot(full, "127.0.0.1:1")
    assert (refused.outcome, refused.error) == (Outcome.FAIL, "connection refused")


def test_auth(alone: EtcdClient) -> None:
    status = alone.auth_status()
    if version_key(ok(alone.status()).response.version) < (3, 5):  # it came with 3.5
        assert (status.outcome, status.error) == (Outcome.FAIL, "UNIMPLEMENTED")
    else:
        assert not ok(status).response.enabled
    assert alone.auth_enable().error == "RootUserNotExist"  # no user root
    ok(alone.user_add("root", "secret"))
    ok(alone.role_add("root"))
    ok(alone.user_grant_role("root", "root"))
    ok(alone.user_add("reader", "r"))
    ok(alone.user_add("certified", no_password=True))
    ok(alone.role_add("reading"))
    ok(alone.role_grant_permission("reading", READ, b"a", b"b"))
    ok(alone.user_grant_role("reader", "reading"))
    assert list(ok(alone.user_get("reader")).response.roles) == ["reading"]
    assert list(ok(alone.user_list()).response.users) == ["certified", "reader", "root"]
    assert list(ok(alone.role_list()).response.roles) == ["reading", "root"]
    (permission,) = ok(alone.role_get("reading")).response.perm
    assert (permission.permType, permission.key, permission.range_end) == (READ, b"a", b"b")
    ok(alone.user_change_password("reader", "s"))
    ok(alone.auth_enable())
    anybody = alone.put(b"k", b"v")
    assert (anybody.outcome, anybody.error) == (Outcome.FAIL, "UserEmpty")
    watch = alone.watch(b"k")
    assert not watch.wait_created(HANG_S)
    assert alone.authenticate("reader", "r").error == "AuthFailed"
    assert ok(alone.authenticate("reader", "s")).response.token


def test_auth_is_taken_apart(alone: EtcdClient) -> None:
    ok(alone.user_add("u", "p"))
    ok(alone.role_add("r"))
    ok(alone.role_grant_permission("r", READ, b"a"))
    ok(alone.user_grant_role("u", "r"))
    ok(alone.role_revoke_permission("r", b"a"))
    assert not ok(alone.role_get("r")).response.perm
    ok(alone.user_revoke_role("u", "r"))
    assert not ok(alone.user_get("u")).response.roles
    ok(alone.role_delete("r"))
    ok(alone.user_delete("u"))
    assert alone.user_get("u").error == "UserNotFound"
    assert alone.role_get("r").error == "RoleNotFound"
    ok(alone.auth_disable())
