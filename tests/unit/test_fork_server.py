"""The process that forks commands for the tests: what becomes of it when these are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.support.command import ROOT
from tests.support.processes import children, runs
from tests.support.waiting import HANG_S, until

# Forks a command that goes on until it is ended, says its pid, and waits; a sleeper has the socket's other end, too.
PROGRAM = """
import subprocess, time
from pathlib import Path
from tests.support import forked
words = ("viz", "status", "--watch", "--endpoints", "127.0.0.1:1")
command = forked.ForkedCommand("loadgen.cli", words, Path.cwd(), dict(forked._ENV))
sleeper = subprocess.Popen(["sleep", "600"], pass_fds=[forked.server("plain").fileno()])
print(command.pid, sleeper.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="commands are forked where a process has a descriptor")
def test_the_server_and_its_commands_end_with_tests_that_are_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE, text=True, process_group=0
    ) as tests:
        assert tests.stdout is not None
        command, sleeper = map(int, tests.stdout.readline().split())
        try:
            until(lambda: command in {each for pid in children(tests.pid) for each in children(pid)}, "the command")
            server = next(pid for pid in children(tests.pid) if command in children(pid))
            tests.kill()
            tests.wait(HANG_S)
            until(lambda: not runs(server), "the end of the server")
            until(lambda: not runs(command), "the end of the command")
            assert runs(sleeper)
        finally:
            os.kill(sleeper, signal.SIGKILL)
