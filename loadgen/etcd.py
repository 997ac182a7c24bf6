"""etcd over native gRPC: one method per request, an ``Operation`` for every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import gevent
from google.protobuf.message import DecodeError

from cluster.security import PLAIN_SPOKEN, TLS_FAILED, Security
from loadgen import encode
from loadgen.balance import Balance
from loadgen.causes import CLOSED, NO_ANSWER, NOT_ETCD, TLS_SPOKEN, ConnectError, speaks_tls
from loadgen.channel import STATUS, Channel, login_of, tls_options
from loadgen.endpoint import Endpoint
from loadgen.kv import classify
from loadgen.operation import Operation, Outcome
from loadgen.proto import etcd_pb2 as pb
from loadgen.transport import Transport
from loadgen.watch import Watch, Watcher
from loadgen.wire import Code, LocalError, Stream

if TYPE_CHECKING:
    from loadgen.history.writer import HistoryWriter

RANGE = b"/etcdserverpb.KV/Range"
PUT = b"/etcdserverpb.KV/Put"
DELETE_RANGE = b"/etcdserverpb.KV/DeleteRange"
TXN = b"/etcdserverpb.KV/Txn"
COMPACT = b"/etcdserverpb.KV/Compact"
HASH_KV = b"/etcdserverpb.Maintenance/HashKV"
MEMBER_LIST = b"/etcdserverpb.Cluster/MemberList"

MALFORMED = "malformed answer"
KILLED = "killed"
_NAMES = {int(code): code.name for code in Code}
_OK = Outcome.OK

_range_answer = pb.RangeResponse.FromString
_put_answer = pb.PutResponse.FromString
_delete_answer = pb.DeleteRangeResponse.FromString
_txn_answer = pb.TxnResponse.FromString


class EtcdClient:
    """A client for any number of greenlets of one process. Connects at the first call; open it after a fork.

    Takes the endpoints, the time that a call may take in seconds, the connections to each endpoint, ``abandoned``: it
    is given the INFO operation of a greenlet that is killed while it waits, before the kill goes on; and ``history``,
    which every call is recorded in, as sent and as answered.
    Raises ValueError for a malformed endpoint. Methods raise nothing for what etcd or the network do: that is in the
    operation. ``channel`` holds the counters.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        timeout_s: float = 5.0,
        connections: int = 1,
        security: Security | None = None,
        balance: Balance = "round-robin",
        abandoned: Callable[[Operation], None] | None = None,
        history: HistoryWriter | None = None,
    ) -> None:
        if timeout_s <= 0:
            raise ValueError(f"timeout must be positive, not {timeout_s}")
        self.channel = Channel(endpoints, connections=connections, security=security, balance=balance)
        self._security = security
        self._timeout_s = timeout_s
        self._timeout_ns = int(timeout_s * 1e9)
        self._abandoned = abandoned
        self._history = history
        # With one endpoint it is known who was asked, also where nobody answered.
        self._asked = history.endpoint(str(self.channel.endpoints[0])) if history and len(endpoints) == 1 else 0
        self._call = self.channel.call
        self._endpoints = list(endpoints)
        self._apart: dict[str, Channel] = {}
        self._watchers: dict[str, Watcher] = {}
        self._streams: list[Channel] = []
        self._closed = False

    def close(self) -> None:
        """Closes the connections; calls that wait end. May be called again."""
        self._closed = True
        for watcher in self._watchers.values():
            watcher.close()
        for channel in (self.channel, *self._apart.values(), *self._streams):
            channel.close()

    # ---- keys and values

    def put(self, key: bytes, value: bytes, *, process: int = 0, due_ns: int = 0, lease: int = 0) -> Operation:
        """Writes a value. ``response`` is a ``PutResponse``."""
        return self._run(PUT, encode.put(key, value, lease), _put_answer, "put", key, value, process, due_ns)

    def get(
        self, key: bytes, *, serializable: bool = False, revision: int = 0, process: int = 0, due_ns: int = 0
    ) -> Operation:
        """Reads one key, linearizably unless ``serializable``. ``response`` is a ``RangeResponse``."""
        request = encode.get(key, serializable, revision)
        return self._run(RANGE, request, _range_answer, "get", key, None, process, due_ns)

    def range(
        self,
        key: bytes,
        range_end: bytes,
        *,
        limit: int = 0,
        count_only: bool = False,
        keys_only: bool = False,
        serializable: bool = False,
        revision: int = 0,
        process: int = 0,
        due_ns: int = 0,
    ) -> Operation:
        """Reads the keys from ``key`` up to, not including, ``range_end``. ``response`` is a ``RangeResponse``."""
        request = pb.RangeRequest(
            key=key,
            range_end=range_end,
            limit=limit,
            count_only=count_only,
            keys_only=keys_only,
            serializable=serializable,
            revision=revision,
        ).SerializeToString()
        return self._run(RANGE, request, _range_answer, "range", key, None, process, due_ns)

    def delete(self, key: bytes, range_end: bytes = b"", *, process: int = 0, due_ns: int = 0) -> Operation:
        """Deletes a key, or a range of them. ``response`` is a ``DeleteRangeResponse``."""
        request = pb.DeleteRangeRequest(key=key, range_end=range_end).SerializeToString()
        return self._run(DELETE_RANGE, request, _delete_answer, "delete", key, None, process, due_ns)

    def txn(
        self,
        compare: Sequence[pb.Compare],
        success: Sequence[pb.RequestOp],
        failure: Sequence[pb.RequestOp] = (),
        *,
        process: int = 0,
        due_ns: int = 0,
    ) -> Operation:
        """If all of ``compare`` hold does ``success``, else ``failure``. ``response`` is a ``TxnResponse``.

        The parts are made by the functions in ``loadgen.kv``.
        """
        request = pb.TxnRequest(compare=compare, success=success, failure=failure).SerializeToString()
        key = compare[0].key if compare else b""
        return self._run(TXN, request, _txn_answer, "txn", key, None, process, due_ns)

    def cas(self, key: bytes, value: bytes, mod_revision: int, *, process: int = 0, due_ns: int = 0) -> Operation:
        """Writes ``value`` if the key was last written at ``mod_revision`` (0: does not exist), else reads it.

        ``response`` is a ``TxnResponse``; its ``succeeded`` says which.
        """
        request = encode.cas(key, value, mod_revision)
        return self._run(TXN, request, _txn_answer, "txn", key, value, process, due_ns)

    def compact(self, revision: int, *, physical: bool = False) -> Operation:
        """Drops the history before ``revision``. ``response`` is a ``CompactionResponse``."""
        request = pb.CompactionRequest(revision=revision, physical=physical).SerializeToString()
        return self._run(COMPACT, request, pb.CompactionResponse.FromString, "compact", b"", None, 0, 0)

    # ---- watches

    def watch(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        start_revision: int = 0,
        prev_kv: bool = False,
        progress_notify: bool = False,
        fragment: bool = False,
        filters: Sequence[pb.WatchCreateRequest.FilterType] = (),
        watch_id: int = 0,
        endpoint: str = "",
    ) -> Watch:
        """Watches a key or a range, in the terms of ``Watcher.watch``; at one endpoint where it is named.

        All such watches of a client share one stream, or one an endpoint, on a connection apart from the calls'.
        """
        watcher = self._watchers.get(endpoint)
        if watcher is None:
            watcher = self._watchers[endpoint] = self.watcher(endpoint)
        return watcher.watch(
            key,
            range_end,
            start_revision=start_revision,
            prev_kv=prev_kv,
            progress_notify=progress_notify,
            fragment=fragment,
            filters=filters,
            watch_id=watch_id,
        )

    def watcher(self, endpoint: str = "") -> Watcher:
        """Returns a stream for watches of its own, at any endpoint or at the one that is named."""
        channel = Channel([endpoint] if endpoint else self._endpoints)
        self._streams.append(channel)
        if self._closed:
            channel.close()
        return Watcher(channel, self._timeout_s)

    # ---- members

    def member_list(self) -> Operation:
        """Lists the members. ``response`` is a ``MemberListResponse``."""
        request = pb.MemberListRequest(linearizable=True).SerializeToString()
        return self._run(MEMBER_LIST, request, pb.MemberListResponse.FromString, "member_list", b"", None, 0, 0)

    def status(self, endpoint: str) -> Operation:
        """Asks the member at ``endpoint`` how it is. ``response`` is a ``StatusResponse``."""
        return self._run_at(endpoint, STATUS, b"", pb.StatusResponse.FromString, "status")

    def hash_kv(self, endpoint: str, revision: int = 0) -> Operation:
        """Asks the member at ``endpoint`` for the hash of its keys (0: as of now). ``response``: ``HashKVResponse``."""
        request = pb.HashKVRequest(revision=revision).SerializeToString()
        return self._run_at(endpoint, HASH_KV, request, pb.HashKVResponse.FromString, "hash_kv")

    # ---- one call

    def _run(
        self,
        path: bytes,
        request: bytes,
        decode: Callable[[bytes], Any],
        f: str,
        key: bytes,
        value: bytes | None,
        process: int,
        due_ns: int,
        call: Callable[[bytes, bytes, int, int], Stream] | None = None,
        asked: int = 0,
    ) -> Operation:
        call_ns = perf_counter_ns()
        try:
            stream = (call or self._call)(path, request, self._timeout_ns, call_ns)
        except BaseException:
            now = perf_counter_ns()
            killed = Operation(process, f, key, value, due_ns or call_ns, call_ns, now, Outcome.INFO, 0, KILLED)
            if self._history is not None:
                self._record(path, killed, request, None, asked)
            if self._abandoned is not None:
                self._abandoned(killed)
            raise
        if stream.code == 0:
            try:
                response = decode(stream.message)  # type: ignore[arg-type]
            except DecodeError:
                stream.code, stream.answered, stream.cause = int(Code.INTERNAL), False, MALFORMED
            else:
                if self._history is not None:
                    self._history.operation(
                        path, process, due_ns or call_ns, call_ns, stream.ended_ns, _OK, request,
                        stream.message,  # type: ignore[arg-type]
                        endpoint=asked or self._asked,
                    )  # fmt: skip
                return Operation(
                    process, f, key, value, due_ns or call_ns, call_ns, stream.ended_ns, _OK,
                    response.header.revision, None, response,
                )  # fmt: skip
        outcome = classify(f, stream.code, answered=stream.answered, unprocessed=stream.unprocessed)
        error = stream.cause or _NAMES[stream.code]
        ended_ns = stream.ended_ns
        operation = Operation(process, f, key, value, due_ns or call_ns, call_ns, ended_ns, outcome, 0, error)
        if self._history is not None:
            self._record(path, operation, request, stream, asked)
        return operation

    def _record(self, path: bytes, operation: Operation, request: bytes, stream: Stream | None, asked: int) -> None:
        """Records an operation that did not succeed; without a stream, one that was killed while it waited."""
        assert self._history is not None
        self._history.operation(
            path, operation.process, operation.due_ns, operation.call_ns, operation.return_ns, operation.outcome,
            request, ((stream.detail or operation.error or "") if stream else KILLED).encode(),
            code=stream.code if stream else Code.CANCELLED, answered=stream is not None and stream.answered,
            endpoint=asked or self._asked,
        )  # fmt: skip

    def _run_at(self, endpoint: str, path: bytes, request: bytes, decode: Callable[[bytes], Any], f: str) -> Operation:
        channel = self._apart.get(endpoint)
        if channel is None:
            channel = self._apart[endpoint] = Channel([endpoint], security=self._security)
        asked = self._history.endpoint(str(channel.endpoints[0])) if self._history is not None else 0
        return self._run(path, request, decode, f, b"", None, 0, 0, channel.call, asked)


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """What one member said of itself; ids as etcd has them, ``leader`` 0 where it knows none."""

    endpoint: Endpoint
    version: str
    cluster_id: int
    member_id: int
    leader: int
    revision: int
    raft_term: int


