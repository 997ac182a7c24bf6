"""Locust's CSV files after spreadsheets and crashes: the right figures, a note where one is missing, or one line."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.result import document
from loadgen.result.locust_csv import ReportError
from tests.support import locust_csv as field
from tests.support.locust_csv_checks import check_damaged, check_edited


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where each example is written."""
    return tmp_path_factory.mktemp("csv") / "x_stats.csv"


@given(rng=st.randoms(use_true_random=False))
def test_a_file_that_a_spreadsheet_saved_says_the_same(path: Path, rng: random.Random) -> None:
    check_edited(rng, path)


@given(rng=st.randoms(use_true_random=False))
def test_a_damaged_file_says_no_wrong_figure(path: Path, rng: random.Random) -> None:
    check_damaged(rng, path)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_in_one_line(path: Path, data: bytes) -> None:
    for content in (data, field.written(field.modern([field.Request("GET", "/", (1.5,), {})])).encode() + data):
        path.write_bytes(content)
        try:
            document.from_csv(path)
        except ReportError as exc:
            assert str(exc).startswith(f"{path}: ") and "\n" not in str(exc)
