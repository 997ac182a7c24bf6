"""The search on a run: the workers' reports become its blocks, and its rates become the workers' pace."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loadgen.capacity.search import Block, Decision, Search, Stay
from loadgen.capacity.seen import Seen
from loadgen.history.operation import DELIVERY
from loadgen.load import listening
from loadgen.load.protocol import PACE, Report, Snapshot, Stats
from loadgen.run.remote_workers import RemoteWorker
from loadgen.stats import hdr
from loadgen.stats.series import TICK_NS, TOTAL

if TYPE_CHECKING:
    from loadgen.capacity.member_evidence import Witness
    from loadgen.capacity.slo import Slo
    from loadgen.run.run import Run
    from loadgen.run.session import Session

# Until a change of rate has reached the workers of this machine, and of others.
LEAD_NS, REMOTE_LEAD_NS = 100_000_000, 500_000_000


class Steering:
    """Takes the session, its run, the search, what has to hold, and who looks at the members at each stay's two ends.

    A block is the time from one report of each worker to the next, half a second.

    Attributes:
        search: as above.
        seen: by stay, in the search's order, what came back in its blocks.
    """

    def __init__(self, session: Session, run: Run, search: Search, slos: Sequence[Slo], witness: Witness) -> None:
        self._session, self._run = session, run
        self.search = search
        self._slos = tuple(slos)
        self._witness = witness
        self.seen: dict[int, Seen] = {}
        self._base: dict[str, Snapshot] = {}
        self._newest: dict[str, Snapshot] = {}
        self._heard: set[str] = set()
        self._block = Seen()
        self._first_tick = 0
        listening.listen(session.environment.events.worker_report, self._on_report)

    def tick(self) -> None:
        """End the load where the search has ended, and the search where it cannot go on. Called again and again."""
        run = self._run
        if run.lost and not self.search.is_done:
            self.search.end(f"{next(iter(run.lost))} was lost")
        if run.interrupted:
            # Nothing more is sent: what comes back from now on is of no rate.
            self.search.end(f"the run was interrupted by {run.interrupted}")
        # By the clock: workers that do not report have no blocks.
        self.search.note_time(run.load_s)
        if self.search.is_done and not run.over:
            run.ask_stop()

    def _on_report(self, client_id: str, data: Stats, **_: object) -> None:
        session = self._session
        worker, report = session.worker_of(client_id), Report.read(data)
        if worker is None or report is None or report.snapshot["prefix"] != session.prefix or self.search.is_done:
            return
        loop = report.snapshot["open_loop"]
        if loop is None or not loop["scheduled"] or time.time_ns() < self._first_tick * TICK_NS:
            return
        offset_ns = worker.clock_offset_ns if isinstance(worker, RemoteWorker) else 0
        self._block.add(report, self._first_tick, -round(offset_ns / TICK_NS))
        self._newest[client_id] = report.snapshot
        self._heard.add(client_id)
        wanted = {each.client_id or "" for each in session.workers if each.name not in self._run.lost}
        if wanted <= self._heard:
            self._close()

    def _close(self) -> None:
        """End a block, and begin the next one."""
        base, newest, seen = self._base, self._newest, self._block
        self._base, self._newest, self._heard, self._block = newest, {}, set(), Seen()
        if base.keys() != newest.keys():
            return
        rates = [_rates(base[each], newest[each]) for each in newest]
        if any(each is None for each in rates):
            return
        known = [each for each in rates if each is not None]
        seconds = sum(each[0] for each in known) / len(known)
        for client_id, now in newest.items():
            hdr.merge(seen.start_lags, _later(now, base[client_id]))
        counts = []
        for slo in self._slos:
            latencies = seen.service if slo.is_service else seen.latencies
            counts.append(slo.bad(latencies.get(slo.type, {}), seen.failed.get(slo.type, 0)))
        block = Block(
            seconds=seconds,
            due=round(sum(each[1] for each in known) * seconds),
            dropped=round(sum(each[2] for each in known) * seconds),
            returned=sum(seen.latencies.get(TOTAL, {}).values()) + seen.failed.get(TOTAL, 0),
            in_flight=sum(map(_in_flight, newest.values())),
            counts=tuple(counts),
            is_late=seen.is_late(self._slos),
        )
        self._tell(block, seen)

    def _tell(self, block: Block, seen: Seen) -> None:
        """Tell the search of a block, and the workers of the rate that follows from it."""
        search = self.search
        number, stay = len(search.stays) - 1, search.stays[-1]
        counted, rate = len(stay.blocks), search.rate
        search.add(block)
        if len(stay.blocks) > counted:
            self.seen.setdefault(number, Seen()).merge(seen)
            if counted == 0:
                self._witness.look(number, 0)
            if stay.decision is not None:
                self._witness.look(number, 1)
        if search.rate is not None and search.rate != rate:
            self._pace(search.rate)

    def _pace(self, rate: float) -> None:
        remote = any(isinstance(each, RemoteWorker) for each in self._session.workers)
        starts_at_ns = time.time_ns() + (REMOTE_LEAD_NS if remote else LEAD_NS)
        PACE.send(self._session.runner, {"prefix": self._session.prefix, "rate": rate, "starts_at_ns": starts_at_ns})
        self._first_tick = -(-starts_at_ns // TICK_NS)
        # What is on its way is of the rate before.
        self._base, self._newest, self._heard, self._block = {}, {}, set(), Seen()

    def now(self) -> tuple[Stay | None, Seen | None]:
        """Return the stay that goes on, and what came back in it; None where there is none."""
        number = len(self.search.stays) - 1
        stay = self.search.stays[number]
        return (stay, self.seen.get(number)) if stay.decision is None else (None, None)

    def last(self, decision: Decision) -> Stay | None:
        """Return the last stay with a decision."""
        return next((each for each in reversed(self.search.stays) if each.decision is decision), None)


def _rates(base: Snapshot, now: Snapshot) -> tuple[float, float, float] | None:
    """Return the seconds between two reports of a worker, and the operations due and dropped per second in them.

    None where the second one is not later by the worker's own clock: its measurement has begun in between.
    """
    before, after, seconds = base["open_loop"], now["open_loop"], now["wall_s"] - base["wall_s"]
    if before is None or after is None or seconds <= 0:
        return None
    due, dropped = after["scheduled"] - before["scheduled"], after["dropped"] - before["dropped"]
    return seconds, due / seconds, dropped / seconds


def _later(now: Snapshot, base: Snapshot) -> dict[int, int]:
    """Return the start lags between two reports, as a histogram."""
    after, before = now["open_loop"], base["open_loop"]
    if after is None or before is None:
        return {}
    found = {key: count - before["start_lags"].get(key, 0) for key, count in after["start_lags"].items()}
    return {key: count for key, count in found.items() if count > 0}


def _in_flight(snapshot: Snapshot) -> int:
    """Return how many operations of a worker were open when it reported."""
    loop = snapshot["open_loop"]
    ended = sum(row["succeeded"] + row["failed"] for f, row in snapshot["totals"].items() if f != DELIVERY)
    return max(0, loop["scheduled"] - loop["dropped"] - ended) if loop is not None else 0
