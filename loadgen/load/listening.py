"""Listeners and message handlers of a run, and the end of the run where one of them raises.

Locust logs an exception in a listener or a message handler and goes on; gevent prints one that leaves a greenlet or a
callback of the event loop, and goes on. A run that goes on with half of what it should know counts wrongly or never
ends. So all of ours are registered through `listen` and `handle`, and an `Alarm` watches the event loop: the exception
is logged with its traceback, and the process's main greenlet gets a `ListenerError`, wherever it waits.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from cluster.base import exits
from cluster.base.exits import Failure, ListenerError
from loadgen.load import locust_internals
from loadgen.load.protocol import FAILED, Failed, Kind, Payload

if TYPE_CHECKING:
    from loadgen.load.locust_types import Environment, EventHook, Message, Runner

P = ParamSpec("P")
R = TypeVar("R")

# Exceptions that leave greenlets of other code are that code's affair. Locust's greenlets carry the run.
_PLAIN = frozenset({"loadgen", "cluster", "viz", "locustfiles"})
_RUN = _PLAIN | {"locust"}

logger = logging.getLogger(__name__)


class Alarm:
    """Raises the first failure of this process's run in its main greenlet, which is the one that makes the alarm.

    Takes the log that holds the tracebacks, and the level at which they are logged. Active from `install` to `close`.

    Attributes:
        failure: the first one, None while there is none.
        log: as above.
    """

    def __init__(self, log: Path | str | None = None, level: int = logging.CRITICAL) -> None:
        import gevent

        self.failure: Failure | None = None
        self.log = log
        self._level = level
        self._main = gevent.getcurrent()
        self._held = False
        self._undo: Callable[[], None] | None = None

    def install(self) -> None:
        """Watch the event loop, and be told of what the process's listeners raise."""
        self._undo = _install(self, _RUN)

    def close(self) -> None:
        """Stop watching; may be called again."""
        if self._undo is not None:
            self._undo()
            self._undo = None

    def caught(self, error: Exception) -> None:
        """Take an exception of this process. Raises ListenerError where the main greenlet runs."""
        trace = "".join(traceback.format_exception(error))
        logger.log(self._level, "the run ends: %s\n%s", exits.describe(error), trace)
        self.ring(Failure(exits.code_of(error), exits.describe(error), trace, self.log))

    def ring(self, failure: Failure) -> None:
        """Take a failure that is in the log. Raises ListenerError where the main greenlet runs."""
        import gevent

        if self.failure is not None or self._undo is None:
            return
        self.failure = failure
        if self._held:
            return
        if gevent.getcurrent() is self._main:
            raise ListenerError(failure)
        gevent.kill(self._main, ListenerError(failure))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Yield a block in which the main greenlet is not disturbed, for the writing of results; `check` after it."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def check(self) -> None:
        """Raise ListenerError where there was a failure."""
        if self.failure is not None:
            raise ListenerError(self.failure)


class _PlainAlarm:
    """Under plain Locust: says it in Locust's log, and has the run quit with an exit code. Takes the environment."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._failed = False

    def caught(self, error: Exception) -> None:
        """Take an exception of this process."""
        trace = "".join(traceback.format_exception(error))
        self.end(Failure(exits.code_of(error), exits.describe(error), trace, "Locust's log"))

    def end(self, failure: Failure) -> None:
        """End the run; a worker tells its master first."""
        import gevent
        from locust.runners import WorkerRunner

        logger.critical("%s\n%s", failure.line, failure.trace)
        if self._failed:
            return
        self._failed = True
        runner = self._environment.runner
        self._environment.process_exit_code = failure.code
        if isinstance(runner, WorkerRunner):
            FAILED.send(runner, to_message(failure))
        gevent.spawn(self._quit, runner)

    def _quit(self, runner: Runner) -> None:
        runner.quit()
        web_ui = getattr(self._environment, "web_ui", None)
        if web_ui is not None:
            web_ui.stop()


_alarm: Alarm | _PlainAlarm | None = None


def listen(event: EventHook, function: Callable[..., object], *, first: bool = False) -> None:
    """Add a listener to an event of Locust's, before those that are there or after them."""
    guarded = guard(function)
    if first:
        locust_internals.listen_first(event, guarded)
    else:
        event.add_listener(guarded)


