"""A run second by second, merged over its workers: ``series.csv`` and the ``.hlog`` files of a run folder.

Workers send what came back since their last report as histograms by operation type and second, so every percentile
here is one of all samples of that second, and none is an average of percentiles.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from loadgen.stats import hdr

COLUMNS = ("time", "f", "succeeded", "failed", "info", "p50_ms", "p99_ms", "max_ms")
TOTAL = "total"
# What came back within one second: its start as Unix time, failures, those of unknown effect among them, and of the
# successes' latencies minimum, maximum and sum in nanoseconds, and the histogram. `Intervals` are by operation type.
Row = tuple[int, int, int, int, int, int, dict[int, int]]
Intervals = dict[str, list[Row]]
PERCENTILES = {
    "p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99, "p99_9_ms": 0.999, "p99_99_ms": 0.9999,
}  # fmt: skip
# Workers report twice a second. What comes later than this is merged all the same, at some more cost.
_OPEN_S = 10
_LONGEST_GAP_S = 3600
_NOTHING = "0,0,0,,,"


class _Part:
    """One operation type within one second, over all workers."""

    __slots__ = ("counts", "failed", "info", "max_ns")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.failed = self.info = self.max_ns = 0

    def add(self, failed: int, info: int, max_ns: int, counts: Mapping[int, int]) -> None:
        self.failed += failed
        self.info += info
        self.max_ns = max(self.max_ns, max_ns)
        hdr.merge(self.counts, counts)


class Summary:
    """All latencies of one operation type.

    Attributes:
        counts: their histogram; ``min_ns``, ``max_ns`` and ``total_ns`` are exact.
    """

    __slots__ = ("counts", "max_ns", "min_ns", "total_ns")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.min_ns = sys.maxsize
        self.max_ns = self.total_ns = 0

    def add(self, min_ns: int, max_ns: int, total_ns: int, counts: Mapping[int, int]) -> None:
        """Add the latencies of one interval."""
        self.min_ns = min(self.min_ns, min_ns)
        self.max_ns = max(self.max_ns, max_ns)
        self.total_ns += total_ns
        hdr.merge(self.counts, counts)

    @property
    def count(self) -> int:
        """How many they are."""
        return sum(self.counts.values())

    def latencies(self) -> dict[str, float]:
        """Return them as ``latency`` in result.json has them: milliseconds, percentiles within minimum and maximum."""
        found = hdr.percentiles(self.counts, PERCENTILES.values())
        percentiles = dict(zip(PERCENTILES, (min(max(ns, self.min_ns), self.max_ns) for ns in found), strict=True))
        every = {
            "min_ms": self.min_ns,
            "mean_ms": self.total_ns / self.count,
            "median_ms": percentiles["p50_ms"],
            **percentiles,
            "max_ms": self.max_ns,
        }
        return {field: round(ns / 1e6, 3) for field, ns in every.items()}


class Series:
    """The seconds of one run.

    Attributes:
        summaries: all latencies since the run's start, by operation type and for ``total``.
    """

    def __init__(self) -> None:
        self.summaries: dict[str, Summary] = {}
        self._open: dict[int, dict[str, _Part]] = {}
        # Seconds that are over, as text: a run of hours would not fit into memory otherwise.
        self._closed: dict[int, dict[str, _Closed]] = {}
        self._newest = 0

    def add(self, intervals: Intervals, shift_s: int = 0) -> None:
        """Add one worker's intervals since its last report, by type.

        Takes the seconds to add to its clock, where that is not ours.
        """
        for f, rows in intervals.items():
            for there, failed, info, min_ns, max_ns, total_ns, counts in rows:
                second = there + shift_s
                self._part(second, f).add(failed, info, max_ns, counts)
                if counts:
                    for name in (f, TOTAL):
                        self.summaries.setdefault(name, Summary()).add(min_ns, max_ns, total_ns, counts)
                self._newest = max(self._newest, second)
        for second in [each for each in self._open if each < self._newest - _OPEN_S]:
            self._close(second)

    def write(self, folder: Path) -> None:
        """Write ``series.csv`` and one ``.hlog`` for each type and for the total. Raises OSError."""
        self.write_logs(folder)
        with (folder / "series.csv").open("w", encoding="ascii") as file:
            file.write(",".join(COLUMNS) + "\n")
            file.writelines(self._rows())

    def write_logs(self, folder: Path, suffix: str = "") -> None:
        """Write one ``<type><suffix>.hlog`` for each type and for the total. Raises OSError."""
        seconds = self._close_all()
        for f in self._names() if seconds else []:
            lines = [hdr.log_head(seconds[0])]
            for second in seconds:
                closed = self._closed[second].get(f)
                if closed is not None and closed.encoded:
                    lines.append(hdr.log_line(second - seconds[0], 1.0, closed.part.max_ns, closed.encoded))
            (folder / f"{_file_name(f)}{suffix}.hlog").write_text("".join(lines), encoding="ascii")

    def _names(self) -> list[str]:
        return [*sorted({f for parts in self._closed.values() for f in parts if f != TOTAL}), TOTAL]

    def _rows(self) -> Iterator[str]:
        """Yield the rows of series.csv; a second in which nothing came back, as in an outage, has rows too."""
        names, last = self._names(), None
        for second in sorted(self._closed):
            # Workers whose clocks are hours apart are not an outage.
            first = last + 1 if last is not None and second - last < _LONGEST_GAP_S else second
            for empty in range(first, second):
                yield from (f"{empty},{f},{_NOTHING}\n" for f in names)
            for f in names:
                closed = self._closed[second].get(f)
                yield f"{second},{f},{closed.row if closed else _NOTHING}\n"
            last = second

    def _part(self, second: int, f: str) -> _Part:
        if second in self._closed:
            # A worker that was held up reports it now.
            self._open[second] = {}
            for name, closed in self._closed.pop(second).items():
                if name != TOTAL:
                    closed.part.counts = hdr.decode(closed.encoded) if closed.encoded else {}
                    self._open[second][name] = closed.part
        return self._open.setdefault(second, {}).setdefault(f, _Part())

    def _close(self, second: int) -> None:
        parts = self._open.pop(second)
        total = _Part()
        for part in parts.values():
            total.add(part.failed, part.info, part.max_ns, part.counts)
        self._closed[second] = {f: _Closed(part) for f, part in {**parts, TOTAL: total}.items()}

    def _close_all(self) -> list[int]:
        for second in list(self._open):
            self._close(second)
        return sorted(self._closed)


class _Closed:
    """A part whose second is over: its row of series.csv and its histogram, both as text."""

    __slots__ = ("encoded", "part", "row")

    def __init__(self, part: _Part) -> None:
        counts, part.counts = part.counts, {}
        self.part = part
        self.encoded = hdr.encode(counts) if counts else ""
        p50, p99 = (min(ns, part.max_ns) for ns in hdr.percentiles(counts, (0.5, 0.99)))
        times = ",".join(f"{ns / 1e6:.6f}" for ns in (p50, p99, part.max_ns)) if counts else ",,"
        self.row = f"{sum(counts.values())},{part.failed},{part.info},{times}"


def _file_name(f: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f)
