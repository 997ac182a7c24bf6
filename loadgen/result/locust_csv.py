"""Locust's CSV files as records, whichever Locust wrote them, and whatever a spreadsheet or a crash made of them.

A figure is read if it is certain. A cell that says none is left out, with a note; where the file does not say how many
requests there were, it is refused. Half a number is still a number, so a file that ends in the middle of a row is read
only where the rest of that row says all.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cluster.base.console import printable, short
from loadgen.result import csv_table
from loadgen.result.csv_table import ReportError

__all__ = ["AGGREGATED", "FailureRow", "Failures", "ReportError", "Stats", "StatsRow", "read_failures", "read_stats"]

AGGREGATED = "Aggregated"

# Our name of each latency, and the column of Locust's that holds it; all in milliseconds.
LATENCY_COLUMNS = {
    "min_ms": "Min Response Time",
    "mean_ms": "Average Response Time",
    "median_ms": "Median Response Time",
    "p50_ms": "50%",
    "p90_ms": "90%",
    "p95_ms": "95%",
    "p99_ms": "99%",
    "p99_9_ms": "99.9%",
    "p99_99_ms": "99.99%",
    "max_ms": "Max Response Time",
}
_PERCENTILES = tuple(field for field, column in LATENCY_COLUMNS.items() if column.endswith("%"))
_COUNTS = ("Request Count", "Failure Count")
_RATE = "Requests/s"
_FIGURES = (*LATENCY_COLUMNS.values(), _RATE)
_FAILURES = ("Method", "Name", "Error", "Occurrences")
# What Locust called its columns before 1.0.
_BEFORE_1_0 = {"# requests": "Request Count", "# failures": "Failure Count"}
# Other files of Locust's, by columns that only they have.
_OTHER_FILES = {
    ("traceback", "nodes"): "these are the exceptions of Locust's users",
    ("timestamp", "name"): "this is Locust's history over time",
    ("error", "occurrences"): "these are Locust's failures by cause",
    ("# requests", "50%", "100%"): "these are the percentiles of Locust 0.8 to 0.13, without failures",
}
_TRUNCATED = "the file ends in the middle of a row; it was truncated"
_ZEROS = "its percentiles are 0, as Locust 0.13.3 and 0.13.4 wrote them by mistake; they are left out"
_MOST_NOTES = 8
_MOST_DIGITS = 15  # more are no count, and no figure that a float keeps
# Every Locust rounds times in its histogram to two digits, to whole milliseconds at least; some then cut them off.
_ROUNDING, _LEAST_MS = 0.05, 1.0

_WHOLE = re.compile(r"[0-9]+")
_GROUPED = re.compile(r"[0-9]{1,3}([.,'\u2019 \u00a0\u202f])[0-9]{3}(?:\1[0-9]{3})*")
_PLAIN = re.compile(r"[0-9]*([.,])[0-9]+")
_BOTH = re.compile(r"[0-9]{1,3}(?:([.,])[0-9]{3})+([.,])[0-9]+")
_TINY = re.compile(r"[0-9](?:\.[0-9]+)?e-[0-9]{2}")  # as Python writes it
_TWO_DECIMALS = re.compile(r"[0-9]+\.[0-9]{2}")
_PERCENT = re.compile(r"([0-9]{1,3}(?:[.,][0-9]+)?) ?%")


@dataclasses.dataclass(frozen=True, slots=True)
class StatsRow:
    """One row of ``*_stats.csv``.

    Attributes:
        type, name: the request's type and name; those of the row over all requests say so.
        requests, failures: how many were counted; failures are among the requests.
        rate: requests per second as Locust reports it, since the start of its master; None where that is not known.
        latency: milliseconds by our field name (see LATENCY_COLUMNS), to the microsecond; a field is None
            where Locust's file says ``N/A`` or lacks the column, and where what it says cannot be.
    """

    type: str
    name: str
    requests: int
    failures: int
    rate: float | None
    latency: dict[str, float | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Stats:
    """A ``*_stats.csv``: a row per request name, the row over all of them, and what was left out, a line each."""

    rows: list[StatsRow]
    total: StatsRow
    notes: list[str]


@dataclasses.dataclass(frozen=True, slots=True)
class FailureRow:
    """One row of ``*_failures.csv``: how often a request of this type and name failed in this way."""

    type: str
    name: str
    error: str
    occurrences: int


@dataclasses.dataclass(frozen=True, slots=True)
class Failures:
    """A ``*_failures.csv``: a row per request name and cause, and what was left out, a line each."""

    rows: list[FailureRow]
    notes: list[str]


def read_stats(path: Path, ours: bool = False, data: bytes | None = None) -> Stats:
    """Return the requests that a ``*_stats.csv`` has counted.

    Raises ReportError where the file is missing, empty, not Locust's, or does not say how many requests there were.
    Takes whether it is a run folder's: what would be a note about another is damage there, and raises ReportError too;
    and the content of a file that could not be written.
    """
    file = _open(path, ("Name", *_COUNTS), _joined_stats, data)
    if file.table.cut or (ours and not file.table.ended):
        raise ReportError(f"{path}: {_TRUNCATED}")
    cells = _Cells(file, ours)
    rows = [_stats_row(cells, number) for number in range(len(file.table.rows))]
    at = _total_at(rows, file.old)
    if at is None:
        raise ReportError(
            f"{path}: no {AGGREGATED} row at the end or elsewhere; the file is truncated, edited or was never finished"
        )
    total = rows[at]
    _check_failures(file, rows, total)
    if not file.table.ended:
        rows[-1] = _finished(cells, rows, at)
        total = rows[at]
    del rows[at]
    if written_by := file.written_by(total.name):
        cells.notes.append(f"written by {written_by}, which reports fewer figures than Locust 1.0")
    # Which percentiles Locust 0.x has, its note says.
    absent = [column for column in _FIGURES if column not in file.columns and not (file.old and column.endswith("%"))]
    if not {"Type", "Method"} & file.columns.keys():
        absent.insert(0, "Type")
    if absent:
        cells.notes.append(f"there is no column {', '.join(map(repr, absent))}")
    return Stats(rows, total, cells.all_notes())


def read_failures(path: Path, ours: bool = False, data: bytes | None = None) -> Failures:
    """Return what a ``*_failures.csv`` says of failures. Takes and raises what ``read_stats`` does."""
    file = _open(path, _FAILURES, _joined_failures, data)
    if ours and not file.table.ended:
        raise ReportError(f"{path}: {_TRUNCATED}")
    cells = _Cells(file, ours)
    if file.table.cut:
        cells.notes.append("it ends in the middle of a row, which is left out")
    rows = [
        FailureRow(
            cells.text(number, "Method"),
            cells.text(number, "Name"),
            cells.text(number, "Error"),
            cells.count(number, "Occurrences"),
        )
        for number in range(len(file.table.rows))
    ]
    return Failures(rows, cells.all_notes())


# The file's shape


@dataclasses.dataclass(frozen=True, slots=True)
class _File:
    """A file of Locust's: its table, where each of Locust's columns is in it, and whether Locust 0.x wrote it."""

    path: Path
    table: csv_table.Table
    columns: dict[str, int]
    old: bool

    def written_by(self, total: str) -> str:
        """Return which Locust before 1.0 wrote it; an empty text for 1.0 and later. Takes the name of its last row."""
        if not self.old:
            return ""
        if "Type" in self.columns:
            return "Locust 0.13.3 to 0.14"
        return "Locust 0.12.2 to 0.13.2" if total == AGGREGATED else _UP_TO_0_12


_UP_TO_0_12 = "Locust 0.8 to 0.12.1"


def _open(path: Path, needed: Sequence[str], repair: csv_table.Repair, data: bytes | None) -> _File:
    """Return a file that has the columns that are needed. Raises ReportError."""
    table = csv_table.read(path, _is_header, repair, data)
    columns: dict[str, int] = {}
    for at, name in enumerate(table.header):
        known = _column(name)
        if known in columns and any(row[at] != row[columns[known]] for row in table.rows):
            raise ReportError(f"{path}: two columns are called {known!r}, and they differ")
        columns.setdefault(known, at)
    for column in needed:
        if column not in columns:
            raise ReportError(f"{path}: {_missing(table.header, column, needed)}")
    return _File(path, table, columns, any(name.lower() in _BEFORE_1_0 for name in table.header))


def _is_header(names: Sequence[str]) -> bool:
    """Tell whether names are those of Locust's columns: three at least, or all that there are."""
    found = {_column(name) for name in names}
    return ("Name" in found and len(found & _KNOWN) >= 3) or {"Count", "Traceback"} <= found