def handle(runner: Runner, kind: Kind[Payload], function: Callable[[str, Payload], None]) -> None:
    """Have a function called with the sender's client id and the payload of each message of a kind that comes in."""

    def on_message(environment: Environment, msg: Message, **_: object) -> None:
        function(msg.node_id, kind.payload(msg))

    runner.register_message(kind.name, guard(on_message))


def guard(function: Callable[P, R]) -> Callable[P, R | None]:
    """Return a function that does the same, and whose exceptions end the run."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except _control():
            raise
        except Exception as error:
            if _alarm is None:
                logger.critical("a listener raised", exc_info=True)
                # Locust would go on without what the listener brings.
                raise SystemExit(exits.BUG) from error
            _alarm.caught(error)
            return None

    return call


def attach(environment: Environment) -> bool:
    """End runs of plain Locust too: called at the ``init`` of an environment.

    Returns whether it is plain Locust's; an engine of ours has its own alarm.
    """
    from locust.runners import MasterRunner

    if isinstance(_alarm, Alarm):
        return False
    alarm = _PlainAlarm(environment)
    _install(alarm, _PLAIN)

    def on_failed(client_id: str, failed: Failed) -> None:
        alarm.end(from_message(failed, f"worker {client_id}"))

    if isinstance(environment.runner, MasterRunner) and not locust_internals.handles(environment.runner, FAILED.name):
        handle(environment.runner, FAILED, on_failed)
    return True


def to_message(failure: Failure) -> Failed:
    """Return a failure as the payload of a message."""
    return {"code": failure.code, "what": failure.what, "trace": failure.trace}


def from_message(failed: Failed, who: str, log: Path | str | None = None) -> Failure:
    """Return the failure of a worker. Takes the message's payload, the worker's name, and its log."""
    return Failure(failed["code"], f"{who}: {failed['what']}", failed["trace"], log)


def _install(alarm: Alarm | _PlainAlarm, packages: frozenset[str]) -> Callable[[], None]:
    """Make an alarm the process's, with what leaves greenlets and callbacks of packages; return what undoes it."""
    global _alarm  # noqa: PLW0603
    import gevent

    hub = gevent.get_hub()
    before, inherited = _alarm, type(hub).handle_error
    _alarm = alarm

    def handle_error(context: object, kind: object, error: object, trace: TracebackType | None) -> None:
        """Take an exception from the event loop, where gevent's own handler prints it (gevent.hub.Hub.handle_error)."""
        if not isinstance(error, Exception) or isinstance(error, hub.NOT_ERROR) or _is_user(context):
            inherited(hub, context, kind, error, trace)
        elif isinstance(error, _control()):
            logger.info("%s: %s", type(error).__name__, error)
        elif isinstance(context, dict):
            # The request of a page: its browser has been told.
            logger.error("a page was not answered", exc_info=(type(error), error, trace))
        elif _passes(trace, packages):
            alarm.caught(error.with_traceback(trace))
        else:
            inherited(hub, context, kind, error, trace)

    hub.handle_error = handle_error

    def undo() -> None:
        global _alarm  # noqa: PLW0603
        if _alarm is alarm:
            _alarm = before
            vars(hub).pop("handle_error", None)

    return undo


def _control() -> tuple[type[Exception], ...]:
    """Return the exceptions by which Locust steers, which its events let pass; none where Locust is not imported."""
    locust = sys.modules.get("locust.exception")
    if locust is None:
        return ()
    return (
        locust.InterruptTaskSet, locust.RescheduleTask, locust.RescheduleTaskImmediately, locust.StopTest,
        locust.StopUser,
    )  # fmt: skip


def _is_user(context: object) -> bool:
    """Tell whether it is the greenlet of a user: Locust counts what a user raises, and the result shows it."""
    locust = sys.modules.get("locust")
    args = getattr(context, "args", None) or (None,)
    return locust is not None and isinstance(args[0], locust.User)


def _passes(trace: TracebackType | None, packages: frozenset[str]) -> bool:
    """Tell whether an exception passed through code of one of the packages."""
    return any(
        str(frame.f_globals.get("__name__")).partition(".")[0] in packages for frame, _ in traceback.walk_tb(trace)
    )
