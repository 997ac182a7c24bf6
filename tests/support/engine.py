"""The Docker Engine, of which a machine has one: alone on it, and what there is on it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# One for the machine, whatever folder for temporary files a test worker or a session has.
_LOCK = Path("/tmp/raftload-docker-tests.lock")


@contextlib.contextmanager
def engine_alone() -> Iterator[None]:
    """Wait until no other test worker or session uses the Engine, and keep them waiting: names there are fixed."""
    try:
        lock = os.open(_LOCK, os.O_RDONLY)  # another user's may be opened and not created
    except FileNotFoundError:
        lock = os.open(_LOCK, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def everything(client: Any) -> dict[str, list[str]]:
    """Return what there is on the Engine, and in /dev/shm of ours. Takes a client of the Docker SDK."""
    return {
        "containers": sorted(each["Names"][0].lstrip("/") for each in client.api.containers(all=True)),
        "networks": sorted(each["Name"] for each in client.api.networks()),
        "volumes": sorted(each["Name"] for each in client.api.volumes()["Volumes"] or []),
        "folders": sorted(str(path) for path in Path("/dev/shm").glob("raftload-docker-*")),
    }
