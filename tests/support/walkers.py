"""The core's reader of answers, held to protobuf's."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.message import DecodeError

from loadgen.engine import core, requests
from loadgen.proto import etcd_pb2 as pb
from tests.support.conversation import answer, spoiled

ANSWERS: dict[int, Any] = {
    requests.GET: pb.RangeResponse, requests.PUT: pb.PutResponse, requests.TXN: pb.TxnResponse
}  # fmt: skip


def check_answer(f: int, message: bytes) -> bool:
    """Hold the core's reading of an answer to protobuf's; return whether the core took it, and did not leave it."""
    found = core.answered(f, message)
    if found is None:
        return False
    revision, committed = found
    try:
        said = ANSWERS[f].FromString(message)
    except DecodeError as exc:
        raise AssertionError(f"protobuf refuses {message!r} as an answer to a {requests.TYPES[f]}") from exc
    wanted = said.header.revision
    if f == requests.TXN:
        assert committed == said.succeeded, message
        if not committed:
            assert len(said.responses) == 1, message
            kvs = said.responses[0].response_range.kvs
            wanted = kvs[0].mod_revision if kvs else 0
    assert revision == wanted, message
    return True


def read_some(rng: random.Random) -> int:
    """Check a few messages, whole, spoiled and cut; return how many."""
    count = 0
    for _ in range(5):
        f = rng.randrange(3)
        message = answer(rng, requests.TYPES[f], rng.getrandbits(rng.choice((7, 20, 63))), plain=rng.random() < 0.3)
        some = [message, *(spoiled(rng, message) for _ in range(10)), *(message[:n] for n in range(len(message)))]
        for each in some:
            check_answer(f, each)
            check_answer((f + 1) % 3, each)
        count += 2 * len(some)
    return count
