"""Charts as SVG that is as wide as its page: lines over time or on any other axis, bands, and rows of spans.

What grows with the page is in percent or in a drawing that is stretched (its lines are not); text stays as large as it
is. So a chart needs no script, is as good on paper, and can be zoomed by a script that changes its view box.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Sequence
from html import escape

WIDTH = 1000.0  # of the stretched drawing; one unit is about a pixel
MOST_POINTS = 1300  # two minutes of 100 ms, and their ends
_MARK_ROWS = 3
# The least that a chart's area is wide, on a narrow screen and on paper, and the most that a character is, in pixels.
_NARROW, _PAPER, _CHAR = 290, 560, 7.5
Point = tuple[float, float | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """A range of values and how it is laid out.

    Attributes:
        low, high: its ends, as values.
        ticks: values with a label.
        scale: ``linear``, ``log``, or ``log1p``, which is logarithmic and has a zero.
        unit: what follows a value in words, such as ``ms``.
        labels: of the ticks, where those are not the values themselves.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    scale: str = "linear"
    unit: str = ""
    labels: tuple[str, ...] = ()

    def place(self, value: float) -> float:
        """Return where a value lies between the ends, 0 to 1; beyond them for a value outside."""
        low, high, at = (_SCALES[self.scale](each) for each in (self.low, self.high, value))
        return (at - low) / (high - low) if high > low else 0.0

    def label(self, index: int) -> str:
        """Return what stands at a tick."""
        return self.labels[index] if self.labels else number(self.ticks[index])


_SCALES: dict[str, Callable[[float], float]] = {
    "linear": float,
    "log": lambda value: math.log10(max(value, 1e-12)),
    "log1p": lambda value: math.log10(1 + max(value, 0.0)),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A series of a chart.

    Attributes:
        name: in the legend.
        look: CSS class that gives it its colour.
        points: x and y in the order of x; None is a gap, over which nothing is drawn.
        step: whether a value holds until the next point.
        dots: whether its points are to be seen.
        labels: what stands above each point; empty for nothing.
    """

    name: str
    look: str
    points: tuple[Point, ...]
    step: bool = False
    dots: bool = False
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Band:
    """A stretch of x that is tinted, such as the time of a fault; ``mark`` stands at its beginning."""

    start: float
    end: float
    mark: str = ""
    text: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """Lines over one x.

    Attributes:
        id: unique in its page.
        title: for those who cannot see it, too.
        y_label: of the vertical axis.
        levels: horizontal lines to hold the values against, with their text.
        group: charts of one group share their x axis, zoom and cursor.
    """

    id: str
    title: str
    x: Axis
    y: Axis
    y_label: str
    lines: tuple[Line, ...]
    bands: tuple[Band, ...] = ()
    levels: tuple[tuple[float, str], ...] = ()
    group: str = ""
    height: int = 190


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """A piece of a row: from when to when, its CSS classes, and what it says."""

    start: float
    end: float
    look: str
    text: str
    height: float = 1.0


def render(chart: Chart) -> str:
    """Return the chart as an HTML figure."""
    area = [_grid(chart.x, chart.y, chart.height), _stretched(chart.height, _bands(chart.bands, chart.x, chart.height))]
    area += [_level(chart.y, value, chart.height) for value, _ in chart.levels]
    drawn = [_thinned(line) for line in chart.lines]
    paths = "".join(_path(line, chart.x, chart.y, chart.height) for line in drawn)
    area += [_stretched(chart.height, paths), _marks(chart.bands, chart.x)]
    area += [_labels(line, chart.x, chart.y, chart.height) for line in chart.lines if line.labels]
    return _figure(chart, _y_axis(chart.y, chart.height), "".join(area), _data(chart, drawn), _legend(chart))


def render_rows(chart: Chart, rows: Sequence[tuple[str, Sequence[Span]]], legend: str) -> str:
    """Return rows of spans over the chart's x axis, with its bands, as an HTML figure; takes the legend as HTML."""
    step = chart.height / max(1, len(rows))
    labels = "".join(f'<text x="100%" dx="-8" y="{step * (i + 0.5):.1f}" class="ye">{escape(name)}</text>'
                     for i, (name, _) in enumerate(rows))  # fmt: skip
    area = [_grid(chart.x, None, chart.height), _stretched(chart.height, _bands(chart.bands, chart.x, chart.height))]
    shapes, texts = [], []
    for i, (_, spans) in enumerate(rows):
        for span in spans:
            x, end = _x(chart.x, span.start), _x(chart.x, span.end)
            tall = span.height * step * 0.62
            y = step * (i + 0.5) - tall / 2
            shapes.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(end - x, 1.5):.1f}" height="{tall:.1f}" '
                          f'class="{span.look}"><title>{escape(span.text)}</title></rect>')  # fmt: skip
            if span.height >= 1 and (end - x) / WIDTH > 0.1:
                room = " not-paper" if len(span.text) * _CHAR + 6 > (end - x) / WIDTH * _PAPER else ""
                texts.append(f'<text data-x="{span.start:.3f}" x="{x / WIDTH:.2%}" dx="6" y="{step * (i + 0.5):.1f}" '
                             f'class="in {span.look}{room}">{escape(span.text)}</text>')  # fmt: skip
    area += [_stretched(chart.height, "".join(shapes)), *texts, _marks(chart.bands, chart.x)]
    return _figure(chart, labels, "".join(area), {"x": _axis_data(chart.x)}, legend)


