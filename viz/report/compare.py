"""Two runs side by side: what differs first, their charts over each other, and all figures of both with their ratio."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from cluster.base.console import Painter, columns
from cluster.base.files import write_bytes
from cluster.base.long_tables import largest
from cluster.schema.run_documents import NO_TARGET, short_of_cpu
from viz.diagrams.model import clean
from viz.report import charts, hlog, run_charts, sections
from viz.report.charts import Line, number
from viz.report.page import page
from viz.report.rundata import RunData, found_at

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result

NAME = "comparison.html"
_COUNTS = ("operations", "failed", "success_rate", "throughput_ops_s")
_LATENCIES = ("mean_ms", "p50_ms", "p95_ms", "p99_ms", "p99_9_ms", "max_ms")
_MOST_NAMES, _LONGEST_NAME = 100, 80
# The figures that people compare runs by; the others follow from them, or are of few samples.
_TELLING = {"success_rate", "throughput_ops_s", "p50_ms", "p99_ms", "cpu_us_per_op", "leader_changes", "during"}
_HIGHER_IS_BETTER = {"success_rate", "throughput_ops_s"}
_NEITHER = {"operations"}
# A smaller difference is not worth a line of its own: of a share, and of the ratio of anything else.
_LEAST_SHARE, _LEAST_RATIO = 0.001, 1.1
_LEAST_OPERATIONS, _MOST_CHANGES = 100, 12
_STYLES: dict[str, tuple[str, ...]] = {"better": ("green",), "worse": ("red",), "": ()}
_HEAD = ("", "A", "B", "B / A", "B is")
NOISE = (
    "One run each says nothing of noise: two runs of one thing differ, too.",
    "Run each several times, by turns, before you believe a difference.",
)
OTHER_LOAD = "The two did not run the same load, so better and worse are not etcd's alone."
_LOAD = {"scenario", "loop", "users", "rate", "stages", "step", "mix", "key_size", "value_size", "transport"}
# Parameters that older runs do not tell.
_LATE = {"environment"}
# Parameters that say when and where, not what.
_OWN = {"id", "started_at", "ended_at", "command", "prefix", "duration_s"}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A figure of both runs, None where one has none.

    Attributes:
        path: where it stands in a result.
        few: of which runs it is a percentile of too few samples, ``a`` and ``b``.
    """

    path: tuple[str, ...]
    a: float | None
    b: float | None
    few: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """The path as one text."""
        return ".".join(self.path)

    @property
    def group(self) -> tuple[str, ...]:
        """What figures of one operation type, or of the cluster, have alike."""
        return self.path[:2] if self.path[0] == "results" else self.path[:1]

    @property
    def name(self) -> str:
        """The field as people read it, ``put.p99_ms``."""
        return f"{self.path[1]}.{self.path[-1]}" if self.path[0] == "results" else self.field

    @property
    def ratio(self) -> float | None:
        """``b / a``; None where it says nothing."""
        return self.b / self.a if self.a and self.b is not None and not self.few else None

    @property
    def size(self) -> float:
        """How much the two differ, 1.0 where that is just worth a line; shares count before all else."""
        if self.a is None or self.b is None or self.a == self.b or self.few:
            return 0.0
        if self.path[-1] == "success_rate":
            share = abs(self.b - self.a) / _LEAST_SHARE
            return 1e6 * share if share >= 1 else 0.0
        if self.a <= 0 or self.b <= 0:
            return 1e3
        return abs(math.log(self.b / self.a)) / math.log(_LEAST_RATIO)

    @property
    def direction(self) -> Literal["better", "worse", ""]:
        """Whether B is better or worse than A; empty where they differ too little, or it is neither."""
        if self.size < 1 or self.a is None or self.b is None or self.path[-1] in _NEITHER:
            return ""
        return "better" if (self.b > self.a) == (self.path[-1] in _HIGHER_IS_BETTER) else "worse"


class ComparedRun(TypedDict):
    """One of the runs of a `Comparison`."""

    id: str
    verdict: str


class ComparedFigure(TypedDict):
    """A figure of a `Comparison`; None where a run has none, and where the ratio says nothing.

    ``too_few_samples`` names the runs, ``a`` and ``b``, of which it is a percentile of too few.
    """

    field: str
    a: float | None
    b: float | None
    ratio: float | None
    too_few_samples: list[str]


class Comparison(TypedDict):
    """Two runs side by side, as JSON has it."""

    schema: Literal["raftload.comparison/1"]
    a: ComparedRun
    b: ComparedRun
    differences: dict[str, list[object]]
    figures: list[ComparedFigure]


def rows(a: Result, b: Result) -> list[Row]:
    """Return the figures of two results, those that neither has left out."""
    found = [Row(path, _at(a, path), _at(b, path), _few(a, b, path)) for path in _paths(a, b)]
    return [row for row in found if row.a is not None or row.b is not None]


