"""etcd over native gRPC: one method per request, an ``Operation`` for every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Unpack

import gevent
from google.protobuf.message import DecodeError, Message

from cluster.base.endpoint import Endpoint
from cluster.base.errors import error_name
from cluster.base.security import PLAIN_SPOKEN, TLS_FAILED, Security
from loadgen.client import encode
from loadgen.client.auth import AuthCalls
from loadgen.client.call import Answered, Caller
from loadgen.client.channel import STATUS, login_of, tls_options
from loadgen.client.connect_errors import CLOSED, LEARNER, NO_ANSWER, NOT_ETCD, TLS_SPOKEN, ConnectError, speaks_tls
from loadgen.client.kv import RangeOptions
from loadgen.client.lease import GRANT, REVOKE, LeaseCalls
from loadgen.client.login import refusal_cause
from loadgen.client.maintenance import MaintenanceCalls
from loadgen.client.members import MemberCalls
from loadgen.client.transport import Transport
from loadgen.client.watcher import WatchCalls
from loadgen.history.operation import Operation
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import Code, LocalError, Stream

RANGE = b"/etcdserverpb.KV/Range"
PUT = b"/etcdserverpb.KV/Put"
DELETE_RANGE = b"/etcdserverpb.KV/DeleteRange"
TXN = b"/etcdserverpb.KV/Txn"
COMPACT = b"/etcdserverpb.KV/Compact"

_range_answer = pb.RangeResponse.FromString
_put_answer = pb.PutResponse.FromString
_delete_answer = pb.DeleteRangeResponse.FromString
_txn_answer = pb.TxnResponse.FromString


class KVCalls(Caller):
    """The KV service."""

    def put(
        self,
        key: bytes,
        value: bytes,
        *,
        process: int = 0,
        due_ns: int = 0,
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> Operation:
        """Write a value. ``response`` is a ``PutResponse``.

        ``prev_kv`` asks for what it replaces; ``ignore_value`` and ``ignore_lease`` keep what the key has of them.
        """
        request = encode.put(key, value, lease)
        if prev_kv or ignore_value or ignore_lease:
            options = pb.PutRequest(prev_kv=prev_kv, ignore_value=ignore_value, ignore_lease=ignore_lease)
            request += options.SerializeToString()
        return self._run(PUT, request, _put_answer, "put", key, value, process, due_ns)

    def get(
        self, key: bytes, *, serializable: bool = False, revision: int = 0, process: int = 0, due_ns: int = 0
    ) -> Operation:
        """Read one key, linearizably unless ``serializable``. ``response`` is a ``RangeResponse``."""
        request = encode.get(key, serializable, revision)
        return self._run(RANGE, request, _range_answer, "get", key, None, process, due_ns)

    def range(
        self, key: bytes, range_end: bytes, *, process: int = 0, due_ns: int = 0, **options: Unpack[RangeOptions]
    ) -> Operation:
        """Read the keys from ``key`` up to, not including, ``range_end``. ``response`` is a ``RangeResponse``."""
        request = pb.RangeRequest(key=key, range_end=range_end, **options).SerializeToString()
        return self._run(RANGE, request, _range_answer, "range", key, None, process, due_ns)

    def delete(
        self, key: bytes, range_end: bytes = b"", *, prev_kv: bool = False, process: int = 0, due_ns: int = 0
    ) -> Operation:
        """Delete a key or a range; ``prev_kv`` asks for what was there. ``response`` is a ``DeleteRangeResponse``."""
        request = pb.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=prev_kv).SerializeToString()
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

        The parts are made by the functions in ``loadgen.client.kv``.
        """
        request = pb.TxnRequest(compare=compare, success=success, failure=failure).SerializeToString()
        key = compare[0].key if compare else b""
        return self._run(TXN, request, _txn_answer, "txn", key, None, process, due_ns)

    def cas(self, key: bytes, value: bytes, mod_revision: int, *, process: int = 0, due_ns: int = 0) -> Operation:
        """Write ``value`` if the key was last written at ``mod_revision`` (0: do not exist), else read it.

        ``response`` is a ``TxnResponse``; its ``succeeded`` says which.
        """
        request = encode.cas(key, value, mod_revision)
        return self._run(TXN, request, _txn_answer, "txn", key, value, process, due_ns)

    def resume(
        self, transport: Transport, stream: Stream, f: str, key: bytes, value: bytes | None, *, process: int,
        due_ns: int, call_ns: int, mod_revision: int = 0, serializable: bool = False,
    ) -> Operation:  # fmt: skip
        """Take a ``put``, ``get`` or ``cas`` that somebody else sent and that has ended; return as these do.

        Takes its connection and its stream, and what it was called with; ``call_ns`` is when. Sends it again where that
        is due, as they do.
        """
        path, request = _request(f, key, value, mod_revision, serializable=serializable)
        try:
            stream = self.channel.after(transport, stream, path, request, self._timeout_ns, call_ns)
        except BaseException:
            self.give_up(path, Operation(process, f, key, value, due_ns, call_ns), request)
            raise
        return self._ended(stream, path, request, _BY_NAME[f][1], f, key, value, process, due_ns, call_ns)

    def abandon(
        self, f: str, key: bytes, value: bytes | None, *, process: int, due_ns: int, call_ns: int,
        mod_revision: int = 0, serializable: bool = False,
    ) -> None:  # fmt: skip
        """Tell of a ``put``, ``get`` or ``cas`` that somebody else sent, and whose greenlet was killed meanwhile."""
        path, request = _request(f, key, value, mod_revision, serializable=serializable)
        self.give_up(path, Operation(process, f, key, value, due_ns, call_ns), request)

    def compact(self, revision: int, *, physical: bool = False) -> Operation:
        """Drop the history before ``revision``. ``response`` is a ``CompactionResponse``."""
        request = pb.CompactionRequest(revision=revision, physical=physical).SerializeToString()
        return self._run(COMPACT, request, pb.CompactionResponse.FromString, "compact")


