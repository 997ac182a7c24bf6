"""A comparison of many runs as one page: the interval of each figure beside its runs, and both distributions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.files import histogram_log, write_bytes
from viz.report import charts, hlog, run_charts, sections
from viz.report.charts import Axis, Chart, Line, Span
from viz.report.page import page

if TYPE_CHECKING:
    from cluster.schema.compare_documents import Compared, FigureRow, Side, Word

NAME = "compared.html"
_LOOKS: dict[Word, str] = {"slower": "fail", "faster": "pass", "same": "pass", "cannot tell": "unknown"}
_HEAD = ("", "BASE", "NEW", "NEW / BASE", "interval", "noise", "NEW is")
_ROW = 17
_ROOM = 0.07
# What is beyond is drawn at the edge.
_WIDEST = 4.0
_TICKS = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0)


def write(document: Compared, path: Path) -> None:
    """Write the page. Raises OSError."""
    write_bytes(path, render(document).encode())


def render(document: Compared) -> str:
    """Return a comparison as an HTML document. Reads the ``.hlog`` files of its runs' folders, where they are."""
    look = _LOOKS[document["verdict"]]
    who = "" if document["verdict"] == "cannot tell" else "NEW is "
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in document["reasons"])
    parts = [
        f'<header><h1>{who}<span class="{look}">{escape(document["words"])}</span></h1>'
        f'<p class="sub">{_side(document["base"])}<br>{_side(document["new"])}</p></header>',
        f"<ul>{reasons}</ul>" if reasons else "",
        "".join(f'<p class="warn unknown">{escape(warning)}</p>' for warning in document["warnings"]),
        _differences(document),
        _section("Each figure and its runs", intervals(document)),
        _section("All figures", sections.table(_HEAD, map(_row, document["figures"]), (6,)) + _method(document)),
        *(_section(f"Latency by percentile: {f}", chart) for f, chart in _distributions(document)),
    ]
    return page(f"{who}{document['words']}", parts)


def intervals(document: Compared) -> str:
    """Return for each figure its interval, and below it where each run of BASE and of NEW is, as HTML.

    All are ratios to the mean of BASE.
    """
    figures = document["figures"]
    if not figures:
        return ""
    values = [value for figure in figures for value in _ratios(figure)]
    within = document["method"]["within"]
    low = max(1 / _WIDEST, min(1 / (1 + 2 * within), *values) / 1.02)
    high = min(_WIDEST, max(1 + 2 * within, *values) * 1.02)
    x = _axis(low, high)
    rows = [row for figure in figures for row in _rows(figure, x)]
    legend = (
        "<span>difference from BASE</span>"
        + "".join(f'<span class="key line {look}"><i></i>{text}</span>'
                  for look, text in (("a", "a run of BASE"), ("b", "a run of NEW"), ("fail", "interval: slower"),
                                     ("pass", "faster or the same"), ("unknown", "cannot tell")))
    )  # fmt: skip
    title = "The interval of each figure, and its runs"
    chart = Chart("intervals", title, x, charts.up_to(1.0), "", (), height=_ROW * len(rows))
    return charts.render_rows(chart, rows, legend)


def _axis(low: float, high: float) -> Axis:
    """Return the axis of ratios, with ticks that have room beside each other, 1 among them."""
    x = Axis(low, high, (), "log")
    ticks = [1.0]
    for tick in sorted((tick for tick in _TICKS if low <= tick <= high), key=lambda tick: abs(math.log(tick))):
        if all(abs(x.place(tick) - x.place(other)) >= _ROOM for other in ticks):
            ticks.append(tick)
    ticks.sort()
    return Axis(low, high, tuple(ticks), "log", labels=tuple(_change(tick) for tick in ticks))


def _ratios(figure: FigureRow) -> list[float]:
    """Return all that is drawn of a figure."""
    runs = [value / figure["base"] for value in (*figure["base_values"], *figure["new_values"])]
    return [*runs, *(figure["interval"] or ())]


