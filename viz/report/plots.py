"""The charts of a run as PNG, SVG or PDF files, drawn by matplotlib: ``pip install raftload[plots]``."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.errors import RaftloadError
from cluster.base.files import write_bytes
from viz.diagrams import palette
from viz.report import hlog, leadership, run_charts
from viz.report.charts import Point
from viz.report.rundata import RunData

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAULT = palette.LOST
_TALL = {"leader": 0.7, "silent": 0.7, "none": 0.5}


class NoMatplotlib(RaftloadError):  # noqa: N818
    """matplotlib is not installed; one line that says how to have it."""


def write(data: RunData, folder: Path, form: str) -> list[Path]:
    """Write a file for each chart that the run has something for, and return their paths.

    Takes the form, ``png``, ``svg`` or ``pdf``. Raises NoMatplotlib, and OSError where a file cannot be written.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise NoMatplotlib("plots need matplotlib: pip install 'raftload[plots]'; --html needs nothing") from exc
    mpl.rcParams.update({"svg.fonttype": "none", "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True})
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in _PLOTS.items():
        figure = Figure(figsize=(10, 4), layout="constrained")
        axes = figure.add_subplot()
        if not draw(data, axes):
            continue
        if name != "percentiles":
            axes.set_xlim(0, data.end - data.begin)
            axes.set_xlabel("time since the load began, s")
            for number, fault in enumerate(data.faults, 1):
                axes.axvspan(fault.begin - data.begin, fault.end - data.begin, color=_FAULT, alpha=0.1, lw=0, zorder=0)
                axes.annotate(str(number), (fault.begin - data.begin, 1), xycoords=("data", "axes fraction"),
                              xytext=(3, -12), textcoords="offset points", color=_FAULT)  # fmt: skip
        figure.suptitle(data.id, fontsize=10)
        path = folder / f"{name}.{form}"
        picture = io.BytesIO()
        figure.savefig(picture, format=form, dpi=120)
        write_bytes(path, picture.getvalue())
        paths.append(path)
    return paths


def _lines(axes: Axes, lines: Sequence[tuple[str, Sequence[Point]]], label: str, drawstyle: str = "default") -> bool:
    """Draw named points, a None as a gap. Returns whether there were any."""
    drawn_any = False
    colours = _colours([name for name, _ in lines])
    for name, points in lines:
        if points:
            axes.plot([x for x, _ in points], [float("nan") if y is None else y for _, y in points], label=name,
                      color=colours[name], linewidth=1.4, drawstyle=drawstyle,
                      linestyle="--" if name == "p50" else "-")  # fmt: skip
            drawn_any = True
    axes.set_ylabel(label)
    if drawn_any:
        axes.legend(loc="best", frameon=False)
    return drawn_any


def _colours(names: Sequence[str]) -> dict[str, str]:
    """Return the colours of lines by their names: percentiles, operation types, or others in their order."""
    known = {name: pair[0] for name, pair in palette.PERCENTILES.items()} | {"total": palette.PERCENTILES["p50"][0]}
    types = palette.operations(name for name in names if name not in known)
    return known | {name: palette.OPERATIONS[colour][0] for name, colour in types.items()}


def _latency(data: RunData, axes: Axes) -> bool:
    axes.set_yscale("log")
    return _lines(axes, run_charts.latencies(data), "latency of successes, ms")


def _latency_by_type(data: RunData, axes: Axes) -> bool:
    axes.set_yscale("log")
    return _lines(axes, run_charts.p99_by_type(data), "p99 of successes, ms")


def _throughput(data: RunData, axes: Axes) -> bool:
    axes.set_ylim(bottom=0, auto=True)
    return _lines(axes, run_charts.succeeded_by_type(data), "succeeded/s", drawstyle="steps-post")


def _percentiles(data: RunData, axes: Axes) -> bool:
    lines = [(f, hlog.spectrum(hlog.together(each))) for f, each in data.latencies.items()]
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = [10.0**n for n in range(5)]
    axes.set_xticks(ticks, [f"{100 * (1 - 1 / tick):.10g}%" for tick in ticks])
    return _lines(axes, lines, "latency, ms")


def _lag(data: RunData, axes: Axes) -> bool:
    axes.set_yscale("symlog", linthresh=1)
    return _lines(axes, [(line.name, line.points) for line in run_charts.lag_lines(data)], "entries behind")


def _leadership(data: RunData, axes: Axes) -> bool:
    from matplotlib.patches import Patch

    rows = leadership.rows(data)
    for number, (_, periods) in enumerate(rows):
        for each in periods:
            colour = palette.term(each.term) if each.kind == "leader" and each.term else palette.state(each.kind)
            tall = _TALL.get(each.kind, 0.22)
            axes.barh(number, each.end - each.start, tall, each.start - data.begin, color=colour)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    keys = {f"leads term {term}": palette.term(term) for term in leadership.terms(data)[: len(palette.TERMS)]}
    keys |= {"follows": palette.state("follower"), "knows no leader": palette.state("none"),
             "does not answer": palette.state("silent")}  # fmt: skip
    axes.legend([Patch(color=colour) for colour in keys.values()], [*keys], frameon=False, ncols=4, fontsize=8,
                loc="upper left", bbox_to_anchor=(0, -0.12))  # fmt: skip
    return bool(rows)


_PLOTS: dict[str, Callable[[RunData, Axes], bool]] = {
    "leadership": _leadership,
    "latency": _latency,
    "p99": _latency_by_type,
    "throughput": _throughput,
    "lag": _lag,
    "percentiles": _percentiles,
}
