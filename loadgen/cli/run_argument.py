"""The argument RUN of the commands that read a finished run."""

from __future__ import annotations

from pathlib import Path

from cluster.base.console import say
from loadgen.result.document import LATEST, find_run

WHAT_LATEST_IS = f"'{LATEST}' for the run that was started last from this folder, wherever its run folder is"


def find(name: str) -> Path:
    """Return the run folder that RUN means, and say which one is the latest. Raises ReportError."""
    folder = find_run(name)
    if folder != Path(name):
        say(f"{name} is {folder}")
    return folder
