"""The palette: contrast on the grounds of pages, colours for any kind of colour vision, and one place for them."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from viz.diagrams import palette

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "viz" / "assets" / "report.css"
WEB = ROOT / "loadgen" / "webui" / "static" / "page.css"
Colour = tuple[float, float, float]
# Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009), for a
# whole deficiency; applied to linear values.
VISIONS = {
    "normal": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
WHITE = (0.9505, 1.0, 1.089)


def linear(colour: str) -> Colour:
    """The linear red, green and blue of ``#rrggbb``, as sRGB defines them."""
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * each for each in digits)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return red, green, blue


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2."""
    low, high = sorted(sum(k * each for k, each in zip(TO_XYZ[1], linear(c), strict=True)) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(colour: str, vision: str) -> Colour:
    """A colour in CIELAB as one with that vision sees it."""
    seen = [min(1.0, max(0.0, dot(row, linear(colour)))) for row in VISIONS[vision]]
    x, y, z = (dot(row, (seen[0], seen[1], seen[2])) / white for row, white in zip(TO_XYZ, WHITE, strict=True))
    a, b, c = (each ** (1 / 3) if each > 0.008856 else 7.787 * each + 16 / 116 for each in (x, y, z))
    return 116 * b - 16, 500 * (a - b), 200 * (b - c)


def dot(row: Colour, values: Colour) -> float:
    return sum(k * each for k, each in zip(row, values, strict=True))


def least_difference(one: str, other: str) -> float:
    """The difference (CIE 1976) for whoever sees the least of it."""
    return min(
        sum((a - b) ** 2 for a, b in zip(lab(one, vision), lab(other, vision), strict=True)) ** 0.5
        for vision in VISIONS
    )


def grounds(file: Path, names: tuple[str, ...], which: int) -> list[str]:
    """What charts stand on: the values of variables of a style sheet, in its light (0) or its dark (1) theme."""
    text = file.read_text()
    return [re.findall(rf"--{name}: ?(#[0-9a-f]+)", text)[which] for name in names]


@pytest.mark.parametrize("which", [0, 1], ids=["light", "dark"])
def test_each_colour_stands_out_from_the_grounds_of_report_and_web_page(which: int) -> None:
    behind = [*grounds(REPORT, ("bg",), which), *grounds(WEB, ("card",), which)]
    groups = (palette.OPERATIONS, palette.PERCENTILES, palette.STATES)
    named = {name: pair[which] for group in groups for name, pair in group.items()}
    named |= {f"term {number}": colour for number, colour in enumerate(palette.TERMS)}
    weak = {name: colour for name, colour in named.items() for each in behind if contrast(colour, each) < 3}
    assert not weak


def test_white_text_can_be_read_on_what_has_text_in_it() -> None:
    coloured = [*palette.TERMS, *palette.STATES["silent"], *palette.STATES["leader"]]
    assert min(contrast(each, "#ffffff") for each in coloured) >= 4.5
    assert min(contrast(palette.state(each), "#000000") for each in ("candidate", "follower")) >= 4.5


@pytest.mark.parametrize("which", [0, 1], ids=["light", "dark"])
def test_operation_types_are_told_apart_by_any_colour_vision(which: int) -> None:
    usual = [palette.OPERATIONS[name][which] for name in ("get", "put", "txn")]
    assert min(least_difference(*pair) for pair in itertools.combinations(usual, 2)) > 20
    every = [pair[which] for pair in palette.OPERATIONS.values()]
    assert min(least_difference(*pair) for pair in itertools.combinations(every, 2)) > 9


def test_a_term_differs_from_the_next_one_and_from_states() -> None:
    following = zip(palette.TERMS, (*palette.TERMS[1:], palette.TERMS[0]), strict=True)
    assert min(least_difference(*pair) for pair in following) > 9
    states = [palette.STATES[name][0] for name in ("none", "silent", "down", "follower")]
    assert min(least_difference(term, each) for term in palette.TERMS for each in states) > 9
    assert palette.term(2) == palette.term(2 + len(palette.TERMS)) != palette.term(3)


def test_operation_types_keep_their_colour_whatever_runs_beside_them() -> None:
    alone, beside = palette.operations(["put"]), palette.operations(["mine", "get", "put", "list", "other"])
    assert alone["put"] == beside["put"] == "put"
    assert beside["list"] == "range"
    assert len({*beside.values()}) == len(beside)


def test_no_other_file_has_a_colour_for_them_and_the_pages_know_each() -> None:
    script = (ROOT / "loadgen" / "webui" / "static" / "charts.js").read_text()
    assert f"`t${{term % {len(palette.TERMS)}}}`" in script
    variables = {*re.findall(r"--[a-z0-9-]+(?=:)", palette.css("@media x"))}
    for file in (REPORT, WEB):
        text = file.read_text()
        used = {*re.findall(r"var\((--[a-z0-9-]+)\)", text)}
        own = {*re.findall(r"(--[a-z0-9]+):", text)}
        assert used <= own | variables
        assert not own & variables
        assert {f"--term-{number}" for number in range(len(palette.TERMS))} <= used
    for name in ("report/plots.py", "diagrams/mermaid.py"):
        found = re.findall(r"#[0-9a-fA-F]{6}", (ROOT / "viz" / name).read_text())
        assert [*dict.fromkeys(found)] in ([], ["#555555"])  # a frame, which stands for nothing


def test_the_variables_of_a_theme() -> None:
    query, theme = palette.css("@media (prefers-color-scheme:dark)"), palette.css('[data-theme="dark"]')
    get = palette.OPERATIONS["get"]
    assert f"--op-get:{get[0]}" in query.splitlines()[0] and f"--op-get:{get[1]}" in query.splitlines()[1]
    assert query.splitlines()[2].startswith("@media print") and get[0] in query.splitlines()[2]
    assert theme.splitlines()[1].startswith('[data-theme="dark"]') and get[1] in theme.splitlines()[1]
