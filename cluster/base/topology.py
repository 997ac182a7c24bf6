"""The members of a cluster and the command line of each: plain values, no I/O."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

NAME_PREFIX = "etcd-node"
DISK_METHODS = ("slow_disk", "stuck_disk", "disk_error", "disk_full")
"""What a cluster's methods that do a fault to a disk are called."""
DiskState = Literal["slow", "stuck", "failing", "full"]


class Disk(TypedDict):
    """The disk of a member that a fault was done to; ``struck`` is how many calls have met it."""

    state: DiskState
    struck: int


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One etcd server.

    Attributes:
        name: unique in its cluster, ``etcd-node1`` and so on.
        client_url: where clients reach it, such as ``http://127.0.0.1:2379``.
        peer_url: where the other members reach it.
        data_dir: its data folder as the member itself sees it.
        client_listen_url, peer_listen_url: where it listens, where that is not where it is reached: behind a
            published port or a relay. Empty: the same.
    """

    name: str
    client_url: str
    peer_url: str
    data_dir: str
    client_listen_url: str = ""
    peer_listen_url: str = ""

    @property
    def endpoint(self) -> str:
        """``host:port`` for clients: the client URL without its scheme; the whole of it for a Unix socket."""
        scheme, _, rest = self.client_url.partition("://")
        return self.client_url if scheme in ("unix", "unixs") else rest.rstrip("/")


@dataclasses.dataclass(frozen=True, slots=True)
class ServerTls:
    """How members speak TLS to their clients, and to each other: paths of PEM files.

    Attributes:
        cert, key: of every member; the certificate must do for a client too, because the gateway inside etcd is one.
        client_ca: who signs the certificates that clients must have then; None where they need none.
        peer_cert, peer_key, peer_ca: the same between members, which all show one; None for plain HTTP.
    """

    cert: str
    key: str
    client_ca: str | None = None
    peer_cert: str | None = None
    peer_key: str | None = None
    peer_ca: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterSpec:
    """The members that form one new cluster, and the settings that they share.

    A setting that is None is left to etcd, so that a cluster behaves as an operator's does unless asked
    otherwise.

    Attributes:
        members: at least one; names and URLs are unique.
        token: keeps two clusters apart that reach each other by accident.
        heartbeat_interval_ms: from the leader to its followers; etcd's own default is 100.
        election_timeout_ms: without a heartbeat until a follower campaigns; etcd's own default is 1000, and
            it refuses less than five heartbeats.
        snapshot_count: applied entries between two snapshots.
        quota_backend_bytes: size of the store at which it raises NOSPACE.
        tls: None for plain HTTP.
        auth: whether users will be made, with random passwords: slow hashes would protect them no better, and would
            cost every login 60 ms.
        extra_args: further etcd flags, after ours, so that they win.
    """

    members: tuple[Member, ...]
    token: str = "raftload"
    heartbeat_interval_ms: int | None = None
    election_timeout_ms: int | None = None
    snapshot_count: int | None = None
    quota_backend_bytes: int | None = None
    tls: ServerTls | None = None
    auth: bool = False
    extra_args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("a cluster needs at least one member")
        for what in ("name", "client_url", "peer_url", "data_dir"):
            values = [getattr(member, what) for member in self.members]
            if len(set(values)) != len(values):
                raise ValueError(f"two members share a {what}: {', '.join(values)}")
        for what in ("heartbeat_interval_ms", "election_timeout_ms", "snapshot_count", "quota_backend_bytes"):
            value = getattr(self, what)
            if value is not None and value <= 0:
                raise ValueError(f"{what} must be positive, not {value}")
        heartbeat = self.heartbeat_interval_ms or 100
        election = self.election_timeout_ms or 1000
        if election < 5 * heartbeat:
            raise ValueError(
                f"an election timeout of {election} ms is less than five heartbeats of {heartbeat} ms, "
                "which etcd refuses"
            )

    @property
    def quorum(self) -> int:
        """How many members must run for the cluster to accept writes."""
        return len(self.members) // 2 + 1

    @property
    def initial_cluster(self) -> str:
        """``name=peer_url`` of every member, comma-separated, as etcd wants it."""
        return ",".join(f"{member.name}={member.peer_url}" for member in self.members)

    def member(self, name: str) -> Member:
        """Take a name, return that member; raise KeyError for an unknown one."""
        for member in self.members:
            if member.name == name:
                return member
        raise KeyError(name)

    def argv(self, name: str, binary: str = "etcd") -> list[str]:
        """Return the command line that starts one member, for etcd 3.4 and later.

        Takes the member's name and the path of the binary, returns the arguments, the binary first. The log
        is JSON on stderr at level info, from 3.4 to the current release alike: elections are read from it.
        Raises KeyError for an unknown name.
        """
        member = self.member(name)
        args = [
            binary,
            f"--name={member.name}",
            f"--data-dir={member.data_dir}",
            f"--listen-client-urls={member.client_listen_url or member.client_url}",
            f"--advertise-client-urls={member.client_url}",
            f"--listen-peer-urls={member.peer_listen_url or member.peer_url}",
            f"--initial-advertise-peer-urls={member.peer_url}",
            f"--initial-cluster={self.initial_cluster}",
            f"--initial-cluster-token={self.token}",
            "--initial-cluster-state=new",
            "--logger=zap",
            "--log-level=info",
            "--log-outputs=stderr",
        ]
        optional: dict[str, int | str | None] = {
            "heartbeat-interval": self.heartbeat_interval_ms,
            "election-timeout": self.election_timeout_ms,
            "snapshot-count": self.snapshot_count,
            "quota-backend-bytes": self.quota_backend_bytes,
            "bcrypt-cost": 4 if self.auth else None,
        }
        if self.tls is not None:
            optional |= {"cert-file": self.tls.cert, "key-file": self.tls.key, "trusted-ca-file": self.tls.client_ca}
            optional |= {"client-cert-auth": "true" if self.tls.client_ca else None}
            optional |= {"peer-cert-file": self.tls.peer_cert, "peer-key-file": self.tls.peer_key}
            optional |= {"peer-trusted-ca-file": self.tls.peer_ca}
            optional |= {"peer-client-cert-auth": "true" if self.tls.peer_ca else None}
        args += [f"--{flag}={value}" for flag, value in optional.items() if value is not None]
        return args + list(self.extra_args)


# What raftload decides itself, and reads elections, members and their addresses by.
_OURS = frozenset({
    "name", "data-dir", "wal-dir", "config-file", "listen-client-urls", "listen-peer-urls", "advertise-client-urls",
    "initial-advertise-peer-urls", "initial-cluster", "initial-cluster-token", "initial-cluster-state", "discovery",
    "discovery-endpoints", "discovery-srv", "discovery-token", "discovery-proxy", "discovery-fallback", "proxy",
    "logger", "log-level", "log-format", "log-outputs", "log-output", "log-rotation-config-json",
    "enable-log-rotation", "cert-file", "key-file", "trusted-ca-file", "client-cert-auth", "auto-tls",
    "peer-cert-file", "peer-key-file", "peer-trusted-ca-file", "peer-client-cert-auth", "peer-auto-tls", "help",
    "version",
})  # fmt: skip
_FLAG = re.compile(r"(?:--)?([a-z][a-z0-9-]*)=(.*)", re.DOTALL)


def etcd_flag(text: str) -> str:
    """Take ``KEY=VALUE`` of the options of etcd, return the flag: ``--KEY=VALUE``.

    Raises ValueError for what is none, and for an option that raftload decides itself.
    """
    match = _FLAG.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not an option of etcd; write KEY=VALUE, such as max-txn-ops=512")
    if match[1] in _OURS:
        raise ValueError(f"raftload sets etcd's --{match[1]} itself")
    return f"--{match[1]}={match[2]}"


def member_names(count: int) -> list[str]:
    """``etcd-node1`` to ``etcd-nodeN``. Raises ValueError for less than one."""
    if count < 1:
        raise ValueError(f"a cluster needs at least one member, not {count}")
    return [f"{NAME_PREFIX}{number}" for number in range(1, count + 1)]


def local_members(
    client_ports: Sequence[int],
    peer_ports: Sequence[int],
    data_root: str,
    scheme: str = "http",
    peer_scheme: str = "http",
) -> tuple[Member, ...]:
    """Return the members on loopback.

    Takes a client and a peer port for each, the folder that holds their data folders, and the schemes of their
    client and peer URLs; returns them in order. Raises ValueError where the two lists differ in length.
    """
    return tuple(
        Member(
            name=name,
            client_url=f"{scheme}://127.0.0.1:{client}",
            peer_url=f"{peer_scheme}://127.0.0.1:{peer}",
            data_dir=f"{data_root.rstrip('/')}/{name}",
        )
        for name, client, peer in zip(member_names(len(client_ports)), client_ports, peer_ports, strict=True)
    )


def member_env(env: Mapping[str, str], machine: str) -> dict[str, str]:
    """Return the environment of a member.

    Takes that of its starter and the machine's architecture, as ``platform.machine`` names it. ``ETCD_*`` is
    left out, because etcd reads it as flags.
    """
    kept = {name: value for name, value in env.items() if not name.startswith("ETCD_")}
    if machine in ("aarch64", "arm64"):
        kept["ETCD_UNSUPPORTED_ARCH"] = "arm64"  # etcd 3.4 wants to be told
    return kept
