"""A history's files: what is written is read, and what was lost is known."""

from __future__ import annotations

import contextlib
import gzip
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.base.files import FileError
from loadgen.history.format import ANSWERED, FAIL, FINAL, INFO, OK, Kind, Method
from loadgen.history.operation import Outcome
from loadgen.history.reader import History, HistoryError, read
from loadgen.history.writer import HistoryWriter

PUT = b"/etcdserverpb.KV/Put"


def write(path: Path, operations: int = 3) -> HistoryWriter:
    writer = HistoryWriter(path, worker=7)
    for n in range(operations):
        writer.operation(PUT, n, 1, 2 + n, 3 + n, Outcome.OK, b"request %d" % n, b"response %d" % n)
    return writer


def operations(history: History) -> list[tuple[bytes, bytes]]:
    rows = (history.rows["kind"] == Kind.OPERATION).nonzero()[0]
    return list(history.payloads(rows))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    writer = write(tmp_path / "a.hist", 2)
    number = writer.endpoint("http://127.0.0.1:1")
    assert writer.endpoint("http://127.0.0.1:2") == number + 1
    writer.operation(
        b"/etcdserverpb.KV/Txn", 9, 10, 11, 12, Outcome.INFO, b"t", b"lost", code=14, endpoint=number, answered=False
    )
    writer.watch_sent(4, 20, b"create")
    writer.watch_received(4, 21, b"created", number)
    writer.watch_ended(4, 22, 14, "connection lost")
    writer.marker("fault", 30, phase="begin", members=["a"])
    writer.set_final()
    writer.operation(b"/another.Service/Method", 0, 40, 41, 42, Outcome.FAIL, b"", b"no", code=3)
    writer.close()
    writer.close()
    history = read(tmp_path)
    assert [part.cut for part in history.parts] == [""]
    assert history.parts[0].header["worker"] == 7
    assert [(m.name, m.at_ns, m.details) for m in history.markers] == [
        ("fault", 30, {"phase": "begin", "members": ["a"]})
    ]
    row = int((history.rows["method"] == Method.TXN).nonzero()[0][0])
    fields = ("outcome", "code", "process", "flags", "due_ns", "call_ns", "return_ns")
    assert [int(history.rows[field][row]) for field in fields] == [INFO, 14, 9, 0, 10, 11, 12]
    assert (history.request(row), history.response(row)) == (b"t", b"lost")
    assert history.endpoint(row) == "http://127.0.0.1:1"
    assert operations(history) == [
        (b"request 0", b"response 0"),
        (b"request 1", b"response 1"),
        (b"t", b"lost"),
        (b"", b"no"),
    ]
    last = int((history.rows["kind"] == Kind.OPERATION).nonzero()[0][-1])
    assert int(history.rows["flags"][last]) == ANSWERED | FINAL
    assert (int(history.rows["method"][last]), int(history.rows["outcome"][last])) == (Method.OTHER, FAIL)
    watch = [
        (Kind(int(r["kind"])).name, int(r["process"]), int(r["return_ns"])) for r in history.rows if 3 <= r[0] <= 5
    ]
    assert watch == [("WATCH_SENT", 4, 20), ("WATCH_RECEIVED", 4, 21), ("WATCH_ENDED", 4, 22)]


def test_several_files_and_compressed_ones(tmp_path: Path) -> None:
    (tmp_path / "history").mkdir()
    write(tmp_path / "history" / "b.hist", 1).close()
    write(tmp_path / "a.hist", 2).close()
    (tmp_path / "history" / "a.hist.gz").write_bytes(gzip.compress((tmp_path / "a.hist").read_bytes()))
    history = read(tmp_path)
    assert [part.path.name for part in history.parts] == ["a.hist.gz", "b.hist"]
    assert [request for request, _ in operations(history)] == [b"request 0", b"request 1", b"request 0"]
    assert not history.cut
    assert history.cut_words == ""


