"""A reader of history files: columns, and what was lost."""

from __future__ import annotations

import dataclasses
import gzip
import json
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple, NotRequired, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from cluster.base.errors import UsageError
from loadgen.history.format import BLOCK, BLOCK_MAGIC, FOLDER, MAGIC, SCHEMA, SUFFIX, Kind

# Blocks of a quarter of a MiB in memory, and rows that are made into Python's numbers, at one time.
_CACHED = 256
_CHUNK = 1 << 15

COLUMNS = np.dtype(
    [
        ("kind", "u1"), ("method", "u1"), ("outcome", "u1"), ("code", "u1"), ("process", "<u4"), ("endpoint", "<u2"),
        ("flags", "<u2"), ("due_ns", "<i8"), ("call_ns", "<i8"), ("return_ns", "<i8"), ("request_size", "<u4"),
        ("response_size", "<u4"),
    ]
)  # fmt: skip
"""``format.RECORD`` for numpy, which reads a block's records in one go."""


class HistoryError(UsageError):
    """There is no history there, or it is none of ours: one line that says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One file.

    Attributes:
        path: where it lies.
        header: what its writer said of itself; ``clock`` names the monotonic clock of its times.
        cut: why its end is missing; empty where it is whole. What was done after the last record is unknown.
        last_ns: the newest time in it.
    """

    path: Path
    header: dict[str, object]
    cut: str
    last_ns: int


@dataclasses.dataclass(frozen=True, slots=True)
class Marker:
    """Something that happened at a time, such as a fault. ``details`` are as its writer gave them."""

    name: str
    at_ns: int
    details: dict[str, object]


class FaultDetails(TypedDict):
    """The details of a ``fault`` marker."""

    fault: str
    members: list[str]
    phase: str
    began_ns: NotRequired[int]


class Fault(NamedTuple):
    """A fault of a history; ``healed_ns`` is None where the history ends before that."""

    name: str
    members: tuple[str, ...]
    began_ns: int
    healed_ns: int | None = None


class History:
    """Everything that was recorded, in columns (numpy): one row a record, files one after the other.

    Requests and responses stay in the files, which must not change, and are read by the block; those of compressed
    files are kept in memory.

    Attributes:
        parts: the files.
        rows: the records, with the fields of ``COLUMNS``; ``process`` of a watch is the watcher.
        part: for each row, its file's index in ``parts``.
        markers: in order of time.
        endpoints: for each file, the URLs by number.
    """

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.rows: NDArray[np.void] = np.empty(0, COLUMNS)
        self.part: NDArray[np.int32] = np.empty(0, np.int32)
        self.markers: list[Marker] = []
        self.endpoints: list[dict[int, str]] = []
        self._blocks: list[tuple[Path, int, int] | bytes] = []
        self._payload = lru_cache(_CACHED)(self._load)
        self._place(np.empty(0, np.int32), np.empty(0, np.int64))

    def _place(self, blocks: NDArray[np.int32], offsets: NDArray[np.int64]) -> None:
        """Take in where the payload of each row is: its block, and where in that."""
        self._block, self._start = blocks, offsets
        self._middle = self._start + self.rows["request_size"]
        self._end = self._middle + self.rows["response_size"]
        # For one row at a time: numpy's own numbers take three times as long.
        self._spot = self._block.data, self._start.data, self._middle.data, self._end.data

    @property
    def cut(self) -> list[Part]:
        """The files whose end is missing."""
        return [part for part in self.parts if part.cut]

    @property
    def cut_words(self) -> str:
        """Which file's end is missing, for people; empty where all are whole."""
        return f"{self.cut[0].path.name} is cut" if self.cut else ""

    def faults(self) -> list[Fault]:
        """Return the faults in the order in which they began."""
        found: list[Fault] = []
        for marker in self.markers:
            if marker.name != "fault":
                continue
            details = cast("FaultDetails", marker.details)
            if details["phase"] == "begin":
                found.append(Fault(details["fault"], tuple(details["members"]), marker.at_ns))
            elif found:
                # The members are known from the effect on, and so is when exactly it began.
                found[-1] = found[-1]._replace(
                    members=tuple(details["members"]) or found[-1].members,
                    began_ns=details.get("began_ns", found[-1].began_ns),
                    healed_ns=marker.at_ns if details["phase"] == "heal" else None,
                )
        return found

    def request(self, row: int) -> bytes:
        """Return the request of a row, as it was sent."""
        block, start, middle, _ = self._spot
        return self._payload(block[row])[start[row] : middle[row]]

    def response(self, row: int) -> bytes:
        """Return the response of a row, as it was received; the error's text where it did not succeed."""
        block, _, middle, end = self._spot
        return self._payload(block[row])[middle[row] : end[row]]

    def payloads(self, rows: NDArray[np.int64]) -> Iterator[tuple[bytes, bytes]]:
        """Give request and response of many rows, for less than one call each."""
        current, data = -1, b""
        for low in range(0, len(rows), _CHUNK):
            chunk = rows[low : low + _CHUNK]
            columns = (self._block[chunk], self._start[chunk], self._middle[chunk], self._end[chunk])
            for block, a, b, c in zip(*(column.tolist() for column in columns), strict=True):
                if block != current:
                    current, data = block, self._payload(block)
                yield data[a:b], data[b:c]

    def _load(self, block: int) -> bytes:
        place = self._blocks[block]
        if isinstance(place, bytes):
            return place
        path, start, size = place
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
        if len(data) < size:
            raise HistoryError(f"{path} has become shorter while it was read")
        return data

    def endpoint(self, row: int) -> str:
        """Return the URL that a row's request went to; empty where that is not known."""
        return self.endpoints[int(self.part[row])].get(int(self.rows["endpoint"][row]), "")


