"""Thresholds over a result, the verdict that follows from them, and the exit code that follows from that.

Unknown is never pass: a threshold without a sample, or one over what the generator distorted, is UNKNOWN,
and so is a run that lost a worker or whose counts do not agree. A threshold that failed has failed all the
same, wherever what is missing could not have saved it. A run that nothing judged has the verdict NONE.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cluster.base.signals import EXIT_CODES
from cluster.base.verdict import NONE, Verdict
from cluster.schema.run_documents import NO_GENERATOR, NO_TARGET
from loadgen.result import abort, perf_table
from loadgen.result.threshold import COUNT_FIELDS, LATENCY_FIELDS, RATE_FIELDS, SERVICE_FIELDS, Threshold

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result, Row, UnjudgedResult


# Of causes in one reason, how many, and characters of each: those of plain Locust can be whole pages.
_MOST_CAUSES, _LONGEST_CAUSE = 3, 100
WORKER_LOST = "a worker was lost, so the load was lower than asked for"
"""Why a throughput that is too low decides nothing."""


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


def judge(threshold: Threshold, result: UnjudgedResult) -> Judgement:
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
    reason = f"{threshold.type}.{threshold.field} is {value:,.10g}"
    if threshold.field in ("failed", "info", "success_rate"):
        reason += _because(result["results"].get(threshold.type))
    return Judgement(str(threshold), value, Verdict.FAIL, reason)


def _because(row: Row | None) -> str:
    """Return the most frequent causes of a row's failures, to be put behind a reason."""
    causes = causes_of(row)
    more = f" and {len(causes) - _MOST_CAUSES} more causes" if len(causes) > _MOST_CAUSES else ""
    return f": {', '.join(causes[:_MOST_CAUSES])}{more}" if causes else ""


def causes_of(row: Row | None) -> list[str]:
    """Return the causes of a row's failures, the most frequent first, each with how many there were: ``7 NoSpace``."""
    errors = (row["errors"] if row is not None else None) or {}
    return [f"{count:,} {cause[:_LONGEST_CAUSE]}" for cause, count in sorted(errors.items(), key=lambda each: -each[1])]


def _value(threshold: Threshold, result: UnjudgedResult) -> tuple[float | None, str]:
    """Return the number that a threshold is about, or None and the reason why there is none."""
    name = threshold.type
    measured = result["results"].get(name)
    if measured is None:
        return None, f"{name} was not run"
    if threshold.cause is not None:
        errors = measured["errors"]
        missing = "no file names the causes of failures"
        return (None, missing) if errors is None else (float(errors.get(threshold.cause, 0)), "")
    if threshold.field in COUNT_FIELDS or threshold.field in RATE_FIELDS:
        return number_in(measured, threshold.field), f"{name}.{threshold.field} was not measured"
    latency = measured["latency"]
    if latency is None:
        return None, f"no {name} succeeded, so there is no latency"
    service = latency.get("service")
    if threshold.field in SERVICE_FIELDS and service is None:
        return None, "service latency is measured in an open loop only"
    value = number_in(
        service if threshold.field in SERVICE_FIELDS else latency, threshold.field.removeprefix("service.")
    )
    return value, f"{name}.{threshold.field} was not measured"


def number_in(row: Mapping[str, object] | None, field: str) -> float | None:
    """Return a number of a row by its field's name; None where the row has none, or is None itself."""
    value = row.get(field) if row is not None else None
    return value if isinstance(value, int | float) else None


def _doubt(threshold: Threshold, value: float, holds: bool, result: UnjudgedResult) -> str:
    """Return why a value does not decide a threshold, or an empty text when it does."""
    field = threshold.field
    if doubt := _distorted(threshold, holds, result):
        return doubt
    if _lost_workers(result) and not holds:
        if field == "throughput_ops_s":
            return WORKER_LOST
        # What a lost worker did not report can only add to a count.
        if threshold.is_count and threshold.operator in (">", ">=", "==") and value <= threshold.bound:
            return "a worker was lost, and its last operations are not counted"
    return ""


def _distorted(threshold: Threshold, holds: bool, result: UnjudgedResult) -> str:
    """Return why a saturated generator, or members that lacked a CPU, leave a threshold open; else an empty text.

    Both only add to a latency. So an upper bound that holds would hold without them; whether another bound would is not
    known. They only take from a throughput, and so from how many operations a run by time has: there it is the lower
    bound that holds for certain. What share of the operations that were run failed, and of what, is as it was counted.
    """
    wait = (result.get("target") or NO_TARGET).get("cpu_wait")
    if (result.get("generator") or NO_GENERATOR).get("saturated"):
        why, whose = "the generator was saturated", "its own"
    elif wait and wait["contended"]:
        why, whose = "the members waited for a CPU", "this machine's"
    else:
        return ""
    field, upper = threshold.field, threshold.operator in ("<", "<=")
    if field in LATENCY_FIELDS or field in SERVICE_FIELDS:
        return "" if holds and upper else f"{why}, so the latency is partly {whose}"
    by_time = field in ("operations", "succeeded") and result["run"].get("operations") is None
    if field == "throughput_ops_s" or by_time:
        lower = threshold.operator in (">", ">=")
        return "" if holds and lower else f"{why}, so the target may be capable of more"
    return ""


