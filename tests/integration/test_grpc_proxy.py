"""Streams through `etcd grpc-proxy`, which answers in another order than it was asked: what belongs to whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from cluster.local.cluster import LocalCluster
from loadgen.client.etcd import EtcdClient
from loadgen.client.lease import lease_key
from loadgen.history.operation import Outcome
from tests.support import command, fronts
from tests.support.etcds import default_and_others
from tests.support.waiting import HANG_S

ROUNDS, WATCHES = 6, 40


@pytest.fixture(params=default_and_others(), scope="module")
def proxy(request: pytest.FixtureRequest) -> Iterator[str]:
    with (
        LocalCluster(1, binary=request.param) as cluster,
        fronts.etcd_proxy(request.param, *cluster.endpoints) as endpoint,
    ):
        yield endpoint


def test_each_watch_gets_the_events_of_its_own_key(proxy: str) -> None:
    """The field's input: 52 of 240 watches got another watch's events."""
    wrong = []
    for number in range(ROUNDS):
        client = EtcdClient([proxy])
        for each in range(200):
            assert client.put(b"old%d" % each, b"x" * 200).outcome is Outcome.OK
        keys = [b"r%d-k%02d" % (number, each) for each in range(WATCHES)]
        watches = {}
        for place, key in enumerate(keys):
            watches[key] = client.watch(key)
            if place % 4 == 0:
                # A wide range from an old revision has long answers, which come between.
                client.watch(b"old", b"olf", start_revision=2)
        for watch in watches.values():
            assert watch.wait_created(HANG_S)
        for key in keys:
            assert client.put(key, b"v").outcome is Outcome.OK
        for key, watch in watches.items():
            answer = watch.next(HANG_S)
            assert answer is not None, (key, watch.error)
            if (got := [event.kv.key for event in answer.response.events]) != [key]:
                wrong.append((key, got[:3]))
        client.close()
    assert wrong == []


def test_keepalives_of_many_leases_on_one_stream(proxy: str) -> None:
    """One of each: a second one is answered when the proxy renews the lease next, after a third of its time."""
    client = EtcdClient([proxy])
    ttls = {}
    for ttl in range(60, 100):
        granted = client.lease_grant(ttl)
        assert granted.outcome is Outcome.OK
        ttls[granted.response.ID] = ttl
    keeper = client.lease_keeper()
    renewals = [(lease, gevent.spawn(keeper.renew, lease)) for lease in ttls]
    for lease, renewal in renewals:
        done = renewal.get(timeout=HANG_S)
        assert done.outcome is Outcome.OK, (done, done.detail)
        assert (done.outcome, done.key, done.response.ID, done.response.TTL) == (
            Outcome.OK, lease_key(lease), lease, ttls[lease]
        ), done  # fmt: skip
    assert keeper.streams == 1
    client.close()


def test_a_chaos_run_finds_nothing_that_etcd_did_not_promise(proxy: str, tmp_path: Path) -> None:
    done = command.run("chaos", "--endpoints", proxy, "--duration", "5s", "--json", cwd=tmp_path)
    result = json.loads(done.stdout)
    rows = {row["name"]: row for row in result["check"]["guarantees"]}
    assert (done.returncode, result["verdict"]) == (0, "pass"), (done.stderr, result["verdict_reasons"])
    assert "from its cache" in rows["durability.revision"]["reason"]
    assert "any member" in rows["convergence.keys"]["reason"]
    skipped = {name for name, row in rows.items() if row["verdict"] == "skip"}
    judged = {name for name, row in rows.items() if row["verdict"] == "pass"}
    assert judged | skipped == rows.keys()
    assert {"kv.real-time", "kv.reads", "kv.once", "watch.ordered", "watch.reliable", "txn.atomic"} <= judged
