"""Locust's CSV files as each of its versions writes them, and what spreadsheets and crashes make of them.

Every choice is drawn from a `random.Random`, hypothesis's or one with a seed.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import random
from collections.abc import Callable, Sequence

PERCENTILES = (50, 66, 75, 80, 90, 95, 98, 99, 99.9, 99.99, 100)
COLUMNS = (
    "Type", "Name", "Request Count", "Failure Count", "Median Response Time", "Average Response Time",
    "Min Response Time", "Max Response Time", "Average Content Size", "Requests/s", "Failures/s",
)  # fmt: skip
FIELDS = {
    "min_ms": "Min Response Time", "mean_ms": "Average Response Time", "median_ms": "Median Response Time",
    "p50_ms": "50%", "p90_ms": "90%", "p95_ms": "95%", "p99_ms": "99%", "p99_9_ms": "99.9%", "p99_99_ms": "99.99%",
    "max_ms": "Max Response Time",
}  # fmt: skip
Table = list[list[str]]
"""Rows of cells, the header first, the row over all requests last."""


@dataclasses.dataclass(frozen=True)
class Request:
    """The requests of one type and name: how long each took, and how many failed for which cause."""

    type: str
    name: str
    times: tuple[float, ...]
    causes: dict[str, int]

    @property
    def failures(self) -> int:
        return sum(self.causes.values())


def draw_requests(rng: random.Random, most: int = 6, plain: bool = False) -> list[Request]:
    """Draw a run; of ``plain`` names, which a file whose quotation marks are not doubled can hold."""
    names = ["foo", "GET foo", "total", "get total", "/a/<id>?x=1&y=[2]", "Aggregated", "caf\u00e9", "a|b `c`", "1"]
    names += ['say "hi"'] if plain else ['say "hi", all', "a;b", "two\nlines", "tab\tbed", ' "']
    found = {}
    for _ in range(rng.randint(1, most)):
        kind, name = rng.choice(("GET", "POST", "get", "x", "")), rng.choice(names)
        if (kind, name) == ("", "Aggregated"):
            continue
        base = rng.choice((0.4, 3.7, 41.0, 700.0, 12_345.0))
        times = tuple(base * (1 + rng.randint(0, 1000) / 250) for _ in range(rng.randint(1, 40)))
        failed = rng.randint(0, len(times)) if rng.randint(0, 1) else 0
        causes = {rng.choice(("HTTPError('503')", "timed out", 'x: "y"')): failed} if failed else {}
        found[kind, name] = Request(kind, name, times, causes)
    return list(found.values()) or [Request("GET", "/", (1.5, 2.25), {})]


def rounded(ms: float) -> float:
    """Return a time as Locust's histogram has it."""
    digits = 0 if ms < 100 else -1 if ms < 1000 else -2 if ms < 10_000 else -3
    return round(ms, digits)


def percentile(times: Sequence[float], percent: float) -> int:
    """Return a percentile as Locust takes it: from the top."""
    below = int(len(times) * percent / 100)
    from_the_top = sorted(map(rounded, times), reverse=True)
    return int(from_the_top[max(len(times) - below, 1) - 1])


def modern(requests: Sequence[Request], seconds: float = 7.0) -> Table:
    """Return the rows of requests as Locust 1.1 and later write them."""
    rows = [[*COLUMNS, *(f"{percent:g}%" for percent in PERCENTILES)]]
    total = Request("", "Aggregated", tuple(t for each in requests for t in each.times), {})
    failures = sum(each.failures for each in requests)
    for each in (*requests, total):
        times, failed = each.times, failures if each is total else each.failures
        median = min(max(percentile(times, 50), min(times)), max(times))
        figures = (
            *(len(times), failed, median, math.fsum(times) / len(times), min(times), max(times), 64.25),
            *(len(times) / seconds, failed / seconds, *(percentile(times, percent) for percent in PERCENTILES)),
        )
        rows.append([each.type, each.name, *map(repr, figures)])
    return rows


def failures_of(requests: Sequence[Request]) -> Table:
    """Return the rows of failures as Locust 1.1 and later write them."""
    rows = [["Method", "Name", "Error", "Occurrences"]]
    return rows + [[each.type, each.name, cause, str(n)] for each in requests for cause, n in each.causes.items()]


