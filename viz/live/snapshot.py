"""A snapshot of a live cluster and its members: endpoints in, ClusterSnapshot out.

Over gRPC or HTTP by ``cluster.observe.probe``, with TLS where an endpoint says so. All are asked at once, so that
silent members cost one timeout together.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

from cluster.base.endpoint import Endpoint, read_endpoints
from cluster.base.errors import ClusterError, NoAnswer, RaftloadError
from cluster.base.security import Security
from cluster.base.topology import Member
from cluster.observe import probe
from cluster.observe.at_once import at_once
from cluster.observe.calls import DENIED
from cluster.observe.health import Health, health_of, is_denied, list_of
from cluster.observe.probe import MemberInfo, MemberStatus
from viz.diagrams.model import ClusterSnapshot, MemberView, Role, clean, clean_name

DEFAULT_ENDPOINT = "127.0.0.1:2379"
TIMEOUT_S = 1.0


class NoCluster(ClusterError):  # noqa: N818
    """Not one endpoint answers as etcd does."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What became of asking one endpoint: its status and how long that took, or why there is none.

    Attributes:
        denied: whether it answers, but shows its status to other users only.
    """

    endpoint: str
    status: MemberStatus | None
    round_trip_ms: float
    reason: str = ""
    denied: bool = False


def parse_endpoints(text: str, security: Security | None = None) -> tuple[str, ...]:
    """Take ``a:2379,http://b:2379`` and how to reach them, return them one by one.

    ``https://`` stays, ``http://`` goes. Raises ValueError in one line for what is no endpoint.
    """
    named = map(Endpoint.parse, read_endpoints(text, security or Security()))
    return tuple(dict.fromkeys(each.bare for each in named))


def ask(
    endpoints: Sequence[str], timeout_s: float = TIMEOUT_S, security: Security | None = None
) -> tuple[ClusterSnapshot, list[Answer]]:
    """Ask every endpoint, and every member of the cluster that no endpoint stands for at its own URL.

    Returns the picture, and the answers that it is of. Raises NoCluster where nobody answers.
    """
    return Poller(endpoints, timeout_s, security).poll()


class Poller:
    """Asks the same cluster again and again, and remembers who its members are while they are silent.

    Attributes:
        timeout_s: the seconds that each may take to answer; may be changed between polls.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        timeout_s: float = TIMEOUT_S,
        security: Security | None = None,
        *,
        quorum: bool = True,
    ) -> None:
        """Take endpoints as ``parse_endpoints`` returns them, the seconds that each may take to answer, how to speak
        TLS and who logs in, and whether to find out if there is a quorum: during an election that takes time.
        """
        self._security = security
        self._quorum = quorum
        self._endpoints = tuple(endpoints)
        self.timeout_s = timeout_s
        self._listed: list[MemberInfo] = []
        self._ids: dict[str, int] = {}  # of the member that last answered at an endpoint

    def poll(self) -> tuple[ClusterSnapshot, list[Answer]]:
        """As ``ask``; where nobody answers any more the members that are known are drawn as silent.

        Raises NoCluster where nobody ever answered.
        """
        answers = at_once(lambda endpoint: _status(endpoint, self.timeout_s, self._security), self._endpoints)
        living = [answer.endpoint for answer in answers if answer.status is not None or answer.denied]
        if living:
            self._listed = list_of(living, self.timeout_s, self._security) or self._listed
        elif not self._ids:
            reasons = "; ".join(answer.reason for answer in answers)
            raise NoCluster(f"no cluster found: {reasons} (name its members with --endpoints)")
        answers += self._ask_others(answers)
        self._ids.update({answer.endpoint: answer.status.member_id for answer in answers if answer.status})
        return picture(answers, self._listed, self._ids, self._health(answers)), answers

    def _health(self, answers: Sequence[Answer]) -> Health | None:
        if not self._quorum:
            return None
        said = [(answer.endpoint, answer.status or _why(answer)) for answer in answers]
        return health_of(said, self.timeout_s, self._security, self._listed)

    def _ask_others(self, answers: Sequence[Answer]) -> list[Answer]:
        """Return the members that no endpoint stands for, each where it says that it listens.

        A silent endpoint stands for the member that answered there, or that says that it listens there.
        """
        asked = {answer.endpoint for answer in answers}
        known = {answer.status.member_id if answer.status else self._ids.get(answer.endpoint, 0) for answer in answers}
        known |= {member.id for member in self._listed if asked & {_bare(url) for url in member.client_urls}}
        others = [member for member in self._listed if member.id not in known]
        more = at_once(lambda member: _first(member, self.timeout_s, self._security), others)
        self._ids.update({answer.endpoint: member.id for answer, member in zip(more, others, strict=True)})
        return more


