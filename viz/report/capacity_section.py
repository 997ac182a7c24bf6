"""The section of a capacity: the answer, what held and what broke next to it, what gave way first, and the curve."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from viz.report import charts
from viz.report.charts import Band, Chart, Line, number
from viz.report.sections import folded, table

if TYPE_CHECKING:
    from cluster.schema.run_documents import Capacity, CapacityStep, Result

_WHO = {
    "client": "the load generator",
    "cpu": "the members' CPU",
    "disk": "the members' disk",
    "overload": "the cluster, which did less than was asked of it",
    "unsure": "nothing that can be named",
}


def section(result: Result) -> str:
    """Return what was found, as HTML; empty for a run that looked for no capacity."""
    capacity = result.get("capacity")
    if not capacity:
        return ""
    return _answer(capacity) + curve(capacity) + _limit(capacity) + _steps(capacity)


def _answer(capacity: Capacity) -> str:
    rate = capacity["rate"]
    slos = escape("; ".join(capacity["slos"]))
    if rate is None:
        return f'<p class="unknown">No capacity was found: {escape(str(capacity["reason"]))}.</p>'
    held, broke = ("none" if each is None else f"{number(each)}/s" for each in (capacity["low"], capacity["high"]))
    least = "at least " if capacity["is_lower_bound"] else ""
    said = (
        f"<p><b>The capacity is {least}{number(rate)} operations per second</b> for {slos}; "
        f"the highest rate that was seen to hold: {held}, the lowest that was seen to break: {broke}.</p>"
    )
    if capacity["reason"]:
        said += f'<p class="unknown">{escape(capacity["reason"])}.</p>'
    return said


def curve(capacity: Capacity) -> str:
    """Return the p99 over the rate, a point for each rate that was tried, with the thresholds and the bracket."""
    steps = sorted((each for each in capacity["steps"] if each["p99_ms"] is not None), key=lambda each: each["rate"])
    if len(steps) < 2:
        return ""
    lines = (
        Line("p99", "p99", tuple((each["rate"], each["p99_ms"]) for each in steps), dots=True),
        Line("p50", "p50", tuple((each["rate"], each["p50_ms"]) for each in steps), dots=True),
    )
    bounds = [_bound(text) for text in capacity["slos"]]
    levels = tuple((bound, text) for bound, text in zip(bounds, capacity["slos"], strict=True) if bound is not None)
    rate, low, high = capacity["rate"], capacity["low"], capacity["high"]
    bands = []
    if rate is not None:
        bands.append(Band(rate, rate, f"{number(rate)}/s"))
        bands.append(Band(low or rate, high or rate, "", "between holding and breaking"))
    x = charts.linear(0.0, charts.up_to(steps[-1]["rate"]).high, "/s")
    y = charts.logarithmic([*charts.heights(lines), *(level for level, _ in levels)], "ms")
    title = "Latency over the rate, one point per rate that was tried, with the thresholds"
    return charts.render(Chart("capacity", title, x, y, "latency, ms, over operations/s", lines, tuple(bands), levels,
                               height=260))  # fmt: skip


def _bound(slo: str) -> float | None:
    """Return the milliseconds of a threshold such as ``put.p99_ms < 20``; None for one of another unit."""
    metric, _, bound = slo.rsplit(" ", 2)
    return float(bound) if metric.endswith("_ms") else None


def _limit(capacity: Capacity) -> str:
    limit = capacity["limit"]
    if limit is None:
        return ""
    evidence = "".join(f"<li>{escape(each)}</li>" for each in limit["evidence"])
    return (
        f"<p>At {number(limit['rate'])}/s {escape(_WHO.get(limit['by'], limit['by']))} gave way first: "
        f"{escape('; '.join(limit['broken']))}.</p><ul>{evidence}</ul>"
    )


def _steps(capacity: Capacity) -> str:
    rows = [_row(each) for each in sorted(capacity["steps"], key=lambda each: each["rate"])]
    head = ("asked for/s", "sent/s", "seconds", "p50, ms", "p99, ms", "failed", "in flight", "fsync p99, ms",
            "start lag p99, ms", "decision")  # fmt: skip
    return (
        folded(f"{len(rows)} steps of the search", table(head, rows, (len(head) - 1,)))
        + f'<p class="dim">Method: {escape(capacity["method"])}.</p>'
    )


def _row(step: CapacityStep) -> tuple[str, ...]:
    figures = (step["rate"], step["achieved"], step["seconds"], step["p50_ms"], step["p99_ms"], step["failed"],
               step["in_flight"], step["fsync_p99_ms"], step["start_lag_p99_ms"])  # fmt: skip
    word = "breaks, generator late" if step["decision"] == "late" else step["decision"] or "cut short"
    said = word if step["sure"] or not step["decision"] else f"{word} (looks so)"
    return (*("-" if each is None else number(each) for each in figures), said)
