"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cluster.base.errors import RaftloadError


class FileError(RaftloadError):
    """A file cannot be written."""


@contextlib.contextmanager
def writing(where: object) -> Iterator[None]:
    """Raises FileError where the block raises OSError. Takes what is written: a path, or words for people."""
    try:
        yield
    except BrokenPipeError:  # whoever read it has had enough
        raise
    except OSError as exc:
        raise FileError(f"cannot write {where}: {exc.strerror or exc}") from exc
