"""Keys, values, operations and times as text: short, and the same everywhere."""

from __future__ import annotations

import re

from loadgen.check.store import Entry

_LONGEST = 48
# What fills a value up to its size says nothing.
_FILLER = re.compile(r"(.)\1{7,}$")


def show(data: bytes) -> str:
    """Return bytes as text where they are text, in hexadecimal otherwise, without filler and long middles."""
    text = data.decode("ascii") if data.isascii() and data.decode("ascii").isprintable() else "0x" + data.hex()
    text = _FILLER.sub("…", text)
    return text if len(text) <= _LONGEST else f"{text[:30]}…{text[-12:]}"


def entry_words(entry: Entry | None) -> str:
    """Return what a key has, in words."""
    if entry is None:
        return "no key"
    value, create, mod, version, lease = entry
    under = f", lease {lease:x}" if lease else ""
    return f"{show(value)!r} of revision {mod} (created at {create}, version {version}{under})"
