"""Members as Docker containers, over the Docker SDK, on networks of their own.

Each member is on two networks. On the peers' network, which has no way out, it has a fixed address, and by that
alone members reach each other: taken off that network it loses its peers and keeps its clients. The clients' network
publishes its client port on 127.0.0.1. Everything made carries the label ``io.raftload.cluster``; what does not is
never touched. What a cluster is, is read from its containers' labels: the Engine is the only memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import shutil
import signal
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from cluster.base.access import Access
from cluster.base.errors import ClusterError, UsageError
from cluster.base.security import Security
from cluster.base.state import state_dir
from cluster.base.topology import DISK_METHODS, Disk, Member, member_names
from cluster.docker.engine import CALL_TIMEOUT_S, talking

if TYPE_CHECKING:
    from cluster.docker.sdk import Client, Container

LABEL = "io.raftload.cluster"
SPEC = "io.raftload.spec"
PEERS, CLIENTS = "raftload-peers", "raftload-clients"
SHM_PREFIX = "raftload-docker-"
PEER_PORT = 2380
CLIENT_PORT = 2379
DATA_ROOT = "/var/lib/etcd"
_STOP_GRACE_S = 10
_REMOVAL_S = 30

Data = Literal["container", "volume", "shm"]
State = Literal["running", "paused", "down"]


@dataclasses.dataclass(frozen=True, slots=True)
class DockerSpec:
    """What a cluster of containers was made as; it stands in a label of each of them.

    Attributes:
        token: of this cluster alone.
        nodes, base_port, data: as asked for.
        image, source, detail, requested_version: of the image, as ``images.Image`` has them.
        peers: the members' addresses on the peers' network, in order.
        shm: the folder in /dev/shm that holds the data, empty where it is elsewhere.
        created_at: ISO 8601, UTC.
        etcd_args: further flags of etcd.
        tls, auth: whether certificates and users were made; they are in the state folder of who made the cluster.
    """

    token: str
    nodes: int
    base_port: int
    data: Data
    image: str
    source: str
    detail: str
    requested_version: str | None
    peers: tuple[str, ...]
    shm: str
    created_at: str
    etcd_args: tuple[str, ...] = ()
    tls: bool = False
    auth: bool = False

    def to_label(self) -> str:
        """Return it as JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_label(cls, text: str) -> DockerSpec:
        """Take what ``to_label`` made. Raises ClusterError for anything else."""
        try:
            values = json.loads(text)
            lists = {name: tuple(values[name]) for name in ("peers", "etcd_args") if name in values}
            return cls(**{**values, **lists})
        except (ValueError, TypeError, KeyError) as exc:
            raise ClusterError(
                f"a container carries a label {SPEC} that this version cannot read: `raftload cluster down` removes it"
            ) from exc

    @property
    def members(self) -> tuple[Member, ...]:
        """The members, as clients on this machine reach them."""
        scheme = "https" if self.tls else "http"
        return tuple(
            Member(
                name=name,
                client_url=f"{scheme}://127.0.0.1:{self.base_port + index}",
                peer_url=f"{scheme}://{address}:{PEER_PORT}",
                data_dir=f"{DATA_ROOT}/{name}",
                client_listen_url=f"{scheme}://0.0.0.0:{CLIENT_PORT}",
                peer_listen_url=f"{scheme}://0.0.0.0:{PEER_PORT}",
            )
            for index, (name, address) in enumerate(zip(member_names(self.nodes), self.peers, strict=True))
        )


def access_folder(token: str) -> Path:
    """Return the folder for the certificates and passwords of a cluster."""
    return state_dir() / f"docker-{token}"


# What is there


def ours(client: Client, label: str = LABEL) -> Sequence[Container]:
    """Return all containers that carry our label, running or not."""
    with talking("list containers"):
        return client.containers.list(all=True, filters={"label": label}, ignore_removed=True)


def find(client: Client) -> DockerCluster | None:
    """Return the whole cluster that is there, healthy or not; None where there is none, or only a part of one."""
    by_token: dict[str, dict[str, Container]] = {}
    for container in ours(client):
        by_token.setdefault(container.labels[LABEL], {})[container.name] = container
    for containers in by_token.values():
        label = next(iter(containers.values())).labels.get(SPEC, "")
        with contextlib.suppress(ClusterError):
            spec = DockerSpec.from_label(label)
            names = {member.name for member in spec.members}
            if names == set(containers) and all(each.status != "created" for each in containers.values()):
                return DockerCluster(client, spec)
    return None


def has_volumes(client: Client) -> bool:
    """Return whether named volumes of ours are there."""
    with talking("list volumes"):
        return bool(client.volumes.list(filters={"label": LABEL}))


