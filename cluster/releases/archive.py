"""The archives of etcd's releases: what is taken from one."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cluster.base.errors import ClusterError

PROGRAMS = ("etcd", "etcdctl", "etcdutl")
_CHUNK = 1 << 20
_OPTIONAL = ("etcdutl",)  # since 3.5


class BadArchive(ClusterError):  # noqa: N818
    """An archive that cannot be read, or that lacks a program."""


def archive_name(release: str) -> str:
    """Take a release's name, return the archive's: a zip for macOS, a tar.gz for Linux."""
    return f"{release}.zip" if "-darwin-" in release else f"{release}.tar.gz"


def unpack(archive: Path, release: str, folder: Path) -> None:
    """Take the programs out of an archive and into a folder, executable and on disk.

    Only regular files are taken that stand at the one path where the release has each program; whatever else is in
    the archive, wherever it leads, is passed over. Raises BadArchive, and OSError where the folder cannot be written.
    """
    wanted = {f"{release}/{program}": program for program in PROGRAMS}
    found = set()
    for path, source in _regular_files(archive, set(wanted)):
        with source:
            if path in wanted and wanted[path] not in found:
                _write(archive, source, folder / wanted[path])
                found.add(wanted[path])
    for program in PROGRAMS:
        if program not in found and program not in _OPTIONAL:
            raise BadArchive(f"{archive_name(release)} has no file {release}/{program}")


def _regular_files(archive: Path, wanted: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the wanted files of an archive that are regular ones, by their path in it, each opened."""
    try:
        if archive.name.endswith(".zip"):
            with zipfile.ZipFile(archive) as zipped:
                for entry in zipped.infolist():
                    kind = stat.S_IFMT(entry.external_attr >> 16)
                    if entry.filename in wanted and kind in (0, stat.S_IFREG):
                        yield entry.filename, zipped.open(entry)
            return
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                path = member.name.removeprefix("./")
                if path in wanted and member.isreg() and (source := tar.extractfile(member)):
                    yield path, source
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as exc:
        raise _unreadable(archive, exc) from exc


def _write(archive: Path, source: IO[bytes], path: Path) -> None:
    with path.open("xb") as file:
        while chunk := _read(archive, source):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o755)


def _read(archive: Path, source: IO[bytes]) -> bytes:
    try:
        return source.read(_CHUNK)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as exc:
        raise _unreadable(archive, exc) from exc


def _unreadable(archive: Path, exc: Exception) -> BadArchive:
    return BadArchive(f"{archive.name} cannot be read ({exc})")
