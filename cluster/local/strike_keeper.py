"""The keeper's side of the process that strikes a member (``strike.py``): it starts it, and passes orders on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cluster.local import seccomp

_ANSWER_S = 10.0
_CODE = "import sys; sys.path.append({root!r}); from cluster.local.strike import main; main()"


class Striker:
    """The process that strikes one member, in all its lives.

    Takes the names of the calls to trap, and whether syncs are timed. Raises OSError where it cannot be started.
    """

    def __init__(self, calls: Iterable[str], *, timed: bool) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(_ANSWER_S)
        # Each message is one life of the member: its descriptors never mix with those of another.
        self._door, inner = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._dup = -1
        root = str(Path(__file__).resolve().parents[2])
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _CODE.format(root=root), str(os.getpid()), str(inner.fileno()),
                 str(int(timed))],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                start_new_session=True, pass_fds=(inner.fileno(),),
            )  # fmt: skip
        finally:
            theirs.close()
            inner.close()
        self._install = seccomp.installer(calls, self._process.pid)

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def in_child(self, before: Callable[[], None] | None) -> Callable[[], None]:
        """Return what a forked child calls before it becomes the member, after what else is to be called there.

        Its calls are trapped from then on, and answered by the process.
        """
        door, (ours, theirs) = self._door, socket.socketpair()
        self._ours, self._theirs = ours, theirs

        def in_child() -> None:
            if before is not None:
                before()
            listener, process = self._install()
            try:
                seccomp.hand_over(door, listener, process)
                seccomp.hand_over(theirs, listener)
            except OSError:
                # Nobody answers. What is raised here goes to the keeper over a pipe, by a call that may be trapped.
                os._exit(1)

        return in_child

    def started(self) -> None:
        """Take over what the child left, once it has become the member or failed to.

        A copy of the descriptor keeps calls waiting where the process ends, instead of failing, until the member is
        ended too.
        """
        self._theirs.close()
        with self._ours:
            self._ours.setblocking(False)
            try:
                _, descriptors = seccomp.taken_over(self._ours)
            except OSError:
                return
        if descriptors:  # none where its calls could not be trapped
            self._forget_life()
            (self._dup,) = descriptors

    def ask(self, order: dict[str, Any]) -> bytes:
        """Pass an order on, return the line that answers it. Raises OSError where the process is gone."""
        answer = b""
        try:
            self.sock.sendall(json.dumps(order).encode() + b"\n")
            while not answer.endswith(b"\n"):
                if not (data := self.sock.recv(65536)):
                    raise ConnectionResetError
                answer += data
        except ConnectionError as exc:
            raise ConnectionError("the process that strikes it is gone") from exc
        return answer

    def close(self) -> None:
        """End the process; the member has to have ended before."""
        self._process.kill()
        self._process.wait()
        self._forget_life()
        self.sock.close()
        self._door.close()

    def _forget_life(self) -> None:
        if self._dup >= 0:
            os.close(self._dup)
            self._dup = -1