def _figure(chart: Chart, axis: str, area: str, data: dict[str, object], legend: str) -> str:
    title = escape(chart.title)
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return (
        f'<figure class="chart" id="{chart.id}" data-group="{chart.group or chart.id}">'
        f'<div class="plot"><svg class="axis" height="{chart.height + 22}" aria-hidden="true">{axis}</svg>'
        f'<svg class="area" height="{chart.height + 22}" tabindex="0" role="img" aria-label="{title}">'
        f"<title>{title}</title>{area}</svg></div>"
        f'<figcaption>{legend}</figcaption><script type="application/json">{text}</script></figure>\n'
    )


def _legend(chart: Chart) -> str:
    unit = f"<span>{escape(chart.y_label)}</span>"
    levels = "".join(f'<span class="key level"><i></i>{escape(text)}</span>' for _, text in chart.levels)
    return (
        unit
        + levels
        + "".join(
            f'<span class="key line {line.look}"><i></i>{escape(line.name)} <output data-line="{i}"></output></span>'
            for i, line in enumerate(chart.lines)
        )
    )


def _stretched(height: float, inside: str) -> str:
    """Return a drawing that is pulled to the width of the area."""
    return (f'<svg class="draw" viewBox="0 0 {WIDTH:g} {height:g}" preserveAspectRatio="none" width="100%" '
            f'height="{height:g}">{inside}</svg>')  # fmt: skip


def _x(axis: Axis, value: float) -> float:
    return axis.place(value) * WIDTH


def _y(axis: Axis, value: float, height: float) -> float:
    return (1 - min(1.0, max(0.0, axis.place(value)))) * height


def _grid(x: Axis, y: Axis | None, height: float) -> str:
    lines = []
    for value in y.ticks if y is not None else ():
        at = f"{_y(y, value, height):.1f}" if y is not None else ""
        lines.append(f'<line x1="0" x2="100%" y1="{at}" y2="{at}" class="grid"/>')
    ticks = []
    places, texts = [x.place(value) for value in x.ticks], [_with_unit(x, i) for i in range(len(x.ticks))]
    narrow, paper = _crowded(places, texts, _NARROW), _crowded(places, texts, _PAPER)
    for i, (place, text) in enumerate(zip(places, texts, strict=True)):
        room = " not-paper" if i in paper else " not-narrow" if i in narrow else ""
        ticks.append(f'<line x1="{place:.2%}" x2="{place:.2%}" y1="0" y2="{height:g}" class="grid"/>'
                     f'<text x="{place:.2%}" y="{height + 15:g}" class="xm{_at_end(place, text)}{room}">'
                     f'{escape(text)}</text>')  # fmt: skip
    return f'{"".join(lines)}<g class="xticks">{"".join(ticks)}</g>'


