"""A window that slides over a run's intervals, held against a sum over all rows; and the conditions that end a run."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.result import abort, gate
from loadgen.result.abort import AbortCondition
from loadgen.result.threshold import ThresholdError
from loadgen.run import live
from loadgen.run.live import BOUNDS_S, Buckets, Watch
from loadgen.stats import hdr
from loadgen.stats.series import Row
from loadgen.stats.window import Window, latency_ms


def row(tick: int, latencies_ns: list[int], failed: int = 0, ticks: int = 1) -> Row:
    counts: dict[int, int] = {}
    for each in latencies_ns:
        hdr.merge(counts, {hdr.bucket(each): 1})
    return (
        tick,
        ticks,
        failed,
        0,
        min(latencies_ns, default=sys.maxsize),
        max(latencies_ns, default=0),
        sum(latencies_ns),
        counts,
    )


ROWS = st.lists(
    st.tuples(st.sampled_from(("put", "get")), st.integers(0, 60), st.lists(st.integers(1, 10**9), max_size=3),
              st.integers(0, 2)), max_size=30,
)  # fmt: skip


@given(ROWS, st.lists(st.integers(0, 70), min_size=1, max_size=8), st.integers(1, 20))
def test_a_window_has_what_came_back_in_it_also_where_it_came_late(
    rows: list[tuple[str, int, list[int], int]], ends: list[int], length: int
) -> None:
    window, ends = Window(length / 10), sorted(ends)
    share = -(-len(rows) // len(ends))
    for number, end in enumerate(ends):
        for f, tick, latencies, failed in rows[number * share : (number + 1) * share]:
            window.add({f: [row(tick, latencies, failed)]})
        window.move(end)
    for f in ("put", "get", "total"):
        inside = [each for each in rows if f in (each[0], "total") and ends[-1] - length <= each[1] < ends[-1]]
        latencies = [each for _, _, found, _ in inside for each in found]
        part = window.figures(f)
        assert (part.succeeded, part.total_ns) == (len(latencies), sum(latencies))
        assert part.failed == sum(failed for *_, failed in inside)
        if latencies:
            assert latency_ms(part, "max_ms") == max(latencies) / 1e6
            assert latency_ms(part, "min_ms") == min(latencies) / 1e6


def test_reports_by_the_second_are_taken_by_whole_seconds() -> None:
    window = Window(2.0)
    window.add({"put": [row(100, [1000], ticks=10), row(110, [1000, 1000], ticks=10), row(120, [1000], ticks=10)]})
    window.move(125)
    assert (window.end, window.start, window.figures("put").succeeded) == (120, 100, 3)


def test_latencies_go_into_the_bucket_that_holds_them() -> None:
    assert (BOUNDS_S[0], BOUNDS_S[-1], len(BOUNDS_S)) == (0.0001, 10.0, 31)
    buckets = Buckets(BOUNDS_S)
    buckets.add({hdr.bucket(each): 1 for each in (99_000, 101_000, 9_900_000_000, 11_000_000_000)}, 5)
    assert (buckets.counts[0], buckets.counts[1], buckets.counts[-2], buckets.counts[-1]) == (1, 1, 1, 1)
    assert (sum(buckets.counts), buckets.total_ns) == (4, 5)


# Conditions


def test_a_condition_is_a_threshold_and_how_long() -> None:
    condition = AbortCondition.parse(" total.success_rate<0.9 for 5s ")
    assert (str(condition), condition.duration_s) == ("total.success_rate < 0.9 for 5s", 5.0)
    assert AbortCondition.parse("put.errors.NoSpace > 0 for 1m30s").threshold.cause == "NoSpace"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("total.success_rate < 0.9", "does not say for how long"),
        ("put.p99_ms > 500 for long", "'long' is not a duration"),
        ("put.p99_ms > 500 for 0.5s", "between 1s and 10m"),
        ("put.p99_ms > 500 for 11m", "between 1s and 10m"),
        ("put.p98_ms > 500 for 5s", "did you mean 'p99_ms'"),
        ("put.errors.NoSpce > 5 for 5s", "did you mean 'NoSpace'"),
        ("for 5s", "does not say for how long"),
        ("p99 for 5s for 5s", "is not a threshold"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_grammar(text: str, words: str) -> None:
    with pytest.raises(ThresholdError) as error:
        AbortCondition.parse(text)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_service_latency_is_of_an_open_loop() -> None:
    condition = AbortCondition.parse("put.service.p99_ms > 5 for 5s")
    condition.check_loop(open_loop=True)
    with pytest.raises(ThresholdError, match="open loop only"):
        condition.check_loop(open_loop=False)


def value(text: str, window: Window, service: Window | None = None, **causes: int) -> float | None:
    return AbortCondition.parse(text).value(window, service or Window(2.0), causes)


def test_the_value_is_that_of_the_last_seconds() -> None:
    window, service = Window(2.0), Window(2.0)
    window.add({"put": [row(1, [9_000_000]), row(15, [1_000_000, 3_000_000], 2)], "get": [row(16, [5_000_000])]})
    service.add({"put": [row(15, [500_000])]})
    for each in (window, service):
        each.move(25)
    assert value("put.success_rate < 1 for 2s", window) == 0.5
    assert value("total.success_rate < 1 for 2s", window) == 0.6
    assert value("total.throughput_ops_s < 1 for 2s", window) == 2.5
    assert [value(f"put.{field} > 0 for 2s", window) for field in ("operations", "succeeded", "failed", "info")] == [
        4, 2, 2, 0,
    ]  # fmt: skip
    assert value("put.mean_ms > 0 for 2s", window) == 2.0
    assert value("put.max_ms > 0 for 2s", window) == 3.0
    assert value("put.p99_ms > 0 for 2s", window) == pytest.approx(3.0, rel=0.001)
    assert value("put.service.p50_ms > 0 for 2s", window, service) == pytest.approx(0.5, rel=0.001)
    assert value("put.errors.NoSpace > 0 for 2s", window, NoSpace=3) == 3
    assert value("put.errors.NoSpace > 0 for 2s", window) == 0


def test_without_an_operation_there_is_no_latency_and_no_success_rate_but_a_rate() -> None:
    empty = Window(2.0)
    assert value("put.p99_ms > 0 for 2s", empty) is None
    assert value("put.success_rate < 1 for 2s", empty) is None
    assert value("put.throughput_ops_s < 1 for 2s", empty) == 0


class Ticking:
    """Reports whose newest tick a test sets, and a clock that stands there, too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tick = 1000
        self.windows: dict[tuple[float, bool], Window] = {}
        self.stats: Any = SimpleNamespace(errors={})
        monkeypatch.setattr(live, "JUDGE_S", 0.0)
        monkeypatch.setattr(live.time, "time_ns", lambda: self.tick * 10**8)

    def window(self, length_s: float, *, service: bool = False) -> Window:
        return self.windows.setdefault((length_s, service), Window(length_s))

    def move(self) -> int:
        for window in self.windows.values():
            window.move(self.tick)
        return self.tick


