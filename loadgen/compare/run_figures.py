"""The figures of one run that a comparison is about, and how sure the run itself is of each.

A percentile is one of all samples of the run, from its ``.hlog`` files, which are finer than result.json. How sure it
is comes from a bootstrap: what a run of the same might have measured, had its stretches of time come in another mix.
The stretches are blocks of neighbouring intervals, not operations or intervals, since neighbours are alike: a slow disk
is slow for seconds. See E. Carlstein, "The Use of Subseries Values for Estimating the Variance of a General Statistic
from a Stationary Sequence", Annals of Statistics 14 (1986), pp. 1171-1179.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cluster.base.files import histogram_log
from cluster.observe import samples
from cluster.schema.run_documents import NO_TARGET, short_of_cpu
from loadgen.result import gate, known
from loadgen.result.document import ReportError, find_run, load
from loadgen.stats import hdr
from loadgen.stats.series import PERCENTILES, TOTAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cluster.schema.compare_documents import ComparedRun
    from cluster.schema.run_documents import Result

LATENCIES = ("p50_ms", "p99_ms", "p99_9_ms")
RATE = "throughput_ops_s"
# The confidence of a run's own intervals, and of how many mixtures they are made.
CONFIDENCE = 0.99
_MIXTURES = 999
# A block is a second long at least; longer in long runs, whose neighbours are alike for longer than that can show.
_LEAST_BLOCK_S, _LEAST_BLOCKS = 1.0, 5
# Of more failures the successes are no longer the same operations.
_MOST_FAILED = 0.01
_NS = 1e6


@dataclasses.dataclass(frozen=True, slots=True)
class Own:
    """How sure a run is of one of its figures by itself.

    Attributes:
        deviation: the standard deviation of the figure's logarithm.
        low, high: between which values it is, with the probability CONFIDENCE.
    """

    deviation: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, slots=True)
class RunFigures:
    """One run as a comparison sees it.

    Attributes:
        id: of the run.
        folder: of the run; None where only its result was given.
        result: its result document.
        values: its figures by their names, such as ``put.p99_ms``, all above 0.
        own: how sure it is of each; empty where there are no series.
    """

    id: str
    folder: Path | None
    result: Result
    values: Mapping[str, float]
    own: Mapping[str, Own]

    def doubts(self, *, allow_contended: bool = False) -> list[str]:
        """Return why its figures are not etcd's alone, or not all. Takes whether a machine that is short of CPU is no
        reason."""
        judged = gate.apply(self.result, [])
        found = [*judged["verdict_reasons"]]
        total = self.result["results"].get(TOTAL)
        if total and total["succeeded"] and total["failed"] > _MOST_FAILED * total["operations"]:
            found.append(f"{total['failed']:,} of {total['operations']:,} operations failed")
        if not allow_contended:
            found += shortages(self.result)
        return found

    def document(self, *, allow_contended: bool = False) -> ComparedRun:
        """Return it as a comparison's document has it. Takes what `doubts` takes."""
        target = self.result.get("target") or NO_TARGET
        return {
            "id": self.id,
            "folder": None if self.folder is None else str(self.folder),
            "started_at": self.result["run"].get("started_at"),
            "etcd_version": target["etcd_version"],
            "doubts": self.doubts(allow_contended=allow_contended),
        }


def shortages(result: Result) -> list[str]:
    """Return in which ways a run's machine was short of CPU."""
    return [f"{word}: its latencies are partly {what}" for word, what in short_of_cpu(result).items()]


def read(name: str) -> RunFigures:
    """Return the figures of a run folder, of ``latest``, or of a result.json, which has no series.

    Raises ReportError where there is none, or it is broken.
    """
    folder = None if Path(name).is_file() else find_run(name)
    result = load(name if folder is None else str(folder))
    rows = {f: row for f, row in result["results"].items() if row is not None and row["succeeded"]}
    values: dict[str, float] = {}
    for f, row in rows.items():
        for field in LATENCIES:
            if value := known.known_in(row, field):
                values[f"{f}.{field}"] = value
        # In an open loop it is what was asked for.
        if (rate := row["throughput_ops_s"]) and result["run"].get("loop") != "open":
            values[f"{f}.{RATE}"] = rate
    own: dict[str, Own] = {}
    if folder is not None:
        try:
            _from_series(folder, rows, values, own)
        except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as exc:
            raise ReportError(f"{folder}: {exc}") from exc
    run_id = str(result["run"].get("id") or (folder or Path(name)).name)
    return RunFigures(run_id, folder, result, values, own)


def _from_series(folder: Path, types: Mapping[str, object], values: dict[str, float], own: dict[str, Own]) -> None:
    """Put the figures of the series in place of those of the result, and how sure they are.

    Raises OSError, ValueError, KeyError, TypeError and ArithmeticError where a file is broken.
    """
    path = folder / "series.csv"
    if not path.is_file():
        return
    rows = _rows(path)
    for f in types:
        log = folder / histogram_log(f)
        if f not in rows or not log.is_file():
            continue
        intervals = hdr.read_log(log.read_text(encoding="ascii"))
        counts: dict[int, int] = {}
        for _, _, each in intervals:
            hdr.merge(counts, each)
        fields = [field for field in LATENCIES if samples.are_enough(sum(counts.values()), PERCENTILES[field])]
        found = hdr.percentiles(counts, [PERCENTILES[field] for field in fields])
        values.update({f"{f}.{field}": ns / _NS for field, ns in zip(fields, found, strict=True) if ns})
        sure = _bootstrapped(rows[f], intervals, fields)
        own.update({f"{f}.{field}": each for field, each in sure.items() if f"{f}.{field}" in values})


