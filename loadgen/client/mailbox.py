"""A queue of messages for one greenlet, in order, until it ends."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import gevent
from greenlet import getcurrent, greenlet

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Filled by anybody, emptied by one greenlet at a time.

    Attributes: ``items``, what waits to be taken; ``ended``, nothing more will come.
    """

    __slots__ = ("_hub", "_taker", "ended", "items")

    def __init__(self) -> None:
        self.items: deque[T] = deque()
        self.ended = False
        self._hub = gevent.get_hub()
        self._taker: greenlet | None = None

    def put(self, item: T) -> None:
        """Add an item; the taker is woken within this turn of the event loop."""
        self.items.append(item)
        self._wake_soon()

    def end(self) -> None:
        """Say that nothing more comes; what is there can still be taken."""
        self.ended = True
        self._wake_soon()

    def take(self, timeout_s: float | None = None) -> T | None:
        """Return the next item, waiting for it; None where it has ended, or after ``timeout_s`` seconds."""
        if not self.items and not self.ended:
            self._wait(timeout_s)
        return self.items.popleft() if self.items else None

    def _wait(self, timeout_s: float | None) -> None:
        if self._taker is not None:
            raise RuntimeError("another greenlet takes from here")
        timer = None if timeout_s is None else gevent.Timeout.start_new(timeout_s)
        try:
            while not self.items and not self.ended:
                self._taker = getcurrent()
                self._hub.switch()
        except gevent.Timeout as caught:
            if caught is not timer:
                raise
        finally:
            self._taker = None
            if timer is not None:
                timer.close()

    def _wake_soon(self) -> None:
        if self._taker is not None:
            self._hub.loop.run_callback(self._wake)

    def _wake(self) -> None:
        # Whoever takes now, not when the wake-up was asked for: that one may be waiting for something else by now.
        taker, self._taker = self._taker, None
        if taker is not None:
            taker.switch()
