"""Latency histograms with three significant digits, and the log format of HdrHistogram. Pure: no I/O.

A histogram is a dict from a bucket's lower bound to its count, in nanoseconds. The buckets are HdrHistogram's for
a lowest discernible value of 1 and 3 significant digits: below 2,048 one for each value, above 1,024 an octave, so
a bucket is at most 0.1 % wide, and nothing is lost on the way into a log.

Source: HdrHistogram's AbstractHistogram (`V2EncodingCookieBase`, `fillBufferFromCountsArray`) and HistogramLogWriter.
"""

from __future__ import annotations

import base64
import math
import struct
import time
import zlib
from collections.abc import Iterable, Mapping
from itertools import accumulate

SIGNIFICANT_BITS = 11
_HALF_BITS = SIGNIFICANT_BITS - 1
_DIGITS = 3
_HIGHEST_NS = 86_400 * 10**9
_V2 = 0x1C849313
_V2_COMPRESSED = 0x1C849314
_HEAD = struct.Struct(">iiiiqqd")
_ENVELOPE = struct.Struct(">ii")


def bucket(value_ns: int) -> int:
    """Return the lower bound of the bucket that a value falls into; nanoseconds in and out."""
    shift = value_ns.bit_length() - SIGNIFICANT_BITS
    return value_ns >> shift << shift if shift > 0 else value_ns


def middle(bucket_ns: int) -> int:
    """Return the value that stands for a bucket, half its width above its lower bound."""
    shift = bucket_ns.bit_length() - SIGNIFICANT_BITS
    return bucket_ns + (1 << shift >> 1) if shift > 0 else bucket_ns


def merge(into: dict[int, int], counts: Mapping[int, int]) -> None:
    """Add a histogram's counts to another's."""
    for key, count in counts.items():
        into[key] = into.get(key, 0) + count


def percentiles(counts: Mapping[int, int], fractions: Iterable[float]) -> list[int]:
    """Return the smallest values at or below which each fraction of all samples lies (the nearest rank).

    Takes fractions in rising order, between 0 and 1. Nanoseconds; 0 throughout where there is no sample.
    """
    keys = sorted(counts)
    ranks = list(accumulate(counts[key] for key in keys))
    found, at = [], 0
    for fraction in fractions:
        rank = nearest_rank(fraction, ranks[-1]) if ranks else 0
        while at < len(ranks) and ranks[at] < rank:
            at += 1
        found.append(middle(keys[at]) if ranks else 0)
    return found


def deviation(counts: Mapping[int, int]) -> float:
    """Return the standard deviation of all samples, of the population, in nanoseconds; 0 of none.

    A sample is at most 1/2048 of itself from the middle of its bucket. So by Minkowski's inequality the deviation is at
    most 0.05 % of the samples' root mean square off.

    >>> deviation({1000: 1, 1002: 1}), deviation({7: 3})
    (1.0, 0.0)
    """
    total = sum(counts.values())
    if not total:
        return 0.0
    mean = sum(middle(key) * count for key, count in counts.items()) / total
    return math.sqrt(sum((middle(key) - mean) ** 2 * count for key, count in counts.items()) / total)


def nearest_rank(fraction: float, count: int) -> int:
    """Return which of ``count`` samples in rising order, counted from 1, is the percentile.

    >>> nearest_rank(0.99, 100), nearest_rank(0.5, 3), nearest_rank(0.999, 10), nearest_rank(0.0, 10)
    (99, 2, 10, 1)
    """
    return max(1, math.ceil(fraction * count - 1e-9 * count))


def encode(counts: Mapping[int, int]) -> str:
    """Return a histogram as HdrHistogram writes it: version 2, compressed, in base64.

    >>> decode(encode({5: 1, 4096: 2}))
    {5: 1, 4096: 2}
    """
    payload = bytearray()
    expected = 0
    for key in sorted(counts):
        index = _index(key)
        # Zeros in a row are one negative number.
        if index > expected:
            _put(payload, expected - index)
        _put(payload, counts[key])
        expected = index + 1
    head = _HEAD.pack(_V2, len(payload), 0, _DIGITS, 1, _HIGHEST_NS, 1.0)
    packed = zlib.compress(head + payload)
    return base64.b64encode(_ENVELOPE.pack(_V2_COMPRESSED, len(packed)) + packed).decode("ascii")


def decode(text: str) -> dict[int, int]:
    """Return the histogram in a text of `encode`, or of another writer with the same three digits.

    Raises ValueError where it is none.
    """
    try:
        raw = base64.b64decode(text, validate=True)
        cookie, size = _ENVELOPE.unpack_from(raw)
        body = zlib.decompress(raw[_ENVELOPE.size : _ENVELOPE.size + size])
        inner, length, _, digits, lowest, _, _ = _HEAD.unpack_from(body)
    except (ValueError, struct.error, zlib.error) as exc:
        raise ValueError(f"not a compressed HdrHistogram: {exc}") from exc
    if (cookie, inner, digits, lowest) != (_V2_COMPRESSED, _V2, _DIGITS, 1):
        raise ValueError("not an HdrHistogram of version 2 with 3 significant digits")
    payload = body[_HEAD.size : _HEAD.size + length]
    counts: dict[int, int] = {}
    index = at = 0
    while at < len(payload):
        value, at = _get(payload, at)
        if value < 0:
            index -= value
        else:
            if value:
                counts[_lower_bound(index)] = value
            index += 1
    return counts


def log_head(start_s: float) -> str:
    """Return the first lines of a log that begins at a Unix time in seconds."""
    when = time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(start_s))
    return (
        "#[Histogram log format version 1.3]\n"
        f"#[StartTime: {start_s:.3f} (seconds since epoch), {when}]\n"
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
    )


def log_line(offset_s: float, length_s: float, max_ns: int, encoded: str) -> str:
    """Return a log's line for one interval: seconds since the log's start, seconds long, its exact maximum."""
    return f"{offset_s:.3f},{length_s:.3f},{max_ns / 1e6:.6f},{encoded}\n"


def read_log(text: str) -> list[tuple[float, float, dict[int, int]]]:
    """Return a log's intervals as (Unix time of the start in seconds, seconds long, histogram).

    Raises ValueError where a line is none of such a log.
    """
    start = 0.0
    intervals = []
    for line in text.splitlines():
        if line.startswith("#[StartTime:"):
            start = float(line.split()[1])
        elif line and line[0] not in '#"':
            parts = line.split(",")
            if len(parts) != 4:
                raise ValueError(f"not a line of a histogram log: {line[:40]!r}")
            intervals.append((start + float(parts[0]), float(parts[1]), decode(parts[3])))
    return intervals


def _index(key: int) -> int:
    """Return a bucket's place in HdrHistogram's array of counts."""
    shift = max(0, key.bit_length() - SIGNIFICANT_BITS)
    return (shift << _HALF_BITS) + (key >> shift)


def _lower_bound(index: int) -> int:
    shift = max(0, (index >> _HALF_BITS) - 1)
    return (index - (shift << _HALF_BITS)) << shift


def _put(out: bytearray, value: int) -> None:
    """Append a number in ZigZag and LEB128, of at most 9 bytes."""
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)


def _get(data: bytes, at: int) -> tuple[int, int]:
    rest = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("an HdrHistogram that ends in the middle of a number")
        byte = data[at]
        at += 1
        rest |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return (rest >> 1) ^ -(rest & 1), at
