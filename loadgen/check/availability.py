"""The promises about being served: reads that are answered, leases that end, and others that a slow watch leaves alone.

They are judged where the record shows that something else was served at the same time, so that no bound on how fast a
machine is decides.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loadgen.check.call_record import words
from loadgen.check.evidence import Evidence
from loadgen.check.rules import Ledger
from loadgen.check.watches import Watch
from loadgen.history.calls import Call, Calls
from loadgen.history.format import OK, Method

_Times = NDArray[np.int64]
_NS = 1_000_000_000
# What a member answers when the log of Raft has taken it.
_WRITES = frozenset({"Put", "DeleteRange", "Compact", "LeaseGrant", "LeaseRevoke"})
# A member that has lost its leader says so after an election timeout, which is 1 s by default; a read that waits for a
# leader asks it again every 0.5 s.
_SETTLED_NS, _LATE_NS = 2 * _NS, _NS
# By the latter, leases that ran out would have been revoked.
_OVERDUE_NS, _REVOKED_NS = 10 * _NS, 3 * _NS
_FAR, _TURNS, _PUTS, _RANK, _RATIO = 5_000, 3, 50, 4, 3.0
# What the work of a client may take from its own puts.
_OURS_NS = 5_000_000


def reads(record: Calls, ledger: Ledger) -> None:
    """Judge ``member.reads``.

    A linearizable read that was given up is a violation where its member answered serializable reads, knew a leader and
    had writes done, long after the read had begun and long before its end: there was nothing to wait for. Writes show
    that neither the log of Raft nor the leader stood still.

    Source: etcd.io, "KV API guarantees": etcd ensures linearizability for all operations but watches, and serializable
    reads are those that may be stale; "Failure modes": a cluster with a majority goes on.
    """
    by_begin = sorted((call for call in record.calls if call.ok), key=lambda call: call.invoked_ns)
    begun = [call.invoked_ns for call in by_begin]
    for call in record.calls:
        if call.method != "Range" or call.request.get("serializable"):
            continue
        if call.ok:
            ledger.judged["member.reads"] += 1
            continue
        if call.error != "DEADLINE_EXCEEDED":
            continue
        since, until = call.invoked_ns + _SETTLED_NS, call.completed_ns - _LATE_NS
        beside = [
            each for each in by_begin[bisect_left(begun, since) : bisect_left(begun, until)]
            if each.member == call.member and each.completed_ns <= until
        ]  # fmt: skip
        stale = next((each for each in beside if each.method == "Range" and each.request.get("serializable")), None)
        led = next((each for each in beside if each.method == "Status" and (each.answer or {}).get("leader")), None)
        wrote = next((each for each in beside if each.method in _WRITES), None)
        touched = any(
            event.member == call.member and call.invoked_ns < event.at_ns < call.completed_ns for event in record.events
        )
        if stale is None or led is None or wrote is None or touched:
            continue
        ledger.judged["member.reads"] += 1
        waited_s = (call.completed_ns - call.invoked_ns) / 1e9
        text = (
            f"{words(call)}: no answer in {waited_s:.1f} s, while the member answered the serializable read of call"
            f" {stale.number} and the write of call {wrote.number}, and knew a leader (call {led.number})"
        )
        ledger.broken("member.reads", 0, text, (call, stale, wrote, led))
    ledger.absent("member.reads", "nobody read linearizably")


def leases(calls: Sequence[Call], ledger: Ledger) -> None:
    """Judge ``lease.ends``.

    A member that still lists a lease whose time has been over for 10 s has lost track of it: etcd looks for those that
    ran out twice a second, and revokes a thousand a second. It is judged where that member had something done by the
    log well after the time was over: who has no majority, a stuck disk or a long pause revokes nothing.

    Source: etcd's API reference, service Lease: "the lease will expire in under TTL+1 seconds"; "Lease APIs".
    """
    done: dict[str, list[Call]] = defaultdict(list)
    for call in sorted(calls, key=lambda each: each.invoked_ns):
        if call.ok and call.method in _WRITES:
            done[call.member].append(call)
    for call in calls:
        if call.method != "LeaseTimeToLive" or not call.ok:
            continue
        answer = call.answer or {}
        left_s = int(answer.get("TTL", 0))
        over_ns = call.completed_ns + left_s * _NS  # when its time was over, at the latest
        if not answer.get("grantedTTL") or call.invoked_ns - over_ns <= _OVERDUE_NS:
            ledger.judged["lease.ends"] += 1
            continue
        beside = done[call.member]
        first = bisect_left(beside, over_ns + _REVOKED_NS, key=lambda each: each.invoked_ns)
        if any(each.completed_ns < call.invoked_ns for each in beside[first:]):
            ledger.judged["lease.ends"] += 1
            text = f"{words(call)}: the lease is there {-left_s} s after its time of {answer['grantedTTL']} s was over"
            ledger.broken("lease.ends", 0, text, (call,))
    ledger.absent("lease.ends", "nobody asked for the time to live of a lease")


def watches_apart(evidence: Evidence, watches: Sequence[Watch], ledger: Ledger) -> None:
    """Judge ``member.fair``.

    Compares the puts while a watch catches up, by thousands of revisions, with those of the time before it. It is
    judged where that happened several times, each with many puts: the slow ones among the puts have to be slower in
    every turn than in every time between them, and several times so. A slow machine is slow in both.

    Source: etcd's ``watchable_store.go``, which syncs watchers "to be fair to other store operations".
    """
    ledger.absent("member.fair", "no watch caught up by thousands of revisions several times, beside puts")
    puts = np.flatnonzero((evidence.method == Method.PUT) & (evidence.outcome == OK))
    if not len(puts) or len(set(evidence.clock_of_part.tolist())) > 1:
        return
    for member in {watch.member for watch in watches}:
        at = puts[evidence.member[puts] == member]
        at = at[np.argsort(evidence.call[at], kind="stable")]
        calls, times = evidence.call[at], evidence.back[at] - evidence.call[at]
        behind = sorted(
            (watch for watch in watches
             if watch.member == member and watch.created - watch.start >= _FAR and watch.caught_up_ns),
            key=lambda watch: watch.began_ns,
        )  # fmt: skip
        turns: list[tuple[int, int, Watch]] = []
        last_ns = 0
        for watch in behind:
            began, end = watch.began_ns, watch.caught_up_ns
            beside = _slow_put(calls, times, began, end)
            before = _slow_put(calls, times, max(last_ns, began - (end - began)), began)  # a time as long as its own
            if beside is not None and before is not None:
                turns.append((beside, before, watch))
            last_ns = end
        if len(turns) < _TURNS:
            continue
        ledger.judged["member.fair"] += len(turns)
        least, most = min(a for a, _, _ in turns), max(b for _, b, _ in turns)
        if least > _RATIO * most and least - most > _OURS_NS:
            watch = turns[0][2]
            ledger.broken(
                "member.fair", int(watch.start),
                f"while {watch.label} caught up with {watch.created - watch.start:,} revisions, the {_RANK + 1}th"
                f" slowest put took {least / 1e6:.1f} ms or more in each of {len(turns)} turns, and {most / 1e6:.1f} ms"
                " or less in each time before one",
            )  # fmt: skip


def _slow_put(calls: _Times, times: _Times, low_ns: int, high_ns: int) -> int | None:
    """Return how long one of the slowest puts of a span took, in nanoseconds; None where there were too few."""
    found = times[np.searchsorted(calls, low_ns) : np.searchsorted(calls, high_ns)]
    return int(np.sort(found)[-1 - _RANK]) if len(found) >= _PUTS else None
