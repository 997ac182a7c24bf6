"""Locust's CSV files as records.

Locust rewrites its files while it runs, so a file that a crash or a full disk left behind may end in the
middle of a row. Such a file is refused: half a number is still a number.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path

from cluster.base.errors import UsageError

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
_COUNTS = ("Request Count", "Failure Count")
# A Locust that was told to report other percentiles leaves some of these out.
_OPTIONAL = frozenset(column for column in LATENCY_COLUMNS.values() if column.endswith("%"))
_STATS = ("Type", "Name", *_COUNTS, *LATENCY_COLUMNS.values(), "Requests/s")
_FAILURES = ("Method", "Name", "Error", "Occurrences")


class ReportError(UsageError):
    """What was given cannot be made into a result; the message is one line that says what and why."""


@dataclasses.dataclass(frozen=True, slots=True)
class StatsRow:
    """One row of ``*_stats.csv``.

    Attributes:
        type, name: the request's type and name; the row over all requests is of no type and is named
            ``Aggregated``.
        requests, failures: how many were counted; failures are among the requests.
        rate: requests per second as Locust reports it, since the start of its master.
        latency: milliseconds by our field name (see LATENCY_COLUMNS), to the microsecond; a field is None
            where Locust's file says ``N/A`` or lacks the column.
    """

    type: str
    name: str
    requests: int
    failures: int
    rate: float | None
    latency: dict[str, float | None]


@dataclasses.dataclass(frozen=True, slots=True)
class FailureRow:
    """One row of ``*_failures.csv``: how often a request of this type and name failed in this way."""

    type: str
    name: str
    error: str
    occurrences: int


def read_stats(path: Path) -> list[StatsRow]:
    """Return the rows of a ``*_stats.csv``, the Aggregated one last.

    Raises ReportError where the file is missing, empty, truncated, or not Locust's.
    """
    rows = []
    for index, record in enumerate(_read(path, [column for column in _STATS if column not in _OPTIONAL])):
        where = f"{path}: row {index + 1}"
        requests, failures = (_count(record[column], where, column) for column in _COUNTS)
        if failures > requests:
            raise ReportError(f"{where}: more failures ({failures}) than requests ({requests})")
        latency = {
            field: _number(record.get(column, "N/A"), where, column) for field, column in LATENCY_COLUMNS.items()
        }
        rate = _number(record["Requests/s"], where, "Requests/s")
        row = StatsRow(record["Type"], record["Name"], requests, failures, rate, _clamped(latency))
        rows.append(row)
    if not rows or rows[-1].name != AGGREGATED or rows[-1].type:
        raise ReportError(f"{path}: no {AGGREGATED} row at the end; the file is truncated or was never finished")
    return rows


def read_failures(path: Path) -> list[FailureRow]:
    """Return the rows of a ``*_failures.csv``. Raises ReportError as ``read_stats`` does."""
    return [
        FailureRow(
            record["Method"],
            record["Name"],
            record["Error"],
            _count(record["Occurrences"], f"{path}: row {index + 1}", "Occurrences"),
        )
        for index, record in enumerate(_read(path, _FAILURES))
    ]


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file by column, having checked that it is whole and has these columns."""
    try:
        # Locust writes in its locale's encoding; what is not UTF-8 can only be a name or an error's text.
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as exc:
        raise ReportError(f"{path}: {exc.strerror or exc}") from exc
    if not text.strip():
        raise ReportError(f"{path}: the file is empty")
    if not text.endswith("\n"):
        raise ReportError(f"{path}: the file ends in the middle of a row; it was truncated")
    try:
        header, *rows = csv.reader(io.StringIO(text), strict=True)
    except csv.Error as exc:
        raise ReportError(f"{path}: not a CSV file as Locust writes them ({exc})") from exc
    odd = next((number for number, row in enumerate(rows, 1) if len(row) != len(header)), None)
    if odd is not None:
        raise ReportError(
            f"{path}: row {odd} has {len(rows[odd - 1])} fields, not {len(header)}; the file is truncated or garbled"
        )
    missing = [column for column in columns if column not in header]
    if missing:
        raise ReportError(f"{path}: not a CSV file as Locust writes them (no column {missing[0]!r})")
    return [dict(zip(header, row, strict=True)) for row in rows]


def _count(text: str, where: str, column: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    raise ReportError(f"{where}: {column} is {text!r}, not a count; the file is garbled")


def _number(text: str, where: str, column: str) -> float | None:
    """Return a number of at least 0 to three decimal places, or None for ``N/A``."""
    if text == "N/A":
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise ReportError(f"{where}: {column} is {text!r}, not a number; the file is garbled")
    return round(number, 3)


def _clamped(latency: dict[str, float | None]) -> dict[str, float | None]:
    """Hold percentiles within minimum and maximum, which Locust keeps exact while it rounds the others."""
    low, high = latency["min_ms"], latency["max_ms"]
    if low is None or high is None:
        return latency
    return {
        field: value if value is None or field == "mean_ms" else min(max(value, low), high)
        for field, value in latency.items()
    }
