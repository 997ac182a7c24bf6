"""Traffic of a chaos run: the same for the same seed, and nothing that parts members unless it is wanted."""

from __future__ import annotations

import dataclasses
from typing import Any

from loadgen.chaos.traffic import COMPACTED, LEASE_GONE, MIXED, Request, SeenStore, Shape, Traffic
from loadgen.history.operation import Operation, Outcome
from loadgen.proto import etcd_pb2 as pb

SHAPE = Shape(prefix=b"abcd/", seed=7)


def _done(request: Request, response: Any, revision: int) -> Operation:
    operation = Operation(1, request.f, request.key, None, 0, 0, 1, Outcome.OK, revision)
    operation.response = response
    return operation


def _known(fence: int, revision: int) -> SeenStore:
    """Return what a worker knows that has read the fence, has seen revisions from 900 on, and holds a lease."""
    known = SeenStore()
    known.learn(
        Request("lease_grant", None, linear=False), _done(Request("x", None), pb.LeaseGrantResponse(ID=5), 900), b""
    )
    if fence:
        read = Request("get", pb.RangeRequest(key=SHAPE.fence))
        answer = pb.RangeResponse(kvs=[{"key": SHAPE.fence, "value": b"%d" % fence}])
        known.learn(read, _done(read, answer, revision), SHAPE.fence)
    known.revision = revision
    return known


def _asked(shape: Shape, known: SeenStore, count: int = 4000) -> list[Request]:
    traffic = Traffic(shape, 3, known)
    return [traffic.next() for _ in range(count)]


def test_the_same_seed_process_and_knowledge_ask_the_same() -> None:
    one, two = (_asked(SHAPE, _known(950, 1000), 300) for _ in range(2))
    assert one == two
    assert one != _asked(dataclasses.replace(SHAPE, seed=8), _known(950, 1000), 300)


def test_values_are_unique_over_processes() -> None:
    values = [
        request.message.value
        for process in (1, 2, 65537)
        for request in (
            Traffic(dataclasses.replace(SHAPE, weights={"put": 1}), process, SeenStore()).next() for _ in range(50)
        )
    ]
    traffic = Traffic(dataclasses.replace(SHAPE, weights={"put": 1}), 1, SeenStore())
    assert len({traffic.next().message.value for _ in range(500)}) == 500
    assert len(set(values)) == 3
    assert {len(value) for value in values} == {SHAPE.value_size}


def test_no_transaction_reads_what_may_be_compacted_unless_it_is_to_corrupt() -> None:
    def low_reads(requests: list[Request]) -> int:
        low = 0
        for request in requests:
            if request.f != "txn":
                continue
            for op in request.message.success:
                revision = op.request_range.revision
                guarded = [(c.key, c.value) for c in request.message.compare] == [(SHAPE.fence, b"950")]
                low += revision > 0 and not (revision > 950 and guarded)
        return low

    assert not low_reads(_asked(SHAPE, _known(950, 1000)))
    assert low_reads(_asked(dataclasses.replace(SHAPE, corrupting=True), _known(950, 1000)))


def test_past_reads_begin_with_the_run_and_a_little_below_the_fence_once_there_is_one() -> None:
    def lowest(known: SeenStore) -> int:
        asked = _asked(dataclasses.replace(SHAPE, weights={"past": 1}), known, 500)
        assert {request.refusal for request in asked} == {COMPACTED}
        return min(int(request.message.revision) for request in asked)

    assert lowest(_known(0, 1000)) == 900
    assert lowest(_known(950, 1000)) == 900
    assert lowest(_known(990, 1000)) == 940


def test_a_lease_that_may_have_ended_may_be_refused() -> None:
    for kind in ("attach", "renew", "revoke"):
        traffic = Traffic(dataclasses.replace(SHAPE, weights={kind: 1}), 1, _known(0, 1000))
        assert traffic.next().refusal == LEASE_GONE
    assert all(
        request.refusal is None for request in _asked(dataclasses.replace(SHAPE, weights={"put": 1}), SeenStore(), 50)
    )


def test_every_kind_of_request_is_asked_and_can_be_sent() -> None:
    asked = _asked(SHAPE, _known(950, 1000))
    assert {request.f for request in asked} == {
        "put", "get", "range", "delete", "txn", "lease_grant", "lease_keepalive", "lease_revoke",
    }  # fmt: skip
    assert all(request.message.SerializeToString() for request in asked)
    assert set(MIXED) <= set(dir(Traffic))


def test_an_event_that_is_not_what_was_acknowledged_contradicts() -> None:
    known = SeenStore()
    put = Request("put", pb.PutRequest(key=b"k", value=b"mine"), b"k")
    known.learn(put, _done(put, pb.PutResponse(), 12), SHAPE.fence)

    def event(revision: int, value: bytes) -> Any:
        kv = {"key": b"k", "value": value, "mod_revision": revision}
        return pb.WatchResponse(events=[{"kv": kv}]).events[0]

    assert not known.contradicts(event(12, b"mine"))
    assert not known.contradicts(event(13, b"other"))
    assert known.contradicts(event(12, b"other"))
    for revision in range(13, 13 + 20_000):
        known.learn(put, _done(put, pb.PutResponse(), revision), SHAPE.fence)
    assert known.contradicts(event(12, b"other")), "the newest 20,000 are remembered at the least"
