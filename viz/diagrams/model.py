"""One model per picture: plain values from which Mermaid, Graphviz, ASCII and JSON are rendered.

The renderers take nothing else, so the formats never disagree. Texts are one line each, without control
characters (``clean``); the renderers escape and wrap them. Ids are any strings that are unique in a picture:
no renderer writes one, so a member may be called ``end``.
"""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from datetime import UTC, datetime
from typing import Literal

SCHEMA = "raftload.diagram/1"
START = ""  # the id that an initial transition comes from
_LONGEST_NAME = 48
_LONG_STEPS = (30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)  # seconds
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))
_CONTROL = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

MessageKind = Literal["call", "reply", "lost"]
SpanKind = Literal["follower", "candidate", "leader", "down"]
Role = Literal["leader", "follower", "learner", "no leader", "no answer", "not shown"]


def clean(text: str, longest: int | None = None) -> str:
    """Take any text, return it on one line:

    run of blanks as one, other control characters as ``\\n``, ``\\u202e``, and cut to a number of characters where one
    is given.
    """
    shown = "".join(
        char if unicodedata.category(char) not in _CONTROL else char.encode("unicode_escape").decode() for char in text
    )
    shown = " ".join(shown.split())
    return shown if longest is None or len(shown) <= longest else shown[: longest - 1].rstrip() + "…"


def clean_name(name: str) -> str:
    """Return a member's name as pictures show it: ``clean``, never empty, cut where it is very long."""
    return clean(name, _LONGEST_NAME) or "(no name)"


