"""The nemesis: it injects a fault, waits until the effect is seen, and undoes it."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from cluster.base.errors import ClusterError, UsageError
from cluster.base.security import Security
from cluster.base.topology import Disk, Member
from cluster.faults.kinds import HEAL, KINDS, Action, Fault, Request, Subject, after, healing, plan, quorum
from cluster.observe import calls, probe
from cluster.observe.messages import encode
from cluster.observe.probe import MemberStatus
from cluster.observe.running import ask
from cluster.observe.timeline import Phase, Timeline, TimelineError

if TYPE_CHECKING:
    from cluster.schema.documents import FaultDone

_POLL_S = 0.02
# A member that nobody writes to syncs nothing.
_STRUCK_S = 3.0
# Longer than several elections, each of up to twice the election timeout, which is 1 s by default.
_ELECTION_S = 10.0


class Breakable(Protocol):
    """A cluster that faults can be done to: DockerCluster, DetachedCluster and LocalCluster are."""

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, running or not, in order."""

    @property
    def cannot(self) -> Mapping[str, str]:
        """Methods that do not work here, with why."""

    @property
    def security(self) -> Security:
        """How to reach the members."""

    def states(self) -> Mapping[str, str]:
        """Return ``running``, ``paused`` or ``down`` of each member, by name."""

    def isolated(self) -> frozenset[str]:
        """Return the members that are cut off from their peers."""

    def disturbed(self) -> frozenset[str]:
        """Return the members whose peer links are delayed or lossy."""

    def disks(self) -> Mapping[str, Disk]:
        """Return the disks that a fault was done to, by member."""


@dataclasses.dataclass(frozen=True, slots=True)
class Effect:
    """What was done and seen.

    Attributes:
        fault: its kind, or ``heal``.
        members: whom it was done to.
        before, leader: who led before and leads after; None for nobody.
        term: the newest that a member told of; None where none answers.
        quorum: whether enough members take part.
        began_ns: when the first action began, on the monotonic clock of ``events.csv``.
        took_s: from the first action until the effect was seen.
        text: the same for people.
    """

    fault: str
    members: tuple[str, ...]
    before: str | None
    leader: str | None
    term: int | None
    quorum: bool
    began_ns: int
    took_s: float
    text: str

    def to_json(self) -> FaultDone:
        """Return it as plain values."""
        return {
            "schema": "raftload.fault/1",
            "fault": self.fault,
            "members": list(self.members),
            "before": self.before,
            "leader": self.leader,
            "term": self.term,
            "quorum": self.quorum,
            "took_s": round(self.took_s, 3),
            "text": self.text,
        }


