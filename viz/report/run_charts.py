"""The charts of a run, made from its data for `viz.report.charts`. All have one time axis and one cursor."""

from __future__ import annotations

import itertools
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape

from cluster.observe import samples
from cluster.observe.record import between, p99_ms
from viz.diagrams import palette
from viz.diagrams.model import human_seconds
from viz.report import charts, hlog, leadership
from viz.report.charts import Axis, Band, Chart, Line, Point, Span
from viz.report.rundata import Interval, RunData

LOOKS = ("a", "b", "c", "d", "e", "f")
# What etcd's operators take as the marks, https://etcd.io/docs/latest/op-guide/hardware/ and its FAQ.
FSYNC_MARK_MS, COMMIT_MARK_MS = 10.0, 25.0
MOST_PERIODS = 2_000
# A p99 is not of what came before and after so long without a success.
_SILENT_S = 1.0
# Intervals that are further apart than times are exact have something missing between them.
_APART_S = 0.001
UNITS = {"users": "users", "rate": "operations/s asked for"}


def time_axis(data: RunData) -> Axis:
    """Return the seconds since the load's first."""
    return charts.linear(0.0, data.end - data.begin, "s")


def bands(data: RunData) -> tuple[Band, ...]:
    """Each fault's time, numbered as in the table of faults."""
    limit = data.end - data.begin
    return tuple(
        Band(max(0.0, fault.begin - data.begin), min(limit, fault.end - data.begin), str(fault.number), fault.text)
        for fault in data.faults
    )


def leaders(data: RunData) -> str:
    """Return the leaders over time, as HTML; empty where nobody watched."""
    rows = leadership.rows(data)
    if not rows:
        return ""
    lengths = sorted((each.end - each.start for _, periods in rows for each in periods), reverse=True)
    least = lengths[MOST_PERIODS] if len(lengths) > MOST_PERIODS else -1.0
    left_out = sum(length <= least for length in lengths)
    shown = [
        (name, [_span(each, data.begin) for each in periods if each.end - each.start > least]) for name, periods in rows
    ]
    x = time_axis(data)
    chart = Chart("leadership", "Leadership over time, one row per member", x, Axis(0, 1, ()), "", (), bands(data),
                  group="time", height=34 * len(rows) + 16)  # fmt: skip
    legend = (
        f'{_leading(leadership.terms(data))}<span><i class="box thin"></i>follows</span>'
        '<span><i class="box none"></i>knows no leader</span><span><i class="box silent"></i>does not answer</span>'
        '<span><output class="at"></output></span>'
    )
    if left_out:
        what = f"{left_out:,} of {len(lengths):,} periods are left out, none longer than {human_seconds(least)}"
        legend += f"<span>{what}</span>"
    return charts.render_rows(chart, shown, legend)


def _leading(terms: Sequence[int]) -> str:
    """Return the legend of those who lead, a colour for each term; of many terms, for the first ones."""
    shown = terms[: len(palette.TERMS)]
    keys = [f'<span><i class="box {_look(term)}"></i>leads term {term}</span>' for term in shown]
    more = "<span>later terms have these colours again</span>" if len(terms) > len(shown) else ""
    return "".join(keys) + more


def _look(term: int) -> str:
    return f"t{term % len(palette.TERMS)}"


def _span(period: leadership.Period, begin: float) -> Span:
    start, end = period.start - begin, period.end - begin
    if period.kind == "silent":
        return Span(start, end, "silent", "does not answer")
    if period.kind == "none":
        return Span(start, end, "none", f"knows no leader, term {period.term}", 0.75)
    if period.kind == "leader":
        return Span(start, end, _look(period.term) if period.term else "none", f"leader, term {period.term}")
    return Span(start, end, "follower", f"{period.kind}, term {period.term}", 0.32)


def latencies(data: RunData) -> list[tuple[str, tuple[Point, ...]]]:
    """Maximum and p50 of each interval, and `p99`, all operation types together."""
    total = data.series.get("total", ())
    return [
        ("max", _over_time(data, total, operator.attrgetter("max_ms"))),
        ("p99", p99(data)),
        ("p50", _over_time(data, total, operator.attrgetter("p50_ms"))),
    ]


