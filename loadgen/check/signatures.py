"""The signatures of etcd's known bugs: how a violation that is one's looks, and what has happened before it.

That a release has a bug explains no violation by itself: something else may break the same promise in the same
release. A bug without a signature here explains nothing.
"""

from __future__ import annotations

import dataclasses
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cluster.base.known_bugs import bug_of
from loadgen.check.call_record import operations, until_ns
from loadgen.check.permissions import CHANGES
from loadgen.history.format import INFO, OK, Method
from loadgen.history.operation import Outcome
from loadgen.proto import etcd_pb2 as pb

if TYPE_CHECKING:
    from loadgen.check.evidence import Evidence
    from loadgen.check.rules import Finding
    from loadgen.check.watches import Watch
    from loadgen.history.calls import Call, Calls, Plain

Looks = Callable[["Finding"], bool]
_UNCOMMITTED_NS = 1_000_000_000
# A leader keeps so many entries of its log for those that are behind, and sends its snapshot to who needs more.
_KEPT_ENTRIES = 5_000
# How long after a fault a member still does what it began meanwhile, and how long a compaction may go on.
_AFTERWARDS_NS, _COMPACTING_NS = 10_000_000_000, 10_000_000_000
_HELD_UP = ("stuck-disk", "slow-disk", "pause")
_BY_FORCE, _IN_ORDER = ("kill", "crash", "disk-error", "disk-full"), ("stop", "restart")
# From there etcd reads nothing; from a lower one, and where the store was ever compacted, it ends the watch.
_BEFORE_ALL = -1
# What etcd sends at once to a watch that is behind.
_BATCH = 1_000
_SOON_NS = 1_000_000_000
_START = re.compile(r", from revision (-?[0-9]+)\)")
_WATCH = re.compile(r"the watch on [^()]*\([^()]*\)")
_FIRST = re.compile(r", id 0[,)]")
_RENEWED = re.compile(r"too early for lease keep-alive of [^(]*\(([0-9.]+) s to ")
CONVERGENCE = ("convergence.revision", "convergence.hash", "convergence.keys")
_LOST = ("durability.acknowledged", "durability.revision", "kv.revisions", "kv.once", "kv.real-time", "kv.reads")
# Whoever asks now this member and now that one sees no order of revisions any more, whatever is asked.
_OF_STORES = (
    *CONVERGENCE, *_LOST, "kv.past-reads", "kv.writes", "kv.compaction", "kv.explained", "kv.failed", "txn.compares",
    "txn.responses", "txn.atomic", "watch.filter", "watch.ordered", "watch.unique", "watch.atomic", "watch.reliable",
    "watch.resumable", "watch.bookmarkable", "watch.previous-value", "watch.flags", "watch.members", "lease.early",
    "lease.together", "lease.attached",
)  # fmt: skip


