"""`raftload chaos`: load, faults beside it, and a check whether etcd kept its guarantees."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import textwrap
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base import naming
from cluster.base.console import say
from cluster.base.endpoint import read_endpoints
from cluster.base.errors import UsageError
from cluster.base.known_bugs import known_bugs
from cluster.base.naming import add_arguments as add_naming_arguments
from cluster.base.security import Security
from cluster.base.topology import member_names
from cluster.base.units import parse_duration, parse_size, parse_whole
from cluster.faults import plan as rounds
from cluster.faults.kinds import TARGETS
from loadgen.chaos import actors_beside
from loadgen.chaos.actor_kinds import KINDS as ACTOR_KINDS
from loadgen.chaos.bug_recipes import RECIPES
from loadgen.check.rules import select
from loadgen.cli import meanwhile
from loadgen.cli.terminal import Terminal, finish
from loadgen.load import patching, settings
from loadgen.run import Plan, WorkerOptions, exporter, run_folder
from loadgen.run.benchmark import check_thresholds, forked_session

if TYPE_CHECKING:
    from cluster.faults.driver import Backend, Driver, Held
    from cluster.schema.run_documents import Result
    from loadgen.chaos.campaign import CampaignOptions
    from loadgen.chaos.traffic import ShapeFields
    from loadgen.chaos.watch_streams import WatcherFields
    from loadgen.load.settings import Settings
    from loadgen.run.target import Target


def _wrapped(words: Iterable[str]) -> str:
    """Return words with commas between them, in lines of a terminal."""
    return textwrap.fill(", ".join(words), 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


ACTORS = "\n  ".join(f"{kind.name}: {kind.does}" for kind in ACTOR_KINDS.values())
EXAMPLES = f"""\
examples:
  raftload chaos                                     ten faults, one every 3 s, on an embedded cluster
  raftload chaos --faults kill-leader,isolate-random --every 5s --rounds 30 --concurrency 60
  raftload chaos --backend docker                    the same on a cluster of containers
  raftload chaos --track 13766                       reproduce etcd#13766, a bug of etcd 3.5.0 to 3.5.2
  raftload chaos --endpoints 10.0.0.1:2379 --duration 30s    load and check without faults, on keys of one prefix

faults (see `raftload cluster --help`):
{_wrapped(rounds.names_of_kinds())},
  each with one of {", ".join(f"-{target}" for target in TARGETS)};
  or {", ".join(rounds.names_alone())}

actors:
  {ACTORS}

exit codes:
  0 every guarantee was kept   1 one was broken, or --abort-on ended the run   2 usage
  3 inconclusive (too little load, a worker lost)   4 environment (no cluster)   70 a bug in raftload
  130 SIGINT, 143 SIGTERM (what ran is checked)
