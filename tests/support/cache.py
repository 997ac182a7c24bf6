"""Folders in the user's cache that are made once: what takes long to install or to build."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cached(name: str, make: Callable[[Path], Path]) -> Path:
    """Return the cache's folder of a name, which is made where it is not there: all of it or nothing.

    Takes what makes it: it is called with an empty folder and returns the one within it that is kept. Whoever else
    wants it meanwhile waits.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raftload"
    folder = cache / name
    if not folder.exists():
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (cache / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache) as new:
                    make(Path(new)).rename(folder)
    return folder
