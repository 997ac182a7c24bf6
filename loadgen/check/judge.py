"""The verdicts on a history: the one function that uses all the others."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterable, Sequence

from cluster.observe.raftlog import Log
from loadgen.check import actors, availability, convergence, order, raft
from loadgen.check.evidence import Evidence
from loadgen.check.replay import Replay
from loadgen.check.rules import OF_CALLS, OF_HISTORY, RULES, Ledger, Result, in_order
from loadgen.check.signatures import CONVERGENCE, Explanations, Past
from loadgen.check.watches import Watch, read_watches
from loadgen.history.calls import Calls
from loadgen.history.format import Method
from loadgen.history.reader import History

_CACHED = "an etcd grpc-proxy answers serializable reads from its cache, which may be older than what was seen before"
_ANY_MEMBER = "an etcd grpc-proxy asks any member behind it, so members cannot be told apart"
# What etcd promises and its proxy does not.
_NOT_THROUGH_A_PROXY = {
    "durability.acknowledged": _ANY_MEMBER,
    "durability.revision": _CACHED,
    "convergence.revision": _ANY_MEMBER,
    "convergence.hash": _ANY_MEMBER,
    "convergence.keys": _ANY_MEMBER,
}


# What only writes test, and of these what only those test that are no transaction.
_OF_WRITES = ("kv.revisions", "kv.explained", "kv.failed", "kv.once", "durability.acknowledged")
_ALONE = {Method.PUT, Method.DELETE_RANGE}


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes:
        results: one for each guarantee that was asked for.
        operations, watches: how many the history has.
        lease_overdue_s: how long a lease lived on after its time at most; None where none ran out. etcd promises no
            bound here.
        nearest_fault: the last one that began before the first violation was seen, of those that no known bug explains
            where there are any, in words; None where there is none of either.
    """

    results: list[Result]
    operations: int
    watches: int
    lease_overdue_s: float | None
    nearest_fault: str | None = None


def check(
    history: History,
    rules: Iterable[str] = OF_HISTORY,
    logs: Sequence[Log] = (),
    calls: Calls | None = None,
) -> Report:
    """Return what a history says of each of ``rules``, in their order.

    Takes the members' logs for Raft's, and the calls of actors for those of users and members, where there is a record.

    Pure; the same history gives the same results.
    """
    collecting = gc.isenabled()
    # Nothing here is cyclic, and the collector would walk through millions of tuples again and again.
    gc.disable()
    try:
        return _check(history, rules, logs, calls)
    finally:
        if collecting:
            gc.enable()


def _check(history: History, rules: Iterable[str], logs: Sequence[Log], calls: Calls | None) -> Report:
    evidence = Evidence(history)
    past = Past(evidence, calls)
    ledger = Ledger(Explanations(past))
    convergence.convergence(evidence, ledger)
    past.parted = [found for rule in CONVERGENCE for found in ledger.findings(rule)]
    past.watches = watches = read_watches(evidence, ledger)
    replay = Replay(evidence, watches, ledger)
    replay.run()
    order.real_time(evidence, watches, replay.resolved, ledger)
    order.members(evidence, ledger)
    order.compactions(evidence, ledger)
    _unused(evidence, ledger)
    raft.elections(logs, ledger, foreign=evidence.cluster.known and not evidence.cluster.exclusive)
    _actors(calls, evidence, watches, ledger)
    if evidence.cluster.only_proxies:
        for rule, reason in _NOT_THROUGH_A_PROXY.items():
            ledger.excuse(rule, reason)
    if not evidence.cluster.known:
        for rule in RULES:
            if rule.partition(".")[0] in ("kv", "txn", "durability", "watch") and rule != "kv.real-time":
                ledger.doubt(rule, "the history does not say what the store held before (it has no marker `cluster`)")
    if not watches:
        for rule in RULES:
            if not rule.startswith("watch."):
                continue
            if evidence.cluster.watched:
                ledger.doubt(rule, "the history has no watch")
            else:
                ledger.absent(rule, "the run watched nothing")
    results = [ledger.result(rule) for rule in rules]
    first = min((result.findings[0] for result in results if result.findings), key=in_order, default=None)
    fault = None if first is None else evidence.nearest_fault(first.revision)
    return Report(results, len(evidence.rows), len(watches), replay.leases.latest_s, fault)


def _actors(calls: Calls | None, evidence: Evidence, watches: Sequence[Watch], ledger: Ledger) -> None:
    if calls is not None:
        actors.judge(calls, ledger)
        # Of a run by actors alone: under a load, what watches fall behind for slows writes down as well.
        availability.watches_apart(evidence, watches, ledger)
    for rule in OF_CALLS:
        if calls is None:
            ledger.absent(rule, actors.NOTHING_RECORDED)
        elif calls.cut:
            ledger.doubt(rule, f"the record of calls is cut: {calls.cut}")


def _unused(evidence: Evidence, ledger: Ledger) -> None:
    """Say what a history leaves untested because its load had no such operation, as one of reads alone."""
    asked = set(evidence.method.tolist())
    if asked and not asked & _ALONE:
        ledger.absent("kv.writes", "there is no put and no deletion in the history")
        if Method.TXN not in asked:
            for rule in _OF_WRITES:
                ledger.absent(rule, "there is no write in the history")
