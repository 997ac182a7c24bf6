"""The import path for the Python processes that raftload starts."""

from __future__ import annotations

import os
from pathlib import Path


def python_path() -> str:
    """``PYTHONPATH`` for a process of ours: our own folder, then what this process has there."""
    ours = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([ours, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
