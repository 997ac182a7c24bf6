"""gevent's patches of the standard library, and Locust's import, with installed packages looked through once.

At each of the 25 modules that it patches gevent asks for plug-ins, and each time `importlib.metadata` reads the entry
points of every installed package. Locust patches again when it is imported. Together that was a quarter of the CPU time
in which a master or a worker starts. A tenth of the rest was spent on looking for garbage, of which imports make none.
"""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Iterator
from importlib import metadata


def patch() -> None:
    """Make blocking calls of the standard library those of gevent; for a process that will run Locust."""
    from gevent import monkey

    with _entry_points_read_once():
        monkey.patch_all()


def import_locust() -> None:
    """Import Locust, which patches the standard library where `patch` has not."""
    with _entry_points_read_once(), uncollected():
        import locust  # noqa: F401


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage in a block of imports."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _entry_points_read_once() -> Iterator[None]:
    original = metadata.entry_points
    vars(metadata)["entry_points"] = functools.cache(original)
    try:
        yield
    finally:
        vars(metadata)["entry_points"] = original
