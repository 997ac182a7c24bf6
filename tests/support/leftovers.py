"""Processes and folders that a worker's tests left on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from pathlib import Path

from cluster.local.keeper import FOLDER_PREFIX, LOCK

# In the environment of every process that this test worker starts.
SESSION = "RAFTLOAD_TEST_SESSION"
_OURS = (
    "--initial-cluster-token=raftload-",
    "cluster/local/keeper.py",
    "cluster.local.strike import main",
    "-m loadgen.bugs.trial",
)


def find_leftovers(*more: str) -> set[str]:
    """Return what the tests of this worker have on this machine now: processes, and folders of clusters.

    Processes are known by a word in their environment, so those of other workers and sessions are not taken for ours.
    Each worker has its own folder for temporary files; ``more`` names further folders to look in, which others use too.
    A folder whose keeper lives belongs to that process; one without a living keeper is nobody's, so it counts.
    """
    found = set()
    word = f"{SESSION}={os.environ[SESSION]}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            ours = any(part in command for part in _OURS)
            if ours and word in (entry / "environ").read_bytes().split(b"\0"):
                found.add(f"process {entry.name}: {command[:200]}")
    for root in {tempfile.gettempdir(), *more}:
        found.update(f"folder {path}" for path in Path(root).glob(f"{FOLDER_PREFIX}*") if not _is_locked(path))
    return found


def wait_gone(before: set[str], within_s: float, *more: str) -> set[str]:
    """Return what is there beside ``before``, once nothing is or after so many seconds."""
    deadline = time.monotonic() + within_s
    while True:
        left = find_leftovers(*more) - before
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(0.05)


def _is_locked(folder: Path) -> bool:
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