def probe(endpoint: str, timeout_s: float = 2.0, security: Security | None = None) -> MemberInfo:
    """Asks who is there, and logs in where a user is named. Takes an endpoint as people write it, and seconds in all.

    Raises ValueError for a malformed endpoint, SecurityError for files of no use, and ConnectError, whose ``cause``
    tells apart: nobody listens, no answer, not HTTP/2, TLS spoken or not spoken, whatever is wrong with a certificate,
    not etcd, a wrong password, auth not enabled.
    """
    security = security or Security()
    where = Endpoint.parse(security.url(endpoint))
    transport = Transport(where, tls=tls_options([where], security))
    timeout_ns = int(timeout_s * 1e9)
    call_ns = perf_counter_ns()
    try:
        transport.connect(timeout_s)
        stream = transport.call(STATUS, b"", timeout_ns, call_ns)
        if stream.code == Code.OK and (login := login_of(security)) is not None:
            login.admit(transport)
    except LocalError as exc:
        raise ConnectError(where, CLOSED) from exc
    except ConnectError as exc:
        # Go's listeners hang up on what is not their language, so ask them in the other one.
        if exc.cause in (CLOSED, NO_ANSWER, TLS_FAILED):
            if not where.tls and speaks_tls(where, timeout_s):
                raise ConnectError(where, TLS_SPOKEN) from exc
            if where.tls and _speaks_plainly(where, timeout_s):
                raise ConnectError(where, PLAIN_SPOKEN) from exc
        raise
    finally:
        transport.close()
    if stream.code == Code.OK and stream.message is not None:
        try:
            answer = pb.StatusResponse.FromString(stream.message)
        except DecodeError as exc:
            raise ConnectError(where, NOT_ETCD) from exc
        head = answer.header
        return MemberInfo(
            where, answer.version, head.cluster_id, head.member_id, answer.leader, head.revision, answer.raftTerm
        )
    if stream.code == Code.DEADLINE_EXCEEDED:
        raise ConnectError(where, NO_ANSWER)
    raise ConnectError(where, CLOSED if stream.cause else NOT_ETCD, stream.detail)


def _speaks_plainly(where: Endpoint, timeout_s: float) -> bool:
    """Whether somebody speaks HTTP/2 without TLS there."""
    transport = Transport(Endpoint(where.host, where.port))
    try:
        transport.connect(timeout_s)
    except ConnectError:
        return False
    finally:
        transport.close()
    return True


def probe_all(
    endpoints: Sequence[str], timeout_s: float = 2.0, security: Security | None = None
) -> dict[str, MemberInfo | ConnectError]:
    """Probes all endpoints at the same time, returns what each said or why it did not.

    Raises ValueError, and SecurityError.
    """

    def one(endpoint: str) -> MemberInfo | ConnectError:
        try:
            return probe(endpoint, timeout_s, security)
        except ConnectError as exc:
            return exc

    for each in endpoints:
        Endpoint.parse(each)
    asked = {each: gevent.spawn(one, each) for each in endpoints}
    gevent.joinall(list(asked.values()))
    return {each: greenlet.get() for each, greenlet in asked.items()}
