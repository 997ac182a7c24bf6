"""The user's cache of official releases: get one, whole or not at all, list them, and remove one.

A release is a folder with its name (``etcd-v3.6.14-linux-amd64``) under ``versions.releases_dir``. It is made in a
folder beside it, ``.NAME.part``, whose lock its maker holds, and renamed when it is complete. A part without a maker is
left by a process that was killed: the next command that changes the cache removes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.binary import run_version
from cluster.base.errors import ClusterError, EtcdBroken
from cluster.base.files import write_json
from cluster.base.signals import finishing, uninterrupted
from cluster.base.versions import release_name, releases_dir
from cluster.releases.archive import archive_name, unpack
from cluster.releases.download import Base, DownloadFailed, NotThere
from cluster.releases.progress import Progress

if TYPE_CHECKING:
    from cluster.schema import documents

SUMS = "SHA256SUMS"
_FACTS = "release.json"
_LOCK = ".lock"
_PART_LOCK = "lock"
_MOST_SUMS = 1 << 20
_MOST_ARCHIVE = 1 << 30
_POLL_S = 0.1
WHAT_IS_THERE = "`raftload etcd list` shows those that are"
_NAME = re.compile(r"etcd-v(\d+\.\d+\.\d+(?:-[0-9A-Za-z.]+)?)-((?:linux|darwin)-[a-z0-9]+)")
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Release:
    """A release in the cache.

    Attributes:
        version: ``3.6.14``.
        platform: ``linux-amd64``.
        folder: where its programs are.
        size_bytes: of all its files.
        sha256: of the archive that it came in; None where that is not known, as with the next two.
        url: of the archive.
        fetched_at: ISO 8601, UTC.
    """

    version: str
    platform: str
    folder: Path
    size_bytes: int
    sha256: str | None
    url: str | None
    fetched_at: str | None

    @property
    def path(self) -> Path:
        """The etcd binary."""
        return self.folder / "etcd"

    def to_json(self) -> documents.Release:
        """Return it as ``etcd list --json`` has it."""
        return {
            "version": self.version, "platform": self.platform, "path": str(self.path), "size_bytes": self.size_bytes,
            "sha256": self.sha256, "url": self.url, "fetched_at": self.fetched_at,
        }  # fmt: skip


def get(version: str, base: Base, say: Say) -> Release:
    """Return the release of a version for this platform, from the cache, else fetched and verified.

    Takes the version without ``v``, the release page, and where to report progress to. Waits for another process that
    gets the same one. Raises ClusterError; then, and where it is interrupted, nothing of it is kept.
    """
    name, folder = release_name(version), releases_dir()
    part: _Part | None = None
    try:
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            told = False
            while part is None:
                with _locked(folder), finishing():
                    _sweep(folder)
                    if (release := _read(folder / name)) is not None:
                        say(f"etcd {version} is in the cache already")
                        return release
                    part = _Part.claim(folder, name)
                if part is None:
                    if not told:
                        say(f"{_Part.holder(folder, name)} is downloading etcd {version}: waiting for it")
                    told = True
                    time.sleep(_POLL_S)
            _fill(part.path, version, base, say)
            with _locked(folder), finishing():
                part.complete(folder / name)
    finally:
        if part is not None:
            with uninterrupted(), _locked(folder):
                part.discard()
    found = _read(folder / name)
    if found is None:
        raise ClusterError(f"etcd {version} was removed from {folder} by another process: run the command again")
    return found


def releases() -> list[Release]:
    """Return all that are in the cache, of every platform, by version."""
    try:
        found = [release for each in releases_dir().iterdir() if (release := _read(each)) is not None]
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise ClusterError(f"cannot read {releases_dir()}: {exc.strerror or exc}") from exc
    return sorted(found, key=lambda each: (_order(each.version), each.platform))


def find(version: str, advice: str = "") -> Release:
    """Return the release of a version, without ``v``, for this platform.

    Takes what to do where it is not in the cache, default: to get it. Raises ClusterError where it is not there.
    """
    found = _read(releases_dir() / release_name(version))
    if found is None:
        advice = advice or f"run `raftload etcd get {version}`"
        raise ClusterError(f"etcd {version} is not in {releases_dir()}: {advice}")
    return found


def remove(version: str) -> Release:
    """Remove a release for this platform; return what it was. Raises ClusterError where it is not in the cache."""
    release, folder = find(version, WHAT_IS_THERE), releases_dir()
    with _writing(folder), _locked(folder), finishing():
        _sweep(folder)
        gone = folder / f".{release.folder.name}.part"
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            release.folder.rename(gone)
            shutil.rmtree(gone)
    return release


class _Part:
    """A release that is being made: a folder, and its lock, which says that its maker lives."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path, self._lock, self._complete = path, lock, False

    @classmethod
    def claim(cls, folder: Path, name: str) -> _Part | None:
        """Return the part of a release for this process; None where another one has it. To be called under the lock."""
        path = folder / f".{name}.part"
        path.mkdir(exist_ok=True)
        try:
            lock = os.open(path / _PART_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            with contextlib.suppress(OSError):
                path.rmdir()
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(lock)
            if isinstance(exc, BlockingIOError):
                return None
            raise
        with contextlib.suppress(OSError):  # for people who wait
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d" % os.getpid(), 0)
        return cls(path, lock)

    @staticmethod
    def holder(folder: Path, name: str) -> str:
        """Return who has the part of a release, for people."""
        try:
            return "process " + (folder / f".{name}.part" / _PART_LOCK).read_text(encoding="ascii")
        except (OSError, ValueError):
            return "another process"

    def complete(self, to: Path) -> None:
        """Make it the release, from one moment to the next."""
        (self.path / _PART_LOCK).unlink()
        self.path.rename(to)
        self._complete = True

    def discard(self) -> None:
        """Remove it where it is not complete, and give its lock back."""
        if not self._complete:  # else the next one may be in the making there
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _fill(part: Path, version: str, base: Base, say: Say) -> None:
    """Fetch and verifies a release into a folder. Raises ClusterError."""
    name = release_name(version)
    archive = archive_name(name)
    say(f"downloading {archive} from {base.shown}")
    wanted = _checksum(version, archive, base)
    path = part / archive
    summary = _fetch(f"v{version}/{archive}", base, path, wanted)
    unpack(path, name, part)
    path.unlink()
    found = run_version(part / "etcd", base.shown)
    if found.version != version:
        raise EtcdBroken(f"{archive} of {base.shown} holds etcd {found.version}: name another mirror by --base-url")
    facts = {
        "sha256": wanted, "url": f"{base.shown}/v{version}/{archive}",
        "fetched_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    write_json(part / _FACTS, facts)
    say(f"{summary}; checksum verified")


def _checksum(version: str, archive: str, base: Base) -> str:
    """Return what the release's own list says of an archive. Raises ClusterError."""
    try:
        text = base.read(f"v{version}/{SUMS}", _MOST_SUMS).decode(errors="replace")
    except NotThere as exc:
        raise NotThere(
            f"there is no etcd {version} at {base.shown} (no v{version}/{SUMS}): give another version; "
            "https://github.com/etcd-io/etcd/releases lists them"
        ) from exc
    for line in text.splitlines():
        digest, _, name = line.strip().partition(" ")
        if name.strip().lstrip("*").removeprefix("./") == archive and re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            return digest.lower()
    raise DownloadFailed(
        f"{base.shown}/v{version}/{SUMS} has no checksum of {archive}: etcd {version} was not built for this "
        "platform, or this is not a release page"
    )


def _fetch(address: str, base: Base, path: Path, wanted: str) -> str:
    """Write a file of the release page and verify it; return how that went, for people. Raises ClusterError."""
    digest = hashlib.sha256()
    done = 0
    with base.open(address) as body, Progress(path.name, body.size) as progress, path.open("xb") as file:
        for chunk in body.chunks:
            file.write(chunk)
            digest.update(chunk)
            progress.add(len(chunk))
            done += len(chunk)
            if done > _MOST_ARCHIVE:
                raise DownloadFailed(
                    f"{base.shown}/{address} has more than {_MOST_ARCHIVE:,} bytes: this is not an etcd release"
                )
    if digest.hexdigest() != wanted:
        raise DownloadFailed(
            f"{base.shown}/{address} has the checksum {digest.hexdigest()}, not {wanted} as {SUMS} says: "
            "run the command again; if this happens again, do not trust this address"
        )
    return progress.summary()


def _read(folder: Path) -> Release | None:
    """Return what a folder of the cache is; None where it is no release."""
    match = _NAME.fullmatch(folder.name)
    if match is None or not (folder / "etcd").is_file():
        return None
    try:
        size = sum(each.stat().st_size for each in folder.iterdir())
    except OSError:
        return None  # it is being removed
    facts: dict[str, str | None] = {}
    with contextlib.suppress(OSError, ValueError):
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    return Release(
        match[1], match[2], folder, size, facts.get("sha256"), facts.get("url"), facts.get("fetched_at")
    )  # fmt: skip


def _order(version: str) -> tuple[tuple[int, ...], bool, str]:
    """Return a key that puts ``3.6.0-rc.1`` before ``3.6.0``, and that before ``3.6.10``."""
    number, _, before = version.partition("-")
    return tuple(map(int, number.split("."))), not before, before


def _sweep(folder: Path) -> None:
    """Remove parts whose maker was killed. To be called under the lock."""
    for path in folder.glob(".*.part"):
        part = _Part.claim(folder, path.name[1:].removesuffix(".part"))
        if part is not None:
            part.discard()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time look at the cache and change it; held for moments only.

    A file and not the folder itself, because a network file system locks only what is open for writing.
    """
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say in one line that the cache cannot be written. What the network failed by is no OSError any more here."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise ClusterError(
            f"cannot write to {folder}: {exc.strerror or exc}; make room there, or set XDG_CACHE_HOME to another folder"
        ) from exc
