"""Sizes and durations as people write them, and numbers as people read them."""

from __future__ import annotations

import math
import re

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_SIZE_UNITS = {
    "": 1, "b": 1,
    "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3,
    "ki": 1024, "kib": 1024, "mi": 1024**2, "mib": 1024**2, "gi": 1024**3, "gib": 1024**3,
}  # fmt: skip
# As Go's time.ParseDuration has it: both letters that look like a mu, and a digit on one side of the point at least.
_DURATION_UNITS = {
    "ns": 1e-9, "us": 1e-6, "\N{MICRO SIGN}s": 1e-6, "\N{GREEK SMALL LETTER MU}s": 1e-6, "ms": 1e-3, "s": 1.0,
    "m": 60.0, "h": 3600.0,
}  # fmt: skip
_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_PART = re.compile(rf"({_NUMBER})({'|'.join(_DURATION_UNITS)})")
_DURATION = re.compile(rf"\+?(?:{_PART.pattern})+")
_PLAIN = re.compile(_NUMBER)


def parse_size(text: str) -> int:
    """Return the number of bytes that a text such as ``64``, ``4KiB`` or ``1.5MB`` means.

    Raises ValueError for anything else, and where the result is not a whole number of bytes.
    """
    match = _SIZE.fullmatch(text)
    unit = match and _SIZE_UNITS.get(match[2].lower())
    if not match or unit is None:
        raise ValueError(f"{text!r} is not a size; write bytes or a unit, such as 64, 4KiB or 1MB")
    size = float(match[1]) * unit
    if size != int(size):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(size)


def parse_duration(text: str, *, plain: bool = True) -> float:
    """Return the seconds that a text such as ``30s``, ``250ms``, ``1h30m``, ``100us`` or ``5`` (seconds) means.

    The grammar is that of Go's durations, without a minus. ``plain`` is whether a number without a unit is one.
    Raises ValueError for anything else.
    """
    compact = text.strip()
    if compact == "0" or (plain and _PLAIN.fullmatch(compact)):
        return float(compact)
    if not _DURATION.fullmatch(compact):
        seconds = " (a plain number is seconds)" if plain else ""
        raise ValueError(
            f"{text!r} is not a duration; write numbers with units (ns, us, ms, s, m, h), such as 250ms, 30s or "
            f"1h30m{seconds}"
        )
    return math.fsum(float(number) * _DURATION_UNITS[unit] for number, unit in _PART.findall(compact))


def duration_text(seconds: float) -> str:
    """Return a duration as `parse_duration` reads it, exactly."""
    from decimal import Decimal  # few need it, and every command imports this module

    return f"{Decimal(repr(float(seconds))):f}s"


def megabytes(count: float) -> str:
    """Return a number of bytes for a person's eye: ``20.3 MB``."""
    return f"{count / 1e6:.1f} MB"


def format_duration(seconds: float) -> str:
    """Return seconds for a person's eye: ``850 ms``, ``12.3 s``, ``4 min 05 s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
