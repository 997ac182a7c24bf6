"""The opening of a connection to an endpoint: to any of the addresses of its name, or to its Unix socket."""

from __future__ import annotations

import socket
from time import monotonic
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.base.endpoint import Endpoint


def connect(endpoint: Endpoint, timeout_s: float, kit: ModuleType = socket) -> Any:
    """Return a connected socket, whose timeout is not set back, and which does not wait with small writes.

    Takes the seconds in all, and the module of sockets to use: gevent's, or the standard one. A name may have several
    addresses, of which some are dead: each gets its share of the time that is left, so that one that swallows packets
    leaves some to the next. Raises OSError, of the last address that was tried.
    """
    until = monotonic() + timeout_s
    if endpoint.path:
        return _opened(kit, (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", endpoint.path), timeout_s)
    found = _addresses(endpoint.host, endpoint.port, kit)
    failure: OSError = OSError(f"{endpoint.host} has no address")
    for number, address in enumerate(found):
        left = until - monotonic()
        if number and left <= 0:
            break
        try:
            opened = _opened(kit, address, max(0.001, left / (len(found) - number)))
        except OSError as exc:
            failure = exc
            continue
        # A request that is written must leave: Nagle's algorithm would keep it until the last one is acknowledged.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened
    raise failure


def _addresses(host: str, port: int, kit: ModuleType) -> list[tuple[int, int, int, str, Any]]:
    bare = host.rstrip(".")
    if bare == "localhost":
        host = bare  # RFC 6761, section 6.3: no name server is asked for it, which may be far away, and silent
    try:
        return list(kit.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
    except socket.gaierror:
        if host == bare:
            raise
        # A trailing dot means that no suffix is to be tried; /etc/hosts has none, and Go finds such names there.
        return list(kit.getaddrinfo(bare, port, 0, socket.SOCK_STREAM))


def _opened(kit: ModuleType, address: tuple[int, int, int, str, Any], timeout_s: float) -> Any:
    family, kind, proto, _, where = address
    opened = kit.socket(family, kind, proto)
    try:
        opened.settimeout(timeout_s)
        opened.connect(where)
    except BaseException:
        opened.close()
        raise
    return opened
