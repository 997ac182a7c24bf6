"""A cluster under load into which a cause is injected: what it is made of, and how it is made and ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.base.binary import EtcdBinary
from cluster.base.security import Security
from cluster.base.topology import Member
from cluster.docker.cluster import DockerCluster
from cluster.local.cluster import LocalCluster
from cluster.local.strike_rules import FOR_DISKS
from loadgen.run.target import MEMBER_NICE
from tests.diagnose import far, links, machine
from tests.support.command import until_load
from tests.support.ports import take_ports
from tests.support.processes import descendants

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result

SCENARIOS = Path(__file__).with_name("scenarios")
LIGHT = ("--rate", "150")
_ENDS_S = 90.0
_MIB = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Setup:
    """How a cluster and its load are made for a cause.

    Attributes:
        nodes: members.
        load: options of the `raftload bench` beside it; None for no load.
        memory: whether the data is in memory.
        strikes: whether syncs can be struck.
        writes: whether writes to files and sockets can be struck, too.
        shaped: whether links can be late one way, and narrow.
        tls: whether members speak TLS and there are users.
        quota_mib: what a database may have; 0 for etcd's own bound.
        docker: whether members are containers.
        far: for how many members packets to and from clients are late, and by how many seconds each way.
        far_jitter_s: by how many seconds more or less, at random.
        apart: whether members have one processor and clients another one.
        prepare: what is done before the load begins.
    """

    nodes: int = 3
    load: tuple[str, ...] | None = LIGHT
    memory: bool = False
    strikes: bool = False
    writes: bool = False
    shaped: bool = False
    tls: bool = False
    quota_mib: int = 0
    docker: bool = False
    far: tuple[int, float] | None = None
    far_jitter_s: float = 0.0
    apart: bool = False
    prepare: Callable[[Scene], None] | None = None


class Bench:
    """A load that runs: ``process`` is its master's, ``folder`` its run folder."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process, self.folder = process, folder

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        return [self.process.pid, *descendants(self.process.pid)]

    def end(self) -> Result:
        """End it as Ctrl-C does, and return its result. Raises RuntimeError where there is none, or it ended before."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the load has ended before: {self.process.communicate()[1].strip()[-300:]}")
        self.process.send_signal(signal.SIGINT)
        try:
            _, said = self.process.communicate(timeout=_ENDS_S)
        except subprocess.TimeoutExpired as exc:
            raise RuntimeError(f"the load did not end within {_ENDS_S:g} s") from exc
        path = self.folder / "result.json"
        if not path.exists():
            raise RuntimeError(f"the load has no result: {said.strip()[-300:]}")
        result: Result = json.loads(path.read_text())
        return result


class Scene:
    """A cluster that runs, and what is known of it.

    Attributes:
        cluster: of processes, or of containers.
        setup: as it was made.
        folder: a temporary one for what runs here.
        bench: the load, where it has one and it has begun.
        client_pids: processes of clients beside the load, as the prober.
        on_client: called with all of clients' pids when there are others.
    """

    def __init__(self, cluster: LocalCluster | DockerCluster, setup: Setup, folder: Path) -> None:
        self.cluster, self.setup, self.folder = cluster, setup, folder
        self.bench: Bench | None = None
        self.client_pids: list[int] = []
        self.on_client: Callable[[list[int]], None] | None = None

    @property
    def local(self) -> LocalCluster:
        """The cluster of processes. Raises TypeError where it is one of containers."""
        if not isinstance(self.cluster, LocalCluster):
            raise TypeError("it is a cluster of containers")
        return self.cluster

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members."""
        return tuple(member.name for member in self.cluster.members)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The members' client URLs."""
        return self.cluster.endpoints

    @property
    def security(self) -> Security:
        """How to reach the members."""
        return self.cluster.security

    def leader(self) -> str:
        """Return the name of the leader. Raises RuntimeError where there is none."""
        from cluster.observe import probe

        for member in self.cluster.members:
            with contextlib.suppress(Exception):
                status = probe.member_standing(member, 2.0, self.security)
                if status.is_leader:
                    return member.name
        raise RuntimeError("no member leads")

    def followers(self) -> tuple[str, ...]:
        """Return the names of the others."""
        leader = self.leader()
        return tuple(name for name in self.names if name != leader)

    def member(self, name: str) -> Member:
        """Return a member by its name."""
        return next(member for member in self.cluster.members if member.name == name)

    def pid(self, name: str) -> int:
        """Return the process of a member."""
        supervisor = self.local._supervisor
        assert supervisor is not None
        return supervisor.pids[name]

    @property
    def member_cpu(self) -> int:
        """The processor of the members, where they have one of their own."""
        return machine.two_processors()[0]

    @property
    def client_cpu(self) -> int:
        """The processor of the clients, likewise."""
        return machine.two_processors()[1]

    @property
    def env(self) -> dict[str, str]:
        """What leads commands to the members: their variables for TLS and the user, and a folder for their state."""
        security = self.security
        found = {
            "ETCDCTL_CACERT": security.cacert, "ETCDCTL_CERT": security.cert, "ETCDCTL_KEY": security.key,
            "ETCDCTL_USER": security.user, "ETCDCTL_PASSWORD": security.password,
        }  # fmt: skip
        return {"XDG_STATE_HOME": str(self.folder), **{name: str(value) for name, value in found.items() if value}}

    def start_client(
        self, *words: str, ends_by: signal.Signals = signal.SIGKILL, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a Python module as a client: where clients' processors are, and so that a cause can be done to it."""
        cpus = frozenset([self.client_cpu]) if self.setup.apart else frozenset[int]()
        process = machine.start(
            [sys.executable, "-m", *words], cpus=cpus, ends_by=ends_by, env=self.env, **options
        )  # fmt: skip
        self.client_pids.append(process.pid)
        self.tell_clients()
        return process

    def tell_clients(self) -> None:
        """Tell a cause which processes are clients."""
        if self.on_client is not None:
            there = [pid for pid in self.client_pids if Path(f"/proc/{pid}").exists()]
            self.on_client(sorted({each for pid in there for each in (pid, *descendants(pid))}))

    @contextlib.contextmanager
    def beside(self, script: str, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run a script of `load_scripts` at the members for the length of a block, at the weight of members.

        Raises RuntimeError after the block where it failed.
        """
        process = machine.start(
            [sys.executable, "-m", "tests.diagnose.load_scripts", script, ",".join(self.endpoints), *words],
            nice=MEMBER_NICE, env=self.env, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield process
            if process.poll():
                raise RuntimeError(f"{script} ended with exit code {process.returncode}")
        finally:
            machine.end(process)

    def do(self, script: str, *words: str, within_s: float = 120.0) -> None:
        """Run such a script to its end. Raises RuntimeError, TimeoutExpired."""
        with self.beside(script, *words) as process:
            process.wait(within_s)


@contextlib.contextmanager
def scene(setup: Setup, etcd: EtcdBinary) -> Iterator[Scene]:
    """Make a cluster with its load, and end both whatever comes of the block.

    Raises ClusterError, RuntimeError and OSError where something of it cannot be had on this machine.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="raftload-diagnose-")))
        cluster = stack.enter_context(_docker(etcd)) if setup.docker else stack.enter_context(_local(setup, etcd))
        made = Scene(cluster, setup, folder)
        if setup.apart:
            for name in made.names:
                machine.pin(made.pid(name), frozenset([made.member_cpu]))
        if setup.prepare is not None:
            setup.prepare(made)
        if setup.load is not None:
            made.bench = stack.enter_context(_bench(made, setup.load))
        yield made


