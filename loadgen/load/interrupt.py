"""Ctrl-C under plain Locust, as an event of gevent's loop.

Python raises KeyboardInterrupt in whatever code runs when the signal comes. Under Locust that may be code which drops
it: the finalizer of a connection's reader, which frees it without a word, and greenlets of Locust that catch it. Then
Locust goes on. The event loop takes the signal between two turns, and the main greenlet is the one that waits for it.
"""

from __future__ import annotations

import signal

_taken = False


def attach() -> None:
    """Raise KeyboardInterrupt in the main greenlet at each SIGINT, once in a process.

    Leaves the signal alone where it is ignored, as of a command in the background, or has a handler of its own.
    """
    global _taken  # noqa: PLW0603
    import gevent

    hub = gevent.get_hub()
    # Only the main thread's loop gets signals.
    if _taken or not hub.loop.default or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    _taken = True
    gevent.signal_handler(signal.SIGINT, lambda: gevent.kill(hub.parent, KeyboardInterrupt()))
