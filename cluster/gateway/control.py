"""One endpoint of etcd over etcd3-py: status, members, key-value calls."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cluster.base.endpoint import Endpoint
from cluster.base.errors import NoAnswer
from cluster.base.etcd_values import Answer, Compare, KeyValue, Op
from cluster.base.security import TLS_FAILED, Security
from cluster.gateway import etcd3py
from cluster.gateway.etcd3py import P, R
from cluster.observe.calls import http, tls_fails
from cluster.observe.probe import MemberInfo, MemberStatus

if TYPE_CHECKING:
    from cluster.schema.gateway_answers import GatewayAnswer, GatewayKeyValue

_RELATIONS = {"=": "EQUAL", "!=": "NOT_EQUAL", ">": "GREATER", "<": "LESS"}
_OPERANDS = {
    "value": "value", "version": "version", "create": "create_revision", "mod": "mod_revision",
    "lease": "lease",
}  # fmt: skip


def _why_tls_fails(at: Endpoint, timeout_s: float, security: Security) -> NoAnswer | None:
    """Ask an endpoint for what requests has not read: a member that refuses us says why by an alert, and closes.

    Returns None where it answers now.
    """
    try:
        http(str(at), "GET", "/version", timeout_s=timeout_s, security=security)
    except NoAnswer as exc:
        return exc if exc.cause == "tls" else tls_fails(at.authority, TLS_FAILED)
    return None


class ControlClient:
    """One endpoint of etcd, over etcd3-py. For one thread or greenlet at a time."""

    def __init__(self, endpoint: str, *, timeout_s: float = 5.0, security: Security | None = None) -> None:
        """Connect and asks for the version.

        Takes ``host:port`` or a URL, and the seconds that a call may take to connect and then to answer.
        Raises NoAnswer where nobody answers, or not as etcd; EtcdError where the user is refused; ValueError
        for a malformed endpoint.
        """
        at = Endpoint.parse(endpoint)
        self.endpoint = at.authority
        security = security or Security()
        verify: str | bool = security.cacert or True
        self._certificate = bool(security.cert)
        try:
            self._client = self._call(
                etcd3py.client_class(), at=at, protocol="https" if at.tls else "http",
                cert=(security.cert, security.key) if security.cert else (),
                verify=False if security.insecure_skip_tls_verify else verify,
                timeout=timeout_s,
            )  # fmt: skip
        except NoAnswer as exc:
            if at.tls and exc.cause in ("connection lost", "tls"):
                why = _why_tls_fails(at, timeout_s, security)
                if why is not None:
                    raise why from exc
            raise
        if security.user:
            try:
                self.login(security.user, security.password or "")
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return etcd3py.translated(self.endpoint, self._certificate, call, *args, **kwargs)

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    # All raise EtcdError, where etcd refuses, and NoAnswer.

    @property
    def version(self) -> str:
        """Version of the server when the client was made, ``3.5.1``."""
        return str(self._client.server_version)

    def rpc(
        self, path: str, request: Mapping[str, object] | None = None, timeout_s: float | None = None
    ) -> GatewayAnswer:
        """Return a call of the gateway by its path: ``rpc("/maintenance/status")``.

        Takes the path after ``/v3`` and the request as the gateway's JSON, bytes in base64; returns its
        answer likewise.
        """
        extra = {} if timeout_s is None else {"timeout": timeout_s}
        answer = self._call(self._client.call_rpc, path, request or {}, encode=False, raw=True, **extra)
        return etcd3py.as_json(answer, self.endpoint)

    def login(self, user: str, password: str) -> None:
        """Make all later calls of this client as a user."""
        answer = self.rpc("/auth/authenticate", {"name": user, "password": password})
        self._client.token = answer["token"]

    def status(self, name: str = "", timeout_s: float | None = None) -> MemberStatus:
        """Return the member's own view, which needs no quorum. ``name`` is what to call it."""
        answer = self.rpc("/maintenance/status", timeout_s=timeout_s)
        return MemberStatus.from_gateway(answer, name=name, endpoint=self.endpoint)

    def members(self) -> tuple[MemberInfo, ...]:
        """Return who is in the cluster, as this member knows."""
        return tuple(map(MemberInfo.from_gateway, self.rpc("/cluster/member/list").get("members", ())))

    def put(self, key: bytes, value: bytes, *, lease: int = 0, prev_kv: bool = False) -> Answer:
        """Set a key."""
        return _answer(self._call(self._client.put, _bytes(key), _bytes(value), lease=lease, prev_kv=prev_kv))

    def get(
        self,
        key: bytes,
        *,
        range_end: bytes = b"",
        serializable: bool = False,
        revision: int = 0,
        limit: int = 0,
        count_only: bool = False,
    ) -> Answer:
        """Read a key, or the range from it to ``range_end``, that excluded.

        Linearizable unless told otherwise.
        """
        return _answer(
            self._call(
                self._client.range, _bytes(key), range_end=range_end or None, serializable=serializable,
                revision=revision or None, limit=limit, count_only=count_only,
            )
        )  # fmt: skip

    def delete(self, key: bytes, *, range_end: bytes = b"", prev_kv: bool = False) -> Answer:
        """Delete a key, or the range from it to ``range_end``, that excluded."""
        return _answer(self._call(self._client.delete_range, _bytes(key), range_end=range_end or None, prev_kv=prev_kv))

    def txn(self, compare: Sequence[Compare], success: Sequence[Op] = (), failure: Sequence[Op] = ()) -> Answer:
        """If all conditions hold does ``success``, else ``failure``, at one revision."""
        return _answer(
            self._call(
                self._client.txn,
                [_compare(condition) for condition in compare],
                [_op(op) for op in success],
                [_op(op) for op in failure],
            ),
            txn=True,
        )

    def revision(self) -> int:
        """Return the store's revision now, by a linearizable read."""
        return self.get(b"\0", count_only=True).revision

    def compact(self, revision: int) -> None:
        """Forget history before ``revision``."""
        self._call(self._client.compact, revision, physical=True)


