"""Models to bytes in any format."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping

from cluster.base.errors import RaftloadError
from cluster.base.files import to_json
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


_TEXT: Mapping[str, Callable[[Model], str]] = {
    "mermaid": mermaid.render,
    "graphviz": dot.render,
    "json": lambda model: to_json(to_dict(model)),
}


def render(model: Model, name: str, columns: int = text_picture.COLUMNS) -> bytes:
    """Take a model and one of FORMATS, return the file's bytes. Raises NoGraphviz for svg and png.

    Takes also how many columns of a terminal there are for ``ascii``.
    """
    if name == "ascii":
        return text_picture.render(model, columns).encode()
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
