"""Asks a member how it is, over HTTP and a bare socket: for members on loopback, while they start.

``control.py`` is the full control plane. This one does not import ``requests``, and ``ssl`` only for ``https://``:
they must not be imported before gevent patches them, so a cluster can be started by a process that has yet to decide
about gevent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.errors import NoAnswer
from cluster.security import PLAIN_SPOKEN, TLS_FAILED, TLS_HINTS, Security, tls_cause
from cluster.topology import Member


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

    @classmethod
    def from_gateway(cls, answer: Mapping[str, Any], *, name: str, endpoint: str) -> MemberStatus:
        """Takes the gateway's JSON of ``/v3/maintenance/status``, in which 64-bit numbers are strings and
        zeros absent.
        """

        def number(key: str, where: Mapping[str, Any] = answer) -> int:
            return int(where.get(key) or 0)

        header = answer.get("header") or {}
        return cls(
            name=name,
            endpoint=endpoint,
            member_id=number("member_id", header),
            leader_id=number("leader"),
            term=number("raftTerm"),
            commit_index=number("raftIndex"),
            applied_index=number("raftAppliedIndex"),
            revision=number("revision", header),
            db_size=number("dbSize"),
            version=str(answer.get("version") or ""),
            is_learner=bool(answer.get("isLearner")),
            errors=tuple(str(error) for error in answer.get("errors") or ()),
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

    Takes ``host:port`` or a URL of no more than that, method, path, body, and how to speak TLS to ``https://``;
    returns the status code and the body. It takes at most ``timeout_s`` seconds in all. Raises NoAnswer where there is
    none or it is not HTTP, SecurityError for files of no use.
    """
    scheme, _, endpoint = where.rstrip("/").rpartition("://")
    deadline = time.monotonic() + timeout_s
    host, _, port = endpoint.rpartition(":")
    head = f"{method} {path} HTTP/1.0\r\nHost: {endpoint}\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = bytearray()
    try:
        with _connected(scheme, host.strip("[]"), int(port), timeout_s, security) as sock:
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
    head_bytes, _, content = bytes(answer).partition(b"\r\n\r\n")
    words = head_bytes.split(b"\r\n", 1)[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise NoAnswer(f"{endpoint}: not an HTTP answer", cause="not etcd")
    return int(words[1]), content


def _connected(scheme: str, host: str, port: int, timeout_s: float, security: Security | None) -> socket.socket:
    plain = socket.create_connection((host, port), timeout=timeout_s)
    if scheme != "https":
        return plain
    try:
        return (security or Security()).context().wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def _no_answer(endpoint: str, exc: OSError, security: Security | None) -> NoAnswer:
    if not hasattr(exc, "library"):  # what ssl raises has it
        return NoAnswer(f"{endpoint}: {exc.strerror or exc}", cause=_cause(exc))
    return tls_fails(endpoint, tls_cause(exc, certificate=bool(security and security.cert)))  # type: ignore[arg-type]


def tls_fails(endpoint: str, cause: str) -> NoAnswer:
    """Takes ``host:port`` and one of the causes of ``cluster.security``, returns the error that says so.

    Go's plain listener just hangs up on TLS; so that where the handshake broke off, it is asked in plain HTTP.
    """
    if cause == TLS_FAILED:
        with contextlib.suppress(NoAnswer):
            http(endpoint, "GET", "/version")
            cause = PLAIN_SPOKEN
    return NoAnswer(f"{endpoint}: {cause}: {TLS_HINTS[cause]}", cause="tls", sent=False)


def _cause(exc: OSError) -> str:
    if isinstance(exc, ConnectionRefusedError):
        return "connection refused"
    return "timeout" if isinstance(exc, TimeoutError) else "connection lost"


def member_status(member: Member, timeout_s: float = 1.0, security: Security | None = None) -> MemberStatus:
    """Asks one member for its own view, without a quorum. ``security`` is for one that speaks TLS.

    Raises NoAnswer, after at most ``timeout_s`` seconds.
    """
    code, body = http(member.client_url, "POST", "/v3/maintenance/status", b"{}", timeout_s, security)
    try:
        if code != 200:
            raise ValueError(f"HTTP {code}")
        return MemberStatus.from_gateway(json.loads(body), name=member.name, endpoint=member.endpoint)
    except (ValueError, AttributeError, TypeError) as exc:
        raise NoAnswer(f"{member.endpoint}: no status of an etcd member ({exc})", cause="not etcd") from exc


def is_healthy(member: Member, timeout_s: float = 1.0, security: Security | None = None) -> bool:
    """Whether ``/health`` says so, for which the member does a linearizable read.

    False where it does not answer.
    """
    try:
        code, body = http(member.client_url, "GET", "/health", timeout_s=timeout_s, security=security)
        return code == 200 and str(json.loads(body)["health"]) == "true"
    except (NoAnswer, ValueError, KeyError, TypeError):
        return False


def agreed_leader(statuses: Sequence[MemberStatus]) -> MemberStatus | None:
    """The leader on which all these members agree in the same term, itself among them.

    None where they do not.
    """
    leaders = [status for status in statuses if status.is_leader]
    if len(leaders) != 1 or any(status.leader_id != leaders[0].member_id for status in statuses):
        return None
    return leaders[0]


def why_unhealthy(members: Sequence[Member], timeout_s: float = 1.0, security: Security | None = None) -> str:
    """Asks every member.

    Empty when all agree on a leader and serve linearizable reads, else the first reason not.
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