def written(rows: Table) -> str:
    """Return rows as Locust 1.1 and later write them."""
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def joined(rows: Table, texts: int = 2) -> str:
    """Return rows as Locust 1.0 and earlier join them: the texts in quotation marks as they are, no last newline."""
    lines = [",".join(f'"{name}"' for name in rows[0])]
    lines += [",".join([*(f'"{text}"' for text in row[:texts]), *row[texts:]]) for row in rows[1:]]
    return "\n".join(lines)


def whole(rows: Table) -> Table:
    """Return rows with the figures of Locust 1.0 and earlier: whole milliseconds, two decimals of a rate."""
    made = [rows[0]]
    for row in rows[1:]:
        numbers = [f"{float(cell):.2f}" if name.endswith("/s") else str(int(float(cell)))
                   for name, cell in zip(rows[0][2:], row[2:], strict=True)]  # fmt: skip
        made.append([row[0] or "None", row[1], *numbers])
    return made


def locust_1_0(requests: Sequence[Request]) -> str:
    """Return the file of requests of Locust 1.0."""
    rows = modern(requests)
    rows[0].insert(-1, "99.999%")
    for row in rows[1:]:
        row.insert(-1, row[-1])
    return joined(whole(rows))


def locust_0_14(requests: Sequence[Request]) -> str:
    """Return the file of requests of Locust 0.14."""
    old = {"Request Count": "# requests", "Failure Count": "# failures", "Failures/s": "Requests Failed/s"}
    rows = modern(requests)
    rows[0] = [old.get(name, name[0] + name[1:].lower() if "Time" in name else name) for name in rows[0]]
    rows[0].insert(-1, "99.999")
    for row in rows[1:]:
        row.insert(-1, row[-1])
    return joined(whole(rows))


def locust_0_8(requests: Sequence[Request], total: str = "Total") -> str:
    """Return the file of requests of Locust 0.8 to 0.12; that of 0.13 calls its total as later ones do."""
    rows = [line[:10] for line in modern(requests)]
    rows[0] = ["Method", "Name", "# requests", "# failures", "Median response time", "Average response time",
               "Min response time", "Max response time", "Average Content Size", "Requests/s"]  # fmt: skip
    rows[-1][1] = total
    return joined(whole(rows))


# What spreadsheets do


def edited(rng: random.Random, rows: Table) -> bytes:
    """Return a file of the same figures that a spreadsheet, or a program, has saved in its own way."""
    header, *body = [list(row) for row in rows]
    if rng.randint(0, 1):
        rng.shuffle(body)
    if rng.randint(0, 1):
        order = list(range(len(header)))
        rng.shuffle(order)
        header, body = [header[at] for at in order], [[row[at] for at in order if at < len(row)] for row in body]
    if rng.randint(0, 2) == 0:
        at = rng.randint(0, len(header))
        header.insert(at, rng.choice(("Comment", "", "Kosten")))
        for row in body:
            row.insert(at, rng.choice(("", "a note", "5")))
    mark = rng.choice(("", ","))
    if mark:
        body = [[cell.replace(".", ",") if _is_number(cell) else cell for cell in row] for row in body]
        header = [name.replace(".", ",") if name.endswith("%") else name for name in header]
    above = rng.choice(([], [], [["Load test of May"]], [[], [""]]))
    below = rng.choice(([], [], [[]], [[""] * len(header)], [[], []]))
    return serialized(rng, [*above, header, *body, *below], "," if not mark else ";")


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).isdigit()


def serialized(rng: random.Random, rows: Table, delimiter: str = ",") -> bytes:
    """Return rows as bytes: delimiter, quotation marks, ends of lines and encoding are drawn."""
    delimiter = rng.choice((delimiter, ";", "\t", "|"))
    out = io.StringIO()
    end = rng.choice(("\n", "\r\n", "\r\r\n", "\r"))
    # Python leaves a line feed without quotation marks where no line ends with one.
    quoting = csv.QUOTE_ALL if end == "\r" else rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(rows)
    text = out.getvalue()
    how = rng.randint(0, 4)
    if how == 0 and delimiter in ";|":
        text = f"sep={delimiter}{end}{text}"
    elif how == 1:
        text = _in_one_cell(rows, delimiter)
    encoding = rng.choice(("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"))
    return text.encode(encoding, errors="replace" if encoding == "cp1252" else "strict")


def _in_one_cell(rows: Table, delimiter: str) -> str:
    """Return rows as a spreadsheet saves them that did not know the delimiter: each line is a cell."""
    out, lines = io.StringIO(), io.StringIO()
    for row in rows:
        if row == [""]:
            continue
        lines.seek(0)
        lines.truncate()
        csv.writer(lines, delimiter=delimiter).writerow(row)
        line = lines.getvalue().removesuffix("\r\n")
        csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerow([line])
    return out.getvalue()


