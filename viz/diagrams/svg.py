"""The states of a Raft server as SVG, drawn here so that a page can show each member's state without Graphviz.

Pure: a StateGraph of the states ``follower``, ``candidate`` and ``leader`` in, the text out. Each state is a group of
class ``state`` with its id in ``data-state``, and in it an empty text of class ``now`` for the members that are in it.
Colours are the page's: nothing here has one.
"""

from __future__ import annotations

from html import escape

from viz.diagrams.ascii import wrap
from viz.diagrams.model import START, State, StateGraph, Transition

_BOX = 170, 62
_PLACES = {"follower": (105, 190), "candidate": (375, 60), "leader": (645, 190)}
# A path for each edge of the Raft paper's figure 4, and where the middle of its label is.
_EDGES = {
    (START, "follower"): ("M105 292 V226", (105, 308)),
    ("follower", "candidate"): ("M105 159 C115 95 200 60 290 60", (120, 66)),
    ("candidate", "candidate"): ("M350 29 C345 -8 405 -8 400 25", (500, 12)),
    ("candidate", "leader"): ("M460 60 C550 60 635 95 645 154", (632, 66)),
    ("candidate", "follower"): ("M375 91 C372 150 290 178 190 178", (480, 136)),
    ("leader", "follower"): ("M560 204 C470 222 280 222 190 204", (375, 240)),
}
_LINE = 15


def render(graph: StateGraph) -> str:
    """Take a graph whose states and transitions are among those of the paper's figure 4, return an ``svg`` element.

    Raises KeyError for any other.
    """
    arrow = "<marker id='arrow' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7' orient='auto'>"
    lines = [
        f"<svg class='states' viewBox='10 -12 740 330' role='img' aria-label='{escape(graph.title, quote=True)}'>",
        f"<defs>{arrow}<path d='M0 0 L10 5 L0 10 z'/></marker></defs>",
        *(_edge(each) for each in graph.transitions),
        *(_state(each) for each in graph.states),
        "</svg>",
    ]
    return "\n".join(lines)


def _state(state: State) -> str:
    x, y = _PLACES[state.id]
    wide, high = _BOX
    return (
        f"<g class='state' data-state='{escape(state.id, quote=True)}'>"
        f"<rect x='{x - wide / 2:g}' y='{y - high / 2:g}' width='{wide}' height='{high}' rx='10'/>"
        f"<text class='label' x='{x}' y='{y - 6}'>{escape(state.label)}</text>"
        f"<text class='now' x='{x}' y='{y + 15}'>{escape(state.detail)}</text></g>"
    )


def _edge(each: Transition) -> str:
    path, (x, y) = _EDGES[each.source, each.target]
    words = wrap(each.text, 24)
    first = y - _LINE * (len(words) - 1) / 2 + 4
    spans = "".join(f"<tspan x='{x}' y='{first + _LINE * n:g}'>{escape(text)}</tspan>" for n, text in enumerate(words))
    return f"<g class='edge'><path d='{path}' marker-end='url(#arrow)'/><text>{spans}</text></g>"
