"""SIGINT and SIGTERM handling for commands that make or remove something: never between two halves of it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_S = 0.01
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

    def got(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    with _handled(got), _not_dropped():
        yield


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


@contextlib.contextmanager
def _not_dropped() -> Iterator[None]:
    """Send a signal again whose Interrupted was dropped, as Python does with what is raised while it frees an object.

    The finalizers of a library, such as those that close its connections, run wherever an object is freed last.
    """
    again: list[tuple[int, threading.Timer]] = []
    before = sys.unraisablehook

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if not isinstance(what.exc_value, Interrupted):
            before(what)
            return
        number: int | None = what.exc_value.number
        while number is not None:
            timer = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))  # at once it would be raised here
            timer.daemon = True
            again.append((number, timer))
            try:
                timer.start()
                number = None
            except Interrupted as exc:  # this thread had to wait for longer than that
                number = exc.number

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before
        waiting = [number for number, timer in again if not timer.finished.is_set()]
        for _, timer in again:
            timer.cancel()
    if waiting:
        raise Interrupted(waiting[0])
