"""`cluster test --transport grpc`: every promise of etcd, asked for through our own client."""

from __future__ import annotations

import concurrent.futures
import json
from pathlib import Path

import jsonschema
import pytest

from cluster import schema
from cluster.base.errors import EtcdError, NoAnswer
from cluster.gateway.admin import Admin
from cluster.gateway.client import Client, WatchCanceled
from cluster.local.cluster import LocalCluster
from cluster.schema.repeat import ETCD_VARIABLE
from loadgen.cli import main
from loadgen.client.blocking import grpc_factory
from tests.support.waiting import HANG_S, until


def test_every_test_passes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed_etcd: str
) -> None:
    monkeypatch.setenv(ETCD_VARIABLE, fixed_etcd)  # it kills the leader under load
    monkeypatch.delenv("ETCDCTL_ENDPOINTS", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    code = main.main(["cluster", "test", "--backend", "embedded", "--all", "--transport", "grpc", "--json"])
    document = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(schema.load("conformance")).validate(document)
    wrong = [(each["name"], each["reason"]) for each in document["tests"] if each["verdict"] != "PASS"]
    assert not wrong, wrong
    assert (code, document["target"]["transport"]) == (0, "grpc")
    assert document["summary"] == {"pass": 28, "fail": 0, "unknown": 0, "skip": 0}


def test_in_threads(etcd_cluster: LocalCluster) -> None:
    """Clients made in one thread and used in another, many at once; a watch read by a third."""
    factory = grpc_factory()
    clients = [factory(etcd_cluster.endpoints[n % 3]) for n in range(12)]
    watch = clients[0].watch(b"threads/", range_end=b"threads0")

    def write(n: int) -> int:
        return [clients[n].put(b"threads/%d" % n, b"%d" % step).revision for step in range(20)][-1]

    def read() -> list[int]:
        seen: list[int] = []
        while len(seen) < 12 * 20 and (event := watch.next(HANG_S)) is not None:
            seen.append(event.revision)
        return seen

    with concurrent.futures.ThreadPoolExecutor(13) as pool:
        reading = pool.submit(read)
        last = max(pool.map(write, range(12)))
        seen = reading.result()
    assert len(seen) == 240
    assert (seen, seen[-1]) == (sorted(set(seen)), last)
    watch.close()
    watch.close()
    assert clients[3].delete(b"threads/", range_end=b"threads0", prev_kv=True).deleted == 12
    for client in clients:
        client.close()


def test_what_it_raises(etcd_cluster: LocalCluster) -> None:
    factory = grpc_factory(timeout_s=HANG_S)
    client: Client = factory(etcd_cluster.endpoints[0])
    assert isinstance(client, Admin)
    with pytest.raises(EtcdError, match="requested lease not found") as refused:
        client.put(b"raises", b"v", lease=4711)
    assert refused.value.code == 5
    assert client.lease_keepalive(4711) == 0
    assert client.lease_state(4711).is_gone
    with pytest.raises(NoAnswer) as nobody:
        factory("127.0.0.1:1")
    assert (nobody.value.cause, nobody.value.sent) == ("connection refused", False)
    with pytest.raises(ValueError, match="malformed endpoint"):
        factory("nowhere")
    client.close()


def test_a_watch_that_lost_its_member_says_so(etcd_binary: str) -> None:
    with LocalCluster(1, binary=etcd_binary) as cluster:
        client = grpc_factory(timeout_s=HANG_S)(cluster.endpoints[0])
        revision = [client.put(b"k", b"%d" % n).revision for n in range(5)][3]
        client.compact(revision)
        compacted = client.watch(b"k", start_revision=1)
        with pytest.raises(WatchCanceled) as canceled:
            while True:
                compacted.next(HANG_S)
        assert canceled.value.compact_revision == revision
        watch = client.watch(b"k")
        assert watch.next(0.05) is None
        name = cluster.members[0].name
        cluster.pause(name)
        with pytest.raises(NoAnswer) as late:
            client.status(timeout_s=0.2)
        assert late.value.cause == "timeout"
        cluster.kill(name)
        with pytest.raises(NoAnswer):
            until(lambda: watch.next(0.2), "the end of the watch")
        client.close()
