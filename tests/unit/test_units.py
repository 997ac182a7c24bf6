"""Sizes, durations and mixes: what is read, and what is refused with which words."""

import argparse

import pytest

from cluster.base.parser import Duration, Whole
from cluster.base.units import format_duration, parse_duration, parse_number, parse_size, parse_whole
from cluster.faults.kinds import parse_share
from loadgen.load.pacing import parse_rate
from loadgen.load.settings import format_mix, parse_mix


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64", 64),
        ("0", 0),
        ("4KiB", 4096),
        ("4k", 4000),
        ("1.5 MiB", 1572864),
        ("1GB", 10**9),
        (" 8 b ", 8),
        ("+4KiB", 4096),
        (".5MB", 500_000),
        ("4.KB", 4000),
        ("2.3KB", 2300),
        ("9007199254740993", 2**53 + 1),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "4 KiBs", "x", "0.3", "1e3", "4;", "inf", "٦٤", "1_000", ".", "9" * 5000])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|whole number"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("250ms", 0.25),
        ("1m30s", 90),
        ("5", 5),
        ("0.5", 0.5),
        ("1h", 3600),
        ("10us", 1e-5),
        ("100us", 1e-4),
        (".5s", 0.5),
        ("5000000ns", 0.005),
        ("+2s", 2),
        ("+2", 2),
        ("+.5", 0.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)
    assert Duration()(text) == parse_duration(text)


NO_DURATIONS = [
    "", "-3s", "3 days", "5 5", "s", "1m30", "1h30", "nan", "inf", "3ss", "1e3s", "1d", "٣s", "٣", "1_0s", "1h 30m",
    "++1s",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'.*' is not a duration; write numbers with units \(ns, us, ms, s, m, h\)"):
        parse_duration(text)
    with pytest.raises(argparse.ArgumentTypeError, match="is not a duration"):
        Duration()(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        # The table of Go's own test, time_test.go, parseDurationTests, without the negative ones.
        ("0", 0), ("5s", 5), ("30s", 30), ("1478s", 1478), ("+5s", 5), ("+0", 0), ("5.0s", 5), ("5.6s", 5.6),
        ("5.s", 5), (".5s", 0.5), ("1.0s", 1), ("1.00s", 1), ("1.004s", 1.004), ("1.0040s", 1.004),
        ("100.00100s", 100.001), ("10ns", 1e-8), ("11us", 11e-6), ("12µs", 12e-6), ("12μs", 12e-6), ("13ms", 0.013),
        ("14s", 14), ("15m", 900), ("16h", 57_600), ("3h30m", 12_600), ("10.5s4m", 250.5),
        ("1h2m3s4ms5us6ns", 3723.004005006), ("39h9m14.425s", 140_954.425), ("52763797000ns", 52.763797),
        ("0.3333333333333333333h", 1200), ("9223372036854775807ns", 9223372036.854775807),
        # And what it refuses, parseDurationErrorTests.
        ("", None), ("3", None), ("-", None), ("s", None), (".", None), ("-.", None), (".s", None), ("+.s", None),
        ("1d", None), ("\x85\x85", None), ("hello \uffff world", None),
    ],
)  # fmt: skip
def test_go_reads_the_same(text: str, seconds: float | None) -> None:
    if seconds is None:
        with pytest.raises(ValueError, match="is not a duration"):
            parse_duration(text, plain=False)
    else:
        assert parse_duration(text, plain=False) == pytest.approx(seconds, rel=1e-12)


def test_an_option_has_bounds() -> None:
    assert Duration(0.1, 60)("1m") == 60
    for text, why in (("0.05", "must be at least 0.1s, not 0.05"), ("2m", "must be at most 60s, not 2m")):
        with pytest.raises(argparse.ArgumentTypeError, match=why):
            Duration(0.1, 60)(text)


@pytest.mark.parametrize(
    ("text", "whole", "number"),
    [
        ("7", 7, 7.0), (" +7 ", 7, 7.0), ("-7", -7, -7.0), ("0.5", None, 0.5), (".5", None, 0.5), ("5.", None, 5.0),
        ("1e3", None, 1000.0), ("1E-3", None, 0.001), ("٣", None, None), ("\N{FULLWIDTH DIGIT THREE}", None, None),
        ("1_000", None, None),
        ("", None, None), ("inf", None, None), ("nan", None, None), ("1e999", None, None), ("0x10", None, None),
        ("- 7", None, None), ("1,000", None, None), ("9" * 5000, None, None),
    ],
)  # fmt: skip
def test_numbers_are_of_ascii_digits(text: str, whole: int | None, number: float | None) -> None:
    for parse, value, why in ((parse_whole, whole, "whole number"), (parse_number, number, "number")):
        if value is not None:
            assert parse(text) == value
        else:
            with pytest.raises(ValueError, match=f"is not a {why}"):
                parse(text)
    if whole is None:
        with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number"):
            Whole()(text)


def test_a_whole_number_has_bounds() -> None:
    assert Whole(1, 9)("+9") == 9
    for text, why in (("0", "must be at least 1, not 0"), ("10", "must be at most 9, not 10")):
        with pytest.raises(argparse.ArgumentTypeError, match=why):
            Whole(1, 9)(text)


def test_shares_and_rates_are_numbers() -> None:
    assert (parse_share("10%"), parse_share(".5"), parse_rate("1e3")) == (0.1, 0.5, 1000.0)
    for text in ("٤٥%", "1_0", "inf", "nan", "%"):
        with pytest.raises(ValueError, match="is not a share"):
            parse_share(text)
    for text in ("٤٥", "1_0", "inf", "nan", "-1"):
        with pytest.raises(ValueError, match="is not a rate"):
            parse_rate(text)


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
        ("put=٣", "not a weight"),
        ("put=1_0", "not a weight"),
        ("put=0,get=0", "runs nothing"),
    ],
)
def test_what_is_no_mix(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_mix(text)


def test_durations_for_people() -> None:
    assert [format_duration(s) for s in (0.0123, 12.34, 245)] == ["12 ms", "12.3 s", "4 min 05 s"]