_KNOWN = {"Type", "Name", *_COUNTS, *_FIGURES, *_FAILURES, "Timestamp", "100%", "Failures/s"}
_BY_LOWER = {name.lower(): name for name in _KNOWN} | _BEFORE_1_0
_BY_PERCENT = {float(name[:-1]): name for name in _KNOWN if name.endswith("%")}


def _column(name: str) -> str:
    """Return Locust's name of a column, as Locust 1.0 and later have it; any other name as it is.

    A spreadsheet takes ``99.9%`` for a number and may write it as ``99,90%``.
    """
    if percent := _PERCENT.fullmatch(name):
        return _BY_PERCENT.get(float(percent[1].replace(",", ".")), name)
    return _BY_LOWER.get(" ".join(name.lower().split()), name)


def _missing(header: Sequence[str], column: str, needed: Sequence[str]) -> str:
    """Return what a file is that lacks a column of those that are needed."""
    names = {name.lower() for name in header}
    if needed is _FAILURES and "request count" in names:
        return "these are Locust's requests; give the file of its failures"
    other = next((words for marks, words in _OTHER_FILES.items() if names.issuperset(marks)), "")
    if other and needed is not _FAILURES:
        return f"{other}; give the file of its requests"
    return f"not a CSV file as Locust writes them (no column {column!r})"


