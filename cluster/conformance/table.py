"""A report for people: plain ASCII, colour only where it is asked for."""

from __future__ import annotations

import textwrap

from cluster.conformance.model import Result, Verdict
from cluster.conformance.suite import Report

_COLORS = {Verdict.PASS: "32", Verdict.FAIL: "31", Verdict.UNKNOWN: "33", Verdict.SKIP: "2"}
_NAME, _VERDICT, _TIME = 24, 7, 8


def render(report: Report, *, color: bool = False, width: int = 100) -> str:
    """Takes a report and the columns of the terminal; returns a line or more a test, and the sum below."""
    head = f"{'test':<{_NAME}} {'verdict':<{_VERDICT}} {'time':>{_TIME}}  reason"
    lines = [head, "-" * min(max(width, 80), 120)]
    for result in report.results:
        lines += _rows(result, color, min(max(width, 80), 120))
    counts = ", ".join(f"{report.count(verdict)} {verdict.value}" for verdict in Verdict)
    lines += ["", f"{_paint(report.verdict, report.verdict.value, color)}: {counts} in {report.duration_s:.1f} s"]
    return "\n".join(lines)


def _rows(result: Result, color: bool, width: int) -> list[str]:
    reason = result.reason
    if result.verdict == Verdict.FAIL:
        reason = f"broken promise: {result.promise}; {reason}"
    indent = " " * (_NAME + _VERDICT + _TIME + 4)
    first, *more = textwrap.wrap(reason, width - len(indent)) or [""]
    verdict = _paint(result.verdict, f"{result.verdict.value:<{_VERDICT}}", color)
    time = f"{result.duration_s:.2f} s" if result.duration_s else "-"
    return [f"{result.name:<{_NAME}} {verdict} {time:>{_TIME}}  {first}", *(indent + line for line in more)]


def _paint(verdict: Verdict, text: str, color: bool) -> str:
    return f"\x1b[{_COLORS[verdict]}m{text}\x1b[0m" if color else text
