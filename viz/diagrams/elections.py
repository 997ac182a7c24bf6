"""The members' logs together: the events in order, and the elections among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from cluster.observe.raftlog import Event, Log, merge, read_log
from viz.diagrams.model import clean_name

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
    """What all logs together say. ``names`` by member id; ``notes`` are for the person at the terminal."""

    logs: tuple[Log, ...]
    events: tuple[Event, ...]
    names: Mapping[str, str]
    elections: tuple[Election, ...]
    notes: tuple[str, ...]

    def name(self, member: str) -> str:
        """Return a member's name, or its id where its log was not given."""
        return self.names.get(member, member)


def read_files(paths: Iterable[Path]) -> History:
    """Read members' log files, several of one member in the order of time. Raises OSError."""

    def texts() -> Iterator[tuple[str, str, Iterable[str]]]:
        for path in paths:
            with path.open(encoding="utf-8", errors="replace") as file:
                yield str(path), path.stem, file

    return read(texts())


def read(logs: Iterable[tuple[str, str, Iterable[str]]]) -> History:
    """Take logs as where each is from, its member's name if it does not say that itself, and its lines."""
    found, notes = [], []
    for where, name, lines in logs:
        log = read_log(lines, name)
        if log.garbage:
            notes.append(f"{where}: left out {log.garbage} of {log.lines} lines, which etcd did not write")
        if log.member:
            found.append(log)
        else:
            notes.append(f"{where}: no line about Raft")
    return history(found, notes)


def history(logs: Sequence[Log], notes: Sequence[str] = ()) -> History:
    """Pure: logs in, what happened out. Logs of one member become one."""
    together: dict[str, Log] = {}
    for log in logs:
        old = together.get(log.member)
        if old is not None:
            log = dataclasses.replace(  # noqa: PLW2901
                old,
                name=log.name,
                events=(*old.events, *log.events),
                first=min(old.first, log.first),
                last=max(old.last, log.last),
                coarse=old.coarse or log.coarse,
            )
        together[log.member] = log
    found = sorted(together.values(), key=lambda log: log.name)
    events = merge(found)
    names = {log.member: clean_name(log.name) for log in found}
    return History(tuple(found), tuple(events), names, tuple(_elections(events)), tuple(notes))


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
