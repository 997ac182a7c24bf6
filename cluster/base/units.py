"""Sizes, durations and mixes as people write them, and numbers as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

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

OPERATION_TYPES = ("put", "get", "txn")
"""What `--mix` chooses from."""
SCENARIO_TYPES = (
    "range", "list", "create", "update", "delete", "watch", "lease_grant", "lease_keepalive", "lease_revoke",
    "refusal",
)  # fmt: skip
"""What only scenarios of their own do; see locustfiles/."""
REFUSAL = "refusal"
"""An answer that etcd owed: that a revision is compacted, or a lease gone, where the traffic asked for just that."""
DELIVERY = "watch"
"""The one type that nobody asks for: it comes with the writes of others, and beyond `--operations`."""


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


def parse_mix(text: str, types: Collection[str] | None = OPERATION_TYPES) -> dict[str, float]:
    """Return the weight of each operation type in a text such as ``put=1,get=8,txn=1``.

    A type that is not named has weight 0 and is left out; ``put`` alone means ``put=1``. ``types`` are those that
    there are, None for any.
    Raises ValueError for an unknown type, a type named twice, a weight that is not a number of at least 0,
    and where no weight is above 0.
    """
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight_text = part.partition("=")
        name = name.strip().lower()
        if types is not None and name not in types:
            raise ValueError(f"{name!r} in mix {text!r} is not an operation type; there are put, get and txn")
        if name in mix:
            raise ValueError(f"{name!r} stands twice in mix {text!r}")
        try:
            weight = float(weight_text) if "=" in part else 1.0
        except ValueError:
            weight = -1.0
        if not 0 <= weight < math.inf:
            raise ValueError(f"{weight_text!r} in mix {text!r} is not a weight; write a number of at least 0")
        mix[name] = weight
    if not any(mix.values()):
        raise ValueError(f"mix {text!r} runs nothing: one weight at least must be above 0")
    return {name: mix[name] for name in dict.fromkeys([*OPERATION_TYPES, *mix]) if mix.get(name)}


def format_mix(mix: Mapping[str, float]) -> str:
    """Return a mix as `parse_mix` reads it."""
    return ",".join(f"{name}={weight:g}" for name, weight in mix.items())


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
