"""The gateway client against a real etcd, and against nobody."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from cluster.local.cluster import LocalCluster
from loadgen.client.etcd import EtcdClient
from loadgen.client.kv import KV, bytes_prefix_end, put_op, version_is
from loadgen.history.operation import Outcome
from loadgen.load.json_client import GatewayClient
from tests.support.ports import closed_port
from tests.support.waiting import until


@pytest.fixture(params=[EtcdClient, GatewayClient])
def kv(request: pytest.FixtureRequest, etcd_single: LocalCluster) -> Iterator[KV]:
    """Either client, as the one Protocol that both are."""
    client: KV = request.param(etcd_single.endpoints)
    yield client
    client.close()


def test_both_clients_do_the_same(kv: KV) -> None:
    key = b"gateway/\xff\x00"
    kv.delete(b"gateway/", bytes_prefix_end(b"gateway/"))
    put = kv.put(key, b"", process=7, due_ns=1)
    assert (put.outcome, put.process, put.due_ns, put.f) == (Outcome.OK, 7, 1, "put")
    got = kv.get(key)
    assert [(each.key, each.value, each.mod_revision) for each in got.response.kvs] == [(key, b"", put.revision)]
    cas = kv.cas(key, b"2", put.revision)
    assert (cas.f, cas.response.succeeded, cas.value) == ("txn", True, b"2")
    lost = kv.cas(key, b"3", put.revision)
    assert lost.response.responses[0].response_range.kvs[0].value == b"2"
    txn = kv.txn([version_is(key, 2)], [put_op(key + b"2", b"x")])
    assert (txn.response.succeeded, txn.revision) == (True, cas.revision + 1)
    assert kv.range(b"gateway/", bytes_prefix_end(b"gateway/"), keys_only=True).response.count == 2
    assert kv.delete(b"gateway/", bytes_prefix_end(b"gateway/")).response.deleted == 2
    assert put.due_ns < put.call_ns < put.return_ns < got.call_ns


def test_errors_have_etcds_names(kv: KV) -> None:
    future = kv.get(b"k", revision=1 << 40)
    assert (future.outcome, future.error, future.response) == (Outcome.FAIL, "FutureRev", None)
    empty = kv.put(b"", b"v")
    assert (empty.outcome, empty.error) == (Outcome.FAIL, "EmptyKey")
    no_lease = kv.put(b"k", b"v", lease=999)
    assert (no_lease.outcome, no_lease.error) == (Outcome.FAIL, "LeaseNotFound")


@pytest.mark.parametrize("made", [EtcdClient, GatewayClient])
def test_refused_is_fail(made: type[EtcdClient] | type[GatewayClient]) -> None:
    client = made([closed_port()])
    for operation in (client.put(b"k", b"v"), client.get(b"k")):
        assert (operation.outcome, operation.error) == (Outcome.FAIL, "connection refused")
    client.close()


@pytest.mark.parametrize("made", [EtcdClient, GatewayClient])
def test_a_paused_member_costs_the_deadline(
    etcd_single: LocalCluster, made: type[EtcdClient] | type[GatewayClient]
) -> None:
    client = made(etcd_single.endpoints, timeout_s=0.5)
    until(lambda: client.put(b"k", b"before").outcome == Outcome.OK, "a write", sleep=gevent.sleep)
    etcd_single.pause(etcd_single.members[0].name)
    try:
        calls = [gevent.spawn(client.put, b"k", b"during"), gevent.spawn(client.get, b"k")]
        write, read = (each.get() for each in calls)
    finally:
        etcd_single.resume(etcd_single.members[0].name)
    assert (write.outcome, write.error) == (Outcome.INFO, "DEADLINE_EXCEEDED")
    assert (read.outcome, read.error) == (Outcome.FAIL, "DEADLINE_EXCEEDED")
    assert min(write.latency_ns, read.latency_ns) >= 0.5e9
    until(lambda: client.get(b"k").outcome == Outcome.OK, "a read", sleep=gevent.sleep)
    client.close()


@pytest.mark.parametrize("endpoints", [[], ["nonsense"], ["ftp://h:1"]])
def test_malformed_endpoints(endpoints: list[str]) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        GatewayClient(endpoints)
