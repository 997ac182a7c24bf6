"""`raftload bench`: the main job, one headless distributed run from its command line to its exit code."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from functools import partial
from pathlib import Path

from cluster.base import units
from cluster.base.console import say
from cluster.base.files import writing
from cluster.base.security import masked
from loadgen.cli import meanwhile
from loadgen.cli.terminal import Terminal, finish
from loadgen.load import scenarios, settings
from loadgen.result import table
from loadgen.run import Plan, TargetOptions, WorkerOptions, run_folder, target, worker_options
from loadgen.run.benchmark import bounded, check_history, check_load, check_own_thresholds, check_thresholds, run_in

EXAMPLES = """\
examples:
  raftload bench                                     1,000 operations on an embedded cluster
  raftload bench --operations 10000 --concurrency 50 --workers 2 --json > b.json
  raftload bench --endpoints 10.0.0.1:2379,10.0.0.2:2379 --duration 30s --mix get=9,put=1
  raftload bench --etcd 3.6.14                       an embedded cluster of etcd 3.6.14, after
                                                     `raftload etcd get 3.6.14`
  raftload bench --rate 2000 --duration 30s          open loop: latency includes a late start
  raftload bench --threshold 'put.p99_ms < 50' --threshold 'total.success_rate >= 0.999'
  raftload bench --duration 1h --abort-on 'total.success_rate < 0.9 for 5s' --metrics-listen :9464

