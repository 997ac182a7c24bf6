"""The start of a connection: a non-blocking socket, with TLS where asked for, to a peer that may not be etcd."""

from __future__ import annotations

import _socket
from time import monotonic
from typing import TYPE_CHECKING

import gevent.socket

from cluster.base.dial import connect
from cluster.base.endpoint import Endpoint
from loadgen.client.connect_errors import NOT_HTTP2, TLS_SPOKEN, ConnectError, cause_of

if TYPE_CHECKING:
    from loadgen.client.tls import Tls, TlsOptions


def dial(endpoint: Endpoint, timeout_s: float, options: TlsOptions | None) -> tuple[_socket.socket, Tls | None]:
    """Connect to any of the addresses of the endpoint's name, or to its Unix socket; shake hands where it is to be TLS.

    Takes seconds. Reads and writes of the socket and of the TLS that it returns never wait. Raises ConnectError.
    """
    until = monotonic() + timeout_s
    opened = tls = None
    try:
        opened = connect(endpoint, timeout_s, gevent.socket)
        if options is not None:
            tls = options.begin(endpoint.tls_name)
            tls.handshake(opened, until)
    except BaseException as exc:
        if opened is not None:
            opened.close()
        if isinstance(exc, OSError):
            raise ConnectError(endpoint, cause_of(exc), str(exc)) from exc
        raise
    # The plain socket under gevent's.
    family, kind, proto = opened.family, opened.type, opened.proto
    raw = _socket.socket(family, kind, proto, fileno=opened.detach())
    raw.setblocking(False)
    if tls is not None:
        tls.attach(raw)
    return raw, tls


def foreign(first: bytes) -> tuple[str, str] | None:
    """Take the first bytes that a peer said, up to 8, without TLS; return as cause and detail what it is that cannot be
    etcd without TLS, None where it can be.
    """
    if b"HTTP/1.".startswith(first[:7]):
        return NOT_HTTP2, "it answers in HTTP/1"
    if first[:2] in (b"\x15\x03", b"\x16\x03"):  # an alert or a handshake (RFC 8446, section 5.1)
        return TLS_SPOKEN, ""
    return None
