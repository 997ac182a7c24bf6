"""Saturation of the load generator, from its workers' reports: whether it was the bottleneck or behind schedule.

Pure: takes the workers' snapshots (`loadgen.load.protocol.Snapshot`), returns parts of the result document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from loadgen.load.protocol import OpenLoopCounts, Snapshot
from loadgen.stats import hdr

if TYPE_CHECKING:
    from cluster.schema.run_documents import Saturation, WorkerSaturation

# A worker above this share of one core had little to spare.
BUSY_WORKER = 0.8
# The generator's own delay at p99 is too much above this many milliseconds, and this share of the reported p99.
LEAST_DELAY_MS = 1.0
DELAY_SHARE = 0.1
# An open loop has reached its rate when so much of its schedule was sent, and the last of it not later than this
# share of its length and these seconds.
REACHED_SHARE = 0.99
REACHED_LATE_SHARE = 0.01
REACHED_LATE_S = 0.1

OF_NO_WORKER: WorkerSaturation = {
    "cpu_share": None,
    "loop_lag_p99_ms": None,
    "start_lag_p99_ms": None,
    "in_flight_max": None,
}
"""What `of_worker` would return of a worker that said nothing."""


def block(snapshots: Sequence[Snapshot], operations: int, p99_ms: float | None) -> Saturation:
    """Return the fields of ``generator`` that follow from the snapshots.

    Takes the operations that ended and the reported p99 over all of them, in milliseconds, None without a success.
    """
    loop_lag = max((s["loop_lag_p99_ms"] for s in snapshots), default=None)
    open_loops = [s["open_loop"] for s in snapshots if s["open_loop"]]
    start_lag = start_lag_p99_ms(open_loops)
    # What the generator itself added to a latency: in an open loop from due to sent, else an answer's wait for it; and
    # an operation's wait for a stream, where etcd allows few on a connection.
    delay = start_lag if open_loops else loop_lag
    stream_wait = stream_wait_p99_ms(snapshots, operations)
    by_streams = stream_wait > (delay or 0.0)
    if by_streams:
        delay = stream_wait
    saturated = None if delay is None or p99_ms is None else delay > max(LEAST_DELAY_MS, DELAY_SHARE * p99_ms)
    cpu_s = sum(s["cpu_s"] for s in snapshots)
    engine, engine_reason = engine_of(snapshots)
    return {
        "engine": engine,
        "engine_reason": engine_reason,
        "cpu_us_per_op": round(cpu_s / operations * 1e6, 3) if operations else None,
        "start_lag_p99_ms": _rounded(start_lag),
        "loop_lag_p99_ms": _rounded(loop_lag),
        "in_flight_max": sum(s["in_flight_max"] for s in snapshots),
        "scheduled": sum(s["scheduled"] for s in open_loops) if open_loops else None,
        "dropped": sum(s["dropped"] for s in open_loops),
        "rate_reached": rate_reached(open_loops) if open_loops else None,
        "resent": sum(s["resent"] for s in snapshots),
        "saturated": saturated,
        "saturated_by": _blame(delay, snapshots, bool(open_loops), by_streams)
        if saturated and delay is not None
        else None,
    }


def engine_of(
    snapshots: Sequence[Snapshot],
) -> tuple[Literal["compiled", "python", "mixed"] | None, str | None]:
    """Return which engine ran, ``mixed`` where workers differ, and why it was Python's; None where nothing is said."""
    ran = {s["engine"] for s in snapshots}
    reasons = sorted({s["engine_reason"] for s in snapshots} - {""})
    return ("mixed" if len(ran) > 1 else ran.pop()) if ran else None, "; ".join(reasons) or None


def of_worker(snapshot: Snapshot) -> WorkerSaturation:
    """Return what one worker's own row says beside its operations: CPU, lags, and what it had in flight."""
    open_loop = snapshot["open_loop"]
    return {
        "cpu_share": _rounded(snapshot["cpu_s"] / snapshot["wall_s"] if snapshot["wall_s"] else None),
        "loop_lag_p99_ms": _rounded(snapshot["loop_lag_p99_ms"]),
        "start_lag_p99_ms": _rounded(start_lag_p99_ms([open_loop])) if open_loop else None,
        "in_flight_max": snapshot["in_flight_max"],
    }


def start_lag_p99_ms(open_loops: Sequence[OpenLoopCounts]) -> float | None:
    """Return how long after they were due 99 % of all operations were sent at the latest; None without any."""
    counts: dict[int, int] = {}
    for each in open_loops:
        hdr.merge(counts, each["start_lags"])
    return hdr.percentiles(counts, (0.99,))[0] / 1e6 if counts else None


def stream_wait_p99_ms(snapshots: Sequence[Snapshot], operations: int) -> float:
    """Return how long 99 % of all operations waited for a stream at the most; 0 where fewer than 1 % did."""
    counts: dict[int, int] = {}
    for snapshot in snapshots:
        if snapshot["streams"]:
            hdr.merge(counts, snapshot["streams"]["waits"])
    if not counts:
        return 0.0
    at_once = max(0, operations - sum(counts.values()))
    return hdr.percentiles({0: at_once, **counts}, (0.99,))[0] / 1e6


def rate_reached(open_loops: Sequence[OpenLoopCounts]) -> bool:
    """Tell whether the schedule was kept: next to nothing dropped, and the last operation sent next to in time."""
    scheduled, dropped = (sum(each["scheduled"] for each in open_loops), sum(each["dropped"] for each in open_loops))
    in_time = all(each["overrun_s"] <= REACHED_LATE_S + REACHED_LATE_SHARE * each["length_s"] for each in open_loops)
    return in_time and scheduled - dropped >= REACHED_SHARE * scheduled


def _blame(delay_ms: float, snapshots: Sequence[Snapshot], open_loop: bool, by_streams: bool) -> str:
    """Say what was late and why: the busiest worker had no more CPU of its own to use, or others had it.

    Or there was no stream for an operation.
    """
    if by_streams:
        return f"operations waited up to {delay_ms:.1f} ms (p99) for a stream of an HTTP/2 connection"
    used = max(s["cpu_s"] / s["wall_s"] if s["wall_s"] else 0.0 for s in snapshots)
    busy = used > BUSY_WORKER
    why = "their own work fills a core; add workers" if busy else "other processes use the CPU"
    what = "sent operations" if open_loop else "read answers"
    return f"workers {what} up to {delay_ms:.1f} ms late (p99) at {used:.0%} of a core: {why}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
