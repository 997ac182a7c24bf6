"""Trials of many scenarios at a time, each in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import IO

from cluster.base import exits, processes
from cluster.base.binary import EtcdBinary
from cluster.base.exits import Failure, ListenerError
from cluster.base.processes import python_path
from cluster.base.signals import uninterrupted
from loadgen.bugs.scenario import Scenario
from loadgen.bugs.trial import Found, Order, Outcome

_POLL_S = 0.05
# Beyond its limit, for the start and the end of its cluster and for the check, on a busy machine too.
_MORE_S = 240.0
_END_S = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """One scenario to try on one etcd.

    Attributes:
        folder: where each try gets a run folder.
        seconds: how long it may take; None: the scenario's own limit.
    """

    scenario: Scenario
    binary: EtcdBinary
    folder: Path
    seconds: float | None = None
    seed: int = 1

    @property
    def limit_s(self) -> float:
        """How long it may take."""
        return self.scenario.limit_s if self.seconds is None else self.seconds


class _Running:
    """A process that tries something."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.began = time.monotonic()
        trial.folder.mkdir(parents=True, exist_ok=True)
        self._log = trial.folder / "trial.log"
        order: Order = {
            "issue": trial.scenario.issue, "etcd": dataclasses.asdict(trial.binary),
            "folder": str(trial.folder.absolute()), "seconds": trial.seconds, "seed": trial.seed,
        }  # fmt: skip
        with self._log.open("wb") as log:
            # A Ctrl-C at the terminal is for the command alone, which ends these.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "loadgen.bugs.trial"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env={**os.environ, "PYTHONPATH": python_path()}, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end says why
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def outcome(self) -> Outcome | None:
        """Return what came of it; None while it goes on. Raises ListenerError where a bug of ours has ended it."""
        seconds = time.monotonic() - self.began
        code = self._process.poll()
        if code is None:
            if seconds < self.trial.limit_s + _MORE_S:
                return None
            self.end()
            return Outcome(Found.NOT_TRIED, seconds, 1, reason=f"it did not end in {seconds:.0f} s")
        out: IO[bytes] | None = self._process.stdout
        assert out is not None
        said = out.read()
        self.end()
        if code == exits.BUG:
            what = f"the scenario of {self.trial.scenario.issue} on etcd {self.trial.binary.version}: "
            what += said.decode("utf-8", "replace").strip()
            trace = self._log.read_text(encoding="utf-8", errors="replace")
            raise ListenerError(Failure(code, what, trace, self._log))
        try:
            found = json.loads(said)
            return Outcome(**{**found, "found": Found(found["found"])})
        except (ValueError, TypeError, KeyError):
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = lines[-1] if lines else "it said nothing"
            return Outcome(
                Found.NOT_TRIED, seconds, 1, reason=f"its process ended with {code}: {last} (in {self._log})"
            )

    def ask_to_end(self) -> None:
        """Have it end, and with it all that it started: it does at the end of its stdin."""
        processes.close_stdin(self._process)

    def end(self) -> None:
        """Do the same, and wait until it has."""
        processes.end(self._process, _END_S)


def run(
    trials: Iterable[Trial], jobs: int, tick: Callable[[list[Trial]], object]
) -> Generator[tuple[Trial, Outcome], None, None]:
    """Try so many at a time, and give each with its outcome when it has ended.

    ``tick`` is called with those that go on, 20 times a second. Close it, which ends those that go on. Raises
    ListenerError where a bug of ours has ended one, which is not given, once the others have ended.
    """
    waiting = list(trials)
    running: list[_Running] = []
    failed: ListenerError | None = None
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Running(waiting.pop(0)))
            tick([each.trial for each in running])
            time.sleep(_POLL_S)
            for each in list(running):
                try:
                    outcome = each.outcome()
                except ListenerError as error:
                    failed = failed or error
                    running.remove(each)
                    continue
                if outcome is not None:
                    running.remove(each)
                    yield each.trial, outcome
        if failed is not None:
            raise failed
    finally:
        with uninterrupted():
            for each in running:
                each.ask_to_end()
            for each in running:
                each.end()
