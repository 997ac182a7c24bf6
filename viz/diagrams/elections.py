"""The members' logs together: the events in order, and the elections among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, tzinfo
from pathlib import Path

from cluster.observe import log_join
from cluster.observe.raftlog import Event, Log, merge
from viz.diagrams.model import clean, clean_name

_APART_S = 5.0  # a campaign after so long without an event is of another election


@dataclasses.dataclass(frozen=True, slots=True)
class Election:
    """From the last sign of the old leader, or the first campaign, to the last member that learned of the new one.

    Attributes:
        events: in order.
        began: when the old leader's connections broke, where that was seen, else the first campaign.
        failed: id of the leader that was lost, empty where none was seen to go.
        won: when a member became leader; None if nobody did.
        winner: its id, or empty.
        term: of the winner, or the highest that was campaigned for.
    """

    events: tuple[Event, ...]
    began: float
    failed: str
    won: float | None
    winner: str
    term: int


@dataclasses.dataclass(frozen=True)
class History:
    """What all logs together say.

    Attributes:
        names: by member id.
        notes: for the person at the terminal.
        remarks: what of these belongs beside a picture.
        first, last: when the first and last line was written, in seconds since 1970.
    """

    logs: tuple[Log, ...]
    events: tuple[Event, ...]
    names: Mapping[str, str]
    elections: tuple[Election, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    first: float = 0.0
    last: float = 0.0

    def name(self, member: str) -> str:
        """Return a member's name, or its id where its log was not given."""
        return self.names.get(member, member)


def read_files(paths: Iterable[Path], zone: tzinfo = UTC) -> History:
    """Read members' logs: files of any kind, folders and archives, in any order.

    Takes the zone of times that do not say theirs. Raises OSError, and UsageError for what cannot be unpacked.
    """
    return _history(log_join.read_files(paths, zone))


def read(logs: Iterable[tuple[str, str, Iterable[str]]], zone: tzinfo = UTC) -> History:
    """Take logs as where each is from, its member's name if it does not say that itself, and its lines."""
    return _history(log_join.read(logs, zone))


def history(logs: Sequence[Log], notes: Sequence[str] = ()) -> History:
    """Pure: one log of each member in, what happened out."""
    first, last = min((log.first for log in logs), default=0.0), max((log.last for log in logs), default=0.0)
    return _history(log_join.Logs(tuple(logs), tuple(notes), (), first, last))


def _history(found: log_join.Logs) -> History:
    logs = sorted(found.logs, key=lambda log: log.name)
    events = merge(logs)
    names = {log.member: clean_name(log.name) for log in logs}
    elections = tuple(_elections(events))
    remarks = tuple(clean(each) for each in found.remarks)
    return History(tuple(logs), tuple(events), names, elections, found.notes, remarks, found.first, found.last)


def _elections(events: Sequence[Event]) -> list[Election]:
    elections: list[Election] = []
    current: list[Event] = []
    leader, lost_at = "", None
    won: Event | None = None
    decided: Event | None = None  # the last win, also when its election is closed

    def close() -> None:
        if current:
            elections.append(_election(current, won, leader_before, lost_before))
        current.clear()

    leader_before, lost_before = "", None
    for event in events:
        campaigns = event.kind == "became" and event.detail in ("candidate", "precandidate")
        # Who has not heard of the win may still campaign for what is decided, such as the old leader when it is started
        # again: that is no election of its own. A pre-vote is logged with the old term.
        behind = decided is not None and event.term < decided.term + (event.detail == "candidate")
        if campaigns and current and ((won is not None and not behind) or event.at - current[-1].at > _APART_S):
            close()
            won = None
        opens = campaigns and not behind
        if opens and not current:
            leader_before, lost_before = (leader, lost_at) if lost_at is not None else ("", None)
            won = None
        if event.kind == "became" and event.term == 0:
            decided = None  # a member without data: of a new cluster, whose terms begin anew
        if event.kind == "disconnected" and event.peer == leader and lost_at is None:
            lost_at = event.at
        if event.kind == "stop" and event.member == leader and lost_at is None:
            lost_at = event.at
        if current or opens:
            # After the win what is left is those who hear of it; what comes later is of no election.
            late = won is not None and (event.at - won.at > _APART_S or event.kind in ("start", "stop", "disconnected"))
            if event.kind not in ("disconnected", "start", "stop") and not late:
                current.append(event)
            elif event.kind == "start" and won is not None:
                close()
                won = None
        if event.kind == "became" and event.detail == "leader":
            leader, lost_at = event.member, None
            won = decided = event
    close()
    return elections


def _election(events: Sequence[Event], won: Event | None, failed: str, lost_at: float | None) -> Election:
    began = events[0].at if lost_at is None else min(lost_at, events[0].at)
    terms = [event.term for event in events if event.kind == "became"]
    return Election(
        events=tuple(events),
        began=began,
        failed=failed,
        won=won.at if won else None,
        winner=won.member if won else "",
        term=won.term if won else max(terms, default=0),
    )


def between(elections: Sequence[Election], since: float | None, until: float | None) -> list[Election]:
    """Return the elections that touch a time range; without one the last."""
    if since is None and until is None:
        return list(elections[-1:])
    return [
        each
        for each in elections
        if (since is None or each.events[-1].at >= since) and (until is None or each.began <= until)
    ]