def _lost_workers(result: UnjudgedResult) -> list[str]:
    """Return a line for each worker that a run lost, as far as they have names, such as ``worker 2 (pid 4711)``."""
    lost = result.get("lost_workers") or []
    if lost:
        return [
            f"{worker['name']} was lost" + (f": {worker['reason']}" if worker.get("reason") else "") for worker in lost
        ]
    count = (result.get("generator") or NO_GENERATOR).get("workers_lost")
    return [f"{count} worker{'s' if count > 1 else ''} lost"] if count else []


def _inconclusive(result: UnjudgedResult) -> list[str]:
    """Return why a run cannot pass, whatever its thresholds say."""
    reasons = _lost_workers(result)
    if result.get("interrupted"):
        reasons.append(f"the run was interrupted by {result['interrupted']}")
    generator = result.get("generator") or NO_GENERATOR
    if generator.get("rate_reached") is False and not result["run"].get("allow_rate_miss"):
        dropped = f"{generator['dropped']:,} of {generator['scheduled']:,} operations were not sent"
        late = dropped if generator.get("dropped") else "operations were sent too late"
        reasons.append(f"the target rate was not reached: {late}")
    if (capacity := result.get("capacity")) and capacity["verdict"] == Verdict.UNKNOWN:
        reasons.append(str(capacity["reason"]))
    books, total = result.get("books"), result["results"].get("total")
    if books and books.get("balanced") is False:
        reasons.append("the counts do not agree with the store's revision")
    reasons += [str(problem) for problem in result.get("problems") or []]
    if not total or not total["operations"]:
        reasons.append("no operation was run")
    return reasons + _unsure(result)


def _broken(result: UnjudgedResult) -> list[str]:
    """Return the pass marks that were missed, and the guarantees that the check of a run's history found broken.

    What no known bug explains stands first; each known bug is one line.
    """
    check = result.get("check")
    broken = []
    if check:
        failed = [row for row in check["guarantees"] if row["verdict"] == "fail"]
        news = check.get("news", [row["name"] for row in failed])
        broken = [f"{row['name']} is broken: {row['promise']}" for row in failed if row["name"] in news]
        broken += [f"{bug['bug']} is met: {', '.join(bug['guarantees'])}" for bug in check.get("explained", ())]
    return perf_table.reasons(result.get("perf"), Verdict.FAIL) + broken


def _unsure(result: UnjudgedResult) -> list[str]:
    """Return what a run with faults, or its check, left open."""
    chaos, check = result.get("chaos"), result.get("check")
    reasons = perf_table.reasons(result.get("perf"), Verdict.UNKNOWN)
    reasons += [f"round {row['number']}, {row['fault']}: {row['reason']}"
               for row in (chaos["faults"] if chaos else ()) if row["verdict"] == "unknown"]  # fmt: skip
    reasons += [f"{row['name']} is unknown: {row['reason']}"
                for row in (check["guarantees"] if check else ()) if row["verdict"] == "unknown"]  # fmt: skip
    if check and check["verdict"] == "unknown" and not reasons:
        reasons.append("the check of the history judged nothing")
    if chaos and chaos.get("stopped_by") and not (check and check.get("verdict") == "fail"):
        reasons.append(f"it ended early ({chaos['stopped_by']}), and the check found no violation")
    return reasons


def apply(result: UnjudgedResult, thresholds: Iterable[Threshold]) -> Result:
    """Return a copy of a result with ``thresholds``, ``verdict`` and ``verdict_reasons`` filled in."""
    judgements = [judge(threshold, result) for threshold in thresholds]
    total = result["results"].get("total")
    failed = [f"{j.expression}: {j.reason}" for j in judgements if j.verdict is Verdict.FAIL]
    unknown = [f"{j.expression}: {j.reason}" for j in judgements if j.verdict is Verdict.UNKNOWN]
    if not judgements and total and total["operations"] and not total["succeeded"]:
        failed.append(f"every operation failed{_because(total)}")
    if ended := result.get("aborted"):
        failed.append(abort.reason(ended))
    failed += _broken(result)
    capacity = result.get("capacity")
    if capacity and capacity["verdict"] == Verdict.FAIL:
        failed.append(str(capacity["reason"]))
    inconclusive = unknown + _inconclusive(result)
    verdict: str
    if failed:
        verdict = Verdict.FAIL
    elif inconclusive:
        verdict = Verdict.UNKNOWN
    else:
        judged = judgements or result.get("check") or result.get("perf") or capacity
        verdict = Verdict.PASS if judged else NONE
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
        "verdict": str(verdict),
        "verdict_reasons": failed + inconclusive,
    }


def other_reasons(result: Result) -> list[str]:
    """Return the reasons of a judged result's verdict that none of its thresholds and pass marks gives."""
    stated = {f"{threshold['expression']}: {threshold.get('reason')}" for threshold in result["thresholds"]}
    stated |= {each for word in Verdict for each in perf_table.reasons(result.get("perf"), word)}
    return [reason for reason in result.get("verdict_reasons") or [] if reason not in stated]


def verdict_code(result: Result) -> int:
    """Return the exit code of a judged result's verdict alone: 0 pass or none, 1 fail, 3 unknown."""
    return 0 if result["verdict"] == NONE else Verdict(result["verdict"]).exit_code


def exit_code(result: Result) -> int:
    """Return the exit code of the run that a judged result is of.

    130 or 143 where SIGINT or SIGTERM ended it, else that of its verdict: 1 fail, 3 unknown, 0 pass or none. The
    codes that come before these (70 our bug, 2 usage, 4 environment) are never a result's.
    """
    return EXIT_CODES.get(str(result.get("interrupted")), verdict_code(result))
