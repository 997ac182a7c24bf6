"""A reader of HdrHistogram logs: the text in, counts by latency out.

The format is HdrHistogram's version 2, compressed with zlib and in base64 (`encodeIntoCompressedByteBuffer` and
`fillCountsArrayFromSourceBuffer` in its AbstractHistogram). Only what a run folder holds is understood.
"""

from __future__ import annotations

import base64
import itertools
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

_ENVELOPE, _HEAD = struct.Struct(">ii"), struct.Struct(">iiiiqqd")
_V2, _V2_COMPRESSED = 0x1C849303, 0x1C849304


def read(path: Path) -> list[tuple[float, dict[int, int]]]:
    """Return the intervals of a log: when each began, in seconds since 1970, and its counts by latency in nanoseconds,
    of a bucket its middle.

    Raises OSError where it cannot be read and ValueError where it is no such log.
    """
    started, intervals = 0.0, []
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith("#[StartTime:"):
            started = float(line.split()[1])
        elif line and not line.startswith(("#", '"')):
            intervals.append((started + float(line.partition(",")[0]), decode(line.rpartition(",")[2])))
    return intervals


def together(intervals: Iterable[tuple[float, Mapping[int, int]]]) -> Counter[int]:
    """Several intervals as one."""
    counts: Counter[int] = Counter()
    for _, each in intervals:
        counts.update(each)
    return counts


def decode(text: str) -> dict[int, int]:
    """One histogram of a log, as above. Raises ValueError."""
    try:
        raw = base64.b64decode(text, validate=True)
        cookie, length = _ENVELOPE.unpack_from(raw)
        data = zlib.decompress(raw[_ENVELOPE.size : _ENVELOPE.size + length])
        inner, size, _, digits, lowest, _, _ = _HEAD.unpack_from(data)
    except (struct.error, zlib.error) as exc:
        raise ValueError(f"not an HdrHistogram: {exc}") from exc
    # The lowest byte of a cookie holds the size of a word, which version 2 does not use.
    if (cookie & ~0xF0, inner & ~0xF0) != (_V2_COMPRESSED, _V2) or not 0 <= digits <= 5 or lowest < 1:
        raise ValueError("not an HdrHistogram of version 2")
    unit = lowest.bit_length() - 1
    half_bits = (2 * 10**digits - 1).bit_length() - 1
    counts, index = {}, 0
    for number in _zigzag(data[_HEAD.size : _HEAD.size + size]):
        if number < 0:
            index -= number  # so many buckets in a row are empty
            continue
        if number:
            octave = max(0, (index >> half_bits) - 1)
            low = (index - (octave << half_bits)) << (octave + unit)
            counts[low + ((1 << (octave + unit)) >> 1)] = number
        index += 1
    return counts


def _zigzag(data: bytes) -> Iterable[int]:
    """LEB128 of at most 9 bytes, the ninth of which has all its 8 bits; then ZigZag."""
    value = shift = 0
    for byte in data:
        value |= (byte if shift == 56 else byte & 0x7F) << shift
        if byte & 0x80 and shift < 56:
            shift += 7
            continue
        yield (value >> 1) ^ -(value & 1)
        value = shift = 0
    if shift:
        raise ValueError("an HdrHistogram that ends in the middle of a number")


def spectrum(counts: Mapping[int, int], most: int = 200) -> list[tuple[float, float]]:
    """Return the latency by percentile:

    pairs of 1 / (1 - p) and milliseconds, from p = 0 to the last p that has a sample beyond it, evenly on a logarithmic
    scale; at its end the maximum.
    """
    keys = sorted(counts)
    if not keys:
        return []
    ranks = list(itertools.accumulate(counts[key] for key in keys))
    total = ranks[-1]
    steps = max(1, most - 1)
    points, at = [], 0
    for step in range(most):
        x = float(total) ** (step / steps)
        rank = max(1.0, (1 - 1 / x) * total)
        while ranks[at] < rank:
            at += 1
        points.append((x, keys[at] / 1e6))
    return [*points, (float(total), keys[-1] / 1e6)]


def percentile_ms(counts: Mapping[int, int], p: float) -> float | None:
    """Return the percentile ``p``, 0 to 1, in milliseconds, by the nearest rank; None of no sample."""
    rank, seen = p * sum(counts.values()), 0
    for key in sorted(counts):
        seen += counts[key]
        if seen >= rank:
            return key / 1e6
    return None
