"""The target of a run: somebody's endpoints, or a cluster that lives as long as the run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from cluster.base.binary import RELEASE, check_named
from cluster.base.endpoint import Endpoint, read_endpoints
from cluster.base.errors import ClusterError
from cluster.base.security import Security, given
from cluster.base.units import parse_duration
from cluster.base.versions import version_or_path
from loadgen.load.settings import SettingsError, read

PROBE_TIMEOUT_S = 2.0
DEFAULT_NODES = 3
Kind = Literal["embedded", "docker", "local", "external"]


class UnreachableError(ClusterError):
    """No endpoint answers as etcd does: one line a reason, one for each endpoint."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a command line chose to load.

    Attributes:
        kind: what ``target.kind`` will say.
        endpoints: as given, checked for their form; empty for a cluster of the run's own.
        nodes: members of a cluster of the run's own; None where nobody asked for a number.
        etcd: what a cluster of the run's own is to run, a version or a path; None where nobody asked.
        reason: where the choice came from, for people.
        links: how the members reach each other, as ``target.peer_links`` has it; None where that is not known.
        requested_version: of etcd, which an image built in its absence may not have; None where none was.
        wait_s: for how many seconds to go on asking endpoints that do not answer yet.
        security: how to reach endpoints that were named; our own clusters speak plain and know no users.
    """

    kind: Kind
    endpoints: tuple[str, ...]
    nodes: int | None
    reason: str
    links: str | None = None
    requested_version: str | None = None
    wait_s: float = 0.0
    security: Security = dataclasses.field(default_factory=Security)
    etcd: str | None = None

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> Choice:
        """Read the options about the target, then ``$ETCDCTL_ENDPOINTS`` and its like.

        Raises UsageError, and ClusterError for an etcd that cannot be had.
        """
        nodes = read("nodes", args.nodes, int, 1, 99) if args.nodes is not None else None
        wait_s = read("wait", args.wait, parse_duration, 0)
        if args.endpoints is not None and args.cluster is not None:
            raise SettingsError("--endpoints and --cluster exclude each other; give one")
        text, reason = args.endpoints, "--endpoints"
        # An option wins over the environment.
        own = args.cluster is not None or args.etcd is not None
        if text is None and not own and os.environ.get("ETCDCTL_ENDPOINTS"):
            text, reason = os.environ["ETCDCTL_ENDPOINTS"], "$ETCDCTL_ENDPOINTS"
        if text is None and (option := given(args)) is not None:
            raise SettingsError(f"{option} is for a cluster that --endpoints names")
        if own:
            check_etcd(args.etcd, text, args.cluster or "embedded")
            reason = "--cluster" if args.cluster is not None else "--etcd"
            return cls(args.cluster or "embedded", (), nodes, reason, etcd=args.etcd)
        if text is None:
            from cluster.observe.running import find_running

            running = find_running() if nodes is None else None
            if running is None:
                check_etcd(None, None, "embedded")
                return cls("embedded", (), nodes, "no endpoint was named")
            kind: Kind = "docker" if running.backend == "docker" else "local"
            return cls(
                kind, running.endpoints, len(running.members), "`raftload cluster up` started it",
                links=running.links, requested_version=running.requested_version,
            )  # fmt: skip
        security = Security.from_arguments(args)
        try:
            endpoints = read_endpoints(text, security)
        except ValueError as error:
            raise SettingsError(f"{reason}: {error}") from error
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
        self, logs: Path, say: Callable[[str], None], peer_links: Literal["direct", "relay"] = "direct"
    ) -> Iterator[Target]:
        """Yield the target, started and probed, and end what was started for it.

        Takes a folder for member logs, a function for what the person at the terminal should know, and the
        ``peer_links`` of LocalCluster. Raises ClusterError where no cluster can be started or reached.
        """
        if self.endpoints:
            target = probed(self.kind, self.endpoints, say, self.wait_s, self.security)
            target.links, target.requested_version = self.links, self.requested_version
            yield target
            return
        if self.kind == "docker":
            from cluster.lifecycle.up import find, open_docker_cluster

            there = find("docker")
            if there is not None:
                there.close()
            with open_docker_cluster(self.nodes, say=say, etcd=self.etcd) as made:
                target = probed(self.kind, tuple(member.client_url for member in made.members), say)
                target.ours = there is None
                target.links, target.requested_version = "networks", made.spec.requested_version
                yield target
            return
        from cluster.local.cluster import LocalCluster

        cluster = LocalCluster(
            nodes=self.nodes or DEFAULT_NODES, log_dir=logs, peer_links=peer_links, binary=self.etcd
        )  # fmt: skip
        binary = cluster.binary
        say(f"{dataclasses.replace(self, etcd=None).describe()}, etcd {binary.version} from {binary.whence}")
        if binary.note:
            say(f"note: {binary.note}")
        with cluster:
            target = Target("embedded", dict.fromkeys(cluster.endpoints), binary.version, cluster)
            target.requested_version = binary.version if binary.source == RELEASE else None
            yield target


def check_etcd(etcd: str | None, endpoints: str | None, cluster: str) -> None:
    """Find out early whether the etcd that was asked for can be had: before a run folder and workers are there.

    Takes the options of these names; ``cluster`` as it is where none was given. Raises SettingsError where they exclude
    each other, EtcdNotFound for a release that is not in the cache, and UsageError for what is no version.
    """
    if etcd is not None and endpoints is not None:
        raise SettingsError("--etcd is for a cluster of the run's own, which --endpoints excludes; give one")
    if etcd is not None and cluster == "local":
        raise SettingsError("--etcd is for a cluster of the run's own; the local one runs what `cluster up` was given")
    if cluster == "embedded":
        check_named(etcd)
    elif etcd is not None:
        version_or_path(etcd)


class Target:
    """The cluster under load, as far as a run needs to know it.

    Attributes:
        kind: as the result's ``target.kind`` has it.
        ours: whether nobody else writes to it.
        cluster: the LocalCluster behind it, None for somebody else's.
        links: how its members reach each other: ``direct``, over Docker ``networks``, or through a ``relay`` of ours,
            which adds to the latency of every write; None where that is not known.
        requested_version: of etcd; None where none was asked for.
        security: how to reach its members.
        observer: how often the members were asked during a run and what that cost, once it is over.
    """

    def __init__(self, kind: Kind, endpoints: dict[str, str | None], version: str | None, cluster: Any = None):
        self.kind = kind
        # Other clients may use what was there before the run.
        self.ours = kind == "embedded"
        self.cluster = cluster
        self.links: str | None = cluster.peer_links if cluster is not None else None
        self.requested_version: str | None = None
        self.security = Security()
        self.observer: dict[str, Any] | None = None
        self._dead = endpoints
        self._version = version
        self._members: list[dict[str, Any]] = []
        self._first_term: int | None = None
        self._leader_changes: int | None = None

    @property
    def version(self) -> str | None:
        """The version of etcd; None where nobody has said it yet."""
        return self._version

    @property
    def endpoints(self) -> tuple[str, ...]:
        """All endpoints, those that do not answer among them."""
        return tuple(self._dead)

    def usable(self) -> tuple[str, ...]:
        """Return the endpoints that answered."""
        return tuple(url for url, reason in self._dead.items() if reason is None)

    def watched(self) -> list[tuple[str, str]]:
        """Return name (empty where it is not known) and ``host:port``, or URL where it speaks TLS, of each member."""
        named = {member.client_url: member.name for member in self.cluster.members} if self.cluster else {}
        parsed = {url: Endpoint.parse(url) for url in self._dead}
        return [(named.get(url, ""), str(each) if each.tls else each.authority) for url, each in parsed.items()]

    def before(self) -> None:
        """Note who leads before the load."""
        self._first_term = self._ask()

    def after(self) -> None:
        """Note who leads after the load, and how often that changed by the terms that passed."""
        term = self._ask()
        if term is not None and self._first_term is not None:
            self._leader_changes = term - self._first_term

    def _ask(self) -> int | None:
        from loadgen.client.etcd import MemberInfo, probe_all

        self._members = []
        terms = []
        answers = probe_all(tuple(self._dead), PROBE_TIMEOUT_S, self.security)
        for number, (url, info) in enumerate(answers.items(), 1):
            if not isinstance(info, MemberInfo) or not info.member_id:
                continue
            name = self.cluster.members[number - 1].name if self.cluster else ""
            terms.append(info.raft_term)
            self._version = self._version or info.version
            self._members.append(
                {"name": name or f"{info.member_id:x}", "endpoint": url, "version": info.version,
                 "leader": info.leader == info.member_id, "term": info.raft_term, "db_size": info.db_size}
            )  # fmt: skip
        return max(terms, default=None)

    def as_dict(self) -> dict[str, Any]:
        """Return it as ``target`` of run.json has it."""
        return {
            "kind": self.kind,
            "endpoints": [{"url": url, "reachable": reason is None} for url, reason in self._dead.items()],
            "etcd_version": self._version,
            "requested_version": self.requested_version,
            "members": self._members,
            "peer_links": self.links,
            "leader_changes": self._leader_changes,
            "observer": self.observer,
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
    version = None
    for url, answer in answers.items():
        if isinstance(answer, ConnectError):
            dead[url] = str(answer)
        else:
            dead[url] = None
            version = version or answer.version
    reasons = "; ".join(reason for reason in dead.values() if reason)
    if all(dead.values()):
        raise UnreachableError(f"no endpoint answers: {reasons}")
    if reasons:
        say(f"warning: going on without {reasons}")
    target = Target(kind, dead, version)
    target.security = security or Security()
    return target
