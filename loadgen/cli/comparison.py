"""What the commands that compare runs have alike: their options, and the answer in all its forms."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.console import say, show
from cluster.base.errors import UsageError
from cluster.base.files import write_bytes, writing
from loadgen.cli.run_argument import find
from loadgen.compare.verdict import Word, parse_share, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.schema.compare_documents import Compared

WITHIN = 0.05


def add_judging(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what of runs is compared, and how."""
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "--within", metavar="SHARE",
        help="share by which a figure may differ and is the same, such as 2%% or 0.02 "
        f"(default: {percent(WITHIN).replace('%', '%%')})",
    )  # fmt: skip
    group.add_argument(
        "--figure", metavar="PATTERN", action="append",
        help="figure to compare, such as put.p99_ms, 'total.*' or '*.p99_ms'; may be repeated; fewer figures take "
        "fewer runs (default: p50_ms, p99_ms, p99_9_ms and throughput_ops_s of each type and of the total)",
    )  # fmt: skip
    group.add_argument(
        "--allow-contended", action="store_true",
        help="count runs that were SATURATED or CONTENDED, too: their latencies are partly the machine's",
    )  # fmt: skip
    group.add_argument(
        "--allow-other-load", action="store_true",
        help="compare runs of another load, too, such as another mix: what differs is then not etcd's alone",
    )  # fmt: skip


def add_answering(parser: argparse._ActionsContainer, *, json: bool = True, junit: bool = True) -> None:
    """Add the options that say in which forms the answer is given; without those that a parser has already."""
    if junit:
        parser.add_argument("--junit", metavar="FILE", help="also write the verdicts to FILE as JUnit XML")
    parser.add_argument(
        "--html", metavar="FILE",
        help="also write one HTML page, with each figure's interval and runs and both distributions",
    )  # fmt: skip
    if json:
        parser.add_argument("--json", action="store_true", help="print the comparison as JSON instead of a table")


def judged(args: argparse.Namespace, base: Sequence[str], new: Sequence[str]) -> Compared:
    """Return the comparison of runs, by their names, as the options say. Raises UsageError."""
    from loadgen.compare import comparison, run_figures

    try:
        within = WITHIN if args.within is None else parse_share(args.within)
    except ValueError as exc:
        raise UsageError(f"--within: {exc}") from exc
    sides = [
        [run_figures.read(name if Path(name).exists() else str(find(name))) for name in names] for names in (base, new)
    ]
    short = [run for side in sides for run in side if run_figures.shortages(run.result)]
    if short and not args.allow_contended:
        say("hint: --allow-contended counts runs on a machine that was short of CPU, too")
    return comparison.compare(
        *sides, within=within, figures=args.figure or (), allow_contended=args.allow_contended,
        allow_other_load=args.allow_other_load,
    )  # fmt: skip


def check_files(args: argparse.Namespace) -> None:
    """Raise UsageError where a file that is to be written cannot be one."""
    for option, name in (("--junit", args.junit), ("--html", args.html)):
        if name and Path(name).is_dir():
            raise UsageError(f"{option} {name} is a folder; name a file")
        if name and not Path(name).absolute().parent.is_dir():
            raise UsageError(f"{option} {name}: there is no folder {Path(name).parent}")


def answer(args: argparse.Namespace, document: Compared) -> int:
    """Give the answer in all forms that are asked for; return its exit code. Raises FileError."""
    from loadgen.compare import figure_table
    from loadgen.result import junit

    if args.junit:
        with writing(args.junit):
            write_bytes(Path(args.junit), figure_table.to_xml(document).encode())
    if args.html:
        from viz.report import verdict_page

        with writing(args.html):
            verdict_page.write(document, Path(args.html))
        say(f"wrote {args.html}")
    if summary := os.environ.get(junit.STEP_SUMMARY):
        with writing(summary):
            if not junit.append_markdown(figure_table.to_markdown(document)):
                say(junit.SUMMARY_IS_FULL.format(summary))
    show(document, args.json, figure_table.render)
    return Word(document["verdict"]).exit_code
