"""The probes of a diagnosis at real members: what they measure, how much they send, and that nothing is left."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator

import gevent
import pytest

from cluster.base.access import ROOT
from cluster.base.errors import ClusterError
from cluster.base.security import Security
from cluster.local.cluster import LocalCluster
from cluster.observe import calls
from loadgen.client.auth import READ, READWRITE
from loadgen.client.etcd import EtcdClient
from loadgen.client.kv import bytes_prefix_end
from loadgen.client.maintenance import NOSPACE
from loadgen.diagnose import prober as module
from loadgen.diagnose.facts import PROBES, Evidence, MemberEvidence, Times
from loadgen.diagnose.prober import MOST_PER_S, Prober, client_evidence, probe
from loadgen.history.operation import Operation, Outcome
from loadgen.load.settings import SettingsError
from tests.conftest import ClusterFactory
from tests.support import fronts
from tests.support.etcds import default_and_others
from tests.support.learner import learner_of
from tests.support.ports import take_ports
from tests.support.waiting import HANG_S, until

ALL = tuple(PROBES)


def probed(prober: Prober, *kinds: str, least: int = 2) -> Evidence:
    """Return the evidence of probes until each member has had these so often."""

    def tick() -> None:
        tries = [len(each.samples[kind]) + each.failed[kind] for each in prober._members for kind in kinds]
        if min(tries) >= least:
            prober.stop()

    evidence = prober.run(HANG_S, tick)
    assert evidence.seconds < HANG_S
    return evidence


def keys_of(cluster: LocalCluster, security: Security | None = None) -> list[bytes]:
    with contextlib.closing(EtcdClient(cluster.endpoints, security=security)) as client:
        found = ok(client.range(b"\0", b"\0"))
    return [each.key for each in found.response.kvs]


def ok(done: Operation) -> Operation:
    assert done.outcome is Outcome.OK, (done, done.detail)
    return done


def only(evidence: Evidence) -> MemberEvidence:
    (member,) = evidence.members
    return member


@pytest.mark.parametrize("etcd", default_and_others())
def test_every_probe_at_every_member(make_cluster: ClusterFactory, etcd: str) -> None:
    cluster = make_cluster(3, binary=etcd)
    with Prober(cluster.endpoints, cpu_times=cluster.cpu_times) as prober:
        evidence = probed(prober, *ALL)
    assert prober.notes == []
    assert keys_of(cluster) == []
    assert [each.name for each in evidence.members] == [each.name for each in cluster.members]
    assert [each.endpoint for each in evidence.members] == [each.endpoint for each in cluster.members]
    leader = cluster.leader()
    assert leader is not None
    for member in evidence.members:
        assert member.version == cluster.binary.version
        assert not member.learns
        assert set(member.probes) == set(PROBES)
        for times in member.probes.values():
            assert times.p10_ms is not None and times.most_ms is not None
            assert 0 < times.p10_ms <= times.most_ms
        assert member.histograms["wal_fsync"].count > 0
        assert member.rates["puts"] > 0
        assert member.counts["restarts"] == 0
        assert member.highest["db_size"] > 0
        assert member.cpu_wait_share is None or 0 <= member.cpu_wait_share <= 1
    assert [each.name for each in evidence.members if each.leads > 0.5] == [leader.name]
    assert evidence.leaderless < 1
    assert evidence.client.lag_p99_ms is not None
    assert Evidence.from_json(json.loads(json.dumps(evidence.to_json()))) == evidence


def served(cluster: LocalCluster) -> int:
    """Return how many requests the members have begun to serve, as they count them."""
    total = 0
    for member in cluster.members:
        code, body = calls.http(member.client_url, "GET", "/metrics", timeout_s=HANG_S)
        assert code == 200
        lines = body.decode().splitlines()
        total += sum(int(float(line.split()[-1])) for line in lines if line.startswith("grpc_server_started_total{"))
    return total


def test_no_more_than_twenty_requests_a_second(etcd_cluster: LocalCluster) -> None:
    """By the members' own counters, over every stretch of time between two looks at them."""
    looks: list[tuple[float, int, float]] = []

    def look() -> None:
        began = time.monotonic()
        count = gevent.get_hub().threadpool.apply(served, (etcd_cluster,))
        looks.append((began, count, time.monotonic()))

    def watch() -> None:
        while True:
            look()
            gevent.sleep(0.5)

    look()
    watching = gevent.spawn(watch)
    try:
        with Prober(etcd_cluster.endpoints) as prober:
            probed(prober, *ALL, least=6)
            sent = prober.sent
        look()
    finally:
        watching.kill()
    (began, before, _), (_, after, ended) = looks[0], looks[-1]
    assert sent >= 6 * len(etcd_cluster.members) * (len(PROBES) - 1)
    # Before and after the probes: who is there, a free prefix, the removal.
    assert after - before <= sent + 8
    for at, (since, first, _) in enumerate(looks):
        for _, count, until_ in looks[at + 1 :]:
            assert count - first <= MOST_PER_S * (until_ - since) + 8
    assert after - before <= MOST_PER_S * (ended - began) + 8


