"""From a history to its verdicts: the one function that uses all the others."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence

from loadgen.check import members, order, raft
from loadgen.check.evidence import Evidence
from loadgen.check.replay import Replay
from loadgen.check.rules import RULES, Ledger, Result
from loadgen.check.watches import read_watches
from loadgen.history.reader import History


def check(
    history: History,
    rules: Iterable[str] = tuple(RULES),
    logs: Sequence[Iterable[raft.RoleChange]] | None = None,
) -> list[Result]:
    """Returns what a history says of each of ``rules``, in their order. Takes the members' role changes for Raft's.

    Pure; the same history gives the same results.
    """
    collecting = gc.isenabled()
    # Nothing here is cyclic, and the collector would walk through millions of tuples again and again.
    gc.disable()
    try:
        return _check(history, rules, logs)
    finally:
        if collecting:
            gc.enable()


def _check(history: History, rules: Iterable[str], logs: Sequence[Iterable[raft.RoleChange]] | None) -> list[Result]:
    ledger = Ledger()
    evidence = Evidence(history)
    watches = read_watches(evidence, ledger)
    replay = Replay(evidence, watches, ledger)
    replay.run()
    order.real_time(evidence, watches, replay.resolved, ledger)
    order.members(evidence, ledger)
    order.compactions(evidence, ledger)
    members.convergence(evidence, ledger)
    raft.elections(logs, ledger)
    if not evidence.cluster.known:
        for rule in RULES:
            if rule.partition(".")[0] in ("kv", "txn", "durability", "watch") and rule != "kv.real-time":
                ledger.doubt(rule, "the history does not say what the store held before (it has no marker `cluster`)")
    if not watches:
        for rule in RULES:
            if rule.startswith("watch."):
                ledger.doubt(rule, "nobody watched")
    return [ledger.result(rule) for rule in rules]
