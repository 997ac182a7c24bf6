"""The part of gevent's event loop that raftload uses, with the types that gevent lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Watcher(Protocol):
    """Something that the loop watches for: a socket that is ready, or a time that has come."""

    def start(self, callback: Callable[..., object], *args: object, **options: object) -> None:
        """Call back each time from now on."""

    def stop(self) -> None:
        """Call back no more."""

    def close(self) -> None:
        """Free what it holds."""


class AsyncWatcher(Watcher, Protocol):
    """What other threads wake the loop with."""

    def send(self) -> None:
        """Have the loop call back; any thread may."""


class Loop(Protocol):
    """The loop of a hub."""

    MAXPRI: int
    MINPRI: int

    def io(self, fd: int, events: int, *, priority: int = ...) -> Watcher:
        """Watch a file descriptor: 1 to read, 2 to write."""

    def timer(self, after: float, repeat: float = ...) -> Watcher:
        """Watch the time, in seconds."""

    def async_(self) -> AsyncWatcher:
        """Make what other threads wake the loop with."""

    def check(self, *, ref: bool, priority: int) -> Watcher:
        """Watch for the end of each wait."""

    def prepare(self, *, ref: bool, priority: int) -> Watcher:
        """Watch for the beginning of each wait."""


class Hub(Protocol):
    """What runs the loop."""

    loop: Loop
