"""Probes of a member over HTTP and a bare socket, for members on loopback while they start.

``control.py`` is the full control plane. This one does not import ``requests``, and ``ssl`` only for ``https://``:
they must not be imported before gevent patches them, so a cluster can be started by a process that has yet to decide
about gevent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import re
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from cluster.base.dial import connect
from cluster.base.endpoint import Endpoint
from cluster.base.errors import NoAnswer, RaftloadError
from cluster.base.security import PLAIN_SPOKEN, TLS_FAILED, TLS_HINTS, Security, tls_cause
from cluster.base.topology import Member

if TYPE_CHECKING:
    from cluster.schema.gateway_answers import ListedMember, Status


@dataclasses.dataclass(frozen=True, slots=True)
class MemberStatus:
    """What one member says about itself at one moment.

    Attributes:
        name: its name, empty where only its endpoint is known.
        endpoint: ``host:port`` that was asked.
        member_id: etcd's id of the member.
        leader_id: the id of the member that it takes for the leader; 0 for none.
        term: Raft term, of the last entry it applied (etcd's ``raftTerm``).
        commit_index: Raft's commit index (etcd's ``raftIndex``).
        applied_index: the last entry applied to the store.
        revision: of its store.
        db_size: bytes of its backend file.
        version: etcd's version, ``3.5.1``.
        is_learner: whether it has no vote.
        errors: alarms and corruption that it reports.
    """

    name: str
    endpoint: str
    member_id: int
    leader_id: int
    term: int
    commit_index: int
    applied_index: int
    revision: int
    db_size: int
    version: str
    is_learner: bool = False
    errors: tuple[str, ...] = ()

    @property
    def is_leader(self) -> bool:
        """Whether it takes itself for the leader."""
        return self.leader_id != 0 and self.leader_id == self.member_id

    @property
    def role(self) -> Literal["leader", "learner", "follower", "no leader"]:
        """What it takes itself for; ``no leader`` for a voter that knows of none."""
        if self.is_leader:
            return "leader"
        if self.is_learner:
            return "learner"
        return "follower" if self.leader_id else "no leader"

    @classmethod
    def from_gateway(cls, answer: Status, *, name: str, endpoint: str) -> MemberStatus:
        """Take the gateway's JSON of ``/v3/maintenance/status``: 64-bit numbers are strings, zeros are absent."""

        header = answer.get("header") or {}
        return cls(
            name=name,
            endpoint=endpoint,
            member_id=int(header.get("member_id") or 0),
            leader_id=int(answer.get("leader") or 0),
            term=int(answer.get("raftTerm") or 0),
            commit_index=int(answer.get("raftIndex") or 0),
            applied_index=int(answer.get("raftAppliedIndex") or 0),
            revision=int(header.get("revision") or 0),
            db_size=int(answer.get("dbSize") or 0),
            version=str(answer.get("version") or ""),
            is_learner=bool(answer.get("isLearner")),
            errors=tuple(str(error) for error in answer.get("errors") or ()),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class MemberInfo:
    """A member as the cluster lists it. ``name`` is empty while it was added but never started."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool

    @classmethod
    def from_gateway(cls, member: ListedMember) -> MemberInfo:
        """Take a member of the gateway's JSON of ``/v3/cluster/member/list``."""
        return cls(
            id=int(member.get("ID") or 0),
            name=str(member.get("name") or ""),
            peer_urls=tuple(map(str, member.get("peerURLs") or ())),
            client_urls=tuple(map(str, member.get("clientURLs") or ())),
            is_learner=bool(member.get("isLearner")),
        )


def http(
    where: str,
    method: str,
    path: str,
    body: bytes = b"",
    timeout_s: float = 1.0,
    security: Security | None = None,
) -> tuple[int, bytes]:
    """One HTTP/1.0 exchange.

    Takes ``host:port`` or a URL of no more than that, method, path, body, and how to speak TLS to ``https://`` and who
    logs in; returns the status code and the body. It takes at most ``timeout_s`` seconds in all, and as long again for
    a login. Raises NoAnswer where there is none, or no login, or it is not HTTP, and SecurityError for files of no use.
    """
    if security is None or security.user is None:
        return _exchange(where, method, path, body, timeout_s, security, "")
    token = _tokens.get((where, security)) or _log_in(where, security, timeout_s)
    code, answer = _exchange(where, method, path, body, timeout_s, security, token)
    if code == 401:  # the member has forgotten it
        _tokens.pop((where, security), None)
    return code, answer


_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)", re.IGNORECASE)
# Of users at members; etcd takes half the core of a member for a tenth of a second to check a password.
_tokens: dict[tuple[str, Security], str] = {}


