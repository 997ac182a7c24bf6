"""The newest etcd of each minor release: conformance, a bench, what members say of themselves, and an election."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster import observer
from cluster.conformance import Verdict, run
from cluster.gateway import gateway_factory
from cluster.local import LocalCluster
from cluster.probe import agreed_leader, version_key
from cluster.record import read_polls, read_scrapes
from loadgen import schema
from loadgen.blocking import grpc_factory
from tests.support import command
from tests.support.etcds import MINORS, newest_of, version_of
from tests.support.waiting import until
from viz import elections


def _each(minors: tuple[str, ...] = MINORS) -> list[Any]:
    """A parameter for each minor; all that is tested on one goes to the same worker."""
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
        assert set(of_member[-1].metrics.values) == set(observer.metrics.SCALARS)
        assert all(of_member[-1].metrics.histograms[column].count for column in observer.metrics.HISTOGRAMS)


def test_the_members_as_they_are_drawn(cluster: LocalCluster, tmp_path: Path) -> None:
    words = ("--type", "cluster-status", "--json")
    drawn = json.loads(raftload(tmp_path, "viz", "--endpoints", ",".join(cluster.endpoints), *words).stdout)
    leader = agreed_leader([status for status in cluster.statuses() if status is not None])
    assert leader is not None
    assert {each["version"] for each in drawn["members"]} == {cluster.binary.version}
    assert [each["name"] for each in drawn["members"] if each["role"] == "leader"] == [leader.name], drawn


def test_conformance_over_the_gateway(cluster: LocalCluster) -> None:
    """A test of each service that the gateway offers; `make matrix` runs all of them."""
    report = run(
        gateway_factory(), cluster.endpoints, only=["kv.delete", "txn.branches", "lease.revoke", "watch.resume"]
    )
    assert report.verdict == Verdict.PASS, [f"{each.name}: {each.reason}" for each in report.results]


def test_conformance_and_the_elections_that_it_caused(cluster: LocalCluster) -> None:
    """Every test of the suite; it kills the leader, so the members' logs tell of an election."""
    report = run(grpc_factory(), cluster.endpoints, cluster, extended=True)
    not_passed = [f"{each.name}: {each.reason}" for each in report.results if each.verdict != Verdict.PASS]
    assert not not_passed, not_passed
    assert report.version == cluster.binary.version
    history = elections.read_files(cluster.log(member.name) for member in cluster.members)
    assert not history.notes
    _ends_with_the_leader_that_members_name(history, cluster)
    assert [each for each in history.elections if each.failed and each.winner], "no election after a leader was lost"


@pytest.mark.parametrize("minor", _each(("3.6", "3.7")))
def test_an_election_from_console_lines(minor: str) -> None:
    """What etcd writes with ``--log-format=console``, which 3.5 does not know, tells the same as JSON."""
    with LocalCluster(3, binary=newest_of(minor), extra_args=["--log-format=console"]) as cluster:
        killed = cluster.leader()
        assert killed is not None
        cluster.kill(killed.name)
        until(lambda: cluster.leader() not in (None, killed), "a new leader")
        cluster.start(killed.name)
        cluster.wait_healthy(60)
        assert not cluster.log(killed.name).read_text().startswith("{")
        history = elections.read_files(cluster.log(member.name) for member in cluster.members)
        assert not history.notes
        _ends_with_the_leader_that_members_name(history, cluster)
        assert [history.name(each.failed) for each in history.elections if each.failed] == [killed.name]


def _ends_with_the_leader_that_members_name(history: elections.History, cluster: LocalCluster) -> None:
    leader = agreed_leader([status for status in cluster.statuses() if status is not None])
    assert leader is not None
    last = history.elections[-1]
    assert (history.name(last.winner), last.term) == (leader.name, leader.term)
    assert set(history.names.values()) == {member.name for member in cluster.members}


def test_the_newest_of_a_minor_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    etcd = newest_of("3.7")
    older = newest_of("3.5")
    monkeypatch.setenv("RAFTLOAD_TEST_ETCDS", f"{older}:{etcd}:{etcd}")
    assert newest_of("3.7") == etcd
    assert version_key(version_of(older)) < version_key(version_of(etcd))
