"""The effect of each fault on the load, from the recorded history: rates, latencies and gaps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cluster.observe.leaderless import leaderless
from cluster.observe.raftlog import Log, read_log
from loadgen.history.format import FAIL, INFO, OK, Kind, Method
from loadgen.history.reader import History

if TYPE_CHECKING:
    from cluster.schema.run_documents import FaultRow, Window

# Fewer acknowledged writes in a second before a fault than this, and nothing was under load.
MIN_WRITES_S = 20.0
_WRITES = (Method.PUT, Method.DELETE_RANGE, Method.TXN)


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
    """The operations of the users of a run, in the order in which they returned."""

    def __init__(self, history: History) -> None:
        rows = history.rows
        # Process 0 is the master.
        rows = rows[(rows["kind"] == Kind.OPERATION) & (rows["process"] > 0)]
        rows = rows[np.argsort(rows["return_ns"], kind="stable")]
        self._rows = rows
        self._returns: NDArray[np.int64] = rows["return_ns"]
        acknowledged = (rows["outcome"] == OK) & np.isin(rows["method"], _WRITES)
        self._writes: NDArray[np.int64] = rows["return_ns"][acknowledged]

    def window(self, start_ns: int, end_ns: int) -> Window:
        """Return the load between two moments: by when operations returned; latency in milliseconds, of successes."""
        first, last = np.searchsorted(self._returns, (start_ns, end_ns))
        rows = self._rows[first:last]
        done = rows[rows["outcome"] == OK]
        seconds = max(0, end_ns - start_ns) / 1e9
        latency = (done["return_ns"] - done["due_ns"]) / 1e6
        p50, p99 = (round(float(value), 3) for value in np.percentile(latency, (50, 99))) if len(done) else (None, None)
        return {
            "duration_s": round(seconds, 3),
            "operations": len(rows),
            "failed": int((rows["outcome"] == FAIL).sum()),
            "unknown": int((rows["outcome"] == INFO).sum()),
            "throughput_ops_s": round(len(done) / seconds, 1) if seconds else None,
            "p50_ms": p50,
            "p99_ms": p99,
        }

    def writes_per_s(self, start_ns: int, end_ns: int) -> float:
        """Return the rate of acknowledged writes between two moments; 0 where they are not apart."""
        first, last = np.searchsorted(self._writes, (start_ns, end_ns))
        return float(last - first) / ((end_ns - start_ns) / 1e9) if end_ns > start_ns else 0.0

    def longest_gap_s(self, start_ns: int, end_ns: int) -> float:
        """Return the longest time without an acknowledged write between two moments, both ends included."""
        first, last = np.searchsorted(self._writes, (start_ns, end_ns))
        moments = np.concatenate(([start_ns], self._writes[first:last], [end_ns]))
        return round(float(np.diff(moments).max()) / 1e9, 3)


def describe(
    rounds: Sequence[FaultRound], history: History, logs: Path, *, every_s: float, end_ns: int
) -> list[FaultRow]:
    """Return what became of each round, as ``result.json`` has it.

    Takes the rounds as they went, the run's history, the folder of the members' logs, the seconds between faults, and
    when the load ended.
    """
    load = Load(history)
    read = [read_log(path.read_text(errors="replace").splitlines()) for path in sorted(logs.glob("etcd-node*.log"))]
    rows = []
    calm_ns = 0
    for number, each in enumerate(rounds):
        next_ns = rounds[number + 1].began_ns if number + 1 < len(rounds) else end_ns
        rows.append(_row(each, load, read, max(calm_ns, each.began_ns - round(every_s * 1e9)), next_ns))
        calm_ns = each.healthy_ns
    return rows


def _row(each: FaultRound, load: Load, logs: Sequence[Log], calm_ns: int, next_ns: int) -> FaultRow:
    began, healed = each.began_ns, each.healed_ns or next_ns
    healthy = each.healthy_ns or next_ns
    at = datetime.fromisoformat(each.at).timestamp()
    lost = leaderless(logs, at, at + (healthy - began) / 1e9, taken=each.taken) if logs and not each.silent else None
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
        "before": load.window(calm_ns, began),
        "during": load.window(began, max(began, min(healed, next_ns))),
        "after": load.window(healthy, max(healthy, next_ns)),
        "verdict": "unknown" if reasons else "pass",
        "reason": "; ".join(reasons) or None,
    }