def read(folder: Path) -> History:
    """Read the history in a run's folder, or in the folder of the files itself. Files may be gzipped.

    A file that ends early is read as far as it goes and is in ``History.cut``. Raises HistoryError where there is no
    file, or one that is no history, and OSError.
    """
    inner = folder / FOLDER
    where = inner if inner.is_dir() else folder
    files = where.iterdir() if where.is_dir() else ()
    paths = sorted(path for path in files if path.name.endswith((SUFFIX, SUFFIX + ".gz")))
    if not paths:
        raise HistoryError(
            f"no history in {folder}: it has no {FOLDER}/*{SUFFIX}; `raftload chaos` and `raftload "
            "bench --history` record one"
        )
    history = History()
    tables: list[NDArray[np.void]] = []
    parts: list[NDArray[np.int32]] = []
    blocks: list[NDArray[np.int32]] = []
    offsets: list[NDArray[np.int64]] = []
    for index, path in enumerate(paths):
        part = _Part(path)
        for table, payload, start in part.read():
            sizes = table["request_size"].astype(np.int64) + table["response_size"]
            offset = np.cumsum(sizes) - sizes
            parts.append(np.full(len(table), index, np.int32))
            blocks.append(np.full(len(table), len(history._blocks), np.int32))
            tables.append(table)
            offsets.append(offset)
            history._blocks.append((path, start, len(payload)) if start else payload)
            about = (table["kind"] == Kind.HEADER) | (table["kind"] > Kind.WATCH_ENDED)
            for row in np.flatnonzero(about).tolist():
                part.note(table[row], payload[int(offset[row]) : int(offset[row] + sizes[row])])
        history.parts.append(Part(path, part.header, part.cut, part.last_ns))
        history.endpoints.append(part.endpoints)
        history.markers.extend(part.markers)
    if tables:
        history.rows, history.part = np.concatenate(tables), np.concatenate(parts)
        history._place(np.concatenate(blocks), np.concatenate(offsets))
    history.markers.sort(key=lambda marker: marker.at_ns)
    return history


class _Part:
    """One file while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: dict[str, object] = {}
        self.cut = "it has no end: its writer was killed, or is still writing"
        self.last_ns = 0
        self.endpoints: dict[int, str] = {}
        self.markers: list[Marker] = []
        self._records = 0

    def read(self) -> Iterator[tuple[NDArray[np.void], bytes, int]]:
        """Give the records and the payload of each whole block, and where that lies (0: in compressed data).

        Sets ``cut`` where a block is not whole.
        """
        compressed = self.path.suffix == ".gz"
        opener = gzip.open if compressed else open
        try:
            with cast("IO[bytes]", opener(self.path, "rb")) as file:
                if file.read(len(MAGIC)) != MAGIC:
                    raise HistoryError(f"{self.path} is not a history file: it does not begin with {MAGIC!r}")
                while head := file.read(BLOCK.size):
                    if len(head) < BLOCK.size:
                        self.cut = "its last block is cut short"
                        return
                    magic, count, size, crc = BLOCK.unpack(head)
                    if magic != BLOCK_MAGIC:
                        self.cut = "the bytes behind a block are not a block"
                        return
                    records = file.read(count * COLUMNS.itemsize)
                    payload = file.read(size)
                    if len(records) < count * COLUMNS.itemsize or len(payload) < size:
                        self.cut = "its last block is cut short"
                        return
                    if zlib.crc32(payload, zlib.crc32(records)) != crc:
                        self.cut = "the checksum of a block is wrong"
                        return
                    table = np.frombuffer(records, COLUMNS)
                    if not self._records and (not count or table["kind"][0] != Kind.HEADER):
                        raise HistoryError(f"{self.path} is not a history file: it has no header")
                    self._records += count
                    self.last_ns = max(self.last_ns, int(table["return_ns"].max(initial=0)))
                    yield table, payload, 0 if compressed else file.tell() - size
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.cut = "its compressed data ends early"

    def note(self, row: np.void, payload: bytes) -> None:
        """Take in a record that is about the file or the run."""
        text = payload[int(row["request_size"]) :]
        kind = int(row["kind"])
        if kind == Kind.ENDPOINT:
            self.endpoints[int(row["endpoint"])] = text.decode(errors="replace")
            return
        try:
            details = json.loads(text)
        except ValueError as error:
            raise HistoryError(f"{self.path}: a {Kind(kind).name.lower()} that is not JSON") from error
        if kind == Kind.HEADER:
            if details.get("schema") != SCHEMA:
                raise HistoryError(f"{self.path}: schema {details.get('schema')!r}, not {SCHEMA!r}")
            self.header = details
        elif kind == Kind.MARKER:
            name = payload[: int(row["request_size"])].decode(errors="replace")
            self.markers.append(Marker(name, int(row["return_ns"]), details))
        elif kind == Kind.END:
            self.cut = "" if details.get("records") == self._records - 1 else "records are missing"


__all__ = ["Fault", "History", "HistoryError", "Marker", "Part", "read"]
