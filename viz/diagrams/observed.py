"""Elections that happened, as models: sequence, state graph with counts, timeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

from viz.diagrams import fit
from viz.diagrams.elections import Election, History
from viz.diagrams.model import (
    START,
    Chart,
    Item,
    Lane,
    Message,
    Note,
    Row,
    Span,
    SpanKind,
    State,
    StateGraph,
    Transition,
    clean,
    iso,
    shortened,
)
from viz.diagrams.model import Sequence as SequenceModel
from viz.diagrams.raft import ETCD, LABELS, PAPER

MOST_ITEMS = 150
_LONGEST_NOTE = 160
_KNOWN = {(each.source, each.target): each.label for each in (*ETCD, *PAPER)} | {
    ("follower", "follower"): "learns of a new term",
    ("precandidate", "precandidate"): "times out, asks again",
    (START, "follower"): "starts up",
}


def sequence(found: History, elections: Sequence[Election], most: int = MOST_ITEMS) -> SequenceModel:
    """Return who asked whom for its vote, and what came of it.

    Of more than ``most`` messages and notes the middle is left out, which a note says; so it is of what is too long for
    Mermaid. A request without an answer in the log of whom it was sent to is drawn as lost.
    """
    ids = list(found.names)
    for election in elections:
        for event in election.events:
            ids += [each for each in (event.member, event.peer) if each and each not in ids]
    items: list[Item] = []
    for election in elections:
        items += _items(found, election)
    if items:
        items = [*(Note(each) for each in _remarks(found)), *items]
    else:
        items.append(Note("no election in these logs"))
    lanes = tuple(Lane(each, found.name(each)) for each in ids) or (Lane("none", "(no member)"),)
    title = _sequence_title(found, elections)
    return fit.cut(lambda least: SequenceModel(title, lanes, tuple(shortened(items, least))), most)


def _remarks(found: History) -> list[str]:
    """Return what is to be known of the times of a picture."""
    coarse = any(log.coarse for log in found.logs)
    return [
        *(["the logs give whole seconds for Raft's lines: times may be 1 s early"] if coarse else []),
        *found.remarks,
    ]


def _sequence_title(found: History, elections: Sequence[Election]) -> str:
    if len(elections) != 1:
        return f"Observed elections: {len(elections)}"
    (election,) = elections
    if election.won is None:
        return f"Observed election: nobody won up to term {election.term}"
    since = "after the leader was lost" if election.since_lost else "after the first campaign"
    took = max(0.0, election.won - election.began)
    return f"Observed election: {found.name(election.winner)} leads term {election.term}, {took:.3f} s {since}"


def _items(found: History, election: Election) -> list[Item]:
    answered = Counter(
        (event.peer, event.member, event.message, event.term)
        for event in election.events
        if event.kind in ("cast", "rejected", "ignored")
    )
    counts: dict[tuple[str, str], str] = {}
    role: dict[str, str] = {}
    leading = {election.winner} if election.won is None else set()
    items: list[Item] = [Note(f"{iso(election.began)} is +0.000 s")]
    lost = [] if election.lost is None else [election.lost]
    for event in election.events:
        if lost and lost[0] <= event.at:
            items.append(_loss(election, lost.pop()))
        at = f"(+{max(0.0, event.at - election.began):.3f} s)"
        member, peer, term = event.member, event.peer, event.term
        if event.kind == "became":
            mine = [key for key in counts if key[0] == member]
            items += [Note(f"has {counts.pop(key)}", member) for key in mine]
            if event.detail == "leader":
                leading.add(member)
                items.append(Note(f"LEADER of term {term} {at}", member))
            elif event.detail != "follower" or role.get(member, "follower") != "follower":
                items.append(Message(member, member, f"{LABELS[event.detail]} in term {term} {at}"))
            role[member] = event.detail
        elif event.kind == "sent":
            key4 = (member, peer, event.message, term)
            arrives = answered[key4] > 0 or peer not in found.names
            answered[key4] -= answered[key4] > 0
            items.append(Message(member, peer, f"{event.message} (term {term})", "call" if arrives else "lost"))
        elif event.kind in ("cast", "rejected"):
            verb = "grants" if event.kind == "cast" else "rejects"
            items.append(Message(member, peer, f"{verb} {event.message} (term {term})", "reply"))
        elif event.kind in ("granted", "refused") and peer not in found.names and peer != member:
            verb = "grants" if event.kind == "granted" else "rejects"
            items.append(Message(peer, member, f"{verb} {event.message} (term {term})", "reply"))
        elif event.kind == "ignored":
            why = f": {event.detail}" if event.detail else ""
            items.append(Note(clean(f"ignores {event.message} of {found.name(peer)}{why}", _LONGEST_NOTE), member))
        elif event.kind == "count":
            counts[member, event.message] = f"{event.detail} ({event.message})"
        elif event.kind == "elected" and peer != member:
            items.append(Note(f"follows {found.name(peer)} in term {term} {at}", member))
    items += [_loss(election, at_last) for at_last in lost]
    items += [Note(f"has {text}", member) for (member, _), text in counts.items() if member not in leading]
    return items


def _loss(election: Election, at: float) -> Note:
    return Note(f"leader lost: its connections break (+{at - election.began:.3f} s)", election.failed)


def state_graph(found: History, since: float | None = None, until: float | None = None) -> StateGraph:
    """Return the states that members went through, and how often each transition was taken."""
    role: dict[str, str] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for event in found.events:
        if event.kind == "start":
            role[event.member] = START
        if event.kind != "became":
            continue
        before, role[event.member] = role.get(event.member), event.detail
        if before is None or (before, event.detail, event.term) == (START, "follower", 0):
            role[event.member] = event.detail if before is None else START  # term 0 is no start of a member's
            continue
        if (since is None or event.at >= since) and (until is None or event.at <= until):
            seen[before, event.detail] += 1
    used = {end for pair in seen for end in pair} - {START}
    states = tuple(
        State(each, label) for each, label in LABELS.items() if each in used or each in ("follower", "leader")
    )
    order = {START: -1} | {state.id: number for number, state in enumerate(states)}
    transitions = tuple(
        Transition(source, target, _KNOWN.get((source, target), "becomes"), count)
        for (source, target), count in sorted(seen.items(), key=lambda each: [order[end] for end in each[0]])
    )
    return StateGraph(f"Observed state changes of {len(found.logs)} members", states, transitions)


def timeline(found: History, since: float | None = None, until: float | None = None) -> Chart:
    """Return the members' roles over time, a row for each.

    A member is down from when its peers lost it, or its own last line, to its next start. It begins with the logs'
    first line and ends with their last, or at the times that are given where these are between them.
    """
    begin = found.first if since is None else min(max(since, found.first), found.last)
    end = found.last if until is None else min(until, found.last)
    end = max(begin, end)
    gone = _gone(found)
    rows = []
    for log in found.logs:
        changes: list[tuple[float, str, int]] = []
        for event in log.events:
            if event.kind == "start":
                changes.append((event.at, "", 0))
            elif event.kind == "became":
                changes.append((event.at, event.detail, event.term))
        changes += [(at, "down", 0) for at in gone[log.member]]
        changes.sort(key=lambda each: each[0])
        spans = []
        for number, (at, role, term) in enumerate(changes):
            until_at = changes[number + 1][0] if number + 1 < len(changes) else end
            start, stop = max(at, begin), min(until_at, end)
            # What a member became in the last line is what it is, though for no time that is known.
            if role and (stop > start or (stop == start and number + 1 == len(changes) and role != "down")):
                kind = "candidate" if role == "precandidate" else role
                text = "down" if role == "down" else f"{LABELS[role]}, term {term}"
                of = None if role == "down" else term
                spans.append(Span(round(start - begin, 6), round(stop - begin, 6), cast(SpanKind, kind), text, of))
        rows.append(Row(found.names[log.member], tuple(spans)))
    return fit.chart("Leadership", iso(begin), round(end - begin, 6), rows, _remarks(found))


def _gone(found: History) -> dict[str, list[float]]:
    """When each member went down: for every start but the first, the time that its peers lost it, else its last
    line before; and likewise at the end, where its peers lost it after its own last line.
    """
    lost: dict[str, list[float]] = {log.member: [] for log in found.logs}
    for event in found.events:
        if event.kind == "disconnected" and event.peer in lost:
            lost[event.peer].append(event.at)
    gone: dict[str, list[float]] = {}
    for log in found.logs:
        starts = [event.at for event in log.events if event.kind == "start"]
        gone[log.member] = []
        for start in [*starts[1:], float("inf")]:
            own = [event.at for event in log.events if event.at < start and event.kind != "start"]
            last = log.last if start == float("inf") else max(own, default=start)
            seen = [at for at in lost[log.member] if max(own, default=0.0) <= at < start]
            if start != float("inf"):
                gone[log.member].append(min(seen, default=last))
            elif seen and min(seen) >= last:
                gone[log.member].append(min(seen))
    return gone
