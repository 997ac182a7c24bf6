"""Calls of a member over bare sockets: gRPC first, and JSON over HTTP where gRPC is not spoken.

Which of the two a member or a proxy answers depends on how it was set up: etcd with ``--enable-grpc-gateway=false``,
or with ``--listen-client-http-urls`` elsewhere, and ``etcd grpc-proxy`` speak only gRPC; a proxy for HTTP/1 passes only
JSON on. ``cluster.gateway`` has the clients for everything else than questions. This module imports neither
``requests`` nor, for ``http://``, ``ssl``: they must not be imported before gevent patches them, so a cluster can be
started by a process that has yet to decide about gevent.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import errno
import functools
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from cluster.base.dial import connect
from cluster.base.endpoint import Endpoint
from cluster.base.errors import EtcdError, NoAnswer, grpc_code_name
from cluster.base.security import NO_ALPN, PLAIN_SPOKEN, TLS_FAILED, TLS_HINTS, Security, tls_cause
from cluster.observe.grpc_call import Fields, GrpcSocket, NotGrpcError, send
from cluster.observe.messages import Message, encode

T = TypeVar("T")

STATUS, MEMBER_LIST = "/etcdserverpb.Maintenance/Status", "/etcdserverpb.Cluster/MemberList"
DENIED, USER_WANTED, LOGIN = "permission denied", "user required", "login"  # causes of NoAnswer
_AUTHENTICATE = "/etcdserverpb.Auth/Authenticate"
_UNIMPLEMENTED, _UNAVAILABLE = 12, 14
# By etcd's names, since its gRPC proxy changes the codes; by that of the code where the text is none of etcd's.
_TOKEN_REFUSED = ("InvalidAuthToken", "AuthOldRevision", "UNAUTHENTICATED")
_NOT_PERMITTED = ("PermissionDenied", "PERMISSION_DENIED")
_NO_USER = "UserEmpty"


def http(
    where: str,
    method: str,
    path: str,
    body: bytes = b"",
    timeout_s: float = 1.0,
    security: Security | None = None,
    token: str = "",
) -> tuple[int, bytes]:
    """One HTTP/1.0 exchange.

    Takes ``host:port`` or a URL of no more than that, method, path, body, how to speak TLS to ``https://``, and the
    token of a user, empty for none; returns the status code and the body. It takes at most ``timeout_s`` seconds in
    all. Raises NoAnswer where there is none, or it is not HTTP, and SecurityError for files of no use.
    """
    at = Endpoint.parse(where)
    endpoint = at.authority
    deadline = time.monotonic() + timeout_s
    head = f"{method} {path} HTTP/1.0\r\nHost: {at.http_host}\r\nContent-Length: {len(body)}\r\n"
    head += f"Authorization: {token}\r\n\r\n" if token else "\r\n"
    answer = bytearray()
    try:
        with _connected(at, deadline, security) as sock:
            sock.settimeout(_left(deadline))
            send(sock, head.encode("ascii") + body)
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


_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)", re.IGNORECASE)
# Of users at members, whichever protocol it came by; etcd takes half the core of a member for a tenth of a second to
# check a password.
_tokens: dict[tuple[Endpoint, Security], str] = {}
# Where gRPC was not spoken and JSON was, so that the next question begins with what was answered.
_json_first: set[Endpoint] = set()


def bare(where: str) -> str:
    """Return ``host:port`` of an endpoint or a URL of no more than that, or the URL of a Unix socket."""
    return Endpoint.parse(where).authority


def _as_user(
    at: Endpoint,
    security: Security,
    timeout_s: float,
    log_in: Callable[[float], str],
    call: Callable[[str, float], T],
) -> T:
    """Make a call as a user: with the token that is known, else with a new one.

    Takes the seconds that the call may take, the login, and the call. The login gets the moment of the monotonic clock
    at which it is given up, and returns a token; the call gets the token and its own such moment, which a login puts
    off. A call whose token is refused is made once more: members forget tokens, and none is good for ever; nothing was
    done.
    """
    known = at, security
    until = time.monotonic() + timeout_s
    for attempt in ("first", "last"):
        token = _tokens.get(known)
        if token is None:
            began = time.monotonic()
            token = _tokens[known] = log_in(began + security.dial_timeout_s)
            until += time.monotonic() - began
        try:
            return call(token, until)
        except EtcdError as exc:
            if attempt == "last" or not _is_about_token(exc):
                raise
            _tokens.pop(known, None)
    raise AssertionError("both attempts return or raise")


def _no_login(where: str, security: Security, reason: str) -> NoAnswer:
    return NoAnswer(f"{bare(where)}: login of {security.user}: {reason}", cause=LOGIN)


def _left(until: float) -> float:
    """Return the seconds until a moment of the monotonic clock, as a timeout: 0 would be none."""
    return max(until - time.monotonic(), 0.001)


@dataclasses.dataclass(slots=True)
class Timing:
    """How long the parts of one question took, in milliseconds; None of what did not come to its end.

    Attributes:
        connect_ms: the connection, which the other side's kernel accepts: the network; and the lookup of a name.
        list_ms: the list of members, which is asked for first over that connection. The member takes no lock for it
            and asks nobody: that is the network and its processor.
        call_ms: the question itself.
    """

    connect_ms: float | None = None
    list_ms: float | None = None
    call_ms: float | None = None


_timing: contextvars.ContextVar[Timing | None] = contextvars.ContextVar("_timing", default=None)


@contextlib.contextmanager
def timed() -> Iterator[Timing]:
    """Have the last call by gRPC in this block timed, in its parts. It asks for the list of members as well."""
    timing = Timing()
    token = _timing.set(timing)
    try:
        yield timing
    finally:
        _timing.reset(token)


def _ms_since(began_ns: int) -> float:
    return (time.monotonic_ns() - began_ns) / 1e6


def _connected(at: Endpoint, until: float, security: Security | None, *alpn: str) -> socket.socket:
    began = time.monotonic_ns()
    plain: socket.socket = connect(at, _left(until))
    if (timing := _timing.get()) is not None:
        timing.connect_ms, timing.list_ms, timing.call_ms = _ms_since(began), None, None
    plain.settimeout(_left(until))
    if not at.tls:
        return plain
    try:
        return (security or Security()).context(*alpn).wrap_socket(plain, server_hostname=at.tls_name)
    except BaseException as exc:
        plain.close()
        if isinstance(exc, ConnectionError):
            raise tls_fails(at.authority, TLS_FAILED) from exc
        raise


def _no_answer(endpoint: str, exc: OSError, security: Security | None) -> NoAnswer:
    cause = _tls_cause(exc, security)
    return no_connection(endpoint, exc) if cause is None else tls_fails(endpoint, cause)


def _tls_cause(exc: OSError, security: Security | None) -> str | None:
    """Return which of the causes of ``cluster.base.security`` an error is, None where it is not of TLS."""
    if not hasattr(exc, "library"):  # what ssl raises has it
        return None
    return tls_cause(exc, certificate=bool(security and security.cert))  # type: ignore[arg-type]


def tls_fails(endpoint: str, cause: str) -> NoAnswer:
    """Take ``host:port`` and one of the causes of ``cluster.base.security``, return the error that says so.

    Go's plain listener just hangs up on TLS; so that where the handshake broke off, it is asked without TLS.
    """
    if cause == TLS_FAILED:
        plain = endpoint.replace("unixs://", "unix://")
        for ask in (lambda: http(plain, "GET", "/version"), lambda: grpc(plain, STATUS, b"")):
            with contextlib.suppress(NoAnswer, NotGrpcError):
                with contextlib.suppress(EtcdError):  # a refusal is an answer, too
                    ask()
                cause = PLAIN_SPOKEN
                break
    return NoAnswer(f"{endpoint}: {cause}: {TLS_HINTS[cause]}", cause="tls", sent=False)


def no_connection(endpoint: str, exc: OSError) -> NoAnswer:
    """Take ``host:port`` and what a socket raised, return the error that says why there is no answer."""
    if isinstance(exc, socket.gaierror):
        return NoAnswer(f"{endpoint}: the name does not resolve", cause="host not found", sent=False)
    if isinstance(exc, ConnectionRefusedError):
        return NoAnswer(f"{endpoint}: {exc.strerror or exc}", cause="connection refused", sent=False)
    if isinstance(exc, FileNotFoundError | PermissionError):  # of a Unix socket
        cause = "no socket" if isinstance(exc, FileNotFoundError) else "socket not permitted"
        return NoAnswer(f"{endpoint}: {exc.strerror}", cause=cause, sent=False)
    if exc.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL):
        return NoAnswer(f"{endpoint}: {exc.strerror}", cause="host unreachable", sent=False)
    cause = "timeout" if isinstance(exc, TimeoutError) else "connection lost"
    return NoAnswer(f"{endpoint}: {exc.strerror or exc}", cause=cause)


def grpc(where: str, path: str, message: bytes, timeout_s: float = 1.0, security: Security | None = None) -> bytes:
    """One gRPC call.

    Takes ``host:port`` or a URL of no more than that, the method's path and the encoded request, and how to speak TLS
    to ``https://`` and who logs in; returns the encoded answer. It takes at most ``timeout_s`` seconds, and where a
    user has to log in first the seconds of the dial timeout more. Raises EtcdError with etcd's status, NoAnswer,
    NotGrpcError where something else than gRPC is spoken, and SecurityError for files of no use.
    """
    at, until = Endpoint.parse(where), time.monotonic() + timeout_s
    endpoint = at.authority
    connection: GrpcSocket | None = None
    try:
        sock = _connected(at, until, security, *(("h2",) if at.tls else ()))
        connection = GrpcSocket(sock, at.http_host, "https" if at.tls else "http")
        call = functools.partial(connection.call, path, message)
        if (timing := _timing.get()) is not None:
            call = functools.partial(_timed_call, timing, connection, call)
        if security is None or security.user is None:
            return call(until)
        return _as_user(
            at, security, until - time.monotonic(), functools.partial(_log_in_by_grpc, connection, where, security),
            lambda token, until: call(until, [("token", token)]),
        )  # fmt: skip
    except OSError as exc:
        lost = _no_answer(endpoint, exc, security)
        if connection is not None and not connection.spoken and lost.cause == "connection lost":
            raise NotGrpcError("it closed the connection at the first bytes") from exc
        if _tls_cause(exc, security) == NO_ALPN:
            raise NotGrpcError("it agrees to no HTTP/2 over TLS") from exc
        raise lost from exc
    finally:
        if connection is not None:
            connection.close()


def _timed_call(
    timing: Timing, connection: GrpcSocket, call: Callable[..., bytes], until: float, metadata: Fields = ()
) -> bytes:
    """Ask for the list of members, and make a call; note how long each takes."""
    began = time.monotonic_ns()
    with contextlib.suppress(EtcdError):  # a refusal says as much of the member as an answer
        connection.call(MEMBER_LIST, b"", until, metadata)
    timing.list_ms = _ms_since(began)
    began = time.monotonic_ns()
    answer = call(until, metadata)
    timing.call_ms = _ms_since(began)
    return answer


def has_logged_in(where: str, security: Security) -> bool:
    """Return whether a token of an endpoint is known; etcd may have forgotten it by now."""
    return (Endpoint.parse(where), security) in _tokens


def _log_in_by_grpc(connection: GrpcSocket, where: str, security: Security, until: float) -> str:
    request = encode({1: security.user or "", 2: security.password or ""})
    try:
        return Message(connection.call(_AUTHENTICATE, request, until)).text(2)
    except (EtcdError, ValueError) as exc:
        raise _no_login(where, security, exc.detail if isinstance(exc, EtcdError) else str(exc)) from exc


def _is_about_token(exc: EtcdError) -> bool:
    return exc.name in _TOKEN_REFUSED


def either(
    where: str,
    timeout_s: float,
    by_grpc: Callable[[float], T],
    by_json: Callable[[float], T],
) -> T:
    """Ask in the way in which it is answered, gRPC first; each question gets the seconds that are left.

    Raises EtcdError, where etcd answers with an error, and NoAnswer.
    """
    at, until = Endpoint.parse(where), time.monotonic() + timeout_s

    if at in _json_first:
        with contextlib.suppress(NoAnswer):
            return by_json(_left(until))
        _json_first.discard(at)
    json_next = True
    try:
        return by_grpc(_left(until))
    except NotGrpcError as exc:
        instead, http2 = str(exc), exc.http2
    except ValueError as exc:
        instead, http2 = f"its answer is malformed ({exc})", True
    except EtcdError as exc:
        if exc.code != _UNIMPLEMENTED:
            raise
        instead, http2, json_next = "it speaks gRPC, but does not know the call", True, False
    try:
        answer = by_json(_left(until))
    except NoAnswer as exc:
        if exc.cause == "tls":
            raise
        if http2:
            raise NoAnswer(f"{bare(where)}: not etcd: {instead}", cause="not etcd") from exc
        if exc.cause == "connection lost" and not at.tls and _speaks_tls(at, _left(until)):
            raise NoAnswer(f"{bare(where)} speaks TLS: use https://", cause="tls", sent=False) from exc
        raise
    if json_next:
        _json_first.add(at)
    return answer


def rpc(
    where: str,
    as_grpc: tuple[str, bytes],
    as_json: tuple[str, str],
    timeout_s: float = 1.0,
    security: Security | None = None,
) -> None:
    """Make a call whose answer says nothing.

    Takes what ``grpc`` takes, but the method's path with the encoded request, and the gateway's path with its JSON.
    Raises EtcdError and NoAnswer.
    """

    def by_grpc(left_s: float) -> None:
        grpc(where, *as_grpc, left_s, security)

    def by_json(left_s: float) -> None:
        json_call(where, as_json[0], as_json[1].encode(), left_s, security)

    either(where, timeout_s, by_grpc, by_json)


def _speaks_tls(at: Endpoint, timeout_s: float) -> bool:
    """Return whether a peer that hangs up on what is not TLS answers a TLS greeting."""
    import ssl

    context = Security(insecure_skip_tls_verify=True).context("h2")  # nothing is sent or believed
    try:
        with connect(at, timeout_s) as plain:
            plain.settimeout(timeout_s)
            context.wrap_socket(plain, server_hostname=at.tls_name).close()
    except ssl.SSLError as exc:
        return "ALERT" in (exc.reason or "")  # an answer too, as from one that wants a client certificate
    except OSError:
        return False
    return True


def speaks_grpc(where: str, timeout_s: float = 1.0, security: Security | None = None) -> bool | None:
    """Return whether gRPC is spoken at an endpoint; None where nobody answers. Takes what ``grpc`` takes."""
    try:
        grpc(where, STATUS, b"", timeout_s, security)
    except NotGrpcError:
        return False
    except EtcdError as exc:
        return exc.code != _UNIMPLEMENTED
    except NoAnswer:
        return None
    return True


def json_call(where: str, path: str, body: bytes, timeout_s: float = 1.0, security: Security | None = None) -> bytes:
    """One call of etcd's JSON gateway by its path; returns the answer as JSON.

    It takes as long as ``grpc``. Raises EtcdError with etcd's status, and NoAnswer also where the answer is not etcd's.
    """

    def call(token: str, until: float) -> bytes:
        code, answer = http(where, "POST", path, body, _left(until), security, token)
        error = _error_of(code, answer)
        if error is None:
            return answer
        raise error if isinstance(error, EtcdError) else NoAnswer(f"{bare(where)}: {error}", cause="not etcd")

    if security is None or security.user is None:
        return call("", time.monotonic() + timeout_s)
    log_in = functools.partial(_log_in_by_json, where, security)
    return _as_user(Endpoint.parse(where), security, timeout_s, log_in, call)


def _log_in_by_json(where: str, security: Security, until: float) -> str:
    body = json.dumps({"name": security.user, "password": security.password}).encode()
    left_s = until - time.monotonic()
    code, answer = http(where, "POST", "/v3/auth/authenticate", body, left_s, security)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        if code == 200:
            return str(json.loads(answer)["token"])
    raise _no_login(where, security, _said(answer) or f"HTTP {code}")


def _error_of(code: int, answer: bytes) -> EtcdError | str | None:
    """Return what is wrong with an answer of the gateway: etcd's error, why it is none of etcd's, None for nothing."""
    if code == 200:
        return None
    if code in (502, 503, 504) and not answer.startswith(b"{"):
        return EtcdError(_UNAVAILABLE, f"HTTP {code}: a proxy answers, and nobody behind it")
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        said = json.loads(answer)
        status, detail = int(said.get("code") or said["grpc_code"]), str(said.get("message") or said.get("error") or "")
        # The gateway says "Not Found" of a path that it does not have; etcd's own words are longer.
        if grpc_code_name(status) != f"CODE_{status}" and detail != "Not Found":
            return EtcdError(status, detail)
    return f"not an answer of etcd ({_said(answer) or f'HTTP {code}'})"


def refused(endpoint: str, exc: EtcdError, security: Security | None = None) -> NoAnswer:
    """Take ``host:port`` and etcd's refusal of a question, return the NoAnswer that says what it is about."""
    if exc.name in _NOT_PERMITTED:
        who = f"the user {security.user}" if security is not None and security.user else "this user"
        return NoAnswer(
            f"{endpoint}: permission denied: etcd does not show its status to {who}; "
            "3.5.28 to 3.5.31 and 3.6.0 to 3.6.11 show it to users with the role root only",
            cause=DENIED,
        )
    if exc.name == _NO_USER:
        return NoAnswer(f"{endpoint}: user required: auth is enabled; give --user NAME:PASSWORD", cause=USER_WANTED)
    if _is_about_token(exc):
        return NoAnswer(f"{endpoint}: login: {exc.detail}", cause=LOGIN)
    if exc.name in ("DeadlineExceeded", "DEADLINE_EXCEEDED"):
        return NoAnswer(f"{endpoint}: timed out", cause="timeout")
    return NoAnswer(f"{endpoint}: {exc}", cause=grpc_code_name(exc.code).lower().replace("_", " "))


def is_about_user(exc: EtcdError) -> bool:
    """Return whether etcd refuses because of who asks; it may have done all of the rest."""
    return exc.name in (*_NOT_PERMITTED, _NO_USER) or _is_about_token(exc)


def _said(body: bytes) -> str:
    """Return what etcd gave as the reason of an error, such as that auth is on and no user was named."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        if b"CommonName of client" in body:
            return "etcd's gateway takes no client certificate with a common name while auth is on"
        return " ".join(body[:200].decode("utf-8", "replace").split())
