"""What a member says of itself and of its cluster: its status, the list of members, whether it serves a read."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from cluster.base.errors import EtcdError, NoAnswer, RaftloadError
from cluster.base.security import Security
from cluster.base.topology import Member
from cluster.observe import metrics
from cluster.observe.calls import (
    DENIED,
    LOGIN,
    MEMBER_LIST,
    STATUS,
    USER_WANTED,
    bare,
    either,
    grpc,
    has_logged_in,
    http,
    is_about_user,
    json_call,
    refused,
)
from cluster.observe.messages import Message, encode

if TYPE_CHECKING:
    from cluster.schema.gateway_answers import Downgrade, ListedMember, Status

_RANGE = "/etcdserverpb.KV/Range"
_HEALTH_KEY = b"health"  # which etcdctl reads, too
_HEALTH_QUESTION = b'{"key":"aGVhbHRo"}'
SOMEBODY = -1
"""As the id of a leader: there is one, and it is not known who."""


@dataclasses.dataclass(frozen=True, slots=True)
class MemberStatus:
    """What one member says about itself at one moment.

    Attributes:
        name: its name, empty where only its endpoint is known.
        endpoint: ``host:port`` that was asked.
        member_id: etcd's id of the member.
        leader_id: the id of the member that it takes for the leader; 0 for none, ``SOMEBODY`` where it does not say.
        term: Raft term, of the last entry it applied (etcd's ``raftTerm``); 0 where it does not say.
        commit_index: Raft's commit index (etcd's ``raftIndex``).
        applied_index: the last entry applied to the store.
        revision: of its store.
        db_size: bytes of its backend file.
        version: etcd's version, ``3.5.1``.
        is_learner: whether it has no vote.
        errors: alarms and corruption that it reports.
        storage_version: of its data on disk, ``3.6``; empty before etcd 3.6.
        db_quota: bytes at which its backend file raises NOSPACE; 0 before etcd 3.6.
        downgrade_to: the version of a downgrade that is under way, empty for none.
    """

    name: str
    endpoint: str
    member_id: int
    leader_id: int
    term: int
    commit_index: int
    applied_index: int
    revision: int
    db_size: int
    version: str
    is_learner: bool = False
    errors: tuple[str, ...] = ()
    storage_version: str = ""
    db_quota: int = 0
    downgrade_to: str = ""

    @property
    def is_leader(self) -> bool:
        """Whether it takes itself for the leader."""
        return self.leader_id != 0 and self.leader_id == self.member_id

    @property
    def role(self) -> Literal["leader", "learner", "follower", "no leader"]:
        """What it takes itself for; ``no leader`` for a voter that knows of none."""
        if self.is_leader:
            return "leader"
        if self.is_learner:
            return "learner"
        return "follower" if self.leader_id else "no leader"

    @classmethod
    def from_gateway(cls, answer: Status, *, name: str, endpoint: str) -> MemberStatus:
        """Take the gateway's JSON of ``/v3/maintenance/status``: 64-bit numbers are strings, zeros are absent."""

        header = answer.get("header") or {}
        downgrade: Downgrade = answer.get("downgradeInfo") or {}
        return cls(
            name=name,
            endpoint=endpoint,
            member_id=int(header.get("member_id") or 0),
            leader_id=int(answer.get("leader") or 0),
            term=int(answer.get("raftTerm") or 0),
            commit_index=int(answer.get("raftIndex") or 0),
            applied_index=int(answer.get("raftAppliedIndex") or 0),
            revision=int(header.get("revision") or 0),
            db_size=int(answer.get("dbSize") or 0),
            version=str(answer.get("version") or ""),
            is_learner=bool(answer.get("isLearner")),
            errors=tuple(str(error) for error in answer.get("errors") or ()),
            storage_version=str(answer.get("storageVersion") or ""),
            db_quota=int(answer.get("dbSizeQuota") or 0),
            downgrade_to=str(downgrade.get("targetVersion") or "") if downgrade.get("enabled") else "",
        )

    @classmethod
    def from_grpc(cls, answer: bytes, *, name: str, endpoint: str) -> MemberStatus:
        """Take a ``StatusResponse``. Raises ValueError for what is none."""
        said = Message(answer)
        header, downgrade = said.message(1), said.message(13)
        return cls(
            name=name,
            endpoint=endpoint,
            member_id=header.number(2),
            leader_id=said.number(4),
            term=said.number(6),
            commit_index=said.number(5),
            applied_index=said.number(7),
            revision=header.number(3),
            db_size=said.number(3),
            version=said.text(2),
            is_learner=bool(said.number(10)),
            errors=said.texts(8),
            storage_version=said.text(11),
            db_quota=said.number(12),
            downgrade_to=downgrade.text(2) if downgrade.number(1) else "",
        )


