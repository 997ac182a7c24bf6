"""Exit codes of exceptions, and the one line on stderr that is said of each."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from cluster.base import console
from cluster.base.errors import RaftloadError
from cluster.base.files import writing
from cluster.base.signals import Interrupted

BUG = 70
# Whoever read our output has had enough: as a shell says it of SIGPIPE.
UNREAD = 141


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """An exception that ends a run.

    Attributes:
        code: the exit code for it.
        what: its description; that of a worker's begins with the worker's name.
        trace: its traceback.
        log: the file that holds the traceback, None where there is none.
    """

    code: int
    what: str
    trace: str
    log: Path | str | None = None

    @property
    def line(self) -> str:
        """The line for stderr."""
        return line(self.code, self.what, self.log)


class ListenerError(BaseException):
    """A listener, a message handler, a greenlet or a callback of the run has raised, here or in a worker.

    No ``except Exception`` catches it: Locust's is what it has to pass.

    Attributes:
        failure: the exception.
        exit_code: the exit code for it.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.what)
        self.failure = failure
        self.exit_code = failure.code


def run(command: Callable[[], int]) -> int:
    """Run a command, say in one line what goes wrong, and return the exit code.

    Lets through what is no error of ours to report, and with $RAFTLOAD_DEBUG also a bug. Programs that are told of
    events are told of the end, too.
    """
    try:
        ended = _run(command)
        if (told := console.events()) is not None:
            told.end(ended)
        return ended
    finally:
        console.tell_people()
        forget_unwritten()


def forget_unwritten() -> None:
    """Drop what stdout and stderr hold and cannot write; the exit code says it already.

    Python writes it once more when it ends, complains of that on stderr, and ends with code 120.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is None or stream.closed:  # of a process that was started without it
            continue
        try:
            stream.flush()
        except OSError:
            _to_nowhere(stream)


def _run(command: Callable[[], int]) -> int:
    try:
        code = int(command())
        with writing("to stdout"):
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _to_nowhere(sys.stdout)
        return UNREAD
    except BaseException as error:
        ended = _say(error)
        if ended is None:
            raise
        return ended


def _to_nowhere(stream: TextIO) -> None:
    """Have what is and will be written to a stream go to the null device."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _say(error: BaseException) -> int | None:
    """Say in one line what went wrong and return the exit code; None for what is not ours to catch."""
    if isinstance(error, Interrupted):
        return error.exit_code
    debug = bool(os.environ.get("RAFTLOAD_DEBUG"))
    if isinstance(error, ListenerError):
        if debug:
            _tell(error.failure.trace)
        _tell(error.failure.line)
        return error.exit_code
    if not isinstance(error, Exception):
        return None
    code = code_of(error)
    if code == BUG and debug:
        raise error
    _tell(line(code, describe(error)))
    return code


def _tell(text: str) -> None:
    """Print a text on stderr; where that cannot be written, the exit code still says it."""
    if (told := console.events()) is not None:
        told.fail(text)
        return
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def code_of(error: Exception) -> int:
    """Return the exit code for an exception; 70 where it is a bug of ours."""
    if isinstance(error, RaftloadError):
        return error.exit_code
    return RaftloadError.exit_code if isinstance(error, OSError) else BUG


def describe(error: Exception) -> str:
    """Return what is said of an exception: of a bug also its type and where it was raised."""
    if code_of(error) != BUG:
        return str(error)
    return f"{type(error).__name__}: {error} at {_innermost(error)}"


def line(code: int, what: str, log: object = None) -> str:
    """Return the line for stderr. Takes the exit code, the description, and the log that holds the traceback."""
    if code != BUG:
        return f"raftload: error: {what}"
    where = f"the traceback in {log}" if log is not None else "the traceback that RAFTLOAD_DEBUG=1 shows"
    return f"raftload: internal error: {what}; please report it, with {where}"


def _innermost(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else "?"  # noqa: PTH119