"""
_DEFAULTS = {
    "nodes": "3", "concurrency": "30", "faults": ",".join(rounds.DEFAULT), "every": "3s", "rounds": "10",
    "compact_every": "2s", "duration": "", "timeout": "5s", "keys": "", "value_size": "32", "storage": "disk",
}  # fmt: skip
_FOREIGN_S = "10s"
_SCENARIO = "consistency"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `raftload chaos`."""

    def add(group: argparse._ArgumentGroup, flag: str, metavar: str, text: str) -> None:
        default = _DEFAULTS.get(flag.lstrip("-").replace("-", "_"))
        group.add_argument(flag, metavar=metavar, help=f"{text} (default: {default})" if default else text)

    group = parser.add_argument_group("target")
    group.add_argument(
        "--backend",
        choices=("embedded", "docker", "local"),
        help="where the faults happen: a cluster of processes for this run (embedded, the default), one "
        "of containers (docker), or the one that `raftload cluster up --backend local` started (local)",
    )
    group.add_argument(
        "--endpoints", metavar="HOST:PORT,…", help="load and check this cluster, without faults and compactions"
    )
    add_naming_arguments(group)
    add(group, "--nodes", "N", "number of members of a cluster for this run")
    group.add_argument(
        "--etcd",
        metavar="VERSION|PATH",
        help="etcd of a cluster for this run: a release that `raftload etcd get` has fetched, such as "
        "3.6.14 (docker: its official image), or the path of a binary (default: as `raftload bench`)",
    )
    group.add_argument("--storage", choices=("disk", "memory"),
                       help="where an embedded cluster keeps its data (default: disk)")  # fmt: skip
    group = parser.add_argument_group("faults")
    group.add_argument("--faults", metavar="A,B,…", help="names of faults, listed below; '' for no faults "
                       f"(default: {','.join(rounds.DEFAULT)})")  # fmt: skip
    add(group, "--every", "DURATION", "time from one fault to the next")
    add(group, "--rounds", "N", "number of faults")
    add(group, "--compact-every", "DURATION", "time from one compaction of the store to the next; 0 for no compactions")
    group.add_argument(
        "--actors", metavar="A,B,…", default="",
        help="clients that do other things beside the load, listed below; 'all' for all of them, or, on a cluster "
        "that was not made for the run, for those that change no users, members, alarms, leaders and disks "
        "(default: none)",
    )  # fmt: skip
    group = parser.add_argument_group("load")
    group.add_argument("--operations", metavar="N", help="end the load after so many operations")
    group.add_argument(
        "--duration",
        metavar="DURATION",
        help="length of the load (default: until the faults are over; 10s with --endpoints)",
    )
    add(group, "--concurrency", "N", "users over all workers")
    group.add_argument("--workers", default="2", metavar="N", help="worker processes to start (default: 2)")
    group.add_argument("--keys", metavar="N", help="number of different keys (default: 100)")
    add(group, "--value-size", "SIZE", "size of a value in bytes or with a unit (32, 4KiB), at least 16")
    add(group, "--timeout", "DURATION", "deadline of one operation")
    group.add_argument(
        "--seed", default="1", metavar="N", help="seed of the random choice of faults and operations (default: 1)"
    )
    group.add_argument(
        "--corrupting",
        action="store_true",
        help="also send transactions that make the members of any etcd before 3.7 diverge for ever "
        "(etcd#18667): they read a compacted revision and write; only on an embedded cluster",
    )
    group.add_argument("--track", choices=sorted(RECIPES),
                       help="use the load and the faults that reproduce this issue of etcd")  # fmt: skip
    meanwhile.add_arguments(parser)
    group = parser.add_argument_group("result")
    group.add_argument("--guarantee", action="append", default=[], metavar="NAME",
                       help="check only this guarantee or family of guarantees; may be repeated (see `raftload check "
                       "--help`)")  # fmt: skip
    group.add_argument("--output", type=Path, metavar="DIR", help="run folder to write (default: runs/<time>-chaos)")
    group.add_argument("--json", action="store_true", help="print the result document instead of a table")


