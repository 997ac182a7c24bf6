"""Commands of raftload that are forked from a process which has imported it.

`python -m loadgen.cli bench` spends a second of a processor on imports, most of them Locust's, and the tests run
hundreds of such commands. A forked one runs the same code in a process of its own, with its own environment, folder,
standard streams and process group. What differs: /proc shows the server's command line and first environment, and the
command is the server's child.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from select import select
from types import TracebackType
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
# A process reads these when it starts, so a command that has others is started anew.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "GEVENT", "MALLOC", "FAKETIME")
_LOADS = ("bench", "chaos", "web", "worker", "ab", "capacity", "perf")


def _at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_READ_AT_START)}


# The servers' environment, whatever a test has set by the time when one is started.
_ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


def is_forkable(module: str, words: tuple[str, ...], env: Mapping[str, str]) -> bool:
    """Return whether a forked command is what a started one would be."""
    return (
        sys.platform == "linux"
        and hasattr(os, "pidfd_open")
        and module in ("loadgen.cli", "cluster.cli.options")
        and _at_start(env) == _at_start(_ENV)
    )


def kind_of(words: Sequence[str]) -> str:
    """Return the kind of server for a command of `raftload`, by its words."""
    return "load" if words and words[0] in _LOADS else "plain"


def sockets(env: Mapping[str, str]) -> dict[str, int]:
    """Return the sockets of all servers, by the variables that name them to a program which asks for commands itself.

    Empty where commands with this environment cannot be forked.
    """
    if not is_forkable("loadgen.cli", (), env):
        return {}
    return {socket_variable(kind): server(kind).fileno() for kind in ("plain", "load")}


def socket_variable(kind: str) -> str:
    """Return the variable that names a server's socket."""
    return f"RAFTLOAD_TEST_{kind.upper()}_SERVER"


def request(
    to: socket.socket,
    module: str,
    words: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    outputs: tuple[int, int],
    *,
    with_us: bool = False,
) -> IO[str]:
    """Have a server fork `python -m MODULE WORDS`; return where to read its pid and then its wait status.

    Takes the server's socket, the descriptors of the command's stdout and stderr, and whether the command is killed
    when this process has ended.
    """
    report, report_end = os.pipe()
    text = json.dumps({"module": module, "words": words, "cwd": str(cwd), "env": dict(env), "with_us": with_us})
    try:
        socket.send_fds(to, [text.encode()], [*outputs, report_end])
    finally:
        os.close(report_end)
    return os.fdopen(report)


def number(report: IO[str]) -> int:
    """Return the next number that a server reports of a command, once it is there."""
    line = report.readline()
    assert line, "the process that forks commands has ended: what it printed stands in the session's output"
    return int(line)


class ForkedCommand(subprocess.Popen[str]):
    """`python -m MODULE WORDS`, forked; what the tests use of `Popen`, with stdout and stderr as pipes of text.

    Takes what the server takes. Attributes are those of `Popen`.
    """

    def __init__(self, module: str, words: tuple[str, ...], cwd: Path, env: dict[str, str]) -> None:
        self.args = [sys.executable, "-m", module, *words]
        self.stdin = None
        self.returncode: int | None = None  # type: ignore[assignment]
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        kind = kind_of(words) if module == "loadgen.cli" else "plain"
        try:
            self._report = request(server(kind), module, words, cwd.resolve(), env, (out_end, err_end))
        finally:
            for end in (out_end, err_end):
                os.close(end)
        self.stdout: IO[str] | None = os.fdopen(out, encoding="utf-8")
        self.stderr: IO[str] | None = os.fdopen(err, encoding="utf-8")
        self._lock = threading.Lock()
        self._printed: dict[str, str] = {}
        self._readers: list[threading.Thread] = []
        self.pid = number(self._report)

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when it has ended. Raises TimeoutExpired."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        # Waits without the lock, so that a thread that waits keeps no other one from sending a signal; and with a
        # descriptor of its own, since another thread may close the report meanwhile.
        with self._lock:
            if self.returncode is not None:
                return self.returncode
            waited_for = os.dup(self._report.fileno())
        try:
            is_over = bool(select([waited_for], [], [], timeout)[0])
        finally:
            os.close(waited_for)
        with self._lock:
            if is_over and self.returncode is None:
                self.returncode = os.waitstatus_to_exitcode(number(self._report))
                self._report.close()
            return self.returncode

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:  # noqa: A002
        """Return what it still prints, when it has ended. Raises TimeoutExpired; what was read until then is kept."""
        assert input is None
        if not self._readers:
            self._readers = [
                threading.Thread(target=self._read, args=(name, stream), daemon=True)
                for name, stream in (("stdout", self.stdout), ("stderr", self.stderr))
                if stream is not None and not stream.closed  # its test reads it
            ]
            for reader in self._readers:
                reader.start()
        until = None if timeout is None else _now() + timeout
        for reader in self._readers:
            reader.join(None if until is None else max(0.0, until - _now()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(None if until is None else max(0.0, until - _now()))
        return self._printed.get("stdout", ""), self._printed.get("stderr", "")

    def _read(self, name: str, stream: IO[str]) -> None:
        with stream:
            self._printed[name] = stream.read()

    def send_signal(self, sig: int) -> None:
        """Send it a signal, where it has not ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._readers:
            for stream in (self.stdout, self.stderr):
                if stream is not None:
                    stream.close()
        self.wait()

    def __del__(self, *_: Any) -> None:
        """Nothing: the server reaps it."""


def _now() -> float:
    import time

    return time.monotonic()


@functools.cache
def server(kind: str) -> socket.socket:
    """Start the server for a kind of command, once for each process of the tests; it ends with that process.

    Returns the socket for requests.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server", kind, str(theirs.fileno())],
            cwd=ROOT, env=_ENV, pass_fds=(theirs.fileno(),), process_group=0,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def end() -> None:
        ours.close()
        process.wait(timeout=60)

    atexit.register(end)
    return ours