def _joined_stats(text: str, header: Sequence[str]) -> list[list[str]] | None:
    """Return the rows of a file whose texts Locust 1.0 and earlier put between quotation marks as they are."""
    numbers = f'((?:,(?:-?[0-9.]+|"N/A")){{{len(header) - 2}}})'
    return _joined(text, rf'"([^"]*)","((?:(?!\n").)*?)"{numbers}')


def _joined_failures(text: str, _: Sequence[str]) -> list[list[str]] | None:
    return _joined(text, r'"([^"]*)","((?:(?!",").)*)","(.*?)"(,[0-9]+)')


def _joined(text: str, pattern: str) -> list[list[str]] | None:
    """Return the rows below the first line, each of which has to match; the last group is of numbers.

    Each row is looked for where the one before has ended, so that a file of any content takes one pass.
    """
    if not text.startswith('"'):
        return None
    row, rows = re.compile(rf'(?:{pattern})(?:\r?\n(?="|\Z)|\Z)', re.DOTALL), []
    at = text.find("\n") + 1 or len(text)
    while at < len(text):
        found = row.match(text, at)
        if found is None:
            return None
        *texts, numbers = found.groups()
        rows.append([*texts, *(number.strip('"') for number in numbers.split(",")[1:])])
        at = found.end()
    return rows or None


# The rows


class _Cells:
    """The cells of a file by row and column, and what is to be said of them.

    Attributes:
        notes: about the file.
    """

    def __init__(self, file: _File, ours: bool) -> None:
        self._file, self._table, self._ours = file, file.table, ours
        self.notes = [*file.table.notes]
        self._odd: list[str] = []
        figures = [file.columns[column] for column in _FIGURES if column in file.columns]
        self._decimal = _decimal_mark((row[at] for row in self._table.rows for at in figures), self._table.delimiter)

    def text(self, number: int, column: str) -> str:
        """Return a text; an empty one where there is no such column. Locust before 0.14 called the type ``Method``."""
        at = self._file.columns.get(column, self._file.columns.get("Method") if column == "Type" else None)
        return "" if at is None else self._table.rows[number][at]

    def count(self, number: int, column: str) -> int:
        """Return a count. Raises ReportError where the cell is none."""
        text = self.text(number, column).strip()
        count = _count(text, self._decimal)
        if count is None:
            raise ReportError(
                f"{self._file.path}: row {number + 1}: {column} is {_short(text)!r}, not a count; the file is garbled"
            )
        return count

    def figure(self, number: int, column: str) -> float | None:
        """Return a number of at least 0 to three decimal places; None where the cell says none, with a note."""
        if column not in self._file.columns:
            return None
        text = self.text(number, column).strip()
        if text == "N/A" and self.count(number, _COUNTS[0]) == 0:
            return None
        value, why = _figure(text, self._decimal)
        if value is None:
            self.leave_out(number, column, why)
        return value

    def has_no_percentiles(self, number: int) -> bool:
        """Tell whether a row has zeros for percentiles, as Locust 0.13.3 and 0.13.4 wrote them, and note it once."""
        if not self._file.old or self.text(number, "100%") != "0" or not self.figure(number, LATENCY_COLUMNS["max_ms"]):
            return False
        if _ZEROS not in self.notes:
            self.notes.append(_ZEROS)
        return True

    def leave_out(self, number: int, column: str, why: str) -> None:
        """Note why a figure is left out. Raises ReportError where the file is a run folder's."""
        text, name = _short(self.text(number, column).strip()), _short(self.text(number, "Name"))
        if self._ours:
            raise ReportError(f"{self._file.path}: row {number + 1}: {column} is {text!r}, {why}; the file is garbled")
        self._odd.append(f"row {number + 1} ({name}): {column} is {text!r}, {why}; it is left out")

    def all_notes(self) -> list[str]:
        """Return what is to be said, a line each. Raises ReportError where the file is a run folder's."""
        if self._ours and self.notes:
            raise ReportError(f"{self._file.path}: {self.notes[0]}")
        notes = [*self.notes, *self._odd[:_MOST_NOTES]]
        if len(self._odd) > _MOST_NOTES:
            notes.append(f"{len(self._odd) - _MOST_NOTES:,} more figures are left out")
        return [f"{self._file.path.name}: {note}" for note in notes]

    @property
    def file(self) -> _File:
        """The file that they are of."""
        return self._file


