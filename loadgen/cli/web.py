"""`raftload web`: Locust's web UI over the same users and workers; every run leaves a run folder."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.console import say
from cluster.base.endpoint import read_endpoints, split_endpoints
from cluster.base.errors import RaftloadError, UsageError
from cluster.base.security import masked
from cluster.base.units import parse_number, parse_whole
from loadgen.cli import meanwhile
from loadgen.cli.terminal import Terminal
from loadgen.load import patching, scenarios, settings
from loadgen.result.abort import AbortCondition
from loadgen.result.threshold import TYPES
from loadgen.run import TargetOptions, WorkerOptions, exporter, run_folder, worker_options
from loadgen.run import target as target_options
from loadgen.run.benchmark import forked_session

if TYPE_CHECKING:
    from flask import Flask
    from flask.typing import ResponseReturnValue

    from cluster.lifecycle.up import Cluster
    from cluster.local.cluster import LocalCluster
    from loadgen.run.session import Session
    from loadgen.run.target import Target
    from loadgen.webui.cluster_view import ClusterView
    from loadgen.webui.runs import Runs

EXAMPLES = """\
examples:
  raftload web                                   an embedded cluster; the Cluster page can inject faults
  raftload web --links relay                     the same, with partitions among the faults
  raftload web --endpoints 10.0.0.1:2379 --workers 4 --web-port 8090
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `raftload web`."""
    target_options.add_arguments(parser)
    scenarios.add_arguments(parser.add_argument_group("load"))
    worker_options.add_arguments(parser.add_argument_group("workers"))
    parser.add_argument(
        "--links", default="direct", choices=("direct", "relay"),
        help="connections between the members of an embedded cluster, which this command starts itself; relay makes "
        "partitions possible and every message between members slower (default: direct)",
    )  # fmt: skip
    parser.add_argument(
        "--disk-faults", action="store_true",
        help="trap the syncs of the members of an embedded cluster, which this command starts itself; that makes "
        "faults of their disks possible and every write slower (Linux); not for a cluster that is there already",
    )  # fmt: skip
    group = parser.add_argument_group("initial values of the load form")
    group.add_argument("--concurrency", default="10", metavar="N", help="users over all workers (default: 10)")
    settings.add_arguments(group)
    meanwhile.add_arguments(parser, shows_progress=False)
    group = parser.add_argument_group("web server")
    group.add_argument(
        "--web-host", default="127.0.0.1", metavar="HOST",
        help="address to listen on (default: 127.0.0.1); whoever reaches it can start loads and faults",
    )  # fmt: skip
    group.add_argument("--web-port", default="8089", metavar="PORT", help="port to listen on (default: 8089)")
    group.add_argument(
        "--web-name", action="append", default=[], metavar="NAME",
        help="further host name under which browsers may use this server, such as that of a proxy; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--web-login", action="store_true",
        help="require a login, which the scenario's locustfile implements (see --web-login in Locust's documentation)",
    )  # fmt: skip
    group.add_argument(
        "--output", type=Path, metavar="DIR", help="folder in which each run gets its run folder (default: runs)"
    )
    group.add_argument("--keep", action="store_true", help="leave the runs' keys in the cluster")


def main(args: argparse.Namespace) -> int:
    """Serve the UI until a signal ends it. Returns the exit code."""
    choice = TargetOptions.from_arguments(args)
    _check_made(args, choice)
    port = settings.read("web-port", args.web_port, parse_whole, 0, 65535)
    options = WorkerOptions.from_arguments(args)
    options.check_target(choice.endpoints)
    users = settings.read("concurrency", args.concurrency, parse_whole, 1, 100_000)
    settings.Settings.from_options(vars(args), choice.endpoints)
    scenarios.check(args.scenario)
    for text in args.abort_on:
        AbortCondition.parse(text, None if scenarios.types(args.scenario, ()) is None else TYPES)
    meanwhile.check(args)
    if args.output is not None and args.output.exists() and not args.output.is_dir():
        raise UsageError(f"--output {args.output} is a file; name a folder, in which each run gets its own")
    command = masked(sys.argv, args)
    # Locust's UI reads the command line for the first values of its fields.
    sys.argv[1:] = [word for each in settings.PARAMETERS for word in (each.flag, getattr(args, each.name))]

    patching.patch()
    # Of workers that outlive a single run; a run's folder gets what is in them by then.
    with tempfile.TemporaryDirectory(prefix="raftload-logs-") as name, Terminal() as terminal:
        logs = Path(name)
        with run_folder.logging_to(logs / "master.log"):
            return _run(args, choice, options, users, port, command, logs, terminal)


def _check_made(args: argparse.Namespace, choice: TargetOptions) -> None:
    """Raise SettingsError for an option of how to make the members, where they are made already, or cannot be so."""
    running = choice.running
    # In Docker there are networks to part.
    parted = choice.kind == "docker" or (running is not None and running.links == "relay")
    asked = {
        "--disk-faults": args.disk_faults and not (running is not None and running.disk_faults),
        "--links relay": args.links == "relay" and not parted,
    }
    for option in [name for name, missing in asked.items() if missing and choice.kind != "embedded"]:
        if choice.kind == "docker":
            why = "members in containers cannot have them; try --backend embedded"
        elif running is not None:
            why = f"`raftload cluster up` made this one; start that with {option}, or give --backend embedded here"
        else:
            why = f"{choice.reason} names one that is there already"
        raise settings.SettingsError(
            f"{option} is for a cluster that this command makes itself: {why}", option=option.partition(" ")[0]
        )


def _run(
    args: argparse.Namespace,
    choice: TargetOptions,
    options: WorkerOptions,
    users: int,
    port: int,
    command: tuple[str, ...],
    logs: Path,
    terminal: Terminal,
) -> int:
    """Serve the UI from the start of its workers to the end of its cluster. Returns the exit code."""
    from gevent.event import Event

    from cluster.base.exits import ListenerError
    from cluster.base.signals import Interrupted
    from cluster.local.strike_rules import FOR_DISKS

    try:
        with contextlib.ExitStack() as stack:
            metrics = stack.enter_context(exporter.listening(args.metrics_listen))
            session = stack.enter_context(
                forked_session(args.scenario, options, logs, terminal, choice.security, args.otel)
            )
            exporter.serve(metrics, session, say)
            session.start()
            target = stack.enter_context(choice.open(logs, say, args.links, FOR_DISKS if args.disk_faults else ()))
            _first_values(session, args, users, target)
            session.wait_ready(options.wait_s, say)
            view, runs = _beside(session, target, args, command, stack)
            try:
                served = _serve(session, args, port, view, runs, stack)
                host = f"[{args.web_host}]" if ":" in args.web_host else args.web_host
                say(f"open http://{host}:{served} (Ctrl-C ends it)")
                Event().wait()
            except ListenerError as error:
                raise ListenerError(runs.cut_short(error.failure, logs)) from error
    except Interrupted as signal:
        return signal.exit_code
    return 0


def _first_values(session: Session, args: argparse.Namespace, users: int, target: Target) -> None:
    """Put the command line's values into the fields of the UI."""
    options = session.environment.parsed_options
    for parameter in settings.PARAMETERS:
        setattr(options, parameter.name, getattr(args, parameter.name))
    options.num_users, options.spawn_rate = users, float(users)
    session.environment.host = ",".join(target.usable())