# What goes wrong

JUNK = ("", "#DIV/0!", "05. Jan", "1,23E+06", "nan", "inf", "-", "-7", "N/A", "1.2.3", "1'2", "9" * 400, "x", "12 ms",
        "0x1F", "\u0661\u0662", "1_000", "True", "1e3", "\ufffd", "=SUM(C2:C4)", "12\n13")  # fmt: skip


def damaged(rng: random.Random, rows: Table, of_1_0: bool = False) -> bytes:
    """Return a file that has lost something, or holds what nobody wrote there; names stay as they are.

    Takes whether Locust 1.0 has joined its rows.
    """
    rows = [list(row) for row in rows]
    for _ in range(rng.randint(0, 2)):
        rng.choice(_OF_FIGURES)(rng, rows)
    # One only: what a second one makes of the counts may add up again.
    rng.choice((*_OF_COUNTS, *_OF_FIGURES))(rng, rows)
    data = joined(rows).encode() if of_1_0 else written(rows).encode() if rng.randint(0, 1) else edited(rng, rows)
    how = rng.randint(0, 3)
    if how == 0:
        return data[: rng.randint(0, len(data))]
    if how == 1:
        return data[: rng.randint(0, len(data))] + bytes(rng.randint(1, 600))
    if how == 2:
        return data.rstrip(b"\r\n")
    return data


def _replace_figure(rng: random.Random, rows: Table) -> None:
    """Replace the cell of a figure."""
    _replace(rng, rows, [at for at, name in enumerate(rows[0]) if name not in COLUMNS[:4]])


def _replace_count(rng: random.Random, rows: Table) -> None:
    """Replace the cell of a count."""
    _replace(rng, rows, [at for at, name in enumerate(rows[0]) if name in COLUMNS[2:4]])


def _replace(rng: random.Random, rows: Table, columns: Sequence[int]) -> None:
    if len(rows) > 1 and columns:
        row, at = rng.choice(rows[1:]), rng.choice(columns)
        if at < len(row):
            row[at] = rng.choice(JUNK)


def _lose_row(rng: random.Random, rows: Table) -> None:
    if len(rows) > 1:
        del rows[rng.randint(1, len(rows) - 1)]


def _repeat_row(rng: random.Random, rows: Table) -> None:
    at = rng.randint(0, len(rows) - 1)
    rows.insert(rng.randint(1, len(rows)), list(rows[at]))


def _lose_column(rng: random.Random, rows: Table) -> None:
    if rows[0]:
        at = rng.randint(0, len(rows[0]) - 1)
        for row in rows:
            del row[at : at + 1]


def _lose_cells(rng: random.Random, rows: Table) -> None:
    row = rng.choice(rows)
    del row[rng.randint(0, len(row)) :]


def _change_count(rng: random.Random, rows: Table) -> None:
    """Change a count, which the sums show."""
    columns = [at for at, name in enumerate(rows[0]) if name in COLUMNS[2:4]]
    if len(rows) > 1 and columns:
        row, at = rng.choice(rows[1:]), rng.choice(columns)
        if at < len(row):
            row[at] = str(rng.randint(0, 99))


_OF_FIGURES: tuple[Callable[[random.Random, Table], None], ...] = (
    _replace_figure, _replace_figure, _replace_figure, _lose_column,
)  # fmt: skip
_OF_COUNTS: tuple[Callable[[random.Random, Table], None], ...] = (
    _replace_count, _lose_row, _repeat_row, _lose_cells, _change_count,
)  # fmt: skip


# What must hold


def expected(rows: Table) -> dict[tuple[str, str], dict[str, float]]:
    """Return the figures of each row by type and name: counts, and latencies as a result has them."""
    found = {}
    for row in rows[1:]:
        cells = dict(zip(rows[0], row, strict=True))
        figures = {field: round(float(cells[column]), 3) for field, column in FIELDS.items() if column in cells}
        low, high = figures["min_ms"], figures["max_ms"]
        held = {field: min(max(value, low), high) for field, value in figures.items() if field != "mean_ms"}
        found[cells["Type"], cells["Name"]] = {
            **{f"raw {field}": value for field, value in figures.items()}, **figures, **held,
            "rate": round(float(cells["Requests/s"]), 3),
            "requests": int(cells["Request Count"]), "failures": int(cells["Failure Count"]),
        }  # fmt: skip
    return found