def watching(ticking: Any, text: str) -> Watch:
    return Watch([AbortCondition.parse(text)], ticking, ticking.stats)


def test_a_condition_is_judged_once_its_duration_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    ticking = Ticking(monkeypatch)
    watch = watching(ticking, "total.success_rate < 0.9 for 2s")
    window = ticking.window(2.0)
    for passed in range(1, 25):
        window.add({"put": [row(1000 + passed - 1, [], failed=1)]})
        ticking.tick = 1000 + passed
        assert (watch.broken(passed / 10, is_ending=False) is not None) is (passed >= 20), passed
    assert watch.broken(2.5, is_ending=True) is not None  # a share of what ended does not depend on who is done


def test_fewer_operations_because_workers_are_done_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ticking = Ticking(monkeypatch)
    watch = watching(ticking, "total.throughput_ops_s < 5 for 2s")
    ticking.move()
    ticking.tick += 100
    assert watch.broken(10.0, is_ending=True) is None
    found = watch.broken(10.0, is_ending=False)
    assert found is not None and found[1] == 0


def test_causes_count_in_the_last_seconds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ticking = Ticking(monkeypatch)
    watch = watching(ticking, "put.errors.NoSpace > 4 for 2s")
    caused = SimpleNamespace(name="put", error="NoSpace", occurrences=0)
    ticking.stats.errors["a"] = caused
    ticking.stats.errors["b"] = SimpleNamespace(name="get", error="NoSpace", occurrences=100)
    for passed in range(5, 100, 5):
        ticking.tick = 1000 + passed
        caused.occurrences += 1  # four in two seconds
        assert watch.broken(passed / 10, is_ending=False) is None, passed
    ticking.tick += 5
    caused.occurrences += 2
    found = watch.broken(10.0, is_ending=False)
    assert found is not None and found[1] == 5


def test_a_run_that_a_condition_ended_has_failed() -> None:
    total = {"operations": 5, "succeeded": 5, "errors": {}}
    result: Any = {
        "results": {"total": total}, "run": {}, "target": None, "generator": None, "books": None, "interrupted": None,
        "lost_workers": [], "problems": [],
        "aborted": {"expression": "put.p99_ms > 500 for 10s", "value": 612.25, "elapsed_s": 12.04},
    }  # fmt: skip
    judged = gate.apply(result, [])
    assert judged["verdict"] == "fail"
    assert judged["verdict_reasons"] == [
        "ended after 12.0 s by --abort-on 'put.p99_ms > 500 for 10s': it was 612.25 ms"
    ]
    assert gate.exit_code(judged) == 1
    assert abort.reason(result["aborted"]) in judged["verdict_reasons"]
    result["interrupted"] = "SIGINT"
    assert gate.exit_code(gate.apply(result, [])) == 130