def remove(client: Client, token: str | None = None) -> list[str]:
    """Remove every container, network, volume and shm folder of ours, or of the one cluster with that token, and then
    its certificates and passwords.

    Returns what was removed, for people. Raises ClusterError, naming what is left, where that fails.
    """
    import docker

    label = LABEL if token is None else f"{LABEL}={token}"
    removed, failed = [], []
    folders, tokens = set(), {token} if token else set()
    things: list[tuple[str, Callable[[], None], Container | None]] = []
    for container in sorted(ours(client, label), key=lambda each: str(each.name)):
        with contextlib.suppress(ClusterError):
            folders.add(DockerSpec.from_label(container.labels.get(SPEC, "")).shm)
        tokens.add(container.labels[LABEL])
        gone = functools.partial(container.remove, force=True, v=True)
        things.append((f"container {container.name}", gone, container))
    with talking("list networks and volumes"):
        networks = client.networks.list(filters={"label": label})
        volumes = client.volumes.list(filters={"label": label})
    # Somebody else may have removed the containers.
    labels = [*(each.attrs["Labels"] for each in networks), *(each.attrs["Labels"] for each in volumes)]
    tokens |= {each[LABEL] for each in labels if each}
    things += [(f"network {each.name}", each.remove, None) for each in networks]
    things += [(f"volume {each.name}", each.remove, None) for each in volumes]
    for name, take_away, in_use in things:
        try:
            with talking(f"remove {name}"):
                try:
                    take_away()
                    removed.append(name)
                except docker.errors.NotFound:
                    continue  # somebody else was faster
                except docker.errors.APIError as exc:
                    if exc.status_code != HTTPStatus.CONFLICT or in_use is None:
                        raise
                    with contextlib.suppress(docker.errors.NotFound):  # somebody else is removing it just now
                        in_use.wait(condition="removed", timeout=_REMOVAL_S)
        except ClusterError as exc:
            failed.append(str(exc))
    for folder in sorted(folders - {""}):
        if Path(folder).name.startswith(SHM_PREFIX) and Path(folder).exists():
            shutil.rmtree(folder, ignore_errors=True)
            (failed if Path(folder).exists() else removed).append(f"folder {folder}")
    for each in () if failed else sorted(tokens):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(access_folder(each))
            removed.append(f"folder {access_folder(each)}")
    if failed:
        raise ClusterError(f"not everything was removed, run `raftload cluster down` again: {'; '.join(failed)}")
    return removed


# A cluster that is there


