"""Real etcds that refuse: each error by etcd's name, over both transports, and what a run makes of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import gevent
import jsonschema
import pytest

from cluster.base.errors import EtcdError
from cluster.base.security import Security
from cluster.gateway.conformance_client import GatewayClient as ConformanceClient
from cluster.local.cluster import LocalCluster
from cluster.observe.probe import version_key
from loadgen import schema
from loadgen.client.auth import READ
from loadgen.client.etcd import EtcdClient
from loadgen.client.kv import KV, delete_op, get_op, put_op
from loadgen.client.maintenance import CORRUPT, NOSPACE
from loadgen.history.operation import Operation, Outcome
from loadgen.load.json_client import GatewayClient
from loadgen.proto import etcd_pb2 as pb
from tests.support import fronts
from tests.support.command import bench_with, called, run
from tests.support.etcds import default_and_others, each_etcd
from tests.support.learner import added, learner_of
from tests.support.waiting import until

HANG_S = 60.0
MIB = 1 << 20
ClusterFactory = Callable[..., LocalCluster]


def said(operation: Operation) -> tuple[Outcome, str | None]:
    return operation.outcome, operation.error


def refused(name: str) -> tuple[Outcome, str | None]:
    return Outcome.FAIL, name


@pytest.fixture(scope="module", params=each_etcd())
def single(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """Yield a member of each etcd, in memory; keys of one's own."""
    with LocalCluster(1, binary=request.param, storage="memory") as cluster:
        yield cluster


