"""The terminal: colours, aligned columns, the line that is drawn again and again; and verdicts as it shows them."""

from __future__ import annotations

import io
import json
import sys

import pytest

from cluster.base.console import (
    STYLES,
    Painter,
    StatusLine,
    columns,
    pad,
    print_json,
    take_any_text,
    wants_color,
    width,
)
from cluster.base.verdict import NONE, Verdict, overall, style_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_color(Terminal())
    assert not wants_color(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_color(Terminal())


def test_a_stream_takes_text_that_its_encoding_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad byte of a path comes out as it was; a document escapes what it has to, and says the same."""
    text, document = "HOST:PORT,\u2026 caf\u00e9 \u65e5 run\udcff\n", {"name": "caf\u00e9", "path": "run\udcff"}
    for encoding, expected in (
        ("ascii", b"HOST:PORT,... caf? ? run\xff\n"),
        ("latin-1", b"HOST:PORT,... caf\xe9 ? run\xff\n"),
        ("utf-8", "HOST:PORT,\u2026 caf\u00e9 \u65e5 run".encode() + b"\xff\n"),
    ):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        take_any_text()
        print(text, end="")
        sys.stderr.write(text)
        print_json(document)
        sys.stdout.flush()
        written = out.buffer.getvalue()  # type: ignore[attr-defined]
        assert written.startswith(expected)
        assert json.loads(written.removeprefix(expected)) == document


def test_paint() -> None:
    assert Painter(True)("x", "red", "bold") == "\x1b[31;1mx\x1b[0m"
    assert [Painter(True)("x"), Painter(True)("  ", "red"), Painter(False)("x", "red")] == ["x", "  ", "x"]


def test_columns_stand_below_each_other_whatever_is_in_them() -> None:
    rows = [("name", "n", ""), ("日本", "10", "x"), ("e\u0301", "2", "")]
    assert columns(rows, right=(1,)) == ["name   n", "日本  10  x", "e\u0301      2"]
    assert columns([]) == []
    assert [width(text) for text in ("ab", "日本", "e\u0301", "")] == [2, 4, 1, 0]
    assert [pad("日", 4), pad("日", 4, right=True)] == ["日  ", "  日"]


def test_a_line_is_drawn_in_its_place_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    line = StatusLine(every_s=3600)
    assert line.is_due()
    line.draw("1 of 2")
    assert not line.is_due()
    line.clear()
    assert sys.stderr.getvalue() == "\r\x1b[2K1 of 2\r\x1b[2K"  # type: ignore[attr-defined]
    for term, stream in (("dumb", Terminal()), ("xterm", io.StringIO())):
        monkeypatch.setenv("TERM", term)
        monkeypatch.setattr(sys, "stderr", stream)
        line = StatusLine()
        assert not line.is_due()
        line.draw("1 of 2")
        line.clear()
        assert stream.getvalue() == ""


def test_a_document_is_read_back_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"name": "é日", "figures": [1, 0.1, None]}
    print_json(document)
    out = capsys.readouterr().out
    assert json.loads(out) == document and out.endswith("}\n") and "é日" in out
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json({"lag": float("nan")})


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        ("", "unknown"),
        ("skip", "unknown"),
        ("pass skip", "pass"),
        ("pass unknown", "unknown"),
        ("unknown fail", "fail"),
    ],
)
def test_the_worst_verdict_counts(verdicts: str, verdict: str) -> None:
    assert overall(map(Verdict, verdicts.split())) == verdict


def test_a_verdict_has_an_exit_code_and_a_colour() -> None:
    assert {each.value: each.exit_code for each in Verdict} == {"pass": 0, "fail": 1, "unknown": 3, "skip": 0}
    assert {each.style for each in Verdict} <= STYLES.keys()
    assert {each: style_of(each) for each in Verdict} == {each: each.style for each in Verdict}
    # What nothing judged looks neither good nor bad nor doubtful.
    assert style_of(NONE) in STYLES.keys() - {"green", "red", "yellow"}
