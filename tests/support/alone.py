"""The lock by which a test about time runs alone, and the others beside each other."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(lock: Path, *, alone: bool) -> Iterator[None]:
    """Hold the lock in this file: beside others, or once nobody else has it.

    It is the process's. A lock of ``flock`` is the open file's, which a forked child shares: it would be held for as
    long as any process lives that a test has forked, and a test about time would wait for that one.
    """
    with lock.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
