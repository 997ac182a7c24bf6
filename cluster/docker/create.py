"""The creation of a cluster of containers: all of it and healthy, or nothing."""

from __future__ import annotations

import concurrent.futures
import datetime
import io
import os
import platform
import posixpath
import secrets
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.access import Access
from cluster.base.errors import ClusterError, MemberFailed
from cluster.base.ports import is_free
from cluster.base.security import Security
from cluster.base.signals import uninterrupted
from cluster.base.topology import ClusterSpec, Member, member_names
from cluster.docker.address import EngineAddress
from cluster.docker.cluster import (
    CLIENT_PORT,
    CLIENTS,
    DATA_ROOT,
    LABEL,
    PEERS,
    SHM_PREFIX,
    SPEC,
    Data,
    DockerCluster,
    DockerSpec,
    access_folder,
    remove,
)
from cluster.docker.engine import talking
from cluster.docker.images import Image, Say
from cluster.gateway.users import enable_auth
from cluster.observe import probe
from cluster.observe.logs import why_it_ended_text

if TYPE_CHECKING:
    from cluster.docker.sdk import Client, Container

_POLL_S = 0.05
_NETWORK_ATTEMPTS = 8
_LINKS = 8  # at most so many symbolic links are followed
_ACCESS = "raftload-access"  # the folder of the certificates in a container, at its root


def create(
    client: Client, image: Image, *, nodes: int, base_port: int, data: Data, etcd_args: tuple[str, ...] = (),
    wait_s: float, say: Say, tls: bool = False, auth: bool = False,
) -> DockerCluster:  # fmt: skip
    """Make and start a cluster and wait for its health.

    Takes the Docker client, an image that is there, and what the names say. Raises ClusterError where a name or
    a port is taken, MemberFailed with the last lines of a member's log where one does not come up. Then, and where
    it is interrupted, all that it made is gone again.
    """
    names = member_names(nodes)
    _refuse_foreign(client, names)
    _refuse_ports(base_port, nodes)
    token = secrets.token_hex(8)
    shm = ""
    try:
        clients = _clients_network(client, token)
        peers = _peers_network(client, token, nodes)
        if data == "shm":
            shm = tempfile.mkdtemp(prefix=SHM_PREFIX, dir="/dev/shm")
        spec = DockerSpec(
            token=token, nodes=nodes, base_port=base_port, data=data, image=image.reference, source=image.source,
            detail=image.detail, requested_version=image.requested_version, peers=peers, shm=shm,
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), etcd_args=etcd_args,
            tls=tls, auth=auth,
        )  # fmt: skip
        cluster = DockerCluster(client, spec)
        access = Access.make(access_folder(token), (*names, *peers), tls=tls, auth=auth)
        _each(spec.members, lambda member: _make(client, spec, access, member, clients))
        _each(spec.members, lambda member: cluster.start(member.name))
        say(f"{nodes} container{'s' if nodes > 1 else ''} started, waiting for health")
        wait_healthy(cluster, wait_s, access.security(login=False))
        if auth:
            enable_auth(cluster.endpoints, access, wait_s)
            wait_healthy(cluster, wait_s, access.security())
        return cluster
    except BaseException:
        with uninterrupted():
            abandon(client, token, say)
            if shm:
                shutil.rmtree(shm, ignore_errors=True)
        raise


def wait_healthy(cluster: DockerCluster, within_s: float, security: Security) -> None:
    """Wait until all members agree on a leader and serve reads.

    Takes how to ask them. Raises MemberFailed with a log's last words.
    """
    deadline = time.monotonic() + within_s
    while True:
        reason = probe.why_unhealthy(cluster.members, security=security)
        if not reason:
            return
        for name, state in cluster.states().items():
            if state == "down":
                line = why_it_ended_text(cluster.log(name, 200))
                raise MemberFailed(f"{name} ended: {line or 'it logged nothing'}", member=name, last_line=line)
        if time.monotonic() >= deadline:
            name = next((each.name for each in cluster.members if each.name in reason), cluster.members[0].name)
            last = cluster.log(name, 5).strip()
            raise MemberFailed(
                f"the cluster is not healthy after {within_s:g} s: {reason}; the last lines of {name}:\n{last}",
                member=name, last_line=last.splitlines()[-1] if last else "",
            )  # fmt: skip
        time.sleep(_POLL_S)


