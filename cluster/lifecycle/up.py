"""`cluster up`, `down` and what others need of them: find or make a cluster, and remove what is ours."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, TypedDict

from cluster.base.access import ROOT, Access
from cluster.base.binary import EtcdBinary, find_etcd
from cluster.base.errors import ClusterError, UsageError
from cluster.base.signals import Interrupted, finishing, uninterrupted
from cluster.base.units import parse_whole
from cluster.base.versions import parse_version, version_or_path
from cluster.docker import cluster as containers
from cluster.docker.cluster import Data, DockerCluster
from cluster.docker.create import create, refuse_another_machine
from cluster.docker.engine import connect, talking
from cluster.docker.images import Say, built, find_image
from cluster.local.daemon_client import DetachedCluster
from cluster.local.daemon_client import start as start_detached
from cluster.observe import running as state
from cluster.observe.running import Running

if TYPE_CHECKING:
    from cluster.docker.sdk import Client
    from cluster.schema.documents import ClusterAccess, ClusterOrigin

Cluster = DockerCluster | DetachedCluster
DEFAULT_NODES = 3
DEFAULT_PORT = 2379
_UNFINISHED_S = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterRequest:
    """A cluster as asked for; what is None does not matter where one is there, and has a default where not.

    ``named_by`` is the option or the variable that named the version or the binary, for people; ``etcd_args`` are
    further flags of etcd, such as ``--quota-backend-bytes=67108864``. ``tls`` and ``auth`` stay as they are also where
    the cluster is replaced: nobody loses them by asking for another size.
    """

    backend: Literal["docker", "local"] = "docker"
    nodes: int | None = None
    base_port: int | None = None
    image: str | None = None
    version: str | None = None
    binary: str | None = None
    data: Data | None = None
    wait_s: float = 60.0
    replace: bool = False
    pull: bool = False
    pull_timeout_s: float = 300.0
    links: Literal["relay", "direct"] = "relay"
    named_by: str = "argument"
    etcd_args: tuple[str, ...] | None = None
    tls: bool | None = None
    auth: bool | None = None
    disk_faults: bool = False

    @classmethod
    def from_env(
        cls,
        env: Mapping[str, str] | None = None,
        *,
        backend: Literal["docker", "local"] = "docker",
        nodes: int | None = None,
        base_port: int | None = None,
        etcd: str | None = None,
        image: str | None = None,
        version: str | None = None,
        binary: str | None = None,
        data: Data | None = None,
        wait_s: float = 60.0,
        replace: bool = False,
        pull: bool = False,
        pull_timeout_s: float = 300.0,
        links: Literal["relay", "direct"] = "relay",
        etcd_args: tuple[str, ...] | None = None,
        tls: bool | None = None,
        auth: bool | None = None,
        disk_faults: bool = False,
    ) -> ClusterRequest:
        """Take what was given, None for what was not; that comes from NODES, ETCD_VERSION, ETCD_IMAGE, ETCD_BINARY.

        ``etcd`` is a version or the path of a binary. Raises UsageError for what makes no sense.
        """
        env = os.environ if env is None else env
        if nodes is None and env.get("NODES"):
            try:
                nodes = parse_whole(env["NODES"])
            except ValueError as exc:
                raise UsageError(f"$NODES: {exc}") from exc
        image_given = image is not None
        named = [f"--{name}" for name, value in (("binary", binary), ("image", image), ("etcd-version", version))
                 if value is not None]  # fmt: skip
        if etcd is not None:
            if named:
                raise UsageError(f"--etcd and {named[0]} exclude each other; give one")
            meant = version_or_path(etcd)
            version, binary = (meant, None) if isinstance(meant, str) else (None, str(meant))
            named_by = "--etcd"
        elif named:
            named_by = "--binary" if binary is not None else "--etcd-version"
        else:
            image, version, binary = (env.get(f"ETCD_{name}") or None for name in ("IMAGE", "VERSION", "BINARY"))
            named_by = "ETCD_BINARY" if binary is not None else "ETCD_VERSION"
        request = cls(
            backend=backend, nodes=nodes, base_port=base_port, image=image, version=version, binary=binary, data=data,
            wait_s=wait_s, replace=replace, pull=pull, pull_timeout_s=pull_timeout_s, links=links, named_by=named_by,
            etcd_args=etcd_args, tls=tls, auth=auth, disk_faults=disk_faults,
        )  # fmt: skip
        if request.nodes is not None and not 1 <= request.nodes <= 99:
            raise UsageError(f"a cluster has 1 to 99 members, not {request.nodes}")
        last = (request.base_port or DEFAULT_PORT) + (request.nodes or DEFAULT_NODES) - 1
        if (request.base_port is not None and request.base_port < 1) or last > 65535:
            raise UsageError(
                f"there is no port {last if last > 65535 else request.base_port}: choose another --base-port"
            )
        if request.version is not None:
            try:
                parse_version(request.version)
            except UsageError as exc:
                raise UsageError(f"{named_by}: {exc}") from exc
        if backend == "local" and image_given:
            raise UsageError("--image is for --backend docker: give --etcd")
        if backend == "docker" and disk_faults:
            raise UsageError("--disk-faults is for members that are processes: give --backend local, too")
        if request.data is not None:
            containers.check_data(request.data, request.backend)
        return request

    def find_binary(self) -> EtcdBinary | None:
        """Return the etcd that was asked for; None where none was. Raises as ``find_etcd``."""
        asked = self.binary or self.version
        return find_etcd(asked, named_by=self.named_by) if asked else None


def up(request: ClusterRequest, say: Say) -> tuple[Cluster, Literal["found", "created", "replaced"]]:
    """Return a running cluster as asked for, found or made.

    Returns it, to be closed, and what was done. Waits for another process that makes or removes one. Raises
    ClusterError.
    """
    if request.nodes is not None and request.nodes % 2 == 0:
        say(f"warning: {request.nodes} members survive no more failures than {request.nodes - 1}")
    with state.changing(say):
        return _docker_up(request, say) if request.backend == "docker" else _local_up(request, say)


@contextlib.contextmanager
def saying_what_stays(backend: str | None, say: Say) -> Iterator[None]:
    """Say, where a signal ends the block, whether a cluster is there now, and how to remove it."""
    try:
        yield
    except Interrupted:
        with uninterrupted(), find(backend) or contextlib.nullcontext() as left:
            say("the cluster stays: `raftload cluster down` removes it" if left else "no cluster of ours is left")
        raise


def _docker_up(request: ClusterRequest, say: Say) -> tuple[Cluster, Literal["found", "created", "replaced"]]:
    refuse_another_machine()
    client = connect()
    try:
        there = containers.find(client)
        wanted = parse_version(request.version) if request.version else None
        if there is None and containers.ours(client):
            there = _finished_by_another(client, say)
        differs = ""
        if there is None and containers.ours(client):
            differs = "unfinished"
        elif there is None and containers.has_volumes(client):
            differs = "its containers are gone"
        if there:
            differs = containers.unlike(
                there.spec,
                nodes=request.nodes,
                version=wanted,
                image=request.image,
                base_port=request.base_port,
                data=request.data,
                etcd_args=request.etcd_args,
                tls=request.tls,
                auth=request.auth,
            )
        if there and not differs:
            _remember_docker(there)
            return there, "found"
        if differs:
            if containers.has_volumes(client) and not request.replace:
                raise UsageError(
                    f"a cluster with named volumes is there ({differs}): `raftload cluster up --replace` removes it and"
                    " its data"
                )
            say(f"replacing the cluster that is there ({differs})")
        # What can fail without touching the old cluster comes first.
        image = find_image(
            client, image=request.image, version=request.version, binary=request.binary, say=say, pull=request.pull,
            pull_timeout_s=request.pull_timeout_s, named_by=request.named_by,
        )  # fmt: skip
        say(f"image {image.reference} ({image.source}: {image.detail})")
        if differs:
            with finishing():
                containers.remove(client)
                _forget_docker()
        made = create(
            client, image, nodes=request.nodes or DEFAULT_NODES, base_port=request.base_port or DEFAULT_PORT,
            data=request.data or "container", etcd_args=request.etcd_args or (), wait_s=request.wait_s, say=say,
            **_secured(request, there.access if there else None),
        )  # fmt: skip
        _remember_docker(made)
        return made, "replaced" if differs else "created"
    except BaseException:
        client.close()
        raise


def _finished_by_another(client: Client, say: Say) -> DockerCluster | None:
    """Return the cluster that another user, who has another lock, is making on this Engine; None for a leftover."""
    say("found an unfinished cluster: waiting in case another process is still making it")
    deadline = time.monotonic() + _UNFINISHED_S
    while (found := containers.find(client)) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _local_up(request: ClusterRequest, say: Say) -> tuple[Cluster, Literal["found", "created", "replaced"]]:
    there = DetachedCluster.find()
    # What can fail without touching the old cluster comes first.
    binary = request.find_binary()
    differs = _unlike(there.running, request, binary) if there is not None else ""
    if there is not None and not differs:
        return there, "found"
    binary = binary or find_etcd()
    if there is not None:
        say(f"replacing the cluster that is there ({differs})")
        with finishing():
            there.down()
    if binary.note:
        say(f"note: {binary.note}")
    if request.links == "relay":
        say("the members are connected through a relay, for partition, delay and drop; to measure, use --links direct")
    if request.disk_faults:
        say("the members' syncs are trapped, for faults of their disks; to measure, leave --disk-faults out")
    made = start_detached(
        nodes=request.nodes or DEFAULT_NODES, base_port=request.base_port or DEFAULT_PORT, binary=binary.path,
        source=binary.source, data=request.data or "container", links=request.links, wait_s=request.wait_s,
        requested_version=parse_version(request.version) if request.version else None,
        etcd_args=request.etcd_args or (), disk_faults=request.disk_faults,
        **_secured(request, there.running.access if there is not None else None),
    )  # fmt: skip
    return made, "replaced" if there is not None else "created"


class _Secured(TypedDict):
    tls: bool
    auth: bool


def _secured(request: ClusterRequest, there: Access | None) -> _Secured:
    """Return whether a new cluster gets certificates and users. Takes the access of the one that it replaces."""
    there = there or Access()
    return {
        "tls": there.tls if request.tls is None else request.tls,
        "auth": there.auth if request.auth is None else request.auth,
    }


def _unlike(there: Running, request: ClusterRequest, binary: EtcdBinary | None) -> str:
    """Return how the local cluster that is there differs from what is wanted, for people; empty where it does not."""
    first = int(there.members[0].endpoint.rpartition(":")[2])
    if request.nodes not in (None, len(there.members)) or request.base_port not in (None, first):
        return f"{len(there.members)} members from port {first}"
    if binary is not None and not there.source.startswith(f"{binary.path} ("):
        return f"etcd {there.version} of {there.source}"
    if request.etcd_args is not None and set(request.etcd_args) != set(there.etcd_args):
        return f"etcd with {' '.join(there.etcd_args) or 'no --etcd-arg'}"
    if request.disk_faults and not there.disk_faults:
        return "without --disk-faults"
    return there.access.unlike(request.tls, request.auth)


def _remember_docker(cluster: DockerCluster) -> None:
    answers = list(state.statuses(cluster.members, security=cluster.security))
    old = state.load("docker")
    ids: dict[str, int] = {}
    if old and old.created_at == cluster.spec.created_at:
        ids.update(old.member_ids)
    else:
        _forget_docker()
    ids.update({status.name: status.member_id for status in answers})
    spec = cluster.spec
    state.save(
        Running(
            backend="docker", members=cluster.members, member_ids=ids,
            version=answers[0].version if answers else "", requested_version=spec.requested_version,
            image=spec.image, source=f"{spec.source}: {spec.detail}", created_at=spec.created_at,
            etcd_args=spec.etcd_args, access=cluster.access,
        )
    )  # fmt: skip


def _forget_docker() -> list[str]:
    """Forget the Docker cluster, and remove the certificates and passwords that are left where somebody else removed
    its containers.

    Returns what was removed, for people. Those of one that answers, as on another Engine of this machine, stay.
    """
    removed = []
    known = state.load("docker")
    folder = known.access.folder if known is not None else ""
    if os.path.isdir(folder) and state.find_running(backends=["docker"]) is None:  # noqa: PTH112
        shutil.rmtree(folder, ignore_errors=True)
        removed.append(f"folder {folder}")
    state.forget("docker")
    return removed


def describe(cluster: Cluster | None) -> ClusterOrigin:
    """Return what a cluster was made as, for ``--json``; all None for one that is not ours."""
    if cluster is None:
        return {"backend": None, "nodes": None, "version": None, "requested_version": None, "image": None,
                "source": None, "links": None, "created_at": None, "etcd_args": None, "access": None,
                "disk_faults": None}  # fmt: skip
    if isinstance(cluster, DetachedCluster):
        running = cluster.running
        return {"backend": "local", "nodes": len(running.members), "version": running.version,
                "requested_version": running.requested_version, "image": None, "source": running.source,
                "links": running.links, "created_at": running.created_at,
                "etcd_args": [*running.etcd_args], "access": _access(running.access),
                "disk_faults": running.disk_faults}  # fmt: skip
    spec = cluster.spec
    remembered = state.load("docker")
    known = remembered is not None and remembered.created_at == spec.created_at
    return {"backend": "docker", "nodes": spec.nodes, "version": remembered.version if remembered and known else None,
            "requested_version": spec.requested_version, "image": spec.image, "source": f"{spec.source}: {spec.detail}",
            "links": "networks", "created_at": spec.created_at, "etcd_args": [*spec.etcd_args],
            "access": _access(cluster.access), "disk_faults": False}  # fmt: skip


def _access(access: Access) -> ClusterAccess:
    """Return how a cluster is reached, without passwords."""
    files = access.files
    return {
        "cacert": files.get("cacert"), "cert": files.get("cert"), "key": files.get("key"),
        "user": ROOT if access.auth else None,
        "password_file": access.password_path(ROOT) if access.auth else None,
    }  # fmt: skip


def find(backend: str | None = None) -> Cluster | None:
    """Return the cluster that is there, to be closed; None where none is.

    Takes a backend, None for whichever has one, the local one first. Raises ClusterError where Docker was asked for
    by name or has a cluster by our memory, and does not answer.
    """
    if backend != "docker" and (local := DetachedCluster.find()):
        return local
    if backend == "local":
        return None
    client = _engine(backend)
    if client is None:
        return None
    try:
        found = containers.find(client)
    except BaseException:
        client.close()
        raise
    if found is None:
        client.close()
    return found


def _engine(backend: str | None) -> Client | None:
    """Return the Engine's client; None where none answers and nobody counts on it:

    neither by name nor by our memory.
    """
    try:
        return connect()
    except ClusterError:
        if backend == "docker" or state.load("docker"):
            raise
        return None


def down(backend: str | None = None, say: Say = lambda text: None) -> list[str]:
    """Remove all that is ours, of one backend or of both. Returns what was removed, for people.

    Images stay, for the next cluster; ``say`` is told which. Waits for another process that makes or removes one.
    Raises ClusterError where something is left; a signal waits until it is done.
    """
    removed = []
    with state.changing(say), finishing():
        if backend != "docker" and (local := DetachedCluster.find()):
            local.down()
            removed += [f"process {member.name}" for member in local.members]
        if backend != "local":
            client = _engine(backend)
            if client is None:
                return removed
            try:
                images = _images(client)
                gone = containers.remove(client)
                removed += gone
            finally:
                client.close()
            removed += _forget_docker()
            if gone and images:
                names = " ".join(images)
                say(f"kept for the next cluster: the images {names}; `docker rmi {names}` removes them")
    return removed


def _images(client: Client) -> list[str]:
    """Return the image of the cluster that is there, and those that were built here for any; none where nobody knows.

    That is no reason to leave a cluster.
    """
    with contextlib.suppress(ClusterError), talking("list images"):
        found = containers.find(client)
        return list(dict.fromkeys([*([found.spec.image] if found is not None else []), *built(client)]))
    return []


@contextlib.contextmanager
def open_docker_cluster(
    nodes: int | None = None, *, say: Say = lambda text: None, etcd: str | None = None
) -> Iterator[DockerCluster]:
    """Yield a Docker cluster for a block: one that is there stays afterwards, one made for it is removed, whatever
    happens.

    Takes the members wanted, None for those of the cluster that is there (else NODES, else 3), where to report
    progress to, and a version of etcd or the path of a binary. One of another size or etcd than was asked for is not
    replaced. Raises ClusterError.
    """
    asked = ClusterRequest.from_env(nodes=nodes, backend="docker", etcd=etcd)
    there = find("docker")
    if there is not None:
        assert isinstance(there, DockerCluster)
        with there:
            if nodes is not None and len(there.members) != nodes:
                raise UsageError(
                    f"a Docker cluster of {len(there.members)} is there, not of {nodes}: "
                    f"leave --nodes out, or `raftload cluster down` first"
                )
            if etcd is not None:
                _expect_same_etcd(there, asked)
            yield there
        return
    made, _ = up(asked, say)
    assert isinstance(made, DockerCluster)
    try:
        with made:
            yield made
    finally:
        say(f"removed the Docker cluster: {len(down('docker', say))} containers, networks and volumes")


def _expect_same_etcd(there: DockerCluster, asked: ClusterRequest) -> None:
    """Raise UsageError where the etcd that was asked for by name is not the one that runs."""
    binary = asked.find_binary() if asked.binary else None
    version = binary.version if binary else parse_version(str(asked.version))
    runs = {status.version for status in state.statuses(there.members, security=there.security)}
    if runs != {version}:
        raise UsageError(
            f"a Docker cluster of etcd {', '.join(sorted(runs)) or 'of unknown version'} is there, not of {version}: "
            "leave --etcd out, or `raftload cluster down` first"
        )
