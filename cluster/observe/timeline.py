"""The timeline ``events.csv``: one line for each thing done to a cluster and each effect seen.

Columns: ``time`` (ISO 8601, UTC, milliseconds) and ``monotonic_ns`` (CLOCK_MONOTONIC, comparable between processes of
one boot) of the same moment; ``phase``: ``begin`` before it is done, ``done`` once it is, ``effect`` when its effect is
seen, or ``failed``; ``fault``; ``members`` and ``detail``.
"""

from __future__ import annotations

import csv
import datetime
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cluster.base.errors import ClusterError
from cluster.base.files import FileError

COLUMNS = ("time", "monotonic_ns", "phase", "fault", "members", "detail")
Phase = Literal["begin", "done", "effect", "failed"]


class TimelineError(ClusterError, FileError):
    """A file of a timeline cannot be written, as on a full disk."""


class Timeline:
    """A file that events are appended to, or several that get the same ones."""

    def __init__(self, path: Path, *copies: Path) -> None:
        """Take its path and those of copies; folders and headers are made with the first event."""
        self.path = path
        self._files = tuple({file.resolve(): file for file in (path, *copies)}.values())

    def add(self, phase: Phase, fault: str, members: Sequence[str], detail: str = "") -> None:
        """Append an event of now. Raises TimelineError where a file cannot be written."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        row = (now, time.monotonic_ns(), phase, fault, " ".join(members), detail)
        for path in self._files:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a", newline="", encoding="utf-8") as file:
                    writer = csv.writer(file)
                    if file.tell() == 0:
                        writer.writerow(COLUMNS)
                    writer.writerow(row)
            except OSError as exc:
                reason = exc.strerror or exc
                raise TimelineError(f"cannot write the timeline {path}: {reason}", refers_to=path) from exc

    def read(self) -> list[dict[str, str]]:
        """Return all events, as the columns have them; none where there is no file."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
