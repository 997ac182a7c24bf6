"""`raftload capacity`: the highest rate at which thresholds hold, from its command line to its exit code."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base import units
from cluster.base.console import say, terminal_width
from cluster.base.security import masked
from loadgen.capacity.found import WORDS, render
from loadgen.capacity.measure import DEFAULT_LIMIT_S, CapacityHooks, CapacityPlan, capacity_in
from loadgen.cli.terminal import Terminal, finish
from loadgen.load import pacing, scenarios, settings
from loadgen.run import TargetOptions, WorkerOptions, guard, run_folder, target, worker_options

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result
    from loadgen.capacity.search import Stay
    from loadgen.capacity.seen import Seen
    from loadgen.capacity.steering import Steering
    from loadgen.run.run import Run

# Settings that the search has in its own hands, or that a load without an end has no use for.
_OWN = frozenset({"operations", "rate", "stages", "step", "warmup_s"})

EXAMPLES = """\
how it works:
  An open loop begins at --start-rate and doubles until a threshold breaks, or goes down where one does at once. Then
  the bracket between the highest rate that holds and the lowest that does not is halved until it is as narrow as
  --precision. A sequential test decides after each half second whether a rate holds, breaks, or needs more time; so a
  clear case takes two seconds, and a close one ten. After a rate that broke a threshold the load is low until the
  backlog is gone. Both ends are measured again, the lower one for ten seconds or more. The report says what gave way
  first: the cluster's disk, its CPU, the whole of it (overload), or the load generator (client). Where it was the
  generator, the answer is a lower bound.

thresholds:
  a percentile of a latency   put.p99_ms < 20   total.p99_9_ms < 100   put.service.p99_ms < 5: from sending
  a share of successes        total.success_rate >= 0.999
  An operation that failed or was not sent has not come back in time either, so it counts against a latency, too.

examples:
  raftload capacity --slo 'put.p99_ms < 20' --slo 'total.success_rate >= 0.999'
  raftload capacity --slo 'get.p99_ms < 5' --mix get --read-consistency serializable --nodes 1
  raftload capacity --slo 'total.p99_ms < 50' --endpoints 10.0.0.1:2379 --destructive --max-rate 5000
  raftload capacity --slo 'put.p99_ms < 20' --json | jq '.capacity | {rate, low, high}'