def latency(data: RunData) -> str:
    """Return the same as HTML."""
    lines = [Line(name, name, points) for name, points in latencies(data)]
    title = f"Latency of successful operations, every {interval(data)}"
    return _over_run(data, "latency", title, "all types: latency, ms", lines, _milliseconds)


def p99_by_type(data: RunData) -> list[tuple[str, tuple[Point, ...]]]:
    """Return `p99` of each operation type; nothing where there is one type only."""
    of_types = [f for f, _ in _but_total(data)]
    return [(f, p99(data, f)) for f in of_types] if len(of_types) > 1 else []


def latency_by_type(data: RunData) -> str:
    """Return the same as HTML."""
    looks = type_looks(data)
    lines = [Line(f, looks[f], points) for f, points in p99_by_type(data)]
    title = f"99th percentile of the latency of each operation type, every {interval(data)}"
    return _over_run(data, "p99", title, "each type: p99 latency, ms", lines, _milliseconds, height=150)


def _milliseconds(values: Sequence[float]) -> Axis:
    return charts.logarithmic(values, "ms")


def type_looks(data: RunData) -> dict[str, str]:
    """Return the CSS class of each operation type's colour."""
    names = dict.fromkeys(f for f in (*data.series, *data.latencies) if f != "total")
    return {f: f"op-{colour}" for f, colour in palette.operations(names).items()} | {"total": "f"}


def succeeded_by_type(data: RunData) -> list[tuple[str, tuple[Point, ...]]]:
    """Return how many operations of each type succeeded, as a rate over time."""
    return [(f, _in_steps(data, seconds, operator.attrgetter("succeeded"))) for f, seconds in _but_total(data)]


def interval(data: RunData) -> str:
    """Return the length of the run's intervals in words: ``100 ms`` or ``second``.

    That is the most frequent one: those at the ends of the load are as long as there was load.
    """
    lengths = Counter(round(each.length_s, 3) for each in data.series.get("total", ()))
    ((length_s, _),) = lengths.most_common(1) or [(1.0, 0)]
    return "second" if length_s == 1 else f"{length_s * 1000:g} ms"


def throughput(data: RunData) -> str:
    """Return the rate of successes over time, by operation type, as HTML."""
    looks = type_looks(data)
    lines = [Line(f, looks[f], points, step=True) for f, points in succeeded_by_type(data)]
    return _over_run(data, "throughput", "Successful operations per second", "succeeded/s", lines, rates)


def failures(data: RunData) -> str:
    """Return the rate of failures over time, by operation type, as HTML; a sentence where nothing failed."""
    looks = type_looks(data)
    lines = [
        Line(f, looks[f], _in_steps(data, seconds, lambda each: each.failed), step=True)
        for f, seconds in _but_total(data)
        if any(each.failed for each in seconds)
    ]
    if not lines:
        return "<p>No operation failed.</p>" if data.series else ""
    title = "Failed operations per second"
    return _over_run(data, "failures", title, "failed/s", lines, lambda values: rates(values, 2), height=80)


def p99(data: RunData, f: str = "total") -> tuple[Point, ...]:
    """Return the p99 of an operation type over time: of as many intervals each as it takes to know it.

    A point stands in the middle of its intervals. There is none of those with too few successes before a gap of a
    second without any, or before the end.
    """
    intervals = data.series.get(f, ())
    logged = {_ms(at): counts for at, counts in data.latencies.get(f, ())}
    points: list[Point] = []
    counts: Counter[int] = Counter()
    begin: float | None = None
    silent_s = 0.0
    for number, each in enumerate(intervals):
        lost_s = each.at - intervals[number - 1].end if number else 0.0
        silent_s = lost_s + (0.0 if each.succeeded else silent_s + each.length_s)
        if silent_s > _SILENT_S - 1e-6:
            counts, begin = Counter(), None
            if points and points[-1][1] is not None:
                points.append((each.at - data.begin, None))
        if not each.succeeded:
            continue
        begin = each.at if begin is None else begin
        found = logged.get(_ms(each.at))
        if found is None:
            # Without its log an interval's own p99 is all that there is.
            if samples.are_enough(each.succeeded, 0.99):
                points.append((each.at + each.length_s / 2 - data.begin, each.p99_ms))
            continue
        counts.update(found)
        if samples.are_enough(counts.total(), 0.99):
            points.append(((begin + each.end) / 2 - data.begin, hlog.percentile_ms(counts, 0.99)))
            counts, begin = Counter(), None
    return tuple(points)