def abandon(client: Client, token: str, say: Say) -> None:
    """Remove a half-made cluster, also what the Engine was still making when we gave up."""
    quiet = 0
    # A request that was under way may still make its network or container: look until nothing more appears.
    for _ in range(10):
        removed = remove(client, token)
        if removed:
            say(f"removed the unfinished cluster: {', '.join(removed)}")
        quiet = 0 if removed else quiet + 1
        if quiet == 3:
            return
        time.sleep(0.3)


def _each(members: tuple[Member, ...], do: Callable[[Member], None]) -> None:
    """Do it for all members at once; raise the first failure when all have ended."""
    with concurrent.futures.ThreadPoolExecutor(min(len(members), 8)) as pool:
        for done in [pool.submit(do, member) for member in members]:
            done.result()


def _refuse_foreign(client: Client, names: list[str]) -> None:
    with talking("list containers"):
        there = {each.name: each for each in client.containers.list(all=True, ignore_removed=True)}
    for name in names:
        if name in there:
            raise ClusterError(
                f"a container named {name} is there that raftload did not make; it is left alone: "
                f"rename it (`docker rename {name} …`) or remove it, or use --backend local"
            )
    with talking("list networks"):
        for network in client.networks.list(names=[PEERS, CLIENTS]):
            if network.name in (PEERS, CLIENTS) and LABEL in (network.attrs["Labels"] or {}):
                raise ClusterError(
                    f"the network {network.name} of another cluster is there: another user is making that cluster, or "
                    "somebody has removed its containers; `raftload cluster down` removes what is left of it"
                )
            if network.name in (PEERS, CLIENTS):
                raise ClusterError(f"a network named {network.name} is there that raftload did not make: remove it")


def refuse_another_machine() -> None:
    """Raise ClusterError where 127.0.0.1, on which the members' ports are published, is another machine's.

    Asks nobody, so that it can come before an image is pulled or a cluster removed.
    """
    address = EngineAddress.find()
    if not address.is_local:
        raise ClusterError(
            f"the Docker Engine at {address} is on another machine, and so is the 127.0.0.1 of its members: run "
            "raftload there, or use --backend local"
        )


def _refuse_ports(base: int, nodes: int) -> None:
    for port in range(base, base + nodes):
        if not 0 < port < 65536:
            raise ClusterError(f"there is no port {port}: choose a lower --base-port")
        if not is_free(port):
            raise ClusterError(f"port {port} on 127.0.0.1 is taken: stop what uses it, or choose another --base-port")


def _clients_network(client: Client, token: str) -> str:
    """Make it and return its id. Raises ClusterError where another one is being made.

    The Engine takes a second network of the same name. Of two users, who have no lock in common, the first goes on.
    """
    with talking("make a network"):
        made = client.networks.create(CLIENTS, driver="bridge", labels={LABEL: token})
        same = [each for each in client.networks.list(names=[CLIENTS]) if each.name == CLIENTS]
    first = min(same, key=lambda each: (each.attrs["Created"], each.id), default=made)
    if first.id != made.id:
        raise ClusterError("another user is making a cluster on this Engine: wait for it, then try again")
    return str(made.id)


def _peers_network(client: Client, token: str, nodes: int) -> tuple[str, ...]:
    """Make it and return the members' addresses on it.

    Fixed addresses need a subnet that was asked for by name. The Engine is let choose a free one first, because it
    alone knows which are taken.
    """
    from docker.errors import APIError
    from docker.types import IPAMConfig, IPAMPool

    labels = {LABEL: token}
    with talking("make a network"):
        for attempt in range(_NETWORK_ATTEMPTS):
            chosen = client.networks.create(PEERS, driver="bridge", internal=True, labels=labels)
            chosen.reload()
            subnet = chosen.attrs["IPAM"]["Config"][0]["Subnet"]
            chosen.remove()
            try:
                ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
                client.networks.create(PEERS, driver="bridge", internal=True, labels=labels, ipam=ipam)
            except APIError as exc:
                if attempt + 1 < _NETWORK_ATTEMPTS and "overlap" in str(exc.explanation):
                    continue
                raise
            return _addresses(subnet, nodes)
    raise AssertionError("unreachable")


def _addresses(subnet: str, nodes: int) -> tuple[str, ...]:
    """From the twelfth address of the subnet on, or earlier where it is small; the second is the gateway's."""
    import ipaddress

    network = ipaddress.ip_network(subnet)
    first = min(11, network.num_addresses - 1 - nodes)  # the last one is the broadcast address
    if first < 2:
        raise ClusterError(
            f"the Engine's address pool gives subnets of {network.num_addresses} addresses, of which 3 are not for "
            f"members: too few for {nodes}"
        )
    return tuple(str(network.network_address + first + index) for index in range(nodes))


