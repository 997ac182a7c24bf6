"""The totals of a run: the parts of run.json that follow from its workers' reports.

Pure: takes the workers' snapshots (`loadgen.load.protocol.Snapshot`) and returns rows and sentences.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, cast

from loadgen.client.kv import WRITES_NOTHING
from loadgen.load.protocol import Counts, Snapshot
from loadgen.run import saturation
from loadgen.run.local_workers import WorkerProcess
from loadgen.run.remote_workers import RemoteWorker
from loadgen.stats import hdr
from loadgen.stats.series import TOTAL, Series

if TYPE_CHECKING:
    from cluster.schema.run_documents import Books, Latencies, Measured, WorkerRow

Worker = WorkerProcess | RemoteWorker

# A worker is called slow when its share took it so many times as long as half of the workers needed, and a second more.
SLOW_FACTOR = 1.5
CLOCK_WORTH_SAYING_NS = 100_000_000


def measured(snapshots: Sequence[Snapshot], service: Series) -> dict[str, Measured]:
    """Return a row for each operation type and one for ``total``. Takes the latencies from sending, as a series."""
    found = {f: _row(row, f) for f, row in counted(snapshots).items()}
    for f, summary in service.summaries.items():
        found[f]["service"] = cast("Latencies", summary.latencies())
    return found


def counted(snapshots: Iterable[Snapshot]) -> dict[str, Counts]:
    """Return what each operation type came to over all workers, and all of them as ``total``."""
    rows: dict[str, Counts] = {}
    for snapshot in snapshots:
        for f, counts in snapshot["totals"].items():
            for name in (f, TOTAL):
                rows[name] = _sum(rows[name], counts) if name in rows else counts
    return rows


def load(snapshots: Sequence[Snapshot]) -> tuple[int, int] | None:
    """Return the first call and the last return of all, in nanoseconds since 1970; None where nothing returned."""
    rows = [counts for snapshot in snapshots for counts in snapshot["totals"].values() if counts["last_return_ns"]]
    return (min(row["first_call_ns"] for row in rows), max(row["last_return_ns"] for row in rows)) if rows else None


def _sum(a: Counts, b: Counts) -> Counts:
    return {
        "succeeded": a["succeeded"] + b["succeeded"],
        "failed": a["failed"] + b["failed"],
        "info": a["info"] + b["info"],
        "committed": a["committed"] + b["committed"],
        "not_committed": a["not_committed"] + b["not_committed"],
        "first_call_ns": min(a["first_call_ns"], b["first_call_ns"]),
        "last_return_ns": max(a["last_return_ns"], b["last_return_ns"]),
        "error_texts": b["error_texts"] | a["error_texts"],
    }


def _row(row: Counts, f: str) -> Measured:
    found: Measured = {
        "operations": row["succeeded"] + row["failed"],
        "succeeded": row["succeeded"],
        "failed": row["failed"],
        "info": row["info"],
        "duration_s": max(0, row["last_return_ns"] - row["first_call_ns"]) / 1e9,
    }
    if f == "txn" or (f != "total" and row["committed"] + row["not_committed"] > 0):
        found["branches"] = {"success": row["committed"], "failure": row["not_committed"]}
    if row["error_texts"]:
        found["error_texts"] = row["error_texts"]
    return found


def warmup(snapshots: Sequence[Snapshot]) -> dict[str, int]:
    """Return how many operations of each type warmed up, whatever became of them."""
    total: dict[str, int] = {}
    for snapshot in snapshots:
        for f, totals in snapshot["warmup"].items():
            total[f] = total.get(f, 0) + totals["succeeded"] + totals["failed"]
    return total


def books(snapshots: Sequence[Snapshot], before: int, after: int | None, *, alone: bool) -> Books:
    """Return the writes that were acknowledged beside the revisions that the store advanced by.

    Takes the store's revision before and after, None for unknown, and whether these workers, all of whom reported
    to the end, were the only ones who could write.
    """
    ok = info = 0
    unsure = False
    for snapshot in snapshots:
        for part in (snapshot["totals"], snapshot["warmup"]):
            for f, totals in part.items():
                if f in WRITES_NOTHING:
                    continue
                told = totals["committed"] + totals["not_committed"]
                ok += totals["succeeded"] if f == "put" else totals["committed"]
                info += totals["info"]
                # As of a lease that was revoked, of which nobody knows whether it had keys.
                unsure = unsure or (f != "put" and told != totals["succeeded"])
    delta = None if after is None else after - before
    return {
        "revision_before": before,
        "revision_after": after,
        "revision_delta": delta,
        "writes_ok": ok,
        "writes_info": info,
        "balanced": ok <= delta <= ok + info if alone and not unsure and delta is not None else None,
    }


def missing_samples(rows: Mapping[str, Measured], series: Series) -> list[str]:
    """Return a sentence for each type of which the series has not just the successes that the workers counted."""
    counted = {f: summary.count for f, summary in series.summaries.items()}
    return [
        f"{f}: the workers counted {row['succeeded']} successes, but series.csv has {counted.get(f, 0)}"
        for f, row in rows.items()
        if counted.get(f, 0) != row["succeeded"]
    ]


def doubts(every: Sequence[Worker], snapshots: Mapping[str, Snapshot]) -> list[str]:
    """Return a sentence for each thing that a worker has to doubt of its own counts. Takes snapshots by client id."""
    return [
        f"{worker.name}: {problem}"
        for worker in every
        if (snapshot := snapshots.get(worker.client_id or ""))
        for problem in snapshot["problems"]
    ]


def streams(snapshots: Sequence[Snapshot]) -> list[str]:
    """Return a sentence about operations that waited for a stream in our own queue; nothing where none did."""
    met = [each["streams"] for each in snapshots if each["streams"]]
    waits: dict[int, int] = {}
    for each in met:
        hdr.merge(waits, each["waits"])
    if not waits:
        return []
    count, longest_ms = sum(waits.values()), hdr.percentiles(waits, (1.0,))[0] / 1e6
    limit = min((each["limit"] for each in met if each["limit"] is not None), default="few")
    connections = sum(each["connections"] for each in met)
    who = f"{count:,} operation{'s' if count > 1 else ''}"
    return [
        f"{who} waited in raftload for a stream, {longest_ms:,.1f} ms at most, which is part of their latencies:"
        f" etcd allows {limit} streams on a connection (--max-concurrent-streams); there were {connections} connections"
        " at most"
    ]


def workers(every: Sequence[Worker], snapshots: Mapping[str, Snapshot], lost: Mapping[str, str]) -> list[WorkerRow]:
    """Return what each worker did; null for what one that was lost did not say.

    Takes the snapshots by client id, and why workers were lost by their names.
    """
    rows: list[WorkerRow] = []
    for worker in every:
        snapshot = snapshots.get(worker.client_id or "")
        remote = worker if isinstance(worker, RemoteWorker) else None
        done = sum(row["succeeded"] + row["failed"] for row in snapshot["totals"].values()) if snapshot else None
        error_ns = remote.clock_error_ns if remote else None
        rows.append({
            "name": worker.name,
            "host": remote.host if remote else None,
            "operations": done,
            "cpu_us_per_op": round(snapshot["cpu_s"] / done * 1e6, 3) if snapshot and done else None,
            **(saturation.of_worker(snapshot) if snapshot else saturation.OF_NO_WORKER),
            "clock_offset_ms": round(remote.clock_offset_ns / 1e6, 3) if remote else None,
            "clock_error_ms": None if error_ns is None else round(error_ns / 1e6, 3),
            "lost": lost.get(worker.name),
        })  # fmt: skip
    return rows


def slow_workers(every: Sequence[Worker], took_s: Mapping[str, float]) -> list[str]:
    """Return a sentence for each worker that needed far longer than half of them. Takes the times by client id."""
    if len(took_s) < 2:
        return []
    middle = sorted(took_s.values())[len(took_s) // 2]
    return [
        f"{worker.name} was slow: {own:.1f} s for its share, half of them {middle:.1f} s or less"
        for worker in every
        if (own := took_s.get(worker.client_id or "", 0.0)) > SLOW_FACTOR * middle + 1.0
    ]


def clocks_off(every: Sequence[RemoteWorker]) -> list[str]:
    """Return a sentence for each machine whose clock is noticeably off ours."""
    return [
        f"the clock of {worker.host} is {worker.clock_offset_ns / 1e6:+,.1f} ms off ours; its times are corrected"
        for worker in every
        if abs(worker.clock_offset_ns) > CLOCK_WORTH_SAYING_NS
    ]


def versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in ("raftload", "locust", "gevent", "protobuf", "hpack"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "source"
    return found
