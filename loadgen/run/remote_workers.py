"""Workers on other machines: admission, clock offset, loss.

A worker of another machine reports for work over Locust's own protocol and says, in one more message, what it is:
its version of raftload and its scenario. One that does not fit is refused with the reason, before it can take
a share of a run. Locust's port has no authentication: see "Many machines" in docs/many-machines.md.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import gevent
from gevent.event import AsyncResult

from loadgen.load import listening, locust_internals
from loadgen.load.protocol import CLOCK, CLOCK_OFFSET, REFUSED, Clock, Counts, Hello, Identity
from loadgen.load.scenarios import check

if TYPE_CHECKING:
    from loadgen.load.locust_types import MasterRunner, Message

# A worker reports twice a second; after so long without a word it counts as lost, unless it speaks up again.
SILENCE_S = 5.0
_PINGS = 10
_PING_S = 2.0


class RemoteWorker:
    """One worker on another machine, as its master sees it.

    Attributes:
        number: its place among the run's workers, from 1.
        client_id: its name in Locust's protocol.
        host: its machine's name.
        name: what messages call it.
        clock_offset_ns: its wall clock less ours; 0 until it is measured.
        clock_error_ns: by how much that may be wrong, either way: half the shortest round trip.
        gone: it has said that it leaves, and will not come back.
    """

    log = None

    def __init__(self, number: int, client_id: str, host: str, pid: int) -> None:
        self.number = number
        self.client_id = client_id
        self.host = host
        self.name = f"worker {number} (pid {pid} on {host})"
        self.clock_offset_ns = 0
        self.clock_error_ns: int | None = None
        self.gone = False
        self._heard_at = time.monotonic()

    def heard(self) -> None:
        """Note a sign of life."""
        self._heard_at = time.monotonic()

    def death(self) -> str | None:
        """Return why it counts as lost, None while it does not. One that was only silent may come back."""
        if self.gone:
            return "it left"
        silent_s = time.monotonic() - self._heard_at
        return f"not heard of for {silent_s:.0f} s" if silent_s > SILENCE_S else None

    def last_words(self) -> str:
        """Return what is known of its end."""
        return f"see its terminal on {self.host}"

    def end(self) -> None:
        """Nothing: it ends when its master says quit, or is gone."""


class RemoteWorkers:
    """The master's side: lets workers of other machines in until there are enough, and times their clocks.

    Takes Locust's master runner, what a worker must be (`identity`), how many to wait for, and the number of the
    first. ``refused`` maps the names of those that were not let in to the reason.
    """

    def __init__(self, runner: MasterRunner, wanted: Identity, expected: int, first_number: int) -> None:
        self._runner = runner
        self._wanted = wanted
        self.expected = expected
        self._first_number = first_number
        self.workers: list[RemoteWorker] = []
        # Each message asks who sent it.
        self._by_id: dict[str, RemoteWorker] = {}
        self.refused: dict[str, str] = {}
        self._closed = False
        self._known: set[str] = set()
        self._pongs: dict[str, AsyncResult] = {}
        self._handle = locust_internals.intercept_messages(runner, self._on_message)
        listening.handle(runner, CLOCK, self._on_pong)

    def worker_of(self, client_id: str) -> RemoteWorker | None:
        """Return the worker behind a client id of Locust's protocol."""
        return self._by_id.get(client_id)

    @property
    def complete(self) -> bool:
        """Whether all that are waited for are here and their clocks are known."""
        return len(self.workers) == self.expected and all(w.clock_error_ns is not None for w in self.workers)

    def describe(self) -> str:
        """Return who is here, for people: ``2 of 8 workers (host-a 2)``."""
        hosts: dict[str, int] = {}
        for worker in self.workers:
            hosts[worker.host] = hosts.get(worker.host, 0) + 1
        named = ", ".join(f"{host} {count}" for host, count in sorted(hosts.items()))
        text = f"{len(self.workers)} of {self.expected} workers" + (f" ({named})" if named else "")
        away = "; ".join(f"refused {name}: {reason}" for name, reason in self.refused.items())
        return f"{text}; {away}" if away else text

    def hello(self, client_id: str, data: Hello) -> None:
        """Let a worker in, or turn it away. Takes what it said of itself."""
        if self.worker_of(client_id) is not None:
            return
        name = f"pid {data.get('pid')} on {data.get('host')}"
        for what, value in self._wanted.items():
            if data.get(what) != value:
                self._refuse(client_id, name, f"its {what} is {data.get(what)}, but the master's is {value}")
                return
        if self._closed or len(self.workers) >= self.expected:
            why = "it came after the run had begun" if self._closed else f"{self.expected} workers are here already"
            self._refuse(client_id, name, why)
            return
        number = self._first_number + len(self.workers)
        worker = RemoteWorker(number, client_id, str(data.get("host")), int(data.get("pid") or 0))
        self.workers.append(worker)
        self._by_id[client_id] = worker
        gevent.spawn(self._time_clock, worker)

    def close(self, known: set[str]) -> None:
        """Let nobody in from now on; drop those that never said what they are. Takes the client ids that stay."""
        self._closed, self._known = True, known
        for client_id in set(self._runner.clients) - known:
            self._drop(client_id, "it did not send what a worker of raftload sends first: is it one?")

    def dismiss(self) -> None:
        """Tell the workers to quit."""
        for worker in self.workers:
            locust_internals.dismiss(self._runner, worker.client_id)

    # -- messages -------------------------------------------------------------------------------------------

    def _on_message(self, client_id: str, msg: Message) -> None:
        worker = self.worker_of(client_id)
        if worker is not None:
            worker.heard()
            worker.gone |= msg.type == locust_internals.QUIT
        elif msg.type == locust_internals.CLIENT_READY and self._closed and client_id not in self._known:
            # Locust would give it users of a run in which it has no share. Let it say who it is, no more.
            locust_internals.take_without_users(self._runner, client_id)
            return
        self._handle(client_id, msg)

    def _refuse(self, client_id: str, name: str, reason: str) -> None:
        self.refused[name] = reason
        REFUSED.send(self._runner, {"reason": reason}, client_id)
        locust_internals.forget(self._runner, client_id)

    def _drop(self, client_id: str, reason: str) -> None:
        self.refused[client_id] = reason
        locust_internals.dismiss(self._runner, client_id)
        locust_internals.forget(self._runner, client_id)

    # -- clocks ---------------------------------------------------------------------------------------------

    def _time_clock(self, worker: RemoteWorker) -> None:
        """Measure a worker's clock: of ten round trips the shortest one tells most.

        Source: Cristian, "Probabilistic clock synchronization" (1989): the offset is known to half the round trip.
        """
        best: tuple[int, int] | None = None
        for _ in range(_PINGS):
            pong = self._pongs[worker.client_id] = AsyncResult()
            sent = time.time_ns()
            CLOCK.send(self._runner, {"sent": sent}, worker.client_id)
            try:
                there, back = pong.get(timeout=_PING_S)
            except gevent.Timeout:
                continue
            trip = back - sent
            if best is None or trip < best[0]:
                best = trip, there - (sent + back) // 2
        if best is not None:
            worker.clock_offset_ns = best[1]
            worker.clock_error_ns = best[0] // 2
            # For what all workers are to begin at one moment.
            CLOCK_OFFSET.send(self._runner, {"ns": best[1]}, worker.client_id)

    def _on_pong(self, client_id: str, clock: Clock) -> None:
        back = time.time_ns()
        pong = self._pongs.get(client_id)
        if pong is not None and not pong.ready():
            pong.set((clock["there"], back))


def identity(scenario: str) -> Identity:
    """Return what workers must have in common with their master: raftload's version, and the scenario.

    A scenario of one's own is known by a hash of its file, not by its path.
    """
    try:
        release = version("raftload")
    except PackageNotFoundError:
        release = "source"
    name = check(scenario)
    if name != scenario:
        name += " " + hashlib.sha256(Path(scenario).read_bytes()).hexdigest()[:12]
    return {"version": release, "scenario": name}


def correct(totals: Mapping[str, Counts], offset_ns: int) -> None:
    """Move a report's wall-clock times from its worker's clock to the master's, in place."""
    for row in totals.values():
        if row["last_return_ns"]:
            row["first_call_ns"] -= offset_ns
            row["last_return_ns"] -= offset_ns