def _with_unit(axis: Axis, index: int) -> str:
    """Return what stands at a tick of time, with its unit."""
    return f"{axis.label(index)} {axis.unit}" if axis.unit == "s" else axis.label(index)


def _at_end(place: float, text: str, share: float = 0.5) -> str:
    """Return the class of a text that ends where it stands, as it would run over the right end of the area otherwise.

    Takes how much of the text is to the right of its place.
    """
    return " xe" if place + share * len(text) * _CHAR / _PAPER > 1 else ""


def _crowded(places: Sequence[float], texts: Sequence[str], wide: float) -> set[int]:
    """Return which texts have no room beside the next one that is shown, in an area of so many pixels."""
    left_out, free = set(), math.inf
    for i in reversed(range(len(places))):
        size = len(texts[i]) * _CHAR
        end = places[i] * wide + (0 if _at_end(places[i], texts[i]) else size / 2)
        if end > free:
            left_out.add(i)
        else:
            free = end - size
    return left_out


def _y_axis(axis: Axis, height: float) -> str:
    return "".join(
        f'<text x="100%" dx="-8" y="{_y(axis, value, height):.1f}" class="ye">{escape(axis.label(i))}</text>'
        for i, value in enumerate(axis.ticks)
    )


def _level(axis: Axis, value: float, height: float) -> str:
    at = f"{_y(axis, value, height):.1f}"
    return f'<line x1="0" x2="100%" y1="{at}" y2="{at}" class="level"/>'


def _bands(bands: Sequence[Band], x: Axis, height: float) -> str:
    return "".join(
        f'<rect x="{_x(x, band.start):.1f}" y="0" width="{max(2.0, _x(x, band.end) - _x(x, band.start)):.1f}" '
        f'height="{height:g}" class="band"><title>{escape(band.text)}</title></rect>'
        for band in bands
    )


def _marks(bands: Sequence[Band], x: Axis) -> str:
    """Return the marks of bands, one that has no room beside the last one below it."""
    made, free = [], [0.0] * _MARK_ROWS
    for band in bands:
        if not band.mark:
            continue
        at, size = x.place(band.start), 0.012 * (len(band.mark) + 1)
        before = _at_end(at, band.mark, 1.5)
        left = at - size if before else at
        row = next((row for row in range(_MARK_ROWS) if free[row] <= left), 0)
        free[row] = left + size
        made.append(
            f'<text data-x="{band.start:.3f}" x="{at:.2%}" dx="4" y="{13 + 15 * row}" '
            f'class="mark{before}">{escape(band.mark)}<title>{escape(band.text)}</title></text>'
        )
    return "".join(made)


def _labels(line: Line, x: Axis, y: Axis, height: float) -> str:
    """Return what stands above the points of a line."""
    return "".join(
        f'<text data-x="{a:.3f}" x="{x.place(a):.2%}" y="{_y(y, b, height) - 9:.1f}" '
        f'class="pt{_at_end(x.place(a), label)}">{escape(label)}</text>'
        for (a, b), label in zip(line.points, line.labels, strict=True)
        if b is not None
    )


def _path(line: Line, x: Axis, y: Axis, height: float) -> str:
    """Return a line, broken at its gaps; a point between two gaps is a dot."""
    parts: list[str] = []
    for there, run in itertools.groupby(line.points, key=lambda point: point[1] is not None):
        points = [(_x(x, a), _y(y, b, height)) for a, b in run if b is not None]
        if not there:
            continue
        if len(points) == 1:
            points.append((points[0][0] + 0.01, points[0][1]))
        head, *rest = points
        parts.append(f"M{head[0]:.1f} {head[1]:.1f}")
        if line.step:
            parts += [f"H{a:.1f}V{b:.1f}" for a, b in rest]
        else:
            parts += [f"L{a:.1f} {b:.1f}" for a, b in rest]
    dots = "".join(f"M{_x(x, a):.1f} {_y(y, b, height):.1f}h.01" for a, b in line.points if b is not None)
    dotted = f'<path class="dots {line.look}" d="{dots}"/>' if line.dots else ""
    return f'<path class="line {line.look}" d="{"".join(parts)}"/>{dotted}'


