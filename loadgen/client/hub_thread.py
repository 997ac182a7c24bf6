"""A thread whose greenlets work for the threads of the rest of the process, which gevent has not patched."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import gevent

from loadgen.client.event_loop import AsyncWatcher

T = TypeVar("T")


class HubThread:
    """Runs functions in greenlets of one event loop, in a thread of its own; ends with the process."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()
        ready = threading.Event()
        threading.Thread(target=self._serve, args=(ready,), name="gevent", daemon=True).start()
        ready.wait()

    def run(self, function: Callable[[], T]) -> T:
        """Take a function, return its answer or raise what it raised; any thread but its own may call."""
        return self.start(function).result()

    def start(self, function: Callable[[], T]) -> Future[T]:
        """Take a function, return at once; the future has its answer, or raises what it raised. Any thread may call."""
        future: Future[T] = Future()

        def answer() -> None:
            try:
                future.set_result(function())
            except BaseException as exc:
                future.set_exception(exc)

        self._jobs.append(answer)
        self._wake.send()
        return future

    def _serve(self, ready: threading.Event) -> None:
        hub = gevent.get_hub()
        self._wake: AsyncWatcher = hub.loop.async_()
        self._wake.start(self._begin)
        ready.set()
        hub.switch()

    def _begin(self) -> None:
        while self._jobs:
            gevent.spawn(self._jobs.popleft())
