"""Models as Graphviz DOT, from which SVG and PNG are made. Pure: a model in, the text out.

State graphs and clusters are laid out by ``dot``. Sequences and charts say ``layout=neato`` and pin every
node, so that the lanes are straight whatever is on them: a message is an edge between two points, with its
label as a node of its own above it, ``t3`` for the edge of id ``e3``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from cluster.base.console import width
from viz.diagrams import palette
from viz.diagrams.ascii import wrap
from viz.diagrams.model import (
    START,
    Chart,
    ClusterSnapshot,
    Message,
    Model,
    Note,
    Sequence,
    Span,
    StateGraph,
    human_seconds,
    ticks,
)

_FONT = 'fontname="Helvetica,Arial,sans-serif"'
_SIZE = 11  # of a font, in points, where nothing else is said
_LINE = 14.0
_SHORT = 16  # how far from its target a lost message ends
_WRAP = 34
_ASIDE = 26.0  # how far from its lane the text of a message to itself begins
_ACROSS = 640.0  # a chart's time, in points
_ROW = 34.0
_IN_BAR, _ABOVE = 9, 8  # font sizes, in points; Graphviz takes a line of 9 as 11 high at most, and a thin bar is 12
_TEXT = "shape=plaintext, width=0, height=0"
_BESIDE = 2.0  # points that a bar has on either side of its label
_QUIET = palette.state("follower")
_PIXEL = 0.75  # points: Graphviz measures text at 96 dots per inch, and fonts have whole pixels there
# The greatest width of a character in ems, in DejaVu Sans: no font that usually stands in for Helvetica is wider. ASCII
# that is not here takes 0.66 at most.
_EMS = dict.fromkeys(" !'()*,-./:;I[\\]_`fijlrt|\"", 0.5) | dict.fromkeys("#&+<=>ABCDGHNOQRUVXZ^w~", 0.84)
_EMS |= dict.fromkeys("%@MWm", 1.0)


def render(model: Model) -> str:
    """Take a model, return DOT that ends in a newline."""
    if isinstance(model, StateGraph):
        lines = _states(model)
    elif isinstance(model, Sequence):
        lines = _sequence(model)
    elif isinstance(model, ClusterSnapshot):
        lines = _cluster(model)
    else:
        lines = _chart(model)
    return "\n".join(["digraph {", *(f"  {line};" for line in lines), "}"]) + "\n"


def escape(text: str) -> str:
    """Return a string that means nothing to Graphviz, in its quotes:

    no escapes (entities are read before these, so a backslash is doubled), no entities.
    """
    return '"' + text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', "&quot;") + '"'


def _wrapped(*texts: str, room: int = _WRAP) -> str:
    parts = [escape(line)[1:-1] for text in texts for line in wrap(text, room)]
    return '"' + "\\n".join(parts) + '"'


def _points(text: str, size: float) -> float:
    """Return how many points a line of text takes at most, in Helvetica of this size or what stands in for it."""
    total = 1.0  # Graphviz rounds up
    for char in text:
        # A character that no font has is drawn as a box of hexadecimal digits.
        ems = _EMS.get(char, 0.66) if char.isascii() else 2.0 * max(1, width(char))
        total += math.ceil(ems * size / _PIXEL) * _PIXEL
    return total


def _widest(text: str) -> float:
    """Return how many points the lines of a text take at most that is wrapped."""
    return max(_points(line, _SIZE) for line in wrap(text, _WRAP))


def _attributes(**values: str | float) -> str:
    """``[a=1, b="x"]``; what is quoted already stays so."""
    shown = [f"{name}={value if isinstance(value, str) else format(value, 'g')}" for name, value in values.items()]
    return f"[{', '.join(shown)}]"


def _general(title: str, **values: str) -> list[str]:
    return [
        f"graph [{_FONT}, fontsize=14, labelloc=t, label={escape(title)}, bgcolor=white, pad=0.3"
        + "".join(f", {name}={value}" for name, value in values.items())
        + "]",
        f"node [{_FONT}, fontsize={_SIZE}]",
        f"edge [{_FONT}, fontsize=10]",
    ]


def _states(model: StateGraph) -> list[str]:
    ids = {START: "start"} | {state.id: f"s{number}" for number, state in enumerate(model.states, 1)}
    lines = _general(model.title, rankdir="LR", nodesep="0.6", ranksep="0.7")
    if any(each.source == START for each in model.transitions):
        lines.append('start [shape=circle, style=filled, fillcolor=black, width=0.15, fixedsize=true, label=""]')
    for state in model.states:
        texts = (state.label, state.detail) if state.detail else (state.label,)
        lines.append(f'{ids[state.id]} [shape=box, style="rounded", margin="0.25,0.15", label={_wrapped(*texts)}]')
    for each in model.transitions:
        lines.append(f"{ids[each.source]} -> {ids[each.target]} [label={_wrapped(each.text, room=22)}]")
    return lines


def _cluster(model: ClusterSnapshot) -> list[str]:
    lines = _general(model.title, rankdir="TB", ranksep="0.8")
    looks = {
        "leader": f'penwidth=3, color="{palette.state("leader")}"',
        "no answer": 'style=dashed, color="{0}", fontcolor="{0}"'.format(palette.state("silent")),
    }
    for number, member in enumerate(model.members, 1):
        look = looks.get(member.role, 'color="#555555"')
        label = _wrapped(*member.lines, room=40)
        lines.append(f'm{number} [shape=box, margin="0.2,0.12", {look}, label={label}]')
    for source, target, text in model.links:
        style = ", style=dashed" if model.members[target].role == "learner" else ""
        label = '"  ' + _wrapped(text)[1:]  # blanks keep it off the edge
        lines.append(f"m{source + 1} -> m{target + 1} [label={label}{style}]")
    return lines


def _sequence(model: Sequence) -> list[str]:
    place = {lane.id: number for number, lane in enumerate(model.lanes)}
    xs = _lane_xs(model, place)
    lines = _general(model.title, layout="neato", splines="line", outputorder="edgesfirst")
    y, number = -30.0, 0
    body: list[str] = []
    for step, item in enumerate(model.items, 1):
        if isinstance(item, Note):
            x = (xs[0] + xs[-1]) / 2 if item.lane is None else xs[place[item.lane]]
            label = wrap(item.text, 60 if item.lane is None else _WRAP)
            y -= _LINE * len(label) / 2 + 14
            note = _wrapped(item.text, room=60 if item.lane is None else _WRAP)
            look = (
                'shape=box, style=filled, fillcolor="#fff8e1", color="#c0a040", margin="0.08,0.04", width=0, height=0'
            )
            body.append(f"n{step} [{look}, {_at(x, y)}, label={note}]")
            y -= _LINE * len(label) / 2 + 6
            continue
        number += 1
        lines_of_text, y, text_at = _place_label(item, xs, place, y)
        body += _arrow(item, number, xs, place, y)
        look = "shape=plaintext, style=filled, fillcolor=white, margin=0, width=0, height=0"
        body.append(f"t{number} [{look}, {text_at}, label={lines_of_text}]")
        y -= 24.0 if item.source == item.target else 6.0
    bottom = y - 14
    for lane, x in zip(model.lanes, xs, strict=True):
        name = f"l{place[lane.id] + 1}"
        lines.append(f'{name} [shape=box, margin="0.12,0.06", {_at(x, 0)}, label={_wrapped(lane.label)}]')
        lines.append(f'{name}e [shape=point, width=0.01, {_at(x, bottom)}, color="{_QUIET}"]')
        lines.append(f'{name} -> {name}e [arrowhead=none, color="{_QUIET}", style=dashed]')
    return lines + body


def _lane_xs(model: Sequence, place: Mapping[str, int]) -> list[float]:
    """Return where each lane stands, in points, so that no label runs into another lane's."""
    halves = [_widest(lane.label) / 2 + 14 for lane in model.lanes]
    notes = dict.fromkeys(place, 0.0)
    for item in model.items:
        if isinstance(item, Note) and item.lane is not None:
            size = _widest(item.text) / 2 + 12
            notes[item.lane] = max(notes[item.lane], size)
    sides = [max(half, notes[lane.id]) for half, lane in zip(halves, model.lanes, strict=True)]
    # A note of one lane may reach to the next one's line, not across it.
    gaps = [
        max(left + right + 10, first, second)
        for left, right, first, second in zip(halves, halves[1:], sides, sides[1:], strict=False)
    ]
    for item in model.messages:
        first, last = sorted((place[item.source], place[item.target]))
        last = min(last + (first == last), len(gaps))
        ends = 24 + (2 * _SHORT if item.kind == "lost" else 0) if item.source != item.target else _ASIDE + 4
        lacking = _widest(item.text) + ends - sum(gaps[first:last])
        for number in range(first, last):
            gaps[number] += max(0.0, lacking) / (last - first)
    xs = [0.0]
    for gap in gaps:
        xs.append(xs[-1] + gap)
    return xs


