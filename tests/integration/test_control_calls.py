"""What a run asks beside its load: it goes to a member that can answer, with a deadline, and again."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from cluster.local.cluster import LocalCluster
from loadgen.client.etcd import EtcdClient
from loadgen.history.operation import Outcome
from tests.support.command import run, start, until_load
from tests.support.etcds import default_and_others
from tests.support.learner import learner_of
from tests.support.pausing import pausing
from tests.support.waiting import until

HANG_S = 120.0
ClusterFactory = Callable[..., LocalCluster]


@pytest.fixture
def with_learner(make_cluster: ClusterFactory) -> Iterator[tuple[str, str]]:
    """Yield the endpoints of a voting member and of its learner, which has caught up.

    Of the newest etcd: a run knows a learner by its status, which they all have. Their refusals, which differ, are in
    `test_etcd_errors.py`.
    """
    cluster = make_cluster(1, binary=default_and_others()[-1], storage="memory")
    client = EtcdClient(cluster.endpoints)
    with contextlib.closing(client), learner_of(cluster, client) as learner:
        there = EtcdClient([learner.client_url])
        until(lambda: there.get(b"k", serializable=True).outcome is Outcome.OK, "the learner", sleep=gevent.sleep)
        there.close()
        yield cluster.endpoints[0], learner.client_url


def test_a_learner_is_named_and_left_out(with_learner: tuple[str, str], tmp_path: Path) -> None:
    voter, learner = with_learner
    both = ("--endpoints", f"{learner},{voter}", "--workers", "1", "--json")

    done = run("bench", *both, "--operations", "200", "--output", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{learner} is a learner" in done.stderr
    result = json.loads(done.stdout)
    assert any(note.startswith(f"{learner} is a learner") for note in result["notes"])
    total = result["results"]["total"]
    assert (total["succeeded"], total["failed"], result["problems"]) == (200, 0, [])
    # Reads that any member serves by itself go there, too; their keys are written elsewhere.
    words = ("--scenario", "get", "--read-consistency", "serializable", "--operations", "200", "--output", "reads")
    done = run("bench", *both, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["results"]["get"]["succeeded"], result["run"]["preloaded_keys"] > 0) == (200, True)
    # Alone it can serve no run.
    done = run("bench", "--endpoints", learner, "--operations", "20", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert "no endpoint of a voting member answers" in done.stderr and "Traceback" not in done.stderr


def test_a_member_that_is_paused_does_not_keep_the_books_open(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """At the end of a run one of three members is paused, as any of them may be the next in turn."""
    cluster = make_cluster(3, storage="memory")
    words = ("bench", "--endpoints", ",".join(cluster.endpoints), "--duration", "600s", "--workers", "1", "--json")
    client = EtcdClient(cluster.endpoints, timeout_s=HANG_S)
    with start(*words, "--timeout", "500ms", "--output", "run", *pausing(tmp_path), cwd=tmp_path) as process:
        until_load(process, tmp_path / "run")
        leader = until(cluster.leader, "a leader")
        paused = next(member.name for member in cluster.members if member.name != leader.name)
        cluster.pause(paused)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANG_S)
    cluster.resume(paused)
    result = json.loads(out)
    assert result["problems"] == [], err
    assert result["books"]["revision_after"] is not None
    prefix = result["run"]["prefix"].encode()
    # What had reached the paused member is written when it goes on, after the run: it was counted as unknown.
    left = client.range(prefix, prefix + b"\xff")
    assert left.outcome is Outcome.OK
    assert left.response.count <= result["books"]["writes_info"]
    client.close()