_BY_NAME: dict[str, tuple[bytes, Callable[[bytes], Answered]]] = {
    "put": (PUT, _put_answer), "get": (RANGE, _range_answer), "range": (RANGE, _range_answer),
    "delete": (DELETE_RANGE, _delete_answer), "txn": (TXN, _txn_answer),
    "lease_grant": (GRANT, pb.LeaseGrantResponse.FromString),
    "lease_revoke": (REVOKE, pb.LeaseRevokeResponse.FromString),
}  # fmt: skip


def _request(f: str, key: bytes, value: bytes | None, mod_revision: int, *, serializable: bool) -> tuple[bytes, bytes]:
    """Return the path and the message of a ``put``, ``get`` or ``cas``, which is called ``txn`` in operations."""
    if f == "put":
        return PUT, encode.put(key, value or b"")
    if f == "get":
        return RANGE, encode.get(key, serializable)
    return TXN, encode.cas(key, value or b"", mod_revision)


class EtcdClient(KVCalls, WatchCalls, LeaseCalls, MemberCalls, MaintenanceCalls, AuthCalls):
    """A client of all of etcd's services; what it takes is said in ``Caller``. Open it after a fork."""

    def send(self, f: str, message: Message, *, key: bytes = b"", process: int = 0, due_ns: int = 0) -> Operation:
        """Send a request that the caller made: ``f`` names the call, ``key`` what it is about."""
        path, decode = _BY_NAME[f]
        return self._run(path, message.SerializeToString(), decode, f, key, None, process, due_ns)


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """What one member said of itself; ids as etcd has them, ``leader`` 0 where it knows none.

    Empty and 0 where the user may not ask: newer releases of etcd show their status to the role root only. Whether it
    is a learner is known all the same.
    """

    endpoint: Endpoint
    version: str
    cluster_id: int
    member_id: int
    leader: int
    revision: int
    raft_term: int
    db_size: int = 0
    is_learner: bool = False


def probe(endpoint: str, timeout_s: float = 2.0, security: Security | None = None) -> MemberInfo:
    """Ask who is there, and log in where a user is named. Takes an endpoint as people write it, and seconds in all.

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
        if (login := login_of(security)) is not None:
            login.admit(transport)
        stream = transport.call(STATUS, b"", timeout_ns, call_ns)
        denied = stream.code == Code.PERMISSION_DENIED
        learner = denied and _refuses_as_a_learner(transport, timeout_ns, call_ns)
    except LocalError as exc:
        raise ConnectError(where, CLOSED) from exc
    except ConnectError as exc:
        if exc.cause == LEARNER:
            return MemberInfo(where, "", 0, 0, 0, 0, 0, is_learner=True)
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
            where,
            answer.version,
            head.cluster_id,
            head.member_id,
            answer.leader,
            head.revision,
            answer.raftTerm,
            answer.dbSize,
            answer.isLearner,
        )
    if stream.code == Code.DEADLINE_EXCEEDED:
        raise ConnectError(where, NO_ANSWER)
    if stream.answered:
        if (cause := refusal_cause(stream)) is not None:
            raise ConnectError(where, cause, stream.detail)
        if denied:
            return MemberInfo(where, "", 0, 0, 0, 0, 0, is_learner=learner)
    raise ConnectError(where, CLOSED if stream.cause else NOT_ETCD, stream.detail)


def _refuses_as_a_learner(transport: Transport, timeout_ns: int, call_ns: int) -> bool:
    """Return whether a linearizable read is refused as only a learner does, before it looks who asks."""
    stream = transport.call(RANGE, encode.get(b"\0", False, 0), timeout_ns, call_ns)
    return stream.answered and error_name(stream.code, stream.detail) == "NotSupportedForLearner"


def _speaks_plainly(where: Endpoint, timeout_s: float) -> bool:
    """Return whether somebody speaks HTTP/2 without TLS there."""
    transport = Transport(replace(where, tls=False))
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
    """Probe all endpoints at the same time; return what each said, or why it did not.

    Raises ValueError, and SecurityError.
    """

    def one(endpoint: str) -> MemberInfo | ConnectError:
        try:
            return probe(endpoint, timeout_s, security)
        except ConnectError as exc:
            return exc

    # What is wrong with the question is raised here: gevent prints what leaves a greenlet.
    security = security or Security()
    for each in endpoints:
        tls_options([Endpoint.parse(security.url(each))], security)
    asked = {each: gevent.spawn(one, each) for each in endpoints}
    gevent.joinall(list(asked.values()))
    return {each: greenlet.get() for each, greenlet in asked.items()}
