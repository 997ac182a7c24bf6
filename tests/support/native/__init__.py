"""Servers in C for what Python is too slow for: compiled once, into the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import hpack.huffman_constants
import hpack.table

from tests.support.cache import cached

SOURCES = Path(__file__).parent
_FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-function")


def no_compiler() -> str:
    """Return why nothing can be compiled here, empty where it can."""
    return "" if shutil.which(_compiler()) else f"no C compiler: {_compiler()} is not on PATH"


def build(name: str) -> Path:
    """Return the program that is made of the source of this name, compiled where it is not there as it is now.

    Raises CalledProcessError, FileNotFoundError without a compiler.
    """
    tables = _tables()
    made_of = [each.read_text() for each in (SOURCES / f"{name}.c", *sorted(SOURCES.glob("*.h")))]
    of = hashlib.sha256("\0".join([_compiler(), *_FLAGS, tables, *made_of]).encode()).hexdigest()[:16]

    def make(folder: Path) -> Path:
        kept = folder / "kept"
        kept.mkdir()
        (folder / "hpack_tables.h").write_text(tables)
        command = [_compiler(), *_FLAGS, f"-I{folder}", "-o", kept / name, SOURCES / f"{name}.c", "-lm"]
        subprocess.run(command, check=True)
        return kept

    return cached(f"{name}-{of}", make) / name


def _compiler() -> str:
    return os.environ.get("CC", "cc")


def _tables() -> str:
    """Return the tables of RFC 7541's appendices as C."""
    fields = ", ".join(f'{{"{n.decode()}", "{v.decode()}"}}' for n, v in hpack.table.HeaderTable.STATIC_TABLE)
    codes = hpack.huffman_constants
    rows = sorted(zip(codes.REQUEST_CODES_LENGTH, codes.REQUEST_CODES, range(257), strict=True))
    huffman = ", ".join(f"{{{symbol}, {bits}, {code}u}}" for bits, code, symbol in rows)
    return (
        f'static const char *const static_fields[][2] = {{{{"", ""}}, {fields}}};\n'
        f"static const struct {{ int symbol, bits; unsigned code; }} huffman[] = {{{huffman}}};\n"
    )
