"""Models as plain text for a terminal. Pure: a model in, the text out.

State graphs and sequences are drawn alike: a column for each state or lane, a numbered row for each edge or
message, the arrow below its label. A note starts with ``*`` and stands in brackets at its lane. What has no room to the
right of its lane stands to the left of it: a note's closing bracket is at the lane then.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence as Rows

from cluster.base import console
from cluster.base.console import pad, width
from viz.diagrams.model import (
    START,
    Chart,
    ClusterSnapshot,
    Message,
    Model,
    Note,
    Sequence,
    StateGraph,
    human_bytes,
    human_seconds,
    or_unknown,
)

_MARGIN = 5  # columns for the number of a row
COLUMNS = 80
_WRAP = 28  # a label is given at least this much, or its longest word, before it is wrapped
_NARROWEST = 6
_LEAST_GAPS = (8, 4)
_SIGNS = {"leader": "#", "candidate": "?", "follower": "-", "down": "x"}
_LEAST_CHART = 20


def render(model: Model, columns: int = COLUMNS) -> str:
    """Take a model and how many columns there are, return its picture, which ends in a newline.

    A picture is wider only where a word of it, or a row of a table, is.
    """
    if isinstance(model, StateGraph):
        lines = _states(model, columns)
    elif isinstance(model, Sequence):
        heads = [(lane.label,) for lane in model.lanes]
        lines = _lanes(heads, [lane.id for lane in model.lanes], model.items, columns)
    elif isinstance(model, ClusterSnapshot):
        lines = _cluster(model)
    else:
        lines = _chart(model, columns)
    return "\n".join(line.rstrip() for line in [*wrap(model.title, columns), "", *lines]) + "\n"


def wrap(text: str, room: int) -> list[str]:
    """Break a text at its blanks into lines of at most ``room`` columns, where its words allow that."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and width(lines[-1]) + 1 + width(word) <= room:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


def table(head: Rows[str], rows: Rows[Rows[str]]) -> list[str]:
    """Return columns as wide as they need: the head, a rule, the rows. Numbers are set to the right."""
    sizes = [max(map(width, column)) for column in zip(head, *rows, strict=True)]
    numbers = {at for at in range(len(head)) if all(row[at][:1].isdigit() or row[at] == "?" for row in rows)}
    return console.columns([head, ["-" * size for size in sizes], *rows], numbers)


class _Line:
    """One line of a terminal, written at columns; a wide character takes two."""

    def __init__(self, lifelines: Rows[int] = ()) -> None:
        self._cells: list[str] = []
        for column in lifelines:
            self.put(column, "|")

    def put(self, column: int, text: str) -> None:
        self._cells += [" "] * (column + width(text) - len(self._cells))
        for char in text:
            size = width(char)
            if size == 0:
                self._cells[max(column - 1, 0)] += char
                continue
            self._cells[column : column + size] = [char] + [""] * (size - 1)
            column += size

    def __str__(self) -> str:
        return "".join(self._cells)


def _states(model: StateGraph, columns: int) -> list[str]:
    starts = any(each.source == START for each in model.transitions)
    heads = [("(start)",)] * starts + [
        (state.label, state.detail) if state.detail else (state.label,) for state in model.states
    ]
    ids = [START] * starts + [state.id for state in model.states]
    return _lanes(heads, ids, [Message(each.source, each.target, each.text) for each in model.transitions], columns)


def _lanes(heads: Rows[tuple[str, ...]], ids: Rows[str], items: Rows[Message | Note], most: int) -> list[str]:
    """Return lanes with labels as long as the columns allow, the lanes closer together where that is not enough.

    Where that is not enough either, what has no room to the right of its lane stands to the left of it.
    """
    widest: list[str] = []
    for to_left in (False, True):
        drawn: list[str] = []
        if widest and width(widest[0]) > most:
            break  # the boxes alone are wider
        for gap in _LEAST_GAPS:
            for longest in range(_WRAP, _NARROWEST - 1, -1):
                drawn = _drawn_lanes(heads, ids, items, most, longest, gap, to_left)
                if max(map(width, drawn)) <= most:
                    return drawn
        widest = widest or drawn
    return widest


