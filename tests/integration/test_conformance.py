"""The conformance tests against clusters that others use, or of which members do not answer.

Those that break a cluster of their own are run in ``test_conformance_lies.py``, honestly and not, all over the JSON
gateway; here they go over gRPC, for a third of the work.
"""

from __future__ import annotations

import socket

import pytest

from cluster.base.errors import NoAnswer, UsageError
from cluster.base.ports import free_ports
from cluster.base.verdict import Verdict
from cluster.conformance import Bounds, Report, run
from cluster.conformance.beside import Beside
from cluster.gateway.conformance_client import gateway_factory
from cluster.local.cluster import LocalCluster
from loadgen.client.blocking import grpc_factory
from tests.conftest import ClusterFactory
from tests.support.ports import closed_port
from tests.support.waiting import HANG_S

# Readers and writers run beside each other until each of them has done enough to tell, and not for a second.
SHORT_LOAD = Bounds(load_s=0.2, load_at_most_s=60.0)


def say(report: Report) -> str:
    """Return what went wrong, for a failing assertion."""
    return "\n".join(f"{result.verdict} {result.name}: {result.reason}" for result in report.results)


def test_a_foreign_cluster_passes_undisturbed(etcd_cluster: LocalCluster) -> None:
    report = run(grpc_factory(), etcd_cluster.endpoints, bounds=SHORT_LOAD)
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
    report = run(grpc_factory(), etcd_single.endpoints, only=["kv", "replication", "txn", "watch"], bounds=SHORT_LOAD)
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
    with pytest.raises(UsageError, match="no test or group of tests 'kw'; the groups are kv,"):
        run(gateway_factory(), [closed_port()], only=["kw"])


def test_a_learner_that_ends_is_named_with_its_last_words(
    etcd_single: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (free,) = free_ports(1)
        monkeypatch.setattr(Beside, "ports", lambda _: (taken.getsockname()[1], free))
        report = run(gateway_factory(), etcd_single.endpoints, etcd_single, only=["members.learner"], extended=True)
    assert report.verdict == Verdict.FAIL
    assert report.results[0].reason.startswith("raftload-learner ended with exit code 1: ")
    assert "address already in use" in report.results[0].reason


def test_a_promotion_is_known_at_the_leader_before_the_member_that_is_asked(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(3, peer_links="relay")
    leader = cluster.leader(HANG_S)
    followers = [member for member in cluster.members if member != leader]
    cluster.delay(followers[0].name, 0.03)
    endpoints = [member.client_url for member in followers]
    report = run(gateway_factory(), endpoints, cluster, only=["members.learner"], extended=True)
    assert report.verdict == Verdict.PASS, say(report)
