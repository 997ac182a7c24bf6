"""Files that are written whole or not at all, and JSON."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from cluster.base.errors import RaftloadError


class FileError(RaftloadError):
    """A file cannot be written."""


@contextlib.contextmanager
def writing(where: object, path: Path | None = None) -> Iterator[None]:
    """Raise FileError where the block raises OSError.

    Takes what is written: a path, or words for people; then also the path that is among the words, if one is.
    """
    try:
        yield
    except BrokenPipeError:  # whoever read it has had enough
        raise
    except OSError as exc:
        path = where if isinstance(where, Path) else path
        raise FileError(f"cannot write {where}: {exc.strerror or exc}", refers_to=path) from exc


def to_json(document: Mapping[str, object], encoding: str = "utf-8") -> str:
    """Return a document as indented JSON with a newline at the end. Raises ValueError for what JSON has no word for.

    Takes the encoding in which it will be written: where that lacks a character, all but ASCII is escaped.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(document, indent=2, allow_nan=False) + "\n"
    return text


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Write a document as ``write_bytes`` does. Raises OSError."""
    write_bytes(path, to_json(document).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step: what was there before stays until the new one is complete, and so does its mode.

    A device or pipe is written as it is. Raises OSError.
    """
    path = path.resolve()  # the file behind a link, not the link
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        path.write_bytes(content)
        return
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    try:
        with draft.open("xb") as file:
            file.write(content)
        if path.exists():
            draft.chmod(stat.S_IMODE(path.stat().st_mode))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def histogram_log(f: str, suffix: str = "") -> str:
    """Return the name of the file in a run folder that has the latencies of an operation type, whatever that is called.

    >>> histogram_log("put"), histogram_log("GET /v3/kv", ".service")
    ('put.hlog', 'GET__v3_kv.service.hlog')
    """
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', f)}{suffix}.hlog"