def iso(at: float) -> str:
    """Return seconds since 1970 as ``2026-01-31T12:00:00.000Z``."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _check_texts(*texts: str) -> None:
    for text in texts:
        if text != clean(text):
            raise ValueError(f"text of a diagram is not one clean line: {text!r}")


def _check_known(ids: tuple[str, ...], used: list[str]) -> None:
    if len(set(ids)) != len(ids):
        raise ValueError(f"an id occurs twice among {ids}")
    unknown = set(used) - set(ids)
    if unknown:
        raise ValueError(f"unknown ids {sorted(unknown)}")


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """A state. ``detail`` is a second line, such as who is in it now; empty for none."""

    id: str
    label: str
    detail: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Transition:
    """From ``source`` (START for the initial one) to ``target``; ``count`` is how often it was seen, if observed."""

    source: str
    target: str
    label: str
    count: int | None = None

    @property
    def text(self) -> str:
        """What stands at the edge: the label, with its count where there is one."""
        return self.label if self.count is None else f"{self.label} ({self.count}x)"


@dataclasses.dataclass(frozen=True, slots=True)
class StateGraph:
    """States and the transitions between them."""

    title: str
    states: tuple[State, ...]
    transitions: tuple[Transition, ...]

    def __post_init__(self) -> None:
        ids = tuple(state.id for state in self.states)
        ends = [end for each in self.transitions for end in (each.source, each.target)]
        _check_known((*ids, START), ends)
        _check_texts(self.title, *(part for state in self.states for part in (state.label, state.detail)))
        _check_texts(*(each.label for each in self.transitions))


@dataclasses.dataclass(frozen=True, slots=True)
class Lane:
    """A participant of a sequence."""

    id: str
    label: str


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """From lane to lane, or a lane to itself. ``lost`` never arrives."""

    source: str
    target: str
    text: str
    kind: MessageKind = "call"


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """What happens at one lane, or, with ``lane`` None, what is to be said of all."""

    text: str
    lane: str | None = None


Item = Message | Note


@dataclasses.dataclass(frozen=True, slots=True)
class Sequence:
    """Messages and notes in the order in which they happen, top to bottom."""

    title: str
    lanes: tuple[Lane, ...]
    items: tuple[Item, ...]

    def __post_init__(self) -> None:
        used = [end for item in self.messages for end in (item.source, item.target)]
        used += [item.lane for item in self.items if isinstance(item, Note) and item.lane is not None]
        _check_known(tuple(lane.id for lane in self.lanes), used)
        _check_texts(self.title, *(lane.label for lane in self.lanes), *(item.text for item in self.items))

    @property
    def messages(self) -> tuple[Message, ...]:
        """The items that are messages."""
        return tuple(item for item in self.items if isinstance(item, Message))


def shortened(items: list[Item], most: int) -> list[Item]:
    """Return the items of a sequence; where they are more than ``most``, a note stands for those in the middle."""
    if len(items) <= most:
        return items
    head = most * 2 // 3
    left = len(items) - most + 1
    return [*items[:head], Note(f"{left} events are left out here"), *items[head + left :]]


@dataclasses.dataclass(frozen=True, slots=True)
class MemberView:
    """One member at one moment; what is not known is None.

    Attributes:
        name: its own, or its endpoint where that is all there is.
        endpoint: whom we asked.
        role: ``no leader`` for a member that answers and knows none, ``no answer`` for one that is silent, and
            ``not shown`` for one that shows its status to other users only.
        lag: commit index of the leader less its applied index.
        round_trip_ms: of the question.
        alarms: what it reports, and why it does not answer.
    """

    name: str
    endpoint: str
    role: Role
    term: int | None = None
    commit_index: int | None = None
    applied_index: int | None = None
    lag: int | None = None
    db_size: int | None = None
    version: str = ""
    round_trip_ms: float | None = None
    alarms: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """What stands in its box, the name first."""
        if self.role == "no answer":
            return (self.name, "does not answer", *self.alarms)
        if self.role == "not shown":
            return (self.name, "shows no status", *self.alarms)
        version = f", etcd {self.version}" if self.version else ""
        numbers = (
            f"{self.role}, term {or_unknown(self.term)}",
            f"commit {or_unknown(self.commit_index)}, applied {or_unknown(self.applied_index)}",
            f"database {human_bytes(self.db_size)}{version}",
        )
        return (self.name, *numbers, *self.alarms)


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """The members of a live cluster at one moment, in the order in which they were asked."""

    title: str
    members: tuple[MemberView, ...]

    def __post_init__(self) -> None:
        for member in self.members:
            _check_texts(member.name, member.endpoint, member.version, *member.alarms)

    @property
    def leader(self) -> int | None:
        """Which of the members leads: the one that says so in the newest term."""
        leading = [number for number, member in enumerate(self.members) if member.role == "leader"]
        return max(leading, key=lambda number: self.members[number].term or 0) if leading else None

    @property
    def links(self) -> tuple[tuple[int, int, str], ...]:
        """Leader, follower or learner, and what stands at the edge between them."""
        leader = self.leader
        return tuple(
            (leader, number, f"lag {or_unknown(member.lag)}" + (", learner" if member.role == "learner" else ""))
            for number, member in enumerate(self.members)
            if leader is not None and member.role in ("follower", "learner")
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """A member's role for a while, in seconds from the start of its chart; ``term`` is None where it is not known."""

    start: float
    end: float
    kind: SpanKind
    text: str
    term: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A member's line of a chart."""

    label: str
    spans: tuple[Span, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """The leaders over time: one row per member, time to the right.

    Attributes:
        started_at: of second 0, ``2026-01-31T12:00:00.000Z``.
        duration: in seconds.
        notes: what is to be said of all, such as what is left out.
    """

    title: str
    started_at: str
    duration: float
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_texts(self.title, *self.notes)
        for row in self.rows:
            _check_texts(row.label, *(span.text for span in row.spans))
            if any(not 0 <= span.start <= span.end <= self.duration for span in row.spans):
                raise ValueError(f"a span of {row.label} is outside the chart")


Model = StateGraph | Sequence | ClusterSnapshot | Chart
_KINDS = {StateGraph: "state-graph", Sequence: "sequence", ClusterSnapshot: "cluster-snapshot", Chart: "chart"}


def to_dict(model: Model) -> dict[str, object]:
    """Return the model as JSON has it: its fields, what kind it is, and the schema."""
    return {"schema": SCHEMA, "kind": _KINDS[type(model)], **dataclasses.asdict(model)}


def human_bytes(size: int | None) -> str:
    """``20.0 KiB``; ``?`` where it is not known."""
    if size is None:
        return "?"
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"


def human_seconds(seconds: float) -> str:
    """``0.250 s``, ``59 min 30 s``, ``13 h 5 min``, ``2 d 3 h``: what one can read of a time of this length."""
    if seconds < 120:
        return f"{seconds:.3f} s"
    whole = round(seconds)
    units = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
    size, unit, below, smaller = next(each for each in units if whole >= 2 * each[0])
    return f"{whole // size} {unit}" + (f" {rest} {smaller}" if (rest := whole % size // below) else "")


def ticks(duration: float, most: int = 8) -> tuple[tuple[float, str], ...]:
    """Return round times from 0 to at most a duration in seconds, ``most`` intervals of them, each with its text."""
    rough = max(duration, 1e-3) / most
    if rough > 20:
        step = float(next((each for each in _LONG_STEPS if each >= rough), math.ceil(rough / 86_400) * 86_400))
    else:
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough - 1e-12)
    times = [round(step * number, 6) for number in range(math.floor(duration / step + 1e-9) + 1)]
    size, unit = next((each for each in _UNITS if step >= each[0]), (1, "s"))
    return tuple((at, f"{at / size:.6g} {unit}") for at in times)


def or_unknown(number: int | None) -> str:
    """Return a number as text; ``?`` where it is not known."""
    return "?" if number is None else str(number)
