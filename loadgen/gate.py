"""Thresholds over a result, the verdict that follows from them, and the exit code that follows from that.

Unknown is never pass: a threshold without a sample, or one over what the generator distorted, is UNKNOWN,
and so is a run that lost a worker or whose books do not balance. A threshold that failed has failed all the
same, wherever what is missing could not have saved it.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import enum
import math
import operator
import re
import signal
import sys
from collections.abc import Collection, Iterable
from typing import Any

from loadgen.units import OPERATION_TYPES, SCENARIO_TYPES

TYPES = (*OPERATION_TYPES, *SCENARIO_TYPES, "total")
LATENCY_FIELDS = (
    "min_ms", "mean_ms", "median_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_9_ms", "p99_99_ms",
    "max_ms",
)  # fmt: skip
SERVICE_FIELDS = tuple(f"service.{field}" for field in LATENCY_FIELDS)
COUNT_FIELDS = ("operations", "succeeded", "failed", "info")
RATE_FIELDS = ("success_rate", "throughput_ops_s")
FIELDS = (*LATENCY_FIELDS, *SERVICE_FIELDS, *COUNT_FIELDS, *RATE_FIELDS)

OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}

_EXPRESSION = re.compile(r"\s*(?P<metric>.*?)\s*(?P<operator><=|>=|==|<|>)\s*(?P<bound>[^<>=\s]+)\s*")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class ThresholdError(ValueError):
    """A text that is not a threshold; the message is one line that says what would be one."""


class Verdict(enum.StrEnum):
    """What came of a threshold, or of a whole run."""

    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True, slots=True)
class Threshold:
    """A bound on one number of a result, such as ``put.p99_ms < 50``.

    Attributes:
        type: an operation type, ``total``, or a request name of a plain Locust run.
        field: one of FIELDS.
        operator: one of ``<``, ``<=``, ``>``, ``>=``, ``==``.
        bound: milliseconds, operations, operations per second, or a share between 0 and 1, as the field is.
    """

    type: str
    field: str
    operator: str
    bound: float

    @classmethod
    def parse(cls, text: str, types: Collection[str] = TYPES) -> Threshold:
        """Return the threshold that a text means, ``<type>.<field> <operator> <number>``.

        ``types`` are the names that may stand before the dot. Raises ThresholdError.
        """
        match = _EXPRESSION.fullmatch(text)
        if not match:
            raise ThresholdError(
                f"{text!r} is not a threshold; write <type>.<field> <operator> <number>, "
                "such as 'put.p99_ms < 50' (operators: < <= > >= ==)"
            )
        type_, field = _split(match["metric"])
        if field not in FIELDS:
            raise ThresholdError(f"{field!r} in {text!r} is not a field; {_suggest(field, _SUGGESTED)}")
        if type_ not in types:
            raise ThresholdError(f"{type_!r} in {text!r} is not an operation type; {_suggest(type_, types)}")
        if not _NUMBER.fullmatch(match["bound"]) or not math.isfinite(float(match["bound"])):
            raise ThresholdError(
                f"{match['bound']!r} in {text!r} is not a plain number; "
                "latencies are in ms, success_rate is between 0 and 1"
            )
        return cls(type_, field, match["operator"], float(match["bound"]))

    def __str__(self) -> str:
        bound = int(self.bound) if self.bound.is_integer() and abs(self.bound) < 1e15 else self.bound
        return f"{self.type}.{self.field} {self.operator} {bound!r}"

    def holds(self, value: float) -> bool:
        """Tell whether a value is within the bound."""
        return bool(OPERATORS[self.operator](value, self.bound))


_SUGGESTED = tuple(field for field in FIELDS if field not in SERVICE_FIELDS)


def _split(metric: str) -> tuple[str, str]:
    """Return type and field of a metric; request names of plain Locust runs may hold dots themselves."""
    for field in SERVICE_FIELDS:
        if metric.endswith(f".{field}"):
            return metric.removesuffix(f".{field}"), field
    type_, dot, field = metric.rpartition(".")
    return (type_, field) if dot else (metric, "")


def _suggest(name: str, valid: Collection[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}There are {', '.join(valid)}"


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """What came of one threshold.

    Attributes:
        expression: the threshold as text.
        value: what was measured, in the field's unit; None without a sample.
        verdict: PASS, FAIL or UNKNOWN.
        reason: why it is not PASS, in one line; empty when it is.
    """

    expression: str
    value: float | None
    verdict: Verdict
    reason: str


def judge(threshold: Threshold, result: dict[str, Any]) -> Judgement:
    """Return what a result document says about a threshold."""
    value, missing = _value(threshold, result)
    if value is None:
        return Judgement(str(threshold), None, Verdict.UNKNOWN, missing)
    holds = threshold.holds(value)
    doubt = _doubt(threshold, value, holds, result)
    if doubt:
        return Judgement(str(threshold), value, Verdict.UNKNOWN, doubt)
    if holds:
        return Judgement(str(threshold), value, Verdict.PASS, "")
    return Judgement(str(threshold), value, Verdict.FAIL, f"{threshold.type}.{threshold.field} is {value:,.10g}")


def _value(threshold: Threshold, result: dict[str, Any]) -> tuple[float | None, str]:
    """Return the number that a threshold is about, or None and the reason why there is none."""
    name = threshold.type
    measured = result["results"].get(name)
    if measured is None:
        return None, f"{name} was not run"
    if threshold.field in COUNT_FIELDS or threshold.field in RATE_FIELDS:
        value = measured.get(threshold.field)
        return value, f"{name}.{threshold.field} was not measured"
    latency = measured["latency"]
    if latency is None:
        return None, f"no {name} succeeded, so there is no latency"
    if threshold.field in SERVICE_FIELDS:
        latency = latency.get("service")
        if latency is None:
            return None, "service latency is measured in an open loop only"
    return latency.get(threshold.field.removeprefix("service.")), f"{name}.{threshold.field} was not measured"


def _doubt(threshold: Threshold, value: float, holds: bool, result: dict[str, Any]) -> str:
    """Return why a value does not decide a threshold, or an empty text when it does."""
    field = threshold.field
    if (result.get("generator") or {}).get("saturated"):
        if field in LATENCY_FIELDS or field in SERVICE_FIELDS:
            return "the generator was saturated, so the latency is partly its own"
        if field == "throughput_ops_s" and not holds:
            return "the generator was saturated, so the target may be capable of more"
    if _lost_workers(result) and not holds:
        if field == "throughput_ops_s":
            return "a worker was lost, so the load was lower than asked for"
        # What a lost worker did not report can only add to a count.
        if field in COUNT_FIELDS and threshold.operator in (">", ">=", "==") and value <= threshold.bound:
            return "a worker was lost, and its last operations are not counted"
    return ""


def _lost_workers(result: dict[str, Any]) -> list[str]:
    """Return a line for each worker that a run lost, as far as they have names."""
    lost = result.get("lost_workers") or []
    if lost:
        return [
            f"worker {worker['name']} was lost" + (f": {worker['reason']}" if worker.get("reason") else "")
            for worker in lost
        ]
    count = (result.get("generator") or {}).get("workers_lost")
    return [f"{count} worker{'s' if count > 1 else ''} lost"] if count else []


def _inconclusive(result: dict[str, Any]) -> list[str]:
    """Return why a run cannot pass, whatever its thresholds say."""
    reasons = _lost_workers(result)
    if result.get("interrupted"):
        reasons.append(f"the run was interrupted by {result['interrupted']}")
    generator = result.get("generator") or {}
    if generator.get("rate_reached") is False and not result["run"].get("allow_rate_miss"):
        dropped = f"{generator['dropped']:,} of {generator['scheduled']:,} operations were never sent"
        late = dropped if generator.get("dropped") else "operations were sent too late"
        reasons.append(f"the target rate was not reached: {late}")
    if (result.get("books") or {}).get("balanced") is False:
        reasons.append("the books do not balance")
    reasons += [str(problem) for problem in result.get("problems") or []]
    if not (result["results"].get("total") or {}).get("operations"):
        reasons.append("no operation was run")
    return reasons + _unsure(result)


def _broken(result: dict[str, Any]) -> list[str]:
    """Return the guarantees that the check of a run's history found broken, with etcd's own words."""
    rows = (result.get("check") or {}).get("guarantees") or []
    return [f"{row['name']} is broken: {row['promise']}" for row in rows if row["verdict"] == "fail"]


def _unsure(result: dict[str, Any]) -> list[str]:
    """Return what a run with faults, or its check, left open."""
    chaos, check = result.get("chaos") or {}, result.get("check") or {}
    reasons = [f"round {row['number']}, {row['fault']}: {row['reason']}"
               for row in chaos.get("faults") or [] if row["verdict"] == "unknown"]  # fmt: skip
    reasons += [f"{row['name']} is unknown: {row['reason']}"
                for row in check.get("guarantees") or [] if row["verdict"] == "unknown"]  # fmt: skip
    if chaos.get("stopped_by") and check.get("verdict") != "fail":
        reasons.append(f"it ended early ({chaos['stopped_by']}), and the check found nothing")
    return reasons


def apply(result: dict[str, Any], thresholds: Iterable[Threshold]) -> dict[str, Any]:
    """Return a copy of a result with ``thresholds``, ``verdict`` and ``verdict_reasons`` filled in."""
    judgements = [judge(threshold, result) for threshold in thresholds]
    total = result["results"].get("total") or {}
    failed = [f"{j.expression}: {j.reason}" for j in judgements if j.verdict is Verdict.FAIL]
    unknown = [f"{j.expression}: {j.reason}" for j in judgements if j.verdict is Verdict.UNKNOWN]
    if not judgements and total.get("operations") and not total.get("succeeded"):
        failed.append("every operation failed")
    failed += _broken(result)
    inconclusive = unknown + _inconclusive(result)
    verdict = Verdict.FAIL if failed else Verdict.UNKNOWN if inconclusive else Verdict.PASS
    return {
        **result,
        "thresholds": [
            {
                "expression": j.expression,
                "value": j.value,
                "verdict": j.verdict.value,
                "reason": j.reason or None,
            }
            for j in judgements
        ],
        "verdict": verdict.value,
        "verdict_reasons": failed + inconclusive,
    }


def verdict_code(result: dict[str, Any]) -> int:
    """Return the exit code of a judged result's verdict alone: 0 pass, 1 fail, 3 unknown."""
    return {Verdict.PASS: 0, Verdict.FAIL: 1}.get(result["verdict"], 3)


