"""Processes beside the cluster under test: a further member of it, or a cluster made from its snapshot."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cluster.base.binary import EtcdBinary, find_etcd
from cluster.base.errors import ClusterError
from cluster.base.ports import free_ports
from cluster.base.topology import ClusterSpec, Member, member_env
from cluster.conformance.model import Broken, Env, NotApplicable
from cluster.gateway.client import Client
from cluster.local.cluster import LocalCluster
from cluster.local.supervisor import Supervisor
from cluster.observe.logs import why_it_ended
from cluster.observe.probe import version_key

_RESTORE_S = 60.0
_NO_RESTORE_IN_ETCDCTL = (3, 6)  # from this version on only etcdutl restores snapshots


class Beside:
    """A folder for data and what runs in it; everything ends with ``folder``'s block."""

    def __init__(self, env: Env, binary: EtcdBinary, supervisor: Supervisor) -> None:
        self._env, self._binary, self._supervisor = env, binary, supervisor
        assert supervisor.folder is not None
        self.root: Path = supervisor.folder

    @staticmethod
    def of(env: Env) -> Place:
        """Where to start processes for a test.

        Raises NotApplicable where there is no etcd binary, or none that takes the members' data: etcd reads that of its
        own minor release and of the one before.
        """
        try:
            handle = env.handle
            binary = handle.binary if isinstance(handle, LocalCluster) else find_etcd()
        except ClusterError as exc:
            raise NotApplicable(f"needs an etcd binary on this machine: {exc}") from exc
        theirs = env.client().status().version
        (major, minor), (their_major, their_minor) = version_key(binary.version)[:2], version_key(theirs)[:2]
        if major != their_major or minor - their_minor not in (0, 1):
            raise NotApplicable(
                f"needs etcd {their_major}.{their_minor} on this machine, as the members are {theirs}; "
                f"{binary.path} is {binary.version}"
            )
        return Place(env, binary)

    def ports(self) -> tuple[int, int]:
        """Return a free client port and a free peer port."""
        port, peer_port = free_ports(2)
        return port, peer_port

    def client(self, name: str, port: int) -> Client:
        """Return a client of what was started, once it serves linearizable reads or knows that it must not.

        Takes its name and its client port. Raises Broken with the reason that its log gives where it ends, or does not
        answer in time.
        """

        clients: list[Client] = []

        def is_over() -> bool:
            with contextlib.suppress(ClusterError):
                clients.append(self._env.fresh_at(f"127.0.0.1:{port}"))
            return bool(clients) or self._supervisor.poll()[name] is not None

        within_s = self._env.bounds.heal_s
        self._env.until(is_over, within_s)
        if clients:
            return clients[0]
        code = self._supervisor.poll()[name]
        how = f"does not answer {within_s:g} s after its start" if code is None else f"ended with exit code {code}"
        why = why_it_ended(self.root / f"{name}.log")
        raise Broken(f"{name} {how}" + (f": {why}" if why else ""))

    def join(self, name: str, port: int, peer_port: int) -> None:
        """Start a further member of the cluster under test, which was added to it before."""
        member = self._member(name, port, peer_port)
        others = tuple(
            Member(info.name, info.client_urls[0], info.peer_urls[0], f"/{info.name}")
            for info in self._env.client().members()
            if info.name and info.client_urls
        )
        argv = ClusterSpec((*others, member)).argv(name, self._binary.path)
        self._spawn([*argv, "--initial-cluster-state=existing"], member)

    def restore(self, snapshot: Path, name: str, port: int, peer_port: int) -> None:
        """Start a cluster of one from a snapshot. Raises ClusterError where it cannot be restored."""
        member = self._member(name, port, peer_port)
        spec = ClusterSpec((member,), token="raftload-restored")
        done = subprocess.run(
            [
                *_restorer(self._binary), "snapshot", "restore", str(snapshot), f"--data-dir={member.data_dir}",
                f"--name={name}", f"--initial-cluster={spec.initial_cluster}",
                f"--initial-advertise-peer-urls={member.peer_url}", f"--initial-cluster-token={spec.token}",
            ],
            capture_output=True, text=True, timeout=_RESTORE_S, check=False,
            env=self._environment() | {"ETCDCTL_API": "3"},
        )  # fmt: skip
        if done.returncode:
            raise ClusterError(f"the snapshot cannot be restored: {done.stderr.strip()[-300:]}")
        self._spawn(spec.argv(name, self._binary.path), member)

    def _member(self, name: str, port: int, peer_port: int) -> Member:
        return Member(name, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}", str(self.root / name))

    def _spawn(self, argv: list[str], member: Member) -> None:
        Path(member.data_dir).mkdir(mode=0o700, exist_ok=True)
        log = self.root / f"{member.name}.log"
        self._supervisor.spawn(member.name, argv, log=log, env=self._environment(), cwd=self.root)

    def _environment(self) -> dict[str, str]:
        return member_env(os.environ, platform.machine())


class Place:
    """Where processes of a test can be started."""

    def __init__(self, env: Env, binary: EtcdBinary) -> None:
        self._env, self._binary = env, binary

    def expect_joinable(self) -> None:
        """Raise NotApplicable where a process of this machine would not reach the members, or they not it."""
        urls = [url for info in self._env.client().members() for url in info.peer_urls]
        if not all(url.startswith("http://127.0.0.1:") for url in urls):
            raise NotApplicable("a further member can be started only where the others are processes on 127.0.0.1")

    @contextlib.contextmanager
    def folder(self) -> Iterator[Beside]:
        """Yield a temporary folder for a block; what was started in it ends with the block."""
        supervisor = Supervisor(temporary=True)
        try:
            yield Beside(self._env, self._binary, supervisor)
        finally:
            supervisor.close(0.0)


def _restorer(etcd: EtcdBinary) -> list[str]:
    """Return what restores snapshots: etcdutl (from 3.5 on) or etcdctl (before 3.6) beside the binary, else on PATH."""
    names = ["etcdutl", "etcdctl"] if version_key(etcd.version) < _NO_RESTORE_IN_ETCDCTL else ["etcdutl"]
    for name in names:
        tool = Path(etcd.path).with_name(name)
        if tool.is_file():
            if not os.access(tool, os.X_OK):
                tool.chmod(0o755)  # some installers drop the bit from a wheel's files
            return [str(tool)]
    for name in names:
        if found := shutil.which(name):
            return [found]
    raise NotApplicable(f"needs {' or '.join(names)} beside {etcd.path} or on PATH, to restore a snapshot")
