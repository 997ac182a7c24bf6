"""Elections as polls of the members' status show them, for a cluster whose logs cannot be had.

Status names the leader, but no candidate and no vote, and an election between two polls leaves at most a new term
behind. So each picture says that it is of polls and how far apart they were, and nothing is drawn between a poll that
a member answered and one that it did not.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from cluster.base.security import Security
from cluster.base.signals import Interrupted, interruptible
from cluster.observe.log_times import parse_time
from viz.diagrams import fit
from viz.diagrams.model import (
    Chart,
    ClusterSnapshot,
    Item,
    Lane,
    Note,
    Role,
    Row,
    Span,
    SpanKind,
    State,
    StateGraph,
    Transition,
    clean_name,
    iso,
    or_unknown,
    shortened,
)
from viz.diagrams.model import Sequence as SequenceModel
from viz.live.snapshot import Poller

EVERY_S = 0.1
MOST_NOTES = 150
_TIMEOUT_S = 0.5
_KINDS: dict[Role, SpanKind] = {"leader": "leader", "follower": "follower", "learner": "follower", "no answer": "down"}
_LABELS: dict[Role, str] = {
    "leader": "Leader", "follower": "Follower", "learner": "Learner", "no leader": "Knows no leader",
    "no answer": "Does not answer", "not shown": "Shows no status",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterPoll:
    """One poll of all members: when, in seconds since 1970, and each one's role and term (None: it said none)."""

    at: float
    members: Mapping[str, tuple[Role, int | None]]

    @property
    def leader(self) -> tuple[str, int] | None:
        """Who says that it leads, and in which term; of several the one of the newest."""
        leading = [(term or 0, name) for name, (role, term) in self.members.items() if role == "leader"]
        return (max(leading)[1], max(leading)[0]) if leading else None


def look(at: float, snapshot: ClusterSnapshot) -> ClusterPoll:
    """Take what ``snapshot.Poller`` saw at a time."""
    return ClusterPoll(at, {member.name: (member.role, member.term) for member in snapshot.members})


def poll(
    endpoints: Sequence[str],
    for_s: float,
    sleep: Callable[[float], None] = time.sleep,
    security: Security | None = None,
) -> list[ClusterPoll]:
    """Poll a cluster ten times a second for so many seconds, or until Ctrl-C.

    ``security`` is how to speak TLS to it and who logs in. Raises NoCluster where nobody answers the first time.
    """
    poller = Poller(endpoints, _TIMEOUT_S, security, quorum=False)
    polls: list[ClusterPoll] = []
    began = time.monotonic()
    try:
        # Of its own: what is caught inside of one counts as lost.
        with interruptible():
            while not polls or time.monotonic() - began < for_s:
                due = time.monotonic() + EVERY_S
                at = time.time()
                polls.append(look(at, poller.poll()[0]))
                sleep(max(0.0, due - time.monotonic()))
    except Interrupted as ended:
        if not polls or ended.number != signal.SIGINT:
            raise
    return polls


def read(lines: Iterable[str]) -> tuple[list[ClusterPoll], int]:
    """Take lines that ``--type cluster-status --watch --json`` wrote.

    Returns the polls, and how many lines were none.
    """
    polls, garbage = [], 0
    for line in filter(str.strip, lines):
        try:
            tick = json.loads(line)
            members = {clean_name(str(each["name"])): (_role(each["role"]), each["term"]) for each in tick["members"]}
            polls.append(ClusterPoll(parse_time(tick["at"]), members))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            garbage += 1
    polls.sort(key=lambda each: each.at)
    return polls, garbage


def _role(text: str) -> Role:
    for role in _LABELS:
        if role == text:
            return role
    raise ValueError(f"not a role: {text}")


def between(polls: Sequence[ClusterPoll], since: float | None, until: float | None) -> list[ClusterPoll]:
    """Return the polls in a time range."""
    return [
        each for each in polls if (since is None or each.at >= since) and (until is None or each.at <= until)
    ]  # fmt: skip