def _stats_row(cells: _Cells, number: int) -> StatsRow:
    requests, failures = (cells.count(number, column) for column in _COUNTS)
    unread = _PERCENTILES if cells.has_no_percentiles(number) else ()
    latency = {
        field: None if field in unread else cells.figure(number, column) for field, column in LATENCY_COLUMNS.items()
    }
    for field, why in _contradictions(latency).items():
        cells.leave_out(number, LATENCY_COLUMNS[field], why)
        latency[field] = None
    rate = cells.figure(number, _RATE)
    return StatsRow(cells.text(number, "Type"), cells.text(number, "Name"), requests, failures, rate, _held(latency))


def _contradictions(latency: Mapping[str, float | None]) -> dict[str, str]:
    """Return which latencies cannot be what they are given as, and why, by field."""
    low, high = latency["min_ms"], latency["max_ms"]
    if low is not None and high is not None and low > high:
        return dict.fromkeys(("min_ms", "max_ms"), "and the minimum is above the maximum")
    found: dict[str, str] = {}
    for field, value in latency.items():
        if value is None or field in ("min_ms", "max_ms"):
            continue
        below = low is not None and value < low - max(_LEAST_MS, _ROUNDING * low)
        above = high is not None and value > high + max(_LEAST_MS, _ROUNDING * high)
        if below or above:
            found[field] = f"which is {'below the minimum' if below else 'above the maximum'}"
    percentiles = [value for field in _PERCENTILES if field not in found and (value := latency[field]) is not None]
    if percentiles == sorted(percentiles):
        return found
    for lower, higher in itertools.combinations((field for field in _PERCENTILES if field not in found), 2):
        first, second = latency[lower], latency[higher]
        if first is not None and second is not None and first > second:
            found |= dict.fromkeys((lower, higher), "and a percentile is above a higher one")
    return found


def _held(latency: dict[str, float | None]) -> dict[str, float | None]:
    """Hold percentiles within minimum and maximum, which Locust keeps exact while it rounds the others."""
    low, high = latency["min_ms"], latency["max_ms"]
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    return {
        field: value if value is None or field == "mean_ms" else min(max(value, low), high)
        for field, value in latency.items()
    }


def _total_at(rows: Sequence[StatsRow], old: bool) -> int | None:
    """Return which row is over all requests: where several could be, the last whose counts are the sum of the others'.

    Takes whether Locust 0.x wrote it, which called it ``Total`` up to 0.12.1. Locust 1.0 and earlier wrote its missing
    type as ``None``.
    """
    names = (AGGREGATED.lower(), "total") if old else (AGGREGATED.lower(),)
    named = [
        at for at, row in enumerate(rows) if row.name.strip().lower() in names and row.type.strip() in ("", "None")
    ]
    requests, failures = sum(row.requests for row in rows), sum(row.failures for row in rows)
    fitting = [at for at in named if 2 * rows[at].requests == requests and 2 * rows[at].failures == failures]
    found = fitting or named
    return found[-1] if found else None


def _check_failures(file: _File, rows: Sequence[StatsRow], total: StatsRow) -> None:
    """Raise ReportError where failures cannot be told from requests."""
    written_by = file.written_by(total.name)
    for number, row in enumerate(rows, 1):
        if row.failures > row.requests:
            of = (
                f"; it was written by {written_by}, and does not say how many requests there were" if written_by else ""
            )
            raise ReportError(
                f"{file.path}: row {number}: more failures ({row.failures}) than requests ({row.requests}){of}"
            )
    if written_by == _UP_TO_0_12 and total.failures:
        raise ReportError(
            f"{file.path}: written by {written_by}; 0.10 and later count failures among the requests, earlier ones "
            "beside them, so it does not say how many requests there were"
        )