def _place_label(item: Message, xs: list[float], place: Mapping[str, int], y: float) -> tuple[str, float, str]:
    """Return the label as DOT, the height of its arrow, and the label's position above or beside that."""
    source, target = _reach(item, xs, place)
    label = wrap(item.text, _WRAP)
    height = _LINE * len(label)
    if source == target:
        y -= max(10.0, height / 2 - 6) + 8
        size = _widest(item.text)
        # Its lines begin next to the arrow, however wide they are.
        beside = '"' + "".join(f"{escape(line)[1:-1]}\\l" for line in label) + '"'
        return beside, y, f"{_at(source + _ASIDE + size / 2, y - 8)}, width={size / 72:g}"
    y -= height + 8
    return _wrapped(item.text), y, _at((source + target) / 2, y + height / 2 + 1)


def _reach(item: Message, xs: list[float], place: Mapping[str, int]) -> tuple[float, float]:
    """Return where its arrow begins and ends: one that is lost does not come to its target."""
    source, target = xs[place[item.source]], xs[place[item.target]]
    if item.kind == "lost" and source != target:
        target += _SHORT if target < source else -_SHORT
    return source, target


def _arrow(item: Message, number: int, xs: list[float], place: Mapping[str, int], y: float) -> list[str]:
    source, target = _reach(item, xs, place)
    lost = f', color="{palette.LOST}", arrowhead=tee'
    style = {"call": "", "reply": ", style=dashed", "lost": lost}[item.kind]
    point = "shape=point, width=0.01"
    ends = f"a{number}", f"b{number}"
    if source != target:
        return [
            f"{ends[0]} [{point}, {_at(source, y)}]",
            f"{ends[1]} [{point}, {_at(target, y)}]",
            f'{ends[0]} -> {ends[1]} [id="e{number}"{style}]',
        ]
    corners = f"c{number}", f"d{number}"
    return [
        f"{ends[0]} [{point}, {_at(source, y)}]",
        f"{corners[0]} [{point}, {_at(source + 18, y)}]",
        f"{corners[1]} [{point}, {_at(source + 18, y - 16)}]",
        f"{ends[1]} [{point}, {_at(source, y - 16)}]",
        f"{ends[0]} -> {corners[0]} [arrowhead=none]",
        f"{corners[0]} -> {corners[1]} [arrowhead=none]",
        f'{corners[1]} -> {ends[1]} [id="e{number}"{style}]',
    ]


