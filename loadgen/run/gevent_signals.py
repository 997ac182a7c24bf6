"""SIGINT and SIGTERM in a process that gevent runs: the run stops cleanly, and the command says which it was."""

from __future__ import annotations

import signal
from collections.abc import Callable

from cluster.base.signals import Interrupted


class Signals:
    """Turns SIGINT and SIGTERM into an `Interrupted` in the main greenlet, or into a gentler call.

    Attributes:
        gently: what to call, in a greenlet of its own, with the name of the first signal, in place of raising.
        again: the same of each further signal.
    """

    def __init__(self) -> None:
        import gevent

        self.gently: Callable[[str], object] | None = None
        self.again: Callable[[str], object] | None = None
        self._seen = False
        self._main = gevent.getcurrent()
        self._handlers = [
            gevent.signal_handler(number, self._got, number) for number in (signal.SIGINT, signal.SIGTERM)
        ]

    def close(self) -> None:
        """Give the signals back."""
        for handler in self._handlers:
            handler.cancel()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _got(self, number: int) -> None:
        import gevent

        name = signal.Signals(number).name
        call = self.again if self._seen else self.gently
        self._seen = True
        if call is not None:
            gevent.spawn(call, name)
        else:
            gevent.kill(self._main, Interrupted(number))
