"""Workers' reports to series.csv and .hlog files: merged, complete, and never averaged."""

from __future__ import annotations

import csv
from pathlib import Path

from loadgen.stats import hdr
from loadgen.stats.series import COLUMNS, Series


def interval(second: int, latencies_us: list[int], failed: int = 0, info: int = 0) -> list[object]:
    """One second of one type, as a worker reports it."""
    values = [us * 1000 for us in latencies_us]
    counts: dict[int, int] = {}
    for value in values:
        hdr.merge(counts, {hdr.bucket(value): 1})
    return [second, failed, info, min(values, default=0), max(values, default=0), sum(values), counts]


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
