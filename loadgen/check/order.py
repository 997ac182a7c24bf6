"""The check of the order of revisions against real time, in O(n log n), without a search.

Strict serializability (Herlihy and Wing; etcd, "KV API guarantees"): what completed before an operation was invoked
comes before it. So no operation may have an older revision than anything that had returned when it was called, and a
write, which makes a revision of its own, must have a newer one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from loadgen.check.evidence import WRITE, Evidence
from loadgen.check.rules import Ledger
from loadgen.check.watches import Watch
from loadgen.history.format import OK, Method
from loadgen.proto import etcd_pb2 as pb

Numbers = NDArray[np.int64]


def real_time(evidence: Evidence, watches: list[Watch], resolved: dict[int, int], ledger: Ledger) -> None:
    """Judge linearizable operations, with those of unknown outcome whose revision is known by now (``resolved``).

    What a client was shown counts as evidence whatever showed it: a serializable read and a watch event too.
    """
    answered = np.flatnonzero((evidence.outcome == OK) & (evidence.revision > 0))
    late = np.array(sorted(resolved), np.int64)
    for clock in np.unique(evidence.clocks[answered]).tolist():
        witnesses = answered[evidence.clocks[answered] == clock]
        shown = [watch for watch in watches if watch.clock == clock and watch.times]
        back = np.concatenate([evidence.back[witnesses], *(np.frombuffer(watch.times, np.int64) for watch in shown)])
        has = np.concatenate(
            [evidence.revision[witnesses], *(np.frombuffer(watch.revisions, np.int64) for watch in shown)]
        )
        judged = witnesses[evidence.ordered[witnesses]]
        revisions = evidence.revision[judged]
        strict = evidence.writes[judged] == WRITE
        unknown = late[evidence.clocks[late] == clock] if len(late) else late
        if len(unknown):
            judged = np.concatenate((judged, unknown))
            revisions = np.concatenate((revisions, np.array([resolved[each] for each in unknown.tolist()], np.int64)))
            strict = np.concatenate((strict, np.ones(len(unknown), np.bool_)))
        ledger.judged["kv.real-time"] += len(judged)

        def words(place: int, witnesses: Numbers = witnesses, shown: list[Watch] = shown) -> str:
            if place < len(witnesses):
                return evidence.words(int(witnesses[place]))
            place -= len(witnesses)
            for watch in shown:
                if place < len(watch.times):
                    return f"{watch.label} showed it at {evidence.time(watch.times[place])}"
                place -= len(watch.times)
            raise IndexError(place)

        _falls(evidence, ledger, "kv.real-time", judged, revisions, strict, back, has, words)


def members(evidence: Evidence, ledger: Ledger) -> None:
    """Judge that the revision of each member never falls, whoever asks it, and over restarts as well.

    From etcd 3.6 a member answers serializable requests before it has caught up after a restart; they are excepted.
    So are those that went through an `etcd grpc-proxy`: it has a cache of their answers.
    """
    told = (evidence.outcome == OK) & (evidence.revision > 0) & (evidence.member > 0)
    told &= evidence.ordered | ~evidence.proxied
    restarts = sorted(
        (marker.at_ns, str(marker.details.get("member", "")))
        for marker in evidence.history.markers
        if marker.name == "restart"
    )
    for member in np.unique(evidence.member[told]).tolist():
        version = evidence.cluster.versions.get(member, "")
        lenient = _is_3_6(version) and any(name == evidence.member_name(member) for _, name in restarts)
        for clock in np.unique(evidence.clocks[told]).tolist():
            numbers = np.flatnonzero(told & (evidence.member == member) & (evidence.clocks == clock))
            judged = numbers[evidence.ordered[numbers]] if lenient else numbers
            ledger.judged["durability.revision"] += len(judged)

            def words(place: int, numbers: Numbers = numbers) -> str:
                return evidence.words(int(numbers[place]))

            revisions = evidence.revision[judged]
            _falls(
                evidence, ledger, "durability.revision", judged, revisions, np.zeros(len(judged), np.bool_),
                evidence.back[numbers], evidence.revision[numbers], words,
            )  # fmt: skip


def _falls(
    evidence: Evidence,
    ledger: Ledger,
    rule: str,
    judged: Numbers,
    revisions: Numbers,
    strict: NDArray[np.bool_],
    back: Numbers,
    has: Numbers,
    words: Callable[[int], str],
) -> None:
    """Report operations whose revision is older than (``strict``: not newer than) one returned before their call."""
    if not len(judged) or not len(back):
        return
    order = np.argsort(back, kind="stable")
    newest = np.maximum.accumulate(has[order])
    before = np.searchsorted(back[order], evidence.call[judged], side="left") - 1
    known = np.where(before >= 0, newest[np.maximum(before, 0)], -1)
    bad = np.flatnonzero((before >= 0) & (revisions < known + strict))
    for each in bad[np.argsort(evidence.call[judged[bad]], kind="stable")].tolist():
        number, revision = int(judged[each]), int(revisions[each])

        def text(each: int = each, number: int = number, revision: int = revision) -> str:
            seen = order[: int(before[each]) + 1]
            witness = int(seen[np.flatnonzero(has[seen] == known[each])[0]])
            relation = "is not newer" if int(known[each]) == revision else "is older"
            return (
                f"{evidence.words(number)} has revision {revision}, which {relation} than revision {int(known[each])}"
                f" of {words(witness)}, over before it was invoked"
            )

        ledger.broken(rule, revision, text)


def compactions(evidence: Evidence, ledger: Ledger) -> None:
    """Judge reads of past revisions against the compactions of the history."""
    compacts = np.flatnonzero(evidence.method == Method.COMPACT)
    done = compacts[evidence.outcome[compacts] == OK]
    tried = compacts[evidence.outcome[compacts] != 1]
    asked = {int(number): evidence.request(int(number), pb.CompactionRequest).revision for number in compacts.tolist()}
    tried = tried[np.argsort(evidence.call[tried], kind="stable")]
    tried_calls = evidence.call[tried]
    farthest = np.maximum.accumulate(np.array([asked[each] for each in tried.tolist()], np.int64))
    reads = np.flatnonzero(evidence.method == Method.RANGE)
    ledger.absent("kv.compaction", "nothing was compacted, and no past revision was asked for")
    tried_all = evidence.cluster.exclusive and not evidence.history.cut
    by_back = done[np.argsort(evidence.back[done], kind="stable")]
    back = evidence.back[by_back]
    newest = np.maximum.accumulate(np.array([asked[each] for each in by_back.tolist()], np.int64))
    past = reads[
        (evidence.outcome[reads] == OK) & evidence.ordered[reads] & (evidence.at[reads] < evidence.revision[reads])
    ]
    ledger.judged["kv.compaction"] += len(past)
    before = np.searchsorted(back, evidence.call[past], side="left") - 1
    floor = newest[np.maximum(before, 0)] if len(newest) else np.zeros(len(past), np.int64)
    for place in np.flatnonzero((before >= 0) & (evidence.at[past] < floor)).tolist():
        number, witness = int(past[place]), int(by_back[before[place]])
        ledger.broken(
            "kv.compaction", int(evidence.at[number]),
            f"{evidence.words(number)} was answered,"
            f" though {evidence.words(witness)} was over before it was invoked",
        )  # fmt: skip
    newest_known = np.flatnonzero((evidence.outcome == OK) & (evidence.revision > 0))
    order = newest_known[np.argsort(evidence.back[newest_known], kind="stable")]
    reached, when = np.maximum.accumulate(evidence.revision[order]), evidence.back[order]
    refused = reads[(evidence.outcome[reads] == 1) & (evidence.answered[reads])]
    for number in refused.tolist():
        # etcd has one code, OUT_OF_RANGE, for both, so the text has to tell them apart.
        error = evidence.error(number)
        revision = evidence.request(number, pb.RangeRequest).revision
        if "has been compacted" in error and tried_all:
            ledger.judged["kv.compaction"] += 1
            place = int(np.searchsorted(tried_calls, evidence.back[number], side="left")) - 1
            if place < 0 or farthest[place] <= revision:
                ledger.broken(
                    "kv.compaction", revision,
                    f"{evidence.words(number)}, and no compaction had reached that revision",
                )  # fmt: skip
        elif "future revision" in error and not evidence.request(number, pb.RangeRequest).serializable:
            ledger.judged["kv.compaction"] += 1
            place = int(np.searchsorted(when, evidence.call[number], side="left")) - 1
            if place >= 0 and reached[place] >= revision:
                ledger.broken(
                    "kv.compaction", revision,
                    f"{evidence.words(number)}, though revision"
                    f" {int(reached[place])} had been answered before it was invoked",
                )  # fmt: skip


def _is_3_6(version: str) -> bool:
    parts = version.split(".")
    return len(parts) > 1 and all(part.isdigit() for part in parts[:2]) and (int(parts[0]), int(parts[1])) >= (3, 6)