def exit_code(result: dict[str, Any]) -> int:
    """Return the exit code of the run that a judged result is of.

    130 or 143 where SIGINT or SIGTERM ended it, else that of its verdict: 1 fail, 3 unknown, 0 pass. The
    codes that come before these (70 our bug, 2 usage, 4 environment) are never a result's.
    """
    interrupted = result.get("interrupted")
    if interrupted in ("SIGINT", "SIGTERM"):
        return 128 + signal.Signals[interrupted]
    return verdict_code(result)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``raftload gate`` to a parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Judge a finished run by thresholds and exit with the verdict: "
        "0 pass, 1 fail, 3 unknown (no samples, a saturated generator, a lost worker)."
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="?",
        default="latest",
        help="run folder, result.json, or 'latest': the newest folder in ./runs (the default)",
    )
    parser.add_argument(
        "--threshold",
        metavar="EXPR",
        action="append",
        help="<type>.<field> <operator> <number>, such as 'put.p99_ms < 50'; may be repeated; "
        "without it, the thresholds that the run was started with",
    )
    parser.add_argument("--junit", metavar="FILE", help="write the verdicts as JUnit XML too")
    parser.add_argument("--json", action="store_true", help="print the judged result document")
    parser.epilog = f"""\
types:     {", ".join(TYPES)}
fields:    {", ".join(LATENCY_FIELDS)},
           {", ".join((*COUNT_FIELDS, *RATE_FIELDS))};
           in an open loop also service.p99_ms and so on
operators: {" ".join(OPERATORS)}

examples:
  raftload gate latest --threshold 'put.p99_ms < 50' --threshold 'total.success_rate >= 0.999'
  raftload gate runs/20260102T030405Z-kv --threshold 'get.throughput_ops_s > 2000' --junit gate.xml

Where $GITHUB_STEP_SUMMARY is set, a Markdown table of the verdicts is appended to that file.
"""


def main(args: argparse.Namespace) -> int:
    """Run ``raftload gate``: print the verdicts and return the exit code."""
    from loadgen import junit, report, table

    try:
        result = report.load(args.run)
        expressions = args.threshold or [threshold["expression"] for threshold in result["thresholds"]]
        result = apply(result, [Threshold.parse(text, result["results"].keys()) for text in expressions])
        if args.junit:
            junit.write(result, args.junit)
        junit.append_step_summary(result)
    except (report.ReportError, ThresholdError) as exc:
        print(f"raftload: error: {exc}", file=sys.stderr)
        return 2
    except OSError as exc:
        print(f"raftload: error: {exc.filename}: cannot be written: {exc.strerror}", file=sys.stderr)
        return 2
    if not result["thresholds"]:
        print("raftload: hint: no threshold was given; judged by whether the run is sound", file=sys.stderr)
    if args.json:
        report.print_json(result)
    else:
        color = table.wants_color(sys.stdout)
        print(table.render_verdict(result, color=color, width=table.terminal_width()))
    return verdict_code(result)
