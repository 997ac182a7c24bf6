"""The times without a leader, from the members' logs, which know of elections that no poll sees.

Status tells a term when an entry of it is applied and never says "candidate"; the lines of ``raft.go`` and ``node.go``
tell at the moment, to the millisecond.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cluster.observe.raftlog import Event, Log


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """A time without a leader, in seconds since 1970 by the members' clocks; ``term`` is of the one elected after it,
    None where none was.
    """

    start: float
    end: float
    term: int | None

    @property
    def duration_s(self) -> float:
        """How long, in seconds."""
        return self.end - self.start


def leaderless(logs: Sequence[Log], start: float, end: float, *, taken: bool) -> tuple[Interval, ...]:
    """Return the times without a leader between two moments.

    Takes the members' logs, the moments in seconds since 1970, and whether the leader was taken away at the first one:
    killed, frozen or cut off, of which its own log cannot tell. Otherwise such a time begins where the first member
    notes that it lost its leader, where an election follows: a follower that is cut off, or has missed heartbeats,
    loses its leader alone, and finds it again. It ends where a member becomes one.
    """
    events = sorted(
        (
            (event.at, stage, event.term, event.member, event.peer)
            for log in logs
            for event in log.events
            if start <= event.at <= end and (stage := _stage(event)) is not None
        ),
    )
    found = []
    taken_at = start if taken else None
    missed: dict[str, tuple[float, str, int]] = {}  # by the member: when it lost a leader, which, and of what term
    newest = 0
    for at, stage, term, member, peer in events:
        if stage == _WON:
            since = min((lost[0] for lost in missed.values()), default=None) if taken_at is None else taken_at
            if since is not None:
                found.append(Interval(since, at, term))
            taken_at, newest = None, max(newest, term)
            missed.clear()
        # Who lost the leader of an old term tells of what is over; a member cut off tells it late.
        elif stage == _LOST and term >= newest:
            missed.setdefault(member, (at, peer, term))
        elif stage == _FOLLOWS and (term == newest or missed.get(member, ())[1:] == (peer, term)):
            missed.pop(member, None)
    if taken_at is not None and not newest:
        found.append(Interval(taken_at, end, None))
    return tuple(found)


_LOST, _WON, _FOLLOWS = range(3)  # in the order of those of one time


def _stage(event: Event) -> int | None:
    if event.kind == "lost":
        return _LOST
    if event.kind == "became" and event.detail == "leader":
        return _WON
    return _FOLLOWS if event.kind == "elected" else None
