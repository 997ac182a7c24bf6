"""The observer of members during a load: a process of its own, so that it takes no time from the generator.

It asks each member for its status four times a second and for its metrics every two seconds, and appends the answers
to ``members.csv`` and ``metrics.csv``. It runs as ``python -m cluster.observe.observer``, takes one JSON object on
stdin that says whom to watch, then a line for each scrape that is wanted at once, which it answers on stdout, and ends
with its stdin, so it never outlives its owner.

A question to a member costs that member about as much as a serializable read over the JSON gateway; see
``docs/formats.md`` for what was measured.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self, TextIO, TypedDict

from cluster.base import processes
from cluster.base.endpoint import Endpoint
from cluster.base.errors import ClusterError, NoAnswer, RaftloadError
from cluster.base.processes import python_path
from cluster.base.security import Security
from cluster.base.topology import Member
from cluster.observe import calls, metrics, probe
from cluster.observe.health import list_of
from cluster.observe.probe import MemberStatus
from cluster.schema import run_documents

MEMBERS, METRICS = "members.csv", "metrics.csv"
MEMBER_COLUMNS = (
    "time", "monotonic_ns", "member", "answers", "role", "leader", "term", "commit_index", "applied_index", "revision",
    "db_size", "round_trip_ms", "connect_ms", "list_ms", "status_ms", "reason",
)  # fmt: skip
METRIC_COLUMNS = ("time", "monotonic_ns", "member", "phase", *metrics.SCALARS, *metrics.HISTOGRAMS)
POLL_S, SCRAPE_S, ANSWER_S = 0.25, 2.0, 1.0


class _Order(TypedDict):
    """What the process is told first: the folder for its files, and name and endpoint of each member."""

    folder: str
    members: list[tuple[str, str]]


class _Report(run_documents.ObserverCost, total=False):
    """What the process says at its end."""

    failures: list[str]


class _RowWriter(Protocol):
    """A writer of the csv module."""

    def writerow(self, row: Iterable[object], /) -> object:
        """Write a row."""


class Observer:
    """The process, from its owner's side.

    Attributes:
        summary: after ``stop``, how often it asked and what it cost: ``polls``, ``unanswered``, ``scrapes``,
            ``cpu_s``; empty where the process did not live to tell.
    """

    def __init__(self, folder: Path, members: Sequence[tuple[str, str]], security: Security | None = None) -> None:
        """Start it and do not wait for it.

        Takes the folder for its files; name and ``host:port`` or URL of each member, an empty name being found out; and
        how to speak TLS to them and who logs in. Raises ClusterError where it cannot be started.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL_")}
        self.summary: run_documents.ObserverCost = {}
        self.failures: list[str] = []
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cluster.observe.observer"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
                env={**kept, **(security or Security()).to_environment(), "PYTHONPATH": python_path()},
                text=True,
            )  # fmt: skip
        except OSError as exc:
            raise ClusterError(f"cannot start the observer of the members: {exc.strerror or exc}") from exc
        self._send({"folder": str(folder), "members": list(members)})

    def scrape(self, phase: str) -> None:
        """Scrape every member now and return when that is on disk; ``phase`` goes into the column of this name."""
        self._carry_out({"scrape": phase})

    def stop(self) -> None:
        """End it after a last look; harmless when repeated."""
        if self._process.stdin is None or self._process.stdin.closed:
            return
        self._carry_out({"stop": True})
        self.kill()

    def kill(self) -> None:
        """End it without a last look; harmless when repeated."""
        processes.end(self._process, ANSWER_S + 1)

    def _send(self, order: Mapping[str, object]) -> None:
        """Send an order. An observer that is gone is no reason to stop a run."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()

    def _carry_out(self, order: Mapping[str, object]) -> None:
        """Send an order and wait until it is done."""
        assert self._process.stdout is not None
        self._send(order)
        self.summary = {}
        with contextlib.suppress(OSError, ValueError):
            report: _Report = json.loads(self._process.stdout.readline() or "{}")
            self.failures = report.pop("failures", [])
            self.summary = report


# The process itself


class _Files:
    """Both files, written by one thread at a time and flushed at each row, so that a reader sees whole rows.

    Attributes: how many rows there are, ``polls`` with those ``unanswered`` among them, and ``scrapes``.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._ended = False
        self.polls = self.unanswered = self.scrapes = 0
        self._files: list[TextIO] = []
        self._members = self._open(folder / MEMBERS, MEMBER_COLUMNS)
        self._metrics = self._open(folder / METRICS, METRIC_COLUMNS)

    def _open(self, path: Path, columns: Sequence[str]) -> _RowWriter:
        file = path.open("w", newline="", encoding="utf-8")
        self._files.append(file)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        return writer

    def poll(self, cells: Mapping[str, object], *, answered: bool) -> None:
        """Write a row of ``members.csv``: its cells by column, empty where there is none."""
        with self._lock:
            if self._ended:
                return
            self._members.writerow([cells.get(column, "") for column in MEMBER_COLUMNS])
            self._files[0].flush()
            self.polls += 1
            self.unanswered += not answered

    def scrape(self, row: Sequence[object]) -> None:
        with self._lock:
            if self._ended:
                return
            self._metrics.writerow(row)
            self._files[1].flush()
            self.scrapes += 1

    def end(self) -> None:
        """Write no more rows, so that the counts stay those of the files."""
        with self._lock:
            self._ended = True