def _log_in(where: str, security: Security, timeout_s: float) -> str:
    body = json.dumps({"name": security.user, "password": security.password}).encode()
    code, answer = _exchange(where, "POST", "/v3/auth/authenticate", body, timeout_s, security, "")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        if code == 200:
            token = _tokens[where, security] = str(json.loads(answer)["token"])
            return token
    reason = _said(answer) or f"HTTP {code}"
    raise NoAnswer(f"{Endpoint.parse(where).authority}: login of {security.user}: {reason}", cause="login")


def _exchange(
    where: str, method: str, path: str, body: bytes, timeout_s: float, security: Security | None, token: str
) -> tuple[int, bytes]:
    at = Endpoint.parse(where)
    endpoint = at.authority
    deadline = time.monotonic() + timeout_s
    head = f"{method} {path} HTTP/1.0\r\nHost: {at.http_host}\r\nContent-Length: {len(body)}\r\n"
    head += f"Authorization: {token}\r\n\r\n" if token else "\r\n"
    answer = bytearray()
    try:
        with _connected(at, timeout_s, security) as sock:
            sock.sendall(head.encode("ascii") + body)
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("timed out")
                sock.settimeout(left)
                data = sock.recv(65536)
                if not data:
                    break
                answer += data
    except OSError as exc:
        raise _no_answer(endpoint, exc, security) from exc
    if answer.startswith(b"HTTP/1.0 400") and b"to an HTTPS server" in answer:
        raise NoAnswer(f"{endpoint} speaks TLS: use https://", cause="tls", sent=False)
    head_bytes, end, content = bytes(answer).partition(b"\r\n\r\n")
    words = head_bytes.split(b"\r\n", 1)[0].split()
    length = _LENGTH.search(head_bytes)
    cut = len(content) < int(length[1]) if length is not None else not end and answer.startswith(b"HTTP/")
    if not answer or cut:
        raise NoAnswer(f"{endpoint}: it closed the connection in the middle of its answer", cause="connection lost")
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise NoAnswer(f"{endpoint}: not an HTTP answer", cause="not etcd")
    return int(words[1]), content


def _connected(at: Endpoint, timeout_s: float, security: Security | None) -> socket.socket:
    plain: socket.socket = connect(at, timeout_s)
    plain.settimeout(timeout_s)
    if not at.tls:
        return plain
    try:
        return (security or Security()).context().wrap_socket(plain, server_hostname=at.tls_name)
    except BaseException as exc:
        plain.close()
        if isinstance(exc, ConnectionError):
            raise tls_fails(at.authority, TLS_FAILED) from exc
        raise


def _no_answer(endpoint: str, exc: OSError, security: Security | None) -> NoAnswer:
    if not hasattr(exc, "library"):  # what ssl raises has it
        return no_connection(endpoint, exc)
    return tls_fails(endpoint, tls_cause(exc, certificate=bool(security and security.cert)))  # type: ignore[arg-type]


def tls_fails(endpoint: str, cause: str) -> NoAnswer:
    """Take ``host:port`` and one of the causes of ``cluster.base.security``, return the error that says so.

    Go's plain listener just hangs up on TLS; so that where the handshake broke off, it is asked in plain HTTP.
    """
    if cause == TLS_FAILED:
        with contextlib.suppress(NoAnswer):
            http(endpoint.replace("unixs://", "unix://"), "GET", "/version")
            cause = PLAIN_SPOKEN
    return NoAnswer(f"{endpoint}: {cause}: {TLS_HINTS[cause]}", cause="tls", sent=False)


