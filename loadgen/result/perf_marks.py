"""The pass marks of `etcdctl check`, held against a result, and what the members were like meanwhile.

The marks and the arithmetic are those of etcd's ``etcdctl/ctlv3/command/check.go`` and ``pkg/report``: a rate is of
successes, from the first call to the last return; latencies are of successes, from sending; and the standard deviation
is that of the population.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.observe import record
from loadgen.result.gate import WORKER_LOST, causes_of

if TYPE_CHECKING:
    from cluster.schema.run_documents import Measured, PassMark, Perf, PerfMember, ResultTarget, Row

THROUGHPUT_SHARE = 0.9
"""A rate has to be above this share of that asked for."""
SLOWEST_MS = 500.0
STDDEV_MS = 100.0
MIB = 1 << 20
_NO_SUCCESS = "nothing succeeded"
_NO_PUT = "no put was sent"


def judged(
    folder: Path,
    perf: Perf,
    results: Mapping[str, Row | None],
    measured: Mapping[str, Measured | None],
    target: ResultTarget,
    *,
    is_short: bool = False,
) -> Perf:
    """Return ``perf`` of a result: that of run.json with the marks and the members' figures.

    Takes the run folder, whose members.csv and metrics.csv it reads; what result.json and run.json will have under
    these names; and whether a worker was lost, so that the load was lower than asked for.
    """
    row, members = results.get("put"), figures(folder, target)
    is_perf = perf["check"] == "perf"
    marks = (
        _of_perf(perf, row, measured.get("put"), is_short=is_short) if is_perf else _of_datascale(perf, row, members)
    )
    return {**perf, "marks": marks, "members": members}


def _of_perf(perf: Perf, row: Row | None, measured: Measured | None, *, is_short: bool) -> list[PassMark]:
    latency = row["latency"] if row else None
    service = latency["service"] if latency else None
    duration_s, rate = measured.get("duration_s") if measured else None, perf["rate"] or 0.0
    reached = row["succeeded"] / duration_s if row and duration_s else 0.0
    least = THROUGHPUT_SHARE * rate
    throughput = _mark(
        "throughput", reached, least, f"{least - reached:,.1f}/s short of {least:,g}/s" if reached <= least else ""
    )
    if throughput["verdict"] == "fail" and (row is None or is_short):
        throughput["verdict"], throughput["reason"] = "unknown", _NO_PUT if row is None else WORKER_LOST
    slowest, stddev = (service.get("max_ms"), service.get("stddev_ms")) if service else (None, None)
    return [
        _errors(row),
        throughput,
        _upper("slowest", slowest, SLOWEST_MS),
        _upper("stddev", stddev, STDDEV_MS),
    ]  # fmt: skip


def _of_datascale(perf: Perf, row: Row | None, members: Sequence[PerfMember]) -> list[PassMark]:
    pairs, done = perf["pairs"] or 0, row["succeeded"] if row else 0
    missing = pairs - done - (row["failed"] if row else 0)
    # etcdctl asks the first endpoint alone.
    first = members[0] if members else None
    before, after = (first["rss_before"], first["rss_after"]) if first else (None, None)
    used = None if before is None or after is None else round((after - before) / MIB, 3)
    return [
        _errors(row),
        {"name": "pairs", "value": done, "bound": pairs, "verdict": "unknown" if missing > 0 else "pass",
         "reason": f"{missing:,} were not written" if missing > 0 else None},
        {"name": "memory", "value": used, "bound": None, "verdict": "pass" if used is not None else "fail",
         "reason": None if used is not None else "process_resident_memory_bytes could not be read"},
    ]  # fmt: skip


def _errors(row: Row | None) -> PassMark:
    failed = row["failed"] if row else 0
    return _mark("errors", failed, 0, f"{failed:,} too many: {', '.join(causes_of(row)[:3])}" if failed else "")


def _upper(name: str, value: float | None, bound: float) -> PassMark:
    if value is None:
        return {"name": name, "value": None, "bound": bound, "verdict": "unknown", "reason": _NO_SUCCESS}  # type: ignore[typeddict-item]
    over = value - bound
    return _mark(name, value, bound, f"{over:,.1f} ms over {bound:,g} ms" if over > 0 else "")


def _mark(name: str, value: float, bound: float, reason: str) -> PassMark:
    verdict = "fail" if reason else "pass"
    return {"name": name, "value": round(value, 6), "bound": bound, "verdict": verdict, "reason": reason or None}  # type: ignore[typeddict-item]


def figures(folder: Path, target: ResultTarget) -> list[PerfMember]:
    """Return what the members were like within the load, in the order of the endpoints as far as it is known."""
    polls, scrapes = record.read_polls(folder), record.read_scrapes(folder)
    observed = {each["name"]: each for each in target.get("observed") or ()}
    listed = target.get("members")
    order = [each["name"] for each in listed] if isinstance(listed, list) else []
    names = [*(name for name in order if name in observed), *(name for name in observed if name not in order)]
    rows: list[PerfMember] = []
    for name in names:
        mine = scrapes.get(name, [])
        load = record.phases(mine)["during"] if mine else []
        began, ended = (load[0].at, load[-1].at) if load else (0.0, float("inf"))
        asked = [poll for poll in polls if poll.member == name and began <= poll.at <= ended]
        trips = [poll.round_trip_ms for poll in asked if poll.round_trip_ms is not None]
        roles = [poll.role for poll in asked if poll.role]
        sizes = [poll.db_size for poll in asked if poll.db_size is not None]
        fsync, commit = observed[name].get("wal_fsync_p99_ms"), observed[name].get("backend_commit_p99_ms")
        rows.append({
            "name": name,
            "role": roles[-1] if roles else None,
            "wal_fsync_p99_ms": fsync["during"] if fsync else None,
            "backend_commit_p99_ms": commit["during"] if commit else None,
            "cpu_cores": _cores(load),
            "round_trip_p50_ms": round(statistics.median(trips), 3) if trips else None,
            "round_trip_max_ms": max(trips, default=None),
            "rss_before": _value(load, 0, "rss_bytes"),
            "rss_after": _value(load, -1, "rss_bytes"),
            "db_size_before": _value(load, 0, "db_size") or (sizes[0] if sizes else None),
            "db_size_after": _value(load, -1, "db_size") or (sizes[-1] if sizes else None),
        })  # fmt: skip
    return rows


def _value(load: Sequence[record.Scrape], at: int, column: str) -> int | None:
    value = load[at].metrics.values.get(column) if len(load) > 1 else None
    return None if value is None else int(value)


def _cores(load: Sequence[record.Scrape]) -> float | None:
    """Return a member's CPU seconds per second, over the scrapes of one life of its process."""
    if len(load) < 2 or load[-1].metrics.restarted_since(load[0].metrics):
        return None
    used = [each.metrics.values.get("cpu_s") for each in (load[0], load[-1])]
    seconds = load[-1].at - load[0].at
    if used[0] is None or used[1] is None or seconds <= 0:
        return None
    return round((used[1] - used[0]) / seconds, 3)
