"""The recorder of the cluster's own figures, metrics and logs during a run, into the run folder.

Polls and metrics come from `cluster.observe.observer`. Of a cluster of ours, whatever ends up in its timeline while the
run goes on, be it by `raftload cluster kill` in another terminal, becomes the run's `events.csv`, and the members' logs
come into `logs/`.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.errors import ClusterError
from cluster.base.security import Security
from cluster.base.state import state_dir
from cluster.observe import running as state
from cluster.observe.observer import Observer
from cluster.observe.timeline import COLUMNS, Timeline

if TYPE_CHECKING:
    from cluster.schema.run_documents import ObserverCost

EVENTS = "events.csv"
MOST_LOG_BYTES = 4 << 20


class ClusterRecorder:
    """Watches from before the load until after it.

    Attributes:
        notes: what could not be had, a line each.
    """

    def __init__(self, folder: Path, members: Sequence[tuple[str, str]], security: Security | None = None) -> None:
        """Start watching members, given by name (empty where it is not known) and ``host:port`` or URL.

        ``security`` is how to speak TLS to them and who logs in.
        """
        self._folder = folder
        self._endpoints = {endpoint for _, endpoint in members}
        self._began_ns = time.monotonic_ns()
        self._observer: Observer | None = None
        self.notes: list[str] = []
        try:
            self._observer = Observer(folder, members, security) if members else None
        except ClusterError as error:
            self.notes.append(str(error))

    def load_begins(self) -> None:
        """Note the members' counters as they are before the load."""
        if self._observer is not None:
            self._observer.scrape("before")

    def load_ended(self) -> None:
        """Note the members' counters as they are at the end of the load."""
        if self._observer is not None:
            self._observer.scrape("end")

    def close(self) -> ObserverCost | None:
        """Stop watching and gather what a cluster of ours has written.

        Returns how often the members were asked and what that cost; None where nobody watched.
        """
        if self._observer is not None:
            self._observer.stop()
            self.notes += self._observer.failures
        running = self._ours()
        if running is not None:
            self._gather_events(state_dir() / EVENTS)
            self._gather_logs(running)
        return (self._observer.summary or None) if self._observer is not None else None

    def abandon(self) -> None:
        """Stop watching and gather nothing."""
        if self._observer is not None:
            self._observer.kill()

    def _ours(self) -> state.Running | None:
        """Return the cluster of `raftload cluster up` that is under load, None where it is another."""
        for backend in state.BACKENDS:
            running = state.load(backend)
            if running is not None and self._endpoints & {member.endpoint for member in running.members}:
                return running
        return None

    def _gather_events(self, source: Path) -> None:
        """Add what was done to the cluster since the run's start to the run's own events, in order."""
        mine = Timeline(self._folder / EVENTS)
        try:
            events = {(row["monotonic_ns"], row["phase"]): row for row in (*Timeline(source).read(), *mine.read())}
            rows = sorted((row for row in events.values() if int(row["monotonic_ns"]) >= self._began_ns),
                          key=lambda row: int(row["monotonic_ns"]))  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.notes.append(f"the cluster's timeline {source} cannot be read: {error}")
            return
        if rows:
            with mine.path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)

    def _gather_logs(self, running: state.Running) -> None:
        from cluster.lifecycle.up import find

        try:
            cluster = find(running.backend)
            if cluster is None:
                return
            with cluster:
                for member in cluster.members:
                    text = cluster.log(member.name).encode("utf-8", "replace")
                    # Of a cluster that has been up for days, the end; its first line may be half a one.
                    (self._folder / "logs" / f"{member.name}.log").write_bytes(text[-MOST_LOG_BYTES:])
        except (ClusterError, OSError) as error:
            self.notes.append(f"the members' logs could not be had: {error}")
