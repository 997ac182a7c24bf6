"""Raft's own promises, from the members' logs: Status changes leader and term at different moments, logs do not."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.observe.raftlog import Event, Log
from loadgen.check.rules import Ledger


def elections(logs: Sequence[Log], ledger: Ledger, *, foreign: bool = False) -> None:
    """Judge the role changes of each member, in the order of its log. Takes whether the cluster is somebody's, whose
    logs are not to be had.

    Election safety, "at most one leader can be elected in a given term" (Ongaro and Ousterhout, figure 3); terms
    increase monotonically (section 5.1). Over a start of the process that is so of a term in which it has answered:
    "updated on stable storage before responding to RPCs" (figure 2). One that it had only heard of may be lost with it.
    """
    if not logs:
        for rule in ("raft.term", "raft.leader"):
            if foreign:
                ledger.absent(rule, "the members' logs are not raftload's to read")
            else:
                ledger.doubt(rule, "there are no logs of the members")
        return
    leaders: dict[int, Event] = {}
    names = {log.member: log.name for log in logs}
    answered = _answered(logs)
    for log in logs:
        term, starts = 0, False
        seen, read = {0}, {0}
        for event in log.events:
            if event.kind == "start":
                stored = read | {each for each, at in answered[log.member] if at < event.at}
                term, starts = max(seen & stored), True
            if event.kind != "became":
                continue
            ledger.judged["raft.term"] += 1
            if event.term < term:
                text = f"{log.name} was at term {term} and then became {event.detail} at term {event.term}"
                ledger.broken("raft.term", event.term, text)
            term = event.term
            seen.add(term)
            if starts:
                read.add(term)  # from where it is stored
                starts = False
            if event.detail != "leader":
                continue
            ledger.judged["raft.leader"] += 1
            other = leaders.setdefault(event.term, event)
            if other.member != event.member:
                text = f"{names[other.member]} and {log.name} both became leader at term {event.term}"
                ledger.broken("raft.leader", event.term, text)


def _answered(logs: Sequence[Log]) -> dict[str, list[tuple[int, float]]]:
    """Return by member the terms that it had stored, since another one had its answer or its request for a vote, and
    when that is known.

    A request for a pre-vote stores nothing.
    """
    found: dict[str, list[tuple[int, float]]] = {log.member: [] for log in logs}
    for log in logs:
        for event in log.events:
            if event.kind in ("granted", "refused") and event.message == "MsgVote" and event.peer != log.member:
                for member in (log.member, event.peer):
                    found.setdefault(member, []).append((event.term, event.at))
    return found