def _paths(a: Result, b: Result) -> Iterator[tuple[str, ...]]:
    names = dict.fromkeys([*(a.get("results") or {}), *(b.get("results") or {})])
    for f in [*(f for f in names if f != "total"), "total"]:
        yield from (("results", f, key) for key in _COUNTS)
        yield from (("results", f, "latency", key) for key in _LATENCIES)
    yield ("generator", "cpu_us_per_op")
    yield ("target", "leader_changes")
    for column in ("wal_fsync_p99_ms", "backend_commit_p99_ms"):
        yield ("target", column, "during")


def _few(a: Result, b: Result, path: tuple[str, ...]) -> tuple[str, ...]:
    """Return in which of two results a figure is a percentile of too few samples."""
    if "latency" not in path[2:3]:
        return ()
    return tuple(name for name, result in (("a", a), ("b", b)) if path[-1] in sections.too_few(result, path[1]))


def _at(document: Mapping[str, object], path: tuple[str, ...]) -> float | None:
    value = found_at(document, path)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def differences(a: Result, b: Result) -> dict[str, tuple[object, object]]:
    """Return the parameters in which two runs differ, and the version of etcd."""
    ours, theirs = (each["run"] for each in (a, b))
    found: dict[str, tuple[object, object]] = {
        key: (ours.get(key), theirs.get(key))
        for key in dict.fromkeys([*ours, *theirs])
        if key not in _OWN
        and ours.get(key) != theirs.get(key)
        and not (key in _LATE and None in (ours.get(key), theirs.get(key)))
    }
    first, second = ((each.get("target") or NO_TARGET)["etcd_version"] for each in (a, b))
    return found if first == second else {**found, "etcd_version": (first, second)}


def document(a: RunData, b: RunData) -> Comparison:
    """Return the comparison as plain values."""
    return {
        "schema": "raftload.comparison/1",
        "a": {"id": a.id, "verdict": a.result.get("verdict")},
        "b": {"id": b.id, "verdict": b.result.get("verdict")},
        "differences": {key: list(pair) for key, pair in differences(a.result, b.result).items()},
        "figures": [
            {"field": row.field, "a": row.a, "b": row.b, "ratio": row.ratio, "too_few_samples": [*row.few]}
            for row in rows(a.result, b.result)
        ],
    }


def changes(found: Sequence[Row]) -> list[Row]:
    """Return the telling figures that differ enough: those of the total, then of the largest difference.

    Types of which there were few operations are left out: theirs differ from run to run.
    """
    rare = {
        row.group for row in found
        if row.path[-1] == "operations" and min(row.a or 0, row.b or 0) < _LEAST_OPERATIONS and row.path[1] != "total"
    }  # fmt: skip
    telling = [row for row in found if row.path[-1] in _TELLING and row.size >= 1 and row.group not in rare]
    return sorted(telling, key=lambda row: (row.group != ("results", "total"), -row.size))[:_MOST_CHANGES]


def text(a: RunData, b: RunData, *, color: bool = False, every: bool = False) -> str:
    """Return what differs as a table for a terminal, without a final newline; the totals stand below it.

    Takes whether all other figures are to stand there, too.
    """
    paint = Painter(color)
    different = differences(a.result, b.result)
    lines = [f"A {clean(a.id, 60)}, {a.result.get('verdict')}", f"B {clean(b.id, 60)}, {b.result.get('verdict')}"]
    lines += [paint(f"{name}: {word}, {why}", "yellow") for name, word, why in _doubts(a, b)]
    for key, (ours, theirs) in different.items():
        lines.append(f"differs: {key}: A {clean(str(ours), 60)}, B {clean(str(theirs), 60)}")
    if not _LOAD.isdisjoint(different):
        lines.append(OTHER_LOAD)
    found = rows(a.result, b.result)
    first = changes(found)
    rest = found if every else [row for row in found if row.group == ("results", "total") and row not in first]
    shown = [*first, *rest]
    head, *made = columns([_HEAD, *map(_cells, shown)], right=(1, 2, 3))
    rule = "-" * max(map(len, (head, *made)))
    lines += ["", head, *([] if first else [f"no telling figure differs by {100 * (_LEAST_RATIO - 1):.0f} %"])]
    for at, (row, line) in enumerate(zip(shown, made, strict=True)):
        if at >= len(first) and (at == len(first) or row.group != shown[at - 1].group):
            lines.append(rule)
        lines.append(paint(line, *_STYLES[row.direction]))
    if not every:
        lines.append(f"{len(found) - len(shown):,} more figures: --all, --html FILE or --json")
    return "\n".join([*lines, "", *NOISE])


