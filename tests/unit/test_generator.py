"""Saturation and schedule of the generator, from workers' reports."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen.result import gate
from loadgen.run import saturation, totals
from loadgen.stats.precision import bucket_ns

MS = 1_000_000


def worker(
    *, cpu_s: float = 0.5, loop_lag_ms: float = 0.1, open_loop: dict[str, Any] | None = None,
    waits: dict[int, int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "streams": {"limit": 5, "connections": 3, "waits": waits} if waits is not None else None,
        "cpu_s": cpu_s, "wall_s": 1.0, "loop_lag_p99_ms": loop_lag_ms, "in_flight": 5, "in_flight_max": 7, "resent": 1,
        "open_loop": open_loop, "engine": "compiled", "engine_reason": "",
    }  # fmt: skip


def kept(**changes: Any) -> dict[str, Any]:
    base = {"scheduled": 1000, "dropped": 0, "start_lags": {bucket_ns(MS // 10): 1000}, "length_s": 1.0,
            "overrun_s": 0.0}  # fmt: skip
    return base | changes


@pytest.mark.parametrize(
    ("loop_lag_ms", "p99_ms", "saturated"),
    [(0.9, 0.5, False), (1.1, 0.5, True), (1.1, 20.0, False), (2.1, 20.0, True), (5.0, None, None)],
)
def test_a_closed_loop_is_judged_by_its_loop_lag(loop_lag_ms: float, p99_ms: float | None, saturated: bool) -> None:
    block = saturation.block([worker(), worker(loop_lag_ms=loop_lag_ms)], 1000, p99_ms)
    assert block["saturated"] is saturated
    assert block["cpu_us_per_op"] == 1000.0
    assert (block["start_lag_p99_ms"], block["scheduled"], block["rate_reached"]) == (None, None, None)
    assert (block["in_flight_max"], block["resent"], block["dropped"]) == (14, 2, 0)


@pytest.mark.parametrize(("waited", "saturated"), [(9, False), (11, True)])
def test_a_wait_for_a_stream_is_the_generators_own(waited: int, saturated: bool) -> None:
    """50 ms of 9 in 1,000 are not its p99, of 11 they are."""
    workers = [worker(waits={bucket_ns(50 * MS): waited - 1}), worker(waits={bucket_ns(50 * MS): 1}), worker()]
    block = saturation.block(workers, 1000, 60.0)
    assert block["saturated"] is saturated
    assert (block["saturated_by"] or "").startswith("operations waited up to 50." if saturated else "")
    (note,) = totals.streams(workers)
    assert note.startswith(f"{waited} operations waited in raftload for a stream, 50.")
    assert note.endswith(
        "etcd allows 5 streams on a connection (--max-concurrent-streams); there were 6 connections at most"
    )
    assert totals.streams([worker(), worker(waits={})]) == []


def test_a_wait_for_a_stream_without_a_limit_is_told() -> None:
    unlimited = worker(waits={bucket_ns(MS): 1})
    unlimited["streams"]["limit"] = None
    (note,) = totals.streams([unlimited])
    assert "1 operation waited in raftload for a stream" in note
    assert "etcd allows few streams on a connection" in note


def test_an_open_loop_is_judged_by_its_start_lag() -> None:
    # 989 in time and 11 of 1,000 sent 50 ms late: above 1 %, so that is its p99.
    lags = {bucket_ns(MS // 10): 989, bucket_ns(50 * MS): 11}
    block = saturation.block([worker(loop_lag_ms=90.0, open_loop=kept(start_lags=lags))], 1000, 60.0)
    assert block["start_lag_p99_ms"] == pytest.approx(50, rel=0.005)
    assert block["saturated"] is True
    assert block["saturated_by"].startswith("workers sent operations up to 50.")
    assert "other processes use the CPU" in block["saturated_by"]
    busy = saturation.block([worker(cpu_s=0.95, open_loop=kept(start_lags=lags))], 1000, 60.0)
    assert "add workers" in busy["saturated_by"]
    lags = {bucket_ns(MS // 10): 991, bucket_ns(50 * MS): 9}
    assert saturation.block([worker(open_loop=kept(start_lags=lags))], 1000, 60.0)["saturated"] is False


@pytest.mark.parametrize(
    ("changes", "reached"),
    [
        ({}, True),
        ({"dropped": 20}, True),  # of 2,000 over both workers: 1 %
        ({"dropped": 21}, False),
        ({"overrun_s": 0.11}, True),  # 0.1 s and 1 % of 1 s
        ({"overrun_s": 0.12}, False),
    ],
)
def test_a_rate_is_reached_when_all_but_nothing_was_sent_in_time(changes: dict[str, Any], reached: bool) -> None:
    block = saturation.block([worker(open_loop=kept()), worker(open_loop=kept(**changes))], 2000, 1.0)
    assert block["scheduled"] == 2000
    assert block["rate_reached"] is reached
    result = {"run": {}, "results": {"total": {"operations": 1, "succeeded": 1}}, "generator": block}
    assert gate.apply(result, [])["verdict"] == ("none" if reached else "unknown")
    if not reached:
        assert gate.apply(result, [])["verdict_reasons"][0].startswith("the target rate was not reached: ")
    result["run"]["allow_rate_miss"] = True
    assert gate.apply(result, [])["verdict"] == "none"


def test_a_worker_has_its_own_row() -> None:
    row = saturation.of_worker(worker(open_loop=kept()))
    assert row["cpu_share"] == 0.5
    assert row["start_lag_p99_ms"] == pytest.approx(0.1, rel=0.005)
    assert saturation.of_worker(worker())["start_lag_p99_ms"] is None
