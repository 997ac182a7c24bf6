"""The traffic of a chaos run: requests of every kind that etcd's promises are about. Pure: no I/O, no clock.

Values are unique over the run, so a value tells which write it came from. Compares are drawn around what the worker has
seen, so that both branches of transactions are taken.

A transaction reads at an older revision only where no compaction can have reached it, or members would part for ever
(etcd#18667). That is proved, not hoped: whoever compacts first writes the revision into the *fence* key and waits for
the acknowledgement; the transaction compares the fence with the value it knows, and reads above that.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import TypedDict

from google.protobuf.message import Message

from loadgen.client.kv import bytes_prefix_end, delete_op, put_op, value_is
from loadgen.history.operation import Operation, Outcome
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto.kv_pb2 import Event, KeyValue

MIXED: Mapping[str, float] = {
    "put": 34, "get": 12, "stale": 8, "range": 6, "past": 5, "delete": 5, "sweep": 1, "txn": 18, "nested": 3,
    "past_txn": 2, "wide": 1, "lease": 1, "attach": 2, "renew": 0.5, "revoke": 0.5, "fence": 1,
}  # fmt: skip
"""Weights of the kinds in a run that is about everything: each is a method of ``Traffic``."""

COMPACTED, LEASE_GONE = "Compacted", "LeaseNotFound"
# Ours: only keys that the compare may range over; above --max-txn-ops etcd refuses the rest.
_WIDE_KEYS = 1000
_RESULTS = (pb.Compare.EQUAL, pb.Compare.GREATER, pb.Compare.LESS, pb.Compare.NOT_EQUAL)
_KNOWN_LEASES = 16
_KNOWN_PUTS = 20_000
# Seconds: some run out during the run, some are revoked before.
_LEASE_TTL = (1, 2, 5, 30)


class ShapeFields(TypedDict, total=False):
    """The fields of a `Shape`, but for those that are the run's own."""

    keys: int
    value_size: int
    weights: Mapping[str, float]
    wide_keys: int
    corrupting: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What traffic a run has.

    Attributes:
        prefix: of every key of the run.
        seed: what everything is drawn from.
        keys: how many keys there are.
        value_size: bytes, at least 16.
        weights: by kind.
        wide_keys: how many of its keys a wide compare ranges over, once they exist.
        corrupting: also transactions that read a compacted revision and then write; they break etcd before 3.7.
    """

    prefix: bytes
    seed: int
    keys: int = 100
    value_size: int = 32
    weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: MIXED)
    wide_keys: int = _WIDE_KEYS
    corrupting: bool = False

    @property
    def fence(self) -> bytes:
        """The key that holds the newest revision that may have been compacted."""
        return self.prefix + b"fence"

    def key(self, number: int) -> bytes:
        """Return key ``number``, counted from 0."""
        return b"%bk%05d" % (self.prefix, number)


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What to ask: ``f`` names the call, ``message`` is the request; ``key`` is what it is about, for people.

    ``linear`` is whether the answer must not be older than any that was there before.
    """

    f: str
    message: Message
    key: bytes = b""
    linear: bool = True

    @property
    def refusal(self) -> str | None:
        """The error that is as right an answer as any, see `refusal_of`."""
        return refusal_of(self.message)


def refusal_of(message: Message) -> str | None:
    """Return the error that a request of this traffic provokes: of a revision that may be compacted, of a lease that
    may have ended; None where only success is right.
    """
    if isinstance(message, pb.RangeRequest):
        return COMPACTED if message.revision else None
    if isinstance(message, pb.TxnRequest):
        # A transaction that reads above the fence compares it; `corrupt` does not.
        first = message.success[0] if message.success and not message.compare else None
        return COMPACTED if first is not None and first.request_range.revision else None
    if isinstance(message, pb.PutRequest):
        return LEASE_GONE if message.lease else None
    return LEASE_GONE if isinstance(message, pb.LeaseKeepAliveRequest | pb.LeaseRevokeRequest) else None


class SeenStore:
    """What the users of one worker have seen of the store: a place to draw from, true or not any more.

    Attributes:
        first: the revision in the first answer, 0 before it.
        revision: the newest in any answer.
        acknowledged: the newest in an answer that is not allowed to be stale.
        fence: the newest compacted revision that was read.
        pairs: by key, the last ``KeyValue`` read or written.
        leases: ids of leases granted and not yet revoked.
        puts: by revision, the value of each of the newest acknowledged puts.
    """

    def __init__(self) -> None:
        self.first = 0
        self.revision = 0
        self.acknowledged = 0
        self.fence = 0
        self.pairs: dict[bytes, KeyValue] = {}
        self.leases: list[int] = []
        self.puts: dict[int, bytes] = {}
        self._older: dict[int, bytes] = {}

    def contradicts(self, event: Event) -> bool:
        """Return whether a watch's event is of a revision that an acknowledged put of another value has."""
        revision, value = event.kv.mod_revision, event.kv.value
        return bool(self.puts.get(revision, value) != value or self._older.get(revision, value) != value)

    def learn(self, request: Request, operation: Operation, fence: bytes) -> None:
        """Take what was asked, how it ended, and the key of the fence."""
        if operation.outcome is not Outcome.OK:
            return
        answer = operation.response
        self.first = self.first or operation.revision
        self.revision = max(self.revision, operation.revision)
        if request.linear:
            self.acknowledged = max(self.acknowledged, operation.revision)
        message = request.message
        if isinstance(message, pb.PutRequest):
            if len(self.puts) == _KNOWN_PUTS:
                self._older, self.puts = self.puts, {}
            self.puts[operation.revision] = message.value
        elif isinstance(message, pb.RangeRequest) and not message.revision:
            for pair in answer.kvs:
                self.pairs[pair.key] = pair
                if pair.key == fence:
                    self.fence = max(self.fence, int(pair.value))
        elif request.f == "lease_grant":
            self.leases = [*self.leases[-_KNOWN_LEASES + 1 :], answer.ID]


