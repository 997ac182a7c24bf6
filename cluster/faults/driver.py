"""A process that holds the cluster under test and breaks it by order, while its starter drives the load.

Everything that the cluster's code waits for is waited for here, so a starter that is one event loop, Locust's master,
never stalls. It is also what heals: when its starter ends, whatever the reason, it reads the end of its stdin, undoes
every fault, and removes the cluster where it made it. An order and an answer are one JSON object a line each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from cluster.base import processes
from cluster.base.errors import ClusterError, EtcdBroken, EtcdNotFound, MemberFailed, RaftloadError, UsageError
from cluster.base.processes import python_path
from cluster.base.signals import heard, uninterrupted
from cluster.base.topology import Member
from cluster.faults.kinds import KINDS, Fault, Kind
from cluster.faults.nemesis import Nemesis
from cluster.local.layout import FolderError
from cluster.observe import logs, probe
from cluster.observe.timeline import Timeline, TimelineError

if TYPE_CHECKING:
    from cluster.lifecycle import up
    from cluster.local.cluster import LocalCluster
    from cluster.schema.documents import FaultDone, FaultEffect

    class Injected(FaultEffect):
        """The effect of a fault; ``began_ns`` is when it began, on the monotonic clock of ``events.csv``."""

        began_ns: int

    Cluster = LocalCluster | up.Cluster

    class Ended(TypedDict):
        """A member that has ended.

        ``said`` is why, from its log; ``at_ns`` when, on the monotonic clock; ``by_itself`` whether that was none of a
        fault, and ``started`` whether it was started again.
        """

        member: str
        said: str
        at_ns: int
        by_itself: bool
        started: bool


_END_S = 60.0
# The members are under load.
_ASK_S = 3.0
_OF_DISKS = re.compile(r"input/output error|no space left on device", re.IGNORECASE)
Backend = Literal["embedded", "local", "docker"]
# A line, an order or an answer: its values are of any type that JSON has.
Line = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """The cluster that a driver holds.

    Attributes:
        members: in order.
        version: of etcd.
        source: where the binary or the image came from, for people.
        note: what is known against it, None for nothing.
        ours: whether it was made for this driver, and goes with it.
        cannot: faults that do not work here, by method, with why.
        etcd: what names its binary again, a version or a path; empty where that is not of the driver's choosing.
        logs: folder with ``<member>.log`` while it runs; empty where the logs are elsewhere.
    """

    members: tuple[Member, ...]
    version: str
    source: str
    note: str | None
    ours: bool
    cannot: dict[str, str]
    etcd: str
    logs: str


class _Found(TypedDict):
    """The part of `Held` that the cluster does not say itself."""

    version: str
    source: str
    note: str | None
    ours: bool
    etcd: str
    logs: str


class Driver:
    """The starter's side. Usable from one thread or greenlet at a time; close it, or use it in ``with``.

    ``subprocess`` is looked up at each use, so it waits cooperatively where gevent has patched it.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        """Start the process. Takes where to report progress to. Raises ClusterError."""
        self._say = say
        self._number = 0
        # Orders whose answers are kept where their asker was killed meanwhile: what ended is told once.
        self._looks: set[int] = set()
        self._late: list[Ended] = []
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", "from cluster.faults.driver import serve; serve()"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, "PYTHONPATH": python_path()},
            )  # fmt: skip
        except OSError as exc:
            raise ClusterError(f"cannot start the process that holds the cluster: {exc.strerror or exc}") from exc

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def open(self, backend: Backend, **options: object) -> Held:
        """Make or finds the cluster and return it healthy.

        ``embedded`` takes what LocalCluster takes; ``local`` finds the one that is up; ``docker`` does that or makes
        one, and takes ``nodes`` and ``etcd``, a version or a path. ``timeline``: the path that events go to. Raises
        ClusterError.
        """
        found = self.ask("open", backend=backend, **options)
        members = tuple(Member(**member) for member in found.pop("members"))
        return Held(members=members, **found)

    def inject(self, fault: Fault, seed: int) -> Injected:
        """Do a fault. Returns the Effect as plain values. Raises as ``Nemesis.inject``."""
        return cast("Injected", self.ask("inject", fault=dataclasses.asdict(fault), seed=seed))

    def heal(self) -> FaultDone:
        """Undoes every fault. Returns the Effect as plain values."""
        return cast("FaultDone", self.ask("heal"))

    def ended(self) -> list[Ended]:
        """Return the members that are down and should not be, each once; those that no fault keeps down are started, if
        they can be. With them those of an earlier call that was cut short.
        """
        self._looks.add(self._number + 1)
        found = cast("list[Ended]", self.ask("ended")["members"])
        late, self._late = self._late, []
        return [*late, *found]

    def wait_healthy(self, timeout_s: float) -> None:
        """Wait until all members agree on a leader and serve. Raises ClusterError with the reason why not."""
        self.ask("healthy", timeout_s=timeout_s)

    def save_logs(self, folder: Path) -> None:
        """Write every member's log as ``<member>.log`` into a folder."""
        self.ask("logs", folder=str(folder.absolute()))

    def ask(self, order: str, **values: object) -> Line:
        """One order and its answer; an answer to an older order, whose asker was killed, is passed over.

        All but that of ``ended``, which a later one returns.
        """
        self._number += 1
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"number": self._number, "order": order, **values}).encode() + b"\n")
            stdin.flush()
        except (OSError, ValueError) as exc:
            raise ClusterError("the process that holds the cluster is gone") from exc
        while line := stdout.readline():
            answer = json.loads(line)
            if "say" in answer:
                self._say(answer["say"])
            elif answer["number"] == self._number:
                if "error" in answer:
                    raise _error(answer)
                return dict(answer["answer"])
            elif answer["number"] in self._looks:
                self._late += answer.get("answer", {}).get("members", [])
        raise ClusterError("the process that holds the cluster is gone")

    def close(self) -> None:
        """Heals, removes what was made, and ends the process; idempotent."""
        processes.end(self._process, _END_S)


