"""Workers' reports to series.csv and .hlog files: merged, complete, and never averaged."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import pytest

from loadgen.stats import hdr
from loadgen.stats.series import COLUMNS, Series


def interval(second: float, latencies_us: list[int], failed: int = 0, info: int = 0, ticks: int = 10) -> list[Any]:
    """One interval of one type, as a worker reports it: a second or, of 1 tick, 100 ms."""
    values = [us * 1000 for us in latencies_us]
    counts: dict[int, int] = {}
    for value in values:
        hdr.merge(counts, {hdr.bucket(value): 1})
    return [
        round(second * 10),
        ticks,
        failed,
        info,
        min(values, default=0),
        max(values, default=0),
        sum(values),
        counts,
    ]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "series.csv").open() as file:
        return list(csv.DictReader(file))


def test_two_workers_become_one_row_a_second_and_type(tmp_path: Path) -> None:
    series = Series()
    # 98 fast ones from one worker and 2 slow ones from the other: p99 is slow, the mean of the two p99 is not.
    series.add({"put": [interval(100, [1000] * 98)], "get": [interval(100, [500])]})
    series.add({"put": [interval(100, [9000] * 2, failed=3, info=1)]})
    series.write(tmp_path)
    found = rows(tmp_path)
    assert tuple(found[0]) == COLUMNS
    assert [(row["time"], row["f"]) for row in found] == [("100", "get"), ("100", "put"), ("100", "total")]
    put, total = found[1], found[2]
    assert (put["succeeded"], put["failed"], put["info"]) == ("100", "3", "1")
    assert (total["succeeded"], total["failed"], total["info"]) == ("101", "3", "1")
    assert abs(float(put["p50_ms"]) - 1.0) < 0.001
    assert abs(float(put["p99_ms"]) - 9.0) < 0.009
    assert float(put["max_ms"]) == float(total["max_ms"]) == 9.0
    assert series.summaries["put"].max_ns == 9_000_000
    assert series.summaries["total"].count == 101


def test_all_latencies_are_summed_whenever_somebody_asks(tmp_path: Path) -> None:
    draw, series = random.Random(1), Series()
    counts: dict[str, dict[int, int]] = {"put": {}, "get": {}, "total": {}}
    for number in range(400):
        # In order, then long after their intervals were closed, of both lengths.
        at = number / 4 if draw.random() < 0.7 else draw.randrange(100)
        f = draw.choice(("put", "get"))
        row = interval(at, [draw.randrange(1, 5000) for _ in range(draw.randrange(4))], ticks=draw.choice((1, 10)))
        series.add({f: [row]})
        for name in (f, "total"):
            hdr.merge(counts[name], row[-1])
        if number % 50 == 49:
            assert {f: each.counts for f, each in series.summaries.items()} == counts
    series.write(tmp_path)
    assert {f: each.counts for f, each in series.summaries.items()} == counts


def test_a_second_without_answers_has_rows_too(tmp_path: Path) -> None:
    series = Series()
    series.add({"put": [interval(100, [1000]), interval(103, [2000])]})
    series.add({"put": [interval(102, [], failed=2)]})
    series.write(tmp_path)
    put = [row for row in rows(tmp_path) if row["f"] == "put"]
    assert [(row["time"], row["succeeded"], row["failed"], row["p99_ms"], row["max_ms"]) for row in put[1:3]] == [
        ("101", "0", "0", "", ""), ("102", "0", "2", "", ""),
    ]  # fmt: skip
    read = hdr.read_log((tmp_path / "put.hlog").read_text())
    assert [(start, length, sum(counts.values())) for start, length, counts in read] == [
        (100.0, 1.0, 1), (103.0, 1.0, 1),
    ]  # fmt: skip


def test_what_a_worker_reports_late_is_in_its_second(tmp_path: Path) -> None:
    late, prompt = Series(), Series()
    parts = [{"put": [interval(100 + n, [1000 + n])], "get": [interval(100 + n, [n + 1], failed=1)]} for n in range(60)]
    for part in parts:
        prompt.add(part)
    for part in parts[1:] + parts[:1]:
        late.add(part)
    for name, series in (("late", late), ("prompt", prompt)):
        (tmp_path / name).mkdir()
        series.write(tmp_path / name)
    for path in (tmp_path / "prompt").iterdir():
        assert path.read_bytes() == (tmp_path / "late" / path.name).read_bytes()
    assert {path.name for path in (tmp_path / "late").iterdir()} == {"series.csv", "put.hlog", "get.hlog", "total.hlog"}


def test_a_worker_whose_clock_is_a_year_off_does_not_fill_the_disk(tmp_path: Path) -> None:
    series = Series()
    series.add({"put": [interval(100, [1]), interval(100 + 365 * 86_400, [1])]})
    series.write(tmp_path)
    assert len(rows(tmp_path)) == 4


def test_a_run_of_nothing_leaves_a_head(tmp_path: Path) -> None:
    Series().write(tmp_path)
    assert (tmp_path / "series.csv").read_text() == ",".join(COLUMNS) + "\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "series.csv"]


def spent(folder: Path, f: str = "put") -> list[tuple[str, str, int]]:
    return [(row["time"], row["length_s"], int(row["succeeded"])) for row in rows(folder) if row["f"] == f]


def test_a_short_load_is_told_by_the_tick_and_begins_and_ends_with_its_calls(tmp_path: Path) -> None:
    series = Series()
    series.add({"put": [interval(100.3, [1000] * 7, ticks=1), interval(100.4, [1000] * 10, ticks=1)]})
    series.add({"put": [interval(100.7, [1000] * 2, failed=1, ticks=1)], "get": [interval(100.7, [9], ticks=1)]})
    series.write(tmp_path, (100_330_000_000, 100_720_000_001))
    assert spent(tmp_path) == [
        ("100.33", "0.07", 7), ("100.4", "0.1", 10), ("100.5", "0.1", 0), ("100.6", "0.1", 0),
        ("100.7", "0.020000001", 2),
    ]  # fmt: skip
    assert series.interval_s == 0.1
    read = hdr.read_log((tmp_path / "put.hlog").read_text())
    assert [(round(start, 3), length, sum(counts.values())) for start, length, counts in read] == [
        (100.33, 0.07, 7), (100.4, 0.1, 10), (100.7, 0.02, 2),
    ]  # fmt: skip


def test_a_load_that_went_on_for_long_is_told_by_the_second(tmp_path: Path) -> None:
    series = Series()
    # One worker has had its two minutes, the other has not yet; what was reported by the tick stays in its second.
    series.add({"put": [interval(100.3, [1] * 7, ticks=1), interval(100.9, [1], ticks=1), interval(101, [1] * 5)]})
    series.add({"put": [interval(101.2, [1] * 3, ticks=1)]})
    series.write(tmp_path, (100_300_000_000, 102_000_000_000))
    assert spent(tmp_path) == [("100.3", "0.7", 8), ("101", "1", 8)]
    assert series.interval_s == 1.0


@pytest.mark.parametrize(("ticks", "shift", "at"), [(1, 4, "100.4"), (10, 4, "100"), (10, 6, "101"), (10, -6, "99")])
def test_another_machines_clock_is_corrected_as_finely_as_its_intervals_are(
    tmp_path: Path, ticks: int, shift: int, at: str
) -> None:
    series = Series()
    series.add({"put": [interval(100, [1], ticks=ticks)]}, shift)
    series.write(tmp_path)
    assert [time for time, _, _ in spent(tmp_path)] == [at]


def test_one_operation_is_a_rate_too(tmp_path: Path) -> None:
    series = Series()
    series.add({"put": [interval(100.3, [1000], ticks=1)]})
    series.write(tmp_path, (100_310_000_000, 100_311_000_000))
    assert spent(tmp_path) == [("100.31", "0.001", 1)]


def test_a_first_call_that_took_long_is_where_it_begins(tmp_path: Path) -> None:
    series = Series()
    series.add({"put": [interval(100.3, [1000], ticks=1)]})
    series.write(tmp_path, (100_150_000_000, 100_350_000_000))
    assert spent(tmp_path) == [("100.15", "0.05", 0), ("100.2", "0.1", 0), ("100.3", "0.05", 1)]