exit codes:
  0 pass   1 a threshold failed, --abort-on ended the run, or every operation failed   2 usage
  3 inconclusive (a worker lost, no samples)   4 environment (cluster unreachable)   70 a bug in raftload
  130 SIGINT, 143 SIGTERM (results are kept)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `raftload bench`."""
    target.add_arguments(parser)
    scenarios.add_arguments(parser.add_argument_group("load"))
    worker_options.add_arguments(parser.add_argument_group("workers"))
    group = parser.add_argument_group("length and size of the run")
    group.add_argument(
        "--duration", metavar="DURATION", help="length of the run, such as 30s or 5m, instead of --operations"
    )
    group.add_argument(
        "--concurrency", default="10", metavar="N",
        help="users over all workers; each has one operation in flight at a time (default: 10)",
    )  # fmt: skip
    settings.add_arguments(group)
    meanwhile.add_arguments(parser)
    group = parser.add_argument_group("result")
    group.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="EXPR",
        help="bound that the run must keep, such as 'put.p99_ms < 50' (see `raftload gate --help`); may be repeated",
    )
    group.add_argument(
        "--allow-rate-miss", action="store_true",
        help="judge an open loop also if it did not reach its rate; without this it is inconclusive (exit code 3)",
    )  # fmt: skip
    group.add_argument(
        "--output", type=Path, metavar="DIR", help="run folder to write (default: runs/<time>-<scenario>)"
    )
    group.add_argument(
        "--history", action="store_true",
        help="record every operation, as sent and as answered, in history/ of the run folder, and what each member "
        "holds at the end, so that `raftload check` can tell whether etcd kept its guarantees",
    )  # fmt: skip
    group.add_argument("--json", action="store_true", help="print the result document instead of a table")
    group.add_argument("--keep", action="store_true", help="leave the run's keys in the cluster")
    group.add_argument("--dry-run", action="store_true", help="print the plan of the run, and neither load nor write")


def main(args: argparse.Namespace) -> int:
    """Run a benchmark. Returns the exit code; raises what `cluster.base.exits` turns into a message and a code."""
    meanwhile.begin(args)
    cluster = TargetOptions.from_arguments(args)
    users = settings.read("concurrency", args.concurrency, units.parse_whole, 1, 100_000)
    workers = WorkerOptions.from_arguments(args)
    workers.check_target(cluster.endpoints)
    load = _settings(args, cluster.endpoints)
    folder = run_folder.planned(scenarios.check(args.scenario), args.output)
    check_load(load, cluster, args.scenario)
    check_thresholds(args.threshold, load, args.scenario, args.abort_on)
    meanwhile.check(args)
    if args.history:
        check_history(load, workers)
    if args.dry_run:
        _check_own_scenario(args, load)
        _print_plan(cluster, load, f"{users} users in {workers.describe()}", folder, args)
        return 0
    plan = Plan(
        load, users, args.keep, masked(sys.argv, args), tuple(args.threshold), args.allow_rate_miss, args.history,
        tuple(args.abort_on), args.metrics_listen, args.otel,
    )  # fmt: skip
    with run_folder.for_a_run(folder, exact=args.output is not None, say=say) as folder, Terminal() as terminal:
        try:
            result = run_in(folder, plan, cluster, workers, args.scenario, terminal)
        except run_folder.IncompleteFolderError as error:
            finish(folder, error.result, args.json, partial(table.render, folder=folder), complete=False)
            raise
    return finish(folder, result, args.json, partial(table.render, folder=folder))


def _check_own_scenario(args: argparse.Namespace, load: settings.Settings) -> None:
    """Hold the thresholds against a scenario of the user's own, whose file says what it runs; other runs do so later.

    Raises ScenarioError, SettingsError and ThresholdError.
    """
    if (args.threshold or args.abort_on) and scenarios.types(args.scenario, load.mix) is None:
        from loadgen.load import keyspace

        classes = scenarios.user_classes(args.scenario)
        check_own_thresholds(args.threshold, keyspace.for_scenario(classes, load), classes, args.abort_on)


def _settings(args: argparse.Namespace, endpoints: tuple[str, ...]) -> settings.Settings:
    """Return what to run and for how long: by operations, by time, or as a schedule says. Raises SettingsError."""
    duration_s = None if args.duration is None else _duration(args)
    load = settings.Settings.from_options(vars(args), endpoints)
    if duration_s is not None and (load.stages or load.step):
        raise settings.SettingsError(
            "--stages and --step say how long the run is; leave out --duration",
            option="--duration", others=["--stages", "--step"],
        )  # fmt: skip
    return bounded(dataclasses.replace(load, duration_s=duration_s), args.scenario)


def _duration(args: argparse.Namespace) -> float:
    if args.operations:
        raise settings.SettingsError(
            "--operations and --duration exclude each other; give one", option="--operations", others=["--duration"]
        )
    try:
        duration_s = units.parse_duration(args.duration)
    except ValueError as error:
        raise settings.SettingsError(f"--duration: {error}", option="--duration") from error
    if duration_s <= 0:
        raise settings.SettingsError(f"--duration must be above 0, not {args.duration}", option="--duration")
    return duration_s


def _print_plan(
    cluster: TargetOptions, load: settings.Settings, by: str, folder: Path, args: argparse.Namespace
) -> None:
    much = f"{load.operations:,} operations" if load.operations else units.format_duration(load.duration_s or 0)
    if (schedule := load.schedule()) is not None:
        due = load.operations or schedule.operations
        length_s = due / load.rate if load.rate else schedule.length_s
        much = f"{due:,} operations due within {units.format_duration(length_s)}"
        by += f", more as needed, {load.max_in_flight:,} operations open at most"
    lines = {
        "target": cluster.describe(),
        "load": f"{much} of {scenarios.describe(args.scenario, settings.format_mix(load.mix))} by {by}",
        "keys": f"{load.key_space:,} keys of {load.key_size} B, values of {load.value_size} B",
        "transport": f"{load.transport}, {load.read_consistency} reads, "
        f"deadline {units.format_duration(load.timeout_s)}, load balancing {load.balance}",
        "security": cluster.security.describe() or "none",
        "scenario": args.scenario,
        "thresholds": "; ".join(args.threshold) or "none",
        **({"ends on": "; ".join(args.abort_on)} if args.abort_on else {}),
        "run folder": str(folder),
    }
    with writing("to stdout"):
        for name, value in lines.items():
            print(f"{name + ':':<12}{value}")
