"""A report for people: plain ASCII, colour only where it is asked for."""

from __future__ import annotations

import textwrap

from cluster.base.console import Painter
from cluster.base.verdict import Verdict
from cluster.conformance.model import Result
from cluster.conformance.suite import Report

_NAME, _VERDICT, _TIME = 24, 7, 8


def render(report: Report, *, color: bool = False, width: int = 100) -> str:
    """Take a report and the columns of the terminal; return a line or more a test, and the sum below."""
    head = f"{'test':<{_NAME}} {'verdict':<{_VERDICT}} {'time':>{_TIME}}  reason"
    paint = Painter(color)
    lines = [head, "-" * min(max(width, 80), 120)]
    for result in report.results:
        lines += _rows(result, paint, min(max(width, 80), 120))
    counts = ", ".join(f"{report.count(verdict)} {verdict.name}" for verdict in Verdict)
    lines += ["", f"{paint(report.verdict.name, report.verdict.style)}: {counts} in {report.duration_s:.1f} s"]
    return "\n".join(lines)


def _rows(result: Result, paint: Painter, width: int) -> list[str]:
    reason = result.reason
    if result.verdict == Verdict.FAIL:
        reason = f"broken guarantee: {result.promise}; {reason}"
    indent = " " * (_NAME + _VERDICT + _TIME + 4)
    first, *more = textwrap.wrap(reason, width - len(indent)) or [""]
    verdict = paint(f"{result.verdict.name:<{_VERDICT}}", result.verdict.style)
    time = f"{result.duration_s:.2f} s" if result.duration_s else "-"
    return [f"{result.name:<{_NAME}} {verdict} {time:>{_TIME}}  {first}", *(indent + line for line in more)]
