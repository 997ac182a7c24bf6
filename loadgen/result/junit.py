"""Verdicts in the formats of CI systems: JUnit XML, and a Markdown table for a GitHub step summary."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from cluster.base.console import printable, short
from cluster.base.files import write_bytes
from cluster.base.long_tables import largest
from cluster.base.verdict import NONE
from loadgen.result import perf_table
from loadgen.result.gate import causes_of, other_reasons
from loadgen.result.known import few_at, known_in, metric

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result, ResultThreshold

_SUITE = "raftload"
_SOUND = "the run is sound"
NOT_JUDGED = "nothing was judged: there was no threshold and no check"
_MOST_CAUSES = 10


def to_xml(result: Result) -> str:
    """Return a judged result as JUnit XML: a test case per threshold and pass mark, and one for the run as a whole.

    A threshold that failed is a ``failure``, one that is unknown an ``error``. The run's own case ends as its
    verdict does where something beside the thresholds decided it; it is skipped where nothing was judged.
    """
    run = result["run"]
    name = printable(str(run.get("scenario") or "run"))
    cases = [
        (threshold["expression"], threshold["verdict"], threshold.get("reason") or "", _value(threshold, result))
        for threshold in result["thresholds"]
    ]
    cases += perf_table.cases(result.get("perf"))
    reasons, is_judged = other_reasons(result), bool(cases)
    # A failed threshold decides the verdict by itself; what is wrong beside it is at most inconclusive.
    if result["verdict"] == NONE:
        beside, reasons = "none", [NOT_JUDGED]
    else:
        beside = ("unknown" if is_judged else result["verdict"]) if reasons else "pass"
    cases.append((_SOUND, beside, "; ".join(reasons), failures(result)))
    return suite(name, cases, run.get("duration_s") or 0, str(run.get("started_at") or ""))


def suite(
    name: str, cases: Iterable[tuple[str, str, str, str]], length_s: float = 0.0, started_at: str = "",
    times_s: Sequence[float] = (),
) -> str:  # fmt: skip
    """Return a suite of test cases as JUnit XML.

    Takes its name, of each case what is tested, its verdict (pass, fail, unknown or none), the reason and what was
    measured; how long it took, when it began, in UTC, and how long each case took (none: no time of their own).
    """
    cases = list(cases)
    counts = {
        "tests": len(cases),
        "failures": sum(verdict == "fail" for _, verdict, _, _ in cases),
        "errors": sum(verdict == "unknown" for _, verdict, _, _ in cases),
    }
    attributes = {key: str(value) for key, value in counts.items()} | {"time": f"{length_s:.3f}"}
    root = ElementTree.Element("testsuites", {"name": _SUITE, **attributes})
    skipped = sum(verdict == "none" for _, verdict, _, _ in cases)
    inner = ElementTree.SubElement(
        root, "testsuite", {"name": f"{_SUITE}.{name}", **attributes, "skipped": str(skipped)}
    )
    if started_at:
        # The format's own schema knows no time zone and no fraction; the time is UTC.
        inner.set("timestamp", started_at[:19])
    for (expression, verdict, reason, value), case_s in zip(cases, times_s or [0.0] * len(cases), strict=True):
        attributes = {"classname": f"{_SUITE}.{name}", "name": printable(expression), "time": f"{round(case_s, 3):g}"}
        case = ElementTree.SubElement(inner, "testcase", attributes)
        if verdict == "none":
            ElementTree.SubElement(case, "skipped", {"message": reason})
        elif verdict != "pass":
            tag = "failure" if verdict == "fail" else "error"
            message = {"type": verdict, "message": printable(reason)}
            ElementTree.SubElement(case, tag, message).text = printable(f"{expression}: {reason}")
        if value and (verdict == "pass" or expression == _SOUND):
            ElementTree.SubElement(case, "system-out").text = printable(value)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def write(result: Result, path: Path | str) -> None:
    """Write a judged result as JUnit XML. Raises OSError."""
    write_bytes(Path(path), to_xml(result).encode())


def to_markdown(result: Result) -> str:
    """Return a judged result as Markdown: verdict, thresholds, and the figures of each operation type.

    That is 450 KB at most: of many thresholds, reasons and request names it says how many more there are.
    """
    run, verdict = result["run"], result["verdict"]
    lines = [f"### raftload {as_markdown(str(run.get('scenario') or 'run'))}: {verdict.upper()}", ""]
    if result["thresholds"]:
        lines += ["| verdict | threshold | measured |", "| --- | --- | ---: |"]
        lines += [
            f"| {threshold['verdict'].upper()} | {_code(threshold['expression'])} | {_value(threshold, result)} |"
            for threshold in result["thresholds"][:_MOST_ROWS]
        ]
        lines += [*_more(result["thresholds"], _MOST_ROWS), ""]
    if verdict == NONE:
        lines += [f"{NOT_JUDGED.capitalize()}.", ""]
    lines += [f"- {as_markdown(reason, _LONGEST_REASON)}" for reason in result["verdict_reasons"][:_MOST_REASONS]]
    if result["verdict_reasons"]:
        lines += [*_more(result["verdict_reasons"], _MOST_REASONS), ""]
    lines += ["| | operations | failed | ops/s | p50 ms | p95 ms | p99 ms | max ms |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    rows, rest = largest(result["results"], _MOST_ROWS)
    for name, row in rows.items():
        latencies = [known_in(row, field) for field in _SHOWN]
        lines.append(_row(as_markdown(name), row["operations"], row["failed"], row["throughput_ops_s"], latencies))
    if rest is not None:
        figures = (rest.operations, rest.failed, rest.throughput_ops_s, [None] * len(_SHOWN))
        lines.append(_row(f"{rest.names:,} more names", *figures))
    if (total := result["results"].get("total")) is not None:
        latencies = [known_in(total, field) for field in _SHOWN]
        lines.append(_row("total", total["operations"], total["failed"], total["throughput_ops_s"], latencies))
    if causes := failures(result):
        lines += ["", as_markdown(causes, _LONGEST_REASON)]
    return "\n".join(lines) + "\n\n"


def failures(result: Result) -> str:
    """Return the most frequent causes of a run's failures in one line; empty where there was none."""
    causes = causes_of(result["results"].get("total"))
    more = [f"{len(causes) - _MOST_CAUSES} more causes"] if len(causes) > _MOST_CAUSES else []
    return "failures by cause: " + ", ".join(causes[:_MOST_CAUSES] + more) if causes else ""


