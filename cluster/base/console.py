"""The terminal of the person who runs a command: messages and progress on stderr, tables and documents on stdout."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Container, Mapping, Sequence
from typing import TextIO, TypeVar

from cluster.base.files import to_json, writing

D = TypeVar("D", bound=Mapping[str, object])
STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
"""What a terminal can show, by name: the parameters of ECMA-48's SGR."""


_REPLACED = "raftload.replaced"
_ASCII = {"\u2026": "..."}


def take_any_text() -> None:
    """Have stdout and stderr take every text: what their encoding lacks is replaced, and is no error.

    So under ``PYTHONIOENCODING=ascii``. Bytes of a path that are no text come out as they were.
    """
    codecs.register_error(_REPLACED, _replaced)
    for stream in (sys.stdout, sys.stderr):
        # Python asks a stream that began as a file for its place, whatever it leads to by now.
        with contextlib.suppress(OSError):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors=_REPLACED)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what to write for a character that could not be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    char = error.object[error.start]
    if "\udc80" <= char <= "\udcff":  # a byte that Python could not decode (PEP 383)
        return bytes([ord(char) - 0xDC00]), error.start + 1
    return _ASCII.get(char, "?"), error.start + 1


_WARNING, _NOTE = "warning: ", "note: "


class Events:
    """What a command tells programs on stderr: JSON objects, one a line, in the place of words for people.

    `tell_programs` makes it, and `events` returns it.

    Attributes:
        at_end: what else the last event says.
    """

    def __init__(self) -> None:
        self.at_end: dict[str, object] = {}
        self._error: str | None = None

    def emit(self, event: str, **fields: object) -> None:
        """Write an event, with the time. That it cannot be written, as on a full disk, is no reason to end."""
        import datetime  # few need it, and every command imports this module

        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        with contextlib.suppress(OSError):
            print(json.dumps({"event": event, "time": now, **fields}), file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """Write a message for people as an event: a warning, where it begins so, or a note."""
        event = "warning" if line.startswith(_WARNING) else "note"
        self.emit(event, message=line.removeprefix(_WARNING).removeprefix(_NOTE))

    def fail(self, line: str) -> None:
        """Take the line of an error, with which the command ends."""
        self._error = line.removeprefix("raftload: error: ").removeprefix("raftload: ")

    def end(self, exit_code: int) -> None:
        """Write the last event."""
        self.emit("ended", exit_code=exit_code, error=self._error, **self.at_end)


_current: Events | None = None


def tell_programs() -> Events:
    """Have this process tell events, until `tell_people`."""
    global _current  # noqa: PLW0603
    _current = Events()
    return _current


def tell_people() -> None:
    """Have this process tell people again."""
    global _current  # noqa: PLW0603
    _current = None


def events() -> Events | None:
    """Return the events of this process; None where it tells people."""
    return _current


def say(line: str) -> None:
    """Tell the person at the terminal, on stderr. That it cannot be written, as on a full disk, is no reason to end."""
    if (told := events()) is not None:
        told.say(line)
        return
    with contextlib.suppress(OSError):
        print(f"raftload: {line}", file=sys.stderr, flush=True)


def print_json(document: Mapping[str, object]) -> None:
    """Print the one document of a command with ``--json``, on stdout."""
    with writing("to stdout"):
        sys.stdout.write(to_json(document, getattr(sys.stdout, "encoding", None) or "utf-8"))


def show(document: D, as_json: bool, render: Callable[..., str]) -> None:
    """Print the one document of a command on stdout: as JSON, or as the text that ``render`` makes of it.

    ``render`` takes the document, whether the text may be coloured, and how many columns it may have.
    """
    if as_json:
        print_json(document)
    else:
        text = render(document, color=wants_color(sys.stdout), width=terminal_width())
        with writing("to stdout"):
            print(text)


def wants_color(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal that may be coloured; NO_COLOR and TERM=dumb say it may not."""
    return _is_drawn_on(stream) and not os.environ.get("NO_COLOR")


def _is_drawn_on(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def terminal_width() -> int:
    """Return the columns of the terminal or of $COLUMNS; 100 where there is neither."""
    import shutil  # what it imports takes longer than all else here, and `--help` needs none of it

    return shutil.get_terminal_size((100, 24)).columns


class Painter:
    """Wraps texts in terminal colours, or leaves them as they are."""

    def __init__(self, color: bool) -> None:
        self._color = color

    def __call__(self, text: str, *styles: str) -> str:
        """Return a text in so many of STYLES."""
        if not self._color or not styles or not text.strip():
            return text
        return f"\x1b[{';'.join(STYLES[style] for style in styles)}m{text}\x1b[0m"


class StatusLine:
    """One line on stderr that is drawn in its place again and again.

    Attributes:
        live: whether there is a terminal to draw on; elsewhere nothing is drawn.
    """

    def __init__(self, every_s: float = 0.2) -> None:
        """Take the seconds between two times that it ``is_due``."""
        self.live = _is_drawn_on(sys.stderr) and events() is None
        self._every_s, self._drawn_at = every_s, -math.inf

    def is_due(self) -> bool:
        """Tell whether to draw now."""
        return self.live and time.monotonic() - self._drawn_at >= self._every_s

    def draw(self, text: str) -> None:
        """Draw a text in place of the one before; it must not be wider than the terminal."""
        if self.live:
            self._drawn_at = time.monotonic()
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        self.draw("")


def columns(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """Return a line for each row of cells, with the cells of a column below each other and two blanks between columns.

    Takes also the numbers of the columns that are set to the right.
    """
    sizes = [(max(map(width, column)), at in right) for at, column in enumerate(zip(*rows, strict=True))]
    return ["  ".join(pad(cell, *size) for cell, size in zip(row, sizes, strict=True)).rstrip() for row in rows]


def pad(text: str, size: int, right: bool = False) -> str:
    """Return a text filled with blanks to so many columns of a terminal."""
    blanks = " " * (size - width(text))
    return blanks + text if right else text + blanks


def printable(text: str) -> str:
    """Return a text on one line and without control characters, which names and errors may hold."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def short(text: str, limit: int) -> str:
    """Return a text of at most so many characters; three dots end one that is cut."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def width(text: str) -> int:
    """Return the columns that a terminal needs for a text: two for wide characters, none for combining ones."""
    if text.isascii():  # nearly all is, and pictures ask for single characters many times
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
