"""A result as `etcdctl check` prints it on stdout, line by line in its form.

The lines are those of etcd's ``etcdctl/ctlv3/command/check.go``. etcdctl prints its progress on stderr.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.base.console import printable
from cluster.base.errors import grpc_code_name
from cluster.base.etcd_errors import KINDS
from cluster.base.verdict import Verdict
from loadgen.result import perf_table

if TYPE_CHECKING:
    from cluster.schema.run_documents import Perf, Result, Row

# Of codes, as gRPC for Go names them in its errors.
_WORDS = {"CANCELLED": "Canceled", "OK": "OK"}
_CODES = {grpc_code_name(code) for code in range(1, 17)}
_PAIR_BYTES = 1024


def started(perf: Perf) -> list[str]:
    """Return what is printed before the load."""
    if perf["check"] != "datascale":
        return []
    return [
        f"Start data scale check for work load [{perf['pairs']} key-value pairs, {_PAIR_BYTES} bytes per key-value, "
        f"{perf['clients']} concurrent clients]."
    ]


def ended(result: Result, tidied: Sequence[str] = ()) -> list[str]:
    """Return what is printed after the load; takes the lines of compaction and defragmentation.

    etcdctl has no word for a verdict that is open: that is a FAIL here, with the reasons.
    """
    perf = result.get("perf")
    assert perf is not None, "not a result of raftload perf"
    is_open = result["verdict"] == Verdict.UNKNOWN
    failures = _errors(result["results"].get("put"))
    failures += [f"FAIL: {printable(reason)}" for reason in result["verdict_reasons"]] if is_open else []
    if perf["check"] == "datascale":
        return [*tidied, *(failures or [_memory(perf)])]
    return [*tidied, *failures, *_perf(perf, failed=bool(failures))]


def _perf(perf: Perf, *, failed: bool) -> list[str]:
    marks = {mark["name"]: mark for mark in perf_table.marks_of(perf)}
    throughput, slowest, stddev = marks["throughput"], marks["slowest"], marks["stddev"]
    rate = int(throughput["value"] or 0.0) + 1
    # Of no success etcd's report has a slowest of 0, and a deviation that is no number and so is not too high.
    longest = f"{(slowest['value'] or 0.0) / 1000:f}s"
    spread = "NaNs" if stddev["value"] is None else f"{stddev['value'] / 1000:f}s"
    lines = []
    for mark, bad, good in (
        (throughput, f"FAIL: Throughput too low: {rate} writes/s", f"PASS: Throughput is {rate} writes/s"),
        (slowest, f"Slowest request took too long: {longest}", f"PASS: Slowest request took {longest}"),
        (stddev, f"Stddev too high: {spread}", f"PASS: Stddev is {spread}"),
    ):
        # An open latency is one of no success, see above; a rate that is open was too low all the same.
        missed = mark["verdict"] == "fail" or (mark is throughput and mark["verdict"] == "unknown")
        failed = failed or missed
        lines.append(bad if missed else good)
    return [*lines, "FAIL" if failed else "PASS"]


def _errors(row: Row | None) -> list[str]:
    errors = (row["errors"] if row else None) or {}
    if not errors:
        return []
    texts = (row.get("error_texts") if row else None) or {}
    return ["FAIL: too many errors"] + [
        f"FAIL: ERROR({_as_go(name, texts.get(name, name))}) -> {count}" for name, count in errors.items()
    ]


def _as_go(name: str, text: str) -> str:
    """Return an error as etcd's client for Go words it; takes its name here and what the server said."""
    if name in KINDS:
        return KINDS[name].text
    if name in _CODES:
        word = _WORDS.get(name) or "".join(part.capitalize() for part in name.split("_"))
        return f"rpc error: code = {word} desc = {text}"
    return f"rpc error: code = Unavailable desc = {text}"


def _memory(perf: Perf) -> str:
    used = next((mark["value"] for mark in perf_table.marks_of(perf) if mark["name"] == "memory"), None)
    if used is None:
        return "FAIL: Could not read process_resident_memory_bytes after the put operations."
    return f"PASS: Approximate system memory used : {used:.2f} MB."
