"""Processes that a test has started, which end with it at the latest."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from tests.support.waiting import HANG_S

_started: list[subprocess.Popen[str]] = []


def remembered(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """Return a process, which ends with the test, or with the fixture of several tests, that has started it."""
    _started.append(process)
    return process


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Kill, at the end, what was started meanwhile and still runs: the load of a test that has failed."""
    before = len(_started)
    try:
        yield
    finally:
        for process in _started[before:]:
            if process.poll() is None:
                process.kill()
                process.communicate(timeout=HANG_S)
        del _started[before:]
