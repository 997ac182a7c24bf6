"""Models to bytes in any format, and those to a file, whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.base.errors import RaftloadError
from viz.diagrams import ascii as text_picture
from viz.diagrams import dot, mermaid
from viz.diagrams.model import Model, to_dict

FORMATS = ("mermaid", "graphviz", "ascii", "svg", "png", "json")
SUFFIXES: Mapping[str, str] = {
    ".mmd": "mermaid", ".mermaid": "mermaid", ".dot": "graphviz", ".gv": "graphviz", ".txt": "ascii",
    ".svg": "svg", ".png": "png", ".json": "json",
}  # fmt: skip
_DOT_TIMEOUT_S = 60.0


class NoGraphviz(RaftloadError):  # noqa: N818
    """SVG or PNG is wanted and Graphviz's ``dot`` is missing or fails; one line that says what to do."""


def to_json(model: Model) -> str:
    """The model itself, one JSON document."""
    return json.dumps(to_dict(model), indent=2, ensure_ascii=False) + "\n"


_TEXT: Mapping[str, Callable[[Model], str]] = {
    "mermaid": mermaid.render,
    "graphviz": dot.render,
    "ascii": text_picture.render,
    "json": to_json,
}


def render(model: Model, name: str) -> bytes:
    """Takes a model and one of FORMATS, returns the file's bytes. Raises NoGraphviz for svg and png."""
    if name in _TEXT:
        return _TEXT[name](model).encode()
    return _graphviz(dot.render(model), name)


def _graphviz(source: str, name: str) -> bytes:
    program = shutil.which("dot")
    if program is None:
        raise NoGraphviz(
            f"{name} needs Graphviz, and there is no `dot` on PATH: install graphviz "
            "(apt-get install graphviz, brew install graphviz) or use --format graphviz"
        )
    try:
        done = subprocess.run(
            [program, f"-T{name}"], input=source.encode(), capture_output=True, timeout=_DOT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NoGraphviz(f"Graphviz's {program} does not run: {exc}") from exc
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise NoGraphviz(f"Graphviz's {program} failed: {said[0] if said else f'exit code {done.returncode}'}")
    return done.stdout


def write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: what was there before stays until the new one is complete.

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
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            draft.chmod(stat.S_IMODE(path.stat().st_mode))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