@dataclasses.dataclass(frozen=True, slots=True)
class MemberInfo:
    """A member as the cluster lists it. ``name`` is empty while it was added but never started."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool

    @classmethod
    def from_gateway(cls, member: ListedMember) -> MemberInfo:
        """Take a member of the gateway's JSON of ``/v3/cluster/member/list``."""
        return cls(
            id=int(member.get("ID") or 0),
            name=str(member.get("name") or ""),
            peer_urls=tuple(map(str, member.get("peerURLs") or ())),
            client_urls=tuple(map(str, member.get("clientURLs") or ())),
            is_learner=bool(member.get("isLearner")),
        )

    @classmethod
    def from_grpc(cls, member: Message) -> MemberInfo:
        """Take a ``Member`` of a ``MemberListResponse``."""
        return cls(member.number(1), member.text(2), member.texts(3), member.texts(4), bool(member.number(5)))

    @property
    def was_started(self) -> bool:
        """Whether it ever was: one that was added has no name before."""
        return bool(self.name)


def member_status(member: Member, timeout_s: float = 1.0, security: Security | None = None) -> MemberStatus:
    """Ask one member for its own view, without a quorum. ``security`` is for one that speaks TLS or knows users.

    Takes as long as ``grpc`` at most. Raises NoAnswer; what etcd denies is one with the cause ``permission denied``,
    or ``user required``.
    """
    where = member.client_url

    def by_grpc(left_s: float) -> MemberStatus:
        until = time.monotonic() + left_s
        if security is not None and security.user is not None and not has_logged_in(where, security):
            # Without a leader nobody can log in, and most releases show their status to anybody.
            with contextlib.suppress(EtcdError):
                nobody = dataclasses.replace(security, user=None, password=None)
                status = read(grpc(where, STATUS, b"", left_s, nobody))
                if not status.leader_id:
                    return status
            left_s = max(until - time.monotonic(), 0.001)
        return read(grpc(where, STATUS, b"", left_s, security))

    def read(answer: bytes) -> MemberStatus:
        return MemberStatus.from_grpc(answer, name=member.name, endpoint=member.endpoint)

    def by_json(left_s: float) -> MemberStatus:
        answer = json_call(where, "/v3/maintenance/status", b"{}", left_s, security)
        try:
            return MemberStatus.from_gateway(json.loads(answer), name=member.name, endpoint=member.endpoint)
        except (ValueError, AttributeError, TypeError) as exc:
            raise NoAnswer(f"{member.endpoint}: not the status of an etcd member ({exc})", cause="not etcd") from exc

    try:
        return either(where, timeout_s, by_grpc, by_json)
    except EtcdError as exc:
        raise refused(member.endpoint, exc, security) from exc


