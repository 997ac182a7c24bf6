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
        began: when the old leader's connections broke, where that was seen before, else the first campaign.
        failed: id of the leader that was lost, empty where none was seen to go.
        won: when a member became leader; None if nobody did.
        winner: its id, or empty.
        term: of the winner, or the highest that was campaigned for.
        lost: when the leader's connections broke, None where none was seen to go. Later than ``began`` where a member
            had missed its heartbeats, and campaigned, before it went or before anybody saw that.
    """

    events: tuple[Event, ...]
    began: float
    failed: str
    won: float | None
    winner: str
    term: int
    lost: float | None = None

    @property
    def since_lost(self) -> bool:
        """Whether it began with the loss of a leader, not with a campaign."""
        return self.lost is not None and self.lost <= self.began


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


@dataclasses.dataclass(slots=True)
class _Course:
    """An election as its events come in.

    Attributes:
        seeking: who campaigned in it and has not been heard to follow a leader since.
        won: when a member became leader in it.
        over: that, or when the last that campaigned followed the leader again that it had missed.
    """

    events: list[Event] = dataclasses.field(default_factory=list)
    seeking: set[str] = dataclasses.field(default_factory=set)
    won: Event | None = None
    over: Event | None = None
    failed: str = ""
    lost: float | None = None

    def told(self) -> Election:
        first = self.events[0].at
        terms = [event.term for event in self.events if event.kind == "became"]
        return Election(
            events=tuple(self.events),
            began=first if self.lost is None else min(self.lost, first),
            failed=self.failed,
            won=self.won.at if self.won else None,
            winner=self.won.member if self.won else "",
            term=self.won.term if self.won else max(terms, default=0),
            lost=self.lost,
        )


def _campaigns(event: Event) -> bool:
    return event.kind == "became" and event.detail in ("candidate", "precandidate")


def _wins(event: Event) -> bool:
    return event.kind == "became" and event.detail == "leader"


def _elections(events: Sequence[Event]) -> list[Election]:
    elections: list[Election] = []
    current: _Course | None = None
    leader: Event | None = None  # the last win
    decided: Event | None = None  # the same, None in a cluster that is made anew
    gone: dict[str, float] = {}  # who noted that the leader went, and when

    for event in events:
        campaigns, wins = _campaigns(event), _wins(event)
        # Who has not heard of the win may still campaign for what is decided, such as the old leader when it is started
        # again: that is no election of its own. A pre-vote is logged with the old term.
        behind = decided is not None and event.term < decided.term + (event.detail == "candidate")
        if campaigns and current is not None:
            after_the_end = current.over is not None and not behind
            if after_the_end or event.at - current.events[-1].at > _APART_S:
                elections.append(current.told())
                current = None
        if campaigns and not behind and current is None:
            current = _Course()
        if event.kind == "became" and event.term == 0:
            decided = None  # a member without data: of a new cluster, whose terms begin anew
        follows = False
        if leader is not None:
            noted = event.kind == "disconnected" and event.peer == leader.member
            if noted or (event.kind == "stop" and event.member == leader.member):
                gone.setdefault(event.member, event.at)
            follows = event.kind == "elected" and (event.peer, event.term) == (leader.member, leader.term)
            if follows:
                gone.pop(event.member, None)
        if current is not None:
            if event.kind in ("disconnected", "start", "stop"):
                if event.kind == "start" and current.over is not None:
                    elections.append(current.told())
                    current = None
            # After the end what is left is those who hear of it; what comes later is of no election.
            elif current.over is None or event.at - current.over.at <= _APART_S:
                current.events.append(event)
                if current.over is None:
                    _goes_on(current, event, leader.member if leader is not None else "", gone, follows=follows)
        if wins:
            leader = decided = event
            gone.clear()
    if current is not None:
        elections.append(current.told())
    return elections


def _goes_on(current: _Course, event: Event, leader: str, gone: Mapping[str, float], *, follows: bool) -> None:
    """Note what an event means to an election that is not over.

    Takes the leader until now, who noted when that it went, and whether the event says that its member follows it.
    """
    campaigns, wins = _campaigns(event), _wins(event)
    if gone and (campaigns or wins):
        # At each of these, since the leader may go while a member campaigns that had missed its heartbeats.
        current.failed, current.lost = leader, min(gone.values())
    if campaigns:
        current.seeking.add(event.member)
    elif wins:
        current.won = current.over = event
    elif follows:
        current.seeking.discard(event.member)
        if not current.seeking:
            # In vain: the leader was there all the time, though not to those whose connections to it had broken.
            current.over, current.failed, current.lost = event, "", None


def between(elections: Sequence[Election], since: float | None, until: float | None) -> list[Election]:
    """Return the elections that touch a time range; without one the last."""
    if since is None and until is None:
        return list(elections[-1:])
    return [
        each
        for each in elections
        if (since is None or each.events[-1].at >= since) and (until is None or each.began <= until)
    ]
