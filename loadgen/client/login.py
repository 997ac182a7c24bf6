"""The token of one user, shared by the connections of a channel (etcd API, Auth.Authenticate).

etcd's simple tokens live in the members' memory and JSON web tokens have an end, so a token can be refused although
the password is right: by a member that was started again, or after a long time. The operation that is told so was not
executed; it is a failure and is not sent again. The next ones wait for a new token.
"""

from __future__ import annotations

import base64
import json
from time import perf_counter_ns, time
from typing import TYPE_CHECKING

from gevent.lock import RLock
from google.protobuf.message import DecodeError

from loadgen.client.connect_errors import (
    AUTH_OFF,
    BAD_PASSWORD,
    NO_ANSWER,
    NO_LOGIN,
    TOKEN_REFUSED,
    USER_WANTED,
    ConnectError,
)
from loadgen.client.kv import error_name
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import Code, LocalError, Stream

if TYPE_CHECKING:
    from loadgen.client.transport import Transport

AUTHENTICATE = b"/etcdserverpb.Auth/Authenticate"
_CAUSES = {
    Code.INVALID_ARGUMENT: BAD_PASSWORD,
    Code.UNAUTHENTICATED: BAD_PASSWORD,
    Code.FAILED_PRECONDITION: AUTH_OFF,
    Code.DEADLINE_EXCEEDED: NO_ANSWER,
}
_REFUSED = ("InvalidAuthToken", "AuthOldRevision")
# Of a token's life, the share after which it is renewed.
_RENEW_AFTER = 0.75


class Login:
    """One user of one cluster. Takes the name, the password, and the seconds that etcd gets to check them."""

    def __init__(self, user: str, password: str, timeout_s: float) -> None:
        self._request = pb.AuthenticateRequest(name=user, password=password).SerializeToString()
        self._timeout_ns = int(timeout_s * 1e9)
        self._lock = RLock()
        self._token = b""
        self._began_ns = 0
        self._renew_at_s: float | None = None

    def admit(self, transport: Transport, worn: bytes = b"") -> bytes:
        """Take a connection and the token that is no longer good there, empty for none.

        Gives the connection another one, asking etcd only where nobody has since, and returns it. Raises ConnectError.
        """
        with self._lock:
            if self._token == worn:
                self._token = self._authenticate(transport)
            token = self._token
        transport.set_metadata(((b"token", token),))
        return token

    @property
    def renew_in_s(self) -> float | None:
        """Seconds until the token should be renewed; None where it has no end that we know of."""
        return None if self._renew_at_s is None else max(0.0, self._renew_at_s - time())

    def refuses(self, stream: Stream, call_ns: int) -> bool:
        """Take a failed call, return whether its token was refused and there is no newer one yet."""
        return is_token_refused(stream) and call_ns >= self._began_ns

    def _authenticate(self, transport: Transport) -> bytes:
        began_ns = perf_counter_ns()
        try:
            stream = transport.call(AUTHENTICATE, self._request, self._timeout_ns, began_ns, queued=True)
        except LocalError as exc:
            raise ConnectError(transport.endpoint, NO_LOGIN, str(exc)) from exc
        if stream.code != Code.OK:
            cause = _CAUSES.get(Code(stream.code), NO_LOGIN)
            raise ConnectError(transport.endpoint, stream.cause or cause, stream.detail)
        try:
            token = pb.AuthenticateResponse.FromString(stream.message or b"").token
        except DecodeError as exc:
            raise ConnectError(transport.endpoint, NO_LOGIN, "malformed answer") from exc
        self._began_ns = perf_counter_ns()
        now, end = time(), expiry_s(token)
        self._renew_at_s = None if end is None else now + _RENEW_AFTER * max(0.0, end - now)
        return token.encode()


def is_token_refused(stream: Stream) -> bool:
    """Take a call that has ended, return whether etcd refused it for its token, and so did not execute it."""
    if not stream.answered:
        return False
    return stream.code == Code.UNAUTHENTICATED or error_name(stream.code, stream.detail) in _REFUSED


def refusal_cause(stream: Stream) -> str | None:
    """Take a call that etcd answered with an error, return the cause where that is about the user; None otherwise."""
    if is_token_refused(stream):
        return TOKEN_REFUSED
    return USER_WANTED if error_name(stream.code, stream.detail) == "UserEmpty" else None


def expiry_s(token: str) -> float | None:
    """Take a token, return when it ends in seconds since 1970, where it is a JSON web token that says so (RFC 7519).

    >>> expiry_s("AbCdEf.12") is None
    True
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (ValueError, KeyError, TypeError):
        return None
