"""The client records what it does, against a real etcd: as sent, as answered, and what it cannot know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gevent

from cluster.local.cluster import LocalCluster
from loadgen.client.etcd import EtcdClient
from loadgen.history.format import ANSWERED, FAIL, FINAL, INFO, OK, Kind, Method
from loadgen.history.reader import read
from loadgen.history.writer import HistoryWriter
from loadgen.proto import etcd_pb2 as pb
from tests.support.waiting import HANG_S


def test_what_is_sent_and_answered_is_recorded(etcd_cluster: LocalCluster, tmp_path: Path) -> None:
    writer = HistoryWriter(tmp_path / "a.hist")
    client = EtcdClient(etcd_cluster.endpoints[:1], history=writer)
    put = client.put(b"history/a", b"1", process=3, due_ns=17)
    client.get(b"history/a", revision=1 << 40)
    client.get(b"history/a")
    writer.set_final()
    client.status(etcd_cluster.endpoints[1])
    client.close()
    writer.close()
    history = read(tmp_path)
    rows = (history.rows["kind"] == Kind.OPERATION).nonzero()[0].tolist()
    assert [Method(int(history.rows["method"][row])) for row in rows] == [
        Method.PUT, Method.RANGE, Method.RANGE, Method.STATUS,
    ]  # fmt: skip
    assert [int(history.rows["outcome"][row]) for row in rows] == [OK, FAIL, OK, OK]
    assert [int(history.rows["flags"][row]) for row in rows] == [ANSWERED] * 3 + [ANSWERED | FINAL]
    first = history.rows[rows[0]]
    assert [int(first[field]) for field in ("process", "due_ns", "call_ns", "return_ns")] == [
        3, 17, put.call_ns, put.return_ns,
    ]  # fmt: skip
    assert pb.PutRequest.FromString(history.request(rows[0])) == pb.PutRequest(key=b"history/a", value=b"1")
    assert pb.PutResponse.FromString(history.response(rows[0])) == put.response
    assert b"future revision" in history.response(rows[1])
    assert [history.endpoint(row)[-6:] for row in rows] == [
        etcd_cluster.endpoints[which][-6:] for which in (0, 0, 0, 1)
    ]


def test_what_nobody_answered_is_recorded_as_unknown(tmp_path: Path, make_cluster: Callable[..., LocalCluster]) -> None:
    cluster = make_cluster(1)
    writer = HistoryWriter(tmp_path / "a.hist")
    patient = EtcdClient(cluster.endpoints, history=writer, timeout_s=HANG_S)
    client = EtcdClient(cluster.endpoints, history=writer, timeout_s=0.3)
    assert not patient.put(b"a", b"1").error
    client.channel.reserve(1, HANG_S)  # connected, so that what it calls is sent
    cluster.pause(cluster.members[0].name)
    client.put(b"a", b"2")
    waiting = gevent.spawn(client.put, b"a", b"3")
    gevent.sleep(0)  # it is sent
    waiting.kill()
    cluster.resume(cluster.members[0].name)
    client.close()
    patient.close()
    writer.close()
    history = read(tmp_path)
    rows = (history.rows["kind"] == Kind.OPERATION).nonzero()[0].tolist()
    assert [int(history.rows["outcome"][row]) for row in rows] == [OK, INFO, INFO]
    assert [history.response(row) for row in rows[1:]] == [b"DEADLINE_EXCEEDED", b"killed"]