def append_step_summary(result: Result) -> bool:
    """Append the Markdown of a judged result as `append_markdown` does. Raises OSError."""
    return append_markdown(to_markdown(result))


def append_markdown(text: str) -> bool:
    """Append Markdown to the file that $GITHUB_STEP_SUMMARY names; tell whether it was appended.

    It is not where that names no file, and where the file would be longer than GitHub takes: it would discard all that
    is in there. Raises OSError.
    """
    path = os.environ.get(STEP_SUMMARY)
    if not path:
        return False
    data = text.encode()
    with Path(path).open("ab") as file:
        # Where a file that cannot be sought stands, such as that of a device, is no length.
        if file.seekable() and file.tell() + len(data) > LONGEST_SUMMARY:
            return False
        file.write(data)
    return True


STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
LONGEST_SUMMARY = 1024 * 1024
SUMMARY_IS_FULL = "hint: {} would be longer than the 1,024 KiB that GitHub takes, so nothing was added to it"
_SHOWN = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
_MOST_ROWS, _MOST_REASONS = 200, 50
_LONGEST_NAME, _LONGEST_REASON = 120, 300
# Markdown takes no character reference for markup. Underscores within words are none, and figures are full of them.
_MARKUP = re.compile(r"[\\`*\[\]<>&~#$]|(?<![a-zA-Z0-9])_|_(?![a-zA-Z0-9])|^[-+=]|(?<=^[0-9])[.)]")


def _row(name: str, operations: int, failed: int, rate: float | None, latencies: Iterable[float | None]) -> str:
    failures = f"**{failed:,}**" if failed else "0"  # Markdown has no red
    return f"| {name} | {' | '.join([f'{operations:,}', failures, _figure(rate), *map(_figure, latencies)])} |"


def _more(shown: Sequence[object], most: int) -> list[str]:
    """Return a line about what is not shown, as far as there is."""
    return [f"\n{len(shown) - most:,} more"] if len(shown) > most else []


def _value(threshold: ResultThreshold, result: Result) -> str:
    few = few_at(result["results"], *metric(threshold["expression"]))
    return "no sample" if threshold["value"] is None else f"{threshold['value']:,.10g}{few and f' ({few})'}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.3f}"


def as_markdown(text: str, limit: int = _LONGEST_NAME) -> str:
    """Return a text, shortened, as Markdown that shows it as it is, also in a table."""
    text = printable(short(text, limit))
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", text).replace("|", "\\|")


def _code(text: str) -> str:
    """Return a text as Markdown that shows it as code. A code span cannot hold all that HTML's can."""
    if set(text) & set("`|\\") or len(text) > _LONGEST_NAME or text != printable(text).strip():
        return f"<code>{as_markdown(text)}</code>"
    return f"`{text}`"
