"""The effect of each fault on the load, from the recorded history: rates, latencies and gaps.

An operation happened when it began, and an effect comes after its cause: what was open when a fault began counts as
during it. So each operation is in one place, and the rounds add up to the run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cluster.base.etcd_errors import kind_of
from cluster.observe.leaderless import leaderless
from cluster.observe.raftlog import Log, read_log
from loadgen.chaos.traffic import refusal_of
from loadgen.history.format import FAIL, INFO, OK, Kind, Method
from loadgen.history.reader import History
from loadgen.proto import etcd_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from cluster.schema.run_documents import Counts, FaultRow, Window

# Fewer acknowledged writes in a second before a fault than this, and nothing was under load.
MIN_WRITES_S = 20.0
_WRITES = (Method.PUT, Method.DELETE_RANGE, Method.TXN)
# What members answer to writes while an actor has switched authentication on, or has the store be full.
_BY_ACTORS = ("UserEmpty", "NoSpace")
# The requests of which some provoke a refusal.
_REQUESTS: dict[int, type[Message]] = {
    Method.RANGE: pb.RangeRequest, Method.PUT: pb.PutRequest, Method.TXN: pb.TxnRequest,
    Method.LEASE_REVOKE: pb.LeaseRevokeRequest, Method.LEASE_KEEP_ALIVE: pb.LeaseKeepAliveRequest,
}  # fmt: skip


@dataclasses.dataclass
class FaultRound:
    """A round as it went. Times are nanoseconds of the monotonic clock, ``at`` is ISO 8601 in UTC; 0 and "" for what
    did not come to pass. ``taken`` is whether the leader was taken away at once, ``silent`` whether the
    logs do not say when it went: of a majority that is told to end, the last may lead until it is gone.
    """

    number: int
    name: str
    at: str
    members: tuple[str, ...] = ()
    taken: bool = False
    silent: bool = False
    leader: str | None = None
    term: int | None = None
    began_ns: int = 0
    effect_ns: int = 0
    healed_ns: int = 0
    healthy_ns: int = 0
    problem: str = ""


class Load:
    """The operations of the users of a run, each in its place between the faults.

    Takes the history; in order the moments at which each fault began and every member was healthy again after it; and
    whether actors were at work, so that a write which is refused for what they did shows that the load was there.
    Places are numbered: 0 is before the first fault, 2n + 1 during fault n, counted from 0, and 2n + 2 after it.
    """

    def __init__(self, history: History, edges_ns: Sequence[int], *, actors: bool = False) -> None:
        numbers = np.flatnonzero((history.rows["kind"] == Kind.OPERATION) & (history.rows["process"] > 0))
        rows = history.rows[numbers]  # process 0 is the master
        outcome = rows["outcome"].copy()
        for at in np.flatnonzero(outcome == FAIL).tolist():
            if _is_provoked(history, int(numbers[at])):
                outcome[at] = OK
        self._begun, self._returned, self._due = rows["call_ns"], rows["return_ns"], rows["due_ns"]
        self._outcome = outcome
        self._place = np.searchsorted(np.array(edges_ns, np.int64), self._begun, "right")
        for place in range(0, len(edges_ns), 2):
            self._place[(self._place == place) & (self._returned >= edges_ns[place])] += 1
        writes = np.isin(rows["method"], _WRITES)
        acknowledged = (rows["outcome"] == OK) & writes
        self._writes: NDArray[np.int64] = np.sort(rows["return_ns"][acknowledged])
        refused = acknowledged.copy()
        for at in np.flatnonzero(writes & ~acknowledged).tolist() if actors else ():
            error = kind_of(history.response(int(numbers[at])).decode(errors="replace"))
            refused[at] = error is not None and error.name in _BY_ACTORS
        self._answered: NDArray[np.int64] = np.sort(rows["return_ns"][refused])

    def window(self, place: int, start_ns: int, end_ns: int) -> Window:
        """Return the load of a place, of what began from ``start_ns`` on or was open then.

        Rates are over the time until ``end_ns``, latencies of successes in milliseconds.
        """
        here = self._place == place
        if place % 2 == 0:  # of what came before a fault, as much as there is to compare with
            here &= self._begun >= start_ns
        done = here & (self._outcome == OK)
        seconds, count = max(0, end_ns - start_ns) / 1e9, int(done.sum())
        latency = (self._returned[done] - self._due[done]) / 1e6
        p50, p99 = (round(float(value), 3) for value in np.percentile(latency, (50, 99))) if count else (None, None)
        return {
            "duration_s": round(seconds, 3),
            **self._count(here),
            "throughput_ops_s": round(count / seconds, 1) if seconds else None,
            "p50_ms": p50,
            "p99_ms": p99,
        }

    def earlier(self) -> Counts:
        """Return what began before the first fault and was over by then; all of it where there was no fault."""
        return self._count(self._place == 0)

    def _count(self, here: NDArray[np.bool_]) -> Counts:
        outcomes = self._outcome[here]
        failed, unknown = int((outcomes == FAIL).sum()), int((outcomes == INFO).sum())
        return {"operations": len(outcomes), "failed": failed, "unknown": unknown}

    def writes_per_s(self, start_ns: int, end_ns: int) -> float:
        """Return the rate of writes that were acknowledged, or refused for what actors did, between two moments.

        It is 0 where these are not apart.
        """
        first, last = np.searchsorted(self._answered, (start_ns, end_ns))
        return float(last - first) / ((end_ns - start_ns) / 1e9) if end_ns > start_ns else 0.0

    def longest_gap_s(self, start_ns: int, end_ns: int) -> float:
        """Return the longest time without an acknowledged write between two moments, both ends included."""
        first, last = np.searchsorted(self._writes, (start_ns, end_ns))
        moments = np.concatenate(([start_ns], self._writes[first:last], [end_ns]))
        return round(float(np.diff(moments).max()) / 1e9, 3)


def _is_provoked(history: History, row: int) -> bool:
    """Return whether a failed operation is a refusal that it provoked, which results count as a success."""
    kind = _REQUESTS.get(int(history.rows["method"][row]))
    error = kind_of(history.response(row).decode(errors="replace"))
    return kind is not None and error is not None and refusal_of(kind.FromString(history.request(row))) == error.name


def describe(
    rounds: Sequence[FaultRound], history: History, logs: Path, *, every_s: float, end_ns: int, actors: bool = False
) -> tuple[list[FaultRow], Counts]:
    """Return what became of each round, as ``result.json`` has it, and what was done before the first.

    Takes the rounds as they went, the run's history, the folder of the members' logs, the seconds between faults, when
    the load ended, and whether actors were at work.
    """
    begun = [each.began_ns for each in rounds]
    ends = [*begun, end_ns][1:]
    healthy = [max(each.began_ns, min(each.healthy_ns or end, end)) for each, end in zip(rounds, ends, strict=True)]
    load = Load(history, [edge for edges in zip(begun, healthy, strict=True) for edge in edges], actors=actors)
    read = [read_log(path.read_text(errors="replace").splitlines()) for path in sorted(logs.glob("etcd-node*.log"))]
    rows = []
    for number, each in enumerate(rounds):
        calm_ns = max(healthy[number - 1] if number else 0, each.began_ns - round(every_s * 1e9))
        rows.append(_row(each, number, load, read, calm_ns, healthy[number], ends[number]))
    return rows, load.earlier()


def _row(
    each: FaultRound, number: int, load: Load, logs: Sequence[Log], calm_ns: int, healthy_ns: int, next_ns: int
) -> FaultRow:
    began = each.began_ns
    at = datetime.fromisoformat(each.at).timestamp()
    until = (each.healthy_ns or next_ns) - began
    lost = leaderless(logs, at, at + until / 1e9, taken=each.taken) if logs and not each.silent else None
    writes = load.writes_per_s(max(calm_ns, began - 1_000_000_000), began)
    reasons = [each.problem] if each.problem else []
    if writes < MIN_WRITES_S:
        reasons.append(f"{writes:.0f} acknowledged writes/s before it, {MIN_WRITES_S:.0f} are needed")
    return {
        "number": each.number,
        "fault": each.name,
        "members": list(each.members),
        "at": each.at,
        "began_ns": began,
        "effect_s": round((each.effect_ns - began) / 1e9, 3) if each.effect_ns else None,
        "healed_s": round((each.healed_ns - began) / 1e9, 3) if each.healed_ns else None,
        "healthy_s": round((each.healthy_ns - began) / 1e9, 3) if each.healthy_ns else None,
        "leader": each.leader,
        "term": each.term,
        "leaderless_s": None if lost is None else round(sum(one.duration_s for one in lost), 3),
        "longest_gap_s": load.longest_gap_s(began, max(began, next_ns)),
        "before": load.window(2 * number, calm_ns, began),
        "during": load.window(2 * number + 1, began, healthy_ns),
        "after": load.window(2 * number + 2, healthy_ns, next_ns),
        "verdict": "unknown" if reasons else "pass",
        "reason": "; ".join(reasons) or None,
    }
