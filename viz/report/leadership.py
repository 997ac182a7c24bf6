"""The leaders of a run over time: a row a member, from the members' logs where they are there, else from the polls.

Logs know of every term and every candidate; polls know of silence, which no log tells of. So silence is always the
polls'.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import Literal

from cluster.observe.raftlog import Event
from cluster.observe.record import Poll
from viz.diagrams.elections import History
from viz.report.rundata import RunData

Kind = Literal["leader", "follower", "learner", "none", "silent"]


@dataclasses.dataclass(frozen=True, slots=True)
class Period:
    """A member's state for a while, in seconds since 1970; ``term`` is None where it is not known."""

    start: float
    end: float
    kind: Kind
    term: int | None


def rows(data: RunData) -> list[tuple[str, list[Period]]]:
    """Each member's name and its periods in order, within the run's time."""
    names = sorted({poll.member for poll in data.polls} | set(data.history.names.values()))
    found = []
    asked: dict[str, list[Poll]] = {}
    for poll in data.polls:
        asked.setdefault(poll.member, []).append(poll)
    for name in names:
        polls = asked.get(name, [])
        events = _events(data.history, name)
        periods = _from_logs(events, data.end) if events else _from_polls(polls, data.end)
        silent = [Period(start, end, "silent", None) for start, end in silences(polls, data.end)]
        periods = laid_over(periods, silent)
        cut = [dataclasses.replace(each, start=max(each.start, data.begin), end=min(each.end, data.end))
               for each in periods]  # fmt: skip
        found.append((name, [each for each in cut if each.end > each.start]))
    return found


def silences(polls: Sequence[Poll], end: float) -> list[tuple[float, float]]:
    """When one member did not answer: from the first question without an answer to the next answer."""
    found: list[tuple[float, float]] = []
    since: float | None = None
    for poll in polls:
        if not poll.answers and since is None:
            since = poll.at
        if poll.answers and since is not None:
            found.append((since, poll.at + (poll.round_trip_ms or 0.0) / 1e3))
            since = None
    return [*found, (since, end)] if since is not None else found


def terms(data: RunData) -> list[int]:
    """Return the terms that any member was in, ascending."""
    return sorted({each.term for _, periods in rows(data) for each in periods if each.term})


def _events(history: History, name: str) -> list[Event]:
    wanted = {"start", "became", "elected", "lost"}
    ids = {member for member, known in history.names.items() if known == name}
    return [event for log in history.logs if log.member in ids for event in log.events if event.kind in wanted]


def _from_logs(events: Sequence[Event], end: float) -> list[Period]:
    """Return the spans of roles: ``none`` for a member without a leader (a candidate, or one that lost it)."""
    changes: list[tuple[float, Kind, int]] = []
    role, led, term = "", False, 0
    for event in events:
        if event.kind == "start":
            role, led = "", False
        elif event.kind == "became":
            # A follower that hears of a new term may not know yet who leads it.
            led = event.detail == "follower" and led and event.term == term
            role, term = event.detail, event.term
        else:
            led, term = event.kind == "elected", event.term or term
        changes.append((event.at, "leader" if role == "leader" else "follower" if led else "none", term))
    ends = [at for at, _, _ in changes[1:]] + [max(end, changes[-1][0])]
    return _joined([Period(at, until, kind, term) for (at, kind, term), until in zip(changes, ends, strict=True)])


def _from_polls(polls: Sequence[Poll], end: float) -> list[Period]:
    kinds: dict[str, Kind] = {"leader": "leader", "follower": "follower", "learner": "learner"}
    ends = [poll.at for poll in polls[1:]] + [end]
    return _joined([
        Period(poll.at, until, kinds.get(poll.role, "none"), poll.term)
        for poll, until in zip(polls, ends, strict=True)
        if poll.answers
    ])  # fmt: skip


def _joined(periods: Sequence[Period]) -> list[Period]:
    joined: list[Period] = []
    for each in periods:
        last = joined[-1] if joined else None
        if last is not None and (last.kind, last.term, last.end) == (each.kind, each.term, each.start):
            joined[-1] = dataclasses.replace(last, end=each.end)
        elif each.end > each.start:
            joined.append(each)
    return joined


def laid_over(periods: Sequence[Period], tops: Sequence[Period]) -> list[Period]:
    """Return periods with others laid over them. Takes these in order, and apart from each other."""
    left: list[Period] = []
    first = 0
    for each in sorted(periods, key=operator.attrgetter("start")):
        while first < len(tops) and tops[first].end <= each.start:
            first += 1
        start, at = each.start, first
        while at < len(tops) and tops[at].start < each.end:
            if tops[at].start > start:
                left.append(dataclasses.replace(each, start=start, end=tops[at].start))
            start, at = max(start, tops[at].end), at + 1
        if start < each.end:
            left.append(dataclasses.replace(each, start=start))
    return sorted([*left, *tops], key=operator.attrgetter("start"))
