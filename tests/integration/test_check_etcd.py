"""The checker's store against a real etcd: whatever etcd answers to random requests, the replay says the same."""

from __future__ import annotations

import random
import secrets
from pathlib import Path
from typing import Any

import gevent
import pytest

from cluster.base.verdict import Verdict
from cluster.local.cluster import LocalCluster
from loadgen.check.judge import check
from loadgen.check.rules import RULES
from loadgen.client.etcd import EtcdClient
from loadgen.client.kv import bytes_prefix_end
from loadgen.history.operation import Outcome
from loadgen.history.reader import read
from loadgen.history.writer import HistoryWriter
from loadgen.proto import etcd_pb2 as pb
from tests.support.model import PATHS
from tests.support.waiting import HANG_S


class Requests:
    """Random requests of every shape that etcd takes, over few keys, so that they meet."""

    def __init__(self, seed: int, prefix: bytes) -> None:
        self.draw = random.Random(seed)
        self.prefix, self.end = prefix, bytes_prefix_end(prefix)
        self.value = 0
        self.newest = 0

    def key(self) -> bytes:
        return self.prefix + b"%d" % self.draw.randrange(12)

    def span(self) -> dict[str, bytes]:
        low, high = sorted((self.key(), self.key()))
        return self.draw.choice(
            ({"key": low}, {"key": low, "range_end": high}, {"key": self.prefix, "range_end": self.end})
        )

    def put(self) -> pb.PutRequest:
        self.value += 1
        return pb.PutRequest(key=self.key(), value=b"%016d" % self.value, prev_kv=self.draw.random() < 0.5)

    def range(self) -> pb.RangeRequest:
        draw = self.draw
        request = pb.RangeRequest(
            **self.span(), limit=draw.choice((0, 0, 1, 3)), sort_order=draw.choice((0, 0, 1, 2)),
            sort_target=draw.choice((0, 0, 1, 2, 3, 4)), keys_only=draw.random() < 0.2,
            count_only=draw.random() < 0.2, serializable=draw.random() < 0.3,
        )  # fmt: skip
        if self.newest and draw.random() < 0.2:
            request.revision = max(1, self.newest - draw.randrange(8))
        if self.newest and draw.random() < 0.2:
            field = draw.choice(("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"))
            setattr(request, field, max(1, self.newest - draw.randrange(20)))
        return request

    def compare(self) -> pb.Compare:
        draw = self.draw
        near = max(0, self.newest - draw.randrange(10))
        target: Any = draw.choice(
            ({"version": draw.randrange(4)}, {"create_revision": near}, {"mod_revision": near},
             {"value": b"%016d" % max(0, self.value - draw.randrange(4))}, {"lease": 0})
        )  # fmt: skip
        names = {"version": 0, "create_revision": 1, "mod_revision": 2, "value": 3, "lease": 4}
        (field,) = target
        return pb.Compare(result=draw.randrange(4), target=names[field], **self.span(), **target)

    def txn(self, depth: int = 2) -> pb.TxnRequest:
        draw = self.draw

        def branch(keys: list[bytes]) -> list[pb.RequestOp]:
            operations = []
            for key in keys:
                kind = draw.choice(("put", "put", "delete", "range", "txn"))
                if kind == "put":
                    put = self.put()
                    put.key = key
                    operations.append(pb.RequestOp(request_put=put))
                elif kind == "delete":
                    operations.append(
                        pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, prev_kv=draw.random() < 0.5))
                    )
                elif kind == "range" or depth == 1:
                    ranged = self.range()
                    ranged.revision = 0
                    operations.append(pb.RequestOp(request_range=ranged))
                else:
                    operations.append(pb.RequestOp(request_txn=self.txn(depth - 1)))
            return operations

        return pb.TxnRequest(
            compare=[self.compare() for _ in range(draw.randrange(3))],
            success=branch([self.prefix + b"%d" % n for n in draw.sample(range(12), 3)]),
            failure=branch([self.prefix + b"%d" % n for n in draw.sample(range(12), 2)]),
        )

    def next(self) -> Any:
        kind = self.draw.choices(("put", "range", "delete", "txn"), (4, 6, 1, 5))[0]
        if kind == "delete":
            return pb.DeleteRangeRequest(**self.span(), prev_kv=self.draw.random() < 0.5)
        return getattr(self, kind)()


def recorded(cluster: LocalCluster, folder: Path, seed: int, users: int, count: int) -> int:
    """Drives random requests at a cluster and records them; returns how many succeeded."""
    prefix = b"check/%s/" % secrets.token_hex(4).encode()
    writer = HistoryWriter(folder / "w.hist")
    client = EtcdClient(cluster.endpoints, history=writer)
    before = client.get(prefix).revision
    writer.marker("cluster", prefix=prefix.decode(), revision=before, exclusive=False, members=[])
    answers = {"Range": pb.RangeResponse, "Put": pb.PutResponse, "DeleteRange": pb.DeleteRangeResponse,
               "Txn": pb.TxnResponse}  # fmt: skip
    done = 0

    def user(process: int) -> None:
        nonlocal done
        requests = Requests(seed * 100 + process, prefix)
        for _ in range(count):
            request = requests.next()
            path = PATHS[type(request)]
            decode = answers[path.rpartition("/")[2]].FromString
            f = "txn" if isinstance(request, pb.TxnRequest) else "put"
            operation = client._run(path.encode(), request.SerializeToString(), decode, f, b"", None, process, 0)
            if operation.outcome is Outcome.OK:
                done += 1
                requests.newest = operation.revision

    watch = client.watch(prefix, bytes_prefix_end(prefix), start_revision=before + 1, prev_kv=True)
    assert watch.wait_created(HANG_S)
    gevent.joinall([gevent.spawn(user, process) for process in range(users)], raise_error=True)
    last = client.put(prefix + b"last", b"end").revision
    while True:
        answer = watch.next(HANG_S)
        assert answer is not None
        if answer.response.events and answer.response.events[-1].kv.mod_revision >= last:
            break
    watch.cancel()
    client.close()
    writer.close()
    return done


@pytest.mark.parametrize(("seed", "users"), [(1, 1), (2, 8)])
def test_what_etcd_answers_is_what_the_replay_says(
    etcd_cluster: LocalCluster, tmp_path: Path, seed: int, users: int
) -> None:
    done = recorded(etcd_cluster, tmp_path, seed, users, 400 // users)
    assert done > 200
    results = {each.rule: each for each in check(read(tmp_path)).results}
    assert {rule: each.findings for rule, each in results.items() if each.verdict == Verdict.FAIL} == {}
    judged = [rule for rule in RULES if rule.partition(".")[0] in ("kv", "txn")]
    assert {rule: results[rule].verdict for rule in judged if results[rule].verdict != Verdict.PASS} == {}
    assert results["kv.reads"].judged > 50
    assert results["txn.responses"].judged > 50