def _at(x: float, y: float) -> str:
    """Return a pinned position; neato takes inches."""
    return f'pos="{x / 72:.4f},{y / 72:.4f}!"'


def _chart(model: Chart) -> list[str]:
    lines = _general(model.title, layout="neato", splines="line", outputorder="edgesfirst")
    room = max((_points(row.label, _SIZE) for row in model.rows), default=0) + 20
    scale = _ACROSS / model.duration if model.duration else 0.0
    bottom = -_ROW * (len(model.rows) + 1)
    for number, (at, text) in enumerate(ticks(model.duration)):
        x = at * scale
        lines.append(f"k{number} [{_TEXT}, {_at(x, bottom)}, label={escape(text)}]")
        lines += [f"g{number}{end} [shape=point, style=invis, width=0.01, {_at(x, y)}]"
                  for end, y in (("a", -_ROW / 2), ("b", bottom + 10))]  # fmt: skip
        lines.append(f'g{number}a -> g{number}b [arrowhead=none, color="#d8dee4"]')
    number = above = 0
    for index, row in enumerate(model.rows, 1):
        y = -_ROW * index
        name = escape(row.label)[:-1] + '\\r"'  # at the right end, next to its bars
        lines.append(
            f"r{index} [shape=plaintext, width={room / 72:.4f}, height=0, {_at(-room / 2 - 2, y)}, label={name}]"
        )
        free = float("-inf")  # to where the terms above the bars reach
        for span in sorted(row.spans, key=lambda each: each.start - each.end):
            number += 1
            lines.append(f"p{number} {_bar(span, scale, y)}")
        for span in row.spans:
            if span.term is None or _label(span, scale):
                continue
            x, size = (span.start + span.end) / 2 * scale, _points(str(span.term), _ABOVE)
            if x - size / 2 >= free:
                above += 1
                look = f"{_TEXT}, margin=0, fontsize={_ABOVE}, label={escape(str(span.term))}"
                lines.append(f"u{above} [{look}, {_at(x, y + 16)}]")
                free = x + size / 2 + 2
    y = bottom - 24
    began = escape(f"from {model.started_at}, {human_seconds(model.duration)} long")
    lines.append(f"from [{_TEXT}, {_at(_ACROSS / 2, y)}, label={began}]")
    for keys in _keys(model):
        y -= 18
        lines += _legend_row(keys, y, f"q{len(lines)}")
    for number, note in enumerate(model.notes, 1):
        label = wrap(note, 100)
        y -= _LINE * (len(label) / 2 + 1)
        lines.append(f"x{number} [{_TEXT}, {_at(_ACROSS / 2, y)}, label={_wrapped(note, room=100)}]")
        y -= _LINE * len(label) / 2
    return lines