class _Watch(threading.Thread):
    """One member's questions, one after the other, so that a silent member delays no other's."""

    def __init__(
        self,
        name: str,
        endpoint: str,
        others: Sequence[str],
        security: Security,
        files: _Files,
        names: dict[int, str],
        stop: threading.Event,
    ) -> None:
        super().__init__(daemon=True)
        self._member = Member(name, str(Endpoint.parse(endpoint)), "", "")
        self._others = [str(Endpoint.parse(each)) for each in others]
        self._security = security
        self._files = files
        self._names = names
        self._stop_asked = stop
        self._wanted: list[tuple[str, threading.Event]] = []
        self._woken = threading.Event()
        self.failure = ""

    def scrape_now(self, phase: str) -> threading.Event:
        """Ask for a scrape; the event returned is set when it is done."""
        done = threading.Event()
        self._wanted.append((phase, done))
        self._woken.set()
        if self.failure:
            done.set()
        return done

    def wake(self) -> None:
        """End its sleep, as where it is to stop."""
        self._woken.set()

    def run(self) -> None:
        """Poll until it is told to stop; any other end is named in the summary."""
        try:
            self._ask()
        except Exception as exc:
            name = self._member.name or self._member.endpoint
            self.failure = f"{name} was not observed to the end: {type(exc).__name__}: {exc}"
            for _, done in self._wanted:
                done.set()

    def _ask(self) -> None:
        began = time.monotonic()
        tick, scraped_at = 0, None
        is_there = self._poll()
        while True:
            now = time.monotonic()
            wanted = [*self._wanted]
            if is_there and (wanted or scraped_at is None or now - scraped_at >= SCRAPE_S):
                self._scrape(wanted[0][0] if wanted else "")
                scraped_at = now
            for _, done in wanted:
                done.set()
            self._wanted = self._wanted[len(wanted) :]
            # A tick that a silent member let pass is not made up for. At a random moment of each: what stands still at
            # regular times would always be met, or never.
            tick = max(tick + 1, int((time.monotonic() - began) / POLL_S) + 1)
            self._woken.wait(max(0.0, began + (tick + random.random()) * POLL_S - time.monotonic()))
            self._woken.clear()
            if self._stop_asked.is_set():
                return
            is_there = self._poll()

    def _poll(self) -> bool:
        """Ask for its status; return whether it is there, also where it takes too long to answer.

        One whose store is locked, as while its disk hangs, still tells its metrics.
        """
        began, stamp = time.monotonic_ns(), _now()
        try:
            with calls.timed() as timing:
                status = probe.member_status(self._member, ANSWER_S, self._security)
        except NoAnswer as exc:
            name = self._member.name or self._member.endpoint
            self._files.poll(
                {"time": stamp, "monotonic_ns": began, "member": name, "answers": 0, **_cells(timing),
                 "reason": exc.cause},
                answered=False,
            )  # fmt: skip
            return exc.cause == "timeout" and timing.connect_ms is not None
        took_ms = (time.monotonic_ns() - began) / 1e6 - (timing.list_ms or 0.0)
        name = self._named(status)
        leader = self._names.get(status.leader_id, f"{status.leader_id:x}") if status.leader_id else ""
        self._files.poll(
            {"time": stamp, "monotonic_ns": began, "member": name, "answers": 1, "role": status.role, "leader": leader,
             "term": status.term, "commit_index": status.commit_index, "applied_index": status.applied_index,
             "revision": status.revision, "db_size": status.db_size, "round_trip_ms": f"{took_ms:.3f}",
             **_cells(timing), "reason": "; ".join(status.errors)},
            answered=True,
        )  # fmt: skip
        return True

    def _named(self, status: MemberStatus) -> str:
        """Return the member's name; of one whose name nobody told us, what the cluster lists it as."""
        if not self._member.name:
            # A learner lists nobody, so the others are asked, too.
            listed = list_of([self._member.client_url, *self._others], ANSWER_S, self._security)
            self._names.update({each.id: each.name for each in listed if each.was_started})
            name = self._names.get(status.member_id, f"{status.member_id:x}")
            self._member = Member(name, self._member.client_url, "", "")
        self._names.setdefault(status.member_id, self._member.name)
        return self._member.name

    def _scrape(self, phase: str) -> None:
        began, stamp = time.monotonic_ns(), _now()
        try:
            code, body = calls.http(
                self._member.client_url, "GET", "/metrics", timeout_s=ANSWER_S, security=self._security
            )
            found = metrics.parse(body.decode("utf-8", "replace")) if code == 200 else None
        except (RaftloadError, ValueError):
            found = None
        if found is None:
            return
        scalars = [f"{found.values[column]:.15g}" if column in found.values else "" for column in metrics.SCALARS]
        cells = [found.histograms[column].to_cell() if column in found.histograms else ""
                 for column in metrics.HISTOGRAMS]  # fmt: skip
        self._files.scrape((stamp, began, self._member.name, phase, *scalars, *cells))


