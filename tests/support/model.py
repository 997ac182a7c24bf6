"""A small etcd to make histories with: three members that agree, or do not where a test says so.

It is written apart from the checker's store, and on purpose in another way: the whole state of each revision is kept
as a dictionary of its own, and every range is a scan of all keys.
"""

from __future__ import annotations

import dataclasses
import os
import random
from pathlib import Path
from typing import Any

from loadgen.history.operation import Outcome
from loadgen.history.writer import HistoryWriter
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto import kv_pb2

KV, LEASE, MAINTENANCE = "/etcdserverpb.KV/", "/etcdserverpb.Lease/", "/etcdserverpb.Maintenance/"
PATHS = {
    pb.RangeRequest: KV + "Range", pb.PutRequest: KV + "Put", pb.DeleteRangeRequest: KV + "DeleteRange",
    pb.TxnRequest: KV + "Txn", pb.CompactionRequest: KV + "Compact", pb.LeaseGrantRequest: LEASE + "LeaseGrant",
    pb.LeaseRevokeRequest: LEASE + "LeaseRevoke", pb.LeaseKeepAliveRequest: LEASE + "LeaseKeepAlive",
    pb.StatusRequest: MAINTENANCE + "Status", pb.HashKVRequest: MAINTENANCE + "HashKV",
}  # fmt: skip
MEMBERS = (0xA1, 0xB2, 0xC3)
NAMES = ("a", "b", "c")
PREFIX = b"p/"
MS = 1_000_000
State = dict[bytes, kv_pb2.KeyValue]


class Model:
    """The state of every revision. Revision 1 is the empty store, as etcd has it."""

    def __init__(self) -> None:
        self.states: list[State] = [{}, {}]
        self.events: list[list[kv_pb2.Event]] = [[], []]
        self.compacted = 0

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    def apply(self, request: Any) -> Any:
        """Do a request; return its answer, whose header has the revision alone; None where it is refused."""
        state, events = dict(self.states[-1]), []
        answer = self._do(request, state, events)
        if answer is None:
            return None
        if events:
            self.states.append(state)
            self.events.append(events)
        answer.header.revision = self.revision
        return answer

    def expire(self, lease: int) -> None:
        """End a lease."""
        self.apply(pb.LeaseRevokeRequest(ID=lease))

    def read(self, request: pb.RangeRequest, at: int) -> pb.RangeResponse:
        """Answers a range as a member that has come as far as a revision."""
        answer = scan(request, self.states[request.revision or at])
        answer.header.revision = at
        return answer

    def _do(self, request: Any, state: State, events: list[kv_pb2.Event]) -> Any:
        revision = self.revision + 1
        if isinstance(request, pb.PutRequest):
            old = state.get(request.key)
            new = kv_pb2.KeyValue(
                key=request.key, value=request.value, lease=request.lease, mod_revision=revision,
                create_revision=old.create_revision if old else revision, version=old.version + 1 if old else 1,
            )  # fmt: skip
            state[request.key] = new
            events.append(kv_pb2.Event(type=kv_pb2.Event.PUT, kv=new, prev_kv=old))
            return pb.PutResponse(prev_kv=old if request.prev_kv else None, header=pb.ResponseHeader())
        if isinstance(request, pb.DeleteRangeRequest):
            gone = [state.pop(key) for key in inside(request, state)]
            events.extend(deletion(old, revision) for old in gone)
            return pb.DeleteRangeResponse(
                deleted=len(gone), prev_kvs=gone if request.prev_kv else [], header=pb.ResponseHeader()
            )
        if isinstance(request, pb.LeaseRevokeRequest):
            keys = sorted(key for key, kv in state.items() if kv.lease == request.ID)
            events.extend(deletion(state.pop(key), revision) for key in keys)
            return pb.LeaseRevokeResponse(header=pb.ResponseHeader())
        if isinstance(request, pb.RangeRequest):
            return scan(request, self.states[request.revision] if request.revision else state)
        if isinstance(request, pb.TxnRequest):
            return self._txn(request, state, dict(state), events)
        if isinstance(request, pb.CompactionRequest):
            self.compacted = max(self.compacted, request.revision)
            return pb.CompactionResponse(header=pb.ResponseHeader())
        if isinstance(request, pb.LeaseGrantRequest):
            return pb.LeaseGrantResponse(ID=request.ID, TTL=request.TTL, header=pb.ResponseHeader())
        if isinstance(request, pb.LeaseKeepAliveRequest):
            return pb.LeaseKeepAliveResponse(ID=request.ID, TTL=2, header=pb.ResponseHeader())
        raise TypeError(type(request))

    def _txn(self, request: pb.TxnRequest, state: State, before: State, events: list[kv_pb2.Event]) -> pb.TxnResponse:
        held = all(holds(compare, before) for compare in request.compare)
        answer = pb.TxnResponse(succeeded=held, header=pb.ResponseHeader())
        for operation in request.success if held else request.failure:
            kind = operation.WhichOneof("request")
            inner = getattr(operation, kind)
            if kind == "request_txn":
                done: Any = self._txn(inner, state, before, events)
            else:
                done = self._do(inner, state, events)
            part = pb.ResponseOp()
            getattr(part, kind.replace("request", "response")).CopyFrom(done)
            answer.responses.append(part)
        return answer


