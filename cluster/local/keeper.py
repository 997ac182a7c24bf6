"""The process between a cluster's owner and its members: it starts them, and ends them when the owner is gone.

It runs by path as ``python -I -S keeper.py OWNER_PID TEMP_ROOT`` with a socket as its stdin, so it imports
the standard library only; where members are struck, ``strike_keeper.py`` too. Being a process of its own with a
single thread, it can do three things that its owner cannot do reliably:

- it outlives a ``kill -9`` of the owner, sees the owner's end of the socket close (or, where a forked copy of
  the owner still holds it, its own parent change), kills the members and removes the folder;
- it may use ``preexec_fn`` and PR_SET_PDEATHSIG, whose signal is sent when the forking *thread* ends; so the
  members die with the keeper as well, even by ``kill -9``;
- it is the members' parent, so a signal never meets a process id that was used again.

Members may weigh less than their owner when both want the CPU (see ``Weight``).

Requests and answers are one JSON object a line. It makes its folder itself, before anything can go wrong,
under a lock: a folder whose keeper was killed together with its owner is removed by the next keeper (see
``sweep``).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

if TYPE_CHECKING:
    from cluster.local.strike import Answer as StrikeAnswer
    from cluster.local.strike_keeper import Striker

FOLDER_PREFIX = "raftload-etcd-"
LOCK = "keeper.lock"
TICK_S = 0.25
_STOP_S = 0.5
_PR_SET_PDEATHSIG = 1
_LEAST_WEIGHT = 19
# Linux lets an ordinary user set the weight of an autogroup once in 100 ms, all users together.
_AUTOGROUP_ATTEMPTS, _AUTOGROUP_PAUSE_S = 100, 0.01
# The inode of the cgroup namespace that a machine starts with: paths in another one are not from the root.
_FIRST_CGROUP_NAMESPACE = "cgroup:[4026531835]"


class Request(TypedDict, total=False):
    """What the owner asks for: ``op`` is spawn, signal, poll, strike or stop, and says which of the others there are.

    ``trapped`` are the calls that the process of a member is to be struck at, none in the usual case.
    """

    op: str
    name: str
    argv: list[str]
    log: str
    env: dict[str, str]
    cwd: str
    nice: int
    trapped: list[str]
    timed: bool
    signal: int
    order: dict[str, Any]
    grace_s: float


class Answer(TypedDict, total=False):
    """What the keeper says: at first its folder, then what came of each request."""

    error: str
    folder: str | None
    pid: int
    members: dict[str, int | None]
    strike: StrikeAnswer


class Keeper:
    """Takes the socket to the owner, the owner's process id, and where to make the temporary folder; None: nowhere."""

    def __init__(self, sock: socket.socket, owner: int, temp_root: str | None) -> None:
        self._sock = sock
        self._owner = owner
        self._members: dict[str, subprocess.Popen[bytes]] = {}
        self._strikers: dict[str, Striker] = {}
        self._folder: Path | None = None
        if temp_root is not None:
            sweep(Path(temp_root))
            self._folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=temp_root))
            self._lock = os.open(self._folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def serve(self) -> None:
        """Answer requests until the owner says stop or is gone; then nothing is left."""
        try:
            self._send({"folder": str(self._folder) if self._folder else None})
            buffer = b""
            while os.getppid() == self._owner:
                strikers = {striker.sock: name for name, striker in self._strikers.items()}
                ready = select.select([self._sock, *strikers], [], [], TICK_S)[0]
                for sock in ready:
                    if sock in strikers:  # it never speaks unasked: it has ended
                        self._end_struck(strikers[sock])
                if self._sock not in ready:
                    continue
                data = self._sock.recv(65536)
                if not data:
                    return
                buffer += data
                while b"\n" in buffer:
                    line, _, buffer = buffer.partition(b"\n")
                    request = json.loads(line)
                    self._send(self._answer(request))
                    if request["op"] == "stop":
                        return
        except OSError:
            return  # the owner is gone in the middle of an answer
        finally:
            self._end(grace_s=0.0)

    def _send(self, message: Answer) -> None:
        self._sock.sendall(json.dumps(message).encode() + b"\n")

    def _answer(self, request: Request) -> Answer:
        try:
            if request["op"] == "spawn":
                return self._spawn(request)
            if request["op"] == "signal":
                return self._signal(request["name"], request["signal"])
            if request["op"] == "poll":
                return {"members": {name: member.poll() for name, member in self._members.items()}}
            if request["op"] == "strike":
                return self._strike(request["name"], request["order"])
            if request["op"] == "stop":
                self._end(request["grace_s"])
                return {}
            return {"error": f"unknown request {request['op']}"}
        except OSError as exc:
            return {"error": exc.strerror or str(exc)}

    def _spawn(self, request: Request) -> Answer:
        name = request["name"]
        running = self._members.get(name)
        if running is not None and running.poll() is None:
            return {"error": f"{name} is running already"}
        in_child, striker = _in_child(self._owner, request["nice"]), None
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        log = os.open(request["log"], flags, 0o644)
        try:
            if request["trapped"]:
                there = self._striker(request)
                in_child, striker = there.in_child(in_child), there
            member = subprocess.Popen(
                request["argv"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=request["env"],
                cwd=request["cwd"], start_new_session=True,
                preexec_fn=in_child,  # noqa: PLW1509 (no other thread exists here)
            )  # fmt: skip
        except subprocess.SubprocessError as exc:  # the child says no more than that it failed
            what = "its system calls cannot be trapped" if striker is not None else "its weight cannot be set"
            return {"error": f"{what} ({exc})"}
        finally:
            os.close(log)
            if striker is not None:
                striker.started()
        self._members[name] = member
        return {"pid": member.pid}

    def _striker(self, request: Request) -> Striker:
        """Return the process that strikes a member, of its lives before where there were any."""
        from cluster.local.strike_keeper import Striker

        name, there = request["name"], self._strikers.get(request["name"])
        if there is None or not there.is_alive:
            if there is not None:
                there.close()
            self._strikers[name] = Striker(request["trapped"], timed=request["timed"])
        return self._strikers[name]

    def _strike(self, name: str, order: dict[str, Any]) -> Answer:
        striker = self._strikers.get(name)
        if striker is None:
            return {"error": "the process that answers its system calls has ended, and the member with it"}
        return {"strike": json.loads(striker.ask(order))}

    def _end_struck(self, name: str) -> None:
        """End a member whose calls nobody answers any more."""
        member = self._members.get(name)
        if member is not None and member.poll() is None:
            member.kill()
            member.wait()
        self._strikers.pop(name).close()

    def _signal(self, name: str, number: int) -> Answer:
        member = self._members.get(name)
        if member is None or member.poll() is not None:
            return {"error": f"{name} is not running"}
        member.send_signal(number)
        if number == signal.SIGKILL:
            member.wait()
        elif number == signal.SIGSTOP and hasattr(os, "waitid"):
            # Its threads stop one after the other; until the last has, it still answers. (macOS: from Python 3.13.)
            what, ends = os.WSTOPPED | os.WEXITED | os.WNOWAIT, time.monotonic() + _STOP_S
            if name not in self._strikers:
                os.waitid(os.P_PID, member.pid, what)
            # A thread whose call is held stops only once that is answered.
            while time.monotonic() < ends and os.waitid(os.P_PID, member.pid, what | os.WNOHANG) is None:
                time.sleep(0.001)
        return {"pid": member.pid}

    def _end(self, grace_s: float) -> None:
        """End every member, paused ones too, within about ``grace_s`` seconds, and remove the folder."""
        alive = [member for member in self._members.values() if member.poll() is None]
        if grace_s > 0:
            for member in alive:
                member.send_signal(signal.SIGTERM)
                member.send_signal(signal.SIGCONT)
            deadline = time.monotonic() + grace_s
            while time.monotonic() < deadline and any(member.poll() is None for member in alive):
                time.sleep(0.01)
        for member in alive:
            member.kill()
        for member in alive:
            member.wait()
        for striker in self._strikers.values():
            striker.close()
        self._strikers.clear()
        if self._folder is not None:
            _remove(self._folder)


def sweep(root: Path, older_than_s: float = 60.0) -> list[Path]:
    """Remove folders in ``root`` whose keeper is gone without having removed them. Returns those removed.

    A living keeper holds a lock on a file in its folder. Folders younger than ``older_than_s`` are left,
    because a keeper needs a moment between making the folder and locking it; those of other users are left
    too.
    """
    removed = []
    for folder in root.glob(f"{FOLDER_PREFIX}*"):
        try:
            info = folder.lstat()
            if info.st_uid != os.getuid() or time.time() - info.st_ctime < older_than_s:
                continue
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
            removed.append(folder)
        except OSError:
            continue
        finally:
            os.close(lock)
    return removed


def _remove(folder: Path) -> None:
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


class Weight(NamedTuple):
    """How much of a busy CPU a process gets beside others.

    Attributes:
        nice: of the process, -20 to 19: each step is about a tenth of the CPU, among processes of one session.
        session_nice: of its session's autogroup, which counts beside other sessions; None where the kernel does not
            schedule by sessions, and for a process of the session that the machine began with, which has no autogroup.
        autogroup: the number of that autogroup; None likewise.
    """

    nice: int
    session_nice: int | None
    autogroup: int | None


def weight(pid: int) -> Weight | None:
    """Return the weight of a process; None where there is none, or no Linux."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        nice = os.getpriority(os.PRIO_PROCESS, pid)
        text = Path(f"/proc/{pid}/autogroup").read_text() if by_sessions() else ""
    except OSError:
        return None
    found = re.fullmatch(r"/autogroup-(\d+) nice (-?\d+)\n", text)
    return Weight(nice, int(found[2]), int(found[1])) if found else Weight(nice, None, None)


def by_sessions(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> bool:
    """Return whether the kernel shares the CPU out among sessions (autogroups), then within each (sched(7)).

    It does so where that is enabled, and among processes of the root CPU cgroup only, so not in a container.
    """
    try:
        if (proc / "sys/kernel/sched_autogroup_enabled").read_text().strip() != "1":
            return False
        if str((proc / "self/ns/cgroup").readlink()) != _FIRST_CGROUP_NAMESPACE:
            return False
        rows = [line.split(":", 2) for line in (proc / "self/cgroup").read_text().splitlines()]
    except OSError:
        return False
    for _, controllers, path in rows:
        if "cpu" in controllers.split(","):
            return path == "/"
    unified = next((path for _, controllers, path in rows if not controllers), None)
    if unified is None:
        return False
    # A cgroup without the CPU controller is in its parent's CPU cgroup. With it, it has a weight; the root has none.
    inner = [Path(unified), *Path(unified).parents][:-1]
    there = all((cgroups / str(each).lstrip("/")).is_dir() for each in inner)
    return there and not any((cgroups / str(each).lstrip("/") / "cpu.weight").exists() for each in inner)


def _in_child(owner: int, nice: int) -> Callable[[], None] | None:
    """Return what a forked child calls before it becomes a member; None where there is no such thing.

    The kernel then kills it when its parent ends, and it weighs ``nice`` less than the owner.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    keeper = os.getpid()
    above, ours = weight(owner) if nice else None, weight(keeper)

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != keeper:  # it died before the request took effect
            os._exit(1)
        if above is not None and ours is not None:
            with contextlib.suppress(OSError):  # a member of full weight is better than none
                _weigh_less(above, ours, nice)

    return in_child


def _weigh_less(above: Weight, parent: Weight, nice: int) -> None:
    """Lower the weight of this process and of its session, which has to be its own: its parent's is another."""
    pid = os.getpid()
    os.setpriority(os.PRIO_PROCESS, 0, min(_LEAST_WEIGHT, above.nice + nice))
    mine = weight(pid)
    if mine is None or mine.autogroup in (None, above.autogroup, parent.autogroup) or os.getsid(0) != pid:
        return
    value = b"%d" % min(_LEAST_WEIGHT, beside_sessions(above) + nice)
    for _ in range(_AUTOGROUP_ATTEMPTS):
        try:
            file = os.open("/proc/self/autogroup", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(file, value)
                return
            finally:
                os.close(file)
        except BlockingIOError:
            time.sleep(_AUTOGROUP_PAUSE_S)


def beside_sessions(process: Weight) -> int:
    """Return the nice value with which a process counts beside other sessions.

    That is its session's, or its own where it has no autogroup: a process of the session that the machine began with
    stands beside the sessions, not in one.
    """
    return process.nice if process.session_nice is None else process.session_nice


def main() -> None:
    """``keeper.py OWNER_PID [TEMP_ROOT]``, the socket to the owner as stdin."""
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    sock = socket.socket(fileno=0)
    sock.settimeout(TICK_S)
    # Handlers, because "ignored" would be handed on to the members.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGHUP, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # unwinds through serve(), which ends the members
    try:
        keeper = Keeper(sock, int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
    except OSError as exc:
        with contextlib.suppress(OSError):
            sock.sendall(json.dumps({"error": exc.strerror or str(exc)}).encode() + b"\n")
        return
    keeper.serve()


if __name__ == "__main__":
    main()
