"""The guarantees by name, what was found about each, and the verdict that follows.

The promises are etcd's own (etcd.io, Learning, "KV API guarantees": KV APIs, Watch APIs, Lease APIs) and Raft's (Ongaro
and Ousterhout, section 5.2).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from cluster.base.errors import UsageError
from cluster.base.verdict import Verdict

if TYPE_CHECKING:
    from loadgen.history.calls import Call

RULES = {
    "kv.revisions": "every acknowledged write has a revision of its own",
    "kv.real-time": "strict serializability: an operation sees every operation that had completed before it began",
    "kv.reads": "a read returns the state of the store at its revision",
    "kv.past-reads": "a read of a past revision returns the state of the store then",
    "kv.writes": "a write's answer says what it replaced or deleted",
    "kv.compaction": "revisions can be read until they are compacted, and not after",
    "kv.explained": "every revision was made by an operation",
    "kv.failed": "an operation that was refused has no effect",
    "kv.once": "an operation takes effect at most once, and not before it was invoked",
    "durability.acknowledged": "any completed operation is durable, on every member",
    "durability.revision": "a member's revision never decreases, not even over a restart",
    "convergence.revision": "members with the same applied index have the same revision",
    "convergence.hash": "members have the same hash of the same revisions",
    "convergence.keys": "members have the same keys, with the same values, revisions and versions",
    "txn.compares": "a transaction succeeds if and only if its compares hold at the revision before",
    "txn.responses": "each answer within a transaction is that of its operation, in order",
    "txn.atomic": "all writes of a transaction have one revision, or none is made",
    "watch.filter": "a watch delivers only events of its keys and types",
    "watch.ordered": "ordered: events are delivered in the order of their revisions",
    "watch.unique": "unique: an event never appears twice on a watch",
    "watch.atomic": "atomic: the events of one revision are never split over several answers",
    "watch.reliable": "reliable: no event between two delivered ones is missing",
    "watch.resumable": "resumable: a broken watch can be resumed after the last event it delivered",
    "watch.bookmarkable": "bookmarkable: progress notifications guarantee that all events up to them have come",
    "watch.previous-value": "an event's previous key-value is the one it replaced",
    "watch.flags": "an event has the create revision and version of its key, which tell creation from modification",
    "watch.members": "every member delivers the same events for a revision",
    "lease.early": "a lease lives at least its time to live after it was granted or kept alive",
    "lease.together": "the keys of a lease that ended are deleted in one revision",
    "lease.attached": "no key is attached to a lease that has ended",
    "raft.term": "a member's term never decreases",
    "raft.leader": "at most one leader in a term",
    "auth.denied": "no call shows or changes what its user has no right to",
    "auth.granted": "a call that its user has the right to is never denied",
    "auth.anonymous": "with authentication on, a call without a user gets nothing that needs one",
    "lease.ttl": "a lease's remaining time to live is never more than was granted, and falls until it is renewed",
    "lease.revoked": "a lease that was revoked or has ended is not renewed",
    "lease.renewed": "a lease that was granted or renewed exists for its time to live, unless it is revoked",
    "lease.ends": "a lease that has run out no longer exists 10 s later",
    "member.lives": "a member does not end by itself, whatever it is asked",
    "member.reads": "a member that has a leader, and answers writes and other reads, answers linearizable reads",
    "member.fair": "a watch that is far behind does not slow down what others write at its member",
    "member.role": "a member's role is as it was made: a learner is one until it is promoted",
    "member.forwards": "every member that has a leader answers a request to change the members",
    "member.list": "members that have applied the same changes list the same members, with the same roles",
    "alarm.nospace": "with the alarm NOSPACE on nothing is written, and reads and deletions go on",
    "alarm.kept": "an alarm stays on until it is switched off, and every member reports it",
}
_LEASES_OF_CALLS = ("lease.ttl", "lease.revoked", "lease.renewed", "lease.ends")
OF_CALLS = tuple(
    name for name in RULES if name.partition(".")[0] in ("auth", "member", "alarm") or name in _LEASES_OF_CALLS
)
"""The rules that are judged only where there is a record of the calls of actors (``loadgen.history.calls``)."""
OF_HISTORY = tuple(name for name in RULES if name not in OF_CALLS)
FAMILIES = tuple(dict.fromkeys(name.partition(".")[0] for name in RULES))
_KEPT = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One way in which a guarantee was broken.

    Attributes:
        rule: a key of RULES.
        revision: where it was, 0 where that is at no revision.
        until: the newest revision at which it may have come about, where that is a later one than ``revision``: a key
            that is missing in the end may have been deleted at any revision since.
        text: what was done and seen, in words.
        calls: the calls of actors that are involved; none where the history shows it.
        said: what a member said of it in its log.
        issue: of the known bug that explains it, as in ``cluster.base.known_bugs``; empty where none does.
    """

    rule: str
    revision: int
    text: str
    calls: tuple[Call, ...] = ()
    said: str = ""
    issue: str = ""
    until: int = 0

    @property
    def newest(self) -> int:
        """The newest revision at which it may have come about."""
        return max(self.revision, self.until)


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What the history says of one guarantee.

    Attributes:
        rule: a key of RULES.
        verdict: PASS only where something was held against it.
        judged: how many operations, events or members were.
        broken: how many broke it.
        findings: the first of those, by revision; those that no known bug explains before the others.
        reason: why it is UNKNOWN or SKIP.
        explained: how many of the broken each known bug explains, by its issue.
    """

    rule: str
    verdict: Verdict
    judged: int
    broken: int = 0
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    explained: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def unexplained(self) -> int:
        """How many of the broken no known bug explains."""
        return self.broken - sum(self.explained.values())


class Explains(Protocol):
    """What explains violations by known bugs; see ``signatures.Explanations``."""

    def knows(self, rule: str) -> bool:
        """Whether a violation of a guarantee may be explained."""

    def issue(self, finding: Finding) -> str:
        """Return the issue of the bug that explains a violation; empty where none does."""


class Ledger:
    """Collects what is found while a history is walked through. Takes what explains it; None: nothing does.

    Attributes:
        judged: how much was held against each guarantee.
        unknown_from: the newest revision at which something may have happened that no answer or watch shows; 0 if there
            is none. From there on the replay does not know the store.
    """

    def __init__(self, explanations: Explains | None = None) -> None:
        self.judged = dict.fromkeys(RULES, 0)
        self._explanations = explanations
        # By the issue that explains them.
        self._findings: dict[str, dict[str, list[Finding]]] = {name: {} for name in RULES}
        self._broken: dict[str, Counter[str]] = {name: Counter() for name in RULES}
        self._doubts: dict[str, list[str]] = {name: [] for name in RULES}
        self._absent: dict[str, str] = {}
        self._excused: dict[str, str] = {}
        self.unknown_from = 0

    def broken(
        self,
        rule: str,
        revision: int,
        text: str | Callable[[], str],
        calls: tuple[Call, ...] = (),
        said: str = "",
        until: int = 0,
    ) -> None:
        """Note that a guarantee is broken at a revision, or at one up to ``until``.

        A function for the text is called where it will be shown, and where a known bug may explain it.
        """
        finding, issue = None, ""
        if self._explanations is not None and self._explanations.knows(rule):
            finding = Finding(rule, revision, text if isinstance(text, str) else text(), calls, said, until=until)
            issue = self._explanations.issue(finding)
        self._broken[rule][issue] += 1
        found = self._findings[rule].setdefault(issue, [])
        if len(found) < _KEPT:
            finding = finding or Finding(
                rule, revision, text if isinstance(text, str) else text(), calls, said, until=until
            )
            found.append(dataclasses.replace(finding, issue=issue))

    def findings(self, rule: str) -> list[Finding]:
        """Return what was found of a guarantee so far."""
        return [finding for found in self._findings[rule].values() for finding in found]

    def differs(self, rule: str, revision: int, text: str | Callable[[], str], until: int = 0) -> None:
        """Note that something is not as the replay has it: broken, unless the replay itself has lost its way."""
        if self.unknown_from:
            self.doubt(rule, f"what happened at revision {self.unknown_from} is not known")
        else:
            self.broken(rule, revision, text, until=until)

    def doubt(self, rule: str, reason: str) -> None:
        """Note why a guarantee cannot be called kept, whatever else holds."""
        doubts = self._doubts[rule]
        if len(doubts) < _KEPT and reason not in doubts:
            doubts.append(reason)

    def absent(self, rule: str, reason: str) -> None:
        """Say why it is no fault that nothing was held against a guarantee: nothing in the history used it."""
        self._absent[rule] = reason

    def excuse(self, rule: str, reason: str) -> None:
        """Say why whoever was asked does not promise a guarantee: unless it was broken, it is skipped."""
        self._excused[rule] = reason

    def result(self, rule: str) -> Result:
        """Return the verdict on one guarantee."""
        judged, broken = self.judged[rule], self._broken[rule]
        if broken:
            found = [each for findings in self._findings[rule].values() for each in findings]
            found.sort(key=in_order)
            explained = {issue: count for issue, count in broken.items() if issue}
            return Result(rule, Verdict.FAIL, judged, broken.total(), tuple(found), explained=explained)
        if rule in self._excused:
            return Result(rule, Verdict.SKIP, judged, reason=self._excused[rule])
        if self._doubts[rule]:
            return Result(rule, Verdict.UNKNOWN, judged, reason="; ".join(self._doubts[rule][:3]))
        if judged:
            return Result(rule, Verdict.PASS, judged)
        if rule in self._absent:
            return Result(rule, Verdict.SKIP, 0, reason=self._absent[rule])
        return Result(rule, Verdict.UNKNOWN, 0, reason="nothing in the history tests it")


def in_order(finding: Finding) -> tuple[bool, int]:
    """Return what findings are sorted by: those that no known bug explains stand first, each by revision."""
    return bool(finding.issue), finding.revision


def select(names: Sequence[str]) -> list[str]:
    """Return the rules that names of rules or families mean, in order; all for none. Raises UsageError."""
    for name in names:
        if name not in RULES and name not in FAMILIES:
            near = difflib.get_close_matches(name, RULES, n=1)
            which = f"did you mean {near[0]}" if near else f"there are {', '.join(FAMILIES)}; see docs/chaos.md"
            raise UsageError(f"no guarantee {name!r}; {which}")
    return [rule for rule in RULES if not names or rule in names or rule.partition(".")[0] in names]
