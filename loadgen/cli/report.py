"""`raftload report`: a finished run once more, as a table, as JSON, as an HTML page; or two runs side by side."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.console import print_json, say, show, wants_color
from cluster.base.files import writing
from loadgen.ab import folder as ab_folder
from loadgen.cli.run_argument import WHAT_LATEST_IS, find
from loadgen.result import document
from loadgen.result.document import ReportError

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result

EXAMPLES = """\
examples:
  raftload report latest
  raftload report runs/20260102T030405Z-kv --json | jq -r '.results.put.latency.p99_ms'
  raftload report latest --html                         writes report.html into the run folder again
  raftload report runs/before runs/after --html compared.html
  raftload report latest --plots plots --plot-format svg
  locust -f mine.py --headless --csv out/mine && raftload report --csv out/mine --json
  raftload report --csv requests_1600000000.12.csv      a download from Locust's web page

exit codes:
  0 shown   2 usage, or a run folder that cannot be read   4 environment (a file cannot be written, no matplotlib)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `raftload report` to a parser."""
    parser.description = (
        "Show a finished run as a table, after its result.json has been built again from its CSV files and run.json. "
        "With two run folders, compare the two runs and change neither folder."
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="*",
        help=f"run folder or folder of `raftload ab`, or {WHAT_LATEST_IS} (the default); two run folders to compare",
    )
    parser.add_argument(
        "--csv",
        metavar="PREFIX",
        help="show the Locust run that wrote PREFIX_stats.csv and PREFIX_failures.csv, or the file of requests that "
        "PREFIX is, such as one that its web page gave; nothing is written",
    )
    parser.add_argument("--json", action="store_true", help="print the result document instead of a table")
    parser.add_argument("--all", action="store_true", help="of two runs, print every figure, not only what differs")
    parser.add_argument(
        "--html",
        nargs="?",
        const="",
        metavar="FILE",
        help="write one HTML page with charts, which needs no network (default FILE: report.html in the run folder; "
        "for two runs ./comparison.html)",
    )
    parser.add_argument(
        "--plots", metavar="DIR", help="write each chart as a file into DIR (needs `pip install raftload[plots]`)"
    )
    parser.add_argument(
        "--plot-format", choices=("png", "svg", "pdf"), default="png", help="format of --plots (default: png)"
    )


def main(args: argparse.Namespace) -> int:
    """Run `raftload report`. Returns 0; raises UsageError where there is no such run or it is broken, and RaftloadError
    where a file cannot be written.

    The run's own verdict is `raftload gate`'s business and does not show in the exit code.
    """
    _check(args)
    if len(args.run) == 2:
        _compare(args)
        return 0
    folder = None if args.csv is not None else find(args.run[0] if args.run else document.LATEST)
    if folder is not None and (folder / ab_folder.COMPARED).is_file():
        _show_turns(args, folder)
    else:
        _show(args, folder)
    return 0


def _check(args: argparse.Namespace) -> None:
    if len(args.run) > 2:
        raise ReportError("give one run to show, or two to compare")
    if args.csv is not None and (args.run or args.html is not None or args.plots is not None):
        raise ReportError("--csv is for a plain Locust run, which has no run folder, --html or --plots")
    if args.all and len(args.run) < 2:
        raise ReportError("--all is for two runs to compare")
    if args.html and Path(args.html).is_dir():
        raise ReportError(f"--html {args.html} is a folder; write RUN before --html, and a file's name after it")
    if args.html and not Path(args.html).absolute().parent.is_dir():
        raise ReportError(f"--html {args.html}: there is no folder {Path(args.html).parent}")


def _show(args: argparse.Namespace, folder: Path | None) -> None:
    from loadgen.result import table

    if folder is None:
        result = document.from_csv(args.csv)
    else:
        with writing(folder / "result.json"):
            result = document.write(folder)
    for note in result["notes"]:
        say(f"hint: {note}")
    show(result, args.json, partial(table.render, folder=folder))
    if folder is not None:
        _write_pictures(args, folder, result)


def _show_turns(args: argparse.Namespace, folder: Path) -> None:
    """Show what `raftload ab` has left in its folder; its turns' folders, below it, are those of runs."""
    from loadgen.compare import figure_table
    from viz.report import page, verdict_page

    if args.plots is not None:
        raise ReportError(f"{folder} is a comparison by turns, which has no --plots: name one of its turns")
    compared = ab_folder.load(folder)
    show(compared, args.json, figure_table.render)
    if args.html is not None:
        path = Path(args.html) if args.html else folder / page.NAME
        with writing(path):
            verdict_page.write(compared, path)
        say(f"wrote {path}")


def _write_pictures(args: argparse.Namespace, folder: Path, result: Result) -> None:
    from viz.report import page

    if args.html is not None:
        path = Path(args.html) if args.html else folder / page.NAME
        with writing(path):
            page.write(folder, path, result)
        say(f"wrote {path}")
    if args.plots is not None:
        from viz.report import plots, rundata

        with writing(args.plots):
            paths = plots.write(rundata.load(folder, result), Path(args.plots), args.plot_format)
        say(f"wrote {', '.join(str(path) for path in paths)}")


def _compare(args: argparse.Namespace) -> None:
    from viz.report import compare, rundata

    if args.plots is not None:
        raise ReportError("--plots is for one run; for charts of two, use --html")
    folders = [find(name) for name in args.run]
    a, b = (rundata.load(folder, document.build(folder)) for folder in folders)
    if args.json:
        print_json(compare.document(a, b))
    else:
        text = compare.text(a, b, color=wants_color(sys.stdout), every=args.all)
        with writing("to stdout"):
            print(text)
    if args.html is not None:
        path = Path(args.html or compare.NAME)
        with writing(path):
            compare.write(a, b, path)
        say(f"wrote {path}")