def _rows(path: Path) -> dict[str, list[tuple[float, float, int]]]:
    """Return the intervals in series.csv by operation type: start and length in seconds, and operations."""
    found: dict[str, list[tuple[float, float, int]]] = {}
    with path.open(newline="", encoding="ascii") as file:
        for row in csv.DictReader(file):
            # Runs of versions that counted by the second alone do not say how long an interval is.
            at, length_s = float(row["time"]), float(row.get("length_s") or 1)
            found.setdefault(row["f"], []).append((at, length_s, int(row["succeeded"]) + int(row["failed"])))
    return {f: sorted(rows) for f, rows in found.items()}


def block_s(length_s: float, interval_s: float) -> float:
    """Return how long a block is, of a run so long and in intervals so long: seconds.

    That grows with the cube root of the number of intervals, as is best for a variance (Kuensch 1989).

    >>> block_s(10.0, 0.1), block_s(3600.0, 1.0)
    (1.0, 16.0)
    """
    return max(_LEAST_BLOCK_S, math.ceil(math.cbrt(length_s / interval_s)) * interval_s)


def _bootstrapped(
    rows: Sequence[tuple[float, float, int]],
    intervals: Sequence[tuple[float, float, Mapping[int, int]]],
    fields: Sequence[str],
) -> dict[str, Own]:
    """Return how sure the percentiles of these fields are, and the throughput; nothing of a run of too few blocks.

    Takes the rows of a type in series.csv and the intervals in its log.
    """
    began = rows[0][0]
    length_s = rows[-1][0] + rows[-1][1] - began
    size_s = block_s(length_s, max(each for _, each, _ in rows))
    blocks = int(length_s / size_s)
    if blocks < _LEAST_BLOCKS:
        return {}

    def block(at: float) -> int:
        # The log's times are to the millisecond. What is left at the end goes to the last block.
        return min(blocks - 1, max(0, int((at - began + 0.001) / size_s)))

    times = np.zeros((blocks, 2))
    for at, each_s, operations in rows:
        times[block(at)] += (each_s, operations)
    keys = sorted({key for _, _, counts in intervals for key in counts})
    place = {key: index for index, key in enumerate(keys)}
    table = np.zeros((blocks, len(keys)))
    for at, _, counts in intervals:
        for key, count in counts.items():
            table[block(at), place[key]] += count
    latencies = np.array([hdr.middle(key) / _NS for key in keys])
    found = resampled(table, latencies, [PERCENTILES[field] for field in fields], times)
    # Of operations so rare that a mixture has none of them, a run does not know how sure it is.
    if not all(map(math.isfinite, (end for each in found for end in dataclasses.astuple(each)))):
        return {}
    return dict(zip((*fields, RATE), found, strict=True))


def resampled(
    table: NDArray[np.float64], latencies: NDArray[np.float64], fractions: Sequence[float], times: NDArray[np.float64]
) -> list[Own]:
    """Return how sure the percentiles of a run are, and at last its throughput, by a bootstrap of its blocks.

    Takes how many operations of each latency there were in each block, the latencies in rising order, the percentiles
    as fractions, and seconds and operations of each block. Numbers are not finite where a mixture has no operation.
    """
    from scipy import stats

    blocks = len(table)

    def figures(drawn: NDArray[np.intp], axis: int = -1) -> NDArray[np.float64]:
        drawn = np.moveaxis(np.atleast_2d(drawn), axis, -1).reshape(-1, blocks)
        weights = np.zeros((len(drawn), blocks))
        np.add.at(weights, (np.arange(len(drawn))[:, None], drawn), 1)
        ranks = np.cumsum(weights @ table, axis=1)
        found = []
        for fraction in fractions:
            wanted = np.maximum(1, np.ceil(fraction * ranks[:, -1:] - 1e-6))
            found.append(latencies[np.minimum((ranks < wanted).sum(axis=1), len(latencies) - 1)])
        seconds, operations = (weights @ times).T
        found.append(operations / seconds)
        return np.asarray(np.log(np.array(found)))

    with warnings.catch_warnings():
        # Those of numbers that are not finite.
        warnings.simplefilter("ignore")
        result = stats.bootstrap(
            (np.arange(blocks),), figures, n_resamples=_MIXTURES, batch=250, vectorized=True, method="percentile",
            confidence_level=CONFIDENCE, rng=np.random.default_rng(blocks),
        )  # fmt: skip
    low, high = np.exp(result.confidence_interval.low), np.exp(result.confidence_interval.high)
    return [Own(float(each), float(a), float(b)) for each, a, b in zip(result.standard_error, low, high, strict=True)]