def _beside(
    session: Session, target: Target, args: argparse.Namespace, command: tuple[str, ...], stack: contextlib.ExitStack
) -> tuple[ClusterView, Runs]:
    """Return what stands beside Locust's UI: who looks at the cluster, and who keeps the books of the runs."""
    from loadgen.run.target import target_of
    from loadgen.webui.cluster_view import ClusterView
    from loadgen.webui.runs import Runs
    from viz.live.snapshot import parse_endpoints

    environment = session.environment
    view = ClusterView(
        environment, _breakable(target, stack), lambda: parse_endpoints(str(environment.host or "")),
        target.security,
    )  # fmt: skip
    stack.callback(view.close)
    runs = Runs(session, lambda endpoints: target_of(endpoints, target, say), view, args, command)
    stack.callback(runs.close)
    return view, runs


def _breakable(target: Target, stack: contextlib.ExitStack) -> LocalCluster | Cluster | None:
    """Return the cluster where it is ours to break: the session's own, or what `raftload cluster up` started."""
    if target.cluster is not None:
        return target.cluster
    if target.kind not in ("docker", "local"):
        return None
    from cluster.lifecycle.up import find

    found = find(target.kind)
    if found is not None:
        stack.callback(found.close)
    return found


def _serve(
    session: Session,
    args: argparse.Namespace,
    port: int,
    view: ClusterView,
    runs: Runs,
    stack: contextlib.ExitStack,
) -> int:
    """Start Locust's web UI, with our pages and a check of the form before a run starts; return its port."""
    import gevent
    from locust import stats

    from loadgen.load import locust_internals
    from loadgen.run.session import EngineError
    from loadgen.webui import pages
    from loadgen.webui.origins import Guard

    _free_or_fail(args.web_host, port, EngineError)
    environment = session.environment
    locust_internals.set_percentiles_of_web_ui()
    web_ui = environment.create_web_ui(host=args.web_host, port=port, web_login=args.web_login, delayed_start=True)
    gevent.spawn(stats.stats_history, session.runner)
    pages.install(web_ui, view, runs, Guard(args.web_host, args.web_name))
    _check_form(web_ui.app, session, view, runs)
    # Before the first request: what asks for a login, or counts a run, is set up there.
    session.fire_init(web_ui)
    web_ui.start()
    stack.callback(web_ui.stop)
    return locust_internals.wait_until_served(web_ui)


