"""The decoded facts of every operation: its place in the order of revisions, and the member that answered."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Mapping
from functools import cached_property
from typing import TypedDict, TypeVar, cast

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from cluster.base.endpoint import Endpoint
from loadgen.check.answers import only_reads_stale, wrote
from loadgen.check.words import show
from loadgen.history.format import ANSWERED, FINAL, INFO, OK, Kind, Method
from loadgen.history.reader import History
from loadgen.proto import etcd_pb2 as pb

Numbers = NDArray[np.int64]
M = TypeVar("M", bound=Message)
_MOST_WRITES = 4
EMPTY, WRITE, MAYBE = 0, 1, 2
"""Whether an acknowledged operation took a revision; MAYBE: a lease's revocation did if the lease had keys."""
_WRITES = frozenset({Method.PUT, Method.DELETE_RANGE, Method.TXN, Method.LEASE_REVOKE})
_ORDERED = frozenset({*_WRITES, Method.RANGE, Method.COMPACT, Method.LEASE_GRANT})
_REQUESTS: dict[int, type[Message]] = {
    Method.RANGE: pb.RangeRequest, Method.PUT: pb.PutRequest, Method.DELETE_RANGE: pb.DeleteRangeRequest,
    Method.TXN: pb.TxnRequest, Method.COMPACT: pb.CompactionRequest, Method.LEASE_GRANT: pb.LeaseGrantRequest,
    Method.LEASE_REVOKE: pb.LeaseRevokeRequest, Method.LEASE_KEEP_ALIVE: pb.LeaseKeepAliveRequest,
    Method.HASH_KV: pb.HashKVRequest,
}  # fmt: skip
_NAMES = {
    Method.RANGE: "get", Method.PUT: "put", Method.DELETE_RANGE: "delete", Method.TXN: "transaction",
    Method.COMPACT: "compaction", Method.LEASE_GRANT: "lease grant", Method.LEASE_REVOKE: "lease revocation",
    Method.LEASE_KEEP_ALIVE: "lease keep-alive", Method.STATUS: "status", Method.HASH_KV: "hash",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """What the history says of the cluster, in its ``cluster`` marker.

    Attributes:
        known: whether there is one. Without it nothing is known of what the store held before.
        prefix: of the run's keys; there were none with it before.
        revision: the store's before the first operation.
        exclusive: nobody else writes, so every revision after that one must be explained.
        watched: the run was to watch its keys.
        names: of the members, by id; none of those behind a proxy.
        versions: of the members, by id; of one of those behind a proxy.
        places: the members' names by endpoint, as a URL.
        proxies: the endpoints, as URLs, at which an `etcd grpc-proxy` answers, for any member behind it.
    """

    known: bool
    prefix: bytes
    revision: int
    exclusive: bool
    watched: bool
    names: dict[int, str]
    versions: dict[int, str]
    places: dict[str, str]
    proxies: frozenset[str]

    @property
    def only_proxies(self) -> bool:
        """Whether no member was asked itself."""
        return bool(self.proxies) and self.proxies == self.places.keys()


class Evidence:
    """The operations of a history, decoded so far as their place goes.

    Attributes:
        history: where they are from.
        cluster: see Cluster.
        rows: of the operations in the history; everything below is by operation, in this order.
        method, outcome, call, back, final: as recorded; ``back`` is the return time.
        revision: of the answer's header, 0 where there is none.
        member: the id of who answered, 0 where nobody did.
        writes: EMPTY, WRITE or MAYBE.
        ordered: whether its revision must agree with real time (false: a serializable read, or no matter of the log).
        at: the revision whose state it tells of: ``revision`` unless it asked for a past one.
        epoch: the first call's time; times are told from there.
        clocks: the clock of each operation's times, as a small number.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.cluster = _cluster(history)
        kinds = history.rows["kind"]
        self.rows: NDArray[np.int64] = np.flatnonzero(kinds == Kind.OPERATION)
        heads = history.rows[self.rows]
        self.method, self.outcome = heads["method"].copy(), heads["outcome"].copy()
        self.call, self.back = heads["call_ns"].copy(), heads["return_ns"].copy()
        self.final = (heads["flags"] & FINAL) != 0
        self.answered = (heads["flags"] & ANSWERED) != 0
        self.process = heads["process"].copy()
        count = len(self.rows)
        names = {name: number for number, name in enumerate(sorted({_clock(part.header) for part in history.parts}))}
        by_part = np.array([names[_clock(part.header)] for part in history.parts], np.int32)
        self.clock_of_part = by_part
        self.clocks = by_part[history.part[self.rows]]
        started = history.rows["call_ns"][kinds != Kind.HEADER]
        self.epoch = int(self.call.min(initial=2**62) if count else started.min(initial=0))
        self._decode()

    def _decode(self) -> None:
        header_of, range_of = pb.ResponseHeader.FromString, pb.RangeRequest.FromString
        count = len(self.rows)
        revisions, ats, members = (array(kind, bytes(8 * count)) for kind in "qqQ")
        writes, ordered = bytearray(count), bytearray(count)
        methods, outcomes = self.method.tobytes(), self.outcome.tobytes()
        put, get = int(Method.PUT), int(Method.RANGE)
        for number, (request, response) in enumerate(self.history.payloads(self.rows)):
            if outcomes[number] != OK:
                continue
            method = methods[number]
            # The header stands first in every answer of etcd (field 1), and is shorter than 128 bytes.
            if response[:1] != b"\x0a":
                continue
            header = header_of(response[2 : 2 + response[1]])
            revision = header.revision
            revisions[number] = revision
            members[number] = header.member_id
            ats[number] = revision
            if method == put:
                writes[number], ordered[number] = WRITE, True
            elif method == get:
                asked = range_of(request)
                ordered[number] = not asked.serializable
                if asked.revision > 0:
                    ats[number] = asked.revision
            elif method == Method.TXN:
                ordered[number] = True
                if wrote(pb.TxnResponse.FromString(response)):
                    writes[number] = WRITE
                elif only_reads_stale(pb.TxnRequest.FromString(request)):
                    ordered[number] = False
            elif method == Method.DELETE_RANGE:
                ordered[number] = True
                writes[number] = WRITE if pb.DeleteRangeResponse.FromString(response).deleted else EMPTY
            elif method in _ORDERED:
                ordered[number] = True
                writes[number] = MAYBE if method == Method.LEASE_REVOKE else EMPTY
        self.revision: Numbers = np.frombuffer(revisions, np.int64)
        self.at: Numbers = np.frombuffer(ats, np.int64)
        self.member: NDArray[np.uint64] = np.frombuffer(members, np.uint64)
        self.writes: NDArray[np.uint8] = np.frombuffer(writes, np.uint8)
        self.ordered: NDArray[np.bool_] = np.frombuffer(ordered, np.bool_)

    # ---- one operation

    def request(self, number: int, kind: type[M]) -> M:
        """Return an operation's request, decoded as what its method takes."""
        return kind.FromString(self.history.request(int(self.rows[number])))

    def response(self, number: int, kind: type[M]) -> M:
        """Return an operation's answer, decoded as what its method gives; it must be OK."""
        return kind.FromString(self.history.response(int(self.rows[number])))

    def error(self, number: int) -> str:
        """Return the error of an operation that did not succeed."""
        return self.history.response(int(self.rows[number])).decode(errors="replace")

    @cached_property
    def proxied(self) -> NDArray[np.bool_]:
        """Whether each operation went through an `etcd grpc-proxy`."""
        if not self.cluster.proxies:
            return np.zeros(len(self.rows), np.bool_)
        asked = [self.history.endpoint(row) in self.cluster.proxies for row in self.rows.tolist()]
        return np.array(asked, np.bool_)

    def unknown(self) -> list[int]:
        """Return the writes of unknown effect."""
        of_writes = np.isin(self.method, list(_WRITES))
        numbers: list[int] = np.flatnonzero((self.outcome == INFO) & of_writes).tolist()
        return numbers

    # ---- words

    def time(self, ns: int) -> str:
        """Return a time as seconds after the first call."""
        return f"{(ns - self.epoch) / 1e9:.6f} s"

    def nearest_fault(self, revision: int) -> str | None:
        """Return the last fault that began before a revision was first seen, in words; None where nobody can say.

        A fault that came later is no cause of what was seen.
        """
        seen = self.back[(self.outcome == OK) & (self.revision >= revision)]
        faults = self.history.faults()
        if not len(seen) or not faults or len(set(self.clock_of_part.tolist())) > 1:
            return None
        at_ns = int(seen.min())
        before = [fault for fault in faults if fault.began_ns <= at_ns]
        if not before:
            return None
        last = max(before, key=lambda fault: fault.began_ns)
        end = f"{self.time(last.began_ns)} to " + ("the end" if last.healed_ns is None else self.time(last.healed_ns))
        return f"{last.name}, {', '.join(last.members)} ({end})" if last.members else f"{last.name} ({end})"

    def member_name(self, member: int) -> str:
        """Return a member's name, or its id in hexadecimal."""
        return self.cluster.names.get(member) or f"{member:x}"

    def words(self, number: int) -> str:
        """Return an operation in words: what, by whom, when, where, and what came of it."""
        method = int(self.method[number])
        row = int(self.rows[number])
        what = _NAMES.get(Method(method), "request")
        if method in _REQUESTS:
            what += _arguments(self.request(number, _REQUESTS[method]))
        member = int(self.member[number])
        endpoint = self.history.endpoint(row)
        endpoint = self.cluster.places.get(endpoint) or endpoint
        whom = f" at {self.member_name(member)}" if member else (f" at {endpoint}" if endpoint else "")
        span = f"{self.time(int(self.call[number]))} to {self.time(int(self.back[number]))}"
        end = {OK: f"revision {int(self.revision[number])}", INFO: f"unknown outcome: {self.error(number)}"}.get(
            int(self.outcome[number]), f"refused: {self.error(number)}" if self.outcome[number] else ""
        )
        return f"{what} by process {int(self.process[number])}{whom} ({span}, {end})"


def _arguments(request: Message) -> str:
    if isinstance(request, pb.TxnRequest):
        count = len(request.compare)
        compares = f" with {count} compare{'s' * (count != 1)}" if count else ""
        writes = [_write(each) for branch in (request.success, request.failure) for each in branch]
        writes = [words for words in writes if words]
        more = ", …" if len(writes) > _MOST_WRITES else ""
        return compares + (f" that may {', '.join(writes[:_MOST_WRITES])}{more}" if writes else "")
    if isinstance(request, pb.PutRequest):
        lease = f" with lease {request.lease:x}" if request.lease else ""
        return f" {show(request.key)}={show(request.value)}{lease}"
    if isinstance(request, pb.RangeRequest | pb.DeleteRangeRequest):
        end = request.range_end
        text = f" [{show(request.key)}, {show(end)})" if end else f" {show(request.key)}"
        if isinstance(request, pb.RangeRequest):
            text += f" at revision {request.revision}" if request.revision else ""
            text = (" serializable" if request.serializable else "") + text
        return text
    if isinstance(request, pb.CompactionRequest):
        return f" to revision {request.revision}"
    if isinstance(request, pb.LeaseGrantRequest | pb.LeaseRevokeRequest | pb.LeaseKeepAliveRequest):
        return f" of lease {request.ID:x}"
    return ""


def _write(op: pb.RequestOp) -> str:
    """Return what an operation of a transaction writes, in words; empty where it writes nothing."""
    if op.HasField("request_put"):
        return f"put {show(op.request_put.key)}={show(op.request_put.value)}"
    if op.HasField("request_delete_range"):
        return f"delete{_arguments(op.request_delete_range)}"
    return ""


def _clock(header: Mapping[str, object]) -> str:
    return str(header.get("clock", ""))


class ClusterMember(TypedDict, total=False):
    """A member in the details of a ``cluster`` marker; ``id`` is hexadecimal."""

    id: str
    name: str
    endpoint: str
    version: str
    proxy: bool


class ClusterDetails(TypedDict, total=False):
    """The details of a ``cluster`` marker."""

    members: list[ClusterMember]
    prefix: str
    revision: int
    exclusive: bool
    watched: bool


def _url(member: ClusterMember) -> str:
    """Return a member's endpoint as operations have it; the marker has it as somebody wrote it."""
    written = str(member.get("endpoint", ""))
    try:
        return str(Endpoint.parse(written))
    except ValueError:
        return written


def _cluster(history: History) -> Cluster:
    for marker in history.markers:
        if marker.name == "cluster":
            about = cast("ClusterDetails", marker.details)
            everybody = about.get("members", ())
            members = {int(str(each["id"]), 16): each for each in everybody}
            return Cluster(
                known=True,
                prefix=str(about.get("prefix", "")).encode("latin-1"),
                revision=int(about.get("revision", 0)),
                exclusive=bool(about.get("exclusive", False)),
                watched=bool(about.get("watched", True)),
                names={n: str(each.get("name", "")) for n, each in members.items() if not each.get("proxy")},
                versions={number: str(each.get("version", "")) for number, each in members.items()},
                places={_url(each): str(each.get("name", "")) for each in everybody},
                proxies=frozenset(_url(each) for each in everybody if each.get("proxy")),
            )
    return Cluster(False, b"", 0, False, True, {}, {}, {}, frozenset())
