"""The processes of ours that raftload starts: their import path, and their end, which is that of their stdin."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

Process = subprocess.Popen[bytes] | subprocess.Popen[str]


def python_path() -> str:
    """``PYTHONPATH`` for a process of ours: our own folder, then what this process has there."""
    ours = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([ours, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])


def close_stdin(process: Process) -> None:
    """Ask a process to end, and do not wait for it. Harmless when repeated, and where it has ended."""
    with contextlib.suppress(OSError, ValueError):
        if process.stdin is not None:
            process.stdin.close()


def wait(process: Process, within_s: float) -> None:
    """Wait until a process that was asked to end has ended; kill it where it takes more than so many seconds."""
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end(process: Process, within_s: float) -> None:
    """Ask a process to end and wait, as ``wait`` does, until it has. What it said and nobody has read is lost."""
    close_stdin(process)
    wait(process, within_s)
    if process.stdout is not None:
        process.stdout.close()