exit codes:
  0 found   1 not even the lowest rate holds   2 usage   3 inconclusive (a lower bound, not sure, or no answer in time)
  4 environment (cluster unreachable)   70 a bug in raftload   130 SIGINT, 143 SIGTERM (what was found is kept)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `raftload capacity`."""
    parser.description = (
        "Find the highest rate of an open loop at which thresholds hold, the rates next to it that were seen to hold "
        "and to break, and what gives way first."
    )
    group = parser.add_argument_group("search")
    group.add_argument(
        "--slo", action="append", default=[], metavar="EXPR",
        help="threshold that has to hold, such as 'put.p99_ms < 20' or 'total.success_rate >= 0.999'; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--start-rate", default="100", metavar="R", help="operations per second to begin with (default: 100)"
    )
    group.add_argument(
        "--precision", default="2", metavar="PERCENT",
        help="how far the highest rate that holds and the lowest that breaks may be apart, in percent (default: 2)",
    )  # fmt: skip
    group.add_argument(
        "--time-limit", default=f"{DEFAULT_LIMIT_S / 60:g}m", metavar="DURATION",
        help="time of load after which the search ends, and says what held and what broke by then "
        f"(default: {DEFAULT_LIMIT_S / 60:g}m)",
    )  # fmt: skip
    guard.add_arguments(group)
    target.add_arguments(parser)
    scenarios.add_arguments(parser.add_argument_group("load"))
    worker_options.add_arguments(parser.add_argument_group("workers"))
    group = parser.add_argument_group("operations")
    group.add_argument(
        "--concurrency", default="10", metavar="N",
        help="users at the beginning, over all workers; more are started as needed (default: 10)",
    )  # fmt: skip
    settings.add_arguments(group, without=_OWN)
    group = parser.add_argument_group("result")
    group.add_argument(
        "--output", type=Path, metavar="DIR", help="run folder to write (default: runs/<time>-<scenario>)"
    )
    group.add_argument("--json", action="store_true", help="print the result document instead of a table")
    group.add_argument("--keep", action="store_true", help="leave the run's keys in the cluster")


def main(args: argparse.Namespace) -> int:
    """Look for a capacity. Returns the exit code; raises what `cluster.base.exits` turns into a message and a code."""
    cluster = TargetOptions.from_arguments(args)
    permitted = guard.Guard.from_arguments(args)
    workers = WorkerOptions.from_arguments(args)
    workers.check_target(cluster.endpoints)
    plan = _plan(args, cluster, permitted)
    plan.check(cluster, args.scenario)
    say(f"note: {permitted.permit(cluster, 'capacity', most_bytes(plan, args.scenario))}")
    planned = run_folder.planned(scenarios.check(args.scenario), args.output)
    with run_folder.for_a_run(planned, exact=args.output is not None, say=say) as folder, _Terminal() as terminal:
        try:
            result = capacity_in(folder, plan, cluster, workers, args.scenario, terminal)
        except run_folder.IncompleteFolderError as error:
            finish(folder, error.result, args.json, partial(_render, folder=folder), complete=False)
            raise
    return finish(folder, result, args.json, partial(_render, folder=folder))


def _plan(args: argparse.Namespace, cluster: TargetOptions, permitted: guard.Guard) -> CapacityPlan:
    """Return what to find. Raises SettingsError."""
    load = settings.Settings.from_options(vars(args), cluster.endpoints)
    return CapacityPlan(
        slos=tuple(args.slo),
        settings=load,
        users=settings.read("concurrency", args.concurrency, units.parse_whole, 1, 100_000),
        start_rate=settings.read("start-rate", args.start_rate, pacing.parse_rate, 1, 1e6),
        max_rate=permitted.max_rate,
        precision=settings.read("precision", args.precision.strip().removesuffix("%"), units.parse_number, 0.5, 50)
        / 100,
        limit_s=settings.read("time-limit", args.time_limit, units.parse_duration, 5, 86_400),
        keep=args.keep,
        command=masked(sys.argv, args),
    )


def most_bytes(plan: CapacityPlan, scenario: str) -> int | None:
    """Return how many bytes of keys and values the search writes at the most; None without a bound on its rate.

    Takes the scenario. Of one that does not go by --mix each operation may be a write, unless it only reads.
    """
    from loadgen.client.kv import WRITES_NOTHING

    load = plan.settings
    if plan.max_rate is None:
        return None
    types = scenarios.types(scenario, load.mix)
    if types is not None and WRITES_NOTHING.issuperset(types):
        writes = 0.0
    elif types is None or scenario in scenarios.TYPES:
        writes = 1.0
    else:
        writes = sum(weight for f, weight in load.mix.items() if f not in WRITES_NOTHING) / sum(load.mix.values())
    return round(plan.max_rate * plan.limit_s * writes * (load.key_size + load.value_size))


def _render(result: Result, *, color: bool, width: int = 100, folder: Path | None = None) -> str:
    from loadgen.result import table

    capacity = result.get("capacity")
    head = "" if capacity is None else render(capacity)
    return f"{head}\n\n{table.render(result, color=color, width=width, folder=folder)}"


class _Terminal(Terminal, CapacityHooks):
    """A line for each rate that was decided, and the present bracket in a line that is drawn anew."""

    def __init__(self) -> None:
        super().__init__()
        self._told = 0

    def searching(self, run: Run, steering: Steering) -> None:
        """Tell how far the search is."""
        search = steering.search
        for number, stay in enumerate(search.stays[self._told :], self._told):
            if stay.decision is None:
                break
            self._told = number + 1
            self.clear()
            self.say(_said(stay, steering.seen.get(number)))
        if self._line.is_due():
            self._line.draw(_progress(run, steering)[: terminal_width() - 1])


def _said(stay: Stay, seen: Seen | None) -> str:
    """Return what came of a stay: ``1,600/s breaks (p99 45.1 ms, 1.0 s)``."""
    p99 = seen.percentile_ms(0.99) if seen is not None else None
    shown = "no answer" if p99 is None else f"p99 {p99:,.2f} ms"
    word = WORDS[stay.decision.value] if stay.decision is not None else "cut short"
    looks = "" if stay.is_sure else "looks as if it "
    return f"{stay.rate:,.0f}/s {looks}{word} ({shown}, {stay.seconds:.1f} s)"


def _progress(run: Run, steering: Steering) -> str:
    """Return how far a search is: ``holds 1,200/s   breaks 1,600/s   narrowing: 1,386/s   p99 4.20 ms   12 s``."""
    search = steering.search
    _, seen = steering.now()
    p99 = seen.percentile_ms(0.99) if seen is not None else None
    parts = [
        "" if search.low is None else f"holds {search.low:,.0f}/s",
        "" if search.high is None else f"breaks {search.high:,.0f}/s",
        "" if search.rate is None else f"{search.phase.value}: {search.rate:,.0f}/s",
        "" if p99 is None else f"p99 {p99:,.2f} ms",
        f"{run.elapsed_s:.0f} s",
    ]
    return "   ".join(part for part in parts if part)
