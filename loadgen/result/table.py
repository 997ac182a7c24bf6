"""A result as a table for people: what `bench`, `report` and `gate` print on a terminal.

Plain ASCII, so that it survives any locale, log file and chat window; colour only where it is asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base import console
from cluster.base.console import Painter, printable, short
from cluster.base.verdict import NONE, Verdict, style_of
from cluster.schema.run_documents import NO_TARGET, not_reachable, why_not_compared
from loadgen.diagnose.answer_table import headline
from loadgen.load.settings import other_than_default
from loadgen.result import known, perf_table
from loadgen.result.gate import other_reasons

if TYPE_CHECKING:
    from cluster.schema.run_documents import CpuWait, Generator, Knee, Result, ResultTarget, Row

LABEL = 12
MAX_CAUSES = 8
MAX_STEPS = 24
MAX_NAME = 28

# Latency columns from left to right, and in which order they go where the terminal is too narrow.
_LATENCIES = {
    "min_ms": "min", "mean_ms": "mean", "p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99",
    "p99_9_ms": "p99.9", "max_ms": "max",
}  # fmt: skip
_DROPPED_FIRST = ("p99_9_ms", "min_ms", "mean_ms", "max_ms", "p95_ms")
_GROUP = "latency of successes, ms"

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def render(result: Result, *, color: bool, width: int = 100, folder: Path | None = None) -> str:
    """Return a result document as text of at most ``width`` columns (80 at least), without a final newline.

    A row per operation type that was run and one for the total; a dash stands for what was not measured, and for a
    percentile of too few samples.
    Below are the target, the generator, failures by cause, thresholds, and the run folder where one is given.
    """
    width = max(80, min(width, 120))
    paint = Painter(color)
    rows, shown = _rows(result["results"], paint, width)
    lines = [*_title(result, paint), *_diagnosis(result, paint, width), *rows, ""]
    for label, texts in _facts(result, paint, folder, known.advice(result, shown)):
        lines += _labelled(label, texts, paint, width)
    return "\n".join(line.rstrip() for line in lines)


def render_verdict(result: Result, *, color: bool, width: int = 100) -> str:
    """Return thresholds and verdict of a judged result as text, without a final newline."""
    paint = Painter(color)
    lines = []
    for label, texts in _verdict(result, paint):
        lines += _labelled(label, texts, paint, width)
    return "\n".join(line.rstrip() for line in lines)


def _title(result: Result, paint: Painter) -> list[str]:
    run = result["run"]
    users, workers = run.get("users"), run.get("workers")
    parts = [
        f"{run['loop']} loop" if run.get("loop") else "",
        # A search has many.
        f"{run['rate']:,g}/s asked for" if run.get("rate") and not result.get("capacity") else "",
        _plural(users, "user") + (f" in {_plural(workers, 'worker')}" if workers else "") if users else "",
        str(run.get("transport") or ""),
        f"values of {run['value_size']:,} B" if run.get("value_size") else "",
        *other_than_default(run),
    ]
    details = ", ".join(part for part in parts if part)
    name = printable(str(run.get("scenario") or "Locust run"))
    return [paint(name, "bold") + (f"  {paint(details, 'dim')}" if details else ""), ""]


def _diagnosis(result: Result, paint: Painter, width: int) -> list[str]:
    """Return what was slow in the run, in a line or two and one that is empty; nothing where that is not known."""
    found = result.get("diagnosis")
    return [*headline(found["cluster"], paint, width), ""] if found else []


def _rows(results: dict[str, Row | None], paint: Painter, width: int) -> tuple[list[str], list[str]]:
    """Return the table: a group heading, the headings, the rows, a rule and the total; and the latencies it shows."""
    rows = {name: row for name, row in results.items() if row is not None}
    shown = [*(name for name in rows if name != "total"), "total"]
    columns = [["", *_labels(shown)]]
    columns.append(["operations", *(f"{rows[name]['operations']:,}" for name in shown)])
    columns.append(["failed", *(f"{rows[name]['failed']:,}" for name in shown)])
    columns.append(["ops/s", *_aligned([rows[name]["throughput_ops_s"] for name in shown], (1, 1, 0))])
    latencies = {
        field: [
            heading,
            *_aligned([known.known_in(rows[name], field) for name in shown], (3, 2, 1)),
        ]
        for field, heading in _LATENCIES.items()
    }
    for field in (None, *_DROPPED_FIRST):
        latencies.pop(field or "", None)
        if _line_width([*columns, *latencies.values()]) <= width:
            break
    fixed = len(columns)
    columns += latencies.values()
    widths = [max(map(len, column)) for column in columns]
    full = _line_width(columns)
    left = sum(widths[:fixed]) + 2 * fixed
    group = _GROUP if len(_GROUP) <= full - left else "latency, ms"
    lines = [paint(" " * left + group.center(full - left, " "), "dim").rstrip()]
    for index in range(len(shown) + 1):
        cells = [columns[0][index].ljust(widths[0])]
        cells += [column[index].rjust(size) for column, size in zip(columns[1:], widths[1:], strict=True)]
        if index == 0:
            cells = [paint(cell, "dim") for cell in cells]
        else:
            total = ("bold",) if index == len(shown) else ()
            bad = ("red",) if rows[shown[index - 1]]["failed"] else ()
            cells = [paint(cell, *total, *(bad if at == 2 else ())) for at, cell in enumerate(cells)]
        if index == len(shown):
            lines.append(paint("-" * full, "dim"))
        lines.append("  ".join(cells))
    return lines, [field for field in _LATENCIES if field in latencies]


def _labels(names: list[str]) -> list[str]:
    """Return names that are short, those of one beginning by their ends: addresses of a site differ there."""
    short = [_shorten(name, MAX_NAME) for name in names]
    same = Counter(short)
    return [
        label if same[label] == 1 else printable(f"{name[:8]}...{name[11 - MAX_NAME :]}")
        for name, label in zip(names, short, strict=True)
    ]


def _line_width(columns: list[list[str]]) -> int:
    return sum(max(map(len, column)) for column in columns) + 2 * (len(columns) - 1)


def _aligned(values: list[float | None], decimals: tuple[int, int, int]) -> list[str]:
    """Return numbers of one column with equal decimals: fewer where the largest passes 100, and 1000."""
    largest = max((value for value in values if value is not None), default=0.0)
    digits = decimals[0] if largest < 100 else decimals[1] if largest < 1000 else decimals[2]
    return ["-" if value is None else f"{value:,.{digits}f}" for value in values]


def _facts(result: Result, paint: Painter, folder: Path | None, samples: list[str]) -> list[tuple[str, list[str]]]:
    """Return what stands below the table: labels with one or more lines each. Takes what there is to say of dashes."""
    facts = [
        (
            "target",
            [
                *_target(result.get("target"), paint),
                *(paint(printable(each), "yellow") for each in not_reachable(result)),
            ],
        ),
        ("run", _length(result)),
        ("samples", samples),
        ("steps", _steps(result.get("knee"), paint)),
        ("generator", _generator(result.get("generator"), paint)),
        ("members", _cpu_wait((result.get("target") or NO_TARGET).get("cpu_wait"), paint)),
        ("meanwhile", perf_table.members(result.get("perf"))),
        ("what to do", [advice] if (advice := _advice(result)) else []),
        ("failures", _failures(result["results"], paint)),
        *((name, _branches(row)) for name, row in result["results"].items()),
        ("writes", _books(result, paint)),
        *_verdict(result, paint),
        ("folder", [str(folder)] if folder else []),
    ]
    return [(label, texts) for label, texts in facts if texts]


def _advice(result: Result) -> str:
    found = result.get("diagnosis")
    return printable(found["cluster"]["advice"]) if found else ""


def _target(target: ResultTarget | None, paint: Painter) -> list[str]:
    if not target:
        return []
    version, changes = target.get("etcd_version"), target.get("leader_changes")
    members = target.get("members")
    count = len(members) if isinstance(members, list) else members
    parts = [
        " ".join(part for part in (target.get("kind"), "etcd", version) if part),
        _plural(count, "member") if count else "",
        paint(_plural(changes, "leader change"), "yellow") if changes else "",
    ]
    texts = [", ".join(part for part in parts if part)]
    wanted = target.get("requested_version")
    if wanted and version and not str(version).startswith(str(wanted)):
        texts.append(paint(f"etcd {wanted} was asked for", "yellow"))
    if target.get("peer_links") == "relay":
        texts.append(
            paint(
                "messages between members pass through a relay, for faults: latencies are not etcd's alone;", "yellow"
            )
        )
        texts.append("  to measure, `raftload cluster up --backend local --links direct`")
    if target.get("disk_faults"):
        texts.append(
            paint("the members' syncs are trapped, for faults of disks: latencies are not etcd's alone;", "yellow")
        )
        texts.append("  to measure, leave --disk-faults out")
    return texts


def _steps(knee: Knee | None, paint: Painter) -> list[str]:
    """Return the steps of the load as a table, with the knee marked, and a sentence about it."""
    if not knee or not knee["steps"]:
        return [f"no knee: {knee['reason']}"] if knee else []
    steps, best = knee["steps"], knee["knee"]
    middle = steps.index(best) if best in steps else len(steps) - 1
    first = max(0, min(middle - MAX_STEPS // 2, len(steps) - MAX_STEPS))
    shown = steps[first : first + MAX_STEPS]
    columns = [["users" if knee["axis"] == "users" else "rate, /s", *(f"{step['load']:,g}" for step in shown)]]
    columns.append(["succeeded/s", *_aligned([step["throughput_ops_s"] for step in shown], (1, 1, 0))])
    columns.append(["mean, ms", *_aligned([step["mean_ms"] for step in shown], (3, 2, 1))])
    columns.append(["p50, ms", *_aligned([step["p50_ms"] for step in shown], (3, 2, 1))])
    columns.append(["p99, ms", *_aligned([step["p99_ms"] for step in shown], (3, 2, 1))])
    columns.append(["power", *_aligned([step["power"] for step in shown], (3, 2, 1))])
    head, *lines = console.columns([*zip(*columns, strict=True)], right=range(len(columns)))
    texts = [paint(head, "dim")]
    texts += [
        paint(f"{line}  <- knee", "bold") if step == best else line for line, step in zip(lines, shown, strict=True)
    ]
    if len(shown) < len(steps):
        texts.append(f"and {len(steps) - len(shown):,} more, in report.html")
    if best:
        texts.append("power = throughput / mean latency; beyond the knee more load raises latency, not throughput")
    else:
        texts.append(f"no knee: {knee['reason']}")
    return texts + ([paint(printable(str(knee["caution"])), "yellow")] if knee["caution"] else [])


def _length(result: Result) -> list[str]:
    run = result["run"]
    duration, wanted, started = run.get("duration_s"), run.get("requested_duration_s"), run.get("started_at")
    asked = f"{run['operations']:,} operations" if run.get("operations") else f"{wanted:g} s" if wanted else ""
    parts = [
        f"{duration:,.2f} s" if duration is not None else "",
        f"{asked} asked for" if asked else "",
        f"started {started[:19].replace('T', ' ')} UTC" if started else "",
        f"seed {run['seed']}" if run.get("seed") is not None else "",
    ]
    text = ", ".join(part for part in parts if part)
    return [text] if text else []


# Whoever asked for it needs no reason.
_ASKED_FOR_PYTHON = "--engine python"


def _generator(generator: Generator | None, paint: Painter) -> list[str]:
    if not generator:
        return []
    cpu, loop_lag = generator.get("cpu_us_per_op"), generator.get("loop_lag_p99_ms")
    start_lag, dropped, resent = generator["start_lag_p99_ms"], generator["dropped"], generator["resent"]
    engine, why_python = generator.get("engine"), generator.get("engine_reason")
    parts = [
        f"{engine} engine" if engine else "",
        f"{cpu:,.1f} us CPU per operation" if cpu is not None else "",
        f"start lag p99 {start_lag:.3f} ms" if start_lag is not None else "",
        f"loop lag p99 {loop_lag:.3f} ms" if loop_lag is not None else "",
        f"{dropped:,} dropped" if dropped else "",
        f"{resent:,} sent again" if resent else "",
    ]
    texts = [text for text in [", ".join(part for part in parts if part)] if text]
    if why_python and why_python != _ASKED_FOR_PYTHON:
        texts.append(f"python engine because of {printable(why_python)}")
    if generator.get("saturated"):
        texts.append(paint("SATURATED: latencies are partly the generator's own", "yellow", "bold"))
        if generator.get("saturated_by"):
            texts.append(printable(str(generator["saturated_by"])))
    return texts


def _cpu_wait(wait: CpuWait | None, paint: Painter) -> list[str]:
    if not wait:
        return []
    worst = max(wait["members"], key=lambda each: each["waited_s"], default=None)
    if worst is None or wait["share"] is None:
        return []
    name = printable(worst["name"])
    texts = [f"waited for a CPU for up to {wait['share']:.0%} of the time that operations took ({name})"]
    if wait["contended"]:
        texts.append(paint("CONTENDED: latencies are partly the members' wait for a CPU", "yellow", "bold"))
    return texts


def _failures(results: dict[str, Row | None], paint: Painter) -> list[str]:
    causes = [
        (count, name, error, (row.get("error_texts") or {}).get(error))
        for name, row in results.items()
        if row is not None and name != "total"
        for error, count in (row["errors"] or {}).items()
    ]
    causes.sort(key=lambda cause: (-cause[0], cause[1:3]))
    size = len(f"{causes[0][0]:,}") if causes else 0
    texts = [
        paint(f"{count:{size},} {_shorten(name, MAX_NAME)}", "red")
        + f" {_shorten(error, 60)}{f': {_shorten(text, 120)}' if text else ''}"
        for count, name, error, text in causes[:MAX_CAUSES]
    ]
    rest = causes[MAX_CAUSES:]
    if rest:
        texts.append(f"{sum(count for count, *_ in rest):{size},} of {len(rest)} more causes")
    total = results["total"]
    if total and (info := total.get("info")):
        texts.append(f"{info:,} of them with unknown effect: they may or may not have happened")
    return texts


def _branches(row: Row | None) -> list[str]:
    branches = row.get("branches") if row else None
    if not branches:
        return []
    return ["branches taken: " + ", ".join(f"{count:,} {printable(name)}" for name, count in branches.items())]


def _books(result: Result, paint: Painter) -> list[str]:
    books = result.get("books")
    if not books:
        return []
    if why := why_not_compared(result):
        return [f"not compared with the store's revision: {why}"]
    delta, writes, info = books["revision_delta"], books["writes_ok"], books["writes_info"]
    sums = f"{_plural(writes, 'write')} acknowledged" if writes is not None else ""
    sums += f", {info:,} unknown" if info else ""
    sums += f", store revision advanced by {delta:,}" if delta is not None else ""
    if books["balanced"]:
        return [f"agree: {sums}" if sums else "agree"]
    return [paint("DO NOT AGREE", "red", "bold") + (f": {sums}" if sums else "")]


def _verdict(result: Result, paint: Painter) -> list[tuple[str, list[str]]]:
    """Return the lines ``marks``, ``thresholds`` and ``verdict``."""
    thresholds = result["thresholds"]
    size = max((len(threshold["expression"]) for threshold in thresholds), default=0)
    texts = []
    for threshold in thresholds:
        verdict, value = threshold["verdict"], threshold["value"]
        mark, expression = paint(f"{verdict.upper():7}", Verdict(verdict).style), threshold["expression"]
        few = _few(result, expression)
        texts.append(f"{mark}  {printable(expression):{size}}  {_measured(expression, value)}{few and f' ({few})'}")
        if verdict == "unknown" and (reason := threshold.get("reason")):
            texts.append(" " * 9 + paint(printable(reason), "dim"))
    verdict = result["verdict"]
    reasons = [printable(reason) for reason in other_reasons(result)]
    last = [paint(verdict.upper(), style_of(verdict), "bold"), *reasons]
    decided = any(each["verdict"] == verdict for each in (*thresholds, *perf_table.marks_of(result.get("perf"))))
    if reasons and not decided:
        last[:2] = [f"{last[0]}: {reasons[0]}"]
    elif verdict == NONE:
        last[0] += paint(" (no thresholds)", "dim")
    judged = [("marks", perf_table.marks(result.get("perf"), paint)), ("thresholds", texts)]
    return [*((label, lines) for label, lines in judged if lines), ("verdict", last)]


def _measured(expression: str, value: float | None) -> str:
    """Return a threshold's value with its unit, which the field's name in the expression says."""
    if value is None:
        return "no sample"
    metric = expression.rpartition(" ")[0].rstrip(" <>=")
    if metric.endswith("_ms"):
        return f"{value:,.3f} ms"
    return f"{value:,.10g}" + (" ops/s" if metric.endswith("_ops_s") else "")


def _few(result: Result, expression: str) -> str:
    """Return how few samples a threshold was judged by, where it is on a percentile that is of too few."""
    return known.few_at(result["results"], *known.metric(expression))


def _labelled(label: str, texts: list[str], paint: Painter, width: int) -> list[str]:
    """Return a label with its lines to the right of it, folded where they are too long."""
    lines = [line for text in texts for line in _folded(text, width - LABEL)]
    labels = [paint(label.ljust(LABEL), "dim"), *[" " * LABEL] * (len(lines) - 1)]
    return [before + line for before, line in zip(labels, lines, strict=True)]


def _folded(text: str, width: int) -> list[str]:
    """Return a text as lines of at most ``width`` visible characters, as far as its words allow."""
    indent = " " * (len(text) - len(text.lstrip(" ")) + 2)
    lines = [""]
    for index, word in enumerate(text.split(" ")):
        if index and _visible(lines[-1]) + 1 + _visible(word) > width:
            lines.append(indent + word)
        else:
            lines[-1] += f" {word}" if index else word
    return lines


def _visible(text: str) -> int:
    return len(_ESCAPES.sub("", text))


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _shorten(text: str, limit: int) -> str:
    return printable(short(text, limit))
