"""Reasons why there is no connection: constants that can be counted, each with a hint for people."""

from __future__ import annotations

import _socket

import gevent.socket

from cluster.base.dial import connect
from cluster.base.endpoint import Endpoint
from cluster.base.security import TLS_HINTS

REFUSED = "connection refused"
UNRESOLVED = "host not found"
UNREACHABLE = "host unreachable"
NO_SOCKET = "no socket"
FORBIDDEN = "socket not permitted"
NO_ANSWER = "no answer"
CLOSED = "connection closed at once"
LOST = "connection lost"
SILENT = "no sign of life"
CLOSED_HERE = "client closed"
NOT_HTTP2 = "not HTTP/2"
TLS_SPOKEN = "TLS spoken"
NOT_ETCD = "not etcd"
BAD_PASSWORD = "wrong user or password"
AUTH_OFF = "auth not enabled"
USER_WANTED = "user required"
TOKEN_REFUSED = "auth token expired"
NO_LOGIN = "login failed"
LEADER_HIDDEN = "leader not visible"
NO_STREAM = "no free stream"
LEARNER = "a learner"

HINTS = {
    **TLS_HINTS,
    REFUSED: "nothing listens there; is etcd running, and is this its client port?",
    UNRESOLVED: "the name does not resolve",
    UNREACHABLE: "no route to the host",
    NO_SOCKET: "there is no such Unix socket; is etcd running, and does it listen there?",
    FORBIDDEN: "this user may not use the Unix socket",
    NO_ANSWER: "it accepts connections but says nothing; is it paused, or not etcd?",
    CLOSED: "it closed the connection at the first bytes; is this etcd's client port, and without TLS?",
    LOST: "the connection broke",
    SILENT: "it stopped answering PINGs; is it paused, or cut off?",
    CLOSED_HERE: "the connection was closed on our side",
    NOT_HTTP2: "it answers, but not in HTTP/2; etcd's client port (2379) speaks gRPC",
    TLS_SPOKEN: "it speaks TLS, but the endpoint was given without it; use https://",
    NOT_ETCD: "it speaks HTTP/2, but not etcd's API",
    BAD_PASSWORD: "etcd knows no such user with this password",
    AUTH_OFF: "a user was given, but auth is not enabled on this cluster; leave out --user ($ETCDCTL_USER)",
    USER_WANTED: "auth is enabled on this cluster; give --user NAME:PASSWORD",
    TOKEN_REFUSED: "etcd no longer accepts the token of the login; raftload logs in again",
    NO_LOGIN: "etcd did not answer the login as it should",
    NO_STREAM: "it allows no more streams on a connection (--max-concurrent-streams), and takes no further connection",
    "UserEmpty": "auth is enabled on this cluster; give --user NAME:PASSWORD",
    "PermissionDenied": "the user may not do this; give it a role that may, or another user with --user",
    "NoSpace": "the store is over its quota; compact and defragment it, then disarm the alarm (etcdctl alarm disarm)",
    "RequestTooLarge": "etcd takes requests of 1.5 MiB unless it is started with a larger --max-request-bytes",
    "NotSupportedForLearner": "a learner serves serializable reads only",
    LEARNER: "a learner has no vote; it serves serializable reads only, and no login",
    LEADER_HIDDEN: "etcd does not tell this user the leader; use another --balance, or a user with the role root",
}


class TlsError(OSError):
    """TLS could not be begun, or not gone on with.

    Attributes: ``cause``, a constant of ``cluster.base.security``.
    """

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause


class ConnectError(Exception):
    """A connection could not be made; nothing was sent.

    Attributes: ``endpoint``; ``cause``, one of this module's constants; ``hint``, what a person may try.
    """

    def __init__(self, endpoint: Endpoint, cause: str, detail: str = "") -> None:
        self.endpoint = endpoint
        self.cause = cause
        self.hint = HINTS[cause]
        super().__init__(f"{endpoint.authority}: {cause}: {self.hint}" + (f" ({detail})" if detail else ""))


def cause_of(exc: OSError) -> str:
    """Take what connecting raised, return its cause."""
    if isinstance(exc, TlsError):
        return exc.cause
    if isinstance(exc, ConnectionRefusedError):
        return REFUSED
    if isinstance(exc, TimeoutError):
        return NO_ANSWER
    if isinstance(exc, _socket.gaierror):
        return UNRESOLVED
    if isinstance(exc, FileNotFoundError | PermissionError):
        return NO_SOCKET if isinstance(exc, FileNotFoundError) else FORBIDDEN
    if isinstance(exc, ConnectionError):
        return CLOSED
    return UNREACHABLE


def speaks_tls(endpoint: Endpoint, timeout_s: float) -> bool:
    """Take an endpoint that does not answer plain HTTP/2 and seconds, return whether it answers a TLS greeting."""
    # ssl is gevent's own: the standard one would block the hub.
    from gevent import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent or believed: it is asked whether it speaks TLS at all
    context.set_alpn_protocols(["h2"])
    plain = None
    try:
        plain = connect(endpoint, timeout_s, gevent.socket)
        context.wrap_socket(plain, server_hostname=endpoint.tls_name).close()
    except ssl.SSLError as exc:
        # An alert is an answer too, as from a server that insists on a client certificate.
        return "ALERT" in (exc.reason or "")
    except OSError:
        return False
    else:
        return True
    finally:
        if plain is not None:
            plain.close()