def _drawn_lanes(
    heads: Rows[tuple[str, ...]],
    ids: Rows[str],
    items: Rows[Message | Note],
    most: int,
    longest: int,
    gap: int,
    to_left: bool,
) -> list[str]:
    place = {name: number for number, name in enumerate(ids)}
    boxes = [[line for part in head for line in wrap(part, longest)] for head in heads]
    columns = _columns(boxes, place, items, longest, gap, to_left)
    lines = _heads(boxes, columns)
    number = 0
    for item in items:
        lines.append(str(_Line(columns)))
        if isinstance(item, Note):
            lines += _note(item, columns, place, most, to_left)
            continue
        number += 1
        rows = _message(item, columns, place, longest, to_left)
        rows[0].put(0, pad(str(number), _MARGIN - 2, right=True))
        lines += map(str, rows)
    return [*lines, str(_Line(columns))]


def _columns(
    boxes: Rows[Rows[str]],
    place: dict[str, int],
    items: Rows[Message | Note],
    longest: int,
    least_gap: int,
    to_left: bool,
) -> list[int]:
    """Return the column of each lifeline, so that no box, label or arrow runs into the next."""
    halves = [max(map(width, box)) // 2 + 2 for box in boxes]
    gaps = [
        max(least_gap, left + right + (2 if least_gap == _LEAST_GAPS[0] else 1))
        for left, right in itertools.pairwise(halves)
    ]
    for item in items:
        words = max(map(width, item.text.split(" ")))
        need = max(words, min(width(item.text), longest)) + (4 if least_gap == _LEAST_GAPS[0] else 3)
        if isinstance(item, Note):
            first = last = 0  # it may run across the lanes to its right
        else:
            first, last = sorted((place[item.source], place[item.target]))
            if first == last and to_left and last == len(boxes) - 1:
                first -= 1
            last += first == last
        last = min(last, len(boxes) - 1)
        lacking = need - sum(gaps[first:last])
        for number in range(max(first, 0), last):
            if lacking > 0:
                share = -(-lacking // (last - number))
                gaps[number] += share
                lacking -= share
    columns = [_MARGIN + (halves[0] if halves else 0)]
    for gap in gaps:
        columns.append(columns[-1] + gap)
    return columns[: len(boxes)]


def _heads(boxes: Rows[Rows[str]], columns: Rows[int]) -> list[str]:
    height = max(map(len, boxes), default=0)
    rows = [_Line() for _ in range(height + 2)]
    for box, column in zip(boxes, columns, strict=True):
        inner = max(map(width, box)) + 2
        left = column - inner // 2 - 1
        for number, row in enumerate(rows):
            if number in (0, height + 1):
                row.put(left, "+" + "-" * inner + "+")
                continue
            text = box[number - 1] if number <= len(box) else ""
            before = (inner - width(text)) // 2
            row.put(left, "|" + " " * before + text + " " * (inner - before - width(text)) + "|")
    return [str(row) for row in rows]


def _message(item: Message, columns: Rows[int], place: dict[str, int], longest: int, to_left: bool) -> list[_Line]:
    source, target = columns[place[item.source]], columns[place[item.target]]
    if source == target and to_left and len(columns) > 1 and source == columns[-1]:
        room = source - columns[-2] - 3
        wide = max(map(width, wrap(item.text, room)))
        out, back = _Line(columns), _Line(columns)
        out.put(source - 3, ".--|")
        back.put(source - 3, "x->|" if item.kind == "lost" else "'->|")
        return [*_labels(item.text, source - 1 - wide, room, columns), out, back]
    if source == target:
        after = place[item.source] + 1
        room = columns[after] - source - 3 if after < len(columns) else longest
        labels = _labels(item.text, source + 2, room, columns)
        out, back = _Line(columns), _Line(columns)
        out.put(source, "|--.")
        back.put(source, "|<-x" if item.kind == "lost" else "|<-'")
        return [*labels, out, back]
    left, right = min(source, target), max(source, target)
    arrow = _Line(columns)
    for column in range(left + 1, right):
        arrow.put(column, "-" if item.kind != "reply" or (column - left) % 2 else " ")
    head = "x" if item.kind == "lost" else ">" if source < target else "<"
    arrow.put(right - 1 if source < target else left + 1, head)
    for column in columns:
        if left < column < right:
            arrow.put(column, "|")
    return [*_labels(item.text, left + 2, right - left - 3, columns), arrow]


def _labels(text: str, column: int, room: int, columns: Rows[int]) -> list[_Line]:
    lines = []
    for part in wrap(text, room):
        line = _Line([each for each in columns if not column - 1 <= each <= column + width(part)])
        line.put(column, part)
        if column - 2 in columns:
            line.put(column - 2, "|")
        lines.append(line)
    return lines


def _note(item: Note, columns: Rows[int], place: dict[str, int], most: int, to_left: bool) -> list[str]:
    column = _MARGIN - 1 if item.lane is None else columns[place[item.lane]]
    room = max(2 * _NARROWEST, min(max(2 * _WRAP, columns[-1] - column), most - column - 2))
    parts = wrap(item.text, room)
    if to_left and item.lane is not None and column + max(map(width, parts)) + 2 > most:
        return _note_to_left(item.text, columns, column)
    lines = []
    for number, part in enumerate(parts):
        shown = ("[" if number == 0 else " ") + part + ("]" if number == len(parts) - 1 else "")
        line = _Line([each for each in columns if not column <= each <= column + width(shown)])
        line.put(column, shown)
        if number == 0:
            line.put(_MARGIN - 3, "*")
        lines.append(str(line))
    return lines


def _note_to_left(text: str, columns: Rows[int], column: int) -> list[str]:
    """Return a note that ends at a lane: its last line is filled up, so that its closing bracket is at the lane."""
    parts = wrap(text, min(2 * _WRAP, column - _MARGIN - 2))
    left = column - 1 - max(map(width, parts))
    left -= left in columns  # an opening bracket at a lane would say that the note is of that lane
    parts[-1] = pad(parts[-1], column - left - 1) + "]"
    lines = []
    for number, part in enumerate(parts):
        shown = ("[" if number == 0 else " ") + part
        line = _Line([each for each in columns if not left <= each <= left + width(shown)])
        line.put(left, shown)
        if number == 0:
            line.put(_MARGIN - 3, "*")
        lines.append(str(line))
    return lines


def _cluster(model: ClusterSnapshot) -> list[str]:
    head = ("MEMBER", "ROLE", "TERM", "COMMIT", "APPLIED", "LAG", "DB", "VERSION", "RTT ms")
    rows = [
        (
            each.name,
            each.role,
            *map(or_unknown, (each.term, each.commit_index, each.applied_index, each.lag)),
            human_bytes(each.db_size),
            each.version or "?",
            "?" if each.round_trip_ms is None else f"{each.round_trip_ms:.1f}",
        )
        for each in model.members
    ]
    alarms = [f"{each.name}: {alarm}" for each in model.members for alarm in each.alarms]
    return table(head, rows) + ([""] + [f"! {alarm}" for alarm in alarms] if alarms else [])


def _chart(model: Chart, columns: int) -> list[str]:
    size = max((width(row.label) for row in model.rows), default=0)
    across = max(_LEAST_CHART, columns - size - 3)
    scale = across / model.duration if model.duration else 0.0
    lines = []
    for row in model.rows:
        cells = [" "] * across
        # The longest first, so that what is short stays visible in its column.
        for span in sorted(row.spans, key=lambda each: each.start - each.end):
            first = min(int(span.start * scale), across - 1)
            last = max(first + 1, round(span.end * scale))
            for column in range(first, min(last, across)):
                cells[column] = _SIGNS[span.kind]
        lines.append(f"{pad(row.label, size)} |{''.join(cells)}|")
    end = human_seconds(model.duration)
    lines.append(" " * (size + 2) + "0" + end.rjust(across - 1))
    lines += ["", f"from {model.started_at}; # leader, ? candidate, - follower, x down"]
    lines += [*(part for note in model.notes for part in wrap(f"! {note}", columns)), ""]
    spans = [
        (row.label, f"{span.start:.3f}", f"{span.end:.3f}", span.kind, span.text)
        for row in model.rows
        for span in row.spans
    ]
    return lines + table(("MEMBER", "FROM s", "TO s", "ROLE", "WHAT"), spans)
