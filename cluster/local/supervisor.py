"""The owner's side of the keeper: starts, signals and ends member processes. See ``keeper.py`` for why it is apart."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base import processes
from cluster.base.errors import ClusterError
from cluster.local import keeper

if TYPE_CHECKING:
    from cluster.local.strike import Answer as StrikeAnswer

_ANSWER_S = 15.0


class Supervisor:
    """Owns member processes through a keeper; usable from any thread or greenlet, one request at a time.

    ``socket`` and ``subprocess`` are looked up at each use, so that it blocks cooperatively where gevent has
    patched them and plainly where not.
    """

    def __init__(self, *, temporary: bool, storage: str = "disk") -> None:
        """Start the keeper.

        Takes whether it shall make a temporary folder (and remove it in the end), and where: ``disk`` is the
        system's folder for temporary files, ``memory`` is /dev/shm. Raises ClusterError where that is
        impossible.
        """
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._buffer = b""
        self._pids: dict[str, int] = {}
        self.folder: Path | None = None
        if not sys.executable:
            raise ClusterError("no Python interpreter to run the keeper with: sys.executable is empty")
        argv = [sys.executable, "-I", "-S", str(Path(keeper.__file__).resolve()), str(self._owner)]
        if temporary:
            argv.append(_temp_root(storage))
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                argv, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as exc:
            ours.close()
            raise ClusterError(f"cannot start the keeper of the members: {exc.strerror or exc}") from exc
        finally:
            theirs.close()
        self._sock: socket.socket | None = ours
        ours.settimeout(_ANSWER_S)
        try:
            hello = self._receive()
            if "error" in hello:
                raise ClusterError(f"no temporary folder in {argv[-1]}: {hello['error']}")
        except BaseException:
            self._hang_up()
            raise
        if hello["folder"] is not None:
            self.folder = Path(hello["folder"])

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of those started last under each name, running or not."""
        return dict(self._pids)

    def spawn(
        self, name: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path, nice: int = 0,
        trapped: Sequence[str] = (), timed: bool = False,
    ) -> int:  # fmt: skip
        """Start a process called ``name``, its output appended to ``log``. Returns its process id.

        On Linux it weighs ``nice`` less than this process when both want the CPU (see `keeper.Weight`). Its system
        calls of the names in ``trapped`` can be struck, and its syncs among them are ``timed``. Raises ClusterError
        where it cannot be started or runs already.
        """
        request: keeper.Request = {
            "op": "spawn",
            "name": name,
            "argv": list(argv),
            "log": str(log),
            "env": dict(env),
            "cwd": str(cwd),
            "nice": nice,
            "trapped": list(trapped),
            "timed": timed,
        }
        pid = self._ask(request, f"cannot start {name}")["pid"]
        self._pids[name] = pid
        return pid

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal; on return the process is gone after SIGKILL, and all of it stands still after SIGSTOP.

        Raises ClusterError where it does not run.
        """
        self._ask({"op": "signal", "name": name, "signal": int(number)}, f"cannot signal {name}")

    def poll(self) -> dict[str, int | None]:
        """Exit code of every process started so far, minus the signal where one ended it; None while it runs."""
        answer = self._ask({"op": "poll"}, "cannot ask the keeper")
        return answer["members"]

    def strike(self, name: str, order: Mapping[str, object]) -> StrikeAnswer:
        """Give an order to the process that strikes a member, see ``strike.py``. Raises ClusterError."""
        answer = self._ask({"op": "strike", "name": name, "order": dict(order)}, f"cannot strike {name}")["strike"]
        if "error" in answer:
            raise ClusterError(f"cannot strike {name}: {answer['error']}")
        return answer

    def close(self, grace_s: float) -> None:
        """End all processes, asking for ``grace_s`` seconds before it forces, and remove the folder.

        Idempotent. A copy of the owner made by ``fork`` does nothing here but close its end.
        """
        sock = self._sock
        if sock is None:
            return
        if os.getpid() != self._owner:
            self._sock = None
            sock.close()
            return
        try:
            with contextlib.suppress(ClusterError):
                sock.settimeout(grace_s + _ANSWER_S)
                self._ask({"op": "stop", "grace_s": grace_s}, "cannot stop")
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        """Close the socket, which makes the keeper end everything, and see to it that it did."""
        sock, self._sock = self._sock, None
        if sock is not None:
            with contextlib.suppress(OSError):  # reaches the keeper even where a fork holds a copy
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        processes.wait(self._process, _ANSWER_S)
        if self._process.returncode != 0:  # it was killed, so its work is left to us
            for pid in self._pids.values() if not sys.platform.startswith("linux") else ():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if self.folder is not None:
                shutil.rmtree(self.folder, ignore_errors=True)

    def _ask(self, request: keeper.Request, failure: str) -> keeper.Answer:
        with self._lock:
            if self._sock is None or os.getpid() != self._owner:
                raise ClusterError(f"{failure}: the cluster is not running in this process")
            try:
                self._sock.sendall(json.dumps(request).encode() + b"\n")
                answer = self._receive()
            except OSError as exc:
                raise ClusterError(f"{failure}: the keeper of the members is gone ({exc})") from exc
        if "error" in answer:
            raise ClusterError(f"{failure}: {answer['error']}")
        return answer

    def _receive(self) -> keeper.Answer:
        assert self._sock is not None
        while b"\n" not in self._buffer:
            data = self._sock.recv(65536)
            if not data:
                raise ClusterError("the keeper of the members is gone")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: keeper.Answer = json.loads(line)
        return answer


def _temp_root(storage: str) -> str:
    if storage == "disk":
        return tempfile.gettempdir()
    if storage != "memory":
        raise ValueError(f"storage is 'disk' or 'memory', not {storage!r}")
    if not os.access("/dev/shm", os.W_OK | os.X_OK):
        raise ClusterError("no memory-backed folder: /dev/shm is missing or not writable; use storage on disk")
    return "/dev/shm"
