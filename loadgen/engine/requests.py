"""The messages of a run's requests as templates, in which a key, a value's stamp and a revision are filled in.

They are made by `loadgen.client.encode`, which writes the same messages one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadgen.client import encode

GET, PUT, TXN = range(3)
"""Types of operation, as the core numbers them."""
TYPES = ("get", "put", "txn")
STAMP_BYTES = 16
"""What makes a value unique: see `loadgen.load.workload.Values`."""
_LONGEST_REVISION = 9


@dataclass(frozen=True, slots=True)
class Template:
    """One message.

    Attributes:
        message: its bytes.
        keys: where the digits of the key's number stand in it.
        stamp: where the value begins, -1 where there is none.
        skipped: how many of the stamp's first bytes a value is too small for.
        revision: where a varint of the revision stands, -1 where there is none.
    """

    message: bytes
    keys: tuple[int, ...]
    stamp: int
    skipped: int
    revision: int


def templates(
    types: tuple[str, ...], prefix: bytes, digits: int, filler: bytes, value_size: int, *, serializable: bool
) -> dict[int, list[Template]]:
    """Return the templates of some types of operation; of transactions one for each length of a revision's varint.

    Takes the prefix of all keys, the digits of their numbers, what follows a value's stamp, the bytes of a value, and
    whether reads are serializable.
    """
    # Bytes that stand nowhere else in a message, so that they are found again.
    key = prefix + b"\xff" * digits
    skipped = max(0, STAMP_BYTES - value_size)
    value = b"\xfe" * (STAMP_BYTES - skipped) + filler
    find = _finder(b"\xff" * digits, value[: STAMP_BYTES - skipped], skipped)
    found: dict[int, list[Template]] = {}
    if "get" in types:
        found[GET] = [find(encode.get(key, serializable), encode.get(key, serializable))]
    if "put" in types:
        found[PUT] = [find(encode.put(key, value), encode.put(key, value))]
    if "txn" in types:
        found[TXN] = [
            find(encode.cas(key, value, 1 << 7 * n), encode.cas(key, value, (1 << 7 * n) + 1))
            for n in range(_LONGEST_REVISION)
        ]
    return found


def _finder(key: bytes, stamp: bytes, skipped: int) -> Callable[[bytes, bytes], Template]:
    def find(message: bytes, other: bytes) -> Template:
        """Return the template of a message; of two that differ in their revisions' first bytes, of the first."""
        places = []
        at = message.find(key)
        while at >= 0:
            places.append(at)
            at = message.find(key, at + len(key))
        revision = next((n for n, (a, b) in enumerate(zip(message, other, strict=True)) if a != b), -1)
        return Template(message, tuple(places), message.find(stamp) if stamp else -1, skipped, revision)

    return find
