"""Records of measurements that take long: lines of JSON in docs/evidence, of the code that is checked out."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from tests.support.checkout import code_hash, commit_of
from tests.support.command import ROOT

# What can be measured.
CODE = ("cluster", "loadgen", "viz", "locustfiles", "tests")
# The way of an operation: what its meaning and its latency come from.
LOAD_PATH = tuple(f"loadgen/{folder}" for folder in ("stats", "wire", "proto", "history", "client", "engine", "load"))
FOLDER = ROOT / "docs" / "evidence"
# Written by what measures, so it is no part of what is measured.
_WRITTEN = ("docs/evidence", "docs/etcd-versions.md")


def about_now(*folders: str) -> dict[str, Any]:
    """Return what a measurement is of: ``code``, a hash of the files of these folders, and the processors it has.

    Takes folders of the checkout. Measurements of the same code count together, whatever the commit.
    """
    return {"code": code_hash(ROOT, folders, _WRITTEN), "processors": len(os.sched_getaffinity(0))}


def append(name: str, row: dict[str, Any]) -> None:
    """Add a measurement to a record, with the time and the commit."""
    FOLDER.mkdir(exist_ok=True)
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with (FOLDER / name).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"at": at, "commit": commit_of(ROOT, CODE), **row}) + "\n")


def recorded(name: str, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the measurements of a record that were made alike."""
    path = FOLDER / name
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [row for row in map(json.loads, lines) if about.items() <= row.items()]


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keep so many processors busy meanwhile."""
    loops = [subprocess.Popen(["yes"], stdout=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
