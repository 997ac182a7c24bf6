"""A pipe into which a member writes its log, as that of a container is, and whose reader can leave it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
from pathlib import Path

_SMALL = 4096
_TICK_S = 0.1


class LogPipe:
    """Takes a folder, in which the pipe is made. What comes is read, and kept in ``pipe.log`` there, until ``leave``.

    Attributes: ``path``, of the pipe.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log-pipe"
        os.mkfifo(self.path)
        # For both: with a writer of our own it is not at its end before the member has opened it.
        self._end = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        if (size := getattr(fcntl, "F_SETPIPE_SZ", None)) is not None:
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._end, size, _SMALL)
        self._left = threading.Event()
        self._log = folder / "pipe.log"
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def leave(self) -> None:
        """Read no more; the pipe stays open, and fills."""
        self._left.set()
        self._reader.join()

    def close(self) -> None:
        """Close our end. May be called again."""
        self.leave()
        if self._end >= 0:
            os.close(self._end)
            self._end = -1
            self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        with self._log.open("ab") as log:
            while not self._left.is_set():
                if select.select([self._end], [], [], _TICK_S)[0]:
                    log.write(os.read(self._end, _SMALL))
