"""Logs of any content: they are read without an error, and no event is lost or made up by merging."""

from __future__ import annotations

import bz2
import gzip
import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.base.errors import UsageError
from cluster.observe import log_files
from cluster.observe.raftlog import Event, Log, merge, read_log
from viz.diagrams import ascii as text_picture
from viz.diagrams import dot, elections, mermaid, observed
from viz.diagrams.model import clean, clean_name

IDS = ("a1", "b2", "c3")
KINDS = ("start", "became", "sent", "cast", "rejected", "ignored", "granted", "refused", "count", "higher", "elected",
         "lost", "disconnected", "stop")  # fmt: skip


ROLES = ("follower", "precandidate", "candidate", "leader")


@st.composite
def logs(draw: st.DrawFn) -> list[Log]:
    found = []
    for member in IDS[: draw(st.integers(1, 3))]:
        events = []
        at = 0.0
        for _ in range(draw(st.integers(0, 12))):
            at += draw(st.sampled_from((0.0, 0.001, 1.0, 7.0)))
            kind = draw(st.sampled_from(KINDS))
            details = {"became": st.sampled_from(ROLES), "count": st.just("1 vote, 0 rejections"), "ignored": st.text()}
            detail = draw(details.get(kind, st.just("")))
            message = draw(st.sampled_from(("MsgVote", "MsgPreVote")))
            term = draw(st.integers(0, 3))
            events.append(Event(member, at, kind, term, draw(st.sampled_from(IDS)), message, detail))  # type: ignore[arg-type]
        found.append(Log(member, draw(st.text(max_size=8)), tuple(events), 0.0, at, len(events), 0))
    return found


@given(logs())
def test_merging_keeps_every_event_and_each_members_order(found: list[Log]) -> None:
    merged = merge(found)
    for log in found:
        mine = [(each.at, each.kind, each.peer) for each in merged if each.member == log.member]
        assert mine == [(each.at, each.kind, each.peer) for each in log.events]
    assert len(merged) == sum(len(log.events) for log in found)


@given(logs())
def test_every_history_can_be_drawn(found: list[Log]) -> None:
    history = elections.history(found)
    drawn = [event for election in history.elections for event in election.events]
    assert not Counter(map(id, drawn)) - Counter(map(id, history.events))
    for model in (
        observed.sequence(history, history.elections),
        observed.state_graph(history),
        observed.timeline(history),
    ):
        assert all(renderer(model) for renderer in (mermaid.render, dot.render, text_picture.render))


LINES = st.one_of(
    st.text(max_size=60),
    st.builds(
        lambda msg, ts: json.dumps({"ts": ts, "msg": msg}),
        st.one_of(
            st.text(max_size=40), st.just("a1 became leader at term 7"), st.just("a1 [x] sent MsgVote request to b")
        ),
        st.one_of(st.text(max_size=12), st.floats(), st.just("2026-01-01T00:00:00Z"), st.none()),
    ),
    st.recursive(st.none() | st.integers(), lambda part: st.lists(part) | st.dictionaries(st.text(), part)).map(
        json.dumps
    ),
)


@given(st.lists(LINES, max_size=8))
def test_no_line_is_an_error(lines: list[str]) -> None:
    log = read_log(lines)
    assert 0 <= log.garbage <= log.lines <= len(lines)
    assert log.first <= log.last


WRAPPED = st.one_of(
    LINES,
    st.builds("{}{}".format, st.sampled_from(("Feb 29 23:59:60 h etcd[1]: ", "a | ", '{"log":"', "==> b <==")), LINES),
    st.sampled_from((
        "Sep 11 14:34:50 h etcd[1]: 8e9e05c52164694d became leader at term 2", "{", '  "a": 1', "}", "MESSAGE=x", "[",
        "9999-12-31T23:59:59Z e[1]: 8e9e05c52164694d became leader at term 2", "panic: x", "__REALTIME_TIMESTAMP=1",
        "2021-09-11 14:46:26.379622 I | raft: a1 became follower at term 9", "raft0000/99/99 99:99:99 INFO: a1 became",
    )),
)  # fmt: skip


@given(st.lists(st.lists(WRAPPED, max_size=6), max_size=3), st.booleans())
def test_no_file_is_an_error(files: list[list[str]], ends: bool) -> None:
    found = elections.read((f"{n}", "", [line + "\n" * ends for line in lines]) for n, lines in enumerate(files))
    for model in (observed.sequence(found, found.elections), observed.state_graph(found), observed.timeline(found)):
        assert all(renderer(model) for renderer in (mermaid.render, dot.render, text_picture.render))


# The beginnings of what Python cannot unpack, for which there is one line that says what to do.
REFUSED = (*log_files.FOREIGN, log_files.ZSTD)
BYTES = st.builds(
    lambda begin, rest: begin + rest,
    st.sampled_from((b"", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\x00", b"\x5d\x00\x00", b"PK\x03\x04", b"\xff\xfe",
                     *REFUSED, b"\xef\xbb\xbf", b"\0" * 257 + b"ustar\0", gzip.compress(b"PK\x03\x04"),
                     bz2.compress(b"{")[:-9])),
    st.binary(max_size=200),
)  # fmt: skip


@given(st.lists(BYTES, max_size=2))
def test_no_bytes_are_an_error(contents: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{n}.log") for n in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        if any(content.startswith(REFUSED) for content in contents):
            with pytest.raises(UsageError, match=r"\.log is compressed with .*: unpack it with `.+`$"):
                elections.read_files(paths)
            return
        found = elections.read_files(paths)
    assert found.logs == () and len(found.notes) >= len(contents)


@given(st.text())
def test_clean_text_is_one_line_and_clean_again(text: str) -> None:
    shown = clean(text)
    assert clean(shown) == shown and len(shown.splitlines()) <= 1
    name = clean_name(text)
    assert name == clean_name(name) and 0 < len(name) <= 48


@given(st.text(max_size=30))
def test_an_escaped_label_holds_nothing_that_mermaid_reads(text: str) -> None:
    shown = mermaid.escape(clean(text))
    assert not set(shown) & set('"<>{}[]|:%`*\\\n')
