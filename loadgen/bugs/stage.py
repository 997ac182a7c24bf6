"""What a scenario has while it runs: a throwaway cluster, actors, and the record of what they do."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from cluster.base.binary import EtcdBinary
from cluster.base.errors import ClusterError, NoAnswer, RaftloadError
from cluster.base.etcd_errors import KINDS
from cluster.base.processes import python_path
from cluster.base.security import Security
from cluster.local.cluster import LocalCluster
from cluster.local.strike_rules import Rule
from cluster.observe import calls, logs
from loadgen.bugs.log_pipe import LogPipe
from loadgen.bugs.scenario import CannotTryError, ClusterOptions
from loadgen.client.actor import Actor
from loadgen.client.auth import READWRITE
from loadgen.client.etcd import EtcdClient
from loadgen.client.hub_thread import HubThread
from loadgen.client.kv import bytes_prefix_end
from loadgen.client.transport import NarrowTransport, Transport
from loadgen.history.calls import Call, CallWriter, MemberEvent, Plain
from loadgen.history.format import FOLDER
from loadgen.history.writer import HistoryWriter
from loadgen.proto import auth_pb2
from loadgen.proto import etcd_pb2 as pb
from loadgen.run.master_history import NAME, MasterHistory

T = TypeVar("T")
ROOT, PASSWORD = "root", "raftload"
_HEALTHY_S = 20.0
# Nobody attacks these passwords, and etcd takes 60 ms to check one as it should.
_QUICK_PASSWORDS = "--bcrypt-cost=4"
_AGREE_S = 20.0
_NOTICE_S = 0.5
_ENDING_S = 10.0
# What a member has to write until it is gone, on a busy machine.
_DYING_S = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Permission:
    """A right: ``READ``, ``WRITE`` or ``READWRITE`` of ``loadgen.client.auth``, of a key, or of those up to ``end``."""

    kind: auth_pb2.Permission.Type
    key: bytes
    end: bytes = b""

    @classmethod
    def prefix(cls, kind: auth_pb2.Permission.Type, prefix: bytes) -> Permission:
        """Return the right to every key that begins so; an empty prefix means every key."""
        return cls(kind, prefix or b"\0", bytes_prefix_end(prefix))


_commands: list[subprocess.Popen[bytes]] = []


def end_commands() -> None:
    """Kill the commands that stages of this process have started; what they made goes with them."""
    while _commands:
        running = _commands.pop()
        with contextlib.suppress(OSError):
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)


def answer_of(call: Call) -> Plain:
    """Return the answer of a call without which a scenario cannot go on. Raises CannotTryError where it failed."""
    if call.answer is None:
        raise CannotTryError(f"{call.method} failed: {call.error} {call.detail}".strip())
    return call.answer


class Stage:
    """Takes the folder to record in, the etcd, what the cluster is to be, and the seed of what is random.

    As a context manager it starts the cluster, and in the end records what each member holds, and removes the cluster.
    For one thread; what actors start goes on beside it.

    Attributes:
        folder: the run folder: ``calls.jsonl``, ``history/`` and ``logs/``.
        binary: the etcd under test.
        rng: for what is chosen at random.
        until: when the time of the scenario is over, on the clock of ``time.monotonic``.
        hub: the event loop on which clients work.
        history: where clients that are made here record their operations.
    """

    def __init__(
        self, folder: Path, binary: EtcdBinary, options: ClusterOptions | None, *, seconds: float, seed: int = 1
    ) -> None:
        self.folder, self.binary = folder, binary
        self.rng = random.Random(seed)
        self.until = time.monotonic() + seconds
        self.hub = HubThread()
        self._options = options
        self._cluster: LocalCluster | None = None
        self._security: Security | None = None
        self._actors: list[Actor] = []
        self._clients: list[EtcdClient] = []
        self._down: set[str] = set()
        self._log_pipe: LogPipe | None = None
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._options is None:
            return self
        with contextlib.ExitStack() as stack:
            self._begin(stack, self._options)
            self._opened = stack.pop_all()
        return self

    def _begin(self, stack: contextlib.ExitStack, options: ClusterOptions) -> None:
        fast = options.fast_elections
        args = [_QUICK_PASSWORDS, *options.args]
        if options.log_pipe:
            self._log_pipe = LogPipe(self.folder)
            stack.callback(self._log_pipe.close)
            args += ["--logger=zap", f"--log-outputs={self._log_pipe.path.absolute()}"]
        self._cluster = LocalCluster(
            options.nodes, binary=self.binary, log_dir=self.folder / "logs", extra_args=tuple(args),
            heartbeat_interval_ms=20 if fast else None, election_timeout_ms=200 if fast else None,
            quota_backend_bytes=options.quota_bytes, snapshot_count=options.snapshot_count,
            peer_links="relay" if options.relay else "direct", storage=options.storage, strikes=options.strikes,
        )  # fmt: skip
        stack.enter_context(self._cluster)
        self.calls = CallWriter(self.folder)
        stack.callback(self.calls.close)
        (self.folder / FOLDER).mkdir()
        self.history = self.hub.run(lambda: HistoryWriter(self.folder / FOLDER / NAME, worker=0))
        stack.callback(lambda: self.hub.run(self.history.close))
        stack.callback(self._close_clients)
        for name in self.names:
            self._tell(name, "started")
        names = {member.client_url: member.name for member in self._cluster.members}

        def begin(master: MasterHistory) -> None:
            master.begin(master.agree(_AGREE_S), names, exclusive=True, watched=False)

        self._as_master(begin, security=None)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opened:
            if kind is None and self._cluster is not None:
                # One that does not answer any more is about to end, however long that takes on a busy machine.
                self.notice(_NOTICE_S if self._all_answer() else _ENDING_S)
                self._close_actors()
                self._read_members()

    # ---- the cluster

    @property
    def cluster(self) -> LocalCluster:
        """The cluster. Raises ClusterError for a scenario that makes its own."""
        if self._cluster is None:
            raise ClusterError("this scenario has no cluster")
        return self._cluster

    @property
    def names(self) -> list[str]:
        """The members' names, in order."""
        return [member.name for member in self.cluster.members]

    @property
    def left_s(self) -> float:
        """Seconds that the scenario has left; 0 once they are over."""
        return max(0.0, self.until - time.monotonic())

    def leader(self) -> str:
        """Return the name of the leader. Raises CannotTryError where there is none for long."""
        until = time.monotonic() + _HEALTHY_S
        while time.monotonic() < until:
            leader = self.cluster.leader()
            if leader is not None:
                return leader.name
            time.sleep(0.02)
        raise CannotTryError("the cluster has no leader")

    def follower(self) -> str:
        """Return the name of a member that does not lead."""
        leader = self.leader()
        return next(name for name in self.names if name != leader)

    def kill(self, name: str) -> None:
        """Kill a member, as ``kill -9`` does."""
        self._down.add(name)
        self.cluster.kill(name)
        self._tell(name, "killed")

    def start(self, name: str, *, healthy: bool = True) -> None:
        """Start a member that is down, and wait until the cluster is healthy."""
        self.cluster.start(name)
        self._down.discard(name)
        self._tell(name, "started")
        self.hub.run(lambda: self.history.marker("restart", member=name))
        if healthy:
            self.cluster.wait_healthy(_HEALTHY_S)

    def strike(self, name: str, rule: Rule) -> int:
        """Set a rule for the system calls of a member; return its number."""
        return self.cluster.strike(name, rule)

    def struck(self, name: str, rule: int, timeout_s: float = 20.0) -> None:
        """Wait until a rule has struck a member; where it kills, that member is down then.

        Raises CannotTryError where it does not strike in so many seconds.
        """
        try:
            state = self.cluster.wait_struck(name, rule, timeout_s=timeout_s)
        except ClusterError as error:
            raise CannotTryError(str(error)) from error
        if state.rule.then == "kill":
            self._down.add(name)
            self._tell(name, "killed")

    def pause(self, name: str, seconds: float) -> None:
        """Stop a member for so long, as a machine that hangs does."""
        self.cluster.pause(name)
        time.sleep(seconds)
        self.cluster.resume(name)

    def leave_the_log(self) -> None:
        """Read the pipe into which the member writes its log no more, from now on."""
        assert self._log_pipe is not None
        self._log_pipe.leave()

    def notice(self, wait_s: float = _NOTICE_S) -> list[str]:
        """Record which members have ended by themselves, and return their names.

        Looks for so many seconds, since a member that has hit its end takes a while to write why.
        """
        until = time.monotonic() + wait_s
        found: list[str] = []
        while not found:
            states = self.cluster.states()
            found = [name for name, state in states.items() if state == "down" and name not in self._down]
            if time.monotonic() >= until:
                break
            time.sleep(0.05)
        for name in found:
            self._down.add(name)
            self._tell(name, "ended", logs.why_it_ended(self.cluster.log(name), 0))
        return found

    def _all_answer(self) -> bool:
        """Whether each member that should be there answers, at what needs no user and no leader."""
        for member in self.cluster.members:
            if member.name not in self._down:
                try:
                    calls.http(member.client_url, "GET", "/version")
                except NoAnswer:
                    return False
        return True

    def died_of(self, call: Call) -> bool:
        """Record whether the member that was asked has ended of it, and say so: one that answered has not."""
        return not call.ok and call.error not in KINDS and bool(self.notice(_DYING_S))

    # ---- who asks

    def actor(
        self, member: str = "", user: str = "", password: str = PASSWORD, timeout_s: float = 5.0,
        metadata: tuple[tuple[bytes, bytes], ...] = (),
    ) -> Actor:  # fmt: skip
        """Return a client of one member (empty: the first) as a user, or as nobody. It ends with the stage.

        ``metadata`` are header fields of each request; with an empty password it logs in nowhere.
        """
        found = self.cluster.spec.member(member or self.names[0])
        made = Actor(
            found.client_url, found.name, hub=self.hub, calls=self.calls, history=self.history, user=user,
            password=password if user else "", process=len(self._actors) + 1, timeout_s=timeout_s, metadata=metadata,
        )  # fmt: skip
        self._actors.append(made)
        return made

    def client(self, *members: str, timeout_s: float = 5.0, narrow: bool = False) -> EtcdClient:
        """Return a client for many operations, of these members (none: all), as the user that `enable_auth` left.

        ``narrow``: its streams hold the member back as soon as 64 KiB of what came was not taken. Its operations are in
        the history and not among the calls. Use it on the event loop alone: see ``work``.
        """
        urls = [self.cluster.spec.member(name).client_url for name in members or self.names]
        made = self.hub.run(
            lambda: EtcdClient(
                urls, timeout_s=timeout_s, security=self._security, history=self.history,
                make_streams=NarrowTransport if narrow else Transport,
            )
        )  # fmt: skip
        self._clients.append(made)
        return made

    def work(self, function: Callable[[], T]) -> T:
        """Run a function on the event loop, where clients and gevent work; return its answer."""
        return self.hub.run(function)

    def begin_work(self, function: Callable[[], T]) -> Future[T]:
        """Start a function on the event loop, and return at once."""
        return self.hub.start(function)

    def enable_auth(self, rights: Mapping[str, tuple[Permission, ...]] | None = None, *, at: str = "") -> Actor:
        """Make the user root, and users with rights by their names, and switch authentication on; return root's actor.

        Each user has a role of the same name. All calls are recorded; ``at`` is the member that is asked. Raises
        CannotTryError where one fails.
        """
        nobody = self.actor(at)
        steps: list[Call] = []
        for user, permissions in {ROOT: (), **(rights or {})}.items():
            steps.append(nobody.ask(pb.AuthUserAddRequest(name=user, password=PASSWORD)))
            steps.append(nobody.ask(pb.AuthRoleAddRequest(name=user)))
            steps += [nobody.ask(_granting(user, each)) for each in permissions]
            steps.append(nobody.ask(pb.AuthUserGrantRoleRequest(user=user, role=user)))
        steps.append(nobody.ask(pb.AuthEnableRequest()))
        for step in steps:
            if not step.ok:
                raise CannotTryError(f"authentication cannot be switched on: {step.method}: {step.error}")
        self._security = Security(user=ROOT, password=PASSWORD)
        self.cluster.log_in(self._security)
        return self.actor(at, user=ROOT)

    def disable_auth(self, root: Actor) -> None:
        """Switch authentication off, as the actor that `enable_auth` returned. Raises CannotTryError where it fails."""
        answer_of(root.ask(pb.AuthDisableRequest()))
        self._security = None

    # ---- other commands

    def command(self, *words: str) -> None:
        """Run a command of ``raftload`` to its end, on the etcd under test; what it prints is in the folder above.

        Raises CannotTryError where it comes to no verdict.
        """
        log = self.folder.with_name(f"{self.folder.name}.log")
        env = {**os.environ, "PYTHONPATH": python_path(), "RAFTLOAD_ETCD": self.binary.path,
               "XDG_STATE_HOME": str(self.folder.parent / "state")}  # fmt: skip
        with log.open("ab") as file:
            argv = [sys.executable, "-m", "loadgen.cli", *words]
            running = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env, start_new_session=True
            )
            _commands.append(running)
            try:
                code = running.wait()
            finally:
                end_commands()
        if code not in (0, 1, 3):
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise CannotTryError(f"`raftload {words[0]}` ended with {code}: {said[-1] if said else 'it said nothing'}")

    # ---- the record

    def _tell(self, member: str, what: str, said: str = "") -> None:
        self.calls.member(MemberEvent(member, what, time.perf_counter_ns(), said))

    def _as_master(self, do: Callable[[MasterHistory], T], security: Security | None) -> T:
        """Do something as who looks at all members; what it reads is recorded."""

        def go() -> T:
            master = MasterHistory(self.cluster.endpoints, b"", self.history, security=security)
            try:
                return do(master)
            finally:
                master.close_clients()

        return self.hub.run(go)

    def _read_members(self) -> None:
        """Have the history end with what each member holds, where all of them are there to say it."""
        if self._down:
            return
        with contextlib.suppress(RaftloadError):
            self._as_master(lambda master: master.read_members(master.agree(_AGREE_S)), self._security)

    def _close_actors(self) -> None:
        for actor in self._actors:
            actor.close()

    def _close_clients(self) -> None:
        self._close_actors()
        for client in self._clients:
            self.hub.run(client.close)


def _granting(role: str, permission: Permission) -> pb.AuthRoleGrantPermissionRequest:
    return pb.AuthRoleGrantPermissionRequest(
        name=role,
        perm=auth_pb2.Permission(permType=permission.kind, key=permission.key, range_end=permission.end),
    )


EVERYTHING = Permission.prefix(READWRITE, b"")
