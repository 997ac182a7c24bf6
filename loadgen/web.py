"""`raftload web`: Locust's web UI over the same users and workers; every run leaves a run folder."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadgen import bench, runfolder, scenarios, settings
from loadgen.crew import Crew

if TYPE_CHECKING:
    from loadgen.engine import Run, Session
    from loadgen.target import Target

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `raftload web`."""
    bench.add_target_arguments(parser)
    group = parser.add_argument_group("first values of the fields")
    group.add_argument("--concurrency", default="10", metavar="N", help="users (default: 10)")
    settings.add_arguments(group)
    group = parser.add_argument_group("web server")
    group.add_argument(
        "--web-host", default="127.0.0.1", metavar="HOST",
        help="address to listen on (default: 127.0.0.1; the UI has no login, so open it to others with care)",
    )  # fmt: skip
    group.add_argument("--web-port", default="8089", metavar="PORT", help="port to listen on (default: 8089)")
    group.add_argument("--output", type=Path, metavar="DIR", help="folder for the run folders (default: runs)")
    group.add_argument("--keep", action="store_true", help="leave the runs' keys in the cluster")


def main(args: argparse.Namespace) -> int:
    """Serve the UI until a signal ends it. Returns the exit code."""
    from loadgen.target import Choice

    choice = Choice.from_arguments(args)
    port = settings.read("web-port", args.web_port, int, 0, 65535)
    crew = Crew.from_arguments(args)
    crew.check_target(choice.endpoints)
    users = settings.read("concurrency", args.concurrency, int, 1, 100_000)
    settings.Settings.from_options(vars(args), choice.endpoints)
    scenarios.check(args.scenario)
    command = tuple(sys.argv)
    # Locust's UI reads the command line for the values of its fields; ours is not in its language.
    sys.argv[1:] = []

    from gevent import monkey

    monkey.patch_all()
    from gevent.event import Event

    from loadgen.engine import Session
    from loadgen.interrupt import Interrupted, Signals

    signals = Signals()
    try:
        with contextlib.ExitStack() as stack:
            logs = stack.enter_context(bench.temporary_logs())
            bench.log_to(logs / "master.log")
            session = Session(args.scenario, crew.local, logs, crew.expected, crew.bind)
            stack.callback(session.close)
            target = stack.enter_context(choice.open(logs, bench.say))
            _first_values(session, args, users, target)
            session.wait_ready(crew.wait_s, bench.say)
            runs = _Runs(session, target, args, command)
            stack.callback(runs.close)
            web_ui = _serve(session, args.web_host, port)
            stack.callback(web_ui.stop)
            session.fire_init(web_ui)
            bench.say(f"open http://{args.web_host}:{web_ui.server.server_port} (Ctrl-C ends it)")
            Event().wait()
    except Interrupted as signal:
        return signal.exit_code
    finally:
        signals.close()
    return 0


def _first_values(session: Session, args: argparse.Namespace, users: int, target: Target) -> None:
    """Put the command line's values into the fields of the UI."""
    options = session.environment.parsed_options
    for parameter in settings.PARAMETERS:
        setattr(options, parameter.name, getattr(args, parameter.name))
    options.num_users, options.spawn_rate = users, float(users)
    session.environment.host = ",".join(target.usable())


def _serve(session: Session, host: str, port: int) -> Any:
    """Start Locust's web UI with a check of the form before a run starts."""
    import gevent
    from flask import jsonify, request
    from locust.stats import stats_history

    from loadgen.endpoint import Endpoint
    from loadgen.engine import EngineError

    _free_or_fail(host, port, EngineError)
    environment = session.environment
    web_ui = environment.create_web_ui(host=host, port=port, delayed_start=True)
    gevent.spawn(stats_history, session.runner)

    @web_ui.app.before_request  # type: ignore[untyped-decorator]
    def check_form() -> Any:
        if request.path != "/swarm" or request.method != "POST":
            return None
        form = request.form
        try:
            host_text = form.get("host", environment.host) or ""
            endpoints = tuple(part.strip() for part in host_text.split(",") if part.strip())
            for endpoint in endpoints:
                Endpoint.parse(endpoint)
            settings.Settings.from_options({**vars(environment.parsed_options), **form.to_dict()}, endpoints)
            settings.read("user_count", form.get("user_count", "1"), int, 1, 100_000)
        except ValueError as error:
            return jsonify({"success": False, "message": str(error), "host": environment.host})
        return None

    web_ui.start()
    # Locust starts its server in a greenlet and tells nobody when it listens.
    while getattr(web_ui, "server", None) is None or not web_ui.server.started:
        gevent.sleep(0.01)
    return web_ui


def _free_or_fail(host: str, port: int, error: type[Exception]) -> None:
    import socket

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as failed:
            raise error(
                f"cannot listen on {host}:{port}: {os.strerror(failed.errno or 0)}; name another --web-port"
            ) from failed


class _Runs:
    """The runs of a session: each test that the UI starts, from its keys to its folder."""

    def __init__(self, session: Session, target: Target, args: argparse.Namespace, command: tuple[str, ...]) -> None:
        self._session = session
        self._target = target
        self._args = args
        self._command = command
        self._run: Run | None = None
        self._watcher: Any = None
        session.environment.events.test_start.add_listener(self._on_test_start)

    def _on_test_start(self, environment: Any, **_: Any) -> None:
        import gevent
        from locust.exception import StopTest

        from loadgen.engine import Plan, Run

        if self._watcher is not None:
            self._watcher.join(timeout=10)
        options = environment.parsed_options
        bench_mix = [user.mix for user in environment.user_classes if getattr(user, "mix", None)]
        try:
            endpoints = tuple(part.strip() for part in str(environment.host).split(",") if part.strip())
            options.key_prefix = ""
            load = settings.Settings.from_options(vars(options), endpoints)
            if bench_mix:
                load = bench._with_mix(self._session, load)
            folder = runfolder.planned(scenarios.check(self._args.scenario), None, self._args.output)
            folder = runfolder.create(folder, exact=False)
            plan = Plan(load, int(options.num_users or 1), None, self._args.keep, self._command)
            self._run = Run(self._session, self._target, plan, folder)
            self._run.begin()
        except Exception as error:
            bench.say(f"error: the run was not started: {error}")
            raise StopTest(str(error)) from error
        self._run.started_by_locust()
        self._watcher = gevent.spawn(self._finish, self._run)

    def _finish(self, run: Run) -> None:
        """Wait for the run's workers, bring Locust to rest, and write the run folder."""
        import gevent
        from locust.runners import STATE_RUNNING, STATE_SPAWNING

        from loadgen import table

        run.wait()
        runner = self._session.runner
        if runner.state in (STATE_RUNNING, STATE_SPAWNING):
            gevent.spawn(runner.stop)
        try:
            result = run.finish()
            for log in (worker.log for worker in self._session.workers if worker.log is not None):
                (run.folder / "logs" / log.name).write_bytes(log.read_bytes())
        except Exception as error:
            bench.say(f"error: the run folder {run.folder} is not complete: {error}")
            return
        print(
            table.render(result, color=table.wants_color(sys.stderr), width=table.terminal_width(), folder=run.folder),
            file=sys.stderr,
        )

    def close(self) -> None:
        """Stop a run that is going on and keep what it measured."""
        if self._run is not None and self._watcher is not None and not self._watcher.dead:
            self._run.ask_stop("SIGINT")
            self._watcher.join(timeout=30)
