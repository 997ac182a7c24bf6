"""Tables of more rows than a page holds: which rows are shown, and the sums of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.schema.run_documents import Row


@dataclasses.dataclass(frozen=True, slots=True)
class Rest:
    """The rows that are not shown.

    Attributes:
        names: how many they are.
        operations, failed: their sums.
        throughput_ops_s: the sum of those that are known; None where none is.
    """

    names: int
    operations: int
    failed: int
    throughput_ops_s: float | None


def largest(results: Mapping[str, Row | None], most: int) -> tuple[dict[str, Row], Rest | None]:
    """Return the rows with the most operations, in their order, without the total, and the rest; None where all fit.

    Takes ``results`` of a result document, and how many rows to return at most.
    """
    rows = {name: row for name, row in results.items() if row is not None and name != "total"}
    if len(rows) <= most:
        return rows, None
    by_size = sorted(rows, key=lambda name: rows[name]["operations"], reverse=True)
    shown, left = set(by_size[:most]), [rows[name] for name in by_size[most:]]
    rates = [row["throughput_ops_s"] for row in left if row["throughput_ops_s"] is not None]
    rest = Rest(
        len(left),
        sum(row["operations"] for row in left),
        sum(row["failed"] for row in left),
        sum(rates) if rates else None,
    )
    return {name: row for name, row in rows.items() if name in shown}, rest