def test_one_member(etcd_single: LocalCluster) -> None:
    evidence = probe(etcd_single.endpoints, 3)
    member = only(evidence)
    assert member.leads == 1.0
    assert evidence.leaderless == 0.0
    assert evidence.seconds >= 3
    assert evidence.source == "probes"
    assert keys_of(etcd_single) == []


def test_no_read_carries_the_large_value(etcd_single: LocalCluster) -> None:
    with Prober(etcd_single.endpoints) as prober, contextlib.closing(EtcdClient(etcd_single.endpoints)) as client:
        probed(prober, "put", "large_put")
        written = ok(client.range(b"\0", b"\0")).response.kvs
        assert {each.key[5:]: len(each.value) for each in written} == {b"0": 64, b"0/large": 16 << 10}
    assert keys_of(etcd_single) == []


def test_a_put_that_was_given_up_is_removed_all_the_same(etcd_single: LocalCluster) -> None:
    """Whoever raises in a tick kills what is on its way; here the very first put."""

    class GivenError(Exception):
        pass

    with pytest.raises(GivenError), Prober(etcd_single.endpoints) as prober:

        def tick() -> None:
            if any(each.wrote for each in prober._members):
                raise GivenError

        prober.run(HANG_S, tick)
    assert keys_of(etcd_single) == []


def test_keys_are_removed_where_something_breaks(etcd_single: LocalCluster) -> None:
    with pytest.raises(ZeroDivisionError), Prober(etcd_single.endpoints) as prober:

        def tick() -> None:
            if all(each.samples["large_put"] for each in prober._members):
                assert keys_of(etcd_single)
                _ = 1 / 0

        prober.run(HANG_S, tick)
    assert keys_of(etcd_single) == []


def test_a_member_behind_two_endpoints_is_asked_once(etcd_single: LocalCluster) -> None:
    (url,) = etcd_single.endpoints
    with Prober([url, url.replace("127.0.0.1", "localhost")]) as prober:
        evidence = probed(prober, "status")
    assert only(evidence).endpoint == url.removeprefix("http://")
    assert any("lead to one member" in note for note in prober.notes)


def test_a_dead_endpoint_among_live_ones_is_a_member_that_does_not_answer(etcd_single: LocalCluster) -> None:
    dead = f"127.0.0.1:{take_ports(1)}"
    with Prober([*etcd_single.endpoints, dead]) as prober:
        evidence = probed(prober, "status", "connect")
    there, gone = evidence.members
    assert there.answers == 1.0
    assert (gone.name, gone.endpoint, gone.answers) == (dead, dead, 0.0)
    assert all(times.count == 0 and times.failed > 0 for times in gone.probes.values())
    assert gone.histograms == {}
    assert any(note.startswith(f"{dead}: connection refused") for note in prober.notes)
    assert any(note.startswith(f"{dead}: its metrics cannot be read") for note in prober.notes)


def test_no_endpoint_answers() -> None:
    with pytest.raises(ClusterError, match=r"no endpoint answers: .*connection refused"):
        Prober([f"127.0.0.1:{take_ports(1)}"])


def test_members_that_were_not_named_are_noted(etcd_cluster: LocalCluster) -> None:
    with Prober(etcd_cluster.endpoints[:1]) as prober:
        evidence = probed(prober, "members")
    assert only(evidence).name == "etcd-node1"
    assert "of 3 members these were not asked: etcd-node2, etcd-node3" in prober.notes


