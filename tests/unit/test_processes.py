"""The end of processes: by themselves at the end of their stdin, or killed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from cluster.base import processes
from tests.support.waiting import HANG_S

READS = "import sys; sys.stdin.read()"
STAYS = "import time; time.sleep(600)"


@pytest.mark.parametrize(
    ("program", "within_s", "code"), [(READS, HANG_S, 0), (STAYS, 0.0, -signal.SIGKILL), ("", HANG_S, 0)]
)
def test_a_process_ends_at_the_end_of_its_stdin_or_is_killed(program: str, within_s: float, code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    processes.end(process, within_s)
    processes.end(process, within_s)
    assert process.returncode == code