@pytest.mark.parametrize("made", [EtcdClient, GatewayClient])
def test_requests(single: LocalCluster, made: type[EtcdClient] | type[GatewayClient]) -> None:
    kv: KV = made(single.endpoints)
    older = kv.put(b"errors/k", b"1").revision
    newer = kv.put(b"errors/k", b"2").revision
    with contextlib.closing(EtcdClient(single.endpoints)) as admin:
        assert admin.compact(newer).outcome is Outcome.OK
        assert said(admin.compact(older)) == refused("Compacted")
        assert said(admin.compact(newer + 10)) == refused("FutureRev")
    twice, many = [put_op(b"errors/d", b"1"), put_op(b"errors/d", b"2")], [get_op(b"errors/k")] * 129
    for operation, name in (
        (kv.put(b"", b"v"), "EmptyKey"),
        (kv.delete(b""), "EmptyKey"),
        (kv.put(b"errors/none", b"", ignore_value=True), "KeyNotFound"),
        (kv.put(b"errors/k", b"v", ignore_value=True), "ValueProvided"),
        (kv.put(b"errors/k", b"v", ignore_lease=True, lease=7), "LeaseProvided"),
        (kv.put(b"errors/k", b"v", lease=7), "LeaseNotFound"),
        (kv.txn([], many), "TooManyOps"),
        (kv.txn([], twice), "DuplicateKey"),
        (kv.txn([], [put_op(b"errors/d", b"1"), delete_op(b"errors/d")]), "DuplicateKey"),
        (kv.txn([], [put_op(b"errors/k", b"v"), get_op(b"errors/k", revision=older)]), "Compacted"),
        (kv.get(b"errors/k", revision=older), "Compacted"),
        (kv.get(b"errors/k", revision=newer + 10), "FutureRev"),
        (kv.put(b"errors/k", bytes(MIB * 8 // 5)), "RequestTooLarge"),  # etcd's own limit
        (kv.put(b"errors/k", bytes(2 * MIB)), "RequestTooLarge"),  # gRPC's, before any handler
    ):
        assert said(operation) == refused(name), operation.detail
        assert operation.code > 0 and operation.detail, operation
    assert kv.get(b"errors/k").response.kvs[0].mod_revision == newer
    assert kv.get(b"errors/", serializable=True).revision == newer
    kv.close()


def test_a_sort_order_of_tomorrow(single: LocalCluster) -> None:
    """Checked from etcd 3.6 on."""
    request = pb.RangeRequest(key=b"errors/k")
    request.ParseFromString(request.SerializeToString() + b"\x28\x09")  # sort_order = 9
    with contextlib.closing(EtcdClient(single.endpoints)) as client:
        answer = client.send("get", request)
        if version_key(single.binary.version) < (3, 6):
            assert answer.outcome is Outcome.OK
        else:
            assert said(answer) == refused("InvalidSortOption")


def test_leases_members_users(single: LocalCluster) -> None:
    with contextlib.closing(EtcdClient(single.endpoints)) as client:
        lease = client.lease_grant(60).response.ID
        leader = client.status().response.header.member_id
        for operation, name in (
            (client.lease_grant(60, lease), "LeaseExist"),
            (client.lease_grant(10**10), "LeaseTTLTooLarge"),
            (client.lease_revoke(lease + 1), "LeaseNotFound"),
            (client.lease_keepalive(lease + 1), "LeaseNotFound"),
            (client.member_remove(1), "MemberNotFound"),
            (client.member_update(1, ["http://127.0.0.1:1"]), "MemberNotFound"),
            (client.member_promote(leader), "MemberNotLearner"),
            (client.member_add(["nonsense"]), "MemberBadURLs"),
            (client.member_add([single.members[0].peer_url]), "PeerURLExist"),
            (client.move_leader(single.endpoints[0], 1), "BadLeaderTransferee"),
            (client.auth_enable(), "RootUserNotExist"),
            (client.authenticate("nobody", "x"), "AuthNotEnabled"),
            (client.user_get("nobody"), "UserNotFound"),
            (client.role_get("nothing"), "RoleNotFound"),
            (client.user_add("", "x"), "UserEmpty"),
        ):
            assert said(operation) == refused(name), operation.detail
        assert client.user_add("root", "x").outcome is Outcome.OK
        assert client.role_add("some").outcome is Outcome.OK
        for operation, name in (
            (client.auth_enable(), "RootRoleNotExist"),
            (client.user_add("root", "x"), "UserAlreadyExist"),
            (client.role_add("some"), "RoleAlreadyExist"),
            (client.user_revoke_role("root", "some"), "RoleNotGranted"),
            (client.role_revoke_permission("some", b"a"), "PermissionNotGranted"),
        ):
            assert said(operation) == refused(name), operation.detail
        for undone in (client.user_delete("root"), client.role_delete("some"), client.lease_revoke(lease)):
            assert undone.outcome is Outcome.OK


def test_watches(single: LocalCluster) -> None:
    with contextlib.closing(EtcdClient(single.endpoints)) as client:
        older, newer = (client.put(b"errors/w", b"v").revision for _ in range(2))
        assert client.compact(newer).outcome is Outcome.OK
        watch = client.watch(b"errors/w", start_revision=older)
        with gevent.Timeout(HANG_S):
            while watch.next() is not None:
                pass
        assert (watch.error, watch.compact_revision) == ("Compacted", newer)


@pytest.mark.parametrize("etcd", each_etcd())
def test_users_who_may_not(make_cluster: ClusterFactory, etcd: str) -> None:
    cluster = make_cluster(1, binary=etcd, storage="memory")
    with contextlib.closing(EtcdClient(cluster.endpoints)) as client:
        for done in (
            client.user_add("root", "x"), client.role_add("root"), client.user_grant_role("root", "root"),
            client.user_add("reader", "y"), client.role_add("reading"),
            client.role_grant_permission("reading", READ, b"a", b"b"), client.user_grant_role("reader", "reading"),
            client.auth_enable(),
        ):  # fmt: skip
            assert done.outcome is Outcome.OK, done
        assert said(client.put(b"a", b"v")) == refused("UserEmpty")
        assert said(client.authenticate("reader", "wrong")) == refused("AuthFailed")
        watch = client.watch(b"a")
        until(lambda: watch.error is not None, "the end of a watch without a user", sleep=gevent.sleep)
        assert watch.error in ("UserEmpty", "PermissionDenied")  # before etcd 3.5 the latter
    reader = Security(user="reader", password="y")
    for made in (EtcdClient, GatewayClient):
        limited: KV = made(cluster.endpoints, security=reader)
        assert limited.get(b"a").outcome is Outcome.OK
        assert said(limited.put(b"a", b"v")) == refused("PermissionDenied")
        assert said(limited.get(b"z")) == refused("PermissionDenied")
        limited.close()
    with contextlib.closing(EtcdClient(cluster.endpoints, security=reader)) as limited_watches:
        beside, denied = limited_watches.watch(b"a"), limited_watches.watch(b"z")
        until(lambda: denied.error is not None, "the end of a watch that is denied", sleep=gevent.sleep)
        assert denied.error == "PermissionDenied"
        assert beside.wait_created(HANG_S)


@pytest.mark.parametrize("etcd", each_etcd())
def test_through_a_grpc_proxy(make_cluster: ClusterFactory, etcd: str) -> None:
    """It hands etcd's texts on, with codes of its own, and refuses by itself what is too large for gRPC."""
    cluster = make_cluster(1, binary=etcd, storage="memory")
    with (
        fronts.etcd_proxy(etcd, cluster.endpoints[0]) as front,
        contextlib.closing(EtcdClient([front], timeout_s=HANG_S)) as client,
    ):
        revision = client.put(b"k", b"v").revision
        for operation, name in (
            (client.put(b"", b"v"), "EmptyKey"),
            (client.put(b"k", b"v", lease=7), "LeaseNotFound"),
            (client.txn([], [put_op(b"d", b"1"), put_op(b"d", b"2")]), "DuplicateKey"),
            (client.get(b"k", revision=revision + 10), "FutureRev"),
            (client.put(b"k", bytes(MIB * 8 // 5)), "RequestTooLarge"),
            (client.put(b"k", bytes(2 * MIB)), "RequestTooLarge"),
        ):
            assert said(operation) == refused(name), operation.detail
        assert client.get(b"k").response.kvs[0].mod_revision == revision
        member_id = client.at(cluster.endpoints[0]).status().response.header.member_id
        assert client.alarm_activate(member_id, NOSPACE).outcome is Outcome.OK
        assert said(client.put(b"k", b"v")) == (Outcome.INFO, "NoSpace")


@pytest.mark.parametrize("etcd", each_etcd())
def test_a_learner(make_cluster: ClusterFactory, etcd: str) -> None:
    """A put that a learner refuses has certainly not happened, whichever code the release has for that."""
    cluster = make_cluster(1, binary=etcd, storage="memory")
    client = EtcdClient(cluster.endpoints)
    with contextlib.closing(client), learner_of(cluster, client) as member:
        assert said(client.member_add(["http://127.0.0.1:1"], learner=True)) == refused("TooManyLearners")
        there = EtcdClient([member.client_url])
        until(lambda: there.get(b"k", serializable=True).outcome is Outcome.OK, "the learner", sleep=gevent.sleep)
        gateway = GatewayClient([member.client_url])
        kv: KV
        for kv in (there, gateway):
            assert said(kv.put(b"k", b"v")) == refused("NotSupportedForLearner")
            assert said(kv.get(b"k")) == refused("NotSupportedForLearner")
        assert said(there.lease_grant(60)) == refused("NotSupportedForLearner")
        over_json = ConformanceClient(member.client_url)
        with contextlib.closing(over_json), pytest.raises(EtcdError, match=r"^NotSupportedForLearner: etcdserver: rpc"):
            over_json.put(b"k", b"v")
        there.close()
        gateway.close()


@pytest.mark.parametrize("etcd", each_etcd())
def test_a_learner_that_was_never_started(make_cluster: ClusterFactory, etcd: str) -> None:
    with contextlib.closing(EtcdClient(make_cluster(1, binary=etcd, storage="memory").endpoints)) as client:
        member_id = added(client, "http://127.0.0.1:1").response.member.ID
        assert said(client.member_promote(member_id)) == refused("LearnerNotReady")
        assert client.member_remove(member_id).outcome is Outcome.OK


@pytest.mark.parametrize("etcd", each_etcd())
def test_a_corrupt_cluster(make_cluster: ClusterFactory, etcd: str) -> None:
    cluster = make_cluster(1, binary=etcd, storage="memory")
    for made in (EtcdClient, GatewayClient):
        with (
            contextlib.closing(EtcdClient(cluster.endpoints)) as admin,
            contextlib.closing(made(cluster.endpoints)) as kv,
        ):
            revision = kv.put(b"k", b"v").revision
            member_id = admin.status().response.header.member_id
            assert admin.alarm_activate(member_id, CORRUPT).outcome is Outcome.OK
            assert said(kv.put(b"k", b"w")) == refused("Corrupt")
            assert admin.alarm_deactivate(member_id, CORRUPT).outcome is Outcome.OK
            assert kv.get(b"k").response.kvs[0].mod_revision == revision


def test_a_cluster_without_a_majority(make_cluster: ClusterFactory) -> None:
    """What times out may have been proposed; a read has no effect to be unsure of."""
    cluster = make_cluster(3, storage="memory")
    kept, *others = cluster.members
    client = EtcdClient([kept.client_url], timeout_s=HANG_S)
    assert client.put(b"k", b"v").outcome is Outcome.OK
    for member in others:
        cluster.kill(member.name)
    written, read = (gevent.spawn(call, b"k", *more) for call, *more in ((client.put, b"w"), (client.get,)))
    outcome, error = said(written.get(timeout=HANG_S))
    assert outcome is Outcome.INFO and error in (
        "Timeout", "TimeoutDueToLeaderFail", "TimeoutDueToConnectionLost"
    )  # fmt: skip
    outcome, error = said(read.get(timeout=HANG_S))
    assert outcome is Outcome.FAIL and error in ("Timeout", "LeaderChanged", "NoLeader")
    client.close()


# What a run makes of an error that etcd's list does not have


UNHEARD_OF = """
from loadgen.history.operation import Operation
from loadgen.proto import etcd_pb2 as pb
from loadgen.user import EtcdUser

class Unheard(EtcdUser):
    abstract = False

    def put(self, key, value):
        return self.client._run(b"/etcdserverpb.KV/Unheard", b"", pb.PutResponse.FromString, "put", key, value)
"""


def test_the_words_of_an_error_without_a_name_are_kept(
    etcd_single: LocalCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is counted by its code, and the first text is shown wherever its number is."""
    done = bench_with(
        UNHEARD_OF, "--mix", "put=1", "--operations", "20", "--workers", "1", "--json",
        "--endpoints", etcd_single.endpoints[0], "--output", "run", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    jsonschema.validate(result, schema.load("result"))
    text = "unknown method Unheard for service etcdserverpb.KV"
    for row in (result["results"]["put"], result["results"]["total"]):
        assert (row["errors"], row["error_texts"], row["info"]) == ({"UNIMPLEMENTED": 20}, {"UNIMPLEMENTED": text}, 0)
    shown = called(capsys, "report", tmp_path / "run")
    assert f"20 put UNIMPLEMENTED: {text}" in " ".join(shown.stdout.split())
    page = next((tmp_path / "run").glob("*.html")).read_text()
    assert f"put UNIMPLEMENTED ({text})" in page


# A store that is full


ROOM = 4 * MIB
# etcd goes by the store's size at the last commit, by default one in 100 ms: a fast machine has written all by then.
FULL_SOON = ("--backend-batch-limit=1", f"--quota-backend-bytes={ROOM}")


@pytest.mark.parametrize("etcd", each_etcd())
def test_a_full_store_and_room_made_in_it(make_cluster: ClusterFactory, etcd: str) -> None:
    """On each etcd, over both transports."""
    cluster = make_cluster(1, binary=etcd, storage="memory", extra_args=FULL_SOON)
    client, gateway = EtcdClient(cluster.endpoints), GatewayClient(cluster.endpoints)
    value = bytes(100 * 1024)
    written = 0
    while (last := client.put(b"k", value)).outcome is Outcome.OK:
        written += 1
    assert 0 < written <= ROOM // len(value) + 1
    kv: KV
    for kv in (client, gateway):
        assert said(last) == said(kv.put(b"k", value)) == (Outcome.INFO, "NoSpace")
        assert kv.get(b"k").outcome is Outcome.OK
    (alarm,) = client.alarm_list().response.alarms
    assert alarm.alarm == NOSPACE
    assert client.compact(client.get(b"k").revision, physical=True).outcome is Outcome.OK
    assert client.defragment(cluster.endpoints[0]).outcome is Outcome.OK
    assert client.alarm_deactivate(alarm.memberID, NOSPACE).outcome is Outcome.OK
    for kv in (client, gateway):
        assert kv.put(b"k", b"v").outcome is Outcome.OK
        kv.close()


def test_a_store_that_a_load_fills(
    make_cluster: ClusterFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writes fail as NoSpace in the result, the table, JUnit, the report and in thresholds; reads go on.

    On the newest etcd: the test above says that they all say the same.
    """
    monkeypatch.chdir(tmp_path)
    cluster = make_cluster(1, binary=default_and_others()[-1], storage="memory", extra_args=FULL_SOON)
    endpoint = cluster.endpoints[0]
    words = ("bench", "--endpoints", endpoint, "--workers", "1", "--concurrency", "8")

    def bench(*more: str, codes: tuple[int, ...]) -> dict[str, Any]:
        done = run(*words, *more, "--json", cwd=tmp_path)
        assert done.returncode in codes, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        jsonschema.validate(result, schema.load("result"))
        return result

    put = ("--scenario", "put", "--value-size", "100KiB", "--operations", "200")
    full = bench(*put, "--output", "full", "--threshold", "put.errors.NoSpace == 0", codes=(1,))
    row = full["results"]["put"]
    assert row["errors"] == {"NoSpace": row["failed"]}
    # At most as many values as fit in, and those that the eight users had under way.
    assert 0 < row["succeeded"] <= ROOM // (100 * 1024) + 8
    assert row["info"] == row["failed"], "etcd says it after it has applied the put that fills the store, too"
    assert "error_texts" not in row
    books = full["books"]
    assert books["writes_ok"] <= books["revision_delta"] <= books["writes_ok"] + books["writes_info"]
    assert full["thresholds"][0]["reason"] == f"put.errors.NoSpace is {row['failed']:,}"

    table = called(capsys, "gate", "full", "--threshold", "put.failed == 0", "--junit", "gate.xml")
    assert table.returncode == 1
    cases = ElementTree.parse(tmp_path / "gate.xml").getroot().findall("testsuite/testcase")
    assert [each.get("message") for case in cases for each in case.findall("failure")] == [
        f"put.failed is {row['failed']:,}: {row['failed']:,} NoSpace"
    ]
    assert f"{row['failed']:,} put NoSpace" in called(capsys, "report", "full").stdout
    report = (tmp_path / "full" / "report.html").read_text() if (tmp_path / "full" / "report.html").exists() else ""
    assert "NoSpace" in report and "RESOURCE_EXHAUSTED" not in report + table.stdout + json.dumps(full)

    # Reads go on, though no keys can be written for them; a run that writes says why it cannot begin.
    client = EtcdClient([endpoint])
    assert [each.alarm for each in client.alarm_list().response.alarms] == [NOSPACE]
    assert client.get(b"k").outcome is Outcome.OK
    reads = bench("--scenario", "get", "--operations", "60", "--output", "reads", codes=(0,))
    assert (reads["results"]["get"]["succeeded"], reads["run"]["preloaded_keys"], reads["verdict"]) == (60, 0, "none")
    (note,) = [each for each in reads["notes"] if "NoSpace" in each]
    assert "disarm the alarm" in note and note.endswith("reads of the other keys find nothing")
    no_room = run(*words, "--operations", "20", "--output", "none", cwd=tmp_path)
    assert (no_room.returncode, no_room.stdout) == (4, ""), no_room.stderr
    assert "NoSpace: the store is over its quota" in no_room.stderr.splitlines()[-1]

    # Made room, and the alarm taken back: all is as before.
    assert client.compact(client.get(b"k").revision, physical=True).outcome is Outcome.OK
    assert client.defragment(endpoint).outcome is Outcome.OK
    (alarm,) = client.alarm_list().response.alarms
    assert client.alarm_deactivate(alarm.memberID, NOSPACE).outcome is Outcome.OK
    client.close()
    again = bench("--operations", "60", "--output", "again", "--threshold", "put.errors.NoSpace == 0", codes=(0,))
    assert again["results"]["total"]["failed"] == 0 and again["verdict"] == "pass"