def _check_form(app: Flask, session: Session, view: ClusterView, runs: Runs) -> None:
    """Answer a form that no run can be made of with a message, before Locust takes its values."""
    from flask import jsonify, request
    from locust.runners import STATE_RUNNING, STATE_SPAWNING

    from loadgen.load import locust_internals

    environment = session.environment

    @app.before_request
    def check() -> ResponseReturnValue | None:
        if request.path == "/stop":
            runs.wait_begun(locust_internals.swarm_of(environment.web_ui))
        if request.path != "/swarm" or request.method != "POST":
            return None
        # In mid-run the same form changes the number of users.
        begins = environment.runner.state not in (STATE_RUNNING, STATE_SPAWNING)
        try:
            _read_form(request.form.to_dict(), session, runs if begins else None)
            endpoints = split_endpoints(request.form.get("host", environment.host))
            if begins and view.is_at(endpoints) and view.why_no_load:
                raise ValueError(view.why_no_load)
        except (ValueError, RaftloadError) as error:
            return jsonify({"success": False, **refusal(error), "host": environment.host})
        runs.starting = runs.starting or begins
        return None


def refusal(error: Exception) -> dict[str, str | None]:
    """Return what the form is told of an error: the ``message``, and the ``field`` that it is about, None for none."""
    option = error.option if isinstance(error, settings.SettingsError) else None
    return {"message": _in_fields(error), "field": None if option is None else _field_of(option)}


def _in_fields(error: Exception) -> str:
    """Return an error's line with the options named as the form does: ``--key-size`` is ``Key Size`` there.

    What else looks like an option is left as it is: it was typed into a field, or is one of etcd's or of a command.
    """
    message = str(error)
    if isinstance(error, settings.SettingsError):
        for option in (error.option, *error.others):
            if option is not None:
                message = message.replace(option, option.removeprefix("--").replace("-", " ").title(), 1)
    return message


def _field_of(option: str) -> str:
    """Return the name of the form's field for an option."""
    name = option.removeprefix("--").replace("-", "_")
    return {"number_of_users": "user_count", "ramp_up": "spawn_rate"}.get(name, name)


def _read_form(form: dict[str, str], session: Session, runs: Runs | None) -> None:
    """Raise ValueError or RaftloadError, in one line, for values of which no run can be made.

    Takes the runs, which know the targets, where a run is to begin.
    """
    from loadgen.load.locust_internals import NEVER_S, run_time_s

    environment = session.environment
    try:
        endpoints = read_endpoints(str(form.get("host", environment.host) or ""), session.security)
    except (ValueError, RaftloadError) as error:
        raise settings.SettingsError(f"--host: {error}", option="--host") from error
    # The run before left its prefix, with which a mix may have any types.
    settings.Settings.from_options({**vars(environment.parsed_options), "key_prefix": "", **form}, endpoints)
    settings.read("number-of-users", form.get("user_count", "1"), parse_whole, 1, 100_000)
    settings.read("ramp-up", form.get("spawn_rate", "1"), parse_number, 0.001, 100_000)
    if run_time := form.get("run_time"):
        settings.read("run-time", run_time, run_time_s, 0, NEVER_S)
    if runs is not None:
        from loadgen.run.session import NO_WORKER

        if runs.under_way:
            raise ValueError("the last run's folder is being written: try again in a moment")
        if runs.is_deserted:
            raise ValueError(NO_WORKER)
        runs.target(endpoints)


def _free_or_fail(host: str, port: int, error: type[Exception]) -> None:
    import socket

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror as failed:
            raise error(f"cannot listen on {host}: {failed.strerror}; name an address of this machine") from failed
        except OSError as failed:
            raise error(f"cannot listen on {host}:{port}: {failed.strerror}; name another --web-port") from failed
