"""Free TCP ports on loopback."""

from __future__ import annotations

import random
import socket
from collections.abc import Container
from pathlib import Path

from cluster.base.errors import ClusterError

_LOWEST = 15_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def is_free(port: int) -> bool:
    """Return whether a server could listen on 127.0.0.1:``port`` now.

    Binds it for a moment, as Go would, to find out.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
            sock.listen(1)
        except OSError:
            return False
    return True


def free_ports(count: int, rng: random.Random | None = None, taken: Container[int] = ()) -> list[int]:
    """``count`` different ports that are free now, none of ``taken``. Raises ClusterError where there are too few.

    They are chosen at random below the range from which the system serves outgoing connections: a port in
    that range can be taken by a client's own socket while a member is down for a restart, and a client that
    retries such a port can even connect to itself. Another process may still take one before it is used; who
    starts a server retries.
    """
    rng = rng or random.SystemRandom()
    highest = _first_ephemeral() - 1
    ports: list[int] = []
    for _ in range(200 * max(count, 1)):
        if len(ports) == count:
            return ports
        port = rng.randint(_LOWEST, highest)
        if port not in ports and port not in taken and is_free(port):
            ports.append(port)
    raise ClusterError(f"no {count} free ports on 127.0.0.1 between {_LOWEST} and {highest}")


def _first_ephemeral() -> int:
    try:
        first = int(_EPHEMERAL.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768
    # A system may hand out nearly all ports; then nothing is safe and a fair share of them is used.
    return first if first >= _LOWEST + 2_000 else 65_536
