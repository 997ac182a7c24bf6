"""A worker process: Locust's worker runner with our users, from its start to its end."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import socket
import sys
import time
from typing import TYPE_CHECKING

from cluster.base.console import say
from cluster.base.errors import RaftloadError
from cluster.base.parser import Whole
from cluster.base.security import Security
from cluster.base.security import add_arguments as add_security_arguments
from loadgen.load import otel, patching

if TYPE_CHECKING:
    from cluster.base.exits import Failure
    from loadgen.load.locust_types import Environment, WorkerRunner

# A master that is there answers within milliseconds.
SAY_AFTER_S = 2.0
# For the last words, where the master is on another machine.
LAST_WORDS_MS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `raftload worker`."""
    parser.add_argument(
        "--master-host", default="127.0.0.1", metavar="HOST", help="address of the master (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--master-port",
        type=Whole(1, 65535),
        default=5557,
        metavar="PORT",
        help="port of the master, as its --bind says (default: 5557)",
    )
    parser.add_argument(
        "--scenario", default="kv", metavar="NAME|FILE", help="scenario, the same as the master's (default: kv)"
    )
    otel.add_argument(parser)
    add_security_arguments(
        parser.add_argument_group("TLS and login", "For the connections of this worker to the cluster.")
    )


def main(args: argparse.Namespace) -> int:
    """Work for a master until it says quit. Returns the exit code."""
    # Where the client looks; the load's parameters come from the master, these do not travel.
    os.environ.update(Security.from_arguments(args).to_environment())
    otel.check(args.otel)
    return work(args.master_host, args.master_port, args.scenario, with_otel=args.otel)


def work(host: str, port: int, scenario: str, number: int = 0, with_otel: bool = False) -> int:
    """Work for the master at an address until it says quit. Returns the exit code.

    Takes the scenario, the number of a worker that its master has forked, 0 where somebody has started it, and whether
    OpenTelemetry is told.
    """
    patching.import_locust()
    from cluster.base.exits import ListenerError
    from loadgen.load.listening import Alarm
    from loadgen.load.locust_internals import read_default_options_once, set_worker_timing

    read_default_options_once()
    # Where the kernel tells us of a master's death, one that is silent is stopped (Ctrl-Z) or waits for a processor.
    set_worker_timing(waits_for_master=bool(number) and sys.platform == "linux")
    # A worker that somebody started by hand speaks to a person; ours write a log.
    level = logging.INFO if number else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # The traceback goes to the master too.
    alarm = Alarm("this log") if number else Alarm("the master's log", level=logging.DEBUG)
    alarm.install()
    environment: Environment | None = None
    try:
        if with_otel:
            otel.start(scenario)
        environment = make_environment(scenario)
        return _work(environment, (host, port), scenario, number)
    except ListenerError as error:
        _tell_master(environment, error.failure)
        raise
    finally:
        _hang_up(environment)


def _work(environment: Environment, master: tuple[str, int], scenario: str, number: int) -> int:
    """Report for work and do it. Returns the exit code."""
    from cluster.base.signals import EXIT_CODES
    from loadgen.load import worker_run
    from loadgen.load.protocol import HELLO
    from loadgen.run import remote_workers
    from loadgen.run.gevent_signals import Signals

    where = f"{master[0]}:{master[1]}"
    signals = Signals()
    # Before the runner reports for work: the master may send the run the moment it does.
    mine = worker_run.attach(environment)
    try:
        runner = _report_for_work(environment, master)
    except ConnectionError as error:
        raise RaftloadError(
            f"no master answers at {where}; start one with 'raftload bench --expect-workers N'"
        ) from error
    environment.events.init.fire(environment=environment, runner=runner, web_ui=None)
    ended_by: list[str] = []

    def end(name: str) -> None:
        """Finish the open operations and report, then end."""
        ended_by.append(name)
        mine.leave()
        runner.stop()
        runner.quit()

    signals.gently = end
    refusals = _listen(environment, runner)
    me = remote_workers.identity(scenario)
    HELLO.send(runner, {"number": number, "host": socket.gethostname(), "pid": os.getpid(), **me})
    if not number:
        say(f"worker {os.getpid()} has reported to {where}")
    runner.greenlet.join()
    if ended_by:
        return EXIT_CODES[ended_by[0]]
    if refusals:
        raise RaftloadError(f"the master at {where} refused this worker: {refusals[0]}")
    return 0


def _tell_master(environment: Environment | None, failure: Failure) -> None:
    """Send a failure of this worker to the master."""
    from loadgen.load.listening import to_message
    from loadgen.load.locust_internals import say_last
    from loadgen.load.protocol import FAILED

    runner = getattr(environment, "runner", None)
    if runner is not None:
        with contextlib.suppress(Exception):
            say_last(runner, FAILED.name, to_message(failure))


def _hang_up(environment: Environment | None) -> None:
    """End the connection to the master, where there is one."""
    from loadgen.load.locust_internals import hang_up

    runner = getattr(environment, "runner", None)
    if runner is not None:
        with contextlib.suppress(Exception):
            hang_up(runner, LAST_WORDS_MS)


def _listen(environment: Environment, runner: WorkerRunner) -> list[str]:
    """Answer what our masters say beside Locust's messages; return where the reason stands, should one refuse us."""
    import gevent

    from loadgen.load import listening, worker_run
    from loadgen.load.protocol import CLOCK, CLOCK_OFFSET, REFUSED, Clock, ClockOffset, Refused

    refusals: list[str] = []

    def on_refused(_: str, refused: Refused) -> None:
        refusals.append(refused["reason"])
        gevent.spawn(runner.quit)

    def on_clock(_: str, clock: Clock) -> None:
        CLOCK.send(runner, {"sent": clock["sent"], "there": time.time_ns()})

    def on_offset(_: str, offset: ClockOffset) -> None:
        worker_run.attach(environment).clock_offset_ns = offset["ns"]

    listening.handle(runner, REFUSED, on_refused)
    listening.handle(runner, CLOCK, on_clock)
    listening.handle(runner, CLOCK_OFFSET, on_offset)
    return refusals


def _report_for_work(environment: Environment, master: tuple[str, int]) -> WorkerRunner:
    """Return the runner once a master has answered. Raises ConnectionError where none does for five minutes."""
    import gevent

    def say_so() -> None:
        try:
            socket.getaddrinfo(*master)
            why = ""
        except OSError as error:
            why = f" ({error.strerror})"
        where = f"{master[0]}:{master[1]}{why}"
        say(f"waiting for a master at {where} for five minutes (Ctrl-C ends it)")

    waiting = gevent.spawn_later(SAY_AFTER_S, say_so)
    try:
        # Locust prints what a name does not resolve to.
        with contextlib.redirect_stdout(io.StringIO()):
            return environment.create_worker_runner(*master)
    finally:
        waiting.kill()


def make_environment(scenario: str) -> Environment:
    """Return a Locust Environment for a scenario, with Locust's own options at their defaults."""
    import locust
    from locust import argument_parser, env

    from loadgen.load.scenarios import user_classes

    classes = user_classes(scenario)
    # Locust reads its options from the environment and from files too; a run's parameters are the master's.
    parser = argument_parser.get_parser(default_config_files=[])
    options = parser.parse_args([], env_vars={})
    made: Environment = env.Environment(
        user_classes=classes, events=locust.events, parsed_options=options, catch_exceptions=True
    )
    return made
