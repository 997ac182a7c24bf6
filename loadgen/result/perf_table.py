"""The pass marks of `raftload perf` as lines for people, with the evidence under them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.base.console import Painter, printable
from cluster.base.units import megabytes
from cluster.base.verdict import Verdict

if TYPE_CHECKING:
    from cluster.schema.run_documents import PassMark, Perf, PerfMember

_WORDS = {
    "errors": "no error", "throughput": "rate", "slowest": "slowest put", "stddev": "standard deviation",
    "pairs": "pairs written", "memory": "memory used",
}  # fmt: skip


def marks(perf: Perf | None, paint: Painter) -> list[str]:
    """Return a line for each mark: its verdict, what was measured, the bound, and by how much it was missed."""
    lines = []
    for mark in marks_of(perf):
        word = paint(f"{mark['verdict'].upper():7}", Verdict(mark["verdict"]).style)
        reason = f"  {mark['reason']}" if mark["reason"] else ""
        lines.append(f"{word}  {_WORDS[mark['name']]:18}  {shown(mark)}{_bound(mark)}{printable(reason)}")
    return lines


def _bound(mark: PassMark) -> str:
    bound = mark["bound"]
    if bound is None or mark["name"] == "errors":
        return ""
    sign = {"throughput": "above", "pairs": "of"}.get(mark["name"], "at most")
    return f" ({sign} {shown({**mark, 'value': bound})})"


def members(perf: Perf | None) -> list[str]:
    """Return what each member was like meanwhile: the evidence of why a mark was missed, and what the data took."""
    return [_member(each, datascale=bool(perf and perf["check"] == "datascale")) for each in _rows(perf)]


def _rows(perf: Perf | None) -> list[PerfMember]:
    return (perf.get("members") if perf else None) or []


def _member(row: PerfMember, *, datascale: bool) -> str:
    parts = [
        _figure("fsync p99", row["wal_fsync_p99_ms"], "ms"),
        _figure("commit p99", row["backend_commit_p99_ms"], "ms"),
        _figure("CPU", row["cpu_cores"], "cores"),
        _figure("round trip p50", row["round_trip_p50_ms"], "ms"),
        _figure("longest", row["round_trip_max_ms"], "ms"),
    ]
    if datascale:
        sizes = (row["db_size_before"], row["db_size_after"])
        parts = [
            _grown("memory", row["rss_before"], row["rss_after"]), _grown("database", *sizes), *parts[:3],
        ]  # fmt: skip
    role = f" ({row['role']})" if row["role"] else ""
    return f"{printable(row['name'])}{role}: {', '.join(part for part in parts if part) or 'did not tell'}"


def _figure(name: str, value: float | None, unit: str) -> str:
    return "" if value is None else f"{name} {value:,.2f} {unit}"


def _grown(name: str, before: int | None, after: int | None) -> str:
    return "" if before is None or after is None else f"{name} {megabytes(before)} to {megabytes(after)}"


def reasons(perf: Perf | None, verdict: str) -> list[str]:
    """Return a sentence for each mark with this verdict: ``slowest 612.3 ms: 112.3 ms over 500 ms``."""
    return [f"{each['name']} {shown(each)}: {each['reason']}" for each in marks_of(perf) if each["verdict"] == verdict]


def cases(perf: Perf | None) -> list[tuple[str, str, str, str]]:
    """Return name, verdict, reason and value of each mark, as `loadgen.result.junit` takes a test case."""
    if perf is None:
        return []
    name = f"{perf['check']} {perf['load']}"
    return [(f"{name}: {each['name']}", each["verdict"], each["reason"] or "", shown(each)) for each in marks_of(perf)]


def marks_of(perf: Perf | None) -> list[PassMark]:
    """Return the marks; none of a run that was not judged by any."""
    return (perf.get("marks") if perf else None) or []


def shown(mark: PassMark) -> str:
    """Return a mark's value with its unit."""
    value = mark["value"]
    if value is None:
        return "-"
    return f"{value:,.{_DECIMALS[mark['name']]}f}{_UNITS[mark['name']]}"


_UNITS = {"errors": "", "throughput": "/s", "slowest": " ms", "stddev": " ms", "pairs": "", "memory": " MiB"}
_DECIMALS = {"errors": 0, "throughput": 1, "slowest": 1, "stddev": 1, "pairs": 0, "memory": 2}
