"""`raftload gate`: the verdict of thresholds on a finished run."""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.console import say, show
from cluster.base.errors import UsageError
from cluster.base.files import writing
from loadgen.cli import comparison
from loadgen.cli.run_argument import WHAT_LATEST_IS, find
from loadgen.result import document, gate, junit, table
from loadgen.result.threshold import (
    COUNT_FIELDS,
    LATENCY_FIELDS,
    OPERATORS,
    RATE_FIELDS,
    TYPES,
    Threshold,
    known_causes,
)

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``raftload gate`` to a parser."""
    parser.description = (
        "Judge a finished run by thresholds and exit with the verdict: "
        "0 pass, or none without a threshold, 1 fail, 3 unknown (no samples, a lost worker, a bound that was broken "
        "while the generator was saturated). With --baseline, judge runs by earlier ones instead: 0 the same or "
        "faster, 1 slower, 3 cannot tell; see `raftload compare`."
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="*",
        help=f"run folder, a result.json, or {WHAT_LATEST_IS} (the default); with --baseline, several of them",
    )
    parser.add_argument(
        "--threshold",
        metavar="EXPR",
        action="append",
        help="bound to judge by: <type>.<field> <operator> <number>, such as 'put.p99_ms < 50'; may be repeated "
        "(default: the thresholds that the run was started with)",
    )
    parser.add_argument(
        "--baseline",
        metavar="RUN",
        action="extend",
        nargs="+",
        help="runs of what was before, one or several: fail where RUN is slower than these; may be repeated; without "
        "thresholds; with several of them RUN has no default",
    )
    parser.add_argument("--junit", metavar="FILE", help="also write the verdicts to FILE as JUnit XML")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the result document with its verdicts, or the comparison, instead of a table",
    )
    comparison.add_judging(parser)
    comparison.add_answering(parser, json=False, junit=False)
    parser.epilog = f"""\
types:     {", ".join(TYPES)}
fields:    {", ".join(LATENCY_FIELDS)},
           {", ".join((*COUNT_FIELDS, *RATE_FIELDS))};
           and in an open loop each latency from sending: service.p99_ms and so on;
           errors.CAUSE for the failures of one cause, by etcd's name of the error: errors.NoSpace
operators: {" ".join(OPERATORS)}

examples:
  raftload gate latest --threshold 'put.p99_ms < 50' --threshold 'total.success_rate >= 0.999'
  raftload gate latest --threshold 'put.errors.NoSpace == 0'
  raftload gate runs/20260102T030405Z-kv --threshold 'get.throughput_ops_s > 2000' --junit gate.xml
  raftload gate new/* --baseline base/* --figure 'total.*' --html compared.html

If $GITHUB_STEP_SUMMARY is set, a Markdown table of the verdicts is appended to the file that it names.
"""


def _causes(result: Result) -> list[str] | None:
    """Return what a threshold on a result may count failures by; None for anything, as requests of plain Locust are."""
    if result["generator"] is None:
        return None
    found = (row["errors"] or () for row in result["results"].values() if row is not None)
    return [*known_causes(), *(cause for causes in found for cause in causes)]


def main(args: argparse.Namespace) -> int:
    """Run ``raftload gate``: print the verdicts and return the exit code.

    Raises UsageError, and FileError where a file cannot be written.
    """
    runs = args.run or [document.LATEST]
    if args.baseline:
        if args.threshold:
            raise UsageError("--threshold and --baseline are two questions: call gate once for each")
        if not args.run and len(args.baseline) > 1:
            # One of them may be meant.
            raise UsageError(
                "which RUN is judged? what follows --baseline is all baselines; name RUN before it, such as "
                f"raftload gate latest --baseline {args.baseline[0]} ..."
            )
        comparison.check_files(args)
        return comparison.answer(args, comparison.judged(args, args.baseline, runs))
    if others := [option for option in ("within", "figure", "allow_contended", "allow_other_load", "html")
                  if getattr(args, option)]:  # fmt: skip
        raise UsageError(f"--{others[0].replace('_', '-')} goes with --baseline")
    if len(runs) > 1:
        raise UsageError("give one run to judge by thresholds, or --baseline to compare several with earlier ones")
    (run,) = runs
    if args.junit and Path(args.junit).is_dir():
        raise UsageError(f"--junit {args.junit} is a folder; name a file")
    if args.junit and not Path(args.junit).absolute().parent.is_dir():
        raise UsageError(f"--junit {args.junit}: there is no folder {Path(args.junit).parent}")
    result = document.load(run if Path(run).exists() else str(find(run)))
    expressions = args.threshold or [threshold["expression"] for threshold in result["thresholds"]]
    types, causes = result["results"].keys(), functools.partial(_causes, result)
    result = gate.apply(result, [Threshold.parse(text, types, causes) for text in expressions])
    if args.junit:
        with writing(args.junit):
            junit.write(result, args.junit)
    if summary := os.environ.get(junit.STEP_SUMMARY):
        with writing(summary):
            appended = junit.append_step_summary(result)
        if not appended:
            say(junit.SUMMARY_IS_FULL.format(summary))
    if not result["thresholds"] and not result.get("perf"):
        say("hint: there is no threshold to judge the run by; give one with --threshold")
    show(result, args.json, table.render_verdict)
    return gate.verdict_code(result)
