"""The live view: the leader, the progress of each member, the latest changes, once a tick until it is interrupted.

``View`` is pure: snapshots in, lines out. ``watch`` asks and prints: a table in place on a terminal, one line a
tick into a pipe, or one JSON document a line.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, TextIO, TypedDict, cast

from cluster.base.console import Painter, pad, width
from cluster.base.errors import RaftloadError
from cluster.base.security import Security
from cluster.observe import calls
from viz.diagrams.ascii import wrap
from viz.diagrams.model import SCHEMA, ClusterSnapshot, MemberView, iso
from viz.live.snapshot import Answer, Poller

QUOTA_EVERY_S = 10.0
_QUOTA = b"\netcd_server_quota_backend_bytes "
_EVENTS_SHOWN = 8
_NAME_COLUMNS = 15
_HEAD = ("MEMBER", "ROLE", "TERM", "COMMIT", "APPLIED", "LAG", "ENT/S", "DB/QUOTA", "VERS", "RTTms")
_WIDTHS = (_NAME_COLUMNS, 9, 4, 7, 7, 4, 5, 9, 6, 5)  # with a blank between them 80 columns
_ALARM = ("bold", "red")
_STYLES = {"leader": ("green",), "no answer": _ALARM, "no leader": _ALARM, "not shown": _ALARM}


@dataclasses.dataclass(frozen=True, slots=True)
class Tick:
    """One look at the cluster: when, the members, entries committed per second and quota by member's name (None
    where not known), and what changed since the last.
    """

    at: float
    snapshot: ClusterSnapshot
    rates: Mapping[str, float | None]
    quotas: Mapping[str, int | None]
    changes: tuple[str, ...]


class SnapshotMember(TypedDict):
    """A member of a `SnapshotDocument`: a `MemberView`, its rate and its quota."""

    name: str
    endpoint: str
    role: str
    term: int | None
    commit_index: int | None
    applied_index: int | None
    lag: int | None
    db_size: int | None
    version: str
    round_trip_ms: float | None
    alarms: list[str]
    entries_per_s: float | None
    db_quota: int | None


class SnapshotDocument(TypedDict):
    """A tick as JSON has it."""

    schema: str
    kind: Literal["cluster-snapshot"]
    at: str
    title: str
    members: list[SnapshotMember]
    changes: list[str]


class View:
    """Remembers the last look, so that the next one can say what changed."""

    def __init__(self) -> None:
        self._last: Tick | None = None
        self._leader: tuple[str, int | None] | None = None
        self.events: deque[str] = deque(maxlen=_EVENTS_SHOWN)

    def look(self, snapshot: ClusterSnapshot, at: float, quotas: Mapping[str, int | None] | None = None) -> Tick:
        """Take the cluster as it is at a time (seconds since 1970), return it with rates and changes.

        A rate is of two looks at which the member answered, never across a gap.
        """
        last = {} if self._last is None else {each.name: each for each in self._last.snapshot.members}
        seconds = at - self._last.at if self._last else 0.0
        rates: dict[str, float | None] = {}
        changes: list[str] = []
        for member in snapshot.members:
            before = last.get(member.name)
            rates[member.name] = _rate(before, member, seconds)
            changes += _changes(before, member) if self._last else []
        leader = snapshot.leader
        now = None if leader is None else (snapshot.members[leader].name, snapshot.members[leader].term)
        if self._last is not None and now != self._leader:
            changes.append("leader NONE" if now is None else f"{now[0]} leads term {now[1]}")
        self._leader = now
        changes += [f"{name} left the list of members" for name in last if name not in rates]
        clock = datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
        self.events.extend(f"{clock} {change}" for change in changes)
        self._last = Tick(at, snapshot, rates, dict(quotas or {}), tuple(changes))
        return self._last

    def screen(self, tick: Tick, *, colour: bool = True, columns: int = 80) -> list[str]:
        """Return the lines of a terminal: header, table, alarms, the latest events."""
        good = tick.snapshot.leader is not None and "NO QUORUM" not in tick.snapshot.title
        paint = Painter(colour)
        lines = [paint(line, *(() if good else _ALARM)) for line in wrap(tick.snapshot.title, columns)]
        lines += ["", _cells(_HEAD)]
        lines += [paint(_cells(_row(each, tick)), *_STYLES.get(each.role, ())) for each in tick.snapshot.members]
        alarms = [f"! {each.name}: {alarm}" for each in tick.snapshot.members for alarm in each.alarms]
        lines += [paint(_cut(alarm, columns), *_ALARM) for alarm in alarms]
        if self.events:
            lines += ["", *(_cut(event, columns) for event in self.events)]
        return lines


def line(tick: Tick) -> str:
    """Return a tick in one line, for a pipe."""
    members = "  ".join(
        f"{each.name}={each.role.replace(' ', '-')}" + ("" if each.lag is None else f"/lag{each.lag}")
        for each in tick.snapshot.members
    )
    changed = f"  [{'; '.join(tick.changes)}]" if tick.changes else ""
    return f"{iso(tick.at)} {tick.snapshot.title}  {members}{changed}"


def document(tick: Tick) -> SnapshotDocument:
    """Return a tick as JSON has it."""
    members = [
        {**dataclasses.asdict(each), "alarms": list(each.alarms), "entries_per_s": tick.rates.get(each.name),
         "db_quota": tick.quotas.get(each.name)}
        for each in tick.snapshot.members
    ]  # fmt: skip
    return {
        "schema": SCHEMA,
        "kind": "cluster-snapshot",
        "at": iso(tick.at),
        "title": tick.snapshot.title,
        "members": cast("list[SnapshotMember]", members),
        "changes": list(tick.changes),
    }


def watch(
    endpoints: Sequence[str],
    interval_s: float,
    out: TextIO,
    *,
    as_json: bool = False,
    ticks: int | None = None,
    security: Security | None = None,
) -> int:
    """Look at a cluster every so many seconds until interrupted, or so many times; return 0.

    Takes endpoints as ``parse_endpoints`` returns them, and how to speak TLS to them and who logs in. It goes on while
    members die and come back; raises NoCluster where nobody answers the first time.
    """
    poller, view = Poller(endpoints, security=security), View()
    quotas: dict[str, int | None] = {}
    quota_at = float("-inf")
    on_terminal = out.isatty() and not as_json
    due = time.monotonic()
    done = 0
    try:
        while ticks is None or done < ticks:
            snapshot, answers = poller.poll()
            if time.monotonic() - quota_at >= QUOTA_EVERY_S:
                quotas, quota_at = _quotas(snapshot, answers, security), time.monotonic()
            tick = view.look(snapshot, time.time(), quotas)
            if on_terminal:
                size = shutil.get_terminal_size()
                lines = view.screen(tick, columns=max(size.columns, 80))[: max(size.lines - 1, 5)]
                # In place, each line's rest and the rest of the screen wiped, so that nothing flickers.
                out.write("\x1b[?25l\x1b[H" + "".join(f"{each}\x1b[K\n" for each in lines) + "\x1b[J")
            else:
                out.write((json.dumps(document(tick), ensure_ascii=False) if as_json else line(tick)) + "\n")
            out.flush()
            done += 1
            due = max(due + interval_s, time.monotonic())  # after a slow tick no burst of late ones
            if ticks is None or done < ticks:
                time.sleep(max(0.0, due - time.monotonic()))
    finally:
        if on_terminal:
            out.write("\x1b[?25h")
            out.flush()
    return 0


def _quotas(snapshot: ClusterSnapshot, answers: Sequence[Answer], security: Security | None) -> dict[str, int | None]:
    """Each member's quota by name: from its status, which has it from etcd 3.6 on, else from its metrics."""
    alive = {answer.endpoint: answer.status for answer in answers if answer.status is not None}
    found: dict[str, int | None] = {}
    for member in snapshot.members:
        if member.endpoint not in alive:
            continue
        if quota := alive[member.endpoint].db_quota:
            found[member.name] = quota
            continue
        try:
            code, body = calls.http(member.endpoint, "GET", "/metrics", timeout_s=1.0, security=security)
            begin = body.index(_QUOTA) + len(_QUOTA)
            found[member.name] = int(float(body[begin : body.index(b"\n", begin)])) if code == 200 else None
        except (RaftloadError, ValueError):
            found[member.name] = None
    return found