def _finished(cells: _Cells, rows: Sequence[StatsRow], total_at: int) -> StatsRow:
    """Return the last row without what may be cut: the last cell of a line that has no end.

    Raises ReportError where that is a count and the sums do not show that it is whole.
    """
    last, at = rows[-1], len(cells.file.table.header) - 1
    column = next((name for name, where in cells.file.columns.items() if where == at), "")
    # Locust 0.x never ended the last line, and wrote rates with two decimals.
    whole = cells.file.table.quoted or bool(
        cells.file.old and _TWO_DECIMALS.fullmatch(cells.text(len(rows) - 1, column))
    )
    if column in _COUNTS and not whole:
        counts = [row.requests if column == _COUNTS[0] else row.failures for row in rows]
        if sum(counts) != 2 * counts[total_at]:
            raise ReportError(f"{cells.file.path}: {_TRUNCATED}")
    fields = [field for field, name in LATENCY_COLUMNS.items() if name == column]
    if (fields or column == _RATE) and not whole:
        cells.leave_out(len(rows) - 1, column, "and may be cut, since the last line has no end")
        latency = {**last.latency, **dict.fromkeys(fields)}
        return dataclasses.replace(last, latency=latency, rate=None if column == _RATE else last.rate)
    if column in ("Type", "Method", "Name") and last is not rows[total_at]:
        cells.notes.append("the last line has no end, so its name may be cut")
    else:
        cells.notes.append("the last line has no end; all of its figures are there")
    return last


# Numbers


def _decimal_mark(texts: Iterable[str], delimiter: str) -> str:
    """Return what stands before the decimals in a file; an empty text where that cannot be known.

    ``1.234`` and ``1,234`` may be either, so what decides is a number that can be only one. A spreadsheet of another
    locale changes the delimiter with the mark.
    """
    marks = set()
    for text in map(str.strip, texts):
        if text.isdigit():
            continue
        if (both := _BOTH.fullmatch(text)) and both[1] != both[2]:
            marks.add(both[2])
        elif (plain := _PLAIN.fullmatch(text)) and not _GROUPED.fullmatch(text):
            marks.add(plain[1])
    if len(marks) == 1:
        return marks.pop()
    return "." if delimiter == "," and not marks else ""


def _count(text: str, decimal: str) -> int | None:
    """Return a count, which a spreadsheet may have grouped by thousands, or a program given decimals of 0."""
    if grouped := _GROUPED.fullmatch(text):
        mark = grouped[1]
        if mark in ".," and not decimal:
            return None
        if mark != decimal:
            text = text.replace(mark, "")
    whole, mark, zeros = text.partition(decimal or ".")
    if mark and (not zeros or zeros.strip("0")):
        return None
    return int(whole) if _WHOLE.fullmatch(whole) and len(whole) <= _MOST_DIGITS else None


def _figure(text: str, decimal: str) -> tuple[float | None, str]:
    """Return a number, or None and the reason why there is none."""
    if not text:
        return None, "which is empty"
    negative, text = text[0] in "-\u2212", text.removeprefix("-").removeprefix("\u2212")
    plain = _PLAIN.fullmatch(text)
    if plain and plain[1] == decimal:
        text = text.replace(decimal, ".")
    elif not _WHOLE.fullmatch(text):  # what few figures are
        grouped, both = _GROUPED.fullmatch(text), _BOTH.fullmatch(text)
        if grouped and grouped[1] in ".," and not decimal:
            return None, "which is a thousand or a decimal"
        if grouped and grouped[1] != decimal:
            text = text.replace(grouped[1], "")
        elif both and both[1] != both[2] and both[2] in (decimal or ".,"):
            text = text.replace(both[1], "").replace(both[2], ".")
        elif plain and not decimal:
            text = text.replace(plain[1], ".")
        elif not _TINY.fullmatch(text):
            return None, "not a number"
    value = float(text)
    if not math.isfinite(value):
        return None, "not a number"
    if negative and value:
        return (
            None,
            "not a number of at least 0: a clock was set back, and other times of that row may have changed with it",
        )
    return round(value, 3), ""


def _short(text: str, limit: int = 40) -> str:
    """Return the beginning of a text, on one line."""
    return printable(short(text, limit))
