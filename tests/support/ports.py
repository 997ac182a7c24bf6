"""Ports of 127.0.0.1 that no other test worker and no cluster of ours chooses.

`cluster.base.ports.free_ports` chooses at random from 15000 on, and whoever starts a server tries again where somebody
else was quicker. A test that names a port to a command cannot try again, so each worker of pytest-xdist has a range of
its own below 15000 and goes through it in order, again and again: the test that had a port before has ended, or the
port is not free. Where two test runs share a machine, a port belongs to the one that first bound the name of it.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import urllib.request

from cluster.base.ports import is_free

# Behind each row a few ports stay free, for a test that makes its cluster larger.
_LOWEST, _PER_WORKER, WORKERS, _SPARE = 10_000, 600, 8, 3
# The next port of this worker's range, from 0.
_given = itertools.cycle(range(_PER_WORKER))
# The names of ports that are this process's; open as long as it runs, so that they stay taken.
_owned: dict[int, socket.socket] = {}


def take_ports(count: int) -> int:
    """Return the first of so many free ports in a row. Raises AssertionError where this worker's range has none."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    assert number < WORKERS, f"at most {WORKERS} test workers: each has its own ports"
    lowest = _LOWEST + number * _PER_WORKER
    row = 0
    for place in itertools.islice(_given, 2 * _PER_WORKER):
        port = lowest + place
        row = (row if place else 0) + 1 if _own(port) and is_free(port) else 0
        if row == count + _SPARE:
            return port - row + 1
    raise AssertionError(f"no {count} free ports in a row from {lowest}")


def closed_port() -> str:
    """Return the ``host:port`` of a port that nobody listens on."""
    return f"127.0.0.1:{take_ports(1)}"


def serves(port: int | str) -> bool:
    """Tell whether a web page is served on a port."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _own(port: int) -> bool:
    """Whether no other test run has this port: a name without a file, which the kernel frees with its owner."""
    if sys.platform != "linux" or port in _owned:
        return True
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0raftload-test-ports-{port}")
    except OSError:
        name.close()
        return False
    _owned[port] = name
    return True