def member_standing(member: Member, timeout_s: float = 1.0, security: Security | None = None) -> MemberStatus:
    """Ask one member for its own view, and where it shows its status to other users only, read it from its metrics.

    Those are shown to anybody, and say who leads, but neither whom it follows nor the term. Raises NoAnswer.
    """
    try:
        return member_status(member, timeout_s, security)
    except NoAnswer as exc:
        if exc.cause not in (DENIED, USER_WANTED, LOGIN):
            raise
        _, body = http(member.client_url, "GET", "/metrics", timeout_s=timeout_s, security=security)
        try:
            said = metrics.standing(body.decode("utf-8", "replace"))
        except ValueError:
            raise exc from None
    return MemberStatus(
        name=member.name, endpoint=member.endpoint, member_id=said.member_id,
        leader_id=said.member_id if said.leads else SOMEBODY if said.follows else 0,
        term=0, commit_index=0, applied_index=0, revision=said.revision, db_size=0, version=said.version,
        is_learner=said.learns,
    )  # fmt: skip


def member_list(where: str, timeout_s: float = 1.0, security: Security | None = None) -> list[MemberInfo]:
    """Return the members of the cluster as one member knows them, without a quorum.

    Takes what ``http`` takes. Raises EtcdError, as a learner's that it serves no such call, and NoAnswer. None for
    ``etcd grpc-proxy``, which lists itself in place of the members, without an id.
    """

    def by_grpc(left_s: float) -> list[MemberInfo]:
        # An absent `linearizable` is false, and 3.4 does not know it.
        answer = grpc(where, MEMBER_LIST, b"", left_s, security)
        return [MemberInfo.from_grpc(each) for each in Message(answer).messages(2)]

    def by_json(left_s: float) -> list[MemberInfo]:
        answer = json_call(where, "/v3/cluster/member/list", b"{}", left_s, security)
        try:
            return [MemberInfo.from_gateway(each) for each in json.loads(answer).get("members") or ()]
        except (ValueError, AttributeError, TypeError) as exc:
            raise NoAnswer(f"{bare(where)}: not a list of members ({exc})", cause="not etcd") from exc

    return [each for each in either(where, timeout_s, by_grpc, by_json) if each.id]


def serves_reads(where: str, timeout_s: float = 1.0, security: Security | None = None) -> bool:
    """Return whether a member serves a linearizable read: for that it asks a quorum. False where it does not answer.

    That the user may not read the key counts, too: etcd looks who asks only after it has heard from a quorum.
    ``/health`` would not do, as it is false while there is an alarm.
    """
    try:
        either(
            where, timeout_s,
            lambda left_s: grpc(where, _RANGE, encode({1: _HEALTH_KEY}), left_s, security),
            lambda left_s: json_call(where, "/v3/kv/range", _HEALTH_QUESTION, left_s, security),
        )  # fmt: skip
    except EtcdError as exc:
        return is_about_user(exc)
    except RaftloadError:
        return False
    return True


def agreed_leader(statuses: Sequence[MemberStatus]) -> MemberStatus | None:
    """Return the leader on which all these members agree in the same term, itself among them.

    None where they do not. One that only says that it knows a leader disagrees with none.
    """
    leaders = [status for status in statuses if status.is_leader]
    if len(leaders) != 1 or any(status.leader_id not in (leaders[0].member_id, SOMEBODY) for status in statuses):
        return None
    return leaders[0]


def why_unhealthy(members: Sequence[Member], timeout_s: float = 1.0, security: Security | None = None) -> str:
    """Ask every member, and return why the cluster is not healthy.

    Empty if all agree on a leader and serve linearizable reads, else the first reason why not. Alarms are no reason:
    they stop writes that would need space, and nothing else.
    """
    statuses = []
    for member in members:
        try:
            statuses.append(member_standing(member, timeout_s, security))
        except NoAnswer as exc:
            return f"{member.name} does not answer ({exc})"
    if agreed_leader(statuses) is None:
        return "the members do not agree on a leader"
    for member in members:
        if not serves_reads(member.client_url, timeout_s, security):
            return f"{member.name} serves no linearizable read"
    return ""


def version_key(version: str) -> tuple[int, ...]:
    """Take ``3.5.10`` or ``3.6.0-rc.1``, return what versions are in order by."""
    return tuple(int(part) for part in version.partition("-")[0].split(".") if part.isdigit())
