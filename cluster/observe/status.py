"""The state of a cluster, for people and programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cluster.base.console import columns
from cluster.base.errors import NoAnswer
from cluster.base.security import Security
from cluster.base.topology import Member
from cluster.observe.probe import MemberStatus, is_healthy
from cluster.observe.running import ask

if TYPE_CHECKING:
    from cluster.schema.documents import MemberState, ReportedState

SCHEMA = "raftload.cluster/1"


@dataclasses.dataclass(frozen=True, slots=True)
class MemberView:
    """A member at one moment.

    Attributes:
        member: who it is.
        state: ``running``, ``paused``, ``down``; ``unknown`` where only its endpoint is known.
        isolated: whether it is cut off from its peers.
        status: what it says itself; None where it does not answer.
        reason: why it does not.
    """

    member: Member
    state: str
    isolated: bool
    status: MemberStatus | None
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterView:
    """A cluster at one moment; ``quorum`` is whether it serves a linearizable read."""

    members: tuple[MemberView, ...]
    quorum: bool

    @property
    def answering(self) -> int:
        """How many members answer."""
        return sum(view.status is not None for view in self.members)

    @property
    def leader(self) -> MemberStatus | None:
        """Who takes itself for the leader in the newest term."""
        leaders = [view.status for view in self.members if view.status and view.status.is_leader]
        return max(leaders, key=lambda status: status.term, default=None)

    @property
    def exit_code(self) -> int:
        """0 with a quorum, 1 without, 4 where no member answers."""
        if not self.answering:
            return 4
        return 0 if self.quorum else 1

    def to_json(self) -> ReportedState:
        """Return it as plain values; 64-bit ids as strings."""
        leader = self.leader
        return {
            "quorum": self.quorum,
            "leader": leader.name if leader and self.quorum else None,
            "term": max((view.status.term for view in self.members if view.status), default=None),
            "members": [_member_json(view) for view in self.members],
            "endpoints": [view.member.endpoint for view in self.members],
        }

    def table(self) -> str:
        """Return it as lines of text."""
        rows = [("MEMBER", "ENDPOINT", "STATE", "ROLE", "TERM", "APPLIED", "REVISION", "VERSION")]
        for view in self.members:
            state = view.state + (", cut off" if view.isolated else "")
            status = view.status
            if status is None:
                rows.append((view.member.name, view.member.endpoint, state, "no answer", "", "", "", ""))
                continue
            rows.append(
                (view.member.name, view.member.endpoint, state, status.role, str(status.term),
                 str(status.applied_index), str(status.revision), status.version)
            )  # fmt: skip
        return "\n".join(columns(rows))


def look(
    members: tuple[Member, ...],
    states: Mapping[str, str] | None = None,
    isolated: frozenset[str] = frozenset(),
    timeout_s: float = 1.0,
    security: Security | None = None,
) -> ClusterView:
    """Ask all members at once.

    Takes them, what their processes do where that is known, who is cut off, the seconds that each may take to answer,
    and how to speak TLS to those that do. There is a quorum when a member that knows a leader serves a linearizable
    read.
    """
    states = states or {}
    running = tuple(member for member in members if states.get(member.name, "running") == "running")
    answers = ask(running, timeout_s, security)
    views = []
    for member in members:
        answer = answers.get(member.name)
        views.append(
            MemberView(
                member=member,
                state=states.get(member.name, "running" if isinstance(answer, MemberStatus) else "unknown"),
                isolated=member.name in isolated,
                status=answer if isinstance(answer, MemberStatus) else None,
                reason=str(answer) if isinstance(answer, NoAnswer) else "",
            )
        )
    candidates = sorted(
        (view for view in views if view.status and view.status.leader_id), key=lambda view: view.isolated
    )
    quorum = any(is_healthy(view.member, timeout_s, security) for view in candidates)
    return ClusterView(tuple(views), quorum)


def _member_json(view: MemberView) -> MemberState:
    status = view.status
    return {
        "name": view.member.name,
        "endpoint": view.member.endpoint,
        "state": view.state,
        "isolated": view.isolated,
        "answers": status is not None,
        "role": status.role if status else None,
        "member_id": str(status.member_id) if status else None,
        "term": status.term if status else None,
        "applied_index": status.applied_index if status else None,
        "revision": status.revision if status else None,
        "db_size": status.db_size if status else None,
        "version": status.version if status else None,
        "reason": view.reason or None,
    }