def no_connection(endpoint: str, exc: OSError) -> NoAnswer:
    """Take ``host:port`` and what a socket raised, return the error that says why there is no answer."""
    if isinstance(exc, socket.gaierror):
        return NoAnswer(f"{endpoint}: the name does not resolve", cause="host not found", sent=False)
    if isinstance(exc, ConnectionRefusedError):
        return NoAnswer(f"{endpoint}: {exc.strerror or exc}", cause="connection refused", sent=False)
    if isinstance(exc, FileNotFoundError | PermissionError):  # of a Unix socket
        cause = "no socket" if isinstance(exc, FileNotFoundError) else "permission denied"
        return NoAnswer(f"{endpoint}: {exc.strerror}", cause=cause, sent=False)
    if exc.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL):
        return NoAnswer(f"{endpoint}: {exc.strerror}", cause="host unreachable", sent=False)
    cause = "timeout" if isinstance(exc, TimeoutError) else "connection lost"
    return NoAnswer(f"{endpoint}: {exc.strerror or exc}", cause=cause)


def member_status(member: Member, timeout_s: float = 1.0, security: Security | None = None) -> MemberStatus:
    """Ask one member for its own view, without a quorum. ``security`` is for one that speaks TLS.

    Raises NoAnswer, after at most ``timeout_s`` seconds.
    """
    code, body = http(member.client_url, "POST", "/v3/maintenance/status", b"{}", timeout_s, security)
    try:
        if code != 200:
            raise ValueError(_said(body) or f"HTTP {code}")
        return MemberStatus.from_gateway(json.loads(body), name=member.name, endpoint=member.endpoint)
    except (ValueError, AttributeError, TypeError) as exc:
        raise NoAnswer(f"{member.endpoint}: not the status of an etcd member ({exc})", cause="not etcd") from exc


def _said(body: bytes) -> str:
    """Return what etcd gave as the reason of an error, such as that auth is on and no user was named."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        if b"CommonName of client" in body:
            return "etcd's gateway takes no client certificate with a common name while auth is on"
        return " ".join(body[:200].decode("utf-8", "replace").split())


def is_healthy(member: Member, timeout_s: float = 1.0, security: Security | None = None) -> bool:
    """Return whether ``/health`` says so, for which the member does a linearizable read.

    False where it does not answer.
    """
    try:
        code, body = http(member.client_url, "GET", "/health", timeout_s=timeout_s, security=security)
        return code == 200 and str(json.loads(body)["health"]) == "true"
    except (RaftloadError, ValueError, KeyError, TypeError):
        return False


def agreed_leader(statuses: Sequence[MemberStatus]) -> MemberStatus | None:
    """Return the leader on which all these members agree in the same term, itself among them.

    None where they do not.
    """
    leaders = [status for status in statuses if status.is_leader]
    if len(leaders) != 1 or any(status.leader_id != leaders[0].member_id for status in statuses):
        return None
    return leaders[0]


def why_unhealthy(members: Sequence[Member], timeout_s: float = 1.0, security: Security | None = None) -> str:
    """Ask every member, and return why the cluster is not healthy.

    Empty if all agree on a leader and serve linearizable reads, else the first reason why not.
    """
    statuses = []
    for member in members:
        try:
            statuses.append(member_status(member, timeout_s, security))
        except NoAnswer as exc:
            return f"{member.name} does not answer ({exc})"
    if agreed_leader(statuses) is None:
        return "the members do not agree on a leader"
    for member in members:
        if not is_healthy(member, timeout_s, security):
            return f"{member.name} serves no linearizable read"
    return ""


def version_key(version: str) -> tuple[int, ...]:
    """Take ``3.5.10`` or ``3.6.0-rc.1``, return what versions are in order by."""
    return tuple(int(part) for part in version.partition("-")[0].split(".") if part.isdigit())
