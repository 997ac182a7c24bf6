"""The cluster that `raftload cluster up` left running: a file for each backend, trusted only if members answer."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from cluster.base.access import Access
from cluster.base.endpoint import Endpoint, split_endpoints
from cluster.base.errors import ClusterError, NoAnswer
from cluster.base.files import write_json
from cluster.base.security import Security
from cluster.base.state import state_dir
from cluster.base.topology import Member
from cluster.observe.at_once import at_once
from cluster.observe.probe import MemberStatus, member_status

SCHEMA = "raftload.state/1"
BACKENDS = ("docker", "local")
LOCK = "change.lock"
_LOCK_POLL_S = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """A cluster that outlives the command that started it.

    Attributes:
        backend: ``docker`` or ``local``.
        members: in order, as clients on this machine reach them.
        member_ids: etcd's id of each, by name, so that another etcd on the same port is not taken for it.
        version: of etcd, as a member said.
        requested_version: as asked for, None where none was.
        image: reference of the image; empty for processes.
        source: where the image or the binary came from, for people.
        created_at: ISO 8601, UTC.
        control: the socket by which the process that owns the members is reached; empty for containers.
        links: how members reach each other: over Docker ``networks``, through our ``relay``, or ``direct``.
        etcd_args: further flags of etcd, as they were asked for.
        access: the certificates and users that were made for it.
        disk_faults: whether faults can be done to the members' disks.
    """

    backend: str
    members: tuple[Member, ...]
    member_ids: Mapping[str, int]
    version: str
    requested_version: str | None
    image: str
    source: str
    created_at: str
    control: str = ""
    links: str = "networks"
    etcd_args: tuple[str, ...] = ()
    access: Access = dataclasses.field(default_factory=Access)
    disk_faults: bool = False

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The members' client URLs."""
        return tuple(member.client_url for member in self.members)


@contextlib.contextmanager
def changing(say: Callable[[str], None], within_s: float = 120.0) -> Iterator[None]:
    """Let one process of this user at a time make or remove clusters, for the length of a block.

    Where another one does, says who and waits for its end. The lock is the kernel's, so it ends with its holder however
    that ends. Raises ClusterError after ``within_s`` seconds, or where the folder cannot be written.
    """
    try:
        state_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(state_dir() / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise _unwritable(exc) from exc
    try:
        deadline, told = time.monotonic() + within_s, False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                who = f"process {os.pread(lock, 20, 0).decode(errors='replace') or '?'}"
                if time.monotonic() >= deadline:
                    raise ClusterError(
                        f"{who} has been starting or removing a cluster for {within_s:g} s: wait for it, or end it"
                    ) from None
                if not told:
                    say(f"{who} is starting or removing a cluster: waiting for it")
                told = True
                time.sleep(_LOCK_POLL_S)
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d" % os.getpid(), 0)
        yield
    finally:
        os.close(lock)


def save(running: Running) -> None:
    """Remember a cluster. Raises ClusterError where the folder cannot be written."""
    folder = state_dir()
    values = {"schema": SCHEMA, **dataclasses.asdict(running)}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(_file(running.backend), values)
    except OSError as exc:
        raise _unwritable(exc) from exc


def _unwritable(exc: OSError) -> ClusterError:
    return ClusterError(f"cannot write to {state_dir()}: {exc.strerror or exc}; set XDG_STATE_HOME")


def forget(backend: str) -> None:
    """Forget the cluster of a backend; nothing where none is remembered."""
    with contextlib.suppress(OSError):
        _file(backend).unlink()


def load(backend: str) -> Running | None:
    """Return what is remembered of a backend, true or not; None for nothing, or nothing readable."""
    try:
        values = json.loads(_file(backend).read_text(encoding="utf-8"))
        if values.pop("schema") != SCHEMA:
            return None
        members = tuple(Member(**member) for member in values.pop("members"))
        args, access = tuple(values.pop("etcd_args", ())), Access(**values.pop("access", {}))
        return Running(members=members, etcd_args=args, access=access, **values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def find_running(timeout_s: float = 1.0, backends: Sequence[str] = BACKENDS) -> Running | None:
    """Return the cluster that `cluster up` started last and that is there: at least one of its members answers.

    Takes the seconds that members get to answer, and the backends that count. Returns None where there is none.
    """
    found = [running for backend in backends if (running := load(backend)) and _is_there(running, timeout_s)]
    return max(found, key=lambda running: running.created_at, default=None)


def ask(
    members: tuple[Member, ...], timeout_s: float = 1.0, security: Security | None = None, *,
    question: Callable[[Member, float, Security | None], MemberStatus] = member_status,
) -> dict[str, MemberStatus | NoAnswer]:  # fmt: skip
    """Every member's status by its name, or why there is none, all asked at once.

    ``question`` is ``member_standing`` for who wants no more than to know who leads.
    """

    def one(member: Member) -> MemberStatus | NoAnswer:
        try:
            return question(member, timeout_s, security)
        except NoAnswer as exc:
            return exc

    return dict(zip((member.name for member in members), at_once(one, members), strict=True))


def statuses(
    members: tuple[Member, ...], timeout_s: float = 1.0, security: Security | None = None
) -> Iterator[MemberStatus]:
    """Those of the members that answered."""
    for answer in ask(members, timeout_s, security).values():
        if isinstance(answer, MemberStatus):
            yield answer


def speaking_tls() -> bool:
    """Return whether a cluster that is remembered, true or not, speaks TLS."""
    return any(running.access.tls for backend in BACKENDS if (running := load(backend)))


def security_at(endpoints: str, args: argparse.Namespace) -> Security:
    """Return how to reach endpoints: as options and the environment say, and else as our cluster that has them all.

    Takes the endpoints with commas between them, and the options of ``cluster.base.security``. Raises SecurityError.
    """
    said = Security.from_arguments(args)
    for backend in BACKENDS:
        running = load(backend)
        if running is None or not running.access.folder:
            continue
        with contextlib.suppress(ClusterError, ValueError):  # what went with the cluster, and what is no endpoint
            filled = said.filled(running.access.security())
            named = {Endpoint.parse(filled.url(each)) for each in split_endpoints(endpoints)}
            ours = {Endpoint.parse(url) for url in running.endpoints}
            if named and named <= ours and filled != said and find_running(backends=[backend]):
                return filled
    return said


def _is_there(running: Running, timeout_s: float) -> bool:
    try:
        security = running.access.security()
    except ClusterError:  # what went with the cluster
        return False
    return any(
        running.member_ids.get(status.name) == status.member_id
        for status in statuses(running.members, timeout_s, security)
    )


def _file(backend: str) -> Path:
    return state_dir() / f"cluster-{backend}.json"
