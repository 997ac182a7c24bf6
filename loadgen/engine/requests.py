"""The messages of a run's requests as templates, in which a key, a value's stamp and a revision are filled in.

They are made by `loadgen.client.encode`, which writes the same messages one by one.
"""

from __future__ import annotations

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
    # The digits are bytes that stand nowhere else in a message, so that they are found again. A value may be a single
    # byte, which could be that of a length: it is found by what differs where another value is written.
    places = b"\xff" * digits
    key = prefix + places
    skipped = max(0, STAMP_BYTES - value_size)
    value, other = (byte * (STAMP_BYTES - skipped) + filler for byte in (b"\xfe", b"\xfd"))
    found: dict[int, list[Template]] = {}
    if "get" in types:
        message = encode.get(key, serializable)
        found[GET] = [Template(message, _all(message, places), -1, skipped, -1)]
    if "put" in types:
        message = encode.put(key, value)
        stamp = _first(message, encode.put(key, other))
        found[PUT] = [Template(message, _all(message, places), stamp, skipped, -1)]
    if "txn" in types:
        found[TXN] = []
        for n in range(_LONGEST_REVISION):
            message = encode.cas(key, value, 1 << 7 * n)
            stamp = _first(message, encode.cas(key, other, 1 << 7 * n))
            revision = _first(message, encode.cas(key, value, (1 << 7 * n) + 1))
            found[TXN].append(Template(message, _all(message, places), stamp, skipped, revision))
    return found


def _all(message: bytes, part: bytes) -> tuple[int, ...]:
    """Return where a part stands in a message."""
    found = []
    at = message.find(part)
    while at >= 0:
        found.append(at)
        at = message.find(part, at + len(part))
    return tuple(found)


def _first(message: bytes, other: bytes) -> int:
    """Return where two messages of one length first differ, -1 where they do not."""
    if message == other:
        return -1
    low, high = 0, len(message)
    while low < high:
        middle = (low + high) // 2
        if message[: middle + 1] == other[: middle + 1]:
            low = middle + 1
        else:
            high = middle
    return low
