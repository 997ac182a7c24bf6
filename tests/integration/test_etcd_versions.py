"""The newest etcd of each minor release: conformance, a bench, what members say of themselves, and an election."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster.base.errors import ClusterError, EtcdError
from cluster.base.ports import free_ports
from cluster.base.topology import ClusterSpec, Member, member_env
from cluster.base.verdict import Verdict
from cluster.conformance import Bounds, run
from cluster.gateway.conformance_client import gateway_factory
from cluster.local.cluster import LocalCluster
from cluster.local.supervisor import Supervisor
from cluster.observe.probe import agreed_leader, member_status, version_key
from cluster.observe.record import read_polls, read_scrapes
from loadgen import schema
from loadgen.chaos.actor_process import Records
from loadgen.chaos.actor_turns import TURNS, Acting
from loadgen.client.blocking import grpc_factory
from loadgen.client.etcd import EtcdClient
from loadgen.history.format import FOLDER
from loadgen.history.operation import Outcome
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import Code
from tests.support import command
from tests.support.etcds import MINORS, newest_of, version_of
from tests.support.metric_columns import LATE, columns_of
from tests.support.outage import last_won, miss_heartbeats, replace_leader
from tests.support.waiting import HANG_S, until
from viz.diagrams import elections

# Readers and writers run beside each other until each of them has done enough to tell, and not for a second.
SHORT_LOAD = Bounds(load_s=0.2, load_at_most_s=60.0)


def _each(minors: tuple[str, ...] = MINORS) -> list[Any]:
    """Return a parameter for each minor; all that is tested on one goes to the same worker."""
    return [pytest.param(minor, marks=pytest.mark.xdist_group(f"etcd-{minor}")) for minor in minors]


@pytest.fixture(scope="module", params=_each())
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """Three members of the newest etcd of a minor release; a leader is killed and started again in it."""
    with LocalCluster(3, binary=newest_of(request.param)) as made:
        yield made


def raftload(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = command.run(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


def test_a_bench_and_what_it_saw_of_the_members(cluster: LocalCluster, tmp_path: Path) -> None:
    endpoints = ",".join(cluster.endpoints)
    words = ("--operations", "300", "--workers", "1", "--json", "--output", "run")
    document = json.loads(raftload(tmp_path, "bench", "--endpoints", endpoints, *words).stdout)
    jsonschema.validate(document, schema.load("result"))
    assert document["problems"] == []
    assert document["results"]["total"]["succeeded"] == 300
    # Every column that we fill is filled: no metric and no field of a status has gone.
    names = {member.name for member in cluster.members}
    polls = read_polls(tmp_path / "run")
    assert {poll.member for poll in polls} == names
    assert {poll.role for poll in polls} == {"leader", "follower"}
    scrapes = read_scrapes(tmp_path / "run")
    assert set(scrapes) == names
    for of_member in scrapes.values():
        last = of_member[-1].metrics
        assert {*last.values, *last.histograms} | LATE == columns_of(cluster.binary.version)
        assert all(histogram.count for histogram in last.histograms.values())


def test_the_members_as_they_are_drawn(cluster: LocalCluster, tmp_path: Path) -> None:
    words = ("--type", "cluster-status", "--json")
    drawn = json.loads(raftload(tmp_path, "viz", "--endpoints", ",".join(cluster.endpoints), *words).stdout)
    leader = agreed_leader([status for status in cluster.statuses(HANG_S) if status is not None])
    assert leader is not None
    assert {each["version"] for each in drawn["members"]} == {cluster.binary.version}
    assert [each["name"] for each in drawn["members"] if each["role"] == "leader"] == [leader.name], drawn


def test_conformance_over_the_gateway(cluster: LocalCluster) -> None:
    """A test of each service that the gateway offers; `make matrix` runs all of them."""
    report = run(
        gateway_factory(), cluster.endpoints, only=["kv.delete", "txn.branches", "lease.revoke", "watch.resume"]
    )
    assert report.verdict == Verdict.PASS, [f"{each.name}: {each.reason}" for each in report.results]
    # Whatever the gateway logs of requests that its clients cut off is etcd's, in 3.7 by another logger.
    assert not elections.read_files(cluster.log(member.name) for member in cluster.members).notes


def test_conformance_and_the_elections_that_it_caused(cluster: LocalCluster) -> None:
    """Every test of the suite; it kills the leader, so the members' logs tell of an election.

    `test_conformance_grpc.py` runs every test on the etcd without known bugs: of that, those that kill are left.
    """
    only = ["failover", "quorum"] if cluster.binary.path == os.environ.get("RAFTLOAD_ETCD_FIXED") else ()
    report = run(grpc_factory(), cluster.endpoints, cluster, only=only, extended=True, bounds=SHORT_LOAD)
    not_passed = [f"{each.name}: {each.reason}" for each in report.results if each.verdict != Verdict.PASS]
    assert not not_passed, not_passed
    assert report.version == cluster.binary.version
    history = elections.read_files(cluster.log(member.name) for member in cluster.members)
    assert not history.notes
    _ends_with_the_leader_that_members_name(history, cluster)
    assert [each for each in history.elections if each.failed and each.winner], "no election after a leader was lost"


def test_a_leader_killed_after_a_campaign_in_vain_is_the_one_that_was_lost(cluster: LocalCluster) -> None:
    """A member that missed heartbeats, as on a busy machine, campaigns while the leader lives."""
    miss_heartbeats(cluster)
    before = last_won(elections.read_files(cluster.log(member.name) for member in cluster.members))
    killed = replace_leader(cluster)
    history = elections.read_files(cluster.log(member.name) for member in cluster.members)
    assert not history.notes
    _ends_with_the_leader_that_members_name(history, cluster)
    lost = [history.name(each.failed) for each in history.elections if each.failed and each.term > before.term]
    assert lost == [killed.name]


def test_the_users_of_chaos_go_on_where_authentication_is_on_already(cluster: LocalCluster, tmp_path: Path) -> None:
    """The answer to who switched it on may be lost; in the newest releases nobody but root may then ask again."""
    for name in ("logs", FOLDER):
        (tmp_path / name).mkdir()
    urls = {member.name: member.client_url for member in cluster.members}
    records = Records({"folder": str(tmp_path), "members": urls, "prefix": "p/", "seed": 1, "actors": ["users"]})
    acting = Acting("users", list(urls), b"p/", 1, records.connect)
    try:
        TURNS["users"](acting)
        acting.turns = 1
        acting.anyhow(pb.AuthEnableRequest())
        TURNS["users"](acting)
    finally:
        records.close()
    assert EtcdClient(cluster.endpoints).put(b"p/key", b"").outcome == Outcome.OK, "authentication was left on"


def test_a_learner_refuses_a_read_as_the_suite_expects(cluster: LocalCluster) -> None:
    """``members.learner`` waits while the new member answers so: with another code from 3.6 on."""
    client = EtcdClient(cluster.endpoints)
    port, peer_port = free_ports(2)
    peer_url = f"http://127.0.0.1:{peer_port}"
    supervisor = Supervisor(temporary=True)
    folder = supervisor.folder
    assert folder is not None

    def add() -> int | None:  # refused until the members have known each other for some seconds
        added = client.member_add([peer_url], learner=True)
        return added.response.member.ID if added.outcome == Outcome.OK else None

    def learns() -> bool:
        with contextlib.suppress(ClusterError):
            return member_status(member).is_learner
        return False

    learner = until(add, "a learner to be added")
    member = Member("learner", f"http://127.0.0.1:{port}", peer_url, str(folder / "learner"))
    try:
        argv = ClusterSpec((*cluster.members, member)).argv(member.name, cluster.binary.path)
        Path(member.data_dir).mkdir(mode=0o700)
        supervisor.spawn(
            member.name, [*argv, "--initial-cluster-state=existing"], log=folder / "learner.log",
            env=member_env(os.environ, platform.machine()), cwd=folder,
        )  # fmt: skip
        until(learns, "the learner")
        with contextlib.closing(grpc_factory()(member.client_url)) as there, pytest.raises(EtcdError) as refused:
            there.get(b"key")
        older = version_key(cluster.binary.version) < (3, 6)
        assert refused.value.code == (Code.UNAVAILABLE if older else Code.FAILED_PRECONDITION)
        assert refused.value.name == "NotSupportedForLearner"
    finally:
        supervisor.close(0.0)
        removed = client.member_remove(learner)
        client.close()
        assert removed.outcome == Outcome.OK, removed.error


@pytest.mark.parametrize("minor", _each(("3.6", "3.7")))
def test_an_election_from_console_lines(minor: str) -> None:
    """What etcd writes with ``--log-format=console``, which 3.5 does not know, tells the same as JSON."""
    with LocalCluster(3, binary=newest_of(minor), extra_args=["--log-format=console"]) as cluster:
        killed = replace_leader(cluster)
        assert not cluster.log(killed.name).read_text().startswith("{")
        history = elections.read_files(cluster.log(member.name) for member in cluster.members)
        assert not history.notes
        _ends_with_the_leader_that_members_name(history, cluster)
        assert [history.name(each.failed) for each in history.elections if each.failed] == [killed.name]


def _ends_with_the_leader_that_members_name(history: elections.History, cluster: LocalCluster) -> None:
    leader = agreed_leader([status for status in cluster.statuses(HANG_S) if status is not None])
    assert leader is not None
    last = last_won(history)
    assert (history.name(last.winner), last.term) == (leader.name, leader.term)
    assert set(history.names.values()) == {member.name for member in cluster.members}


def test_the_newest_of_a_minor_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    etcd = newest_of("3.7")
    older = newest_of("3.5")
    monkeypatch.setenv("RAFTLOAD_TEST_ETCDS", f"{older}:{etcd}:{etcd}")
    assert newest_of("3.7") == etcd
    assert version_key(version_of(older)) < version_key(version_of(etcd))