def picture(
    answers: Sequence[Answer], listed: Sequence[MemberInfo], ids: Mapping[str, int], health: Health | None = None
) -> ClusterSnapshot:
    """Pure: the answers, the cluster's list (empty where it could not be read), the ids of members behind endpoints
    that may be silent, and the health where it was asked for; returns the snapshot. A member that answered at two
    endpoints is in it once.
    """
    by_id = {member.id: member for member in listed}
    by_url = {_bare(url): member for member in listed for url in member.client_urls}
    statuses = [answer.status for answer in answers if answer.status is not None]
    leaders = [status for status in statuses if status.is_leader]
    leader = max(leaders, key=lambda status: status.term, default=None)
    views, seen = [], set[int]()
    for answer in answers:
        number = answer.status.member_id if answer.status else ids.get(answer.endpoint, 0)
        member = by_id.get(number) or (None if answer.status else by_url.get(answer.endpoint))
        number = number or (member.id if member else 0)
        if number and number in seen:
            continue
        seen.add(number)
        views.append(_view(answer, clean_name(member.name if member and member.name else answer.endpoint), leader))
    live = len({status.member_id for status in statuses if not status.is_learner})
    voters = len([member for member in listed if not member.is_learner]) or sum(not _learns(view) for view in views)
    # An endpoint that shows nothing may be another way to a member that answers.
    live = min(live + sum(view.role == "not shown" for view in views), voters)
    return ClusterSnapshot(_title(views, leader, f"{live} of {voters} answer", health), tuple(views))


def _learns(view: MemberView) -> bool:
    return view.role == "learner"


def _title(views: Sequence[MemberView], leader: MemberStatus | None, count: str, health: Health | None) -> str:
    leading = [view for view in views if view.role == "leader" and leader is not None and view.term == leader.term]
    if health is not None and health.quorum is None:
        return "etcd cluster: leader and quorum not known, as only learners answer"
    none = "leader not shown" if any(view.role == "not shown" for view in views) else "leader NONE"
    who = f"leader {leading[0].name} in term {leading[0].term}" if leading else none
    if health is None:
        return f"etcd cluster: {who} ({count})"
    quorum = "quorum" if health.quorum else "NO QUORUM"
    alarms = sorted({f", alarm {clean(alarm.kind)}" for alarm in health.alarms})
    return f"etcd cluster: {who}, {quorum} ({count}){''.join(alarms)}"


def _view(answer: Answer, name: str, leader: MemberStatus | None) -> MemberView:
    status = answer.status
    if status is None:
        role: Role = "not shown" if answer.denied else "no answer"
        return MemberView(name, answer.endpoint, role, alarms=(clean(answer.reason),))
    return MemberView(
        name=name,
        endpoint=answer.endpoint,
        role=status.role,
        term=status.term,
        commit_index=status.commit_index,
        applied_index=status.applied_index,
        lag=None if leader is None else max(0, leader.commit_index - status.applied_index),
        db_size=status.db_size,
        version=clean(status.version),
        round_trip_ms=round(answer.round_trip_ms, 3),
        alarms=tuple(clean(error) for error in status.errors),
    )


def _status(endpoint: str, timeout_s: float, security: Security | None) -> Answer:
    began = time.perf_counter()
    try:
        status = probe.member_status(Member("", str(Endpoint.parse(endpoint)), "", ""), timeout_s, security)
    except NoAnswer as exc:
        return Answer(endpoint, None, 0.0, clean(str(exc)), is_denied(exc))
    except (RaftloadError, ValueError) as exc:
        return Answer(endpoint, None, 0.0, clean(str(exc)))
    return Answer(endpoint, status, 1000 * (time.perf_counter() - began))


def _first(member: MemberInfo, timeout_s: float, security: Security | None) -> Answer:
    """Return a member that no endpoint stands for, asked where it says that it listens."""
    if not member.client_urls:
        return Answer(f"member {member.id:x}", None, 0.0, "was added but never started")
    return _status(_bare(member.client_urls[0]), timeout_s, security)


def _why(answer: Answer) -> NoAnswer:
    return NoAnswer(answer.reason, cause=DENIED if answer.denied else "no answer")


def _bare(url: str) -> str:
    return url.removeprefix("http://").rstrip("/")