def _ms(at: float) -> int:
    """Return the millisecond that a time in seconds lies in: logs have no more."""
    return math.floor(at * 1000 + 0.001)


def succeeded(data: RunData) -> tuple[Point, ...]:
    """Return the rate of successes over time, all types together."""
    return _in_steps(data, data.series.get("total", ()), operator.attrgetter("succeeded"))


def _but_total(data: RunData) -> Iterable[tuple[str, Sequence[Interval]]]:
    return ((f, intervals) for f, intervals in data.series.items() if f != "total")


def _over_time(
    data: RunData, intervals: Sequence[Interval], value: Callable[[Interval], float | None]
) -> tuple[Point, ...]:
    """Return a value of each interval at its middle; a gap where intervals are missing."""
    points: list[Point] = []
    for number, each in enumerate(intervals):
        middle = each.at + each.length_s / 2 - data.begin
        if number and each.at > intervals[number - 1].end + _APART_S:
            points.append((middle - each.length_s, None))
        points.append((middle, value(each)))
    return tuple(points)


def _in_steps(data: RunData, intervals: Sequence[Interval], count: Callable[[Interval], int]) -> tuple[Point, ...]:
    """Return the rate of what is counted, per second of the load, from each interval's beginning to its end.

    It is 0 where intervals are missing. One at an end of which less than half was load counts with its neighbour: the
    rate of a few milliseconds is chance.
    """
    parts = [(each.at, each.end, count(each)) for each in intervals]
    for short, other in ((0, 1), (-1, -2)):
        if len(parts) > 1 and intervals[short].length_s < intervals[other].length_s / 2:
            (begin, _, one), (_, end, two) = sorted((parts[short], parts[other]))
            parts[min(short, other) : max(short, other) + 1 or None] = [(begin, end, one + two)]
    points: list[Point] = []
    last: float | None = None
    for begin, end, counted in parts:
        if last is not None and begin > last + _APART_S:
            points.append((last - data.begin, 0.0))
        points.append((begin - data.begin, counted / (end - begin)))
        last = end
    return (*points, (last - data.begin, points[-1][1])) if last is not None else ()


def rates(values: Sequence[float], ticks: int = 4) -> Axis:
    """Return an axis of operations per second, from 0."""
    return charts.up_to(max(values), "/s", ticks)


def _over_run(
    data: RunData, name: str, title: str, label: str, lines: Sequence[Line], y: Callable[[list[float]], Axis],
    levels: tuple[tuple[float, str], ...] = (), height: int = 190,
) -> str:  # fmt: skip
    return over_time(time_axis(data), name, title, label, lines, y, bands(data), levels, height)


def over_time(
    x: Axis, name: str, title: str, label: str, lines: Sequence[Line], y: Callable[[list[float]], Axis],
    shown: tuple[Band, ...] = (), levels: tuple[tuple[float, str], ...] = (), height: int = 190,
) -> str:  # fmt: skip
    """Return a chart of lines over time, as HTML; empty of no value. ``y`` makes an axis for the values of all."""
    values = charts.heights(lines)
    if not values:
        return ""
    return charts.render(Chart(name, title, x, y(values), label, tuple(lines), shown, levels, "time", height))


def lag_lines(data: RunData) -> tuple[Line, ...]:
    """Return how far each member's applied index was behind the highest commit index that any member had told by then.

    A member that does not answer has a gap there.
    """
    highest = 0
    points: dict[str, list[Point]] = {}
    for poll in data.polls:
        mine = points.setdefault(poll.member, [])
        if poll.commit_index is None or poll.applied_index is None:
            mine.append((poll.at - data.begin, None))
            continue
        highest = max(highest, poll.commit_index)
        mine.append((poll.at - data.begin, float(highest - poll.applied_index)))
    return _by_member(data, points)


def lag(data: RunData) -> str:
    """Return the same as HTML."""
    return _over_run(data, "lag", "Replication lag of each member", "entries behind", lag_lines(data),
                     lambda values: charts.counting(max(values), "entries"), height=150)  # fmt: skip


