"""SIGINT and SIGTERM handling for commands that make or remove something: never between two halves of it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_S = 0.01
# A handler runs at most so long after its signal.
_HEARD_S = 0.25
# 128 + the signal's number, as shells have it.
EXIT_CODES = {number.name: 128 + number for number in _NUMBERS}


class Interrupted(BaseException):
    """A signal asked this process to end. Like KeyboardInterrupt no ``except Exception`` catches it.

    Attributes:
        number: the signal's.
        exit_code: 130 for SIGINT, 143 for SIGTERM, as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.exit_code = 128 + number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted in the main thread when a signal comes; elsewhere does nothing."""
    watch = _Watch()

    def got(number: int, frame: FrameType | None) -> None:
        raise watch.over(Interrupted(number))

    with _handled(got), _not_dropped(watch), heard():
        yield


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Have the handlers of signals run soon, whatever the main thread waits for; elsewhere does nothing.

    Python's handlers run in the main thread. Where another thread gets a signal, or where the main thread is about to
    wait for a lock or a file as it comes, they run after that wait. So a timer's signal ends each wait now and then.
    """
    owner = signal.getsignal(signal.SIGALRM)
    if threading.current_thread() is not threading.main_thread() or owner not in (signal.SIG_DFL, _nothing):
        yield
        return
    # It stays: one more signal of the timer may be on its way at the end, and would end the process.
    signal.signal(signal.SIGALRM, _nothing)
    before = signal.setitimer(signal.ITIMER_REAL, _HEARD_S, _HEARD_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Do nothing with a signal."""


@contextlib.contextmanager
def finishing() -> Iterator[None]:
    """Let the block end whatever signal comes, and raise Interrupted after it."""
    seen: list[int] = []
    with _handled(lambda number, frame: seen.append(number)):
        yield
    if seen:
        raise Interrupted(seen[0])


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore signals, for what cleans up after one."""
    with _handled(lambda number, frame: None):
        yield


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Hold signals back until the block is over, whoever handles them.

    An import that was cut in the middle leaves modules without some of their parts, and what cleans up after the
    signal may need them. For a process without other threads, which would get the signals.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def done(code: int) -> int:
    """Take the exit code of a command that is done, return it; from now on no signal changes it.

    An interpreter that has loaded much takes a third of a second to end, and whoever ends it meanwhile would read of
    an interruption where everything is done. Ignored and not handled, since Python gives handlers back while it ends.
    """
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)
    return code


@contextlib.contextmanager
def _handled(handler: signal._HANDLER) -> Iterator[None]:
    before = {}
    try:
        for number in _NUMBERS:
            with contextlib.suppress(ValueError):  # not in the main thread
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class _Watch:
    """A watch over what a block's signal handlers raise. One that is freed before the block is over sends its again.

    Attributes:
        again: each signal that is sent again, with the timer that does.
    """

    def __init__(self) -> None:
        self.again: list[tuple[int, threading.Timer]] = []
        self._raised: list[weakref.ref[Interrupted]] = []

    def over(self, error: Interrupted) -> Interrupted:
        """Watch an Interrupted, and return it."""
        number = error.number
        self._raised.append(weakref.ref(error, lambda _: self._send(number)))
        return error

    def end(self) -> None:
        """End the watch, and send nothing any more."""
        self._raised.clear()
        for _, timer in self.again:
            timer.cancel()

    def _send(self, number: int) -> None:
        timer = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))  # at once it would be raised here
        timer.daemon = True
        self.again.append((number, timer))
        timer.start()  # where this thread has to wait for longer than that, it is raised and freed here, and sent again


@contextlib.contextmanager
def _not_dropped(watch: _Watch) -> Iterator[None]:
    """Send a signal again whose Interrupted was dropped, as Python does with what is raised while it frees an object.

    The finalizers of a library, such as those that close its connections, run wherever an object is freed last. Python
    clears what the ``close`` of a file raises there, and does not call sys.unraisablehook; so the watch goes by whether
    the Interrupted is still there.
    """
    before = sys.unraisablehook

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if not isinstance(what.exc_value, Interrupted):
            before(what)

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before
        waiting = [number for number, timer in watch.again if not timer.finished.is_set()]
        watch.end()
    if waiting:
        raise Interrupted(waiting[0])
