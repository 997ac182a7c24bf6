"""What happened when, as ``events.csv``: one line for each thing done to a cluster and each effect seen.

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

from cluster.errors import ClusterError

COLUMNS = ("time", "monotonic_ns", "phase", "fault", "members", "detail")
Phase = Literal["begin", "done", "effect", "failed"]


class Timeline:
    """A file that events are appended to."""

    def __init__(self, path: Path) -> None:
        """Takes its path; the folder and the header are made with the first event."""
        self.path = path

    def add(self, phase: Phase, fault: str, members: Sequence[str], detail: str = "") -> None:
        """Appends an event of now. Raises ClusterError where the file cannot be written."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                if file.tell() == 0:
                    writer.writerow(COLUMNS)
                writer.writerow((now, time.monotonic_ns(), phase, fault, " ".join(members), detail))
        except OSError as exc:
            raise ClusterError(f"cannot write the timeline {self.path}: {exc.strerror or exc}") from exc

    def read(self) -> list[dict[str, str]]:
        """All events, as the columns have them; none where there is no file."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