def deletion(old: kv_pb2.KeyValue, revision: int) -> kv_pb2.Event:
    gone = kv_pb2.KeyValue(key=old.key, mod_revision=revision)
    return kv_pb2.Event(type=kv_pb2.Event.DELETE, kv=gone, prev_kv=old)


def inside(request: Any, keys: Any) -> list[bytes]:
    """Return the keys of a range, by looking at every one."""
    low, end = request.key, request.range_end
    return sorted(key for key in keys if (key == low if not end else key >= low and (end == b"\0" or key < end)))


def holds(compare: pb.Compare, state: State) -> bool:
    """One compare of a transaction, by looking at every key."""
    field = str(compare.WhichOneof("target_union") or "version")
    kvs = [state[key] for key in inside(compare, state)]
    if not kvs:
        if field == "value":
            return False
        kvs = [kv_pb2.KeyValue()]
    signs = {
        pb.Compare.EQUAL: {0}, pb.Compare.NOT_EQUAL: {-1, 1}, pb.Compare.GREATER: {1}, pb.Compare.LESS: {-1},
    }[compare.result]  # fmt: skip
    wanted = getattr(compare, field)
    return all(((getattr(kv, field) > wanted) - (getattr(kv, field) < wanted)) in signs for kv in kvs)


def scan(request: pb.RangeRequest, state: State) -> pb.RangeResponse:
    """Return a range, by looking at every key."""
    kvs = [state[key] for key in inside(request, state)]
    answer = pb.RangeResponse(count=len(kvs), header=pb.ResponseHeader())
    if request.count_only:
        return answer
    if request.min_mod_revision:
        kvs = [kv for kv in kvs if kv.mod_revision >= request.min_mod_revision]
    if request.sort_order == pb.RangeRequest.DESCEND:
        kvs.reverse()
    if request.limit and len(kvs) > request.limit:
        kvs, answer.more = kvs[: request.limit], True
    for kv in kvs:
        answer.kvs.append(kv)
        if request.keys_only:
            answer.kvs[-1].value = b""
    return answer


@dataclasses.dataclass
class Op:
    """One operation of a history that a test may still change. Times in nanoseconds."""

    process: int
    call: int
    back: int
    request: Any
    response: Any = None
    outcome: Outcome = Outcome.OK
    member: int = 0
    error: str = ""
    final: bool = False
    effect: int = 0


@dataclasses.dataclass
class Stream:
    """One watch stream: what was sent and what came, with times."""

    member: int
    entries: list[tuple[int, Any]] = dataclasses.field(default_factory=list)

    def events(self) -> list[tuple[int, pb.WatchResponse]]:
        """Return the answers that hold events, with their places."""
        return [
            (place, message)
            for place, (_, message) in enumerate(self.entries)
            if isinstance(message, pb.WatchResponse) and message.events
        ]

    def holding(self, revision: int) -> pb.WatchResponse:
        """Return the answer that holds a revision's events."""
        return next(each for _, each in self.events() if any(e.kv.mod_revision == revision for e in each.events))


