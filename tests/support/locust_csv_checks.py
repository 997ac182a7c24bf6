"""What must hold of Locust's CSV files that were edited or damaged; for the property tests and the soak test."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import jsonschema

from loadgen import schema
from loadgen.result import document
from loadgen.result.locust_csv import ReportError, Stats, read_stats
from tests.support import locust_csv as field

RESULT = jsonschema.Draft202012Validator(schema.load("result"))


def check_edited(rng: random.Random, path: Path) -> None:
    """Check that a file says the same after a spreadsheet has saved it."""
    rows = field.modern(field.draw_requests(rng))
    path.write_bytes(field.edited(rng, rows))
    stats = read_stats(path)
    truth = field.expected(rows)
    found = {(row.type, row.name): row for row in (*stats.rows, stats.total)}
    assert found.keys() == truth.keys()
    for key, row in found.items():
        figures = {**row.latency, "rate": row.rate, "requests": row.requests, "failures": row.failures}
        assert figures == {name: truth[key][name] for name in figures}
    assert stats.notes in ([], [f"{path.name}: not UTF-8: its names are read as Windows-1252"])
    _check_result(path, stats, whole=True)


def check_damaged(rng: random.Random, path: Path) -> bool:
    """Check that a damaged file is refused in one line, or says no wrong figure and what it does not say.

    Return whether it was read.
    """
    of_1_0 = rng.randint(0, 3) == 0
    rows = field.modern(field.draw_requests(rng, plain=of_1_0))
    rows = field.whole(rows) if of_1_0 else rows
    path.write_bytes(field.damaged(rng, rows, of_1_0))
    try:
        stats = read_stats(path)
    except ReportError as exc:
        assert str(exc).startswith(f"{path}: ") and "\n" not in str(exc), exc
        return False
    truth = field.expected(rows)
    counts = Counter((row["requests"], row["failures"]) for row in truth.values())
    read = [*stats.rows, stats.total]
    whole = Counter((row.requests, row.failures) for row in read) == counts
    for row in read:
        figures = {**row.latency, "rate": row.rate}
        same = [
            each
            for (kind, name), each in truth.items()
            if (name, each["requests"], each["failures"]) == (row.name, row.requests, row.failures)
            and (kind == row.type or not row.type)
        ]
        assert same or not whole or stats.notes, "a name that nobody gave, and no word"
        if same:
            assert any(all(_is_true(stats, name, value, each) for name, value in figures.items()) for each in same), row
    _check_result(path, stats, whole)
    return True


def _is_true(stats: Stats, name: str, value: float | None, figures: dict[str, float]) -> bool:
    """Tell whether a figure is the true one, or missing and said to be.

    Percentiles may be missing as columns; and those that Locust has rounded are held by the bounds that are known.
    """
    if value is None:
        return bool(stats.notes) or name.startswith("p")
    return value in (figures[name], figures.get(f"raw {name}"))


def _check_result(path: Path, stats: Stats, whole: bool) -> None:
    """Check that a result shows every row, and that its sum is the total or a problem says that it is not."""
    result = document.from_csv(path)
    RESULT.validate(result)
    shown = [row for name, row in result["results"].items() if row is not None and name != "total"]
    assert sorted(row["operations"] for row in shown) == sorted(row.requests for row in stats.rows if row.requests)
    total = result["results"]["total"]
    assert total is not None
    if whole:
        assert sum(row["operations"] for row in shown) == total["operations"] and not result["problems"]
    else:
        assert result["problems"] and result["verdict"] in ("unknown", "fail")
