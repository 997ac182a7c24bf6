"""A sequence as SVG: lanes downwards, an arrow a message, in the page's own colours and without Graphviz."""

from __future__ import annotations

import itertools
from html import escape

from viz.diagrams.ascii import wrap
from viz.diagrams.model import Message, Note, Sequence

_LANE, _MARGIN, _LINE, _CHAR = 290, 150, 15, 6.6
_LONGEST = 40
_BESIDE = 22


def render(model: Sequence, id_prefix: str) -> str:
    """Take a sequence, and what ids in the page begin with; return an SVG element of a fixed size."""
    xs = {lane.id: _MARGIN + number * _LANE for number, lane in enumerate(model.lanes)}
    width = 2 * _MARGIN + (len(xs) - 1) * _LANE + 40
    body, y = [], 46.0
    for note_or_message in model.items:
        if isinstance(note_or_message, Note):
            shapes, y = _note(note_or_message, xs, width, y)
        else:
            shapes, y = _message(note_or_message, xs, y, id_prefix)
        body.append(shapes)
    height = y + 16
    lanes = "".join(
        f'<line x1="{x}" x2="{x}" y1="30" y2="{height:g}" class="lane"/><text x="{x}" y="18" class="name">'
        f"{escape(lane.label)}</text>"
        for lane, x in zip(model.lanes, xs.values(), strict=True)
    )
    heads = "".join(
        f'<marker id="{id_prefix}{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" class="head {kind}"/></marker>'
        for kind in ("call", "reply", "lost")
    )
    return (f'<svg class="ladder" width="{width}" height="{height:g}" viewBox="0 0 {width} {height:g}" role="img" '
            f'aria-label="{escape(model.title)}"><defs>{heads}</defs>{lanes}{"".join(body)}</svg>')  # fmt: skip


def _note(note: Note, xs: dict[str, int], width: int, y: float) -> tuple[str, float]:
    x = width / 2 if note.lane is None else xs[note.lane]
    lines = wrap(note.text, _LONGEST if note.lane else 90)
    wide = max(len(line) for line in lines) * _CHAR + 16
    tall = _LINE * len(lines) + 8
    look = "all" if note.lane is None else "leads" if note.text.startswith("LEADER") else "note"
    box = f'<rect x="{x - wide / 2:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall}" rx="4" class="{look}"/>'
    return box + _text(lines, x, y + 15, "middle"), y + tall + 8


def _message(message: Message, xs: dict[str, int], y: float, id_prefix: str) -> tuple[str, float]:
    source, target = xs[message.source], xs[message.target]
    lines = wrap(message.text, _BESIDE if source == target else _LONGEST)
    y += _LINE * len(lines)
    if source == target:
        loop = f"M{source} {y - 6:.1f}h22v12h-20"
        drawn = f'<path d="{loop}" class="call" marker-end="url(#{id_prefix}call)"/>'
        return drawn + _text(lines, source + 30, y + 4 - _LINE * (len(lines) - 1), "start"), y + 16
    end = target
    if message.kind == "lost":
        end = source + (target - source) * 3 // 4  # it never arrives
    drawn = (f'<line x1="{source}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}" class="{message.kind}" '
             f'marker-end="url(#{id_prefix}{message.kind})"/>')  # fmt: skip
    near = source + (60 if target > source else -60)
    centre = (
        (source + target) / 2
        if abs(target - source) <= _LANE
        else near + (target - source) / abs(target - source) * _LANE / 4
    )
    return drawn + _text(lines, centre, y - 5 - _LINE * (len(lines) - 1), "middle"), y + 10


def _text(lines: list[str], x: float, y: float, anchor: str) -> str:
    rows = zip(lines, itertools.count(), strict=False)
    return "".join(
        f'<text x="{x:.1f}" y="{y + _LINE * row:.1f}" text-anchor="{anchor}">{escape(line)}</text>'
        for line, row in rows
    )
