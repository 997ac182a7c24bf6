"""How long processes of this machine had a CPU, and how long they were ready and waited for one, as Linux counts it.

``/proc/PID/task/TID/schedstat`` has both for each thread, in nanoseconds: the time on a CPU, and the time on its run
queue. (``/proc/PID/schedstat`` is the first thread's alone, and a member has a dozen.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

LARGE_SHARE = 0.5
"""The share of the time in which a process was ready, from which on its wait for a CPU is a large part of it."""


class CpuTimes(NamedTuple):
    """Nanoseconds that all threads together had a CPU, and waited for one."""

    ran_ns: int
    waited_ns: int


class CpuMeter:
    """The CPU times of processes by name, over all the processes that have had a name.

    What a process did between the last reading and its end is not in them.
    """

    def __init__(self) -> None:
        self._threads: dict[str, dict[tuple[int, int], CpuTimes]] = {}

    def read(self, pids: Mapping[str, int]) -> dict[str, CpuTimes]:
        """Read the processes that are there, and return the times of each name that was ever read.

        A name is missing as long as the kernel has told nothing of its processes: not all count, and no other system
        than Linux does.
        """
        for name, pid in pids.items():
            self._threads.setdefault(name, {}).update(
                {(pid, thread): times for thread, times in of_threads(pid).items()}
            )
        return {
            name: CpuTimes(*map(sum, zip(*threads.values(), strict=True)))
            for name, threads in self._threads.items()
            if threads
        }


def of_threads(pid: int, proc: Path = Path("/proc")) -> dict[int, CpuTimes]:
    """Return the times of each thread of a process; nothing where it is gone or the kernel does not count."""
    found = {}
    try:
        threads = list((proc / str(pid) / "task").iterdir())
    except OSError:
        return {}
    for thread in threads:
        try:
            ran, waited, _ = (thread / "schedstat").read_text().split()
        except (OSError, ValueError):  # it has just ended
            continue
        found[int(thread.name)] = CpuTimes(int(ran), int(waited))
    # A kernel that does not count says 0 everywhere.
    return found if any(times.ran_ns for times in found.values()) else {}
