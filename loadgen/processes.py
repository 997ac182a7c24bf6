"""Worker processes on this machine: started apart from the terminal, dead when we are."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cluster.pythonpath import python_path
from cluster.security import Security
from loadgen.exits import BUG
from loadgen.interrupt import EXIT_CODES

_PR_SET_PDEATHSIG = 1


class WorkerProcess:
    """One `raftload worker` on this machine.

    It is a session of its own, so that Ctrl-C on the terminal reaches its master alone, which then lets it
    finish and report.

    Takes its number, the scenario, the path of its log, and how to reach the cluster: that it is told by its
    environment, which nobody else can see, unlike a command line. It is started by `start`.

    Attributes:
        name: what messages call it.
        client_id: its name in Locust's protocol, None until it has reported for work.
    """

    def __init__(self, number: int, scenario: str, log: Path, security: Security) -> None:
        self.number = number
        self.log = log
        self.client_id: str | None = None
        self._scenario, self._security = scenario, security
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, host: str, port: int) -> None:
        """Start it. Takes where the master listens. Raises OSError."""
        command = [
            sys.executable, "-P", "-m", "loadgen.cli", "worker",
            "--master-host", host, "--master-port", str(port),
            "--scenario", self._scenario, "--parent", str(os.getpid()), "--number", str(self.number),
        ]  # fmt: skip
        # The master decides; what a shell exports for a Locust or a cluster of its own must not reach our workers.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LOCUST_", "ETCDCTL_"))}
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**kept, **self._security.to_environment(), "PYTHONPATH": python_path()},
            )

    @property
    def pid(self) -> int | None:
        """Its process id, None before it is started."""
        return None if self._process is None else self._process.pid

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"worker {self.number} (pid {self.pid})"

    def death(self) -> str | None:
        """Return how it ended, None while it runs."""
        code = None if self._process is None else self._process.poll()
        if code is None:
            return None
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exited with status {code}"

    @property
    def gone(self) -> bool:
        """Whether it will not come back."""
        return self.death() is not None

    @property
    def failed(self) -> bool:
        """Whether it ended by a bug of ours."""
        return self._process is not None and self._process.poll() == BUG

    @property
    def left(self) -> bool:
        """Whether it has ended by itself, or because it was told to: not by a signal, and not by an error."""
        return self._process is not None and self._process.poll() in (0, *EXIT_CODES.values())

    def last_words(self) -> str:
        """Return the last line of its log that says something."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else "its log is empty"

    def end(self, grace_s: float = 2.0) -> None:
        """End the process: SIGTERM, then SIGKILL after the grace, in seconds."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            deadline = time.monotonic() + grace_s
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            if process.poll() is None:
                process.kill()
        process.wait()


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent, whose pid is given, has died (Linux).

    See prctl(2), PR_SET_PDEATHSIG. Elsewhere the worker notices by Locust's heartbeat, later.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # It may have died before the call above: then nobody will tell us.
    if os.getppid() != parent:
        raise SystemExit("the master that started this worker is gone")