class Past:
    """What has happened in a run, for signatures to look at. Takes the history, and the calls of actors.

    Attributes:
        parted: what members hold differently in the end, in words that name them.
    """

    def __init__(self, evidence: Evidence, calls: Calls | None) -> None:
        self._evidence, self._calls = evidence, calls
        self.watches = ()
        self.parted: Sequence[Finding] = ()

    @property
    def watches(self) -> Sequence[Watch]:
        """The watches of the history; none before they were read. Whoever sets them has all that is known of them anew.

        Nothing that goes by them is to be kept elsewhere.
        """
        return self._watches

    @watches.setter
    def watches(self, watches: Sequence[Watch]) -> None:
        self._watches = watches
        self._by_label = {watch.label: watch for watch in watches}
        self._from_before_all = [watch for watch in watches if watch.start == _BEFORE_ALL]

    @cached_property
    def versions(self) -> frozenset[str]:
        """The releases that the members run."""
        return frozenset(version for version in self._evidence.cluster.versions.values() if version)

    @cached_property
    def members(self) -> int:
        """How many members there are."""
        return len(self._evidence.cluster.names)

    @cached_property
    def started_again(self) -> frozenset[str]:
        """The names of the members that were started again."""
        return frozenset(member for member, _, _ in self._starts)

    @cached_property
    def compactions(self) -> frozenset[int]:
        """The revisions up to which the store was, or may have been, compacted."""
        evidence = self._evidence
        asked = np.flatnonzero((evidence.method == Method.COMPACT) & (evidence.outcome != 1))
        return frozenset(evidence.request(number, pb.CompactionRequest).revision for number in asked.tolist())

    def jumped_over_compaction(self, finding: Finding) -> bool:
        """Whether a watch that missed events got nothing more until after a compaction of them."""
        watch = self._watch(finding)
        if watch is None:
            return False
        later = np.array(watch.revisions, np.int64)
        following = int(min(later[later > finding.revision], default=np.iinfo(np.int64).max))
        return any(finding.revision <= each < following for each in self.compactions)

    def was_told_too_early(self, finding: Finding) -> bool:
        """Whether a watch that missed events got nothing that is newer, but for the notice that it had all of them."""
        watch = self._watch(finding)
        return watch is not None and max(watch.revisions, default=0) < finding.revision

    def was_refused_beside(self, finding: Finding) -> bool:
        """Whether another watch was refused on the stream of the watch that a violation is of."""
        watch = self._watch(finding)
        return watch is not None and watch.refused_beside

    def watched_the_future(self, finding: Finding) -> bool:
        """Whether the watch of a violation was to begin later, and its member fell far behind."""
        watch = self._watch(finding)
        return watch is not None and watch.start > watch.created and self._evidence.member_name(
            watch.member) in self._far_behind  # fmt: skip

    def _watch(self, finding: Finding) -> Watch | None:
        found = _WATCH.search(finding.text)
        return self._by_label.get(found[0]) if found else None

    @cached_property
    def _away(self) -> list[tuple[str, int, float]]:
        """Which members a fault was done to, and from when until when, in nanoseconds."""
        faults = self._evidence.history.faults()
        return [(name, each.began_ns, each.healed_ns or math.inf) for each in faults for name in each.members]

    @cached_property
    def _far_behind(self) -> frozenset[str]:
        """The members that may have been sent a snapshot."""
        newest = int(self._evidence.revision.max(initial=0))
        return frozenset(
            name for name, began, healed in self._away
            if (self._revision_at(int(healed)) if healed < math.inf else newest) - self._revision_at(began)
            >= _KEPT_ENTRIES
        )  # fmt: skip

    def parts(self, finding: Finding, names: Iterable[str]) -> bool:
        """Whether one of these members is among those that differ in the end, or is alone."""
        wanted = {*names}
        return bool(wanted) if self.members == 1 else self._part(self._parted(finding), wanted)

    def _parted(self, finding: Finding) -> Sequence[Finding]:
        """Return in what members differ, as far as a violation is of that: where it says so itself, in that alone."""
        return [finding] if finding.rule in CONVERGENCE else self.parted

    @staticmethod
    def _part(parted: Iterable[Finding], names: Iterable[str]) -> bool:
        wanted = "|".join(map(re.escape, names))
        return bool(wanted) and any(re.search(rf"\b({wanted})\b", each.text) for each in parted)

    def rights_changed_far_behind(self, finding: Finding) -> bool:
        """Whether rights changed while a member fell far behind that has parted."""
        changed = [call for call in self._all_calls if call.method in CHANGES and call.outcome is not Outcome.FAIL]
        return self.parts(finding, {
            name for name, began, healed in self._away
            if name in self._far_behind and any(began < until_ns(each) and each.invoked_ns < healed for each in changed)
        })  # fmt: skip

    def defragmented_far_behind(self, finding: Finding) -> bool:
        """Whether a member that fell far behind, and has parted, defragmented, and was started again."""
        return self.parts(finding, self._defragmented_far_behind)

    def defragmented_far_behind_and_ended(self, finding: Finding) -> bool:
        """Whether a member that has ended fell far behind before, and defragmented."""
        return any(finding.text.startswith(f"{name} ") for name in self._defragmented_far_behind)

    @cached_property
    def _defragmented_far_behind(self) -> set[str]:
        asked = {call.member for call in self._all_calls if call.method == "Defragment"}
        return asked & self._far_behind & self.started_again

    def ended_in_defragmentation(self, finding: Finding) -> bool:
        """Whether a violation is of after the start of a member that ended while it defragmented, and has parted."""
        return self.parts(finding, {member for member, since in self._cut if finding.newest >= since})

    @cached_property
    def _cut(self) -> list[tuple[str, int]]:
        """Which members ended while they defragmented, and from which revision on that can be seen."""
        return [
            (call.member, self._revision_at(call.invoked_ns - _UNCOMMITTED_NS)) for call in self._all_calls
            if call.method == "Defragment" and call.outcome is Outcome.INFO and call.member in self.started_again
        ]  # fmt: skip

    @cached_property
    def ended_in_compaction(self) -> bool:
        """Whether a member was ended within seconds of a compaction."""
        evidence = self._evidence
        asked = np.sort(evidence.call[(evidence.method == Method.COMPACT) & (evidence.outcome != 1)])
        ended = [began for name, began, _ in self._away if name in self.started_again]
        return any(np.searchsorted(asked, at, "right") > np.searchsorted(asked, at - _COMPACTING_NS, "right")
                   for at in ended)  # fmt: skip

    def older_than_compacted(self, finding: Finding) -> bool:
        """Whether a revision is told that is older than one that was compacted, after an end in a compaction."""
        return finding.revision < max(self.compactions, default=0) and self.ended_in_compaction

    def renewed_without_leader(self, finding: Finding) -> bool:
        """Whether a lease ended while, or soon after, a fault held up a member that may have led, and was renewed then.

        What was renewed before that the member knew.
        """
        renewed = _RENEWED.search(finding.text)
        if renewed is None or self.members == 1:
            return False
        at_ns = self._evidence.epoch + round(float(renewed[1]) * 1e9)
        return any(
            began_ns - _SOON_NS <= at_ns < healed_ns + _AFTERWARDS_NS
            and self._revision_at(began_ns) <= finding.revision
            for name, began_ns, healed_ns in self._held_up if not name.endswith("-follower")
        )  # fmt: skip

    @cached_property
    def _held_up(self) -> list[tuple[str, int, float]]:
        """Which faults held a member up, and from when until when, in nanoseconds."""
        return [
            (each.name, each.began_ns, math.inf if each.healed_ns is None else each.healed_ns)
            for each in self._evidence.history.faults() if each.name.startswith(_HELD_UP)
        ]  # fmt: skip

    def failed_to_defragment(self, finding: Finding) -> bool:
        """Whether a defragmentation failed at the member that a violation is of."""
        return any(
            call.method == "Defragment" and not call.ok and finding.text.startswith(f"{call.member} ")
            for call in self._all_calls
        )

    @cached_property
    def _all_calls(self) -> tuple[Call, ...]:
        return self._calls.calls if self._calls else ()

    def since_start(self, finding: Finding) -> bool:
        """Whether a violation is of a revision of after a member was first ended and started again."""
        return self._start is not None and finding.newest >= self._start

    @cached_property
    def _starts(self) -> list[tuple[str, int, int]]:
        """Which members were started again, when they had ended, where that is known, and when they were there."""
        found = []
        for each in self._evidence.history.markers:
            if each.name == "restart":
                ended_ns = each.details.get("ended_ns")
                known = ended_ns if isinstance(ended_ns, int) else each.at_ns
                found.append((str(each.details.get("member", "")), known, each.at_ns))
        return found

    @cached_property
    def _absences(self) -> list[tuple[str, int, int]]:
        """Which members were started again, since when they may have been away, and when they were there.

        A fault tells of its members' ends and starts when all is well again; they were within its time.
        """
        events = self._calls.events if self._calls else ()
        found = []
        for member, told_ns, at_ns in self._starts:
            ended_ns = told_ns
            if told_ns == at_ns:
                faults = [began_ns for name, began_ns, _ in self._away if name == member and began_ns < at_ns]
                ends = [each.at_ns for each in events if each.member == member and each.what != "started"]
                ended_ns = max(faults or [each for each in ends if each < at_ns], default=at_ns)
            found.append((member, ended_ns, at_ns))
        return found

    @cached_property
    def _start(self) -> int | None:
        faults = self._evidence.history.faults()
        ended = [each.began_ns for each in faults if self.started_again & {*each.members}]
        ended += [ended_ns for _, ended_ns, _ in self._starts]
        # A kill takes writes with it that its member had applied and not committed to its file.
        return self._revision_at(min(ended) - _UNCOMMITTED_NS) if ended else None

    def since_kill(self, finding: Finding) -> bool:
        """Whether a violation is of what the only member may have lost as it was killed, or of a later revision."""
        return self.members == 1 and self._killed is not None and finding.newest >= self._killed

    @cached_property
    def _killed(self) -> int | None:
        """The first revision that an end by force may have taken with it, of a member that was started again.

        What was acknowledged while its disk stood still was not written either.
        """
        faults = [each for each in self._evidence.history.faults() if self.started_again & {*each.members}]
        ended = [each.began_ns for each in faults if each.name.startswith(_BY_FORCE)]
        in_order = [
            (each.began_ns, math.inf if each.healed_ns is None else each.healed_ns + _AFTERWARDS_NS)
            for each in faults if each.name.startswith((*_BY_FORCE, *_IN_ORDER))
        ]  # fmt: skip
        # Those whose fault is not told: a member that ended by itself, and one that a scenario has killed.
        ended += [
            ended_ns for _, ended_ns, at_ns in self._starts
            if ended_ns < at_ns or not any(low <= at_ns <= high for low, high in in_order)
        ]  # fmt: skip
        ended += [
            began_ns for name, began_ns, healed_ns in self._held_up if not name.startswith("pause")
            and any(began_ns <= each <= healed_ns + _SOON_NS for each in ended)
        ]  # fmt: skip
        return self._revision_at(min(ended) - _UNCOMMITTED_NS) if ended else None

    def parted_by_late_transaction(self, finding: Finding) -> bool:
        """Whether a violation is of after a transaction that writes read a revision that was compacted.

        The member that was asked refuses it, and the others, which do not read what they do not answer, apply it: so it
        is this member that differs from them.
        """
        since = min(self._late.values(), default=math.inf)
        parted = [each for each in self._parted(finding) if each.newest >= since]
        return finding.newest >= since and bool(parted) and ("" in self._late or self._part(parted, self._late))

    @cached_property
    def _late(self) -> dict[str, int]:
        """By the member that was asked (empty: by one behind a proxy): the revision when it was first asked for it."""
        evidence = self._evidence
        found: dict[str, int] = {}
        failed = np.flatnonzero((evidence.method == Method.TXN) & (evidence.outcome != OK)).tolist()
        for number in sorted(failed, key=lambda each: int(evidence.call[each])):
            if self._is_late(number):
                name = evidence.cluster.places.get(evidence.history.endpoint(int(evidence.rows[number])), "")
                name = name if name in evidence.cluster.names.values() else ""
                found.setdefault(name, self._revision_at(int(evidence.call[number])))
        return found

    def _is_late(self, number: int) -> bool:
        """Whether a transaction that failed writes, and was refused for what it reads, or had to be."""
        evidence = self._evidence
        txn = evidence.request(number, pb.TxnRequest)
        if not _writes(txn):
            return False
        if evidence.outcome[number] != INFO:
            return "has been compacted" in evidence.error(number)
        if txn.compare:  # as the fence of the load, which is what keeps a late one from its reads
            return False
        done = (evidence.method == Method.COMPACT) & (evidence.outcome == OK) & (evidence.back < evidence.call[number])
        compacted = [evidence.request(each, pb.CompactionRequest).revision for each in np.flatnonzero(done).tolist()]
        newest = max(compacted, default=0)
        return any(op.HasField("request_range") and 0 < op.request_range.revision < newest for op in _flat(txn))

    def _revision_at(self, at_ns: float) -> int:
        """Return the newest revision that was known at a time."""
        times, newest = self._known
        number = int(np.searchsorted(times, at_ns, "right"))
        return int(newest[number - 1]) if number else 0

    @cached_property
    def _known(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The times of all answers, in order, and the newest revision that was known at each of them."""
        order = np.argsort(self._evidence.back, kind="stable")
        return self._evidence.back[order], np.maximum.accumulate(self._evidence.revision[order])

    def caught_up_beside_one_from_before_all(self, finding: Finding) -> bool:
        """Whether a watch that missed an event caught up, at one member, with one from revision -1, or is that one.

        What was written later it gets. Where the store was compacted before, the one from revision -1 is ended, and
        takes no other with it.
        """
        watch = self._watch(finding)
        if watch is None or watch.start > max(watch.created, self._revision_at(watch.began_ns + _SOON_NS)):
            return False
        if watch.start == _BEFORE_ALL:  # what was written until it had caught up it misses itself
            is_before = finding.revision < min(watch.revisions, default=math.inf)
            return is_before and watch.began_ns <= self._compacted_ns
        return any(
            each.member == watch.member and each is not watch
            and watch.began_ns <= each.began_ns + _AFTERWARDS_NS
            and (not watch.caught_up_ns or each.began_ns - _AFTERWARDS_NS <= watch.caught_up_ns)
            and finding.revision <= max(each.created, self._revision_at(each.began_ns + _AFTERWARDS_NS))
            and each.began_ns - _AFTERWARDS_NS <= self._compacted_ns
            for each in self._from_before_all
        )  # fmt: skip

    @cached_property
    def _compacted_ns(self) -> float:
        """When the store was first compacted, by an answer."""
        evidence = self._evidence
        done = evidence.back[(evidence.method == Method.COMPACT) & (evidence.outcome == OK)]
        return int(done.min()) if len(done) else math.inf

    def caught_up_by_batches(self, finding: Finding) -> bool:
        """Whether watches at the member of a violation's got what they missed bit by bit, some of them beside no fault.

        One that gets all at once is read for once.
        """
        watch = self._watch(finding)
        if watch is None:
            return False
        faults = [(each.began_ns, each.healed_ns or math.inf) for each in self._evidence.history.faults()]
        return any(
            each.member == watch.member and each.created - each.start >= _BATCH and each.caught_up_ns
            and len({at for at, of in zip(each.times, each.revisions, strict=True) if of <= each.created}) > 1
            and not any(low < each.caught_up_ns and each.began_ns < high for low, high in faults)
            for each in self.watches
        )  # fmt: skip

    def is_full(self, call: Call) -> bool:
        """Whether the alarm NOSPACE was, or may have been, on while a call was made."""
        return any(low < call.completed_ns and call.invoked_ns < high for low, high in self._full)

    def started_when_full(self, finding: Finding) -> bool:
        """Whether a violation is of after the start of a member while the store was full, which has parted.

        Authentication was on before it was full no more: that member looks at rights, and the others do not.
        """
        started = {
            member for member, ended_ns, _ in self._started_when_full
            if finding.newest >= self._revision_at(ended_ns - _UNCOMMITTED_NS)
        }  # fmt: skip
        return self.members > 1 and self.parts(finding, started)

    def rights_may_differ_since_full(self, finding: Finding) -> bool:
        """Whether a violation is of after the start of a member while the store was full: its users may be others.

        That authentication is on, what users may, and the revision of both are no part of the store that is compared.
        """
        until_ns = finding.calls[-1].completed_ns if finding.calls else -math.inf
        return self.members > 1 and any(at_ns < until_ns for _, _, at_ns in self._started_when_full)

    @cached_property
    def _started_when_full(self) -> list[tuple[str, int, int]]:
        """Which members were started while the store was full, since when they were away, and when they were there."""
        guarded = self._spans(lambda call: call.method == "AuthEnable", lambda call: call.method == "AuthDisable")
        return [
            (member, ended_ns, at_ns) for member, ended_ns, at_ns in self._absences
            if any(low < at_ns and ended_ns < high and any(on < high and ended_ns < off for on, off in guarded)
                   for low, high in self._full)
        ]  # fmt: skip

    @cached_property
    def _full(self) -> list[tuple[float, float]]:
        return self._spans(lambda call: _alarm(call, "ACTIVATE"), lambda call: _alarm(call, "DEACTIVATE"))

    def _spans(
        self, switches_on: Callable[[Call], bool], switches_off: Callable[[Call], bool]
    ) -> list[tuple[float, float]]:
        """Return from when until when something may have been on, in nanoseconds, by the calls that switch it.

        What had no answer may be done later than what switches it off.
        """
        ons = [call for call in self._all_calls if switches_on(call) and call.outcome is not Outcome.FAIL]
        offs = sorted(call.completed_ns for call in self._all_calls if switches_off(call) and call.ok)
        ends: list[float] = [*offs, math.inf]
        made_by = [call.completed_ns + (0 if call.ok else _AFTERWARDS_NS) for call in ons]
        return [(call.invoked_ns, ends[bisect_right(offs, by_ns)]) for call, by_ns in zip(ons, made_by, strict=True)]


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """How one bug shows.

    Attributes:
        issue: of the bug, as in ``cluster.base.known_bugs``.
        rules: the guarantees that it breaks.
        looks: whether a violation of one of them looks like this bug's.
        happened: whether what it takes has happened before that violation.
    """

    issue: str
    rules: tuple[str, ...]
    looks: Looks
    happened: Callable[[Past, Finding], bool] = lambda past, finding: True


def involves(*methods: str) -> Looks:
    """Return how violations look in which a call of one of these methods is involved."""
    return lambda finding: any(call.method in methods for call in finding.calls)


def _last(*methods: str, asks: Callable[[Plain], bool] | None = None) -> Looks:
    """Return how violations look that a call of one of these methods, with such a request, shows."""

    def fits(finding: Finding) -> bool:
        if not finding.calls or finding.calls[-1].method not in methods:
            return False
        return asks is None or asks(finding.calls[-1].request)

    return fits


def _is_nested(txn: Plain) -> bool:
    return any(op == "request_txn" for op, _ in operations(txn))


def _shows_or_leases(txn: Plain) -> bool:
    return any(op == "request_put" and (put.get("prev_kv") or put.get("lease")) for op, put in operations(txn))


def _is_open_ended(watch: Plain) -> bool:
    return watch.get("range_end") == "\0"


def _start(finding: Finding) -> int | None:
    """Return the revision from which the watch of a violation was asked for; None where that was none."""
    found = _START.search(finding.text)
    return int(found[1]) if found else None


def _misses_its_first(finding: Finding) -> bool:
    return _start(finding) == finding.revision and "in two answers" not in finding.text


def _says(text: str) -> Looks:
    """Return how violations look in which a member said this in its log."""
    return lambda finding: text in finding.said


def _reads(text: str) -> Looks:
    """Return how violations look whose text has this."""
    return lambda finding: text in finding.text


def _is_applied(txn: Plain) -> bool:
    """Whether a transaction goes through the log: one of reads alone is done, and its rights looked at, before that."""
    return any(op != "request_range" for op, _ in operations(txn))


def _is_let_through_when_full(finding: Finding) -> bool:
    others = ("DeleteRange", "UserGrantRole", "LeaseRevoke", "Compact")
    return _last(*others)(finding) or _last("Txn", asks=_is_applied)(finding)


def _when_full(past: Past, finding: Finding) -> bool:
    return bool(finding.calls) and past.is_full(finding.calls[-1])


def _part_by_start(past: Past, finding: Finding) -> bool:
    """Whether one of the members that differ was started again, and a violation is of after that."""
    return past.members > 1 and past.since_start(finding) and past.parts(finding, past.started_again)


def _is_no_other_refusal(finding: Finding) -> bool:
    """Whether a violation is not that a put, of a value of its own, took effect that was refused for something else."""
    who, has, _ = finding.text.partition(" has an effect: ")
    return not has or "put " not in who or "has been compacted" in who


def _any(finding: Finding) -> bool:
    return True


SIGNATURES = (
    # Members that part do so at a moment, and no promise that came before it is broken by that.
    Signature("18667", _OF_STORES, _is_no_other_refusal, Past.parted_by_late_transaction),
    Signature("13766", _OF_STORES, _any, _part_by_start),
    Signature("22386", _OF_STORES, _any, Past.started_when_full),
    Signature("14571", CONVERGENCE, _any, Past.rights_changed_far_behind),
    Signature("14685", _OF_STORES, _any, Past.ended_in_defragmentation),
    Signature("20271", (*CONVERGENCE, "durability.revision"), _any, Past.defragmented_far_behind),
    Signature("20271", ("member.lives",), _says("failed to find database snapshot file"),
              Past.defragmented_far_behind_and_ended),
    Signature("14110", ("member.lives",), _says("unexpected error during txn")),
    Signature("18810", ("member.lives",), _says("nil pointer"), Past.failed_to_defragment),
    Signature("14370", _LOST, _any, Past.since_kill),
    Signature("17780", ("durability.revision",), _any, Past.older_than_compacted),
    # The end of the refused one is told as that of the watch of id 0.
    Signature("12385", ("watch.reliable", "watch.resumable"), lambda finding: bool(_FIRST.search(finding.text)),
              Past.was_refused_beside),
    Signature("13577", ("auth.granted",), _reads("InvalidAuthToken, with authentication off")),
    # What ends is what was renewed at another leader.
    Signature("15247", ("lease.early",), lambda finding: bool(_RENEWED.search(finding.text)),
              Past.renewed_without_leader),
    # An event that comes after all; one that never does breaks watch.reliable, where the run does not end before.
    Signature("15220", ("watch.bookmarkable",), _reads("and then got the event")),
    Signature("15814", ("auth.denied",), _last("LeaseTimeToLive")),
    Signature("18089", ("watch.reliable", "watch.resumable", "watch.atomic"), _misses_its_first,
              lambda past, finding: finding.revision in past.compactions),
    Signature("19179", ("watch.reliable", "watch.resumable"), _misses_its_first,
              lambda past, finding: finding.revision in past.compactions and past.ended_in_compaction),
    Signature("20221", ("watch.filter",), _reads("an event before its start"), Past.watched_the_future),
    Signature("20693", ("watch.reliable", "watch.resumable"), _any, Past.caught_up_beside_one_from_before_all),
    Signature("17529", ("watch.reliable", "watch.resumable"), _reads(", but later ones or notice of them"),
              Past.jumped_over_compaction),
    Signature("15220", ("watch.reliable", "watch.resumable"), _reads(", but later ones or notice of them"),
              Past.was_told_too_early),
    Signature("22264", ("member.fair",), _reads(" caught up with "), Past.caught_up_by_batches),
    Signature("20757", ("member.forwards",), involves("MemberPromote")),
    Signature("21663", ("auth.granted",), _last("Status")),
    Signature("21694", ("member.role", "member.list"), involves("MemberUpdate", "MemberList")),
    Signature("13429", ("alarm.nospace",), lambda finding: "was refused" in finding.text and involves("Txn")(finding)),
    Signature("14663", ("auth.anonymous", "auth.denied"), _last("MoveLeader")),
    Signature("22134", ("alarm.nospace",), lambda finding: "was done" in finding.text and _last("Txn", asks=_is_nested)(
        finding)),
    # What is done by a member whose store is full is done without a look at anybody's rights.
    Signature("22386", ("auth.denied", "auth.anonymous"), _is_let_through_when_full, _when_full),
    # Of what is nested nobody is asked who they are.
    Signature("CVE-2026-33343", ("auth.denied", "auth.anonymous"), _last("Txn", asks=_is_nested)),
    Signature("CVE-2026-33413", ("auth.anonymous",), _last("MemberList", "LeaseGrant", "Alarm")),
    Signature("CVE-2026-44283", ("auth.denied",), _last("Txn", asks=_shows_or_leases)),
    Signature("GHSA-xg4h-6gfc-h4m8", ("auth.denied",), _last("Watch", asks=_is_open_ended)),
    Signature("22386", ("auth.denied", "auth.anonymous", "auth.granted"), _any, Past.rights_may_differ_since_full),
)  # fmt: skip
"""Those of a violation are tried in this order."""


def looks(issue: str) -> Looks | None:
    """Return how violations of a bug look; None for one without a signature."""
    found = [each for each in SIGNATURES if each.issue == issue]
    if not found:
        return None
    return lambda finding: any(each.looks(finding) for each in found if finding.rule in each.rules)


class Explanations:
    """What explains the violations of one run, by the bugs that its releases have. Takes what has happened in it."""

    def __init__(self, past: Past) -> None:
        self.past = past

    @cached_property
    def _signatures(self) -> dict[str, list[Signature]]:
        found: dict[str, list[Signature]] = {}
        for each in SIGNATURES:
            if any(map(bug_of(each.issue).is_in, self.past.versions)):
                for rule in each.rules:
                    found.setdefault(rule, []).append(each)
        return found

    def knows(self, rule: str) -> bool:
        """Whether a known bug of these releases breaks a guarantee."""
        return rule in self._signatures

    def issue(self, finding: Finding) -> str:
        """Return the issue of the bug that explains a violation; empty where none does."""
        for each in self._signatures.get(finding.rule, ()):
            if each.looks(finding) and each.happened(self.past, finding):
                return each.issue
        return ""


def _alarm(call: Call, action: str) -> bool:
    return call.method == "Alarm" and bool(call.request.get("action", "GET") == action)


def _writes(txn: pb.TxnRequest) -> bool:
    return any(op.WhichOneof("request") != "request_range" for op in _flat(txn))


def _flat(txn: pb.TxnRequest) -> Iterator[pb.RequestOp]:
    for op in (*txn.success, *txn.failure):
        if op.HasField("request_txn"):
            yield from _flat(op.request_txn)
        else:
            yield op