def _cells(timing: calls.Timing) -> dict[str, str]:
    parts = {"connect_ms": timing.connect_ms, "list_ms": timing.list_ms, "status_ms": timing.call_ms}
    return {column: f"{each:.3f}" for column, each in parts.items() if each is not None}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


class _Process:
    """All watches, and the orders that come in."""

    def __init__(self, order: _Order) -> None:
        self._files = files = _Files(Path(order["folder"]))
        self._stop = threading.Event()
        names: dict[int, str] = {}
        security = Security.from_environment()
        endpoints = [endpoint for _, endpoint in order["members"]]
        self._watches = [
            _Watch(name, endpoint, [each for each in endpoints if each != endpoint], security, files, names, self._stop)
            for name, endpoint in order["members"]
        ]

    def __enter__(self) -> Self:
        for watch in self._watches:
            watch.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for watch in self._watches:
            watch.wake()
        for watch in self._watches:
            watch.join(2 * ANSWER_S)
        self._files.end()

    def scrape(self, phase: str) -> None:
        for done in [watch.scrape_now(phase) for watch in self._watches]:
            done.wait(2 * ANSWER_S)

    def summary(self) -> _Report:
        """Return what was done, once the watches have ended."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "polls": self._files.polls,
            "unanswered": self._files.unanswered,
            "scrapes": self._files.scrapes,
            "failures": [watch.failure for watch in self._watches if watch.failure],
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        }


def main() -> None:
    """Serve the orders on stdin until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    first = sys.stdin.readline()
    if not first:
        return
    order: dict[str, str] = {}
    with _Process(json.loads(first)) as process:
        for line in sys.stdin:
            order = json.loads(line)
            if "scrape" in order:
                process.scrape(order["scrape"])
                print("{}", flush=True)
            else:
                process.scrape("after")
                break
    if "stop" in order:
        print(json.dumps(process.summary()), flush=True)


if __name__ == "__main__":
    main()