def _rate(before: MemberView | None, now: MemberView, seconds: float) -> float | None:
    if before is None or before.commit_index is None or now.commit_index is None or seconds <= 0:
        return None
    return max(0.0, (now.commit_index - before.commit_index) / seconds)


def _changes(before: MemberView | None, now: MemberView) -> list[str]:
    if before is None:
        return [f"{now.name} is new: {now.role}"]
    found = []
    if before.role != now.role:
        if now.role == "no answer":
            found.append(f"{now.name} does not answer")
        elif before.role == "no answer":
            found.append(f"{now.name} answers again: {now.role}")
        else:
            found.append(f"{now.name}: {before.role} -> {now.role}")
    if "no answer" not in (before.role, now.role):
        found += [f"{now.name}: {alarm}" for alarm in now.alarms if alarm not in before.alarms]
    return found


def _row(member: MemberView, tick: Tick) -> tuple[str, ...]:
    quota, rate = tick.quotas.get(member.name), tick.rates.get(member.name)
    size = "?" if member.db_size is None else _short(member.db_size, 1024)
    trip = member.round_trip_ms
    return (
        member.name,
        member.role,
        _short(member.term),
        _short(member.commit_index, exact=10_000_000),
        _short(member.applied_index, exact=10_000_000),
        _short(member.lag, exact=1000),
        "?" if rate is None else _short(round(rate)),
        size if quota is None or member.db_size is None else f"{size}/{_short(quota, 1024)}",
        member.version or "?",
        "?" if trip is None else f"{trip:.1f}" if trip < 1000 else _short(round(trip)),
    )


def _short(number: int | None, step: int = 1000, exact: int = 10_000) -> str:
    """``9999``, ``12.3K``, ``1.2M``; with 1024 ``20K``, ``2.0G``: never more than five columns beyond what is below
    ``exact`` and so left as it is.
    """
    if number is None:
        return "?"
    if number < (exact if step == 1000 else 1000):
        return str(number)
    amount, units = float(number) / step, "KMGTPE"
    while amount >= 999.5 and len(units) > 1:
        amount, units = amount / step, units[1:]
    return (
        f"{amount:.1f}{units[0]}" if amount < 9.95 or (step == 1000 and amount < 99.95) else f"{amount:.0f}{units[0]}"
    )


def _cells(cells: Sequence[str]) -> str:
    texts = [_cut(cell, size) for cell, size in zip(cells, _WIDTHS, strict=True)]
    numbers = range(2, len(_WIDTHS))
    return " ".join(pad(text, _WIDTHS[number], right=number in numbers) for number, text in enumerate(texts))


def _cut(text: str, columns: int) -> str:
    if width(text) <= columns:
        return text
    while width(text) > columns - 1:
        text = text[:-1]
    return text + "…"
