"""Sizes and durations as people write them, and numbers as people read them."""

from __future__ import annotations

import math
import re

_SIZE_UNITS = {
    "": 1, "b": 1,
    "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3,
    "ki": 1024, "kib": 1024, "mi": 1024**2, "mib": 1024**2, "gi": 1024**3, "gib": 1024**3,
}  # fmt: skip
# As Go's time.ParseDuration has it: both letters that look like a mu, and a digit on one side of the point at least.
# A unit is so many seconds, or so many are a second: 100 / 1e6 is 1e-4, 100 * 1e-6 is not.
_DURATION_UNITS = {
    "ns": (1, 1e9), "us": (1, 1e6), "\N{MICRO SIGN}s": (1, 1e6), "\N{GREEK SMALL LETTER MU}s": (1, 1e6),
    "ms": (1, 1e3), "s": (1, 1), "m": (60, 1), "h": (3600, 1),
}  # fmt: skip
_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"  # ASCII: `\d` has the digits of all scripts
_SIZE = re.compile(rf"\+?({_NUMBER})\s*([A-Za-z]*)")
_PART = re.compile(rf"({_NUMBER})({'|'.join(_DURATION_UNITS)})")
_DURATION = re.compile(rf"\+?(?:{_PART.pattern})+")
_PLAIN = re.compile(rf"\+?{_NUMBER}")
_WHOLE = re.compile(r"[+-]?[0-9]{1,100}")
_REAL = re.compile(rf"[+-]?{_NUMBER}(?:[eE][+-]?[0-9]+)?")
LONGEST_S = (2**63 - 1) / 1e9
"""The longest duration that Go and the clocks of this machine know, in seconds: 292 years."""


def parse_whole(text: str) -> int:
    """Return the whole number that a text means: ASCII digits, with a sign or none. Raises ValueError."""
    compact = text.strip()
    if not _WHOLE.fullmatch(compact):
        raise ValueError(f"{text!r} is not a whole number")
    return int(compact)


def parse_number(text: str) -> float:
    """Return the finite number that a text such as ``5``, ``0.5`` or ``1e3`` means: ASCII digits. Raises ValueError."""
    compact = text.strip()
    if not _REAL.fullmatch(compact) or math.isinf(number := float(compact)):
        raise ValueError(f"{text!r} is not a number")
    return number


def parse_size(text: str) -> int:
    """Return the number of bytes that a text such as ``64``, ``4KiB`` or ``1.5MB`` means.

    Raises ValueError for anything else, and where the result is not a whole number of bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = match and _SIZE_UNITS.get(match[2].lower())
    if not match or unit is None:
        raise ValueError(f"{text!r} is not a size; write bytes or a unit, such as 64, 4KiB or 1MB")
    whole, _, fraction = match[1].partition(".")
    if len(match[1]) > 100:
        raise ValueError(f"{text[:20]!r}… is not a size; it has {len(match[1])} digits")
    # In whole numbers: 2.3 * 1000 is 2299.9999999999995.
    size, rest = divmod(int(whole + fraction) * unit, int(10 ** len(fraction)))
    if rest:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return size


def parse_duration(text: str, *, plain: bool = True) -> float:
    """Return the seconds that a text such as ``30s``, ``250ms``, ``1h30m``, ``100us`` or ``5`` (seconds) means.

    The grammar is that of Go's durations, without a minus. ``plain`` is whether a number without a unit is one.
    Raises ValueError for anything else.
    """
    compact = text.strip()
    if compact.removeprefix("+") == "0" or (plain and _PLAIN.fullmatch(compact)):
        return _bounded(float(compact), text)
    if not _DURATION.fullmatch(compact):
        seconds = " (a plain number is seconds)" if plain else ""
        raise ValueError(
            f"{text!r} is not a duration; write numbers with units (ns, us, ms, s, m, h), such as 250ms, 30s or "
            f"1h30m{seconds}"
        )
    parts = [(float(number), _DURATION_UNITS[unit]) for number, unit in _PART.findall(compact)]
    return _bounded(math.fsum(number * seconds / by for number, (seconds, by) in parts), text)


def _bounded(seconds: float, text: str) -> float:
    """Return the seconds. Raises ValueError for more than any clock counts, as Go does."""
    if seconds > LONGEST_S:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise ValueError(f"{shown!r} is not a duration; it is longer than the longest one, {LONGEST_S / 3600:.0f}h")
    return seconds


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