def _keys(model: Chart) -> list[list[tuple[str, str]]]:
    """Return what each colour means, in rows: the terms that were led, as many as have a colour, and the states."""
    led = sorted({span.term for row in model.rows for span in row.spans if span.kind == "leader" and span.term})
    terms = [(palette.term(term), f"leads term {term}") for term in led[: len(palette.TERMS)]]
    if len(led) > len(terms):
        terms.append((palette.term(led[len(terms)]), "and so on"))
    states = [(palette.state(name), name) for name in ("candidate", "follower", "down")]
    return [each for each in (terms, states) if each]


def _legend_row(keys: list[tuple[str, str]], y: float, name: str) -> list[str]:
    lines = []
    x = (_ACROSS - sum(_points(text, _SIZE) + 34 for _, text in keys)) / 2
    for number, (colour, text) in enumerate(keys):
        size = _points(text, _SIZE)
        box = 'shape=box, style=filled, fixedsize=true, width=0.14, height=0.14, label=""'
        lines.append(f"{name}_{number} [{box}, color={escape(colour)}, fillcolor={escape(colour)}, {_at(x, y)}]")
        look = f"shape=plaintext, margin=0, width={size / 72:.4f}, height=0"
        left = escape(text)[:-1] + '\\l"'  # at the left end, next to its colour
        lines.append(f"{name}_{number}t [{look}, {_at(x + 12 + size / 2, y)}, label={left}]")
        x += size + 34
    return lines


def _bar(span: Span, scale: float, y: float) -> str:
    size = max(2.0, (span.end - span.start) * scale)
    height = 20 if span.kind == "leader" else 12
    led = span.kind == "leader" and span.term is not None
    colour = palette.term(span.term) if led and span.term is not None else palette.state(span.kind)
    values = _attributes(
        shape="box", margin="0", fixedsize="true", width=size / 72, height=height / 72, style="filled",
        label=escape(_label(span, scale)), fillcolor=escape(colour), color=escape(colour),
        fontcolor="white" if span.kind in ("leader", "down") else "black", fontsize=_IN_BAR, tooltip=escape(span.text),
    )  # fmt: skip
    return f"{values[:-1]}, {_at(span.start * scale + size / 2, y)}]"


def _label(span: Span, scale: float) -> str:
    """Return the longest text that surely has room in a bar: what it is, its term, or nothing."""
    size = (span.end - span.start) * scale - 2 * _BESIDE
    term = () if span.term is None else (f"term {span.term}", str(span.term))
    texts = ((span.text,) if span.kind == "leader" else ()) + term
    return next((text for text in texts if _points(text, _IN_BAR) <= size), "")
