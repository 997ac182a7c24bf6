"""Worker processes on this machine: forked from their master, apart from its terminal, ended with it."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import logging
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from gevent import monkey

from cluster.base import console, exits
from cluster.base.files import writing
from cluster.base.security import Security
from cluster.base.signals import EXIT_CODES
from loadgen.load import patching, scenarios

if TYPE_CHECKING:
    from loadgen.load.locust_types import ChildWatcher

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
# Its command line is its master's; this is what `ps -o comm`, `top` and `pgrep` go by.
PROCESS_NAME = "raftload worker"


class WorkerProcess:
    """One worker on this machine, made by `fork_workers`.

    It is a session of its own, so that Ctrl-C on the terminal reaches its master alone, which then lets it
    finish and report.

    Takes its number, the path of its log, its process id, and the pipe on which it waits for its master's address.

    Attributes:
        name: what messages call it.
        client_id: its name in Locust's protocol, None until it has reported for work.
    """

    def __init__(self, number: int, log: Path, pid: int, order: int) -> None:
        self.number = number
        self.log = log
        self.pid = pid
        self.name = f"worker {number} (pid {pid})"
        self.client_id: str | None = None
        self._order: int | None = order
        self._code: int | None = None

    def start(self, host: str, port: int) -> None:
        """Have it report for work. Takes where the master listens."""
        assert self._order is not None, f"{self.name} was started before"
        order, self._order = self._order, None
        # `death` tells of one that has ended meanwhile.
        with contextlib.suppress(BrokenPipeError), os.fdopen(order, "w") as pipe:
            json.dump([host, port], pipe)

    def ended(self, status: int) -> None:
        """Note that it has ended. Takes its wait status."""
        self._code = os.waitstatus_to_exitcode(status)

    def death(self) -> str | None:
        """Return how it ended, None while it runs."""
        if self._code is None:
            return None
        if self._code < 0:
            return f"killed by {signal.Signals(-self._code).name}"
        return f"ended by {self.told}" if self.told else f"exited with status {self._code}"

    @property
    def gone(self) -> bool:
        """Whether it will not come back."""
        return self._code is not None

    @property
    def failed(self) -> bool:
        """Whether it ended by a bug of ours."""
        return self._code == exits.BUG

    @property
    def told(self) -> str:
        """The name of the signal, SIGINT or SIGTERM, by which somebody has had it end; empty where nobody has.

        Before it works it ends by the signal itself.
        """
        return next((name for name, code in EXIT_CODES.items() if self._code in (code, -signal.Signals[name])), "")

    @property
    def left(self) -> bool:
        """Whether it has ended by itself, or because it was told to: not by a signal, and not by an error."""
        return self._code in (0, *EXIT_CODES.values())

    def last_words(self) -> str:
        """Return the last line of its log that says something."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else "its log is empty"

    def end(self, grace_s: float = 2.0) -> None:
        """End the process: SIGTERM, then SIGKILL after the grace, in seconds."""
        import gevent

        if self._order is not None:
            # One that waits for its order ends without it.
            _close(self._order)
            self._order = None
        elif self._code is None:
            os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self._code is None:
            if time.monotonic() >= deadline:
                os.kill(self.pid, signal.SIGKILL)
            # The event loop hears of its end.
            gevent.sleep(0.01)


