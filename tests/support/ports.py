"""Ports of 127.0.0.1 that no other test worker and no cluster of ours chooses.

`cluster.ports.free_ports` chooses at random from 15000 on, and whoever starts a server tries again where somebody else
was quicker. A test that names a port to a command cannot try again, so each worker of pytest-xdist has a range of its
own below 15000 and goes through it in order.
"""

from __future__ import annotations

import itertools
import os

from cluster.ports import is_free

_LOWEST, _PER_WORKER, WORKERS, _AT_MOST = 10_000, 600, 8, 6
_given = itertools.count()


def take_ports(count: int) -> int:
    """Returns the first of so many free ports in a row."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    assert count <= _AT_MOST
    assert number < WORKERS, f"at most {WORKERS} test workers: each has its own ports"
    first = _LOWEST + number * _PER_WORKER
    for turn in itertools.islice(_given, _PER_WORKER):
        offset = turn * _AT_MOST % _PER_WORKER
        if all(is_free(first + offset + each) for each in range(count)):
            return first + offset
    raise AssertionError(f"no {count} free ports in a row from {first}")
