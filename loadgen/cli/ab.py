"""`raftload ab`: two versions, settings or clusters by many short turns, and which of them is slower."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.base import units
from cluster.base.console import say, terminal_width
from cluster.base.files import writing
from cluster.base.security import masked
from cluster.base.signals import EXIT_CODES
from loadgen.ab import by_turns
from loadgen.ab.by_turns import DEFAULT_PAIRS, DEFAULT_TURN_S, DEFAULT_WARMUP_S, AbHooks, Side, Sides
from loadgen.ab.turns import RATE, SIDES, SideName
from loadgen.cli import comparison
from loadgen.cli.terminal import Terminal
from loadgen.compare.verdict import TOO_NOISY, Word, change, parse_share
from loadgen.load import scenarios, settings
from loadgen.load.settings import SettingsError
from loadgen.run import Plan, TargetOptions, WorkerOptions, run_folder, target, worker_options

if TYPE_CHECKING:
    from cluster.schema.compare_documents import Compared
    from loadgen.run.run import Run

EXAMPLES = """\
examples:
  raftload ab --etcd 3.5.30 --etcd 3.6.14            is 3.6.14 slower than 3.5.30? (both after
                                                     `raftload etcd get`)
  raftload ab --connections 1 --connections 4        the same etcd, two settings of the load
  raftload ab --endpoints 10.0.0.1:2379 --endpoints 10.0.1.1:2379 --pairs 30
  raftload ab --nodes 3 --nodes 5 --mix put=1 --rate 500 --turn 4s

An option that is given twice has two values: the first is BASE's, the second NEW's. That goes for each option of the
load, --concurrency, --etcd, --nodes and --endpoints. What is given once goes for both. Where no option is given twice,
the sides are the same, and nothing but chance tells them apart.

Each pair has a turn of BASE and one of NEW, in an order that a coin says. Without --endpoints each pair has two new
clusters, which are both up for both turns. The first pair warms up and does not count. The verdict comes from sign
flips of the pairs' differences; see docs/numbers.md.

exit codes:
  0 NEW is faster or the same   1 slower   2 usage   3 cannot tell   4 environment (cluster unreachable)
  70 a bug in raftload          130 SIGINT, 143 SIGTERM (the pairs until then are judged)
