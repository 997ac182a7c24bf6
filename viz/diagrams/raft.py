"""Raft's diagrams: the Raft paper's figures, and what etcd adds, for members of any number and name.

Pure: names and a variant in, a model out. The registry DIAGRAMS says which variants each type has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from viz.diagrams.model import START, Lane, Message, Note, State, StateGraph, Transition, clean_name
from viz.diagrams.model import Sequence as SequenceModel

Item = Message | Note
Diagram = StateGraph | SequenceModel

# Figure 4 of "In Search of an Understandable Consensus Algorithm", labels to the letter.
PAPER = (
    Transition(START, "follower", "starts up"),
    Transition("follower", "candidate", "times out, starts election"),
    Transition("candidate", "candidate", "times out, new election"),
    Transition("candidate", "leader", "receives votes from majority of servers"),
    Transition("candidate", "follower", "discovers current leader or new term"),
    Transition("leader", "follower", "discovers server with higher term"),
)
# etcd's raft library with PreVote and CheckQuorum, both on by default since 3.4.
ETCD = (
    Transition(START, "follower", "starts up"),
    Transition(START, "learner", "is added as learner"),
    Transition("learner", "follower", "is promoted to voting member"),
    Transition("follower", "precandidate", "times out, asks for pre-votes"),
    Transition("precandidate", "precandidate", "times out, asks again"),
    Transition("precandidate", "candidate", "receives pre-votes from majority of servers"),
    Transition("precandidate", "follower", "is refused by a majority, or discovers current leader or new term"),
    Transition("follower", "candidate", "is told by the leader to take over"),
    Transition("candidate", "precandidate", "times out, new election"),
    Transition("candidate", "leader", "receives votes from majority of servers"),
    Transition("candidate", "follower", "is refused by a majority, or discovers current leader or new term"),
    Transition("leader", "follower", "discovers server with higher term, or hears from no majority (CheckQuorum)"),
)
LABELS = {
    "learner": "Learner", "follower": "Follower", "precandidate": "PreCandidate", "candidate": "Candidate",
    "leader": "Leader",
}  # fmt: skip


def state_machine(variant: str = "paper", now: Mapping[str, Sequence[str]] | None = None) -> StateGraph:
    """Return the states of a server.

    Takes ``paper`` or ``etcd``, and who is in which state now (``{"leader": ["etcd-node1"]}``) where a
    cluster was asked; returns the graph.
    """
    now = now or {}
    wanted = ("follower", "candidate", "leader") if variant == "paper" else tuple(LABELS)
    states = tuple(
        State(name, LABELS[name], "now: " + ", ".join(map(clean_name, now[name])) if now.get(name) else "")
        for name in wanted
    )
    title = "Raft server states (Raft paper, figure 4)" if variant == "paper" else "Raft server states in etcd"
    return StateGraph(title, states, PAPER if variant == "paper" else ETCD)


def log_replication(names: Sequence[str], variant: str = "normal", leader: int = 0) -> SequenceModel:
    """One write from the client's call to its answer.

    Takes the members' names, ``normal``, ``slow-follower`` or ``conflict``, and which member leads; returns
    the sequence. The last follower is the one that is slow, or whose log differs.
    """
    lanes = (Lane("client", "client"), *_lanes(names))
    members = [lane.id for lane in lanes[1:]]
    lead = members[leader]
    followers = [each for each in members if each != lead]
    odd = followers[-1] if followers and variant != "normal" else None
    quorum = len(members) // 2 + 1
    items: list[Item] = []
    if variant == "conflict" and odd is not None:
        items += _conflict(lead, odd)
    items += [Message("client", lead, "put x=1"), Message(lead, lead, "append entry 8 (term 3), fsync")]
    answers = 1  # the leader's own copy
    committed = False

    def commit() -> None:
        items.append(Note(f"{answers} of {len(members)} is a majority: entry 8 is committed", lead))
        items.append(Message(lead, lead, "apply entry 8"))
        items.append(Message(lead, "client", "OK", "reply"))

    items += [Message(lead, each, "AppendEntries (entry 8, commit 7)") for each in followers]
    late = odd if variant == "slow-follower" else None
    for each in [*(one for one in followers if one != late), *([late] if late else [])]:
        if answers >= quorum and not committed:
            commit()
            committed = True
        if each == late:
            items.append(Note("answers late: slow disk or network", each))
        items += [Message(each, each, "append entry 8, fsync"), Message(each, lead, "OK, matches up to 8", "reply")]
        answers += 1
    if not committed:
        commit()
    for each in followers:
        items += [Message(lead, each, "heartbeat (commit 8)"), Message(each, each, "apply entry 8")]
    if odd is None and variant != "normal":
        items.append(Note("a cluster of one has no follower: nothing to wait for, nothing to repair"))
    titles = {
        "normal": "Raft log replication",
        "slow-follower": "Raft log replication with a slow follower",
        "conflict": "Raft log replication: a conflicting log is repaired",
    }
    return SequenceModel(titles[variant], lanes, tuple(items))


def _conflict(lead: str, odd: str) -> list[Item]:
    return [
        Note("has entries 6 and 7 of term 2, which were never committed", odd),
        Message(lead, odd, "AppendEntries (after 7 of term 3, empty)"),
        Message(odd, lead, "rejected: my 7 is of term 2", "reply"),
        Message(lead, odd, "AppendEntries (after 6 of term 3, entry 7)"),
        Message(odd, lead, "rejected: my 6 is of term 2", "reply"),
        Message(lead, odd, "AppendEntries (after 5 of term 1, entries 6 and 7)"),
        Message(odd, odd, "drop 6 and 7 of term 2, append the leader's, fsync"),
        Message(odd, lead, "OK, matches up to 7", "reply"),
    ]


def leader_election(names: Sequence[str], variant: str = "normal", leader: int = 0) -> SequenceModel:
    """Return what happens when a leader fails, or, in ``pre-vote-refused``, when one member only believes so.

    Takes the members' names, a variant and which member leads in term 1; returns the sequence.
    """
    lanes = _lanes(names)
    members = [lane.id for lane in lanes]
    old = members[leader]
    living = members[leader + 1 :] + members[:leader]  # the next one times out first
    if not living:
        items = _alone(old, variant)
    elif variant == "pre-vote-refused":
        items = _refused(old, living)
    else:
        items = [Message(old, each, "heartbeat (term 1)") for each in living] + [Note("leader of term 1 fails", old)]
        items += {"normal": _normal, "split-vote": _split, "pre-vote": _pre_vote}[variant](old, living)
    titles = {
        "normal": "Raft leader election",
        "split-vote": "Raft leader election with a split vote",
        "pre-vote": "Raft leader election with PreVote",
        "pre-vote-refused": "Raft PreVote: a member that was cut off does not disturb",
    }
    return SequenceModel(titles[variant], lanes, tuple(items))


def _alone(only: str, variant: str) -> list[Item]:
    items: list[Item] = [Message(only, only, "election timeout")]
    if variant.startswith("pre-vote"):
        items.append(Note("PreCandidate: its own pre-vote is a majority of one", only))
    items += [Message(only, only, "votes for itself in term 1"), Note("1 of 1 is a majority: leader of term 1", only)]
    if variant == "split-vote":
        items.append(Note("a cluster of one has no vote to split"))
    return items


def _normal(old: str, living: Sequence[str]) -> list[Item]:
    return [Message(living[0], living[0], "election timeout"), *_campaign(old, living, 2)]


def _campaign(old: str, living: Sequence[str], term: int) -> list[Item]:
    """Let the first of the living ask all for their votes; it leads if they are a majority."""
    first, voters = living[0], living[1:]
    size = len(living) + 1
    items: list[Item] = [Message(first, first, f"candidate in term {term}, votes for itself")]
    items += [Message(first, each, f"RequestVote (term {term})") for each in voters]
    items.append(Message(first, old, f"RequestVote (term {term})", "lost"))
    items += [Message(each, first, f"vote granted (term {term})", "reply") for each in voters]
    if len(living) < size // 2 + 1:
        return [*items, Note(f"{len(living)} of {size} is no majority: no leader until the other is back", first)]
    items.append(Note(f"{len(living)} of {size} is a majority: leader of term {term}", first))
    return items + [Message(first, each, f"heartbeat (term {term})") for each in voters]


def _split(old: str, living: Sequence[str]) -> list[Item]:
    if len(living) < 2:
        return [Note("one voter is left: no vote to split"), *_normal(old, living)]
    pair = living[:2]
    votes = {each: [each] for each in pair}
    for number, each in enumerate(living[2:]):
        votes[pair[number % 2]].append(each)
    items: list[Item] = []
    for each in pair:
        items += [Message(each, each, "election timeout"), Message(each, each, "candidate in term 2, votes for itself")]
    for first, second in (pair, pair[::-1]):
        items += [Message(first, each, "RequestVote (term 2)") for each in living if each != first]
        items.append(Message(second, first, "refused: has voted in term 2", "reply"))
    for each in living[2:]:
        chosen = next(one for one in pair if each in votes[one])
        other = next(one for one in pair if one != chosen)
        items.append(Message(each, chosen, "vote granted (term 2)", "reply"))
        items.append(Message(each, other, "refused: has voted in term 2", "reply"))
    size = len(living) + 1
    items += [Note(f"{len(votes[one])} of {size} is no majority", one) for one in pair]
    items.append(Note("split vote: nobody leads in term 2; timeouts are random, so one is first"))
    return [*items, Message(pair[0], pair[0], "election timeout"), *_campaign(old, living, 3)]


def _pre_vote(old: str, living: Sequence[str]) -> list[Item]:
    first, voters = living[0], living[1:]
    size = len(living) + 1
    items: list[Item] = [
        Message(first, first, "election timeout"),
        Message(first, first, "PreCandidate, its term stays 1"),
    ]
    items += [Message(first, each, "PreVote (for term 2)") for each in voters]
    items.append(Message(first, old, "PreVote (for term 2)", "lost"))
    items += [Message(each, first, "would vote: hears no leader either", "reply") for each in voters]
    if len(living) < size // 2 + 1:
        return [*items, Note(f"{len(living)} of {size} is no majority: it stays PreCandidate in term 1", first)]
    return [*items, Note(f"{len(living)} of {size} is a majority: it may campaign", first), *_campaign(old, living, 2)]


def _refused(leader: str, followers: Sequence[str]) -> list[Item]:
    cut, others = followers[0], followers[1:]
    items: list[Item] = [Message(leader, each, "heartbeat (term 1)") for each in others]
    items += [
        Message(leader, cut, "heartbeat (term 1)", "lost"),
        Note("cut off from the others", cut),
        Message(cut, cut, "election timeout"),
        Message(cut, cut, "PreCandidate, its term stays 1"),
        Note("the network is whole again"),
    ]
    for each in (leader, *others):
        items.append(Message(cut, each, "PreVote (for term 2)"))
    items += [Note("ignored: hears from a leader, so it does not answer", each) for each in (leader, *others)]
    items += [Message(leader, each, "heartbeat (term 1)") for each in followers]
    return [*items, Note("follower again: no election, no new term", cut)]


def _lanes(names: Sequence[str]) -> tuple[Lane, ...]:
    return tuple(Lane(f"m{number}", clean_name(name)) for number, name in enumerate(names, 1))


# Type -> its variants, the first being the default.
DIAGRAMS: Mapping[str, tuple[str, ...]] = {
    "state-machine": ("paper", "etcd"),
    "log-replication": ("normal", "slow-follower", "conflict"),
    "leader-election": ("normal", "split-vote", "pre-vote", "pre-vote-refused"),
}
_SEQUENCES: Mapping[str, Callable[[Sequence[str], str, int], SequenceModel]] = {
    "log-replication": log_replication,
    "leader-election": leader_election,
}


def diagram(
    kind: str, names: Sequence[str], variant: str, leader: int = 0, now: Mapping[str, Sequence[str]] | None = None
) -> Diagram:
    """Any of DIAGRAMS by its name; see the functions above for what the rest means."""
    return state_machine(variant, now) if kind == "state-machine" else _SEQUENCES[kind](names, variant, leader)