def timeline(polls: Sequence[ClusterPoll]) -> Chart:
    """Return the members' roles over time, a row each; each answer holds until the next poll. A gap: no leader."""
    begin = polls[0].at if polls else 0.0
    end = polls[-1].at if polls else 0.0
    rows = []
    for name in _names(polls):
        spans: list[Span] = []
        for here, after in pairwise(polls):
            role, term = here.members.get(name, ("no answer", None))
            if role not in _KINDS:
                continue
            text = "no answer" if role == "no answer" else f"{_LABELS[role]}, term {or_unknown(term)}"
            start, stop = round(here.at - begin, 6), round(after.at - begin, 6)
            last = spans[-1] if spans else None
            if last is not None and (last.end, last.kind, last.text) == (start, _KINDS[role], text):
                spans[-1] = dataclasses.replace(last, end=stop)
            else:
                spans.append(Span(start, stop, _KINDS[role], text, None if role == "no answer" else term))
        rows.append(Row(name, tuple(spans)))
    title = f"Leadership, {_how(polls)}; a gap: no leader known"
    return fit.chart(title, iso(begin), round(end - begin, 6), rows)


def state_graph(polls: Sequence[ClusterPoll]) -> StateGraph:
    """Return what members were seen to change from and to, and how often."""
    seen: Counter[tuple[Role, Role]] = Counter()
    for here, after in pairwise(polls):
        for name, (role, _) in after.members.items():
            before = here.members.get(name, (role, None))[0]
            if before != role:
                seen[before, role] += 1
    used = {end for pair in seen for end in pair} | {role for each in polls for role, _ in each.members.values()}
    states = tuple(State(role, label) for role, label in _LABELS.items() if role in used)
    order = [state.id for state in states]
    transitions = tuple(
        Transition(source, target, "seen", count)
        for (source, target), count in sorted(seen.items(), key=lambda each: [order.index(end) for end in each[0]])
    )
    return StateGraph(f"State changes of {len(_names(polls))} members, {_how(polls)}", states, transitions)


def sequence(polls: Sequence[ClusterPoll], *, last_only: bool = True) -> SequenceModel:
    """Return what each member was seen to become, of the last change of leader or of all polls."""
    changes = _leader_changes(polls)
    shown = list(polls)
    title = f"Polled: no change of leader, {_how(polls)}"
    if changes:
        old, new = changes[-1]
        leader = polls[new].leader
        assert leader is not None
        least, most = _leaderless(polls, old, new)
        title = (
            f"Polled election: {leader[0]} leads term {leader[1]}, {least:.1f} to {most:.1f} s without a leader"
            if last_only
            else f"Polled elections: {len(changes)}"
        )
        if last_only:
            shown = list(polls[old:])
    items: list[Item] = [Note(f"{_how(polls)}: candidates and votes are not seen")]
    begin = shown[0].at if shown else 0.0
    if shown:
        items.append(Note(f"{iso(begin)} is +0.000 s"))
        items += [Note(_says(role, term), name) for name, (role, term) in shown[0].members.items()]
    for here, after in pairwise(shown):
        at = f"(seen at +{after.at - begin:.3f} s)"
        for name, now in after.members.items():
            if here.members.get(name) != now:
                items.append(Note(f"{_says(*now)} {at}", name))
    lanes = tuple(Lane(name, name) for name in _names(polls)) or (Lane("none", "(no member)"),)
    return fit.cut(lambda most: SequenceModel(title, lanes, tuple(shortened(items, most))), MOST_NOTES)


def _says(role: Role, term: int | None) -> str:
    if role == "no answer":
        return "does not answer"
    if role == "not shown":
        return "shows no status"
    said = {"leader": "LEADER", "follower": "follows a leader", "learner": "learns", "no leader": "knows no leader"}[
        role
    ]
    return f"{said} in term {or_unknown(term)}"


def _names(polls: Sequence[ClusterPoll]) -> list[str]:
    return list(dict.fromkeys(name for each in polls for name in each.members))


def _how(polls: Sequence[ClusterPoll]) -> str:
    if len(polls) < 2:
        return f"{len(polls)} poll{'s' * (len(polls) != 1)}"
    longest = max(after.at - here.at for here, after in pairwise(polls))
    return f"{len(polls)} polls at most {longest:.2f} s apart"


def _leader_changes(polls: Sequence[ClusterPoll]) -> list[tuple[int, int]]:
    """Return the places of the last poll with the old leader and of the first with the new one, for each change."""
    found = []
    old: int | None = None
    for here, each in enumerate(polls):
        if each.leader is None:
            continue
        if old is not None and each.leader != polls[old].leader:
            found.append((old, here))
        old = here
    return found


def _leaderless(polls: Sequence[ClusterPoll], old: int, new: int) -> tuple[float, float]:
    """Return the least and the most seconds for which nobody led: inside the polls that saw nobody, and around them."""
    none = polls[old + 1 : new]
    return (none[-1].at - none[0].at if none else 0.0), polls[new].at - polls[old].at
