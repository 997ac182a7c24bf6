"""Objects in whose finalizer a signal comes."""

from __future__ import annotations

import io
import os
import signal
import time


class Freed:
    """What a signal meets while Python frees it."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self._number)
        time.sleep(0)


class FreedFile(io.RawIOBase):
    """What a signal meets while Python frees a file or a connection. It clears what ``close`` raises."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self._number = number

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.kill(os.getpid(), self._number)
            time.sleep(0)