class Nemesis:
    """Takes a cluster, where events go (None: nowhere), where chance comes from, how long an effect may take, and a
    member to answer: both in seconds; a member under full load needs longer.
    """

    def __init__(
        self,
        cluster: Breakable,
        timeline: Timeline | None = None,
        *,
        rng: random.Random | None = None,
        wait_s: float = 30.0,
        ask_s: float = 0.5,
    ) -> None:
        self._cluster = cluster
        self._timeline = timeline
        self._rng = rng or random.Random()
        self._wait_s = wait_s
        self._ask_s = ask_s
        self._names = {member.name: member for member in cluster.members}
        self._security = cluster.security
        self._unwritten: list[TimelineError] = []

    def inject(self, fault: Fault) -> Effect:
        """Do a fault and return when its effect is seen.

        Raises UsageError where it does not apply, and ClusterError where it fails or shows no effect in time.
        """
        subjects = self._subjects()
        wants = fault.target == "leader" or KINDS[fault.kind].effect == "leads"
        before = self._leader_soon(subjects) if wants else self._leader(subjects)
        actions = plan(fault, subjects, before.name if before else None, self._rng)
        if reason := KINDS[fault.kind].why_not_here(self._cluster.cannot):
            raise UsageError(f"{fault.kind} does not work here: {reason}")
        return self._do(fault.kind, subjects, actions, before)

    def heal(self, only: str = "") -> Effect:
        """Undo all faults of the cluster, or of one member, whatever made them; do nothing if there are none.

        Raises ClusterError where that fails; TimelineError where all is undone and only the timeline was not written.
        """
        self._unwritten.clear()  # what an earlier heal could not write is its own to say
        subjects = self._subjects()
        actions = [each for each in healing(subjects, self._cluster.disturbed()) if only in ("", each.member)]
        effect = self._do(HEAL, subjects, actions, self._leader(subjects))
        if self._unwritten:
            error = self._unwritten[-1]
            raise TimelineError(f"healed, but {error}", refers_to=error.refers_to) from error
        return effect

    # How

    def _subjects(self) -> tuple[Subject, ...]:
        states, isolated, disks = self._cluster.states(), self._cluster.isolated(), self._cluster.disks()
        return tuple(
            Subject(name, states[name], name in isolated, disks[name]["state"] if name in disks else "")
            for name in self._names
        )

    def _leader_soon(self, subjects: Sequence[Subject]) -> MemberStatus | None:
        """Return who leads; while there can be a leader, wait out an election that goes on."""
        deadline = time.monotonic() + min(_ELECTION_S, self._wait_s)
        while (leader := self._leader(subjects)) is None:
            if time.monotonic() >= deadline or self._voters(subjects) < quorum(len(subjects)):
                break
            time.sleep(_POLL_S)
        return leader

    def _leader(self, subjects: Sequence[Subject]) -> MemberStatus | None:
        leaders = [status for status in self._statuses(subjects).values() if status.is_leader]
        return max(leaders, key=lambda status: status.term, default=None)

    def _statuses(self, subjects: Sequence[Subject]) -> dict[str, MemberStatus]:
        asked = tuple(self._names[subject.name] for subject in subjects if subject.answers)
        answers = ask(asked, self._ask_s, self._security, question=probe.member_standing)
        return {name: answer for name, answer in answers.items() if isinstance(answer, MemberStatus)}

    def _do(
        self, kind: str, subjects: tuple[Subject, ...], actions: Sequence[Action], before: MemberStatus | None
    ) -> Effect:
        names = tuple(dict.fromkeys(action.member for action in actions))
        self._note("begin", kind, names)
        began_ns = time.monotonic_ns()
        try:
            request = None if kind == HEAL else KINDS[kind].request
            for action in actions:
                if request is not None:
                    self._ask(request, action.member, subjects)
                else:
                    getattr(self._cluster, action.method)(action.member, *action.values)
            self._note("done", kind, names)
            done = after(subjects, actions)
            effect = "settled" if kind == HEAL else KINDS[kind].effect
            waits = effect == "struck" and not self._await_struck(names, done)
            if waits:  # it takes effect with the next write
                effect, done = "nothing", subjects
            leader, term = self._wait(effect, names, done)
        except BaseException as exc:
            self._note("failed", kind, names, str(exc) or type(exc).__name__)
            raise
        took = (time.monotonic_ns() - began_ns) / 1e9
        has_quorum = self._voters(done) >= quorum(len(done))
        text = _text(kind, names, done, before, leader, term, has_quorum, took)
        text += "; not every member has met it yet, which takes a write" if waits else ""
        self._note("effect", kind, names, text)
        return Effect(
            kind, names, before.name if before else None, leader, term, has_quorum, began_ns, took, text
        )  # fmt: skip

    def _note(self, phase: Phase, kind: str, names: Sequence[str], detail: str = "") -> None:
        if self._timeline is None:
            return
        try:
            self._timeline.add(phase, kind, names, detail)
        except TimelineError as error:
            if kind != HEAL:
                raise
            self._unwritten.append(error)  # a full disk is no reason to leave the members as they are

    def _ask(self, request: Request, name: str, subjects: Sequence[Subject]) -> None:
        asked = name
        body: dict[str, str] = {}
        fields: dict[int, int | str | bytes] = {}
        if request.member_field:
            status, leader = self._statuses(subjects).get(name), self._leader(subjects)
            if leader is None or status is None:
                raise ClusterError(f"cannot {request.verb} to {name}: it does not answer, or there is no leader")
            asked, body, fields = leader.name, {request.member_field: str(status.member_id)}, {1: status.member_id}
        try:
            calls.rpc(
                self._names[asked].client_url, (request.method, encode(fields)), (request.path, json.dumps(body)),
                self._wait_s, self._security,
            )  # fmt: skip
        except ClusterError as exc:
            raise ClusterError(f"{asked} does not {request.verb}: {exc}") from exc

    def _await_struck(self, names: Sequence[str], subjects: Sequence[Subject]) -> bool:
        """Wait until a call of each was struck, and those have ended that etcd ends then; return whether that is so."""
        ending = [each.name for each in subjects if each.name in names and each.state == "down"]
        deadline = time.monotonic() + min(_STRUCK_S, self._wait_s)
        while True:
            disks = self._cluster.disks()
            if all(name in disks and disks[name]["struck"] for name in names):
                states = self._cluster.states()
                if all(states[name] == "down" for name in ending):
                    return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)

    @staticmethod
    def _voters(subjects: Sequence[Subject]) -> int:
        return sum(subject.takes_part for subject in subjects)

    def _wait(self, effect: str, names: Sequence[str], subjects: tuple[Subject, ...]) -> tuple[str | None, int | None]:
        """Wait for the effect of a kind, see `Kind`. Returns who leads, and the newest term."""
        if effect == "nothing":
            leader = self._leader(subjects)
            return (leader.name, leader.term or None) if leader else (None, None)
        if effect == "leads":
            return self._until(subjects, lambda leader: leader in names, f"{' '.join(names)} to lead")
        if self._voters(subjects) >= quorum(len(subjects)):
            return self._until(subjects, lambda leader: leader is not None, "a leader")
        return self._until(subjects, lambda leader: leader is None, "the old leader to step down")

    def _until(
        self, subjects: tuple[Subject, ...], wanted: Callable[[str | None], bool], what: str
    ) -> tuple[str | None, int | None]:
        """Poll until the leader is as wanted. Returns it and the newest term. Raises ClusterError."""
        deadline = time.monotonic() + self._wait_s
        while True:
            statuses = self._statuses(subjects)
            leader = self._verdict(subjects, statuses)
            if leader != "?" and wanted(leader):
                # A member tells the new term once it has applied an entry of it, as all have that served a read.
                statuses = self._statuses(subjects) if leader else statuses
                return leader, max((status.term for status in statuses.values() if status.term), default=None)
            if time.monotonic() >= deadline:
                raise ClusterError(f"waited {self._wait_s:g} s for {what} in vain: see `raftload cluster status`")
            time.sleep(_POLL_S)

    def _verdict(self, subjects: Sequence[Subject], statuses: Mapping[str, MemberStatus]) -> str | None:
        """Return who leads those that take part, and serves; None if all agree that nobody does; ``?`` in between."""
        apart = [each for each in subjects if each.answers and each.isolated]
        if any(each.name not in statuses or statuses[each.name].leader_id for each in apart):
            return "?"  # a member that is cut off still believes in a leader
        part = [each for each in subjects if each.takes_part]
        answers = [statuses[each.name] for each in part if each.name in statuses]
        if len(part) < quorum(len(subjects)):
            # A restarted member without a quorum may answer nothing.
            return "?" if any(status.leader_id for status in answers) else None
        if len(answers) < len(part):
            return "?"
        leader = probe.agreed_leader(answers)
        urls = [self._names[each.name].client_url for each in part]
        healthy = leader is not None and all(probe.serves_reads(url, self._ask_s, self._security) for url in urls)
        return leader.name if leader is not None and healthy else "?"


def _text(
    kind: str, names: Sequence[str], subjects: Sequence[Subject], before: MemberStatus | None, leader: str | None,
    term: int | None, has_quorum: bool, took: float,
) -> str:  # fmt: skip
    head = "nothing to heal" if not names and kind == HEAL else f"{kind}: {', '.join(names)}"
    if not has_quorum:
        part = sum(subject.takes_part for subject in subjects)
        need = quorum(len(subjects))
        return f"{head}; no quorum: {part} of {len(subjects)} members take part, {need} are needed ({took:.2f} s)"
    if leader is None:
        return f"{head}; there is no leader now"
    when = "" if term is None else f" in term {term}"
    if before is not None and before.name == leader and term in (None, before.term):
        return f"{head}; {leader} still leads{when} ({took:.2f} s)"
    return f"{head}; {leader} leads now{when}, after {took:.2f} s"
