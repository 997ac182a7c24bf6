"""The sums of a chaos run's rounds, held against the counts of the whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.schema.run_documents import Counts, Result, Window


def failures(result: Result) -> str:
    """Return in words which part of a chaos run its failed operations belong to; empty where nobody noted it."""
    chaos, total = result.get("chaos"), result["results"].get("total")
    earlier = chaos and chaos.get("earlier")
    if not chaos or not chaos["faults"] or not earlier or not total:
        return ""
    before = _failed(earlier)
    during, after = (sum(_failed(row[window]) for row in chaos["faults"]) for window in ("during", "after"))
    recorded, counted = before + during + after, total["failed"]
    parts = f"{before:,} before the first fault, {during:,} during faults, {after:,} after them"
    if recorded == counted:
        return f"{counted:,} operations failed: {parts}" if counted else "no operation failed"
    return (
        f"{counted:,} operations failed by the workers' counts, {recorded:,} by the history ({parts}): one of the two "
        "lacks what a worker had not handed over when it ended"
    )


def _failed(counts: Counts | Window) -> int:
    return counts["failed"] + counts["unknown"]