def test_a_killed_writer_loses_what_it_had_not_flushed_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "a.hist"
    writer = write(path, 3)
    writer.flush()
    size = path.stat().st_size
    writer.operation(PUT, 0, 1, 2, 3, Outcome.OK, b"never", b"flushed")
    assert path.stat().st_size == size
    history = read(tmp_path)
    assert "no end" in history.parts[0].cut
    assert len(operations(history)) == 3
    writer.close()


def test_it_flushes_by_time_and_by_size(tmp_path: Path) -> None:
    path = tmp_path / "a.hist"
    writer = HistoryWriter(path)
    size = path.stat().st_size
    writer.operation(PUT, 0, 1, 2, time.perf_counter_ns() + 1_000_000_000, Outcome.OK, b"late", b"")
    assert path.stat().st_size > size
    size = path.stat().st_size
    writer.operation(PUT, 0, 1, 2, 3, Outcome.OK, bytes(300_000), b"")
    assert path.stat().st_size > size + 300_000
    writer.close()


def test_every_place_to_cut_a_file_is_noticed(tmp_path: Path) -> None:
    whole = tmp_path / "whole.hist"
    writer = write(whole, 2)
    writer.flush()
    writer.operation(PUT, 0, 1, 2, 3, Outcome.OK, b"more", b"of it")
    writer.close()
    data = whole.read_bytes()
    whole.unlink()
    counts = set()
    for size in range(len(data) - 1, 20, -1):
        path = tmp_path / "cut.hist"
        path.write_bytes(data[:size])
        history = read(tmp_path)
        assert history.cut, size
        counts.add(len(operations(history)))
    assert counts == {2, 0}


def test_a_flipped_bit_ends_the_file_there(tmp_path: Path) -> None:
    path = tmp_path / "a.hist"
    write(path, 2).close()
    data = bytearray(path.read_bytes())
    data[data.index(b"response 1")] ^= 1
    path.write_bytes(data)
    history = read(tmp_path)
    assert history.parts[0].cut == "the checksum of a block is wrong"
    assert operations(history) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no history in"), (b"something else", "is not a history file"), (b"", "is not a history file")],
)
def test_what_is_no_history_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "a.hist").write_bytes(content)
    with pytest.raises(HistoryError, match=message):
        read(tmp_path)
    with pytest.raises(HistoryError, match=r"no history in .*nowhere"):
        read(tmp_path / "nowhere")


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.hist"
    HistoryWriter(path, schema="raftload.history/2").close()
    assert json.dumps("raftload.history/2").encode() in path.read_bytes()
    with pytest.raises(HistoryError, match=r"schema 'raftload.history/2', not"):
        read(tmp_path)


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    write(tmp_path / "a.hist").close()
    with pytest.raises(FileExistsError):
        HistoryWriter(tmp_path / "a.hist")


def test_outcomes_are_numbers_in_the_file() -> None:
    assert (OK, FAIL, INFO) == (0, 1, 2)


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Let no file of this process become larger, for the length of a block: as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.hist"
    writer = HistoryWriter(path)
    with files_end_at(path.stat().st_size), pytest.raises(FileError, match=f"cannot write {path}: File too large"):
        writer.close()


@pytest.mark.parametrize("room", [0, 10])
def test_who_is_to_be_called_is_told_once_that_a_file_cannot_be_written(tmp_path: Path, room: int) -> None:
    """What was written by then can be read, and nothing stands behind a block that is not whole."""
    path = tmp_path / "worker-1.hist"
    told: list[str] = []
    writer = HistoryWriter(path, failed=told.append)
    writer.marker("kept")
    writer.flush()
    with files_end_at(path.stat().st_size + room):
        writer.marker("lost")
        writer.flush()
    writer.marker("later")
    writer.flush()
    writer.close()
    assert told == [f"cannot write {path}: File too large"]
    history = read(tmp_path)
    assert [marker.name for marker in history.markers] == ["kept"]
    assert [part.path for part in history.cut] == [path]
    assert history.cut_words == f"{path.name} is cut"
