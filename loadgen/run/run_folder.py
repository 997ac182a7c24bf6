"""A run's folder: made once, written whole or not at all."""

from __future__ import annotations

import contextlib
import datetime
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base import files
from cluster.base.errors import RaftloadError, UsageError
from cluster.base.signals import Interrupted
from loadgen.result import latest

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result

CSV_PREFIX = "locust"
_RUNS = Path("runs")


class FolderError(RaftloadError):
    """The folder cannot be made: one line that says why.

    Attributes:
        exit_code: 2 where another folder should be named, 4 where the machine is in the way.
    """

    def __init__(self, message: str, exit_code: int = 4) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class IncompleteFolderError(files.FileError):
    """The run has its result, but not all of its folder could be written, as on a full disk.

    Attributes:
        result: the result document, whether or not it is in the folder.
    """

    def __init__(self, message: str, result: Result, folder: Path) -> None:
        super().__init__(message, refers_to=folder)
        self.result = result


def utc_now() -> datetime.datetime:
    """Return the present time, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def iso(moment: datetime.datetime) -> str:
    """Return a time as ISO 8601 in UTC with milliseconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def planned(scenario: str, output: Path | None, parent: Path | None = None) -> Path:
    """Return where a run that starts now will put its folder; make nothing."""
    if output is not None:
        return output
    return (parent or _RUNS) / f"{utc_now():%Y%m%dT%H%M%SZ}-{scenario}"


def create(folder: Path, *, exact: bool, say: Callable[[str], None], is_run: bool = True) -> Path:
    """Make a run's folder with its ``logs``, remember it as the latest, and return its path.

    Takes whether the name must be this one: then one that exists and is not empty is an error, else a number
    is appended; what to call with a line for people where `latest` will not find the run; and whether it is one that
    `latest` shall find. Raises FolderError.
    """
    was_there = exact and folder.exists()
    try:
        if exact:
            if folder.is_dir() and not any(folder.iterdir()):
                pass
            elif folder.exists():
                raise FolderError(f"{folder} exists and is not empty; name another --output", exit_code=2)
            else:
                folder.mkdir(parents=True)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder = _numbered(folder)
        (folder / "logs").mkdir()
    except OSError as error:
        _remove_empty(folder, was_there)
        raise FolderError(f"cannot make the run folder {folder}: {error.strerror}") from error
    reason = latest.remember(folder) if is_run else None
    if reason is not None and folder.parent != _RUNS:
        say(f"warning: `latest` will not be this run, which cannot be remembered ({reason}): set XDG_STATE_HOME")
    return folder


@contextlib.contextmanager
def for_a_run(folder: Path, *, exact: bool, say: Callable[[str], None]) -> Iterator[Path]:
    """Make a run's folder as `create` does, and yield its path for a block that runs in it.

    Where the block fails before the load, nothing is left of the folder but what may say why. That this was the latest
    run stays known; where it is not, the folder stays.
    """
    was_there = folder.exists()
    made = create(folder, exact=exact, say=say)
    try:
        yield made
    except BaseException as error:
        if _is_latest(made) and not _explains(made, error):
            _take_back(made, was_there)
        raise


def _is_latest(folder: Path) -> bool:
    known = latest.remembered()
    return known is not None and known[0] == Path.cwd() / folder


def _explains(folder: Path, error: BaseException) -> bool:
    """Tell whether a folder has more to say than the error: a run, the logs of members, or what the error refers to.

    Not where that could not be written.
    """
    path = error.refers_to if isinstance(error, RaftloadError) else None
    if any((folder / name).exists() for name in ("run.json", "turns.csv")):
        return True
    if isinstance(error, UsageError | files.FileError):
        return False
    if path is not None and path.resolve().is_relative_to(folder.resolve()):
        return True
    ours = ("master.log", "worker-")
    return not isinstance(error, RaftloadError | Interrupted) or any(
        not log.name.startswith(ours) and log.stat().st_size for log in (folder / "logs").iterdir()
    )


def _take_back(folder: Path, was_there: bool) -> None:
    """Remove what a run has put into its folder, and the folder unless it was there before, and ./runs if empty."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    _remove_empty(folder, was_there)


def _remove_empty(folder: Path, was_there: bool) -> None:
    """Remove a folder that is empty, unless it was there before, and ./runs if it is empty then."""
    with contextlib.suppress(OSError):  # not empty, not made, or a mount
        if not was_there:
            folder.rmdir()
    with contextlib.suppress(OSError):
        if folder.parent == _RUNS:
            folder.parent.rmdir()


def _numbered(folder: Path) -> Path:
    for number in range(1, 1000):
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            candidate.mkdir()
        except FileExistsError:
            continue
        return candidate
    raise FolderError(f"{folder} and 999 numbered ones exist")


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Write a JSON document in place of what was there, whole or not at all. Raises FileError."""
    with files.writing(path):
        files.write_json(path, document)


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write what this process logs into a file, for the length of a block. Raises FileError."""
    with files.writing(path):
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    # On a full disk the run says so itself, once; the log need not, at every line.
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()
