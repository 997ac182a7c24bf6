"""Verdicts in the formats of CI systems: JUnit XML, and a Markdown table for a GitHub step summary."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from cluster.base.console import printable
from loadgen.result.gate import number_in, other_reasons

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result, ResultThreshold

_SUITE = "raftload"


def to_xml(result: Result) -> str:
    """Return a judged result as JUnit XML: a test case per threshold, and one for the run as a whole.

    A threshold that failed is a ``failure``, one that is unknown an ``error``. The run's own case ends as its
    verdict does where something beside the thresholds decided it.
    """
    run = result["run"]
    name = printable(str(run.get("scenario") or "run"))
    cases = [
        (threshold["expression"], threshold["verdict"], threshold.get("reason") or "", _value(threshold))
        for threshold in result["thresholds"]
    ]
    reasons = other_reasons(result)
    # A failed threshold decides the verdict by itself; what is wrong beside it is at most inconclusive.
    beside = ("unknown" if result["thresholds"] else result["verdict"]) if reasons else "pass"
    cases.append(("the run is sound", beside, "; ".join(reasons), ""))
    counts = {
        "tests": len(cases),
        "failures": sum(verdict == "fail" for _, verdict, _, _ in cases),
        "errors": sum(verdict == "unknown" for _, verdict, _, _ in cases),
    }
    attributes = {key: str(value) for key, value in counts.items()} | {"time": f"{run.get('duration_s') or 0:.3f}"}
    root = ElementTree.Element("testsuites", {"name": _SUITE, **attributes})
    suite = ElementTree.SubElement(root, "testsuite", {"name": f"{_SUITE}.{name}", **attributes, "skipped": "0"})
    if run.get("started_at"):
        # The format's own schema knows no time zone and no fraction; the time is UTC.
        suite.set("timestamp", str(run["started_at"])[:19])
    for expression, verdict, reason, value in cases:
        attributes = {"classname": f"{_SUITE}.{name}", "name": printable(expression), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        if verdict != "pass":
            tag = "failure" if verdict == "fail" else "error"
            message = {"type": verdict, "message": printable(reason)}
            ElementTree.SubElement(case, tag, message).text = printable(f"{expression}: {reason}")
        elif value:
            ElementTree.SubElement(case, "system-out").text = value
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def write(result: Result, path: Path | str) -> None:
    """Write a judged result as JUnit XML. Raises OSError."""
    Path(path).write_text(to_xml(result), encoding="utf-8")


def to_markdown(result: Result) -> str:
    """Return a judged result as Markdown: verdict, thresholds, and the figures of each operation type."""
    run, verdict = result["run"], result["verdict"]
    lines = [f"### raftload {_cell(str(run.get('scenario') or 'run'))}: {verdict.upper()}", ""]
    if result["thresholds"]:
        lines += ["| verdict | threshold | measured |", "| --- | --- | ---: |"]
        lines += [
            f"| {threshold['verdict'].upper()} | `{_cell(threshold['expression'])}` | {_value(threshold)} |"
            for threshold in result["thresholds"]
        ]
        lines.append("")
    lines += [f"- {_cell(reason)}" for reason in result["verdict_reasons"]]
    if result["verdict_reasons"]:
        lines.append("")
    lines += ["| | operations | failed | ops/s | p50 ms | p95 ms | p99 ms | max ms |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for name, row in result["results"].items():
        if row is not None:
            figures = [row["throughput_ops_s"], *(number_in(row["latency"], field) for field in _SHOWN)]
            cells = [f"{row['operations']:,}", f"{row['failed']:,}", *map(_figure, figures)]
            lines.append(f"| {_cell(name)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n"


def append_step_summary(result: Result) -> bool:
    """Append the Markdown to the file that $GITHUB_STEP_SUMMARY names; tell whether it names one.

    Raises OSError.
    """
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return False
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(to_markdown(result))
    return True


_SHOWN = ("p50_ms", "p95_ms", "p99_ms", "max_ms")


def _value(threshold: ResultThreshold) -> str:
    return "no sample" if threshold["value"] is None else f"{threshold['value']:,.10g}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.3f}"


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")