"""
TWICE = frozenset({"endpoints", "etcd", "nodes", "concurrency", *(each.name for each in settings.PARAMETERS)}) - {
    "seed"
}
"""The options that may be given twice, as the names of their values."""
PAGE = "report.html"
# Who is told to run as many pairs more looks for another way.
_MANY_PAIRS = 100


class _MaybeTwice(argparse.Action):
    """Stores the first value of an option where every command has it, and the second one in ``second`` by its name."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        given: set[str] = namespace.given
        if self.dest not in given:
            namespace.given = given | {self.dest}
            setattr(namespace, self.dest, values)
        elif self.dest not in TWICE:
            parser.error(f"argument {option_string}: it is the same for both sides; give it once")
        elif self.dest in namespace.second:
            parser.error(f"argument {option_string}: there are two sides; give it once or twice")
        else:
            namespace.second = namespace.second | {self.dest: values}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `raftload ab`."""
    parser.description = (
        "Compare two versions of etcd, two settings or two clusters: load them by many short turns, so that the "
        "machine's drift meets both, and say whether NEW is slower than BASE."
    )
    # What says nothing else of how it is stored may come twice; groups take over what their parser knows.
    parser.register("action", None, _MaybeTwice)
    parser.set_defaults(given=frozenset(), second={})
    target.add_arguments(parser)
    group = parser.add_argument_group("load")
    scenarios.add_arguments(group)
    group.add_argument(
        "--concurrency", default="10", metavar="N",
        help="users over all workers; each has one operation in flight at a time (default: 10)",
    )  # fmt: skip
    for action in settings.add_arguments(group):
        own = {
            "operations": ("", "operations of each turn, in place of --turn"),
            "warmup": (units.duration_text(DEFAULT_WARMUP_S), "load at the begin of each turn that is not measured"),
            "seed": ("1", "seed of the random choice of operations, keys and values, and of who goes first in a pair"),
        }.get(action.dest)
        if own is not None:
            action.default, text = own
            action.help = f"{text} (default: {action.default})" if action.default else text
    worker_options.add_arguments(parser.add_argument_group("workers"))
    group = parser.add_argument_group("pairs")
    group.add_argument(
        "--pairs", default=str(DEFAULT_PAIRS), metavar="N",
        help=f"number of pairs of turns that count; one more warms up (default: {DEFAULT_PAIRS})",
    )  # fmt: skip
    group.add_argument(
        "--turn", metavar="DURATION",
        help=f"length of each turn, its warm-up apart (default: {units.duration_text(DEFAULT_TURN_S)})",
    )  # fmt: skip
    group = parser.add_argument_group("result")
    group.add_argument(
        "--within", default="5%", metavar="SHARE",
        help="share by which figures may differ and are the same, such as 5%% or 0.05 (default: 5%%)",
    )  # fmt: skip
    group.add_argument(
        "--figure", metavar="PATTERN", action="append", default=[],
        help="figure to judge, such as put.p99_ms, 'total.*' or '*.p99_ms'; may be repeated; fewer figures take fewer "
        "pairs (default: p50_ms, p99_ms, p99_9_ms and throughput_ops_s of each type and of the total)",
    )  # fmt: skip
    group.add_argument("--output", type=Path, metavar="DIR", help="folder to write (default: runs/<time>-ab)")
    comparison.add_answering(group)
    group.add_argument("--dry-run", action="store_true", help="print the plan, and neither load nor write")


def main(args: argparse.Namespace) -> int:
    """Run a comparison. Returns the exit code; raises what `cluster.base.exits` turns into a message and a code."""
    from viz.report import verdict_page

    pairs = settings.read("pairs", args.pairs, units.parse_whole, 1, 10_000)
    within = settings.read("within", args.within, parse_share)
    comparison.check_files(args)
    workers = WorkerOptions.from_arguments(args)
    command = masked(sys.argv, args)
    second = argparse.Namespace(**{**vars(args), **args.second})
    sides = by_turns.checked(
        Sides(_side(args, command), _side(second, command)), workers, scenarios.check(args.scenario)
    )
    folder = run_folder.planned("ab", args.output)
    if args.dry_run:
        _print_plan(sides, pairs, workers, args.scenario, folder)
        return 0
    if not args.second:
        say("hint: BASE and NEW are the same: give an option twice, such as --etcd (see --help)")
    with run_folder.for_a_run(folder, exact=args.output is not None, say=say) as folder, _AbTerminal() as terminal:
        judging = by_turns.Judging(pairs, within, tuple(args.figure))
        document = by_turns.run_in(folder, sides, judging, workers, args.scenario, terminal)
    with writing(folder / PAGE):
        verdict_page.write(document, folder / PAGE)
    code = comparison.answer(args, document)
    if ways := _fewer_pairs(document, sides, args.figure):
        say(f"hint: fewer pairs may tell with {ways}")
    say(f"folder {folder}")
    return EXIT_CODES.get(terminal.stopped_by or "", code)


class _AbTerminal(Terminal, AbHooks):
    """Says which turn goes on and what the pairs tell so far. The first signal ends the turn, and no other begins."""

    def __init__(self) -> None:
        super().__init__()
        self._where, self._estimate = "", ""

    def load_begins(self, stop: Callable[[str], None]) -> None:
        """Have a signal end the turn, and all after it."""

        def ask(name: str) -> None:
            self._note(name)
            stop(name)

        super().load_begins(ask)
        if self.stopped_by:  # since the turn before
            stop(self.stopped_by)

    def load_ended(self) -> None:
        """Have a signal wait until what is under way is done: the turn's results, a cluster's start or end."""
        super().load_ended()
        assert self._signals is not None
        self._signals.gently = self._signals.again = self._note

    def _note(self, name: str) -> None:
        self.stopped_by = self.stopped_by or name

    def turn_begins(self, pair: int, pairs: int, side: SideName) -> None:
        """Note what the progress line says next."""
        self._where = f"pair {pair} of {pairs}" if pair else "warm-up"
        self._where += f", {side.upper()}"

    def pair_done(self, pair: int, pairs: int, document: Compared) -> None:
        """Note what the pairs say until now; where there is no progress line, say it."""
        self._estimate = _estimate(document)
        if not self._line.live and pair:
            say(f"pair {pair} of {pairs}: {self._estimate}")

    def tick(self, run: Run) -> None:
        """Draw the progress line anew."""
        if self._line.is_due():
            rate = run.stats.total.num_requests / run.elapsed_s if run.elapsed_s > 0 else 0.0
            self._line.draw(f"{self._where}   {rate:,.0f}/s   {self._estimate}"[: terminal_width() - 1])


def _estimate(document: Compared) -> str:
    """Return what a comparison that goes on estimates: ``NEW total.p50_ms +3.1 %, total.p99_ms -0.4 %``."""
    rows = {row["name"].rpartition(".")[2]: row for row in document["figures"]}
    shown = [rows[field] for field in ("p50_ms", "p99_ms", RATE) if field in rows]
    return "NEW " + ", ".join(f"{row['name']} {change(row['ratio'])}" for row in shown) if shown else ""


def _fewer_pairs(document: Compared, sides: Sides, figures: Sequence[str]) -> str:
    """Return what has a comparison need fewer pairs that would take a hundred more or too many; empty for none.

    Takes the patterns of the figures that were judged, none for all.
    """
    many = document["more"] is not None and document["more"]["new"] >= _MANY_PAIRS
    if Word(document["verdict"]) is not Word.CANNOT_TELL or not (many or TOO_NOISY in document["words"]):
        return ""
    ways = []
    if any(sides[name].plan.settings.schedule() is None for name in SIDES):
        ways.append("a --rate that leaves processors idle, since a full load's turns differ more")
    if not figures:
        ways.append("--figure of what matters to you, such as total.p50_ms")
    return "; or ".join(ways)


def _side(args: argparse.Namespace, command: Sequence[str]) -> Side:
    """Return what one side's options say. Raises as `raftload bench` does."""
    cluster = TargetOptions.from_arguments(args)
    users = settings.read("concurrency", args.concurrency, units.parse_whole, 1, 100_000)
    load = settings.Settings.from_options(vars(args), cluster.endpoints)
    if args.turn is not None:
        if load.operations is not None or load.stages or load.step:
            others = ["--operations", "--stages", "--step"]
            raise SettingsError(
                f"--turn excludes {', '.join(others)}: they say how long a turn is", option="--turn", others=others
            )
        load = dataclasses.replace(load, duration_s=settings.read("turn", args.turn, units.parse_duration, 0.1, 3600))
    return Side(Plan(load, users, command=tuple(command)), cluster)


def _print_plan(sides: Sides, pairs: int, workers: WorkerOptions, scenario: str, folder: Path) -> None:
    lines: dict[str, str] = {}
    for name in SIDES:
        plan, cluster = sides[name].plan, sides[name].target
        load = plan.settings
        much = f"{load.operations:,} operations" if load.operations else units.format_duration(load.duration_s or 0)
        mix = scenarios.describe(scenario, settings.format_mix(load.mix))
        lines[name.upper()] = f"{cluster.describe()}; turns of {much} of {mix} by {plan.users} users"
    differing = (f"{key}: {a or '-'} and {b or '-'}" for key, (a, b) in by_turns.differences(sides).items())
    lines |= {
        "differs": "; ".join(differing) or "nothing",
        "pairs": f"{pairs}, and one that warms up",
        "workers": workers.describe(),
        "folder": str(folder),
    }
    with writing("to stdout"):
        for label, value in lines.items():
            print(f"{label + ':':<9}{value}")
