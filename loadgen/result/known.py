"""The percentiles of a result that are known, and how much longer a run of the others' samples takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cluster.base.units import format_duration
from cluster.observe import samples
from loadgen.result.gate import number_in
from loadgen.stats.series import PERCENTILES

if TYPE_CHECKING:
    from cluster.schema.run_documents import Result, Row

_FRACTIONS = {"median_ms": PERCENTILES["p50_ms"], **PERCENTILES}
# A random mix gives a type now more, now less than its share.
_MARGIN = 1.05
# For the percentiles of a type that is rare nobody is told to wait longer than this, or to do so many times as much.
_LONGEST_S, _MOST_TIMES = 3600.0, 100


def too_few_samples(count: int) -> list[str]:
    """Return the percentiles, as the fields of ``latency``, that so many samples leave unknown."""
    return [field for field, fraction in _FRACTIONS.items() if not samples.are_enough(count, fraction)]


def unknown_of(row: Row) -> list[str]:
    """Return the percentiles of a row that are of too few samples, also where its document does not mark them."""
    latency = row["latency"]
    return [] if latency is None else latency.get("too_few_samples", too_few_samples(row["succeeded"]))


def known_in(row: Row, field: str) -> float | None:
    """Return a latency of a row in milliseconds; None where it was not measured, or of too few samples."""
    return None if field in unknown_of(row) else number_in(row["latency"], field)


def metric(expression: str) -> tuple[str, str]:
    """Return the type and the field of a threshold's text.

    >>> metric("put.service.p99_9_ms < 50")
    ('put', 'service.p99_9_ms')
    """
    type_, _, field = expression.rpartition(" ")[0].rstrip(" <>=").partition(".")
    return type_, field


def few_at(results: Mapping[str, Row | None], type_: str, field: str) -> str:
    """Return how few samples a percentile of a type is of, in words; empty where they are enough, or it is none.

    Takes the field as thresholds name it.
    """
    row, name = results.get(type_), field.removeprefix("service.")
    if row is None or name not in unknown_of(row):
        return ""
    return f"of {row['succeeded']:,} samples; it takes {samples.needed(_FRACTIONS[name]):,}"


def advice(result: Result, fields: Iterable[str]) -> list[str]:
    """Return sentences about the percentiles that are not shown: what they need, and what gives it them.

    Takes the fields that are looked at. Empty where all of them are known.
    """
    rows = {name: row for name, row in result["results"].items() if row is not None}
    looked_at = [field for field in fields if field in _FRACTIONS]
    needs = {name: _needed(row, looked_at) for name, row in rows.items()}
    missing = sorted({field for row in rows.values() for field in unknown_of(row) if field in looked_at},
                     key=lambda field: _FRACTIONS[field])  # fmt: skip
    if not missing:
        return []
    each = ", ".join(f"{words(field)} takes {samples.needed(_FRACTIONS[field]):,}" for field in missing)
    said = [f"- marks a percentile of too few successes: {each}"]
    if result.get("perf"):
        return said  # its length is not the user's to choose
    length_s = result["run"].get("duration_s")
    factors = {name: needs[name] / row["succeeded"] * _MARGIN for name, row in rows.items() if needs[name]}
    factor, what = max(factors.values()), "all that are shown"
    if "total" in factors and factor > (_LONGEST_S / length_s if length_s else _MOST_TIMES):
        factor, what = factors["total"], "those of the total"
    return [*said, f"for {what}, {_longer(result, factor)}"]


def words(field: str) -> str:
    """Return a percentile as people write it.

    >>> words("p99_9_ms"), words("p50_ms")
    ('p99.9', 'p50')
    """
    return field.removesuffix("_ms").replace("_", ".")


def _needed(row: Row, fields: Iterable[str]) -> int:
    """Return how many successes the highest percentile takes that is unknown; 0 where all are known."""
    unknown = unknown_of(row)
    return max((samples.needed(_FRACTIONS[field]) for field in fields if field in unknown), default=0)


def _longer(result: Result, factor: float) -> str:
    """Return what to add to the command for a run that is so many times as long."""
    run, total = result["run"], result["results"]["total"]
    length_s, asked_s, operations = run.get("duration_s"), run.get("requested_duration_s"), run.get("operations")
    took = f" (about {format_duration(_rounded_up(length_s * factor)).replace('.0 s', ' s')})" if length_s else ""
    if operations and total is not None:
        more = _rounded_up(total["operations"] * factor)
        return f"add --operations {more}{took}" if more > operations else "let it run to its end"
    if asked_s and not run.get("stages") and not run.get("step") and length_s:
        longer_s = _rounded_up(length_s * factor)
        return f"add --duration {longer_s}s" if longer_s > asked_s else "let it run to its end"
    return f"run it {math.ceil(factor):,} times as long{took}"


def _rounded_up(value: float) -> int:
    """Return the next whole number of at most two digits other than 0.

    >>> _rounded_up(9444.2), _rounded_up(0.2), _rounded_up(12.0)
    (9500, 1, 12)
    """
    whole = math.ceil(value)
    unit = int(10 ** max(0, len(str(whole)) - 2))
    return math.ceil(whole / unit) * unit
