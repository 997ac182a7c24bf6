"""The health of a cluster: whether it has a quorum, its alarms, and the members that were never started.

``cluster status``, ``cluster test`` and ``viz`` take it from here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Sequence

from cluster.base.errors import NoAnswer, RaftloadError
from cluster.base.security import Security
from cluster.observe.at_once import at_once
from cluster.observe.calls import DENIED, USER_WANTED
from cluster.observe.probe import MemberInfo, MemberStatus, member_list, serves_reads

# A read waits for other members, and on a busy machine longer than a status: it is late before it is missed.
READ_S = 2.0
_ALARM = re.compile(r"memberID:(\d+) alarm:(\w+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that a member raised: ``NOSPACE`` or ``CORRUPT``."""

    member_id: int
    kind: str


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """The cluster behind some endpoints at one moment.

    Attributes:
        quorum: whether a member serves a linearizable read; None where nobody could be asked who would know, as a
            learner does not.
        alarms: of all members, as any member that shows its status tells them.
        listed: the members as the cluster lists them; empty where nobody gives the list.
    """

    quorum: bool | None
    alarms: tuple[Alarm, ...] = ()
    listed: tuple[MemberInfo, ...] = ()

    @property
    def never_started(self) -> tuple[MemberInfo, ...]:
        """The members that were added and never started; those that vote count for the quorum all the same."""
        return tuple(member for member in self.listed if not member.was_started)

    @property
    def may_have_quorum(self) -> bool:
        """Whether enough voting members were ever started for there to be a quorum; true where nobody lists them."""
        voters = [member.was_started for member in self.listed if not member.is_learner]
        return not voters or sum(voters) > len(voters) // 2


def alarms_of(statuses: Iterable[MemberStatus]) -> tuple[Alarm, ...]:
    """Return the alarms that members report, each once: every member tells those of all."""
    found = (_ALARM.search(error) for status in statuses for error in status.errors)
    return tuple(dict.fromkeys(Alarm(int(each[1]), each[2]) for each in found if each))


def health_of(
    answers: Sequence[tuple[str, MemberStatus | NoAnswer]],
    timeout_s: float = 1.0,
    security: Security | None = None,
    listed: Sequence[MemberInfo] | None = None,
) -> Health:
    """Take the endpoints that were asked with what each said, return the health of the cluster behind them.

    A read is asked of those first that stand first. ``timeout_s`` is how long each may take to answer; a read gets
    ``READ_S`` at least. ``listed`` is the list of members where it is known already. Where only learners answered, the
    voting members are asked where the list says that they listen.
    """
    statuses = [said for _, said in answers if isinstance(said, MemberStatus)]
    there = [url for url, said in answers if isinstance(said, MemberStatus) or is_denied(said)]
    listed = list_of(there, timeout_s, security) if listed is None else listed
    voters = [(url, said) for url, said in answers if url in there and not _learns(said)]
    # One that knows no leader serves no read, and would only let us wait.
    asked = [url for url, said in voters if not isinstance(said, MemberStatus) or said.leader_id]
    if there and not voters:
        asked = [url for each in listed if not each.is_learner for url in each.client_urls]
    quorum = _one_serves(asked, max(timeout_s, READ_S), security) if asked or voters or not there else None
    return Health(quorum, alarms_of(statuses), tuple(listed))


def _learns(said: MemberStatus | NoAnswer) -> bool:
    return isinstance(said, MemberStatus) and said.is_learner


def is_denied(said: NoAnswer) -> bool:
    """Return whether a member answered, but shows its status to other users only."""
    return said.cause in (DENIED, USER_WANTED)


def _one_serves(urls: Sequence[str], timeout_s: float, security: Security | None) -> bool:
    """Whether one of these serves a linearizable read: the first, else any of the others, which are asked at once."""
    if urls and serves_reads(urls[0], timeout_s, security):
        return True
    return any(at_once(lambda url: serves_reads(url, timeout_s, security), urls[1:]))


def list_of(urls: Sequence[str], timeout_s: float = 1.0, security: Security | None = None) -> list[MemberInfo]:
    """Return the members of the cluster from the first of these endpoints that lists them; none where none does."""
    for url in urls:
        with contextlib.suppress(RaftloadError):
            if listed := member_list(url, timeout_s, security):
                return listed
    return []