def fork_workers(
    count: int, scenario: str, logs: Path, security: Security, with_otel: bool = False
) -> list[WorkerProcess]:
    """Import Locust and fork worker processes, which wait for `WorkerProcess.start`.

    To import Locust takes a second of a processor; forked workers have it from their master. What is imported can be
    shared so, what runs cannot: call it before this process has a thread, a greenlet or a connection.

    Takes how many, their scenario, a folder for their logs, how to reach the cluster, and whether they tell
    OpenTelemetry. Raises FileError.
    """
    with patching.uncollected():
        patching.import_locust()
        import gevent
        from gevent.os import fork_and_watch

        from loadgen.run import (
            worker,
        )

        if scenario in scenarios.names():
            importlib.import_module(f"locustfiles.{scenario}")
        # Nothing of it is garbage, ever. To look for garbage in it would write to it, and so copy it into each process.
        gc.freeze()
    _raise_open_files_limit()
    # gevent does so only when it begins to watch the first one, and would never hear of its end if that came before.
    gevent.get_hub().loop.install_sigchld()
    sys.stdout.flush()
    sys.stderr.flush()
    parent, workers = os.getpid(), list[WorkerProcess]()
    for number in range(1, count + 1):
        log = logs / f"worker-{number}.log"
        # Here, where an error is the command's.
        with writing(log):
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        order, ours = os.pipe()
        made: list[WorkerProcess] = []
        pid = fork_and_watch(functools.partial(_note_end, made))
        if pid == 0:
            orders = [ours, *(each._order for each in workers if each._order is not None)]
            work = functools.partial(worker.work, scenario=scenario, number=number, with_otel=with_otel)
            _become_worker(parent, output, order, orders, security, work)
        _close(output, order)
        made.append(WorkerProcess(number, log, pid, ours))
        workers += made
    return workers


def _note_end(made: Sequence[WorkerProcess], watcher: ChildWatcher) -> None:
    made[0].ended(watcher.rstatus)


def _become_worker(
    parent: int, output: int, order: int, others: Sequence[int], security: Security, work: Callable[[str, int], int]
) -> NoReturn:
    """Leave what is the master's, and work until it is done.

    Takes the master's process id, the files of the log and of the order, files to close, and what to call with the
    master's address.
    """
    code = exits.BUG
    try:
        # What is registered for the end of the process is the master's. As in the standard library's
        # multiprocessing.popen_fork.
        atexit._clear()
        os.setsid()
        _leave_master(output, others, security)
        _prctl(_PR_SET_NAME, PROCESS_NAME.encode())
        _die_with(parent)
        with os.fdopen(order) as pipe:
            text = pipe.read()
        # None where the master has ended before it came so far.
        code = exits.run(lambda: work(*json.loads(text))) if text else 0
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        # Not up the stack, which is the master's.
        os._exit(code)


def _leave_master(output: int, others: Sequence[int], security: Security) -> None:
    """Give up the files, signals, log and environment that a fork shares with its master."""
    # What programs are told is the master's to tell; a worker's log is for people.
    console.tell_people()
    # What is called from a shell's pipe must not hold that open: a program that is executed has none of these.
    inherited = {int(path.name) for path in Path("/dev/fd").iterdir()}
    for handler in logging.getLogger().handlers[:]:
        logging.getLogger().removeHandler(handler)
        handler.close()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, standard)
    _close(nothing, output, *others)
    for descriptor in inherited:
        with contextlib.suppress(OSError):  # closed by now
            if descriptor > 2 and os.get_inheritable(descriptor):
                _close(descriptor)
    # A Ctrl-C from before it had a session of its own was the master's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The master decides; what a shell exports for a Locust or a cluster of its own must not reach its workers.
    for name in [name for name in os.environ if name.startswith(("LOCUST_", "ETCDCTL_"))]:
        del os.environ[name]
    # Nobody else can see these, unlike a command line.
    os.environ.update(security.to_environment())
    # A scenario of one's own may ask which side it is on.
    sys.argv[1:] = ["worker"]


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent, whose pid is given, has died (Linux).

    See prctl(2), PR_SET_PDEATHSIG. Elsewhere the worker notices by Locust's heartbeat, later.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before the call above: then nobody will tell us.
    if os.getppid() != parent:
        raise RuntimeError("the master that forked this worker is gone")


def _close(*descriptors: int) -> None:
    """Close files now: gevent's ``os.close`` leaves it to the event loop."""
    for descriptor in descriptors:
        monkey.get_original("os", "close")(descriptor)


def _prctl(option: int, value: int | bytes) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _raise_open_files_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