def _thinned(line: Line, most: int = MOST_POINTS) -> Line:
    """Return a line of at most about so many points:

    of each group the lowest and the highest, so that no peak is lost and nothing is averaged.
    """
    if len(line.points) <= most:
        return line
    size = math.ceil(len(line.points) / (most / 2))
    kept: list[Point] = []
    for start in range(0, len(line.points), size):
        group = line.points[start : start + size]
        known = [(y, x) for x, y in group if y is not None]
        if len(known) < len(group):
            kept.append(next(point for point in group if point[1] is None))
        kept += [(x, y) for y, x in {min(known), max(known)}] if known else []
    return dataclasses.replace(line, points=tuple(sorted(kept, key=lambda point: point[0])))


def _axis_data(axis: Axis) -> dict[str, object]:
    return {"low": axis.low, "high": axis.high, "scale": axis.scale, "unit": axis.unit}


def _data(chart: Chart, lines: Sequence[Line]) -> dict[str, object]:
    """Return what the script needs to say values at the cursor; lines of the same x share it."""
    shared: list[list[float]] = []
    found = []
    for line in lines:
        xs = [rounded(x) for x, _ in line.points]
        if xs not in shared:
            shared.append(xs)
        found.append([shared.index(xs), [None if y is None else rounded(y) for _, y in line.points]])
    return {"x": _axis_data(chart.x), "unit": chart.y.unit, "xs": shared, "lines": found}


def rounded(value: float) -> float:
    """To a thousandth, and no digit more than needed."""
    short = round(value, 3)
    return int(short) if short == int(short) else short


def number(value: float) -> str:
    """Return a value as people read it, to three digits that count: ``1,234``, ``0.5``, ``12.3``."""
    text = significant(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def significant(value: float) -> str:
    """Return a measured value to three digits that count, and all those before the point: ``1,235``, ``0.500``."""
    if not value or not math.isfinite(value):
        return f"{value:,.0f}"
    before = math.floor(math.log10(abs(value))) + 1
    digits = min(6, max(0, 3 - before))
    return f"{value:,.{digits}f}"


def heights(lines: Sequence[Line]) -> list[float]:
    """Return the values of all lines, to find an axis for them."""
    return [y for line in lines for _, y in line.points if y is not None]


# Axes


def linear(low: float, high: float, unit: str = "", most: int = 8) -> Axis:
    """Return a linear axis over a range, with ticks at round values."""
    if high <= low:
        high = low + 1
    step = nice((high - low) / most)
    first = math.ceil(low / step - 1e-9)
    ticks = tuple(round(step * n, 10) for n in range(first, math.floor(high / step + 1e-9) + 1))
    return Axis(low, high, ticks, unit=unit)


def up_to(high: float, unit: str = "", most: int = 4) -> Axis:
    """Return a linear axis from 0 to a round value at or above ``high``."""
    step = nice(max(high, 1e-9) / most)
    return linear(0.0, step * math.ceil(high / step - 1e-9) if high > 0 else 1.0, unit, most)


def logarithmic(values: Sequence[float], unit: str = "") -> Axis:
    """Return a logarithmic axis over whole decades that hold all values above 0; 0.1 to 10 where there are none."""
    found = [value for value in values if value > 0]
    low = math.floor(math.log10(min(found, default=0.1)) + 1e-9)
    high = max(low + 1, math.ceil(math.log10(max(found, default=10.0)) - 1e-9))
    return Axis(10.0**low, 10.0**high, tuple(10.0**n for n in range(low, high + 1)), "log", unit)


def counting(high: float, unit: str = "") -> Axis:
    """Return a logarithmic axis from 0, for counts that may be 0 or thousands."""
    decades = max(1, math.ceil(math.log10(max(high, 1) + 1)))
    return Axis(0.0, 10.0**decades, (0.0, *(10.0**n for n in range(decades + 1))), "log1p", unit)


def nice(rough: float) -> float:
    """Return the next of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough - 1e-12)
