"""Models as Mermaid, which GitHub renders in Markdown. Pure: a model in, the text out.

Ids are made up here (``s1``, ``m1``); labels are written with every character that Mermaid's grammars could
take for their own as an entity, ``#59;`` for a semicolon.
"""

from __future__ import annotations

import json
import re
from datetime import datetime

from viz.diagrams import palette
from viz.diagrams.model import START, Chart, ClusterSnapshot, Message, Model, Sequence, StateGraph

_PLAIN = re.compile(r"[\w ,.()/=+-]")
_MARKDOWN_LIST = re.compile(r"(\d+[.)]|[-+])(?= |$)")
_ARROWS = {"call": "->>", "reply": "-->>", "lost": "-x"}
LONGEST = 50_000  # characters; Mermaid refuses a longer text (its setting maxTextSize)
# How an axis of up to so many seconds says its times, in the zone of who looks at it.
_AXES = (
    (20.0, "%H:%M:%S.%L"),
    (3 * 3600.0, "%H:%M:%S"),
    (86_400.0, "%H:%M"),
    (60 * 86_400.0, "%m-%d %H:%M"),
    (float("inf"), "%Y-%m-%d"),
)
_TASK_TAGS = {"leader": "active, ", "candidate": "crit, ", "follower": "done, ", "down": ""}


def render(model: Model) -> str:
    """Take a model, return Mermaid that ends in a newline, without a fence."""
    if isinstance(model, StateGraph):
        kind, lines = "stateDiagram-v2", _states(model)
    elif isinstance(model, Sequence):
        kind, lines = "sequenceDiagram", _sequence(model)
    elif isinstance(model, ClusterSnapshot):
        kind, lines = "flowchart TB", _cluster(model)
    else:
        kind, lines = "gantt", _chart(model)
    # In JSON's quotes, which YAML reads alike; Mermaid hides entities from the grammar in the front matter too.
    title = "; ".join((model.title, *model.notes)) if isinstance(model, Chart) else model.title
    head = ["---", f"title: {json.dumps(title, ensure_ascii=False)}", "---", kind]
    return "\n".join([*head, *(f"    {line}" for line in lines)]) + "\n"


def escape(text: str) -> str:
    """Return a label that means nothing to Mermaid: ``a; b`` gives ``a#59; b``."""
    shown = "".join(char if _PLAIN.match(char) else f"#{ord(char)};" for char in text)
    item = _MARKDOWN_LIST.match(text)  # `1. x` would be a list
    if item is None:
        return shown
    sign = item.group(1)[-1]
    return shown.replace(sign, f"#{ord(sign)};", 1)


def _states(model: StateGraph) -> list[str]:
    ids = {START: "[*]"} | {state.id: f"s{number}" for number, state in enumerate(model.states, 1)}
    lines = ["direction LR"]
    for state in model.states:
        lines.append(f'state "{escape(state.label)}" as {ids[state.id]}')
        if state.detail:
            lines.append(f"{ids[state.id]} : {escape(state.detail)}")
    return lines + [f"{ids[each.source]} --> {ids[each.target]} : {escape(each.text)}" for each in model.transitions]


def _sequence(model: Sequence) -> list[str]:
    ids = {lane.id: f"m{number}" for number, lane in enumerate(model.lanes, 1)}
    lines = [f"participant {ids[lane.id]} as {escape(lane.label)}" for lane in model.lanes]
    ends = list(ids.values())
    everywhere = ",".join(dict.fromkeys((ends[0], ends[-1]))) if ends else ""
    for item in model.items:
        if isinstance(item, Message):
            lines.append(f"{ids[item.source]}{_ARROWS[item.kind]}{ids[item.target]}: {escape(item.text)}")
        else:
            lines.append(f"note over {everywhere if item.lane is None else ids[item.lane]}: {escape(item.text)}")
    return lines


def _cluster(model: ClusterSnapshot) -> list[str]:
    lines = []
    for number, member in enumerate(model.members, 1):
        look = {"leader": "leader", "no answer": "silent"}.get(member.role, "member")
        lines.append(f'm{number}["{"<br/>".join(map(escape, member.lines))}"]:::{look}')
    for source, target, text in model.links:
        arrow = "-.->" if model.members[target].role == "learner" else "-->"
        lines.append(f'm{source + 1} {arrow}|"{escape(text)}"| m{target + 1}')
    return [
        *lines,
        f"classDef leader stroke-width:3px,stroke:{palette.state('leader')}",
        "classDef member stroke:#555555",
        f"classDef silent stroke-dasharray:4 4,stroke:{palette.state('silent')}",
    ]


def _chart(model: Chart) -> list[str]:
    # In milliseconds since 1970, which Mermaid shows in the reader's zone.
    began = round(1000 * datetime.fromisoformat(model.started_at).timestamp())
    axis = next(axis for longest, axis in _AXES if model.duration <= longest)
    lines = ["dateFormat x", f"axisFormat {axis}"]
    for row in model.rows:
        lines.append(f"section {escape(row.label)}")
        for span in row.spans:
            start, end = (began + round(1000 * each) for each in (span.start, span.end))
            lines.append(f"{escape(span.text)} :{_TASK_TAGS[span.kind]}{start}, {end}")
    return lines