def _make(client: Client, spec: DockerSpec, access: Access, member: Member, clients: str) -> None:
    """Make a container, not yet started, on both networks, the clients' by its id."""
    etcd = ClusterSpec(
        members=spec.members, token=f"raftload-{spec.token}", tls=access.server_tls(at=f"/{_ACCESS}"),
        auth=spec.auth, extra_args=spec.etcd_args,
    )  # fmt: skip
    labels = {LABEL: spec.token, SPEC: spec.to_label()}
    options: dict[str, object] = {}
    if spec.data == "volume":
        volume = f"{member.name}-data"
        with talking(f"make the volume {volume}"):
            client.volumes.create(volume, labels={LABEL: spec.token})
        options["volumes"] = {volume: {"bind": DATA_ROOT, "mode": "rw"}}
    elif spec.data == "shm":
        folder = os.path.join(spec.shm, member.name)  # noqa: PTH118
        os.mkdir(folder, 0o700)  # noqa: PTH102
        options["volumes"] = {folder: {"bind": DATA_ROOT, "mode": "rw"}}
        options["user"] = f"{os.getuid()}:{os.getgid()}"
    environment = {"ETCDCTL_API": "3"}
    if spec.tls:  # for etcdctl in the container
        environment |= {"ETCDCTL_ENDPOINTS": f"https://127.0.0.1:{CLIENT_PORT}", "ETCDCTL_CACERT": f"/{_ACCESS}/ca.pem"}
        environment |= {"ETCDCTL_CERT": f"/{_ACCESS}/server.pem", "ETCDCTL_KEY": f"/{_ACCESS}/server-key.pem"}
    if platform.machine() in ("aarch64", "arm64"):
        environment["ETCD_UNSUPPORTED_ARCH"] = "arm64"
    port = int(member.endpoint.rpartition(":")[2])
    address = spec.peers[[each.name for each in spec.members].index(member.name)]
    with talking(f"make {member.name}"):
        container = client.containers.create(
            spec.image, etcd.argv(member.name)[1:], entrypoint=["etcd"], name=member.name, hostname=member.name,
            labels=labels, network=clients, ports={f"{CLIENT_PORT}/tcp": ("127.0.0.1", port)},
            environment=environment, **options,
        )  # fmt: skip
        client.networks.get(PEERS).connect(container, ipv4_address=address)
        if spec.tls:
            container.put_archive("/", _server_files(access, _uid(container)))


def _uid(container: Container) -> int:
    """Return the number of the user that a container runs as, which its image may give by a name.

    0 for a name that the image does not know: the Engine starts no such container, and says so.
    """
    user = container.attrs["Config"]["User"].partition(":")[0] or "0"
    if user.isascii() and user.isdigit():
        return int(user)
    fields = (line.split(":") for line in _read(container, "/etc/passwd").splitlines())
    return next((int(each[2]) for each in fields if each[0] == user), 0)


def _read(container: Container, path: str) -> str:
    """Return a text file of a container, also one that a symbolic link leads to; empty where there is none."""
    from docker.errors import NotFound

    for _ in range(_LINKS):
        try:
            parts, _ = container.get_archive(path)
        except NotFound:
            break
        with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as tar:
            first = tar.next()
            assert first is not None
            if first.issym():
                path = posixpath.join(posixpath.dirname(path), first.linkname)
            else:
                file = tar.extractfile(first)
                return file.read().decode(errors="replace") if file is not None else ""
    return ""


def _server_files(access: Access, uid: int) -> bytes:
    """Return what a member needs of the certificates, as a tar file.

    Takes the number of the user that the container runs as: only that one can read the keys.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(info: tarfile.TarInfo, mode: int, content: bytes | None = None) -> None:
            info.mode, info.uid, info.mtime = mode, uid, int(time.time())
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))

        folder = tarfile.TarInfo(_ACCESS)
        folder.type = tarfile.DIRTYPE
        add(folder, 0o700)
        for name in ("ca.pem", "server.pem", "server-key.pem", "peer.pem", "peer-key.pem"):
            path = Path(access.folder) / name
            add(tarfile.TarInfo(f"{_ACCESS}/{name}"), 0o600, path.read_bytes())
    return out.getvalue()
