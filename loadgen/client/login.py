"""The token of one user, shared by the connections of a channel (etcd API, Auth.Authenticate).

etcd's simple tokens live in the members' memory, JSON web tokens have an end, and both are of one revision of the auth
store, so a token can be refused although the password is right: by a member that was started again, after a long time,
or once a user or role was changed. The request that is told so was not executed: it is sent again with a new token.
"""

from __future__ import annotations

import base64
import json
from time import perf_counter_ns, time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from gevent.lock import RLock
from google.protobuf.message import DecodeError

from cluster.base.errors import error_name
from loadgen.client.connect_errors import (
    AUTH_OFF,
    BAD_PASSWORD,
    LEARNER,
    NO_ANSWER,
    NO_LOGIN,
    TOKEN_REFUSED,
    USER_WANTED,
    ConnectError,
)
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import Code, LocalError, Stream

if TYPE_CHECKING:
    from loadgen.client.transport import Transport

AUTHENTICATE = b"/etcdserverpb.Auth/Authenticate"
_CAUSES = {
    "AuthFailed": BAD_PASSWORD,
    "NoPasswordUser": BAD_PASSWORD,
    "UserEmpty": BAD_PASSWORD,
    "INVALID_ARGUMENT": BAD_PASSWORD,
    "UNAUTHENTICATED": BAD_PASSWORD,
    "AuthNotEnabled": AUTH_OFF,
    "NotSupportedForLearner": LEARNER,
    "FAILED_PRECONDITION": AUTH_OFF,
    "DEADLINE_EXCEEDED": NO_ANSWER,
}
BAD_TOKEN = "InvalidAuthToken"
# Before each further try of a request whose token was refused, where the member may not have heard of the token yet.
TOKEN_PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.5)
# The last one of a request without a token, as ours are while auth is off.
_REFUSED = (BAD_TOKEN, "AuthOldRevision", "UserEmpty")
# Of a token's life, the share after which it is renewed.
_RENEW_AFTER = 0.75
# After so long every member that follows the leader has heard of a token; one that has not gives us one itself.
_HEARD_OF_AFTER_NS = 500_000_000


class Login:
    """One user of one cluster. Takes the name, the password, and the seconds that etcd gets to check them.

    All methods take a connection, whose requests have the token that it was given last.
    """

    def __init__(self, user: str, password: str, timeout_s: float) -> None:
        self._request = pb.AuthenticateRequest(name=user, password=password).SerializeToString()
        self._timeout_ns = int(timeout_s * 1e9)
        self._lock = RLock()
        self._token = b""
        self._giver = ""
        self._refused = False
        self._began_ns = 0
        self._renew_at_s: float | None = None
        # What each connection has, and since when.
        self._given: WeakKeyDictionary[Transport, tuple[bytes, int]] = WeakKeyDictionary()

    def admit(self, transport: Transport, former: Transport | None = None) -> None:
        """Give a connection a token; another one than its former had, whose token is no longer good there.

        Takes the former connection to the same member, None for none, itself where its token is to be renewed. Asks
        etcd only where nobody has since. Raises ConnectError.
        """
        with self._lock:
            worn = b"" if former is None else self._given.get(former, (b"", 0))[0]
            if self._token == worn or self._refused:
                self._log_in(transport)
            self._give(transport)

    def readmit(self, transport: Transport, sent_ns: int) -> bool:
        """Take a connection and when a request was sent there whose token was refused; give it a newer token.

        Returns whether there is one: a member may not have heard yet of a token that another one has just given, since
        etcd hands tokens on through Raft; then False, and the request is to be sent again a little later. Raises
        ConnectError where etcd gives none.
        """
        with self._lock:
            token, since_ns = self._given.get(transport, (b"", 0))
            if token == self._token and sent_ns >= since_ns:
                young = perf_counter_ns() - self._began_ns < _HEARD_OF_AFTER_NS
                if young and self._giver != str(transport.endpoint):
                    return False
                self._refused = True  # until there is another one
                self._log_in(transport)
            self._give(transport)
            return True

    @property
    def renew_in_s(self) -> float | None:
        """Seconds until the token should be renewed; None where it has no end that we know of."""
        return None if self._renew_at_s is None else max(0.0, self._renew_at_s - time())

    def _give(self, transport: Transport) -> None:
        token = self._token
        if self._given.get(transport, (None, 0))[0] != token:
            transport.set_metadata(((b"token", token),) if token else ())
            self._given[transport] = (token, perf_counter_ns())

    def _log_in(self, transport: Transport) -> None:
        """Ask etcd for another token, and keep it. Raises ConnectError.

        Where auth is switched off since the last login, requests have none from now on: etcd 3.5.1 refuses an old one
        then, too. Once auth is on again it refuses those without.
        """
        try:
            token = self._authenticate(transport)
        except ConnectError as exc:
            if exc.cause != AUTH_OFF or not self._giver:
                raise
            self._token, self._refused, self._renew_at_s = b"", False, None
            return
        self._token, self._giver, self._began_ns = token.encode(), str(transport.endpoint), perf_counter_ns()
        self._refused = False
        now, end = time(), expiry_s(token)
        self._renew_at_s = None if end is None else now + _RENEW_AFTER * max(0.0, end - now)

    def _authenticate(self, transport: Transport) -> str:
        if self._refused:
            # etcd 3.4 refuses a login with a bad token; a renewal leaves the good one to the requests beside it.
            transport.set_metadata(())
            self._given.pop(transport, None)
        began_ns = perf_counter_ns()
        try:
            stream = transport.call(AUTHENTICATE, self._request, self._timeout_ns, began_ns, queued=True)
        except LocalError as exc:
            raise ConnectError(transport.endpoint, NO_LOGIN, str(exc)) from exc
        if stream.code != Code.OK:
            said = error_name(stream.code, stream.detail) if stream.answered else Code(stream.code).name
            raise ConnectError(transport.endpoint, stream.cause or _CAUSES.get(said, NO_LOGIN), stream.detail)
        try:
            return pb.AuthenticateResponse.FromString(stream.message or b"").token
        except DecodeError as exc:
            raise ConnectError(transport.endpoint, NO_LOGIN, "malformed answer") from exc


def is_token_refusal(name: str | None) -> bool:
    """Take the name of an error, return whether a login would make it good: it is about the token alone."""
    return name in _REFUSED or name == Code.UNAUTHENTICATED.name


def is_token_refused(stream: Stream) -> bool:
    """Take a call that has ended, return whether etcd refused it for its token, and so did not execute it."""
    # A watch is refused without the end of its stream, and then has a cause.
    return is_token_refusal(error_name(stream.code, stream.detail) if stream.answered else stream.cause)


def refusal_cause(stream: Stream) -> str | None:
    """Take a call that etcd answered with an error, return the cause where that is about the user; None otherwise."""
    if error_name(stream.code, stream.detail) == "UserEmpty":
        return USER_WANTED
    return TOKEN_REFUSED if is_token_refused(stream) else None


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