class Traffic:
    """The requests of one user; two of equal shape, process and knowledge ask the same."""

    def __init__(self, shape: Shape, process: int, known: SeenStore) -> None:
        self._shape, self._known = shape, known
        self._rng = random.Random(f"{shape.seed}/{process}")
        self._numbers = itertools.count(1)
        self._stamp = b"%08x" % process
        self._fill = b"." * max(0, shape.value_size - 16)
        weights = {**shape.weights, **({"corrupt": 2.0} if shape.corrupting else {})}
        kinds = [kind for kind, weight in weights.items() if weight > 0]
        self._kinds: list[Callable[[], Request]] = [getattr(self, kind) for kind in kinds]
        self._bounds = list(itertools.accumulate(weights[kind] for kind in kinds))
        self._keys = [shape.key(number) for number in range(shape.keys)]
        self._end = bytes_prefix_end(shape.prefix)

    def next(self) -> Request:
        """Return the next request."""
        drawn = self._rng.random() * self._bounds[-1]
        return self._kinds[bisect_right(self._bounds, drawn)]()

    # ---- one key

    def put(self) -> Request:
        """Return a put of a new value; now and then with the previous pair asked for."""
        key = self._key()
        return Request("put", pb.PutRequest(key=key, value=self._value(), prev_kv=self._chance(0.1)), key)

    def get(self) -> Request:
        """Return a linearizable get."""
        key = self._key()
        return Request("get", pb.RangeRequest(key=key), key)

    def stale(self) -> Request:
        """Return a serializable get or range."""
        key = self._key()
        end = self._end if self._chance(0.1) else b""
        return Request("get", pb.RangeRequest(key=key, range_end=end, serializable=True), key, linear=False)

    def past(self) -> Request:
        """Return a get or a range at an older revision, of which some are compacted."""
        key = self._key()
        # Before there is a fence: what was there before the run may be compacted, and is not what it wrote.
        low = max(1, self._known.fence - 50 if self._known.fence else self._known.first)
        revision = self._rng.randint(low, max(low, self._known.revision))
        message = pb.RangeRequest(key=key, revision=revision)
        if self._chance(0.2):
            message.range_end, message.limit = self._end, 20
        return Request("range", message, key)

    def delete(self) -> Request:
        """Return a delete of one key."""
        key = self._key()
        return Request("delete", pb.DeleteRangeRequest(key=key, prev_kv=self._chance(0.3)), key)

    # ---- ranges

    def range(self) -> Request:
        """Return a range with some of a range's options."""
        first, end = self._span(20)
        draw = self._rng.random
        message = pb.RangeRequest(key=first, range_end=end, serializable=draw() < 0.3)
        if draw() < 0.3:
            message.limit = self._rng.randint(1, 10)
        if draw() < 0.1:
            message.count_only = True
        elif draw() < 0.1:
            message.keys_only = True
        if draw() < 0.1:
            message.sort_order = pb.RangeRequest.DESCEND
        return Request("range", message, first, linear=not message.serializable)

    def sweep(self) -> Request:
        """Return a delete of a few neighbouring keys."""
        first, end = self._span(4)
        return Request("delete", pb.DeleteRangeRequest(key=first, range_end=end, prev_kv=self._chance(0.3)), first)

    # ---- transactions

    def txn(self) -> Request:
        """Return a transaction with up to two compares, writes and reads in either branch."""
        keys = self._rng.sample(self._keys, min(6, len(self._keys)))
        compares = [self._compare(self._rng.choice(keys)) for _ in range(self._rng.randint(0, 2))]
        half = len(keys) // 2
        return Request("txn", pb.TxnRequest(
            compare=compares, success=self._branch(keys[:half]), failure=self._branch(keys[half:]),
        ), keys[0])  # fmt: skip

    def nested(self) -> Request:
        """Return a transaction with another one in each branch."""
        keys = self._rng.sample(self._keys, min(6, len(self._keys)))

        def inner(parts: list[bytes]) -> pb.RequestOp:
            half = len(parts) // 2
            return pb.RequestOp(request_txn=pb.TxnRequest(
                compare=[self._compare(self._rng.choice(keys))],
                success=self._branch(parts[:half]), failure=self._branch(parts[half:]),
            ))  # fmt: skip

        half = len(keys) // 2
        return Request("txn", pb.TxnRequest(
            compare=[self._compare(keys[0])],
            success=[put_op(keys[half - 1], self._value()), inner(keys[: half - 1])],
            failure=[inner(keys[half:])],
        ), keys[0])  # fmt: skip

    def past_txn(self) -> Request:
        """Return a transaction that reads at an older revision, above the fence, and writes."""
        fence, newest = self._known.fence, self._known.revision
        if not fence or newest <= fence:
            return self.fence()
        one, two = self._key(), self._key()
        read = pb.RangeRequest(key=one, revision=self._rng.randint(fence + 1, newest))
        return Request("txn", pb.TxnRequest(
            compare=[value_is(self._shape.fence, b"%d" % fence)],
            success=[pb.RequestOp(request_range=read), put_op(two, self._value())],
        ), two)  # fmt: skip

    def wide(self) -> Request:
        """Return a transaction whose compare ranges over many keys: the longer it takes, the more can come between."""
        compare = pb.Compare(result=pb.Compare.LESS, target=pb.Compare.MOD, mod_revision=1 << 60,
                             key=self._keys[0], range_end=self._shape.key(self._shape.wide_keys))  # fmt: skip
        key = self._key()
        return Request("txn", pb.TxnRequest(compare=[compare], success=[put_op(key, self._value())]), key)

    def corrupt(self) -> Request:
        """Return a transaction that reads a compacted revision and then writes: etcd#18667."""
        if self._known.fence < 2:
            return self.fence()
        key = self._key()
        read = pb.RangeRequest(key=key, revision=self._rng.randint(1, self._known.fence - 1))
        return Request("txn", pb.TxnRequest(
            success=[pb.RequestOp(request_range=read), put_op(key, self._value())],
        ), key)  # fmt: skip

    # ---- leases, and how far compactions may have come

    def lease(self) -> Request:
        """Return a new lease."""
        return Request("lease_grant", pb.LeaseGrantRequest(TTL=self._rng.choice(_LEASE_TTL)), linear=False)

    def attach(self) -> Request:
        """Return a put that attaches its key to a lease, which may have ended."""
        if not self._known.leases:
            return self.lease()
        key = self._key()
        lease = self._rng.choice(self._known.leases)
        return Request("put", pb.PutRequest(key=key, value=self._value(), lease=lease), key)

    def renew(self) -> Request:
        """Keep a lease alive once."""
        if not self._known.leases:
            return self.lease()
        lease = self._rng.choice(self._known.leases)
        return Request("lease_keepalive", pb.LeaseKeepAliveRequest(ID=lease), linear=False)

    def revoke(self) -> Request:
        """Return the end of a lease."""
        leases = self._known.leases
        if not leases:
            return self.lease()
        lease = leases.pop(self._rng.randrange(len(leases)))
        return Request("lease_revoke", pb.LeaseRevokeRequest(ID=lease), linear=False)

    def fence(self) -> Request:
        """Return a read of the fence."""
        return Request("get", pb.RangeRequest(key=self._shape.fence), self._shape.fence)

    # ---- parts

    def _chance(self, share: float) -> bool:
        return self._rng.random() < share

    def _key(self) -> bytes:
        return self._keys[int(self._rng.random() * len(self._keys))]

    def _value(self) -> bytes:
        return b"%b%08x%b" % (self._stamp, next(self._numbers), self._fill)

    def _span(self, most: int) -> tuple[bytes, bytes]:
        first = self._rng.randrange(len(self._keys))
        return self._keys[first], self._shape.key(first + self._rng.randint(1, most))

    def _branch(self, keys: list[bytes]) -> list[pb.RequestOp]:
        """Read and writes of these keys, each written once at the most: etcd refuses a second time."""
        draw, made = self._rng.random, []
        for key in keys:
            what = draw()
            if what < 0.5:
                made.append(put_op(key, self._value()))
            elif what < 0.65:
                made.append(delete_op(key))
            elif what < 0.9:
                first, end = self._span(5)
                made.append(pb.RequestOp(request_range=pb.RangeRequest(key=first, range_end=end)))
        return made

    def _compare(self, key: bytes) -> pb.Compare:
        """Return a compare that what was seen of the key makes true, or false, or neither."""
        seen = self._known.pairs.get(key)
        target = self._rng.choice(("value", "version", "create_revision", "mod_revision", "range", "lease"))
        result = self._rng.choice(_RESULTS)
        if target == "range":
            first, end = self._span(10)
            revision = self._rng.randint(0, self._known.revision)
            return pb.Compare(result=result, target=pb.Compare.MOD, key=first, range_end=end, mod_revision=revision)
        kinds = {"value": pb.Compare.VALUE, "version": pb.Compare.VERSION, "create_revision": pb.Compare.CREATE,
                 "mod_revision": pb.Compare.MOD, "lease": pb.Compare.LEASE}  # fmt: skip
        made = pb.Compare(result=result, target=kinds[target], key=key)
        setattr(made, target, getattr(seen, target) if seen is not None else b"" if target == "value" else 0)
        return made
