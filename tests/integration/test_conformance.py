"""The conformance tests against clusters that keep their promises."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from cluster.conformance import Report, Verdict, run
from cluster.errors import NoAnswer
from cluster.gateway import gateway_factory
from cluster.local import LocalCluster
from tests.support.known import may_meet


def say(report: Report) -> str:
    """What went wrong, for a failing assertion."""
    return "\n".join(f"{result.verdict} {result.name}: {result.reason}" for result in report.results)


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_a_foreign_cluster_passes_undisturbed(etcd_cluster: LocalCluster) -> None:
    report = run(gateway_factory(), etcd_cluster.endpoints)
    assert report.verdict == Verdict.PASS, say(report)
    skipped = {result.name for result in report.results if result.verdict == Verdict.SKIP}
    assert "watch.compaction" in skipped
    assert all(result.reason for result in report.results)
    assert [target.name for target in report.targets] == ["etcd-node1", "etcd-node2", "etcd-node3"]
    with_client = gateway_factory()(etcd_cluster.endpoints[0])
    try:
        assert with_client.get(b"/raftload-test/", range_end=b"/raftload-test0").count == 0
    finally:
        with_client.close()


def test_one_member_skips_what_needs_more(etcd_single: LocalCluster) -> None:
    report = run(gateway_factory(), etcd_single.endpoints, only=["kv", "replication", "txn", "watch"])
    assert report.verdict == Verdict.PASS, say(report)
    skipped = {result.name for result in report.results if result.verdict == Verdict.SKIP}
    assert {"kv.other-members", "kv.serializable", "replication.same-state"} <= skipped
    assert report.exit_code == 0


def test_an_endpoint_that_is_down_leaves_promises_about_every_member_open(etcd_cluster: LocalCluster) -> None:
    dead = closed_port()
    report = run(gateway_factory(), [dead, *etcd_cluster.endpoints], only=["kv.own-member", "txn.duplicate-key"])
    assert [result.verdict for result in report.results] == [Verdict.UNKNOWN, Verdict.PASS]
    assert dead in report.results[0].reason
    assert report.exit_code == 3


def test_an_endpoint_named_twice_counts_once(etcd_single: LocalCluster) -> None:
    report = run(gateway_factory(), [*etcd_single.endpoints, *etcd_single.endpoints], only=["txn.duplicate-key"])
    assert len(report.targets) == 1


def test_no_cluster_is_an_error_of_the_environment() -> None:
    with pytest.raises(NoAnswer, match="no cluster to test"):
        run(gateway_factory(timeout_s=1), [closed_port()])


def test_an_unknown_name_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="no test or group of tests 'kw'; the groups are kv,"):
        run(gateway_factory(), [closed_port()], only=["kw"])


def test_a_cluster_of_ones_own_is_compacted(make_cluster: Callable[..., LocalCluster]) -> None:
    cluster = make_cluster(1)
    report = run(gateway_factory(), cluster.endpoints, cluster, only=["watch.compaction"])
    assert report.verdict == Verdict.PASS, say(report)


@may_meet(13766)
def test_members_that_die_on_a_cluster_of_ones_own(
    make_cluster: Callable[..., LocalCluster],
) -> None:
    cluster = make_cluster(3)
    report = run(gateway_factory(), cluster.endpoints, cluster, only=["failover", "quorum", "replication"])
    assert report.verdict == Verdict.PASS, say(report)
    assert report.count(Verdict.PASS) == 4
    figures = {name: value for result in report.results for name, value in result.figures.items()}
    assert 0 < figures["leaderless_ms"] < 15_000
    assert figures["write_outage_ms"] > 0
    assert all(cluster.is_running(member.name) for member in cluster.members)
    cluster.wait_healthy(10)


def test_two_members_have_a_majority_to_lose_and_no_leader_to_spare(
    make_cluster: Callable[..., LocalCluster],
) -> None:
    cluster = make_cluster(2)
    report = run(gateway_factory(), cluster.endpoints, cluster, only=["failover", "quorum"])
    assert [result.verdict for result in report.results] == [Verdict.SKIP, Verdict.PASS], say(report)


def test_what_operators_do(make_cluster: Callable[..., LocalCluster]) -> None:
    cluster = make_cluster(3)
    report = run(gateway_factory(), cluster.endpoints, cluster, only=["members", "auth", "snapshot", "alarm"])
    assert report.verdict == Verdict.PASS, say(report)
    assert report.count(Verdict.PASS) == 4, say(report)
    client = gateway_factory()(cluster.endpoints[0])
    try:
        assert len(client.members()) == 3
        client.put(b"open", b"again")
    finally:
        client.close()