@contextlib.contextmanager
def _local(setup: Setup, etcd: EtcdBinary) -> Iterator[LocalCluster]:
    with contextlib.ExitStack() as stack:
        base_port = None
        if setup.far is not None:
            base_port = take_ports(setup.nodes)
            count, delay_s = setup.far
            ports = [base_port + number for number in range(count)]
            stack.enter_context(_late(delay_s, setup.far_jitter_s, ports))
        if setup.shaped:
            stack.enter_context(links.shaped())
        strikes = (*(FOR_DISKS if setup.strikes else ()), *(("write",) if setup.writes else ()))
        yield stack.enter_context(LocalCluster(
            setup.nodes, binary=etcd, storage="memory" if setup.memory else "disk", nice=MEMBER_NICE,
            peer_links="relay", strikes=strikes, with_tls=setup.tls, with_auth=setup.tls,
            quota_backend_bytes=setup.quota_mib * _MIB or None, base_port=base_port, start_timeout_s=60.0,
        ))  # fmt: skip


@contextlib.contextmanager
def _late(delay_s: float, jitter_s: float, ports: list[int]) -> Iterator[None]:
    """Have packets of loopback to and from these ports be late. This process has a network namespace of its own."""
    words = [sys.executable, "-m", "tests.diagnose.far", *map(str, (delay_s, jitter_s, *ports))]
    process = machine.start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            _, said = process.communicate(timeout=_ENDS_S)
            raise OSError(f"packets cannot be made late: {said.strip()[-200:]}")
        yield
        if process.poll() is not None:
            raise OSError("packets are late no more: the process that passed them on has ended")
    finally:
        machine.end(process)


@contextlib.contextmanager
def _docker(etcd: EtcdBinary) -> Iterator[DockerCluster]:
    from cluster.docker import cluster as docker_cluster
    from cluster.docker.create import create
    from cluster.docker.engine import connect
    from cluster.docker.images import find_image

    def say(_: str) -> None:
        return

    with contextlib.closing(connect()) as client:
        image = find_image(client, image=None, version=None, binary=str(etcd.path), say=say)
        made = create(client, image, nodes=3, base_port=take_ports(3), data="container", wait_s=60.0, say=say)
        try:
            yield made
        finally:
            docker_cluster.remove(client, made.spec.token)


@contextlib.contextmanager
def _bench(made: Scene, load: tuple[str, ...]) -> Iterator[Bench]:
    """Load the cluster by `raftload bench` until it is told to end; yield once it has counted operations."""
    folder = made.folder / "run"
    process = made.start_client(
        "loadgen.cli", "bench", "--endpoints", ",".join(made.endpoints), "--workers", "1", "--duration", "30m",
        "--output", str(folder), *load, ends_by=signal.SIGTERM, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        until_load(process, folder)
        made.tell_clients()
        yield Bench(process, folder)
    finally:
        machine.end(process, signal.SIGTERM, _ENDS_S)


def in_a_namespace(words: list[str]) -> list[str]:
    """Return a command that runs another one in a network namespace with a loopback of its own."""
    return [shutil.which("unshare") or "unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *words]


def why_not(setup: Setup) -> str:
    """Return why a setup cannot be made on this machine; empty where it can, as far as is known before."""
    from cluster.local import seccomp
    from tests.support.missing import no_docker

    reasons = []
    if setup.strikes:
        reasons.append(seccomp.why_not())
    if setup.docker:
        reasons.append(no_docker())
    if setup.far is not None:
        reasons.append(far.why_not())
    if setup.apart and len(os.sched_getaffinity(0)) < 2:
        reasons.append("it needs two processors")
    return next(filter(None, reasons), "")
