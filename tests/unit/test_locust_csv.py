"""CSV files of every Locust, as people hand them on, to result documents; tests/data/field has some from reports."""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadgen.result import document
from loadgen.result.locust_csv import ReportError, read_failures, read_stats
from tests.support import locust_csv as field
from tests.support.command import called
from tests.support.locust_csv import Request

FIELD = Path(__file__).parent.parent / "data" / "field"
GET = Request("GET", "/", (11.25, 20.5, 28.75, 144.5), {})
POST = Request("POST", 'say "hi", all', (3.25, 250.5), {"HTTPError('500')": 1})


def results_of(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the rows of a result that are not null, and its notes."""
    result = document.from_csv(path)
    return {name: row for name, row in result["results"].items() if row is not None}, result["notes"]


def saved(folder: Path, content: str | bytes, name: str = "x_stats.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(*requests: Request) -> field.Table:
    return field.modern(requests or (GET, POST))


# Files from reports


@pytest.mark.parametrize(
    ("name", "operations", "note"),
    [
        ("locust-1.0", {"/": 776, "total": 776}, "the last line has no end; all of its figures are there"),
        ("no-last-newline", {"/": 2, "total": 2}, "the last line has no end; all of its figures are there"),
        ("blank-last-line", {"GET foo": 20, "POST foo": 30, "x GET foo": 10, "total": 60}, ""),
        ("two-rows-one-key", {"GET foo": 20, "POST foo": 30, "x GET foo": 10, "total": 60}, ""),
        ("two-rows-one-key-total", {"get total": 20, "get total (2)": 5, "total": 25}, ""),
        ("negative-minimum", {"/": 100, "total": 100}, "row 1 (/): Min Response Time is '-1.0'"),
    ],
)
def test_files_of_reports_are_read(name: str, operations: dict[str, int], note: str) -> None:
    found, notes = results_of(FIELD / f"{name}_stats.csv")
    assert {each: row["operations"] for each, row in found.items()} == operations
    assert sum(found[each]["operations"] for each in found if each != "total") == found["total"]["operations"]
    assert found["total"]["latency"]["max_ms"] == (144 if name == "locust-1.0" else 9)
    assert (found["total"]["latency"]["min_ms"] is None) == (name == "negative-minimum")
    about_it = [each for each in notes if each.startswith(f"{name}_stats.csv: ")]
    assert bool(about_it) == bool(note) and any(note in each for each in notes)


def test_a_file_of_locust_0_14_that_counts_more_failures_than_requests_is_refused() -> None:
    path = FIELD / "locust-0.x_stats.csv"
    with pytest.raises(ReportError) as caught:
        document.from_csv(path)
    assert str(caught.value) == (
        f"{path}: row 1: more failures (1123) than requests (330); it was written by Locust 0.13.3 to 0.14, and does "
        "not say how many requests there were"
    )


# Every Locust


@pytest.mark.parametrize(
    ("version", "p99", "fastest"),
    [("0.13.2", None, 0), ("0.13.4", None, 0), ("0.14.6", 290, 0), ("1.0.3", 290, 0), ("1.6.0", 290, 0.4),
     ("2.9.0", 290, 0.4), ("2.46.3", 290, 0.4)],
)  # fmt: skip
def test_files_that_each_locust_wrote(version: str, p99: float | None, fastest: float) -> None:
    """Each was written by the code of that release, of the same 260 requests."""
    result = document.from_csv(FIELD / "locust" / version)
    found = {name: row for name, row in result["results"].items() if row is not None}
    counts = {
        name: (row["operations"], row["failed"], sum((row["errors"] or {}).values())) for name, row in found.items()
    }
    assert counts == {
        "/items, all": (50, 5, 5), "/items?a=1": (200, 0, 0), "GET foo": (7, 0, 0), "POST foo": (3, 0, 0),
        "total": (260, 5, 5),
    }  # fmt: skip
    latency: Any = found["/items, all"]["latency"]
    assert (latency["p99_ms"], int(latency["min_ms"]), int(latency["mean_ms"])) == (p99, 30, 168)
    total: Any = found["total"]["latency"]
    assert (total["min_ms"], int(total["max_ms"])) == (fastest, 37553)
    assert (total["p99_ms"] is None) == (p99 is None) and result["problems"] == []
    assert any("written by Locust 0." in note for note in result["notes"]) == version.startswith("0.")


@pytest.mark.parametrize("version", ["0.13.2", "0.14.6", "1.0.3", "1.6.0", "2.46.3"])
def test_a_file_of_any_locust_that_is_cut_anywhere_says_no_other_figure(version: str, tmp_path: Path) -> None:
    data = (FIELD / "locust" / f"{version}_stats.csv").read_bytes()
    whole, read = read_stats(saved(tmp_path, data)), 0
    for size in range(len(data)):
        try:
            stats = read_stats(saved(tmp_path, data[:size]))
        except ReportError as exc:
            assert "\n" not in str(exc)
            continue
        read += 1
        total = dataclasses.replace(whole.total, rate=stats.total.rate)
        assert (stats.rows, stats.total) == (whole.rows, total)
        assert stats.total.rate in (None, whole.total.rate)
    # Within the last cell, which is left out where a figure is read from it, and at the last newline.
    assert read <= len(data) - data.rindex(b",")


def test_locust_0_12_1_counts_failures_where_one_cannot_know() -> None:
    with pytest.raises(ReportError, match="it does not say how many requests there were"):
        document.from_csv(FIELD / "locust" / "0.12.1")


def test_locust_1_0_joins_whole_milliseconds_and_doubles_no_quotation_mark(tmp_path: Path) -> None:
    saved(tmp_path, field.locust_1_0((GET, POST)))
    failures = field.joined(field.failures_of((GET, POST, Request("x", "y", (), {'want "a",\n"b"': 2}))), texts=3)
    saved(tmp_path, failures, "x_failures.csv")
    found, _ = results_of(tmp_path / "x")
    latency = found["/"]["latency"]
    assert (latency["min_ms"], latency["mean_ms"], latency["max_ms"]) == (11, 51, 144)
    assert found['say "hi", all']["errors"] == {"HTTPError('500')": 1}
    assert read_failures(tmp_path / "x_failures.csv").rows[-1].error == 'want "a",\n"b"'
    assert found["total"]["operations"] == 6


@pytest.mark.parametrize(
    ("text", "by", "p99"),
    [
        (field.locust_0_14((GET, POST)), "Locust 0.13.3 to 0.14", 250),
        (field.locust_0_8((GET, POST), "Aggregated"), "Locust 0.12.2 to 0.13.2", None),
        (field.locust_0_8((GET,)), "Locust 0.8 to 0.12.1", None),
    ],
)
def test_locust_0_x_is_read_with_a_note_where_it_says_enough(
    text: str, by: str, p99: float | None, tmp_path: Path
) -> None:
    found, notes = results_of(saved(tmp_path, text))
    assert any(f"x_stats.csv: written by {by}, " in note for note in notes)
    assert found["/"]["operations"] == 4 and found["/"]["latency"]["mean_ms"] == 51
    assert found["total"]["latency"]["p99_ms"] == p99
    assert found["total"]["throughput_ops_s"] in (0.57, 0.86)


def test_locust_up_to_0_12_does_not_say_whether_failures_are_among_requests(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"written by Locust 0\.8 to 0\.12\.1; 0\.10 and later count failures"):
        document.from_csv(saved(tmp_path, field.locust_0_8((GET, POST))))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (field.written(field.failures_of((GET,))), "Locust's failures by cause; give the file of its requests"),
        ("Method,Name,Error,Occurrences,First Seen,Last Seen\n", "these are Locust's failures by cause"),
        ("Count,Message,Traceback,Nodes\n", "these are the exceptions of Locust's users"),
        ("Timestamp,User Count,Type,Name,Requests/s,50%,Total Request Count\n", "this is Locust's history over time"),
        ('"Name","# requests","50%","66%","100%"\n', "the percentiles of Locust 0.8 to 0.13, without failures"),
        ("a,b\n1,2\n", "not a CSV file as Locust writes them (no column 'Type')"),
        ("Type,Name,Request Count,Requests/s\n", "not a CSV file as Locust writes them (no column 'Failure Count')"),
    ],
)  # fmt: skip
def test_another_file_of_locust_is_named(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ReportError) as caught:
        document.from_csv(saved(tmp_path, text))
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert ("not a CSV file as Locust" in str(caught.value)) == (expected.startswith("not a"))


# Names of files


@pytest.mark.parametrize(
    ("requests", "failures", "given"),
    [
        ("x_stats.csv", "x_failures.csv", "x"),
        ("x_stats.csv", "x_failures.csv", "x_stats.csv"),
        ("Locust_2026-05-01-10h30_a.py_http___b_requests.csv", "Locust_2026-05-01-10h30_a.py_http___b_failures.csv",
         "Locust_2026-05-01-10h30_a.py_http___b"),
        ("a_requests (1).csv", "a_failures (1).csv", "a_requests (1).csv"),
        ("requests_1600000000.12.csv", "failures_1600000007.3.csv", "requests_1600000000.12.csv"),
        ("requests_1600000000.12.csv", "failures_1600000007.3.csv", "requests_1600000000.12"),
        ("my requests.csv", "my failures.csv", "my requests.csv"),
    ],
)  # fmt: skip
def test_failures_beside_requests_are_found(requests: str, failures: str, given: str, tmp_path: Path) -> None:
    saved(tmp_path, field.written(rows()), requests)
    saved(tmp_path, field.written(field.failures_of((GET, POST))), failures)
    found, notes = results_of(tmp_path / given)
    assert found["total"]["errors"] == {"HTTPError('500')": 1}
    assert len(notes) == 1  # on latencies of failures


def test_which_of_two_downloads_belongs_is_not_guessed(tmp_path: Path) -> None:
    path = saved(tmp_path, field.written(rows()), "requests_1600000000.12.csv")
    for name in ("failures_1600000007.3.csv", "failures_1600000008.3.csv"):
        saved(tmp_path, field.written(field.failures_of((GET, POST))), name)
    found, notes = results_of(path)
    assert found["total"]["errors"] is None
    assert "failures_1600000000.12.csv is missing, so failures are not told apart by cause" in notes


def test_failures_that_cannot_be_read_leave_the_requests(tmp_path: Path) -> None:
    path = saved(tmp_path, field.written(rows()))
    saved(tmp_path, "nonsense", "x_failures.csv")
    found, notes = results_of(path)
    assert (found["total"]["operations"], found["total"]["errors"]) == (6, None)
    assert any("x_failures.csv: not a CSV file as Locust writes them" in note for note in notes)


def test_requests_are_no_failures(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="these are Locust's requests; give the file of its failures"):
        read_failures(saved(tmp_path, field.written(rows())))


def test_failures_that_are_cut_are_a_problem(tmp_path: Path) -> None:
    path = saved(tmp_path, field.written(rows()))
    saved(tmp_path, field.written(field.failures_of((GET, POST)))[:-10], "x_failures.csv")
    result = document.from_csv(path)
    assert "x_failures.csv: it ends in the middle of a row, which is left out" in result["notes"]
    assert "Locust counted 1 failures, but its causes add up to 0" in result["problems"]
    assert result["verdict"] == "unknown"


def test_a_failure_may_have_a_text_of_any_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "x" * 200_000
    path = saved(tmp_path, field.written(rows(Request("GET", "/", (1.5,), {text: 1}))))
    saved(tmp_path, field.written(field.failures_of((Request("GET", "/", (1.5,), {text: 1}),))), "x_failures.csv")
    found, _ = results_of(path)
    assert found["/"]["errors"] == {text: 1}
    done = called(capsys, "report", "--csv", path)
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) < 120


# Spreadsheets


def spreadsheet(made: field.Table, delimiter: str = ";", mark: str = ",", quoting: Any = csv.QUOTE_MINIMAL) -> str:
    out = io.StringIO()
    cells = [[cell.replace(".", mark) if at else cell for at, cell in enumerate(row)] for row in made]
    csv.writer(out, delimiter=delimiter, quoting=quoting).writerows(cells)
    return out.getvalue()


def with_totals_row_first(made: field.Table) -> field.Table:
    return [made[0], made[-1], *made[1:-1]]


def with_columns_reversed(made: field.Table) -> field.Table:
    return [[*reversed(row), "a note"] for row in made]


@pytest.mark.parametrize(
    "change",
    [
        spreadsheet,
        lambda made: spreadsheet(made, "\t"),
        lambda made: spreadsheet(made, ",", ",", csv.QUOTE_ALL),
        lambda made: "\ufeff" + spreadsheet(made, ",", "."),
        lambda made: "\ufeff\ufeff" + field.written(made),
        lambda made: spreadsheet(made, "\t").encode("utf-16"),
        lambda made: field.written(made).encode("utf-16-le"),
        lambda made: field.written(made).replace("\r\n", "\r\r\n"),
        lambda made: field.written(made).replace("\r\n", "\r"),
        lambda made: field.written(made) + "\x1a",
        lambda made: "sep=;\r\n" + spreadsheet(made),
        lambda made: "".join(f"| {' | '.join(row)} |\n" for row in [made[0], ["---"] * len(made[0]), *made[1:]]),
        lambda made: field.written([*made[:-1], [made[-1][0], "AGGREGATED", *made[-1][2:]]]),
        lambda made: "Load test,,\r\n,,\r\n" + field.written(made),
        lambda made: field.written(made).replace("\r\n", ",,,\r\n"),
        lambda made: field.written(with_totals_row_first(made)),
        lambda made: field.written([*made[1:], made[0]]),
        lambda made: field.written(made) + "   ",
        lambda made: field.written(with_columns_reversed(made)),
        lambda made: field.written(made).replace(",99.9%,", ",99.90%,"),
        lambda made: field.written(made).replace("Request Count", "request  count "),
    ],
)  # fmt: skip
def test_a_spreadsheet_changes_no_figure(change: Callable[[field.Table], str | bytes], tmp_path: Path) -> None:
    plain = document.from_csv(saved(tmp_path, field.written(rows())))
    assert document.from_csv(saved(tmp_path, change(rows()))) == plain


@pytest.mark.parametrize(
    ("mark", "count", "mean", "expected"),
    [
        (".", "1,234", "1,234.5", (1234, 1234.5)),
        (",", "1.234", "1.234,5", (1234, 1234.5)),
        (".", "1234.0", "1234.5", (1234, 1234.5)),
        (",", "1234,00", "1234,5", (1234, 1234.5)),
        (".", "1 234", "1\u00a0234.5", (1234, None)),
        (".", "1'234", "1.2345e-05", (1234, 0.0)),
        (".", "1234", "1.23E+03", (1234, None)),
    ],
)
def test_numbers_of_other_places(
    mark: str, count: str, mean: str, expected: tuple[int, float | None], tmp_path: Path
) -> None:
    made = [["Type", "Name", "Request Count", "Failure Count", "Average Response Time", "Requests/s"]]
    made += [["GET", "/", count, "0", mean, f"7{mark}25"], ["", "Aggregated", count, "0", mean, f"7{mark}25"]]
    found, _ = results_of(saved(tmp_path, spreadsheet(made, mark=".")))
    row = found["/"]
    assert (row["operations"], row["latency"]["mean_ms"], row["throughput_ops_s"]) == (*expected, 7.25)


def test_a_decimal_comma_that_has_moved_a_row_is_found(tmp_path: Path) -> None:
    """Its last cell is empty, so what is too many is an empty cell. Where all rows have one, nothing has moved."""
    table = rows()
    at = table[0].index("Max Response Time")
    moved = [table[0], [*table[1][:at], "1", "23E+06", *table[1][at + 1 : -1], ""], *table[2:]]
    text = "\n".join(",".join(f'"{cell}"' if '"' not in cell else '"x"' for cell in row) for row in moved)
    with pytest.raises(ReportError, match=rf"row 1 has {len(table[0]) + 1} fields, not {len(table[0])}"):
        read_stats(saved(tmp_path, text))
    with_empty = [table[0], *([*row, ""] for row in table[1:])]
    assert read_stats(saved(tmp_path, field.written(with_empty))) == read_stats(saved(tmp_path, field.written(table)))


@pytest.mark.parametrize("count", ["1.234", "1E+03", "-1", "", "x", "9" * 5000, "\u0661", "1_0", "1.5", "0x10"])
def test_what_is_no_count_is_refused(count: str, tmp_path: Path) -> None:
    made = rows()
    made[1][2] = count
    with pytest.raises(ReportError, match=r"row 1: Request Count is .*, not a count") as caught:
        document.from_csv(saved(tmp_path, field.written(made)))
    assert len(str(caught.value)) < 300


def test_a_thousand_that_may_be_a_decimal_is_left_out(tmp_path: Path) -> None:
    made = [["Type", "Name", "Request Count", "Failure Count", "Average Response Time"]]
    made += [["GET", "/", "12", "0", "1,234"], ["", "Aggregated", "12", "0", "1,234"]]
    found, notes = results_of(saved(tmp_path, spreadsheet(made, ";", ",")))
    assert found["/"]["latency"]["mean_ms"] is None
    assert any("Average Response Time is '1,234', which is a thousand or a decimal" in note for note in notes)


@pytest.mark.parametrize(
    ("column", "cell", "left_out"),
    [
        ("90%", "05. Jan", {"p90_ms"}),
        ("Average Response Time", "23164104638616383", {"mean_ms"}),  # its point was taken for a thousand's
        ("99%", "14", {"p50_ms", "p90_ms", "p95_ms", "p99_ms"}),
        ("Min Response Time", "900.5", {"min_ms", "max_ms"}),
        ("Requests/s", "#DIV/0!", set()),
        ("Max Response Time", "", {"max_ms"}),
    ],
)
def test_a_figure_that_cannot_be_is_left_out_with_a_note(
    column: str, cell: str, left_out: set[str], tmp_path: Path
) -> None:
    made = rows(GET)
    made[1][made[0].index(column)] = cell
    found, notes = results_of(saved(tmp_path, field.written(made)))
    assert {name for name, value in found["/"]["latency"].items() if value is None} == {*left_out, "service"}
    assert (found["/"]["throughput_ops_s"] is None) == (column == "Requests/s")
    assert any(f"x_stats.csv: row 1 (/): {column} is {cell!r}" in note and "left out" in note for note in notes)
    assert found["total"]["latency"]["p99_ms"] == 140


def test_of_many_figures_that_are_left_out_some_are_named(tmp_path: Path) -> None:
    made = rows(*(Request("GET", f"/{n}", (1.5,), {}) for n in range(50)))
    for row in made[1:]:
        row[4:] = ["?"] * (len(row) - 4)
    _, notes = results_of(saved(tmp_path, field.written(made)))
    assert len(notes) < 12 and any("more figures are left out" in note for note in notes)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    made = [[*row[:4], *row[6:]] for row in rows()]
    found, notes = results_of(saved(tmp_path, field.written(made)))
    assert found["/"]["latency"]["mean_ms"] is None and found["/"]["latency"]["max_ms"] == 144.5
    assert "x_stats.csv: there is no column 'Average Response Time', 'Median Response Time'" in notes


def test_what_the_end_of_a_file_may_have_lost(tmp_path: Path) -> None:
    rate_last = [[*row[:9], *row[10:], row[9]] for row in rows(GET)]
    found, notes = results_of(saved(tmp_path, field.written(rate_last).rstrip()))
    assert found["total"]["throughput_ops_s"] is None and found["/"]["throughput_ops_s"] is not None
    assert any("and may be cut, since the last line has no end" in note for note in notes)
    counts_last = [[*row[:2], *row[3:], row[2]] for row in rows(GET)]
    assert read_stats(saved(tmp_path, field.written(counts_last).rstrip())).total.requests == 4
    counts_last[1][-1] = counts_last[2][-1] = "40"
    with pytest.raises(ReportError, match="ends in the middle of a row"):
        read_stats(saved(tmp_path, field.written(counts_last).rstrip()[:-1]))


def test_a_crash_leaves_zero_bytes(tmp_path: Path) -> None:
    text = field.written(rows())
    _, notes = results_of(saved(tmp_path, text.encode() + bytes(512)))
    assert "x_stats.csv: its last 512 bytes are zero, so something is lost" in notes
    with pytest.raises(ReportError, match="ends in the middle of a row"):
        document.from_csv(saved(tmp_path, text[:-60].encode() + bytes(512)))


def test_names_in_another_encoding(tmp_path: Path) -> None:
    text = field.written(rows(Request("GET", "caf\u00e9", (1.5,), {})))
    found, notes = results_of(saved(tmp_path, text.encode("cp1252")))
    assert "caf\u00e9" in found and "x_stats.csv: not UTF-8: its names are read as Windows-1252" in notes
    found, _ = results_of(saved(tmp_path, text.encode().replace(b"caf", b"\xff")))
    assert "\\xff\u00e9" in found


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_header_that_stands_again_is_no_row(at: int, tmp_path: Path) -> None:
    made = rows(GET, POST)
    plain, _ = results_of(saved(tmp_path, field.written(made)))
    found, notes = results_of(saved(tmp_path, field.written([*made[:at], made[0], *made[at:]])))
    assert found == plain
    assert "x_stats.csv: its header stands 2 times, so several files may be joined in it" in notes


def test_several_files_in_one_are_no_run(tmp_path: Path) -> None:
    made = rows(GET, POST)
    result = document.from_csv(saved(tmp_path, field.written([*made, *made])))
    assert "x_stats.csv: its header stands 2 times, so several files may be joined in it" in result["notes"]
    assert "Locust's rows add up to 18 requests, but its Aggregated row says 6" in result["problems"]
    assert result["verdict"] == "unknown"
    reversed_columns = [list(reversed(row)) for row in made]
    with pytest.raises(ReportError, match="it holds several tables, whose columns differ"):
        document.from_csv(saved(tmp_path, field.written([*made, *reversed_columns])))


@pytest.mark.parametrize(
    ("column", "renamed"), [("99%", "p99"), ("99.9%", "p99.9"), ("Max Response Time", "Maximum"), ("Requests/s", "RPS")]
)
def test_a_column_that_is_called_otherwise_is_missing(column: str, renamed: str, tmp_path: Path) -> None:
    found, notes = results_of(saved(tmp_path, field.written(rows()).replace(f",{column},", f",{renamed},", 1)))
    assert found["/"]["operations"] == 4 and f"x_stats.csv: there is no column {column!r}" in notes


@pytest.mark.parametrize(
    ("begin", "says"),
    [(b"PK\x03\x04", "a spreadsheet or another archive of ZIP"), (b"\x1f\x8b\x08", "compressed with gzip; unpack it"),
     (b"\xd0\xcf\x11\xe0", "a spreadsheet of Excel"), (b"\x28\xb5\x2f\xfd", "compressed with Zstandard")],
)  # fmt: skip
def test_a_file_that_is_no_text_says_what_it_is(begin: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=f"not a CSV file as Locust writes them; it is {says}"):
        document.from_csv(saved(tmp_path, begin + b"\0" * 20))


# Rows and names


def test_rows_that_have_one_name_are_all_shown(tmp_path: Path) -> None:
    requests = [Request(kind, name, (1.5,) * number, {f"e{number}": 1}) for number, (kind, name) in enumerate(
        (("GET", "a"), ("POST", "a"), ("", "GET a"), ("x", "GET a"), ("", "total"), ("", "total (2)"), ("y", "total"),
         ("GET", "Aggregated"), ("", "y total"), ("", ""), ("GET", "")), 1)]  # fmt: skip
    saved(tmp_path, field.written(field.failures_of(requests)), "x_failures.csv")
    result = document.from_csv(saved(tmp_path, field.written(rows(*requests))))
    shown = {name: row for name, row in result["results"].items() if row is not None and name != "total"}
    assert result["problems"] == []
    assert sorted(row["operations"] for row in shown.values()) == [*range(1, 12)]
    assert all(row["errors"] == {f"e{row['operations']}": 1} for row in shown.values())
    assert {"POST a", "x GET a", "GET Aggregated", "total (2)", "(no name)", "GET"} <= shown.keys()
    assert result["results"]["total"] is not None and result["results"]["total"]["operations"] == 66


def test_rows_of_one_type_and_name_are_shown_without_causes(tmp_path: Path) -> None:
    made = rows(GET, POST)
    made.insert(2, list(made[2]))
    saved(tmp_path, field.written(field.failures_of((GET, POST))), "x_failures.csv")
    result = document.from_csv(saved(tmp_path, field.written(made)))
    twice = [row for name, row in result["results"].items() if name.startswith("POST say") and row is not None]
    assert [(row["operations"], row["errors"]) for row in twice] == [(2, None), (2, None)]
    assert "Locust's rows add up to 8 requests, but its Aggregated row says 6" in result["problems"]


def test_causes_of_another_request_are_a_problem(tmp_path: Path) -> None:
    saved(tmp_path, field.written(field.failures_of((Request("GET", "/", (), {"e": 1}),))), "x_failures.csv")
    problems = document.from_csv(saved(tmp_path, field.written(rows())))["problems"]
    assert problems == [
        "/: Locust counted 0 failures, but its causes add up to 1",
        'say "hi", all: Locust counted 1 failures, but its causes add up to 0',
    ]


@pytest.mark.parametrize("command", [("report", "--json"), ("report",)])
def test_ten_times_the_names_take_ten_times_as_long(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def took(names: int) -> float:
        requests = [Request("GET", f"/{n}", (1.5,), {f"e{n}": 1}) for n in range(names)]
        saved(tmp_path, field.written(rows(*requests)))
        saved(tmp_path, field.written(field.failures_of(requests)), "x_failures.csv")
        began = time.process_time()
        done = called(capsys, *command, "--csv", tmp_path / "x")
        spent = time.process_time() - began
        assert done.returncode == 0 and done.stdout.count("/") >= names
        return spent

    took(10)  # what is imported once
    # Comparing each name with each takes a hundred times as long, and a whole file of them for each a thousand times.
    assert took(3000) < 40 * took(300)
