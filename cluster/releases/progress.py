"""The progress of a download on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from cluster.base.console import Painter, StatusLine, say, terminal_width, wants_color
from cluster.base.units import megabytes

_BAR = 30
_DRAW_S, _LINE_S = 0.1, 5.0


class Progress:
    """How far a download is; close it, or use it in ``with``."""

    def __init__(self, what: str, total: int | None) -> None:
        """Take the name of what comes, and its bytes where they are known."""
        self._what, self._total = what, total
        self._line = StatusLine(every_s=_DRAW_S)
        self._paint = Painter(wants_color(sys.stderr))
        self._began = self._told = time.monotonic()
        self._done = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def add(self, count: int) -> None:
        """So many more bytes came."""
        self._done += count
        now = time.monotonic()
        if self._line.is_due():
            self._draw()
        elif not self._line.live and now - self._told >= _LINE_S:
            self._told = now
            say(f"{self._what}: {self._text()}")

    def close(self) -> None:
        """Take the bar away."""
        self._line.clear()

    def summary(self) -> str:
        """Return what came, how long it took, and how fast, ``20.3 MB in 6.2 s, 3.3 MB/s``."""
        return f"{megabytes(self._done)} in {self._elapsed_s:.1f} s, {self._rate()}"

    @property
    def _elapsed_s(self) -> float:
        return max(time.monotonic() - self._began, 1e-3)

    def _rate(self) -> str:
        return f"{megabytes(self._done / self._elapsed_s)}/s"

    def _text(self) -> str:
        if not self._total:
            return f"{megabytes(self._done)}, {self._rate()}"
        left_s = (self._total - self._done) * self._elapsed_s / self._done if self._done else 0.0
        return (
            f"{self._done * 100 // self._total:3d}%  {self._done / 1e6:.1f} of {megabytes(self._total)}  "
            f"{self._rate()}  {left_s:.0f} s left"
        )

    def _draw(self) -> None:
        text = f"{self._what}  {self._text()}"
        room = min(_BAR, terminal_width() - len(text) - 5)
        if self._total and room >= 5:
            full = max(1, self._done * room // self._total)
            bar = self._paint("#" * full, "green") + self._paint("-" * (room - full), "dim")
            text = f"{self._what}  [{bar}]  {self._text()}"
        self._line.draw(text)