def _doubts(a: RunData, b: RunData) -> Iterator[tuple[str, str, str]]:
    """Return the runs whose latencies are not etcd's alone: the run's name, the word for it, and what else they are."""
    for name, data in (("A", a), ("B", b)):
        for word, what in short_of_cpu(data.result).items():
            yield name, word, f"its latencies are partly {what}"


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    return (
        clean(row.name, _LONGEST_NAME),
        _cell(row, None if "a" in row.few else row.a),
        _cell(row, None if "b" in row.few else row.b),
        "-" if row.ratio is None else f"{row.ratio:.3f}",
        row.direction,
    )


def _cell(row: Row, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.6f}" if row.field.endswith("success_rate") else number(value)


def write(a: RunData, b: RunData, path: Path) -> None:
    """Write the comparison as an HTML page. Raises OSError."""
    write_bytes(path, render(a, b).encode())


def render(a: RunData, b: RunData) -> str:
    """Return the comparison as an HTML document."""
    title = f"{a.id} and {b.id}"
    parts = [
        f'<header><h1>Two runs side by side</h1><p class="sub">A: {_name(a)}<br>B: {_name(b)}</p></header>',
        _differences(a, b),
        _changes(a, b),
        _overlay("p99", "p99 latency over time", "p99 latency, ms", a, b, log=True),
        _overlay("rate", "Successful operations per second", "succeeded/s", a, b, log=False),
        "<h2>Latency by percentile</h2>"
        + run_charts.spectrum("percentiles", [_spectrum("A", "a", a), _spectrum("B", "b", b)]),
        _figures(a, b),
    ]
    return page(title, parts)


def _name(data: RunData) -> str:
    return f"{escape(data.id)}, {sections.badge(data.result.get('verdict'))}"


def _changes(a: RunData, b: RunData) -> str:
    """Return the figures that differ enough to matter, and that this may be noise."""
    found = changes(rows(a.result, b.result))
    doubts = "".join(f'<p class="unknown"><b>{name}: {word}</b>, {why}.</p>' for name, word, why in _doubts(a, b))
    table = sections.table(_HEAD, map(_row, found)) if found else (
        f"<p>No telling figure differs by {100 * (_LEAST_RATIO - 1):.0f} % or more.</p>"
    )  # fmt: skip
    return f'<h2>Largest differences</h2>{doubts}{table}<p class="dim">{escape(" ".join(NOISE))}</p>'


def _row(row: Row) -> tuple[str, ...]:
    name, a, b, ratio, direction = map(escape, _cells(row))
    if row.path[-1] == "failed":
        a, b = (f'<span class="fail">{text}</span>' if value else text for text, value in ((a, row.a), (b, row.b)))
    look = {"better": "pass", "worse": "fail"}.get(direction)
    # Where a screen is narrow the last columns are out of sight.
    return (name, a, *((f'<b class="{look}">{each}</b>' if look else each) for each in (b, ratio, direction)))


def _figures(a: RunData, b: RunData) -> str:
    """Return all figures, folded."""
    (first, _), (second, _) = (largest(each.result["results"], _MOST_NAMES) for each in (a, b))
    found, names = rows(a.result, b.result), {"total", *first, *second}
    shown = [row for row in found if row.path[0] != "results" or row.path[1] in names]
    left = f"<p>{len(found) - len(shown):,} more figures, of names with fewer operations, are in the JSON of both.</p>"
    table = sections.table(_HEAD, map(_row, shown))
    inside = table + (left if len(shown) < len(found) else "")
    return f"<h2>All figures</h2><details><summary>{len(shown):,} figures of both runs</summary>{inside}</details>"


def _differences(a: RunData, b: RunData) -> str:
    found = differences(a.result, b.result)
    if not found:
        return "<p>The parameters of both are the same.</p>"
    made = [(escape(key), escape(str(ours)), escape(str(theirs))) for key, (ours, theirs) in found.items()]
    other = "" if _LOAD.isdisjoint(found) else f"<p>{escape(OTHER_LOAD)}</p>"
    return "<h2>What was different</h2>" + sections.table(("parameter", "A", "B"), made, (1, 2)) + other


def _overlay(name: str, title: str, label: str, a: RunData, b: RunData, *, log: bool) -> str:
    """Return a line for each run, both from their own beginning."""
    lines = [
        Line(run, look, run_charts.p99(data) if log else run_charts.succeeded(data), step=not log)
        for run, look, data in (("A", "a", a), ("B", "b", b))
    ]
    x = charts.linear(0.0, max(a.end - a.begin, b.end - b.begin), "s")
    y = (lambda values: charts.logarithmic(values, "ms")) if log else run_charts.rates
    chart = run_charts.over_time(x, name, title, label, lines, y)
    return chart and f"<h2>{escape(title)}</h2>{chart}"


def _spectrum(name: str, look: str, data: RunData) -> Line:
    return Line(name, look, tuple(hlog.spectrum(hlog.together(data.latencies.get("total", ())))))