def _rows(figure: FigureRow, x: Axis) -> Iterator[tuple[str, list[Span]]]:
    look, spans = _LOOKS[figure["verdict"]], []
    text = f"{figure['name']}: {_change(figure['ratio'])}, {figure['words']}"
    if figure["interval"] is not None:
        low, high = figure["interval"]
        text += f", between {_change(low)} and {_change(high)}"
        spans.append(Span(_inside(x, low), _inside(x, high), look, text, 0.35))
    spans.append(_mark(x, figure["ratio"], look, text, 0.95))
    yield figure["name"].removesuffix("_ms").replace("throughput_ops_s", "ops/s"), spans
    for name, dots, values in (("BASE", "a", figure["base_values"]), ("NEW", "b", figure["new_values"])):
        yield name, [_mark(x, value / figure["base"], dots, f"{name}: {value:g} {figure['unit']}", 0.6)
                     for value in values]  # fmt: skip


def _mark(x: Axis, value: float, look: str, text: str, height: float) -> Span:
    """Return a short span at a ratio."""
    at, size = _inside(x, value), (x.high / x.low) ** 0.003
    return Span(at / size, at * size, look, text, height)


def _inside(x: Axis, value: float) -> float:
    return min(x.high, max(x.low, value))


def _change(ratio: float) -> str:
    """Return a ratio as people read it."""
    return f"{100 * (ratio - 1):+.3g} %" if 0.5 <= ratio < 2 else f"x {ratio:.3g}"


def _section(title: str, inside: str) -> str:
    return f"<h2>{escape(title)}</h2>{inside}" if inside else ""


def _side(side: Side) -> str:
    ids = [run["id"] for run in side["runs"]]
    doubts = [f"{run['id']}: {doubt}" for run in side["runs"] for doubt in run["doubts"]]
    listed = sections.folded(f"{side['name']}: {len(ids)} run{'' if len(ids) == 1 else 's'}", escape(", ".join(ids)))
    return listed + "".join(f'<br><span class="unknown">{escape(doubt)}</span>' for doubt in doubts)


def _differences(document: Compared) -> str:
    rows = [(escape(key), escape(base), escape(new)) for key, (base, new) in document["differences"].items()]
    return _section("What was different", sections.table(("", "BASE", "NEW"), rows, (1, 2)) if rows else "")


def _row(figure: FigureRow) -> tuple[str, ...]:
    between = "-" if figure["interval"] is None else " to ".join(_change(end) for end in figure["interval"])
    noise = "-" if figure["noise"] is None else f"{100 * figure['noise']:.2g} %"
    words = f'<b class="{_LOOKS[figure["verdict"]]}">{escape(figure["words"])}</b>'
    base, new = (charts.significant(figure[key]) for key in ("base", "new"))
    return (escape(figure["name"]), base, new, _change(figure["ratio"]), between, noise, words)


def _method(document: Compared) -> str:
    method = document["method"]
    how = (
        f"{method['test']}. Any false slower or faster among all figures: probability {method['alpha']:g} at most. "
        f"The same: within {100 * method['within']:g} %. Noise: the standard deviation between runs of the same."
    )
    return f'<p class="dim">{escape(how)}</p>'


def _distributions(document: Compared) -> Iterator[tuple[str, str]]:
    """Yield for each operation type the chart of both sides' latencies, all runs of a side together."""
    for f in dict.fromkeys(figure["name"].rpartition(".")[0] for figure in document["figures"]):
        lines = []
        for key, look in (("base", "a"), ("new", "b")):
            side: Side = document[key]  # type: ignore[literal-required]
            counts: Counter[int] = Counter()
            for run in side["runs"]:
                if run["folder"] is not None:
                    counts.update(_counts(Path(run["folder"]) / histogram_log(f)))
            lines.append(Line(side["name"], look, tuple(hlog.spectrum(counts))))
        yield f, run_charts.spectrum(f"percentiles-{f}", lines)


def _counts(path: Path) -> Counter[int]:
    """Return the latencies of a log; none where it cannot be read."""
    try:
        return hlog.together(hlog.read(path))
    except (OSError, ValueError):
        return Counter()
