"""The code that is checked out, as records of long measurements name it."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path


def is_built(path: Path) -> bool:
    """Whether Python or a build of the core has made a file: git ignores it."""
    return "__pycache__" in path.parts or path.suffix == ".so" or path.name in {"core.c", "core.html"}


def code_hash(root: Path, folders: Sequence[str], without: Sequence[str] = ()) -> str:
    """Return 12 hexadecimal digits that stand for the files of some folders, with changes that are not committed.

    Takes the checkout, and what is left out, both as the beginnings of paths.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and not is_built(path) and not name.startswith(tuple(without)):
                content = path.read_bytes()
                digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def commit_of(root: Path, folders: Sequence[str]) -> str:
    """Return the abbreviated commit, with a ``+`` where these folders differ from it; ``unknown`` without git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout

    try:
        return git("rev-parse", "--short=12", "HEAD").strip() + ("+" if git("status", "--porcelain", *folders) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
