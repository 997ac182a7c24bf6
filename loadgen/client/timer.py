"""Timers of an event loop that go off at a moment on the monotonic clock; one shot each, set as often as needed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from time import perf_counter_ns
from typing import Protocol

from loadgen.client.event_loop import Loop, Watcher

PRECISE = sys.platform == "linux"


class Timer(Protocol):
    """A timer of one shot, set as often as needed."""

    def set(self, at_ns: int) -> None:
        """Go off at a moment on the monotonic clock."""

    def close(self) -> None:
        """Free what it holds."""


def make(loop: Loop, callback: Callable[[], None]) -> Timer:
    """Return a timer that calls back in a gevent loop: the best that this system has, see PRECISE."""
    return Timerfd(loop, callback) if PRECISE else LoopTimer(loop, callback)


class Timerfd:
    """Linux's timer as a file descriptor: tens of microseconds late, where the event loop's own timers take a
    millisecond. Its clock is the one of `perf_counter_ns`. See timerfd_create(2).
    """

    _CLOCK_MONOTONIC = 1
    _ABSOLUTE = 1

    def __init__(self, loop: Loop, callback: Callable[[], None]) -> None:
        fd = ctypes.CDLL(None, use_errno=True).timerfd_create(self._CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._fd = fd
        # Interval and first expiry, each in seconds and nanoseconds.
        self._time = (ctypes.c_long * 4)()
        # Once an operation in an open loop: so without keeping errno, and with arguments that are C's already.
        self._settime = ctypes.CDLL(None).timerfd_settime
        self._arguments = ctypes.c_int(fd), ctypes.c_int(self._ABSOLUTE), ctypes.byref(self._time), None
        self._is_set = False
        self._callback = callback
        self._watcher = loop.io(fd, 1, priority=loop.MAXPRI)
        self._watcher.start(self._on_readable)

    def set(self, at_ns: int) -> None:
        self._time[2], self._time[3] = divmod(max(1, at_ns), 1_000_000_000)
        self._settime(*self._arguments)
        self._is_set = True

    def close(self) -> None:
        if self._fd >= 0:
            self._watcher.stop()
            self._watcher.close()
            os.close(self._fd)
            self._fd = -1

    def _on_readable(self) -> None:
        self._is_set = False
        self._callback()
        # A timer that was set again has forgotten that it went off; one that was not would be readable for ever.
        if not self._is_set and self._fd >= 0:
            with contextlib.suppress(BlockingIOError):
                os.read(self._fd, 8)


class LoopTimer:
    """The event loop's timer, where there is no timerfd."""

    def __init__(self, loop: Loop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._timer: Watcher | None = None

    def set(self, at_ns: int) -> None:
        self.close()
        self._timer = self._loop.timer(max(0.0, (at_ns - perf_counter_ns()) / 1e9))
        self._timer.start(self._callback, update=True)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