def test_a_frozen_member_delays_no_other(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(3)
    leader = cluster.leader()
    assert leader is not None
    frozen = next(each for each in cluster.members if each.name != leader.name)
    with Prober(cluster.endpoints) as prober:
        cluster.pause(frozen.name)
        try:
            evidence = probed(prober, "status", least=2)
            tries = {each.url: len(each.samples["put"]) for each in prober._members}
        finally:
            cluster.resume(frozen.name)
    assert keys_of(cluster) == []
    by_name = {each.name: each for each in evidence.members}
    # The kernel takes connections for it; all else fails, and that after two seconds.
    silent = by_name.pop(frozen.name)
    assert silent.answers == 0.0
    assert silent.probes["connect"].count > 0
    assert silent.probes["status"].failed >= 2
    assert min(count for url, count in tries.items() if frozen.endpoint not in url) > len(PROBES)
    assert all(each.answers > 0.5 for each in by_name.values())
    assert evidence.leaderless < 0.5


def test_a_learner_gets_what_it_serves(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(1)
    client = EtcdClient(cluster.endpoints)
    with contextlib.closing(client), learner_of(cluster, client) as learner:
        with contextlib.closing(EtcdClient([learner.client_url])) as there:
            until(lambda: there.get(b"k", serializable=True).outcome is Outcome.OK, "the learner", sleep=gevent.sleep)
        with Prober([*cluster.endpoints, learner.client_url]) as prober:
            evidence = probed(prober, "connect", "members", "status", "serializable")
    voter, learning = evidence.members
    assert (voter.learns, learning.learns) == (False, True)
    assert learning.name == "learner"
    assert set(learning.probes) == {"connect", "members", "status", "serializable"}
    assert all(times.failed == 0 for times in learning.probes.values())
    assert f"{learning.endpoint} is a learner: it serves serializable reads only" in prober.notes


def test_a_full_database_gets_no_puts(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(1)
    with contextlib.closing(EtcdClient(cluster.endpoints)) as client:
        member_id = ok(client.status()).response.header.member_id
        ok(client.alarm_activate(member_id, NOSPACE))
    with Prober(cluster.endpoints) as prober:
        evidence = probed(prober, "linearizable", least=4)
    assert not {"put", "large_put"} & set(only(evidence).probes)
    assert [note for note in prober.notes if note.startswith("puts are not measured: NoSpace")]
    assert len(prober.notes) == 1


def secured(make_cluster: ClusterFactory, permission: int, *, etcd: str | None = None) -> tuple[LocalCluster, Security]:
    """Return a member with TLS and users, and how one reaches it who has a right to the keys under ``mine/``."""
    options = {} if etcd is None else {"binary": etcd}
    cluster = make_cluster(1, with_tls=True, with_auth=True, **options)
    known = dataclasses.replace(cluster.security, user=ROOT, password=cluster.access.password(ROOT))
    with contextlib.closing(EtcdClient(cluster.endpoints, security=known)) as root:
        ok(root.user_add("reader", "secret"))
        ok(root.role_add("reading"))
        ok(root.role_grant_permission("reading", permission, b"mine/", bytes_prefix_end(b"mine/")))  # type: ignore[arg-type]
        ok(root.user_grant_role("reader", "reading"))
    return cluster, dataclasses.replace(cluster.security, user="reader", password="secret")


@pytest.mark.parametrize("etcd", default_and_others())
def test_a_user_with_a_prefix_of_its_own(make_cluster: ClusterFactory, etcd: str) -> None:
    cluster, security = secured(make_cluster, READWRITE, etcd=etcd)
    with Prober(cluster.endpoints, security=security, prefix=b"mine/") as prober:
        evidence = probed(prober, *ALL)
    assert set(only(evidence).probes) == set(PROBES)
    assert all(times.failed == 0 for times in only(evidence).probes.values())
    assert only(evidence).leads == 1.0  # of its metrics, where its status is shown to root alone
    assert prober.notes == []
    assert keys_of(cluster, cluster.security) == []
    # Connections that end before TLS is spoken would be in its log, a line each.
    assert "rejected connection" not in cluster.log("etcd-node1").read_text()


def test_a_user_who_may_only_read(make_cluster: ClusterFactory) -> None:
    cluster, security = secured(make_cluster, READ)
    with Prober(cluster.endpoints, security=security, prefix=b"mine/") as prober:
        evidence = probed(prober, "serializable", "linearizable", least=4)
    assert not {"put", "large_put"} & set(only(evidence).probes)
    assert [note.partition(": the user")[0] for note in prober.notes] == ["puts are not measured: PermissionDenied"]


def test_a_user_without_any_right(make_cluster: ClusterFactory) -> None:
    """Nothing is written under a prefix of which nobody knows whether it is free."""
    cluster, security = secured(make_cluster, READ)
    with Prober(cluster.endpoints, security=security) as prober:
        evidence = probed(prober, "connect", "members", "linearizable", "status")
    # etcd hears from a majority before it looks who asks.
    assert set(only(evidence).probes) == {"connect", "members", "status", "linearizable"}
    assert [note.partition(":")[0] for note in prober.notes] == [
        "nothing is written, and puts are not measured", "serializable reads are not measured",
    ]  # fmt: skip


def test_a_prefix_with_keys_is_refused(etcd_single: LocalCluster) -> None:
    with contextlib.closing(EtcdClient(etcd_single.endpoints)) as client:
        ok(client.put(b"theirs/1", b"v"))
        try:
            with pytest.raises(SettingsError, match="--prefix theirs/ has keys"):
                Prober(etcd_single.endpoints, prefix=b"theirs/")
            assert keys_of(etcd_single) == [b"theirs/1"]
        finally:
            ok(client.delete(b"theirs/1"))


@pytest.fixture
def proxy(etcd_single: LocalCluster, etcd_binary: str) -> Iterator[str]:
    with fronts.etcd_proxy(etcd_binary, *etcd_single.endpoints) as endpoint:
        yield endpoint


def test_through_a_proxy(etcd_single: LocalCluster, proxy: str) -> None:
    with Prober([proxy]) as prober:
        evidence = probed(prober, *ALL)
    assert only(evidence).endpoint == proxy
    assert all(times.count > 0 for times in only(evidence).probes.values())
    assert keys_of(etcd_single) == []


def test_keys_that_cannot_be_removed_are_named(make_cluster: ClusterFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadgen.load.keyspace.PATIENCE_S", 0.5)
    cluster = make_cluster(1)
    with Prober(cluster.endpoints) as prober:
        probed(prober, "put")
        prefix = prober._keys.settings.prefix.decode() if prober._keys else ""
        cluster.kill("etcd-node1")
    (note,) = prober.notes
    assert note.startswith("cannot remove the run's keys: ")
    assert note.endswith(f"; they begin with {prefix}")


def test_a_slow_commit_of_the_database_holds_up_what_takes_its_lock(make_cluster: ClusterFactory) -> None:
    """A status has the store's revision in its header, and waits as reads do; the list of members has none."""
    from cluster.local.strike_rules import hold

    hold_s = 0.3
    cluster = make_cluster(1, strikes=("sync",))
    with (
        contextlib.closing(EtcdClient(cluster.endpoints)) as client,
        Prober(cluster.endpoints) as prober,
        beside(lambda: client.put(b"k", b"v")),
    ):
        cluster.strike("etcd-node1", hold("fdatasync", "db", hold_s))
        evidence = probed(prober, "members", "status", "serializable", least=12)
        cluster.clear_strikes("etcd-node1")
        ok(client.delete(b"k"))
    times = only(evidence).probes
    assert (times["status"].most_ms or 0) >= hold_s * 500
    assert (times["serializable"].most_ms or 0) >= hold_s * 500
    assert (times["members"].p50_ms or 0) < (times["status"].p90_ms or 0)


@contextlib.contextmanager
def beside(call: Callable[[], Operation]) -> Iterator[None]:
    """Call again and again meanwhile."""

    def go() -> None:
        while True:
            call()
            gevent.sleep(0.01)

    going = gevent.spawn(go)
    try:
        yield
    finally:
        going.kill()


def test_the_client_is_saturated_where_its_lag_is_much_of_what_it_measured() -> None:
    def member(took_ms: float) -> MemberEvidence:
        return MemberEvidence("m", "m:2379", probes={"members": Times.of([took_ms] * 10)})

    assert not client_evidence(0.9, 0.1, [member(0.3)]).saturated
    busy = client_evidence(1.5, 0.1, [member(0.3)])
    assert busy.saturated
    assert busy.why == "it read answers up to 1.5 ms late (p99)"
    assert not client_evidence(1.5, 0.1, [member(0.3), member(20.0)]).saturated
    assert client_evidence(2.5, 0.1, [member(0.3), member(20.0)]).saturated
    assert client_evidence(1.5, 0.1, []).saturated
    assert module.TIMEOUT_S == 2.0