class DockerCluster:
    """The members as containers, by name. Each method raises KeyError for an unknown one, ClusterError where it fails.

    Usable in ``with``, which closes the connection to the Engine and leaves the cluster.
    """

    backend = "docker"
    cannot: ClassVar[dict[str, str]] = {
        "delay": "minimal images have no program that delays packets: use --backend local",
        "drop": "minimal images have no program that drops packets: use --backend local",
        **dict.fromkeys(
            DISK_METHODS,
            "it traps system calls, of members that are processes: use --backend local --disk-faults, on Linux",
        ),
    }

    def __init__(self, client: Client, spec: DockerSpec) -> None:
        """Take the Docker client, to be closed with it, and what the cluster was made as."""
        self._client = client
        self.spec = spec

    def __enter__(self) -> DockerCluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection to the Engine."""
        self._client.close()

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, running or not, in order."""
        return self.spec.members

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The members' client URLs."""
        return tuple(member.client_url for member in self.members)

    @property
    def access(self) -> Access:
        """The certificates and users that were made for it."""
        if not (self.spec.tls or self.spec.auth):
            return Access()
        return Access(str(access_folder(self.spec.token)), self.spec.tls, self.spec.auth)

    @property
    def security(self) -> Security:
        """How to reach the members. Raises ClusterError where that cannot be read, as of another user's cluster."""
        return self.access.security()

    def states(self) -> dict[str, State]:
        """Return what each member's container is doing."""
        states: dict[str, State] = dict.fromkeys((member.name for member in self.members), "down")
        for container in ours(self._client):
            if container.name in states:
                states[container.name] = container.status if container.status in ("running", "paused") else "down"
        return states

    def isolated(self) -> frozenset[str]:
        """Return the members that are off the peers' network."""
        off = set()
        for member in self.members:
            with talking(f"ask for {member.name}"):
                container = self._container(member.name)
                if PEERS not in container.attrs["NetworkSettings"]["Networks"]:
                    off.add(member.name)
        return frozenset(off)

    def disturbed(self) -> frozenset[str]:
        """Return the members whose peer links are delayed or lossy: none, that cannot be done here."""
        return frozenset()

    def disks(self) -> dict[str, Disk]:
        """Return the disks that a fault was done to: none, that cannot be done here."""
        return {}

    def is_running(self, name: str) -> bool:
        """Return whether its process is there, paused or not."""
        return self._container(name).status in ("running", "paused")

    def kill(self, name: str) -> None:
        """SIGKILL: the process is gone on return, its data stays."""
        self._end(name, signal.SIGKILL)

    def terminate(self, name: str) -> None:
        """End a member in order; force it after 10 s."""
        self._end(name, signal.SIGTERM)

    def start(self, name: str) -> None:
        """Start a member that is down, on its data; return when its process runs."""
        container = self._container(name)
        if container.status in ("running", "paused"):
            raise ClusterError(f"cannot start {name}: it is running already")
        with talking(f"start {name}"):
            container.start()

    def pause(self, name: str) -> None:
        """Freeze it: it stays connected and says nothing."""
        with talking(f"pause {name}"):
            self._container(name).pause()

    def resume(self, name: str) -> None:
        """Undo ``pause``; nothing where it is not paused."""
        container = self._container(name)
        if container.status == "paused":
            with talking(f"resume {name}"):
                container.unpause()

    def isolate(self, name: str) -> None:
        """Take it off the peers' network: its clients still reach it."""
        with talking(f"take {name} off the network {PEERS}"):
            self._client.networks.get(PEERS).disconnect(self._container(name), force=True)

    def join(self, name: str) -> None:
        """Put it back on the peers' network with the address it had; nothing where it is there."""
        container = self._container(name)
        if PEERS in container.attrs["NetworkSettings"]["Networks"]:
            return
        index = [member.name for member in self.members].index(name)
        with talking(f"put {name} back on the network {PEERS}"):
            self._client.networks.get(PEERS).connect(container, ipv4_address=self.spec.peers[index])

    def log(self, name: str, lines: int | None = None) -> str:
        """Return a member's log, the last ``lines`` of it where that is given."""
        container = self._container(name)
        with talking(f"read the log of {name}"):
            text = container.logs(tail="all" if lines is None else lines)
        return text.decode(errors="replace")

    def _container(self, name: str) -> Container:
        import docker

        if name not in {member.name for member in self.members}:
            raise KeyError(name)
        with talking(f"find {name}"):
            try:
                container = self._client.containers.get(name)
            except docker.errors.NotFound as exc:
                raise ClusterError(f"the container {name} is gone: `raftload cluster up` makes a new cluster") from exc
        if container.labels.get(LABEL) != self.spec.token:
            raise ClusterError(f"the container {name} is not one of this cluster: it is left alone")
        return container

    def _end(self, name: str, number: signal.Signals) -> None:
        container = self._container(name)
        if container.status not in ("running", "paused"):
            raise ClusterError(f"cannot end {name}: it is not running")
        with talking(f"end {name}"):
            if container.status == "paused":  # the Engine ends no frozen process
                container.unpause()
            if number == signal.SIGKILL:
                container.kill()
                container.wait(timeout=CALL_TIMEOUT_S)
            else:
                container.stop(timeout=_STOP_GRACE_S)


def unlike(
    spec: DockerSpec,
    *,
    nodes: int | None,
    version: str | None,
    image: str | None,
    base_port: int | None = None,
    data: str | None = None,
    etcd_args: Sequence[str] | None = None,
    tls: bool | None = None,
    auth: bool | None = None,
) -> str:
    """In which respect a cluster is not what is asked for, in words; empty where it is. None asks for nothing."""
    if nodes is not None and spec.nodes != nodes:
        return f"{spec.nodes} members"
    if image is not None and spec.image != image:
        return f"image {spec.image}"
    if image is None and version is not None and spec.requested_version != version:
        return f"etcd {spec.requested_version or spec.image}"
    if base_port is not None and spec.base_port != base_port:
        return f"ports from {spec.base_port}"
    if data is not None and spec.data != data:
        return f"data in {spec.data}"
    if etcd_args is not None and set(spec.etcd_args) != set(etcd_args):
        return f"etcd with {' '.join(spec.etcd_args) or 'no --etcd-arg'}"
    return Access(tls=spec.tls, auth=spec.auth).unlike(tls, auth)


def check_data(data: str, backend: str) -> None:
    """Raise UsageError where a backend has no such storage."""
    allowed: Sequence[str] = ("container", "volume", "shm") if backend == "docker" else ("container", "shm")
    if data not in allowed:
        raise UsageError(f"--data {data} is not for --backend {backend}: choose {' or '.join(allowed)}")