def _bytes(value: bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"keys and values are bytes, not {type(value).__name__}")
    return value


def _compare(condition: Compare) -> dict[str, object]:
    return {
        "key": condition.key,
        "target": condition.target.upper(),
        "result": _RELATIONS[condition.relation],
        _OPERANDS[condition.target]: condition.operand,
    }


def _op(op: Op) -> dict[str, object]:
    end = {"range_end": op.range_end} if op.range_end else {}
    if op.f == "put":
        return {"request_put": {"key": op.key, "value": op.value, "lease": op.lease}}
    return {"request_range" if op.f == "get" else "request_delete_range": {"key": op.key, **end}}


def _answer(answer: GatewayAnswer, *, txn: bool = False) -> Answer:
    """From the gateway's JSON, in which what is zero or empty is absent, and 64-bit numbers are strings."""
    header = answer.get("header") or {}
    prev_kv = answer.get("prev_kv")
    return Answer(
        revision=int(header.get("revision", 0)),
        member_id=int(header.get("member_id", 0)),
        term=int(header.get("raft_term", 0)),
        kvs=_key_values(answer.get("kvs", ())),
        count=int(answer.get("count", 0)),
        deleted=int(answer.get("deleted", 0)),
        prev_kvs=_key_values(answer.get("prev_kvs", ()) if prev_kv is None else (prev_kv,)),
        succeeded=bool(answer.get("succeeded")) if txn else None,
        responses=tuple(_answer(inner) for response in answer.get("responses", ()) for inner in response.values()),
    )


def _key_values(kvs: Sequence[GatewayKeyValue]) -> tuple[KeyValue, ...]:
    return tuple(map(key_value, kvs))


def key_value(kv: GatewayKeyValue) -> KeyValue:
    """Return a key as the gateway's JSON has it, in which what is zero or empty is absent."""
    return KeyValue(
        key=base64.b64decode(kv.get("key", "")),
        value=base64.b64decode(kv.get("value", "")),
        create_revision=int(kv.get("create_revision", 0)),
        mod_revision=int(kv.get("mod_revision", 0)),
        version=int(kv.get("version", 0)),
        lease=int(kv.get("lease", 0)),
    )
