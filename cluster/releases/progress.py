"""The progress of a download on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TextIO

_BAR = 30
_DRAW_S, _LINE_S = 0.1, 5.0


class Progress:
    """How far a download is; close it, or use it in ``with``."""

    def __init__(self, what: str, total: int | None, stream: TextIO | None = None) -> None:
        """Takes the name of what comes, its bytes where they are known, and where to write (default: stderr)."""
        self._what, self._total = what, total
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._color = self._live and not os.environ.get("NO_COLOR")
        self._began = time.monotonic()
        self._told = self._began if not self._live else self._began - _DRAW_S
        self._done = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def add(self, count: int) -> None:
        """So many more bytes came."""
        self._done += count
        now = time.monotonic()
        if now - self._told < (_DRAW_S if self._live else _LINE_S):
            return
        self._told = now
        if self._live:
            self._draw()
        else:
            self._write(f"raftload: {self._what}: {self._text()}\n")

    def close(self) -> None:
        """Takes the bar away."""
        if self._live:
            self._write("\r\x1b[2K")

    def summary(self) -> str:
        """What came, how long it took, and how fast, ``20.3 MB in 6.2 s, 3.3 MB/s``."""
        return f"{_megabytes(self._done)} in {self._elapsed_s:.1f} s, {self._rate()}"

    @property
    def _elapsed_s(self) -> float:
        return max(time.monotonic() - self._began, 1e-3)

    def _rate(self) -> str:
        return f"{_megabytes(self._done / self._elapsed_s)}/s"

    def _text(self) -> str:
        if not self._total:
            return f"{_megabytes(self._done)}, {self._rate()}"
        left_s = (self._total - self._done) * self._elapsed_s / self._done if self._done else 0.0
        return (
            f"{self._done * 100 // self._total:3d}%  {self._done / 1e6:.1f} of {_megabytes(self._total)}  "
            f"{self._rate()}  {left_s:.0f} s left"
        )

    def _draw(self) -> None:
        text = f"{self._what}  {self._text()}"
        room = min(_BAR, shutil.get_terminal_size((80, 24)).columns - len(text) - 5)
        if self._total and room >= 5:
            full = self._done * room // self._total
            bar = "#" * full + "-" * (room - full)
            if self._color:
                bar = f"\x1b[32m{bar[:full]}\x1b[2m{bar[full:]}\x1b[0m"
            text = f"{self._what}  [{bar}]  {self._text()}"
        self._write(f"\r\x1b[2K{text}")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB"
