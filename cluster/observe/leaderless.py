"""The times without a leader, from the members' logs, which know of elections that no poll sees.

Status tells a term when an entry of it is applied and never says "candidate"; the lines of ``raft.go`` and ``node.go``
tell at the moment, to the millisecond.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cluster.observe.raftlog import Log


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
    notes that it lost its leader, where an election follows: a follower that is cut off loses its leader alone. It ends
    where a member becomes one.
    """
    events = sorted(
        (event.at, event.kind == "became", event.term)
        for log in logs
        for event in log.events
        if start <= event.at <= end and (event.kind == "lost" or (event.kind == "became" and event.detail == "leader"))
    )
    found = []
    since = start if taken else None
    newest = 0
    for at, elected, term in events:
        if elected:
            if since is not None:
                found.append(Interval(since, at, term))
            since, newest = None, max(newest, term)
        # Who lost the leader of an old term tells of what is over; a member cut off tells it late.
        elif since is None and term >= newest:
            since = at
    if since is not None and taken and not newest:
        found.append(Interval(since, end, None))
    return tuple(found)