@dataclasses.dataclass(frozen=True)
class ChaosOptions:
    """What a command line asks for.

    Attributes:
        backend: ``embedded``, ``docker`` or ``local``; None for somebody's ``endpoints``.
        etcd: what a cluster of the run's own is to run, a version or a path; None: what there is.
        names: of the faults, none for no faults.
        actors: who acts beside the load.
        duration_s: until the load ends; None: when the faults are over, or the operations done.
        security: how to reach the cluster of ``backend`` that is up.
    """

    backend: Backend | None
    endpoints: tuple[str, ...]
    nodes: int | None
    etcd: str | None
    storage: str
    names: tuple[str, ...]
    every_s: float
    rounds: int
    compact_every_s: float
    actors: tuple[str, ...]
    users: int
    workers: int
    duration_s: float | None
    load: Settings
    shape: ShapeFields
    watching: WatcherFields
    cluster: Mapping[str, object]
    guarantees: tuple[str, ...]
    security: Security
    abort_on: tuple[str, ...]
    metrics_listen: str | None
    otel: bool

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> ChaosOptions:
        """Read the options. Raises SettingsError, and ClusterError for an etcd that cannot be had."""
        from loadgen.run.target import check_etcd, refuse_for_local, security_of

        option = naming.option(args)
        if option is not None and args.backend is not None:
            raise settings.SettingsError(
                f"{option} and --backend exclude each other; give one", option=option, others=["--backend"]
            )
        refuse_for_local(args)
        told = naming.named(args)
        foreign = told is not None
        check_etcd(args.etcd, told[0] if told else None, "external" if foreign else args.backend or "embedded")
        for flag in ("faults", "rounds", "nodes"):
            if foreign and getattr(args, flag):
                raise settings.SettingsError(
                    f"--{flag} is for clusters that raftload started: with --endpoints there are no faults",
                    option=f"--{flag}",
                    others=["--endpoints"],
                )
        if args.corrupting and (foreign or args.backend not in (None, "embedded")):
            raise settings.SettingsError(
                "--corrupting damages a cluster for ever: it needs an embedded cluster", option="--corrupting"
            )
        track = RECIPES[args.track] if args.track else None
        options = {**_DEFAULTS, **(track.options if track else {})}
        if foreign:
            options |= {"faults": "", "rounds": "0", "compact_every": "0"}
            options["duration"] = options["duration"] or _FOREIGN_S
        options |= {name: value for name, value in vars(args).items() if name in options and value is not None}
        endpoints: tuple[str, ...] = ()
        if told is not None:
            try:
                endpoints = read_endpoints(told[0], Security())
            except ValueError as error:
                raise settings.SettingsError(f"{told[1]}: {error}", option=told[1]) from error
        names = rounds.parse(options["faults"]) if options["faults"].strip() else ()
        duration = settings.read("duration", options["duration"], parse_duration, 0.1) if options["duration"] else None
        if not names and duration is None and not args.operations:
            raise settings.SettingsError(
                "without faults the run needs a --duration or --operations",
                option="--duration", others=["--operations"],
            )  # fmt: skip
        value_size = settings.read("value-size", options["value_size"], parse_size, 16, 1 << 20)
        shape: ShapeFields = {"value_size": value_size, "corrupting": args.corrupting}
        if track is not None:
            shape = {**track.shape, **shape}
        if options["keys"]:
            shape["keys"] = settings.read("keys", options["keys"], parse_whole, 8, 99_999)
        try:
            select(args.guarantee)
        except UsageError as error:
            raise settings.SettingsError(f"--guarantee: {error}", option="--guarantee") from error
        try:
            actors = actors_beside.parse(args.actors, ours=not foreign and args.backend != "local")
        except UsageError as error:
            raise settings.SettingsError(f"--actors: {error}", option="--actors") from error
        backend: Backend | None = None if foreign else args.backend or "embedded"
        security = security_of(backend, args)
        if actors and security != Security():
            raise settings.SettingsError(
                "--actors needs a cluster without TLS and users: without --backend the run makes such a cluster",
                option="--actors",
            )
        nodes = settings.read("nodes", options["nodes"], parse_whole, 1, 99)
        return cls(
            backend=backend, endpoints=endpoints,
            nodes=nodes if backend == "embedded" or args.nodes else None, etcd=args.etcd,
            storage=options["storage"], names=names,
            every_s=settings.read("every", options["every"], parse_duration, 0.1, 3600),
            rounds=settings.read("rounds", options["rounds"], parse_whole, 0, 100_000) if names else 0,
            compact_every_s=settings.read("compact-every", options["compact_every"], parse_duration, 0, 3600),
            actors=actors,
            users=settings.read("concurrency", options["concurrency"], parse_whole, 1, 100_000),
            workers=settings.read("workers", args.workers, parse_whole, 1, 1000), duration_s=duration,
            load=settings.Settings.from_options(
                {"operations": args.operations or "", "timeout": options["timeout"], "seed": args.seed,
                 "value_size": str(value_size), "mix": "put,txn"}, endpoints),
            shape=shape, watching=track.watching if track else {},
            cluster=track.cluster if track else {}, guarantees=tuple(args.guarantee),
            security=security,
            abort_on=tuple(args.abort_on), metrics_listen=args.metrics_listen, otel=args.otel,
        )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Run a campaign. Returns the exit code; raises what `cluster.base.exits` turns into a message and a code."""
    meanwhile.begin(args)
    chosen = ChaosOptions.from_arguments(args)
    check_thresholds((), chosen.load, _SCENARIO, chosen.abort_on)
    meanwhile.check(args)
    if chosen.names and chosen.nodes is not None:  # else it is known when the cluster is found
        rounds.plan_rounds(chosen.names, member_names(chosen.nodes), every_s=1, count=0, seed=0)
    planned = run_folder.planned("chaos", args.output)
    with run_folder.for_a_run(planned, exact=args.output is not None, say=say) as folder, Terminal() as terminal:
        try:
            result = _run(chosen, folder, terminal)
        except run_folder.IncompleteFolderError as error:
            _finish(folder, error.result, args.json, complete=False)
            raise
    return _finish(folder, result, args.json)


def _finish(folder: Path, result: Result, as_json: bool, *, complete: bool = True) -> int:
    """Show the result of a run, and return its exit code; see `loadgen.cli.terminal.finish`."""
    from loadgen.chaos.outcome import render

    return finish(folder, result, as_json, render, complete=complete)


def _run(chosen: ChaosOptions, folder: Path, terminal: Terminal) -> Result:
    """Carry out a run from the start of its workers to the end of its cluster; return the result document."""
    patching.patch()
    from cluster.faults.driver import Driver
    from loadgen.chaos.campaign import Campaign
    from loadgen.chaos.outcome import judge
    from loadgen.run.run import Run

    logs = folder / "logs"
    with run_folder.logging_to(logs / "master.log"), contextlib.ExitStack() as stack:
        metrics = stack.enter_context(exporter.listening(chosen.metrics_listen))
        session = stack.enter_context(
            forked_session(_SCENARIO, WorkerOptions(chosen.workers), logs, terminal, chosen.security, chosen.otel)
        )
        exporter.serve(metrics, session, say)
        session.fire_init()
        target = None if chosen.backend else _target(chosen, None)
        session.start()
        driver = stack.enter_context(Driver(say)) if chosen.backend else None
        held = _open(driver, chosen, folder) if driver else None
        target = target or _target(chosen, held)
        _say_bugs(target.version)
        design = _design(chosen, held)
        load = dataclasses.replace(chosen.load, endpoints=target.usable(), duration_s=chosen.duration_s)
        plan = Plan(
            load, chosen.users, keep=held is not None and held.ours, command=("raftload", *sys.argv[1:]),
            abort_on=chosen.abort_on,
        )  # fmt: skip
        session.wait_ready()
        with Run(session, target, plan, folder) as run:
            campaign = Campaign(design, run, session, driver=driver, held=held, say=say)
            try:
                campaign.carry_out(terminal)
            finally:
                terminal.clear()
            with session.alarm.held():
                if driver is not None:
                    run.noting("save the members' logs", partial(driver.save_logs, logs))
                result = judge(campaign, chosen.names, chosen.guarantees, target.version)
                if campaign.failure is not None:
                    session.alarm.ring(campaign.failure)
            session.alarm.check()
            if run.unwritten:
                raise run_folder.IncompleteFolderError(run.unwritten, result, folder)
    return result


def _open(driver: Driver, chosen: ChaosOptions, folder: Path) -> Held:
    timeline = str((folder / "events.csv").absolute())
    if chosen.backend == "embedded":
        from cluster.local.strike_rules import FOR_DISKS

        links = "relay" if chosen.names and rounds.needs_relay(chosen.names) else "direct"
        strikes = FOR_DISKS if chosen.names and rounds.needs_strikes(chosen.names) else ()
        held = driver.open(
            "embedded", timeline=timeline, nodes=chosen.nodes, peer_links=links, storage=chosen.storage,
            binary=chosen.etcd, log_dir=str((folder / "logs").absolute()), strikes=strikes, **chosen.cluster,
        )  # fmt: skip
        say(f"an embedded cluster of {chosen.nodes} for this run, etcd {held.version} from {held.source}")
        return held
    if chosen.backend == "docker":
        return driver.open("docker", timeline=timeline, nodes=chosen.nodes, etcd=chosen.etcd)
    return driver.open("local", timeline=timeline)


def _target(chosen: ChaosOptions, held: Held | None) -> Target:
    from loadgen.run.target import Target, probed

    if held is None or chosen.backend is None:
        return probed("external", chosen.endpoints, say)
    answers = dict.fromkeys(member.client_url for member in held.members)
    return Target(chosen.backend, answers, held.version, security=chosen.security, etcd=held.etcd or None)


def _say_bugs(version: str | None) -> None:
    bugs = known_bugs(version or "", under_load=True)
    for bug in bugs:
        say(f"etcd {version} has {bug.name}: {bug.summary}")
    if more := len(known_bugs(version or "")) - len(bugs):
        say(f"etcd {version} has {more} known bug{'s' * (more != 1)} that no load meets: `raftload bugs` tries them")
    if not bugs:
        say(f"etcd {version or 'of unknown version'}: raftload knows no bug that a run of it could meet")


def _design(chosen: ChaosOptions, held: Held | None) -> CampaignOptions:
    from loadgen.chaos.campaign import CampaignOptions
    from loadgen.chaos.watch_streams import WatcherOptions

    members = [member.name for member in held.members] if held else []
    names = chosen.names
    if held is not None:
        users = "it is a request to etcd, which is refused while the actor users has authentication on"
        reasons = {
            name: kind.why_not_here(held.cannot) or (users if kind.request and "users" in chosen.actors else "")
            for name in names if (kind := rounds.kind_of(name)) is not None
        }  # fmt: skip
        for name, reason in sorted(reasons.items()):
            if reason:
                say(f"leaving out {name}: {reason}")
        names = tuple(name for name in names if not reasons.get(name))
    planned = (
        rounds.plan_rounds(names, members, every_s=chosen.every_s, count=chosen.rounds, seed=chosen.load.seed)
        if names and chosen.rounds else ()
    )  # fmt: skip
    return CampaignOptions(
        rounds=planned, every_s=chosen.every_s, compact_every_s=chosen.compact_every_s, shape=chosen.shape,
        watching=WatcherOptions(**chosen.watching), hashes=len(members) > 1, actors=chosen.actors,
    )  # fmt: skip