def disk(data: RunData, column: str, name: str, mark_ms: float) -> str:
    """Return a member's p99 of a disk histogram between two scrapes, as HTML; ``mark_ms`` is the recommended bound."""
    points: dict[str, list[Point]] = {}
    for member, scrapes in data.scrapes.items():
        load = [each for each in scrapes if each.phase != "after"]
        for earlier, later in itertools.pairwise(load):
            value = p99_ms(between([earlier, later], column))
            mine = points.setdefault(member, [])
            if later.metrics.restarted_since(earlier.metrics) or later.at - earlier.at > 4.5:
                mine.append((earlier.at - data.begin, None))
            # It says something of all the time since the last scrape, so it stands at its end.
            mine.append((later.at - data.begin, value))
    title, level = f"{name} p99, every two seconds", (mark_ms, f"recommended: below {mark_ms:g} ms")
    return _over_run(data, column, title, f"{name} p99, ms", _by_member(data, points),
                     lambda values: charts.logarithmic([*values, mark_ms], "ms"), (level,), 130)  # fmt: skip


def _by_member(data: RunData, points: dict[str, list[Point]]) -> tuple[Line, ...]:
    """Return the lines of members, those points left out that lie outside the load."""
    limit = data.end - data.begin
    return tuple(
        Line(member, LOOKS[number % len(LOOKS)], tuple(each for each in points[member] if 0 <= each[0] <= limit))
        for number, member in enumerate(sorted(points))
    )


def percentiles(data: RunData) -> str:
    """Latency by percentile over the whole run, for each operation type, as HTML."""
    lines = []
    looks = type_looks(data)
    for f, intervals in data.latencies.items():
        points = hlog.spectrum(hlog.together(intervals))
        lines.append(Line(f, "soft" if f == "total" and len(data.latencies) > 2 else looks[f], tuple(points)))
    return spectrum("percentiles", lines)


def spectrum(name: str, lines: Sequence[Line]) -> str:
    """Return a chart of latency over 1 / (1 - p), as HTML; empty of no line."""
    if not any(line.points for line in lines):
        return ""
    highest = max(x for line in lines for x, _ in line.points)
    ticks = [10.0**n for n in range(7) if 10.0**n <= max(10.0, highest * 1.0001)]
    labels = tuple(f"{100 * (1 - 1 / tick):.10g}%" for tick in ticks)
    x = Axis(1.0, max(10.0, min(highest, 1e6)), tuple(ticks), "log", "= 1/(1-p)", labels)
    y = charts.logarithmic(charts.heights(lines), "ms")
    title = "Latency by percentile"
    return charts.render(Chart(name, title, x, y, "latency, ms", tuple(lines), height=240))


def knee(data: RunData) -> str:
    """Latency over throughput, a point for each step of the load, with the knee marked, as HTML."""
    found = data.result.get("knee")
    steps = sorted(found["steps"] if found else (), key=lambda each: each["throughput_ops_s"])
    if found is None or len(steps) < 2:
        return ""
    per = "" if found["axis"] == "users" else "/s"
    loads = tuple(f"{charts.number(each['load'])}{per}" for each in steps)
    lines = (
        Line(
            "p99", "p99", tuple((each["throughput_ops_s"], each["p99_ms"]) for each in steps), dots=True, labels=loads
        ),
        Line("p50", "p50", tuple((each["throughput_ops_s"], each["p50_ms"]) for each in steps), dots=True),
    )
    best = found["knee"]
    marked = () if not best else (Band(best["throughput_ops_s"], best["throughput_ops_s"],
                                       f"knee: {charts.number(best['load'])} {UNITS[found['axis']]}"),)  # fmt: skip
    x = charts.linear(0.0, charts.up_to(steps[-1]["throughput_ops_s"]).high, "/s")
    y = charts.logarithmic(charts.heights(lines), "ms")
    return charts.render(
        Chart("knee", f"Latency over throughput, one point per step, labelled with its {UNITS[found['axis']]}", x, y,
              f"latency, ms, over succeeded/s; at each point its {UNITS[found['axis']]}", lines, marked, height=260)
    )  # fmt: skip


def missing(data: RunData) -> str:
    """Return what could not be drawn, and why, as HTML."""
    return "".join(f"<li>{escape(each)}</li>" for each in data.missing)
