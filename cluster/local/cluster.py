"""Members as processes on loopback: the embedded cluster, on a bare machine and without Docker.

    with LocalCluster(nodes=3) as cluster:
        print(cluster.endpoints)

Nothing is left behind whatever ends the owner, ``kill -9`` included: the members are children of a small
keeper process (``keeper.py``) that ends them and removes their folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from cluster.base.access import Access
from cluster.base.binary import EtcdBinary, find_etcd
from cluster.base.errors import ClusterError, MemberFailed, NoAnswer, UsageError
from cluster.base.security import Security
from cluster.base.topology import (
    DISK_METHODS,
    ClusterSpec,
    Disk,
    DiskState,
    Member,
    ServerTls,
    local_members,
    member_env,
    member_names,
)
from cluster.gateway import users
from cluster.local import keeper, layout, seccomp, strike_rules
from cluster.local.cpu_times import CpuMeter, CpuTimes
from cluster.local.strike_rules import FOR_DISKS, Rule, RuleState, Timing
from cluster.local.supervisor import Supervisor
from cluster.observe import logs, probe

if TYPE_CHECKING:
    from cluster.local.relay import LinkState, PeerRelay
    from cluster.local.strike import Answer as StrikeAnswer

State = Literal["running", "paused", "down"]
_PORT_ATTEMPTS = 5
_POLL_S = 0.02


class LocalCluster:
    """Real etcd processes on 127.0.0.1, up while the ``with`` block runs.

    See ``__init__`` for what it takes.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        binary: str | os.PathLike[str] | EtcdBinary | None = None,
        extra_args: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
        storage: Literal["disk", "memory"] = "disk",
        base_port: int | None = None,
        heartbeat_interval_ms: int | None = None,
        election_timeout_ms: int | None = None,
        snapshot_count: int | None = None,
        quota_backend_bytes: int | None = None,
        start_timeout_s: float = 30.0,
        stop_grace_s: float | None = None,
        peer_links: Literal["direct", "relay"] = "direct",
        tls: ServerTls | None = None,
        security: Security | None = None,
        with_tls: bool = False,
        with_auth: bool = False,
        nice: int = 0,
        strikes: Iterable[str] = (),
        timed: bool = False,
    ) -> None:
        """Describe a cluster; nothing is started or touched yet.

        Args:
            nodes: how many members; any number from 1, though an even one tolerates no more failures than the
                odd one below it.
            data_dir: folder for the members' data, made if missing and kept afterwards, without certificates and
                passwords; it must not hold members yet. Default: a temporary folder that is removed.
            log_dir: folder for ``<member>.log``, made if missing and kept. Default: with the data.
            binary: path of etcd, or one that was found already; default as in ``find_etcd``.
            extra_args: further etcd flags for every member, which win over ours.
            env: environment to use instead of this process's; ``ETCD_*`` in it is dropped, because etcd would
                take it for flags.
            storage: where the temporary folder is: ``disk``, the system's folder for temporary files, where
                every write waits for fsync as it would in production; or ``memory``, /dev/shm, which measures no
                disk and takes about 130 MB of memory a member, because etcd allocates its log ahead.
            base_port: client ports are this one and those after it; then a taken one is an error. Default:
                free ones.
            heartbeat_interval_ms, election_timeout_ms, snapshot_count, quota_backend_bytes: as in
                ClusterSpec; default: etcd's own.
            start_timeout_s: seconds until all members must be healthy.
            stop_grace_s: seconds that the members get to end by themselves after SIGTERM before they are
                killed. Default: 5 with a ``data_dir``; none without, because orderly ends take seconds and
                write elections that nobody asked for into the logs, over data that is thrown away.
            peer_links: ``relay`` puts a relay between the members (see ``relay.py``), for ``isolate``, ``delay``
                and ``drop``; it costs time on every message of Raft, so what is measured includes it.
            tls: how members speak TLS to their clients; default: they do not.
            security: how to ask members that do, for their health.
            with_tls: whether to make certificates, for clients and peers, in place of ``tls`` and ``security``.
            with_auth: whether to make users with random passwords, and enable authentication. See ``access``.
            nice: on Linux, how much less than this process the members weigh when both want the CPU, 0 to 39. It is
                added to the nice value of the process, and of the session's autogroup where the kernel goes by these.
            strikes: names of system calls of the members, for which ``strike`` then sets rules: ``sync`` and ``rename``
                cost little; ``write``, ``pwrite64``, ``fallocate`` and ``ftruncate`` can be had (see
                ``strike_rules.py`` and docs/chaos.md). ``write`` includes what is sent over each connection.
            timed: whether each sync is timed, see ``timings``; it costs more.
        """
        if (with_tls or with_auth) and (tls or security):
            raise ValueError("with_tls and with_auth make what tls and security would name")
        member_names(nodes)  # raises ValueError for a senseless number
        self.nodes = nodes
        self._binary_argument = None if isinstance(binary, EtcdBinary) else binary
        self._data_dir = Path(data_dir).absolute() if data_dir is not None else None
        self._log_dir = Path(log_dir).absolute() if log_dir is not None else None
        self._env = dict(os.environ if env is None else env)
        self._storage = storage
        self._base_port = base_port
        self._start_timeout_s = start_timeout_s
        self._stop_grace_s = (5.0 if data_dir is not None else 0.0) if stop_grace_s is None else stop_grace_s
        self._template = ClusterSpec(
            members=local_members(range(1, nodes + 1), range(nodes + 1, 2 * nodes + 1), "/"),
            heartbeat_interval_ms=heartbeat_interval_ms,
            election_timeout_ms=election_timeout_ms,
            snapshot_count=snapshot_count,
            quota_backend_bytes=quota_backend_bytes,
            tls=tls,
            auth=with_auth,
            extra_args=tuple(extra_args),
        )
        self._security = security
        self._with_tls, self._with_auth = with_tls, with_auth
        self._access = Access()
        self._nice = nice
        self._trapped, self._timed = strike_rules.named(strikes), timed
        if unknown := set(self._trapped) - set(seccomp.CALLS):
            raise ValueError(f"no system call to strike is named {min(unknown)}")
        self._cpu = CpuMeter()
        self._supervisor: Supervisor | None = None
        self._spec: ClusterSpec | None = None
        self._paused: set[str] = set()
        self._disks: dict[str, tuple[DiskState, int]] = {}
        self.peer_links = peer_links
        self._relay: PeerRelay | None = None
        self._log_starts: dict[str, int] = {}
        self._binary: EtcdBinary | None = binary if isinstance(binary, EtcdBinary) else None
        self.logs: Path | None = None

    # What it is

    @property
    def spec(self) -> ClusterSpec:
        """Members and settings. Raises ClusterError before ``start``."""
        if self._spec is None:
            raise ClusterError("the cluster has not been started")
        return self._spec

    @property
    def members(self) -> tuple[Member, ...]:
        """The members in order, running or not. Raises ClusterError before ``start``."""
        return self.spec.members

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The members' client URLs, ``http://127.0.0.1:20001``. Raises ClusterError before ``start``."""
        return tuple(member.client_url for member in self.members)

    @property
    def access(self) -> Access:
        """The certificates and users that were made for it."""
        return self._access

    @property
    def security(self) -> Security:
        """How to reach the members."""
        return self._security or Security()

    @property
    def binary(self) -> EtcdBinary:
        """The etcd it runs, with its version and what is known against it.

        Raises EtcdNotFound or EtcdBroken.
        """
        if self._binary is None:
            self._binary = find_etcd(self._binary_argument, self._env)
        return self._binary

    # Up and down

    def __enter__(self) -> LocalCluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str | None = None) -> None:
        """Start the cluster, or one member of it that is down.

        Without a name: starts all members at once and returns when every one of them knows the same leader
        and serves a linearizable read. With one: starts that member on its data and returns when its process
        runs; use ``wait_healthy`` for more. Raises ClusterError: EtcdNotFound, EtcdBroken, or MemberFailed
        with the last line of the member's log. After a failure nothing is left running.
        """
        if name is not None:
            self._spawn(self.spec.member(name))
            return
        if self._supervisor is not None:
            raise ClusterError("the cluster is running already")
        _ = self.binary  # raises before anything is made
        if self._trapped and (reason := seccomp.why_not()):
            raise ClusterError(
                f"system calls of members cannot be trapped on this machine: {reason} (see docs/chaos.md)"
            )
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self._supervisor = Supervisor(temporary=self._data_dir is None, storage=self._storage)
            try:
                self._spec = self._prepare()
                if self.peer_links == "relay":
                    self._relay = _relay(self._spec)
                for member in self._spec.members:
                    self._spawn(member)
                self.wait_healthy(self._start_timeout_s)
                if self._with_auth:
                    users.enable_auth(self.endpoints, self._access, self._start_timeout_s)
                    self._security = self._access.security()
                    self.wait_healthy(self._start_timeout_s)
                if self._relay is not None:
                    answers = [status for status in self.statuses() if status is not None]
                    self._relay.know({status.name: status.member_id for status in answers})
                return
            except MemberFailed as exc:
                again = logs.ADDRESS_IN_USE in exc.last_line and self._base_port is None
                self._abandon()
                if not again or attempt == _PORT_ATTEMPTS:
                    raise
                for member in self.members:  # a log tells of one cluster only
                    self.log(member.name).unlink(missing_ok=True)
            except BaseException:
                self._abandon()
                raise

    def stop(self) -> None:
        """End all members, paused ones too, and remove what was temporary.

        Idempotent; at most the grace and 15 s.
        """
        supervisor, self._supervisor = self._supervisor, None
        self._paused.clear()
        self._disks.clear()
        if supervisor is not None:
            supervisor.close(self._stop_grace_s)
        self._close_relay()
        self._remove_access()

    def wait_healthy(self, timeout_s: float = 30.0) -> None:
        """Wait until all members agree on a leader and serve linearizable reads.

        Raises MemberFailed when one has exited, and ClusterError with the reason after ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._raise_if_dead()
            reason = probe.why_unhealthy(self.members, security=self._security)
            if not reason:
                return
            if time.monotonic() >= deadline:
                raise ClusterError(f"the cluster of {self.nodes} is not healthy after {timeout_s:g} s: {reason}")
            time.sleep(_POLL_S)

    def log_in(self, security: Security) -> None:
        """Reach the members as another user from now on, as where somebody has switched authentication on."""
        self._security = security

    # Faults, by name; each raises KeyError for an unknown member and ClusterError where it does not apply

    def kill(self, name: str) -> None:
        """SIGKILL: the process is gone on return, its data stays."""
        self._signal(name, signal.SIGKILL)

    def terminate(self, name: str, timeout_s: float = 10.0) -> None:
        """SIGTERM, an orderly end. Returns when the process is gone; kills it after ``timeout_s`` seconds."""
        self._signal(name, signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while self.is_running(name):
            if time.monotonic() >= deadline:
                self.kill(name)
                return
            time.sleep(_POLL_S)

    def pause(self, name: str) -> None:
        """SIGSTOP: it stays connected and, on return, says nothing any more, like a machine that hangs."""
        self._signal(name, signal.SIGSTOP)
        self._paused.add(name)

    def resume(self, name: str) -> None:
        """SIGCONT; nothing where it is not paused."""
        self._signal(name, signal.SIGCONT)
        self._paused.discard(name)

    def isolate(self, name: str) -> None:
        """Cut its peer links: what is sent over them waits until they are joined. Clients still reach it."""
        self._links(name).cut = True

    def join(self, name: str) -> None:
        """Undo ``isolate``."""
        self._links(name).cut = False

    def delay(self, name: str, delay_s: float, jitter_s: float = 0.0) -> None:
        """Delay what goes over its peer links, each way, by so much, more or less the jitter; 0 undoes it."""
        links = self._links(name)
        links.delay_s, links.jitter_s = delay_s, jitter_s

    def drop(self, name: str, share: float) -> None:
        """Lose that share of what goes over its peer links, as TCP loses it; 0 undoes it."""
        self._links(name).drop = share

    def slow_disk(self, name: str, by_s: float) -> None:
        """Make each of its syncs take ``by_s`` seconds longer."""
        self._spoil_disk(name, "slow", strike_rules.hold("sync", hold_s=by_s))

    def stuck_disk(self, name: str) -> None:
        """Hold each of its syncs until the disk is mended."""
        self._spoil_disk(name, "stuck", strike_rules.hold("sync"))

    def disk_error(self, name: str) -> None:
        """Answer each of its syncs with EIO. etcd ends itself then."""
        self._spoil_disk(name, "failing", strike_rules.fail("sync", error="EIO"))

    def disk_full(self, name: str) -> None:
        """Answer with ENOSPC what needs space of its disk. etcd ends itself then."""
        self._spoil_disk(name, "full", strike_rules.fail(("pwrite64", "fallocate"), error="ENOSPC"))

    def mend_disk(self, name: str) -> None:
        """Undo what was done to its disk: what is held goes on. A member that has ended stays down."""
        self.spec.member(name)
        _, rule = self._disks.pop(name, ("", 0))
        with contextlib.suppress(ClusterError):  # the rules of a process that was killed are gone with it
            if rule:
                self.clear_strikes(name, rule)

    def disks(self) -> dict[str, Disk]:
        """Return the disks that a fault was done to, by member."""
        found: dict[str, Disk] = {}
        for name, (state, rule) in self._disks.items():
            with contextlib.suppress(ClusterError):
                if (seen := self.rules(name).get(rule)) is not None:
                    found[name] = {"state": state, "struck": seen.struck}
        return found

    def _spoil_disk(self, name: str, state: DiskState, rule: Rule) -> None:
        self.mend_disk(name)
        self._disks[name] = state, self.strike(name, rule)

    def isolated(self) -> frozenset[str]:
        """Return the names of the members that are cut off from their peers."""
        return self._relay.cut if self._relay is not None else frozenset()

    def disturbed(self) -> frozenset[str]:
        """Return the names of the members whose peer links are delayed or lossy."""
        return self._relay.rough if self._relay is not None else frozenset()

    def is_running(self, name: str) -> bool:
        """Return whether its process is there, paused or not."""
        self.spec.member(name)
        return name in (codes := self._running().poll()) and codes[name] is None

    def states(self) -> dict[str, State]:
        """Return what each member's process is doing."""
        codes = self._running().poll()

        def state(name: str) -> State:
            if codes.get(name, 0) is not None:
                return "down"
            return "paused" if name in self._paused else "running"

        return {member.name: state(member.name) for member in self.members}

    @property
    def cannot(self) -> dict[str, str]:
        """Faults that do not work here, by method, with why."""
        reasons: dict[str, str] = {}
        if self.peer_links != "relay":
            # It is off by default: a relay puts Python into the path of Raft's messages.
            reason = (
                "it needs relays between the members, which slow every message down: start the cluster with "
                "`--links relay`"
            )
            reasons |= dict.fromkeys(("isolate", "delay", "drop"), reason)
        if not set(FOR_DISKS) <= set(self._trapped):
            # It is off by default: it puts Python into the path of each sync.
            reason = (
                "it traps the members' system calls, which slows them down: start the cluster with `--disk-faults`, on "
                "Linux"
            )
            reasons |= dict.fromkeys(DISK_METHODS, reason)
        return reasons

    # Strikes at system calls; each raises KeyError for an unknown member, ClusterError where calls are not trapped

    def strike(self, name: str, rule: Rule) -> int:
        """Set a rule for a member's system calls, until it is cleared or the cluster stops. Returns its number.

        It also holds for later lives of the member, which may be down. Of several rules that strike a call the one
        that was set last does. Raises UsageError for calls that are not trapped.
        """
        if self._trapped and (missing := set(rule.calls) - set(self._trapped)):
            raise UsageError(f"calls of {', '.join(sorted(missing))} are not trapped: make the cluster with `strikes`")
        return self._order_strike(name, {"op": "add", "rule": rule.to_json()})["id"]

    def clear_strikes(self, name: str, rule: int | None = None) -> None:
        """Drop a rule of a member, or all; calls that it holds go on."""
        self._order_strike(name, {"op": "clear", "id": rule})

    def rules(self, name: str) -> dict[int, RuleState]:
        """Return a member's rules by their numbers, with what became of them."""
        told = [RuleState.from_json(each) for each in self._order_strike(name, {"op": "rules"})["rules"]]
        return {each.id: each for each in told}

    def wait_struck(self, name: str, rule: int, *, times: int = 1, timeout_s: float = 30.0) -> RuleState:
        """Wait until a rule has struck so often, and a member that it killed has ended. Return what became of it.

        Raises ClusterError after ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            state = self.rules(name).get(rule)
            if state is None:
                raise ClusterError(f"{name} has no rule {rule}")
            killed = state.rule.then == "kill" and not state.rule.hold_s
            if state.struck >= times and not (killed and self.is_running(name)):
                return state
            if time.monotonic() >= deadline:
                what = f"{', '.join(state.rule.calls)} of {state.rule.file}"
                raise ClusterError(
                    f"the rule for {what} struck {state.struck} of {state.seen} calls of {name} in {timeout_s:g} s"
                )
            time.sleep(_POLL_S)

    def timings(self, name: str) -> Mapping[tuple[str, str], Timing]:
        """Return a member's trapped calls by name and kind of file, such as ``("fdatasync", ".wal")``, of all lives."""
        return strike_rules.timings(self._order_strike(name, {"op": "timings"})["timings"])

    def _order_strike(self, name: str, order: Mapping[str, object]) -> StrikeAnswer:
        self.spec.member(name)
        if not self._trapped:
            raise ClusterError("system calls of its members are not trapped: make the cluster with `strikes`")
        return self._running().strike(name, order)

    # What it says

    def leader(self, timeout_s: float = 1.0) -> Member | None:
        """Return the member that takes itself for the leader in the newest term; None where no one does.

        Asks every member that is not paused, at most ``timeout_s`` seconds each.
        """
        standings = self._statuses(probe.member_standing, timeout_s)
        leaders = [status for status in standings if status is not None and status.is_leader]
        return self.spec.member(max(leaders, key=lambda status: status.term).name) if leaders else None

    def statuses(self, timeout_s: float = 1.0) -> list[probe.MemberStatus | None]:
        """Every member's own view, in order.

        None for one that is paused or does not answer in ``timeout_s`` seconds.
        """
        return self._statuses(probe.member_status, timeout_s)

    def _statuses(
        self, question: Callable[[Member, float, Security | None], probe.MemberStatus], timeout_s: float
    ) -> list[probe.MemberStatus | None]:
        statuses: list[probe.MemberStatus | None] = []
        for member in self.members:
            status = None
            if member.name not in self._paused:
                with contextlib.suppress(NoAnswer):
                    status = question(member, timeout_s, self._security)
            statuses.append(status)
        return statuses

    def log(self, name: str) -> Path:
        """Path of a member's log: JSON lines as etcd writes them, all its lives in one file."""
        self.spec.member(name)
        if self.logs is None:
            raise ClusterError("the cluster has not been started")
        return self.logs / f"{name}.log"

    def why_it_ended(self, name: str) -> str:
        """Return why the last process of a member ended, in one line of its log; empty where that says nothing."""
        return logs.why_it_ended(self.log(name), self._log_starts.get(name, 0))

    def save_logs(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Copy the members' logs into a folder, made if missing, while the cluster is up.

        Returns the copies.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(self.log(member.name), folder)) for member in self.members]

    def cpu_times(self) -> dict[str, CpuTimes]:
        """Return how long each member's threads had a CPU and waited for one, since it was started first.

        A member is missing where the kernel does not tell. Of a member that ended by itself, what it did since the last
        call is missing.
        """
        return self._cpu.read(self._running().pids)

    def weight(self, name: str) -> keeper.Weight | None:
        """Return how much of a busy CPU a member gets beside others; None where it is down, or this is no Linux."""
        self.spec.member(name)
        pid = self._running().pids.get(name)
        return keeper.weight(pid) if pid is not None and self.is_running(name) else None

    # How

    def _prepare(self) -> ClusterSpec:
        root = self._data_dir or self._running().folder
        assert root is not None
        self.logs = self._log_dir or root / "logs"
        for folder, what in ((root, "data"), (self.logs, "log")):
            layout.make_writable(folder, what)
        layout.refuse_data(root, self.nodes)
        tls = self._template.tls
        if self._with_tls or self._with_auth:
            self._access = Access.make(
                root / "access", member_names(self.nodes), tls=self._with_tls, auth=self._with_auth
            )
            self._security, tls = self._access.security(login=False), self._access.server_tls()
        members = layout.lay_out(
            self.nodes, root, self._base_port, relayed=self.peer_links == "relay", tls=tls is not None,
            peer_tls=tls is not None and tls.peer_cert is not None,
        )  # fmt: skip
        return dataclasses.replace(self._template, members=members, token=f"raftload-{secrets.token_hex(6)}", tls=tls)

    def _spawn(self, member: Member) -> None:
        log = self.log(member.name)
        with contextlib.suppress(OSError):
            self._log_starts[member.name] = log.stat().st_size
        data = Path(member.data_dir)
        data.mkdir(mode=0o700, exist_ok=True)  # etcd 3.4 to 3.6 insist on 0700
        argv = self.spec.argv(member.name, self.binary.path)
        env = member_env(self._env, platform.machine())
        self._running().spawn(
            member.name, argv, log=log, env=env, cwd=data, nice=self._nice, trapped=self._trapped, timed=self._timed
        )
        self._paused.discard(member.name)

    def _raise_if_dead(self) -> None:
        for name, code in self._running().poll().items():
            if code is not None:
                line = self.why_it_ended(name)
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
                raise MemberFailed(f"{name} {how}: {line or 'it logged nothing'}", member=name, last_line=line)

    def _signal(self, name: str, number: signal.Signals) -> None:
        self.spec.member(name)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.cpu_times()
        self._running().signal(name, number)
        if number == signal.SIGKILL:
            self._paused.discard(name)

    def _links(self, name: str) -> LinkState:
        self.spec.member(name)
        if self._relay is None:
            raise ClusterError("the members' links are direct: make the cluster with peer_links='relay'")
        return self._relay.link_state(name)

    def _close_relay(self) -> None:
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.close()

    def _remove_access(self) -> None:
        if self._access.folder:
            shutil.rmtree(self._access.folder, ignore_errors=True)

    def _running(self) -> Supervisor:
        if self._supervisor is None:
            raise ClusterError("the cluster is not running")
        return self._supervisor

    def _abandon(self) -> None:
        """After a failed start.

        Nothing runs on, and no half-made data is left where the user keeps theirs.
        """
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.close(grace_s=0.0)
        self._close_relay()
        self._remove_access()
        if self._data_dir is not None and self._spec is not None:
            for member in self._spec.members:
                if Path(member.data_dir).parent == self._data_dir:
                    shutil.rmtree(member.data_dir, ignore_errors=True)


def _relay(spec: ClusterSpec) -> PeerRelay:
    """Raise MemberFailed where a port was taken meanwhile, as a member would say."""
    # It brings asyncio and so ssl, which must not be imported before gevent has patched it.
    from cluster.local.relay import PeerRelay

    routes = {
        member.name: (int(member.peer_url.rpartition(":")[2]), int(member.peer_listen_url.rpartition(":")[2]))
        for member in spec.members
    }
    try:
        return PeerRelay(routes, tls=spec.tls)
    except OSError as exc:
        raise MemberFailed(f"the relay of the peer links: {exc}", member="", last_line=str(exc)) from exc
