"""The colours of operation types, member states and terms, one for each, in report, web page, plots and diagrams.

The hues are those of Okabe and Ito, "Color Universal Design" (2008), which people with any kind of colour vision can
tell apart. Where a hue is too pale or too dark for the ground that it stands on, its lightness is another, so that it
has a contrast of 3:1 at least (WCAG 2.2, 1.4.11); a term's and a silence's bar has white text in it (4.5:1).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

Pair = tuple[str, str]  # on a light ground, on a dark one

OPERATIONS: Mapping[str, Pair] = {
    "get": ("#0072b2", "#56b4e9"),
    "put": ("#d55e00", "#e8702a"),
    "txn": ("#c474a0", "#cc79a7"),
    "delete": ("#009e73", "#00b584"),
    "range": ("#3a2a78", "#e4e0ff"),
    "lease": ("#6e4a00", "#e69f00"),
    "watch": ("#8a8f1c", "#f0e442"),
}
# Of percentiles the line's kind differs, not its hue: hues are for operation types.
PERCENTILES: Mapping[str, Pair] = {
    "max": ("#7d8791", "#7d8791"),
    "p99": ("#1b1f24", "#e6edf3"),
    "p50": ("#59636e", "#a3adb8"),
}
STATES: Mapping[str, Pair] = {
    "leader": ("#00805d", "#00805d"),
    "follower": ("#7d8791", "#7d8791"),
    "none": ("#bd8200", "#e69f00"),
    "silent": ("#df235d", "#df235d"),
    "paused": ("#6f5bb5", "#a594e0"),
    "down": ("#1b1f24", "#e6edf3"),
}
# In an order in which each differs most from the next one.
TERMS = ("#0072b2", "#b95200", "#39779a", "#af4191", "#00805d")
LOST = STATES["silent"][0]
_ALIASES = {"list": "range", "learner": "follower", "candidate": "none", "precandidate": "none", "no leader": "none",
            "no answer": "silent"}  # fmt: skip


def operations(names: Iterable[str]) -> dict[str, str]:
    """Return which of OPERATIONS each name has the colour of: its own, and for other names those that are left."""
    names = [*names]
    taken = {_ALIASES.get(name, name) for name in names} & OPERATIONS.keys()
    left = itertools.cycle([each for each in OPERATIONS if each not in taken] or [*OPERATIONS])
    return {name: known if (known := _ALIASES.get(name, name)) in OPERATIONS else next(left) for name in names}


def state(name: str) -> str:
    """Return the colour of a member's state on a light ground; ``candidate`` is one that knows no leader."""
    return STATES[_ALIASES.get(name, name)][0]


def term(number: int) -> str:
    """Return the colour of a term."""
    return TERMS[number % len(TERMS)]


def css(dark: str) -> str:
    """Return the colours as variables of CSS: ``--op-get``, ``--state-leader``, ``--term-0``, ``--p99``.

    Takes the selector of what is dark. One that begins with ``@`` is a query, and on paper the page is light then.
    """
    light_rule = f":root{{{_variables(0)}}}"
    if not dark.startswith("@"):
        return f"{light_rule}\n{dark}{{{_variables(1)}}}\n"
    return f"{light_rule}\n{dark}{{:root{{{_variables(1)}}}}}\n@media print{{{light_rule}}}\n"


def _variables(which: int) -> str:
    groups: Sequence[tuple[str, Mapping[str, Pair]]] = (
        ("op-", OPERATIONS), ("", PERCENTILES), ("state-", STATES),
        ("term-", {str(number): (each, each) for number, each in enumerate(TERMS)}),
    )  # fmt: skip
    return ";".join(f"--{prefix}{name}:{pair[which]}" for prefix, each in groups for name, pair in each.items())
