"""Measurements that take long: their records in docs/evidence, of the code that is checked out, and their end."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from cluster.base.errors import RaftloadError
from cluster.base.exits import describe, line
from cluster.base.signals import heard
from tests.support.checkout import code_hash, commit_of
from tests.support.command import ROOT

# What can be measured.
CODE = ("cluster", "loadgen", "viz", "locustfiles", "tests")
# The way of an operation: what its meaning and its latency come from.
LOAD_PATH = tuple(f"loadgen/{folder}" for folder in ("stats", "wire", "proto", "history", "client", "engine", "load"))
FOLDER = ROOT / "docs" / "evidence"
# Written by what measures, so it is no part of what is measured.
_WRITTEN = ("docs/evidence", "docs/etcd-versions.md")
# A command that is to end has so long until it is killed.
_ENDS_S = 30.0
_running: list[subprocess.Popen[str]] = []
# One entry for each command that is being started, and is not yet among those that run.
_starting: list[None] = []
_ended_by: list[int] = []


def command(main: Callable[[], int]) -> NoReturn:
    """Run a soak command and exit with what it returns; SIGTERM ends it as Ctrl-C does, and what `run` runs, too.

    Its ``with`` blocks are left, so that its clusters and folders go. The exit code is then 130 or 143. An etcd that is
    not there, and what else ends raftload's own commands in one line, ends it in the same line.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        with heard():
            raise SystemExit(main())
    except RaftloadError as error:
        print(line(error.exit_code, describe(error)), file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _end(number: int, _: FrameType | None) -> None:
    if _ended_by:
        return  # it ends, and what it leaves behind is not to be left in the middle
    _ended_by.append(number)
    for process in [*_running]:
        _ask_to_end(process)
    # What is just being started would be waited for to its own end: `run` tells it, and raises then.
    if not _starting:
        _raise_if_ended()


def _ask_to_end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def _raise_if_ended() -> None:
    if _ended_by:
        raise SystemExit(128 + _ended_by[0])


def run(*words: str, timeout_s: float | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in any thread, and return its exit code and what it printed to pipes.

    It ends where this process is to end. Takes what `subprocess.Popen` takes; stdout is a pipe. Raises TimeoutExpired,
    and SystemExit where this process is to end.
    """
    # In a group of its own, so that what a shell or make runs gets the signal, and none gets it twice.
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True, "process_group": 0, **options}
    _starting.append(None)
    try:
        _raise_if_ended()
        started = subprocess.Popen(words, **options)
        _running.append(started)
    finally:
        _starting.pop()
    with started as process:
        try:
            if _ended_by:  # since before it was among those that are told to end
                _ask_to_end(process)
            out, err = process.communicate(timeout=timeout_s)
        except BaseException:
            if not _ended_by:  # else it was asked, and a second signal would cut its end short
                _ask_to_end(process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_ENDS_S)
            process.kill()
            raise
        finally:
            _running.remove(process)
    _raise_if_ended()
    return subprocess.CompletedProcess(words, process.returncode, out, err)


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
