"""The machine's own floor of lateness: how late a thread that only sleeps wakes up, beside what a test does."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

_PAUSE_S = 0.01


class Lateness:
    """What `measured` fills: ``worst_s``, by how many seconds the latest wake-up was late."""

    worst_s = 0.0


@contextlib.contextmanager
def measured() -> Iterator[Lateness]:
    """Measures while the block runs."""
    lateness, ended = Lateness(), threading.Event()

    def sleep() -> None:
        while not ended.is_set():
            began = time.monotonic()
            time.sleep(_PAUSE_S)
            lateness.worst_s = max(lateness.worst_s, time.monotonic() - began - _PAUSE_S)

    thread = threading.Thread(target=sleep)
    thread.start()
    try:
        yield lateness
    finally:
        ended.set()
        thread.join()
