"""The lock of the tests about time: who waits for whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.alone import held
from tests.support.command import ROOT
from tests.support.waiting import HANG_S, until

# Takes the file, and whether to be alone; says when it has the lock.
HOLD = (
    "import sys; from pathlib import Path; from tests.support.alone import held\n"
    "with held(Path(sys.argv[1]), alone=sys.argv[2] == 'alone'): print('has it', flush=True)"
)


def _start(lock: Path, way: str) -> subprocess.Popen[str]:
    """Start another process that holds the lock for a moment."""
    return subprocess.Popen([sys.executable, "-c", HOLD, str(lock), way], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _is_blocked(pid: int) -> bool:
    """Return whether a process waits for a lock: `1: -> POSIX  ADVISORY  WRITE 4711 …`."""
    return any("->" in line and f" {pid} " in line for line in Path("/proc/locks").read_text().splitlines())


def test_one_waits_for_all_others_and_they_for_none(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    with held(lock, alone=False):
        with _start(lock, "beside") as beside:
            assert beside.communicate(timeout=HANG_S) == ("has it\n", None)
        waits = _start(lock, "alone")
        until(lambda: _is_blocked(waits.pid), "one that waits")
    with waits:
        assert waits.communicate(timeout=HANG_S) == ("has it\n", None)


def test_what_a_test_has_forked_and_left_holds_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    with held(lock, alone=False):
        child = os.fork()
        if child == 0:
            time.sleep(2 * HANG_S)
            os._exit(0)
    try:
        with _start(lock, "alone") as alone:
            assert alone.communicate(timeout=HANG_S) == ("has it\n", None)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
