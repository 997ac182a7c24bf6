"""Sizes, durations and mixes: what is read, and what is refused with which words."""

import pytest

from cluster.base.units import format_duration, format_mix, parse_duration, parse_mix, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("64", 64), ("0", 0), ("4KiB", 4096), ("4k", 4000), ("1.5 MiB", 1572864), ("1GB", 10**9), (" 8 b ", 8)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "4 KiBs", "x", "0.3", "1e3", "4;", "inf"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|whole number"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("250ms", 0.25), ("1m30s", 90), ("5", 5), ("0.5", 0.5), ("1h", 3600), ("10us", 1e-5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-3s", "3 days", "5 5", "s", "1m30", "nan", "3ss"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_mix_keeps_only_what_runs() -> None:
    assert parse_mix("get=8, put=1,txn=0") == {"put": 1.0, "get": 8.0}
    assert parse_mix("put") == {"put": 1.0}
    assert parse_mix(format_mix({"put": 0.5, "txn": 3.0})) == {"put": 0.5, "txn": 3.0}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("del=1", "not an operation type"),
        ("", "not an operation type"),
        ("put=1,put=2", "stands twice"),
        ("put=x", "not a weight"),
        ("put=-1", "not a weight"),
        ("put=inf", "not a weight"),
        ("put=nan", "not a weight"),
        ("put=0,get=0", "runs nothing"),
    ],
)
def test_what_is_no_mix(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_mix(text)


def test_durations_for_people() -> None:
    assert [format_duration(s) for s in (0.0123, 12.34, 245)] == ["12 ms", "12.3 s", "4 min 05 s"]
