"""The client of the local cluster that survives its command; its owner (``daemon.py``) takes orders over a socket.

It is a ``LocalCluster`` in a process of its own, in a session of its own. Whoever started it says "keep" once it is
healthy; a starter that ends before takes everything with it. The socket lies in the members' own folder, which the
keeper removes with them, so that a socket that answers is a cluster that is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cluster.base.access import Access
from cluster.base.errors import ClusterError, EtcdBroken, EtcdNotFound, UsageError
from cluster.base.processes import python_path
from cluster.base.security import Security
from cluster.base.signals import finishing, uninterrupted
from cluster.base.topology import DISK_METHODS, Disk, Member
from cluster.local.cluster import State
from cluster.local.cpu_times import CpuTimes
from cluster.local.daemon import ANSWER_S, Answer
from cluster.local.strike_rules import FOR_DISKS
from cluster.observe.running import Running, forget, load


class ClusterGone(ClusterError):  # noqa: N818
    """No process owns the cluster any more."""


def start(
    *,
    nodes: int,
    base_port: int,
    binary: str,
    source: str,
    data: str,
    links: str,
    requested_version: str | None,
    wait_s: float,
    etcd_args: tuple[str, ...] = (),
    tls: bool = False,
    auth: bool = False,
    disk_faults: bool = False,
) -> DetachedCluster:
    """Start a cluster that stays. Returns it healthy.

    Takes what LocalCluster takes; ``binary`` as an absolute path, because the process runs in another folder, and
    ``source``, where it was found, for people; ``data`` is ``container`` for a folder on disk or ``shm``; ``links`` is
    ``relay`` or ``direct``; whether to make certificates, and users; whether faults of disks can be done. Raises
    ClusterError; then, and where it is interrupted, nothing is left.
    """
    order = {
        "nodes": nodes, "base_port": base_port, "binary": binary, "start_timeout_s": wait_s, "peer_links": links,
        "storage": "memory" if data == "shm" else "disk", "extra_args": etcd_args, "with_tls": tls, "with_auth": auth,
        "strikes": FOR_DISKS if disk_faults else (),
    }  # fmt: skip
    try:
        owner = subprocess.Popen(
            [sys.executable, "-P", "-c", "from cluster.local.daemon import serve; serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
            env={**os.environ, "PYTHONPATH": python_path()},
        )  # fmt: skip
    except OSError as exc:
        raise ClusterError(f"cannot start the cluster's process: {exc.strerror or exc}") from exc
    return _keep(owner, {"cluster": order, "requested_version": requested_version, "source": source})


def _keep(owner: subprocess.Popen[bytes], message: Mapping[str, object]) -> DetachedCluster:
    """Tell a process what to own, and to keep it once it is healthy; nothing is left where that fails."""
    assert owner.stdin is not None
    assert owner.stdout is not None
    kept = False
    with owner.stdin, owner.stdout:
        try:
            owner.stdin.write(json.dumps(message).encode() + b"\n")
            owner.stdin.flush()
            answer = json.loads(owner.stdout.readline() or b'{"error": "the process of the cluster ended"}')
            if "error" in answer:
                raise _error(answer)
            found = DetachedCluster.find()
            if found is None:
                raise ClusterError("the cluster's process ended right after it started")
            with finishing():  # it stays or it goes, and nothing comes between
                owner.stdin.write(b"keep\n")
                owner.stdin.flush()
                owner.stdout.readline()
                kept = True
                owner.returncode = 0  # nobody's child any more when we end
        except BaseException:
            if not kept:
                with contextlib.suppress(OSError):
                    owner.stdin.close()  # the owner reads the end of it and removes everything
                _wait(owner)
            raise
    return found


def _wait(owner: subprocess.Popen[bytes]) -> None:
    """Until a started owner has removed everything."""
    with uninterrupted():
        try:
            owner.wait(20)
        except subprocess.TimeoutExpired:
            owner.terminate()
            owner.wait()


class DetachedCluster:
    """The local cluster that stays, by name. Methods raise KeyError for an unknown member, ClusterError on failure."""

    backend = "local"

    def __init__(self, running: Running) -> None:
        """Take what the state file says."""
        self.running = running
        self.cannot: dict[str, str] = {}

    @classmethod
    def find(cls) -> DetachedCluster | None:
        """Return the one that is there, None where none is; a state file without its cluster is removed."""
        running = load("local")
        if running is None:
            return None
        found = cls(running)
        try:
            found._order("hello")
        except ClusterGone:
            forget("local")
            return None
        if running.links != "relay":
            reason = (
                "its members are connected directly: start it with `raftload cluster up --backend local --links relay`"
            )
            found.cannot |= dict.fromkeys(("isolate", "delay", "drop"), reason)
        if not running.disk_faults:
            reason = (
                "the system calls of its members are not trapped: start it with `raftload cluster up --backend local "
                "--disk-faults`, on Linux"
            )
            found.cannot |= dict.fromkeys(DISK_METHODS, reason)
        return found

    def __enter__(self) -> DetachedCluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing: each order has a connection of its own."""

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, running or not, in order."""
        return self.running.members

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The members' client URLs."""
        return self.running.endpoints

    @property
    def access(self) -> Access:
        """The certificates and users that were made for it."""
        return self.running.access

    @property
    def security(self) -> Security:
        """How to reach the members. Raises ClusterError where that cannot be read."""
        return self.access.security()

    def states(self) -> dict[str, State]:
        """Return what each member's process is doing: ``running``, ``paused`` or ``down``."""
        return self._order("look")["states"]

    def isolated(self) -> frozenset[str]:
        """Return the members that are cut off from their peers."""
        return frozenset(self._order("look")["isolated"])

    def disturbed(self) -> frozenset[str]:
        """Return the members whose peer links are delayed or lossy."""
        return frozenset(self._order("look")["disturbed"])

    def is_running(self, name: str) -> bool:
        """Return whether its process is there, paused or not."""
        return bool(self.states()[name] != "down")

    def kill(self, name: str) -> None:
        """SIGKILL: the process is gone on return, its data stays."""
        self._order("kill", name)

    def terminate(self, name: str) -> None:
        """End a member in order; force it after 10 s."""
        self._order("terminate", name)

    def start(self, name: str) -> None:
        """Start a member that is down, on its data; return when its process runs."""
        self._order("start", name)

    def pause(self, name: str) -> None:
        """SIGSTOP: it stays connected and says nothing."""
        self._order("pause", name)

    def resume(self, name: str) -> None:
        """SIGCONT; nothing where it is not paused."""
        self._order("resume", name)

    def isolate(self, name: str) -> None:
        """Cut its peer links: what is sent over them waits until they are joined."""
        self._order("isolate", name)

    def join(self, name: str) -> None:
        """Undo ``isolate``."""
        self._order("join", name)

    def delay(self, name: str, delay_s: float, jitter_s: float) -> None:
        """Delay what goes over its peer links, each way, by so much, more or less the jitter; 0 undoes it."""
        self._order("delay", name, delay_s, jitter_s)

    def drop(self, name: str, share: float) -> None:
        """Lose that share of what goes over its peer links; 0 undoes it."""
        self._order("drop", name, share)

    def disks(self) -> dict[str, Disk]:
        """Return the disks that a fault was done to, by member."""
        return self._order("look").get("disks", {})  # an older daemon does no faults to disks, and tells of none

    def slow_disk(self, name: str, by_s: float) -> None:
        """Make each of its syncs take ``by_s`` seconds longer."""
        self._order("slow_disk", name, by_s)

    def stuck_disk(self, name: str) -> None:
        """Hold each of its syncs until the disk is mended."""
        self._order("stuck_disk", name)

    def disk_error(self, name: str) -> None:
        """Answer each of its syncs with EIO."""
        self._order("disk_error", name)

    def disk_full(self, name: str) -> None:
        """Answer with ENOSPC what needs space of its disk."""
        self._order("disk_full", name)

    def mend_disk(self, name: str) -> None:
        """Undo what was done to its disk."""
        self._order("mend_disk", name)

    def cpu_times(self) -> dict[str, CpuTimes]:
        """Return how long each member's threads had a CPU and waited for one; what is missing as in LocalCluster."""
        return {name: CpuTimes(*times) for name, times in self._order("cpu-times")["cpu_times"].items()}

    def log(self, name: str, lines: int | None = None) -> str:
        """Return a member's log, the last ``lines`` of it where that is given."""
        text = Path(self._order("log", name)["path"]).read_text(encoding="utf-8", errors="replace")
        return text if lines is None else "".join(text.splitlines(keepends=True)[-lines:])

    def down(self) -> None:
        """End it and remove everything."""
        self._order("down")

    def _order(self, order: str, *values: str | float) -> Answer:
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(ANSWER_S)
                try:
                    sock.connect(self.running.control)
                except (FileNotFoundError, ConnectionRefusedError) as exc:
                    raise ClusterGone("the local cluster is gone: `raftload cluster up` makes a new one") from exc
                sock.sendall(json.dumps([order, *values]).encode() + b"\n")
                with sock.makefile("rb") as lines:
                    answer: Answer = json.loads(lines.readline())
        except (OSError, ValueError) as exc:
            raise ClusterError(f"the local cluster does not answer ({exc})") from exc
        if "error" in answer:
            raise _error(answer)
        return answer


def _error(answer: Answer) -> Exception:
    kinds = {kind.__name__: kind for kind in (ClusterError, EtcdNotFound, EtcdBroken, UsageError, KeyError)}
    return kinds.get(answer.get("kind", ""), ClusterError)(answer["error"])