@dataclasses.dataclass
class Script:
    """A history before it is written: what a test changes to plant something.

    Attributes: ``proxy``, the endpoint of an `etcd grpc-proxy` through which everything was asked; empty without one.
    """

    model: Model
    ops: list[Op]
    streams: list[Stream]
    exclusive: bool = True
    markers: list[tuple[str, int, dict[str, Any]]] = dataclasses.field(default_factory=list)
    cut: bool = False
    version: str = "3.5.30"
    proxy: str = ""

    def write(self, folder: Path) -> Path:
        """Write it as one file; return the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        writer = HistoryWriter(folder / "w0.hist", clock="test")
        members = [
            {"id": f"{member:x}", "name": name, "version": self.version}
            for member, name in zip(MEMBERS, NAMES, strict=True)
        ]
        if self.proxy:
            members = [{**members[0], "name": self.proxy, "endpoint": self.proxy, "proxy": True}]
        writer.marker("cluster", 1, prefix=PREFIX.decode(), revision=1, exclusive=self.exclusive, members=members)
        for name, at, details in self.markers:
            writer.marker(name, at, **details)
        for op in self.ops:
            writer.set_final(op.final)
            ok = op.outcome == Outcome.OK
            if ok:
                header = op.response.header
                header.member_id, header.raft_term, header.cluster_id = MEMBERS[op.member], 2, 1 << 63
            writer.operation(
                PATHS[type(op.request)].encode(), op.process, op.call, op.call, op.back, op.outcome,
                op.request.SerializeToString(), op.response.SerializeToString() if ok else op.error.encode(),
                code=0 if ok else 11 if op.outcome == Outcome.FAIL else 4, answered=op.outcome != Outcome.INFO,
                endpoint=writer.endpoint(self.proxy) if self.proxy else 0,
            )  # fmt: skip
        for number, stream in enumerate(self.streams):
            for at, message in stream.entries:
                if isinstance(message, pb.WatchRequest):
                    writer.watch_sent(number, at, message.SerializeToString())
                else:
                    message.header.member_id = MEMBERS[stream.member]
                    writer.watch_received(number, at, message.SerializeToString())
        writer.flush()
        size = writer.path.stat().st_size
        writer.close()
        if self.cut:
            os.truncate(writer.path, size)
        return folder


class Simulation:
    """Processes that call at random times, operations that take effect between call and return, members that lag.

    ``unknown`` is the share of answers that get lost, ``weights`` those of puts, gets, ranges, deletes, transactions
    and reads of the past.
    """

    def __init__(
        self,
        seed: int,
        *,
        processes: int = 4,
        unknown: float = 0.05,
        keys: int = 6,
        weights: tuple[int, ...] = (6, 4, 2, 1, 4, 1),
    ) -> None:
        self.random = random.Random(seed)
        self._weights = weights
        self._unknown = unknown
        self._processes = processes
        self._keys = [PREFIX + b"k%d" % n for n in range(keys)]
        self._value = 0

    def run(self, count: int) -> Script:
        """Make a history of ``count`` operations and its watches and final reads."""
        draw = self.random
        model = Model()
        ops: list[Op] = []
        free = dict.fromkeys(range(self._processes), 10 * MS)
        for _ in range(count):
            process = min(free, key=lambda each: (free[each], each))
            call = free[process] + draw.randrange(MS)
            back = call + draw.randrange(1000, 3 * MS)
            op = Op(process, call, back, None, member=draw.randrange(3), effect=draw.randrange(call + 1, back))
            if draw.random() < self._unknown:
                op.outcome, op.error = Outcome.INFO, "DEADLINE_EXCEEDED"
                op.effect = 0 if draw.random() < 0.5 else draw.randrange(call + 1, back + 5 * MS)
            ops.append(op)
            free[process] = back + draw.randrange(1000, MS)
        end = max(op.back for op in ops) + 10 * MS
        reached = [1, 1, 1]
        when: list[int] = [0, 0]
        for op in sorted(ops, key=lambda op: op.effect or op.call):
            op.request = self._request(model, op.effect or op.call)
            if op.outcome == Outcome.INFO and isinstance(op.request, pb.RangeRequest):
                op.outcome, op.error = Outcome.FAIL, "DEADLINE_EXCEEDED"
                continue
            if not op.effect:
                continue
            if isinstance(op.request, pb.RangeRequest) and op.request.serializable:
                behind = draw.randrange(3)
                reached[op.member] = max(reached[op.member], model.revision - behind)
                op.response = model.read(op.request, reached[op.member])
                continue
            op.response = model.apply(op.request)
            while len(when) <= model.revision:
                when.append(op.effect)
            reached[op.member] = model.revision
        ops.sort(key=lambda op: op.back)
        streams = [self._stream(model, member, when, end) for member in range(3)]
        for member in range(3):
            ops += final(model, member, end + 100 * MS)
        return Script(model, ops, streams)

    def value(self) -> bytes:
        """Return a value that no other put has."""
        self._value += 1
        return b"value-%d" % self._value

    def _request(self, model: Model, _: int) -> Any:
        draw = self.random
        key = draw.choice(self._keys)
        kind = draw.choices(("put", "get", "range", "delete", "txn", "past"), self._weights)[0]
        if kind == "put":
            return pb.PutRequest(key=key, value=self.value(), prev_kv=draw.random() < 0.5)
        if kind == "get":
            return pb.RangeRequest(key=key, serializable=draw.random() < 0.4)
        if kind == "range":
            return pb.RangeRequest(
                key=PREFIX, range_end=b"p0", limit=draw.choice((0, 0, 2)), count_only=draw.random() < 0.2,
                keys_only=draw.random() < 0.2, serializable=draw.random() < 0.3,
                sort_order=draw.choice((pb.RangeRequest.NONE, pb.RangeRequest.DESCEND)),
            )  # fmt: skip
        if kind == "delete":
            return pb.DeleteRangeRequest(key=key, range_end=draw.choice((b"", b"", b"p/k4")), prev_kv=True)
        if kind == "past":
            return pb.RangeRequest(key=key, revision=draw.randrange(max(1, model.revision - 5), model.revision + 1))
        return self._txn(model, 2)

    def _txn(self, model: Model, depth: int) -> pb.TxnRequest:
        draw = self.random
        keys = draw.sample(self._keys, 3)
        state = model.states[-1]
        kv = state.get(keys[0], kv_pb2.KeyValue())
        compare = [
            pb.Compare(target=pb.Compare.MOD, key=keys[0], mod_revision=kv.mod_revision + draw.choice((0, 0, 1)))
        ]
        if draw.random() < 0.3:
            compare.append(
                pb.Compare(
                    target=pb.Compare.VERSION,
                    result=pb.Compare.LESS,
                    key=PREFIX,
                    range_end=b"p0",
                    version=draw.randrange(1, 9),
                )
            )
        success = [pb.RequestOp(request_put=pb.PutRequest(key=each, value=self.value())) for each in keys[:2]]
        success.append(pb.RequestOp(request_range=pb.RangeRequest(key=PREFIX, range_end=b"p0")))
        failure = [pb.RequestOp(request_range=pb.RangeRequest(key=keys[0]))]
        if draw.random() < 0.2:
            failure.append(pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=keys[2])))
        if depth > 1 and draw.random() < 0.3:
            failure.append(pb.RequestOp(request_txn=self._txn(model, depth - 1)))
            del failure[1:-1]
        return pb.TxnRequest(compare=compare, success=success, failure=failure)

    def _stream(self, model: Model, member: int, when: list[int], end: int) -> Stream:
        """Return a watch of everything from revision 1 on, with previous values, that is told of its progress."""
        create = pb.WatchRequest(
            create_request=pb.WatchCreateRequest(key=PREFIX, range_end=b"p0", start_revision=2, prev_kv=True)
        )
        created = pb.WatchResponse(created=True, header=pb.ResponseHeader(revision=1))
        stream = Stream(member, [(1000, create), (2000, created)])
        at, revision = 0, 2
        while revision <= model.revision:
            upto = min(model.revision, revision + self.random.choice((0, 0, 0, 1, 3)))
            at = max(at, when[upto]) + self.random.randrange(1, MS)
            answer = pb.WatchResponse(header=pb.ResponseHeader(revision=upto))
            for each in range(revision, upto + 1):
                answer.events.extend(model.events[each])
            if answer.events:
                stream.entries.append((at, answer))
            if self.random.random() < 0.2:
                stream.entries.append((at + 1, pb.WatchResponse(watch_id=-1, header=pb.ResponseHeader(revision=upto))))
            revision = upto + 1
        last = pb.WatchResponse(watch_id=-1, header=pb.ResponseHeader(revision=model.revision))
        stream.entries.append((max(end, at + 2), last))
        return stream


def final(model: Model, member: int, at: int) -> list[Op]:
    """Return the final reads of one member."""
    revision = model.revision
    header = pb.ResponseHeader(revision=revision)
    everything = pb.RangeRequest(key=PREFIX, range_end=b"p0", serializable=True)
    return [
        Op(99, at, at + 1, request, response, member=member, final=True)
        for request, response in (
            (pb.StatusRequest(), pb.StatusResponse(header=header, raftAppliedIndex=1000, raftTerm=2)),
            (pb.HashKVRequest(revision=revision), pb.HashKVResponse(header=header, hash=0xABCD, compact_revision=-1)),
            (everything, model.read(everything, revision)),
        )
    ]
