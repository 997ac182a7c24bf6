"""The interface of a key-value client over either transport, and the meaning of a call's end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypedDict, Unpack

from cluster.base.etcd_errors import kind_of
from cluster.base.etcd_values import prefix_end
from loadgen.history.operation import Operation, Outcome
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire.grpc import Code

READS = frozenset(
    {
        "get", "range", "lease_time_to_live", "lease_list", "member_list", "status", "hash_kv", "alarm_list",
        "snapshot", "auth_status", "user_get", "user_list", "role_get", "role_list",
    }
)  # fmt: skip

WRITES_NOTHING = READS | {"list", "watch", "lease_grant", "lease_keepalive", "refusal"}
"""Operations, those that scenarios name among them, that leave the store's revision as it is."""

DEFINITE = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.ALREADY_EXISTS,
        Code.PERMISSION_DENIED,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
        Code.UNIMPLEMENTED,
        Code.UNAUTHENTICATED,
    }
)
"""Status codes with which a server that answered says that a write did not happen, where its text is none of etcd's.

Of etcd's own errors ``cluster.base.etcd_errors`` says so one by one."""


def classify(f: str, code: int, text: str = "", *, answered: bool, unprocessed: bool) -> Outcome:
    """Take what was asked and how it ended, return what that says about its having happened.

    ``code`` is the gRPC status, and ``text`` what came with it; ``answered``, they are the server's own;
    ``unprocessed``, the request certainly never reached the store. A read that fails has no effect to be unsure of.
    """
    if code == Code.OK:
        return Outcome.OK
    if f in READS or unprocessed or (answered and is_refusal(code, text)):
        return Outcome.FAIL
    return Outcome.INFO


def is_refusal(code: int, text: str) -> bool:
    """Take a server's status and its text, return whether they say that a write has not happened, and will not."""
    kind = kind_of(text)
    return kind.refused if kind else code in DEFINITE


KvResponse = pb.PutResponse | pb.RangeResponse | pb.DeleteRangeResponse | pb.TxnResponse
"""An answer of the KV service."""


class RangeOptions(TypedDict, total=False):
    """What ``RangeRequest`` takes beside the range; see ``proto/etcd.proto``."""

    limit: int
    revision: int
    sort_order: pb.RangeRequest.SortOrder
    sort_target: pb.RangeRequest.SortTarget
    serializable: bool
    keys_only: bool
    count_only: bool
    min_mod_revision: int
    max_mod_revision: int
    min_create_revision: int
    max_create_revision: int


class KV(Protocol):
    """A key-value client. Every call returns an ``Operation``, whatever became of it; ``due_ns`` 0 means now."""

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
    ) -> Operation: ...

    def get(
        self, key: bytes, *, serializable: bool = False, revision: int = 0, process: int = 0, due_ns: int = 0
    ) -> Operation: ...

    def range(
        self, key: bytes, range_end: bytes, *, process: int = 0, due_ns: int = 0, **options: Unpack[RangeOptions]
    ) -> Operation: ...

    def delete(
        self, key: bytes, range_end: bytes = b"", *, prev_kv: bool = False, process: int = 0, due_ns: int = 0
    ) -> Operation: ...

    def txn(
        self,
        compare: Sequence[pb.Compare],
        success: Sequence[pb.RequestOp],
        failure: Sequence[pb.RequestOp] = (),
        *,
        process: int = 0,
        due_ns: int = 0,
    ) -> Operation: ...

    def cas(self, key: bytes, value: bytes, mod_revision: int, *, process: int = 0, due_ns: int = 0) -> Operation: ...

    def close(self) -> None: ...


bytes_prefix_end = prefix_end
"""The ``range_end`` of all keys with a prefix."""


def mod_revision_is(key: bytes, revision: int) -> pb.Compare:
    """Return the comparison "the key was last written at this revision"; 0 means that it does not exist."""
    return pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key, mod_revision=revision)


def value_is(key: bytes, value: bytes) -> pb.Compare:
    """Return the comparison "the key has this value"."""
    return pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.VALUE, key=key, value=value)


def version_is(key: bytes, version: int) -> pb.Compare:
    """Return the comparison "the key was written this many times since it was created"; 0: it does not exist."""
    return pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.VERSION, key=key, version=version)


def compare(
    key: bytes,
    target: Literal["value", "version", "create", "mod", "lease"],
    result: Literal["=", "!=", ">", "<"],
    operand: bytes | int,
    range_end: bytes = b"",
) -> pb.Compare:
    """Return any comparison, in the words of etcdctl's transactions; of a range it must hold for every key.

    >>> compare(b"k", "version", ">", 0).version
    0
    """
    kind = pb.Compare.CompareTarget.Value(target.upper())
    made = pb.Compare(key=key, range_end=range_end, result=_RESULTS[result], target=kind)  # type: ignore[arg-type]
    setattr(made, _OPERANDS.get(target, target), operand)
    return made


_RESULTS = {"=": pb.Compare.EQUAL, "!=": pb.Compare.NOT_EQUAL, ">": pb.Compare.GREATER, "<": pb.Compare.LESS}
_OPERANDS = {"create": "create_revision", "mod": "mod_revision"}


def put_op(key: bytes, value: bytes, *, lease: int = 0, prev_kv: bool = False) -> pb.RequestOp:
    """Return a put, for a branch of a transaction."""
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease, prev_kv=prev_kv))


def get_op(key: bytes, range_end: bytes = b"", **options: Unpack[RangeOptions]) -> pb.RequestOp:
    """Return a get or a range, for a branch of a transaction."""
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=range_end, **options))


def delete_op(key: bytes, range_end: bytes = b"", *, prev_kv: bool = False) -> pb.RequestOp:
    """Return a delete, for a branch of a transaction."""
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=prev_kv))


def txn_op(
    compare: Sequence[pb.Compare], success: Sequence[pb.RequestOp], failure: Sequence[pb.RequestOp] = ()
) -> pb.RequestOp:
    """Return a transaction, for a branch of another one."""
    return pb.RequestOp(request_txn=pb.TxnRequest(compare=compare, success=success, failure=failure))
