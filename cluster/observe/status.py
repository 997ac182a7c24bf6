"""The state of a cluster, for people and programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cluster.base.console import columns
from cluster.base.errors import NoAnswer
from cluster.base.security import Security
from cluster.base.topology import Disk, DiskState, Member
from cluster.base.units import megabytes
from cluster.observe.health import Alarm, Health, health_of, is_denied
from cluster.observe.probe import MemberInfo, MemberStatus
from cluster.observe.running import ask

if TYPE_CHECKING:
    from cluster.schema.documents import MemberState, ReportedState

SCHEMA = "raftload.cluster/1"
NEVER_STARTED = "never started"
_MEANING = {
    "NOSPACE": "its database has reached its quota, so all members refuse what would need space; compact, defragment "
    "and disarm it",
    "CORRUPT": "its data differs from the others', so all members refuse writes",
}


@dataclasses.dataclass(frozen=True, slots=True)
class MemberView:
    """A member at one moment.

    Attributes:
        member: who it is.
        state: ``running``, ``paused``, ``down``; ``never started`` for one that was added to the cluster; ``unknown``
            where only its endpoint is known.
        isolated: whether it is cut off from its peers.
        status: what it says itself; None where it does not answer, or not to this user.
        reason: why it does not.
        denied: whether it answers, but shows its status to other users only.
        disk: ``slow``, ``stuck``, ``failing`` or ``full`` where a fault was done to its disk.
    """

    member: Member
    state: str
    isolated: bool
    status: MemberStatus | None
    reason: str = ""
    denied: bool = False
    disk: DiskState | None = None

    @property
    def answers(self) -> bool:
        """Whether it answers at all."""
        return self.status is not None or self.denied


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterView:
    """A cluster at one moment.

    Attributes:
        members: those that were asked, and then those that were never started.
        quorum: whether it serves a linearizable read; None where only learners answer, which cannot tell.
        alarms: of all members.
        may_have_quorum: whether there can be a quorum without a member being started that never was.
        again: endpoints that lead to a member which another endpoint, their value here, leads to.
    """

    members: tuple[MemberView, ...]
    quorum: bool | None
    alarms: tuple[Alarm, ...] = ()
    may_have_quorum: bool = True
    again: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def answering(self) -> int:
        """How many members answer."""
        return sum(view.answers for view in self.members)

    @property
    def leader(self) -> MemberStatus | None:
        """Who takes itself for the leader in the newest term."""
        leaders = [view.status for view in self.members if view.status and view.status.is_leader]
        return max(leaders, key=lambda status: status.term, default=None)

    @property
    def exit_code(self) -> int:
        """0 with a quorum, 1 without, 3 where nobody who answers can tell, 4 where no member answers."""
        if not self.answering:
            return 4
        return {True: 0, False: 1, None: 3}[self.quorum]

    @property
    def warnings(self) -> list[str]:
        """What an operator should know of, a line each: alarms, members that were never started, a downgrade."""
        names = {view.status.member_id: view.member.name for view in self.members if view.status}
        lines = []
        for alarm in self.alarms:
            who = names.get(alarm.member_id) or f"member {alarm.member_id:x}"
            lines.append(f"alarm {alarm.kind} of {who}: {_MEANING.get(alarm.kind, 'see its log')}")
        lines += [f"{view.member.name}: {view.reason}" for view in self.members if view.state == NEVER_STARTED]
        targets = {view.status.downgrade_to for view in self.members if view.status and view.status.downgrade_to}
        return lines + [f"a downgrade to etcd {version} is under way" for version in sorted(targets)]

    def to_json(self) -> ReportedState:
        """Return it as plain values; 64-bit ids as strings."""
        leader = self.leader
        return {
            "quorum": self.quorum,
            "leader": leader.name if leader and self.quorum else None,
            "term": max((view.status.term for view in self.members if view.status), default=None),
            "members": [_member_json(view) for view in self.members],
            "endpoints": [view.member.endpoint for view in self.members if view.state != NEVER_STARTED],
            "alarms": [{"member_id": str(alarm.member_id), "alarm": alarm.kind} for alarm in self.alarms],
        }

    def table(self) -> str:
        """Return it as lines of text."""
        more = any(view.status and view.status.storage_version for view in self.members)
        head = ("MEMBER", "ENDPOINT", "STATE", "ROLE", "TERM", "APPLIED", "REVISION", "VERSION")
        rows = [(*head, *(("STORAGE", "DB", "QUOTA") if more else ()))]
        for view in self.members:
            state = view.state + (", cut off" if view.isolated else "") + (f", disk {view.disk}" if view.disk else "")
            status = view.status
            if status is None:
                said = "not shown" if view.denied else "" if view.state == NEVER_STARTED else "no answer"
                rows.append((view.member.name, view.member.endpoint, state, said, *[""] * (len(rows[0]) - 4)))
                continue
            cells = (status.storage_version, megabytes(status.db_size), megabytes(status.db_quota))
            rows.append(
                (view.member.name, view.member.endpoint, state, status.role, str(status.term),
                 str(status.applied_index), str(status.revision), status.version, *(cells if more else ()))
            )  # fmt: skip
        return "\n".join(columns(rows))


def look(
    members: tuple[Member, ...],
    states: Mapping[str, str] | None = None,
    isolated: frozenset[str] = frozenset(),
    timeout_s: float = 1.0,
    security: Security | None = None,
    disks: Mapping[str, Disk] | None = None,
) -> ClusterView:
    """Ask all members at once.

    Takes them, what their processes do where that is known, who is cut off, the seconds that each may take to answer,
    how to speak TLS to those that do, and the disks that a fault was done to. There is a quorum when a member serves a
    linearizable read. A member that several endpoints lead to is in the view once.
    """
    states, disks = states or {}, disks or {}
    running = tuple(member for member in members if states.get(member.name, "running") == "running")
    answers = ask(running, timeout_s, security)
    views = []
    first: dict[int, str] = {}
    again: dict[str, str] = {}
    for member in members:
        answer = answers.get(member.name)
        if isinstance(answer, MemberStatus):
            known = first.setdefault(answer.member_id, member.endpoint)
            if known != member.endpoint:
                again[member.endpoint] = known
                continue
        denied = isinstance(answer, NoAnswer) and is_denied(answer)
        views.append(
            MemberView(
                member=member,
                state=states.get(member.name, "running" if denied or isinstance(answer, MemberStatus) else "unknown"),
                isolated=member.name in isolated,
                status=answer if isinstance(answer, MemberStatus) else None,
                reason=str(answer) if isinstance(answer, NoAnswer) else "",
                denied=denied,
                disk=disks[member.name]["state"] if member.name in disks else None,
            )
        )
    order = sorted(running, key=lambda member: member.name in isolated or member.name in disks)
    health: Health = health_of([(member.client_url, answers[member.name]) for member in order], timeout_s, security)
    views += [_never_started(each) for each in health.never_started]
    return ClusterView(tuple(views), health.quorum, health.alarms, health.may_have_quorum, again)


def _never_started(info: MemberInfo) -> MemberView:
    """Return a member that was added to the cluster and that nobody has started; it has no name yet."""
    peer_url = next(iter(info.peer_urls), "")
    reason = f"{'learner' if info.is_learner else 'member'} of {peer_url} was added, but never started"
    return MemberView(Member(f"{info.id:x}", "", peer_url, ""), NEVER_STARTED, False, None, reason)


def _member_json(view: MemberView) -> MemberState:
    status = view.status
    return {
        "name": view.member.name,
        "endpoint": view.member.endpoint,
        "state": view.state,
        "isolated": view.isolated,
        "disk": view.disk,
        "answers": view.answers,
        "role": status.role if status else None,
        "member_id": str(status.member_id) if status else None,
        "term": status.term if status else None,
        "applied_index": status.applied_index if status else None,
        "revision": status.revision if status else None,
        "db_size": status.db_size if status else None,
        "version": status.version if status else None,
        "storage_version": (status.storage_version or None) if status else None,
        "db_quota": (status.db_quota or None) if status else None,
        "downgrade_to": (status.downgrade_to or None) if status else None,
        "reason": view.reason or None,
    }
