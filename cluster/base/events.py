"""Events for programs: what a command tells on stderr as JSON objects, one a line, in the place of words for people."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys

_WARNING, _NOTE = "warning: ", "note: "


class Events:
    """The events of a command that is running; `start` makes it, and `current` is it.

    Attributes:
        at_end: what else the last event says.
    """

    def __init__(self) -> None:
        self.at_end: dict[str, object] = {}
        self._error: str | None = None

    def emit(self, event: str, **fields: object) -> None:
        """Write an event, with the time. That it cannot be written, as on a full disk, is no reason to end."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        with contextlib.suppress(OSError):
            print(json.dumps({"event": event, "time": now, **fields}), file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """Write a message for people as an event: a warning, where it begins so, or a note."""
        event = "warning" if line.startswith(_WARNING) else "note"
        self.emit(event, message=line.removeprefix(_WARNING).removeprefix(_NOTE))

    def fail(self, line: str) -> None:
        """Take the line of an error, with which the command ends."""
        self._error = line

    def end(self, exit_code: int) -> None:
        """Write the last event."""
        self.emit("ended", exit_code=exit_code, error=self._error, **self.at_end)


_current: Events | None = None


def start() -> Events:
    """Have this process tell events, until `stop`."""
    global _current  # noqa: PLW0603
    _current = Events()
    return _current


def stop() -> None:
    """Have this process tell people again."""
    global _current  # noqa: PLW0603
    _current = None


def current() -> Events | None:
    """Return the events of this process; None where it tells people."""
    return _current
