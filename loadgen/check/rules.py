"""The guarantees by name, what was found about each, and the verdict that follows.

The promises are etcd's own (etcd.io, Learning, "KV API guarantees": KV APIs, Watch APIs, Lease APIs) and Raft's (Ongaro
and Ousterhout, section 5.2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from cluster.base.errors import UsageError
from cluster.base.verdict import Verdict

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
}
FAMILIES = tuple(dict.fromkeys(name.partition(".")[0] for name in RULES))
_KEPT = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One way in which a guarantee was broken: where, and the operations involved, in words."""

    rule: str
    revision: int
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What the history says of one guarantee.

    Attributes:
        rule: a key of RULES.
        verdict: PASS only where something was held against it.
        judged: how many operations, events or members were.
        broken: how many broke it.
        findings: the first of those, by revision.
        reason: why it is UNKNOWN or SKIP.
    """

    rule: str
    verdict: Verdict
    judged: int
    broken: int = 0
    findings: tuple[Finding, ...] = ()
    reason: str = ""


class Ledger:
    """Collects what is found while a history is walked through.

    Attributes:
        judged: how much was held against each guarantee.
        unknown_from: the newest revision at which something may have happened that no answer or watch shows; 0 if there
            is none. From there on the replay does not know the store.
    """

    def __init__(self) -> None:
        self.judged = dict.fromkeys(RULES, 0)
        self._findings: dict[str, list[Finding]] = {name: [] for name in RULES}
        self._broken = dict.fromkeys(RULES, 0)
        self._doubts: dict[str, list[str]] = {name: [] for name in RULES}
        self._absent: dict[str, str] = {}
        self._excused: dict[str, str] = {}
        self.unknown_from = 0

    def broken(self, rule: str, revision: int, text: str | Callable[[], str]) -> None:
        """Note that a guarantee is broken at a revision; a function for the text is called where it will be shown."""
        self._broken[rule] += 1
        found = self._findings[rule]
        if len(found) < _KEPT:
            found.append(Finding(rule, revision, text if isinstance(text, str) else text()))

    def differs(self, rule: str, revision: int, text: str | Callable[[], str]) -> None:
        """Note that something is not as the replay has it: broken, unless the replay itself has lost its way."""
        if self.unknown_from:
            self.doubt(rule, f"what happened at revision {self.unknown_from} is not known")
        else:
            self.broken(rule, revision, text)

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
            findings = tuple(sorted(self._findings[rule], key=lambda finding: finding.revision))
            return Result(rule, Verdict.FAIL, judged, broken, findings)
        if rule in self._excused:
            return Result(rule, Verdict.SKIP, judged, reason=self._excused[rule])
        if self._doubts[rule]:
            return Result(rule, Verdict.UNKNOWN, judged, reason="; ".join(self._doubts[rule][:3]))
        if judged:
            return Result(rule, Verdict.PASS, judged)
        if rule in self._absent:
            return Result(rule, Verdict.SKIP, 0, reason=self._absent[rule])
        return Result(rule, Verdict.UNKNOWN, 0, reason="nothing in the history tests it")


def select(names: Sequence[str]) -> list[str]:
    """Return the rules that names of rules or families mean, in order; all for none. Raises UsageError."""
    for name in names:
        if name not in RULES and name not in FAMILIES:
            raise UsageError(f"no guarantee {name!r}; there are {', '.join(FAMILIES)}, and {', '.join(RULES)}")
    return [rule for rule in RULES if not names or rule in names or rule.partition(".")[0] in names]
