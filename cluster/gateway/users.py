"""The users of a cluster that raftload made, and the switch that makes etcd ask for them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from cluster.base.access import CLIENT, ROOT, Access
from cluster.base.errors import ClusterError, EtcdError, NoAnswer
from cluster.base.security import Security
from cluster.observe import calls
from cluster.observe.messages import encode

_CALL_S = 10.0
_PAUSE_S = 0.1
_READWRITE = 2
_PASSING = (4, 14)  # DEADLINE_EXCEEDED, UNAVAILABLE: as while a leader is elected
# The errors that a step gets which was done before. Once authentication is on, etcd refuses a call without a user.
_DONE_ALREADY = {
    "UserAdd": ("UserAlreadyExist",), "RoleAdd": ("RoleAlreadyExist",), "AuthEnable": ("UserEmpty", "PermissionDenied"),
}  # fmt: skip
_EVERY_KEY = b"\0"  # as the first key and as the end of the range


def enable_auth(endpoints: Sequence[str], access: Access, within_s: float) -> None:
    """Make the user root, and one that reads and writes every key, and enable authentication.

    Takes the client URLs of a healthy cluster. Goes on for ``within_s`` seconds where a member does not answer or has
    no leader. Raises ClusterError.
    """
    permission = encode({1: _READWRITE, 2: _EVERY_KEY, 3: _EVERY_KEY})
    steps: list[tuple[str, dict[int, int | str | bytes], str, dict[str, object]]] = []
    for user in (ROOT, CLIENT):
        password = access.password(user)
        steps += [
            ("UserAdd", {1: user, 2: password}, "user/add", {"name": user, "password": password}),
            ("RoleAdd", {1: user}, "role/add", {"name": user}),
            ("UserGrantRole", {1: user, 2: user}, "user/grant", {"user": user, "role": user}),
        ]
    every = {"permType": "READWRITE", "key": "AA==", "range_end": "AA=="}
    steps += [
        ("RoleGrantPermission", {1: CLIENT, 2: permission}, "role/grant", {"name": CLIENT, "perm": every}),
        ("AuthEnable", {}, "enable", {}),
    ]
    until = time.monotonic() + within_s
    security = access.security(login=False)
    number = 0
    for method, fields, path, body in steps:
        as_grpc, as_json = (f"/etcdserverpb.Auth/{method}", encode(fields)), (f"/v3/auth/{path}", json.dumps(body))
        done = _DONE_ALREADY.get(method, ())
        while reason := _refusal(endpoints[number % len(endpoints)], as_grpc, as_json, security, done):
            if (isinstance(reason, EtcdError) and reason.code not in _PASSING) or time.monotonic() >= until:
                raise ClusterError(f"cannot enable authentication: {method}: {reason}") from reason
            number += 1
            time.sleep(_PAUSE_S)


def _refusal(
    where: str, as_grpc: tuple[str, bytes], as_json: tuple[str, str], security: Security, done: Sequence[str]
) -> EtcdError | NoAnswer | None:
    """Do one step, return why it was not done; that a call whose answer was lost has done it is no reason.

    Takes the names of the errors by which etcd says so.
    """
    try:
        calls.rpc(where, as_grpc, as_json, _CALL_S, security)
    except EtcdError as exc:
        return None if exc.name in done else exc
    except NoAnswer as exc:
        return exc
    return None
