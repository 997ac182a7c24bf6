"""Waiting for a condition, with a bound that only ends a test that hangs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

# Far beyond what any machine needs: a test that reaches it hangs. No test asserts that something is quicker than this.
HANG_S = 120.0

Value = TypeVar("Value")


def until(
    condition: Callable[[], Value],
    what: str = "",
    *,
    hang_s: float = HANG_S,
    pause_s: float = 0.02,
    sleep: Callable[[float], object] = time.sleep,
) -> Value:
    """Wait until a condition holds, return what it returned.

    Takes a word for what is waited for, and ``sleep``: ``gevent.sleep`` where greenlets of the same thread have to make
    the condition true. Raises AssertionError after ``hang_s`` seconds.
    """
    deadline = time.monotonic() + hang_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {hang_s:.0f} s in vain for {what or condition}"
        sleep(pause_s)
    return value
