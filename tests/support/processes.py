"""What /proc says of processes, each of which may end while it is read (Linux)."""

from __future__ import annotations

import contextlib
from pathlib import Path


def runs(pid: int) -> bool:
    """Return whether a process runs. One that has ended does not, although nobody may be there to reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Return the pids of the processes that a process has started; none where it has ended."""
    with contextlib.suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def name_of(pid: int) -> str:
    """Return the name of a process, as `ps` shows it; none where it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    return ""


def descendants(pid: int) -> list[int]:
    """Return the same, and theirs."""
    return [each for child in children(pid) for each in (child, *descendants(child))]


def arguments() -> dict[int, list[bytes]]:
    """Return the arguments of every process on this machine by its pid."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            found[int(path.parent.name)] = path.read_bytes().split(b"\0")
    return found