def _error(answer: Mapping[str, str]) -> RaftloadError:
    if answer["kind"] == "MemberFailed":
        return MemberFailed(answer["error"], member=answer["member"], last_line=answer["last_line"])
    known = (EtcdNotFound, EtcdBroken, FolderError, TimelineError, UsageError)
    kinds: dict[str, type[RaftloadError]] = {kind.__name__: kind for kind in known}
    path = answer["refers_to"]
    return kinds.get(answer["kind"], ClusterError)(answer["error"], refers_to=Path(path) if path else None)


# The process


@heard()
def serve() -> None:
    """Take orders from stdin until it ends; then undo everything."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    orders: queue.SimpleQueue[Line] = queue.SimpleQueue()
    threading.Thread(target=_read_orders, args=(orders,), daemon=True).start()
    with contextlib.ExitStack() as stack, contextlib.suppress(BrokenPipeError):
        desk = _Desk(stack)
        while True:
            order = orders.get()
            number = order.pop("number")
            try:
                _tell({"number": number, "answer": desk.do(order.pop("order"), order)})
            except (RaftloadError, ValueError, OSError) as exc:
                _tell({
                    "number": number, "error": str(exc), "kind": type(exc).__name__,
                    "member": getattr(exc, "member", ""), "last_line": getattr(exc, "last_line", ""),
                    "refers_to": str(getattr(exc, "refers_to", None) or ""),
                })  # fmt: skip


def _read_orders(orders: queue.SimpleQueue[Line]) -> None:
    for line in sys.stdin.buffer:
        orders.put(json.loads(line))
    os.kill(os.getpid(), signal.SIGTERM)  # also out of a wait that an order has begun


def _tell(answer: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


class _Desk:
    """What an order does. Takes the stack that undoes everything."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._cluster: Cluster  # from the first order on, which is ``open``
        self._timeline: Timeline | None = None
        # Members that a fault may have ended, which is on, and those whose disk one was ever done to.
        self._struck: dict[str, Kind] = {}
        self._disks: set[str] = set()
        self._told: set[str] = set()

    def do(self, order: str, values: Line) -> Mapping[str, object]:
        """Carries out one order. Raises ClusterError."""
        if order == "open":
            return self._open(**values)
        if order == "inject":
            rng = random.Random(values["seed"])
            nemesis = Nemesis(self._cluster, self._timeline, rng=rng, ask_s=_ASK_S)
            return self._inject(nemesis, Fault(**values["fault"]))
        if order == "heal":
            effect = Nemesis(self._cluster, self._timeline, ask_s=_ASK_S).heal()
            self._struck.clear()
            self._told.clear()
            return effect.to_json()
        if order == "ended":
            return {"members": self._ended()}
        if order == "healthy":
            self._wait_healthy(values["timeout_s"])
        elif order == "logs":
            self._save_logs(Path(values["folder"]))
        else:
            raise ClusterError(f"unknown order {order}")
        return {}

    def _inject(self, nemesis: Nemesis, fault: Fault) -> Mapping[str, object]:
        kind = KINDS[fault.kind]
        struck = [member.name for member in self._cluster.members]  # where it fails it is not known whom it has struck
        try:
            effect = nemesis.inject(fault)
            struck = [*effect.members]
        finally:
            if kind.ends_process:
                self._struck.update(dict.fromkeys(struck, kind))
                self._disks.update(struck if kind.on_disk else ())
        return {**effect.to_json(), "began_ns": effect.began_ns}

    def _ended(self) -> list[Ended]:
        found: list[Ended] = []
        for name, state in self._cluster.states().items():
            if state != "down" or name in self._told:
                continue
            said, at_ns = self._last_word(name)
            fault = self._struck.get(name)
            # A member ends where its disk fails or is full, and says so, maybe once that is healed. What else it says
            # is its own.
            of_disk = name in self._disks and _OF_DISKS.search(said) is not None
            if fault is not None and (of_disk or not fault.on_disk):
                continue
            started = fault is None and self._is_started(name)
            if not started:
                self._told.add(name)
            found.append({"member": name, "said": said, "at_ns": at_ns, "by_itself": not of_disk, "started": started})
        return found

    def _is_started(self, name: str) -> bool:
        """Start a member and return whether it was: that one cannot be says nothing less of what has ended."""
        try:
            self._cluster.start(name)
        except ClusterError:  # whoever waits for the cluster hears of it
            return False
        return True

    def _last_word(self, name: str) -> tuple[str, int]:
        """Return why a member has ended, and when."""
        log, now_ns = self._cluster.log(name), time.monotonic_ns()
        if isinstance(log, str):
            return logs.why_it_ended_text(log), now_ns
        ago_ns = 0
        with contextlib.suppress(OSError):
            ago_ns = max(0, time.time_ns() - log.stat().st_mtime_ns)
        of_its_life = getattr(self._cluster, "why_it_ended", None)
        return logs.why_it_ended(log) if of_its_life is None else of_its_life(name), now_ns - ago_ns

    def _open(self, backend: Backend, timeline: str | None = None, **options: object) -> Mapping[str, object]:
        self._timeline = Timeline(Path(timeline)) if timeline else None
        openers: dict[Backend, Callable[..., AbstractContextManager[tuple[Cluster, _Found]]]] = {
            "embedded": _embedded, "local": _local, "docker": _docker,
        }  # fmt: skip
        self._cluster, found = self._stack.enter_context(openers[backend](**options))
        self._stack.callback(self._heal_at_the_end, made=found["ours"])
        self._wait_healthy(30.0)
        return {
            **found, "members": [dataclasses.asdict(member) for member in self._cluster.members],
            "cannot": dict(self._cluster.cannot),
        }  # fmt: skip

    def _heal_at_the_end(self, *, made: bool) -> None:
        if not made:  # what was made for us goes as it is
            with uninterrupted(), contextlib.suppress(RaftloadError):
                Nemesis(self._cluster, self._timeline).heal()

    def _wait_healthy(self, timeout_s: float) -> None:
        if hasattr(self._cluster, "wait_healthy"):
            self._cluster.wait_healthy(timeout_s)
            return
        deadline = time.monotonic() + timeout_s
        security = self._cluster.security  # which reads files
        while reason := probe.why_unhealthy(self._cluster.members, security=security):
            if time.monotonic() >= deadline:
                raise ClusterError(f"the cluster is not healthy after {timeout_s:g} s: {reason}")
            time.sleep(0.05)

    def _save_logs(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for member in self._cluster.members:
            text = self._cluster.log(member.name)
            if isinstance(text, Path):
                if text.parent == folder:
                    continue
                text = text.read_text(encoding="utf-8", errors="replace")
            (folder / f"{member.name}.log").write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _embedded(**options: Any) -> Iterator[tuple[Cluster, _Found]]:
    from cluster.local.cluster import LocalCluster

    made = LocalCluster(**options)
    binary = made.binary
    with made:
        yield made, {
            "version": binary.version, "source": binary.whence, "note": binary.note, "ours": True,
            "etcd": binary.named, "logs": str(made.logs),
        }  # fmt: skip


@contextlib.contextmanager
def _local() -> Iterator[tuple[Cluster, _Found]]:
    from cluster.lifecycle.up import find

    found = find("local")
    if found is None:
        raise ClusterError("no local cluster is up: `raftload cluster up --backend local` starts one")
    with found:
        yield found, _described(found, ours=False)


@contextlib.contextmanager
def _docker(nodes: int | None = None, etcd: str | None = None) -> Iterator[tuple[Cluster, _Found]]:
    from cluster.lifecycle.up import find, open_docker_cluster

    there = find("docker")
    if there is not None:
        there.close()
    with open_docker_cluster(nodes, say=lambda text: _tell({"say": text}), etcd=etcd) as cluster:
        yield cluster, _described(cluster, ours=there is None)


def _described(cluster: up.Cluster, *, ours: bool) -> _Found:
    from cluster.lifecycle.up import describe
    from cluster.observe.running import statuses

    what = describe(cluster)
    said = statuses(cluster.members, security=cluster.security)
    version = what["version"] or min((status.version for status in said), default="")
    return {"version": version, "source": what["source"] or "", "note": None, "ours": ours, "etcd": "", "logs": ""}
