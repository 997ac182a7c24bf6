"""Log files as lines of text, whatever they are compressed with, packed into, and encoded in."""

from __future__ import annotations

import bz2
import codecs
import dataclasses
import gzip
import importlib
import io
import lzma
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from cluster.base.errors import UsageError

_HEAD = 4096
_CHUNK = 1 << 18
_LONGEST_LINE = (
    1 << 28
)  # characters, as a whole export of a log pipeline may have; of a longer one the rest is left out
_NESTED = 3  # a compressed file may hold an archive of compressed files
_UTF_32 = ((codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"))
_GZIP, _BZIP2, _XZ, _LZMA = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00\x00"
ZSTD = b"\x28\xb5\x2f\xfd"
# Compressions that Python does not read: what each is called, and what unpacks it.
FOREIGN = {
    b"\x04\x22\x4d\x18": ("LZ4", "lz4 -d"),
    b"LZIP": ("lzip", "lzip -d"),
    b"\x1f\x9d": ("compress", "uncompress"),
    b"7z\xbc\xaf\x27\x1c": ("7-Zip", "7z x"),
    b"Rar!\x1a\x07": ("RAR", "unrar x"),
}
# Files that are no text, by how they begin: what each is.
_KINDS = {
    b"LPKSHHRH": "a journal of systemd: write it out with `journalctl --file FILE -o json`",
    b"\x7fELF": "a program",
    b"\x89PNG": "a picture",
    b"%PDF-": "a PDF",
    b"SQLite format 3": "a database of SQLite",
}
_BBOLT = b"\xed\xda\x0c\xed"  # the magic number of a bbolt page, at byte 16, in the byte order of most machines
_BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)


@dataclasses.dataclass
class LogFile:
    """One file of text. What ``problem`` and ``kind`` say is known once its lines are read.

    Attributes:
        where: its path, within an archive also the path there.
        path: the same for who wants its name and folder.
        changed: when it was last changed, in seconds since 1970; None where that is not known.
        problem: why it could not be read to its end; empty where it was.
        kind: what it is, where it is no text; else empty.
    """

    where: str
    path: Path
    changed: float | None
    _bytes: IO[bytes]
    problem: str = ""
    kind: str = ""

    def lines(self) -> Iterator[str]:
        """Yield its lines, each with ``\\n`` where it has an end."""
        self.kind = _kind(_head(self._bytes))
        if not self.kind:
            yield from _lines(self._texts())

    def _texts(self) -> Iterator[str]:
        """Yield the text in parts, without the marks of byte order and the zero bytes that a file may have anywhere.

        A log that was cut off while its process had it open begins with zero bytes. PowerShell's ``>>`` appends UTF-16
        to a file of any encoding.
        """
        name = _encoding(_head(self._bytes))
        decoder = codecs.getincrementaldecoder(name)(errors="replace")
        part = b"-"
        while part:
            try:
                part = _some(self._bytes, _CHUNK)
            except _BROKEN as exc:
                part = b""
                self.problem = f"it is damaged or cut short ({exc}): what stands before that is read"
            yield decoder.decode(part, final=not part).replace("\0", "").replace("\ufeff", "")


def open_logs(paths: Iterable[Path]) -> Iterator[LogFile]:
    """Yield the files of text at these paths, unpacked: those of a folder, of an archive, or one.

    Read each before the next. Raises OSError for a path that cannot be read, and UsageError for a compression that
    Python does not know.
    """
    for path in paths:
        if path.is_dir():
            within = ((each, each.relative_to(path).parts) for each in path.rglob("*") if each.is_file())
            yield from open_logs(sorted(each for each, parts in within if not any(part[0] == "." for part in parts)))
            continue
        with path.open("rb") as file:
            changed = path.stat().st_mtime if path.is_file() else None
            yield from _unpacked(str(path), path, changed, _seekable(file), _NESTED)


def _seekable(file: IO[bytes]) -> IO[bytes]:
    """Return a file from whose begin one can read again: a copy of a pipe."""
    if file.seekable():
        return file
    copy = tempfile.TemporaryFile()  # noqa: SIM115
    shutil.copyfileobj(file, copy)
    copy.seek(0)
    return copy


def _unpacked(where: str, path: Path, changed: float | None, file: IO[bytes], depth: int) -> Iterator[LogFile]:
    head = _head(file)
    opened = _decompressed(where, head, file) if depth else None
    if opened is not None:
        yield from _unpacked(where, path, changed, opened, depth - 1)
    elif depth and head[257:262] == b"ustar":
        yield from _of_tar(where, changed, file, depth)
    elif depth and head.startswith(b"PK\x03\x04"):
        yield from _of_zip(where, file, depth)
    else:
        yield LogFile(where, path, changed, file)


def _decompressed(where: str, head: bytes, file: IO[bytes]) -> IO[bytes] | None:
    """Return the unpacked bytes; None for what is not compressed."""
    if head.startswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if head.startswith(_BZIP2):
        return bz2.BZ2File(file)
    if head.startswith((_XZ, _LZMA)):
        return lzma.LZMAFile(file)
    if head.startswith(ZSTD):
        try:
            zstd: Any = importlib.import_module("compression.zstd")  # Python 3.14 and later
        except ImportError as exc:
            raise UsageError(
                f"{where} is compressed with Zstandard, which this Python does not read: unpack it with `zstd -d`"
            ) from exc
        opened: IO[bytes] = zstd.ZstdFile(file)
        return opened
    for begin, (name, command) in FOREIGN.items():
        if head.startswith(begin):
            raise UsageError(
                f"{where} is compressed with {name}, which Python does not read: unpack it with `{command}`"
            )
    return None


def _of_tar(where: str, changed: float | None, file: IO[bytes], depth: int) -> Iterator[LogFile]:
    try:
        with tarfile.open(fileobj=file) as archive:
            for each in archive:
                inside = archive.extractfile(each) if each.isfile() else None
                if inside is not None:
                    place = f"{where}:{each.name}"
                    yield from _unpacked(place, Path(each.name), each.mtime or changed, inside, depth - 1)
    except _BROKEN as exc:
        yield LogFile(where, Path(where), changed, io.BytesIO(), f"it is damaged or cut short ({exc})")


def _of_zip(where: str, file: IO[bytes], depth: int) -> Iterator[LogFile]:
    try:
        with zipfile.ZipFile(file) as archive:
            for each in archive.infolist():
                if not each.is_dir():
                    inside = archive.open(each)
                    yield from _unpacked(f"{where}:{each.filename}", Path(each.filename), None, inside, depth - 1)
    except (*_BROKEN, RuntimeError, NotImplementedError) as exc:  # a password, a method that Python does not know
        yield LogFile(where, Path(where), None, io.BytesIO(), f"it is damaged or cut short ({exc})")


def _kind(head: bytes) -> str:
    for begin, name in _KINDS.items():
        if head.startswith(begin):
            return name
    if head[16:20] in (_BBOLT, _BBOLT[::-1]):
        return "a database of etcd"
    return ""


# Text


def _head(file: IO[bytes]) -> bytes:
    """Return a file's first bytes, of a damaged one those before the damage; the file is at its begin again."""
    parts = b""
    try:
        while len(parts) < _HEAD and (part := _some(file, _HEAD)):
            parts += part
    except _BROKEN:
        pass
    file.seek(0)
    return parts


def _some(file: IO[bytes], most: int) -> bytes:
    """Return the next bytes of a file, of one that is cut short all that are left; none at its end."""
    read = getattr(file, "read1", file.read)
    part: bytes = read(most)
    return part


def _encoding(head: bytes) -> str:
    """Return the encoding by a file's first bytes: etcd writes nearly only ASCII, so UTF-16 has zeros in between."""
    for mark, name in _UTF_32:
        if head.startswith(mark):
            return name
    sample = head.lstrip(b"\0") if head[:2] == b"\0\0" else head
    found = {_utf_16(sample[:64]), _utf_16(sample)}  # where it only begins later it was appended to something else
    return found.pop() if len(found) == 1 else "utf-8"


def _utf_16(sample: bytes) -> str:
    odd, even = sample[1::2], sample[::2]
    if odd.count(0) > 0.4 * len(odd) and even.count(0) < 0.1 * len(even):
        return "utf-16-le"
    if even.count(0) > 0.4 * len(even) and odd.count(0) < 0.1 * len(odd):
        return "utf-16-be"
    return "utf-8"


_ENDS = re.compile(r"\r\n|\n|\r")


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield lines, which end in ``\\n``, ``\\r\\n`` or ``\\r``."""
    parts: list[str] = []  # of the line that has no end yet
    size, held = 0, ""
    for text in texts:
        text, held = held + text, ""  # noqa: PLW2901
        if text.endswith("\r"):
            text, held = text[:-1], "\r"  # noqa: PLW2901 - its \n may follow
        *whole, rest = _ENDS.split(text)
        for line in whole:
            yield "".join((*parts, line)) + "\n"
            parts, size = [], 0
        if size < _LONGEST_LINE:
            parts.append(rest)
            size += len(rest)
    line = "".join(parts)
    if line or held:
        yield line + "\n" * bool(held)
