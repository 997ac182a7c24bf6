"""The messages between master and workers: one module has their names, and they arrive as they were sent."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import msgpack
import pytest

from loadgen.history.operation import Operation, Outcome
from loadgen.load import protocol
from loadgen.load.protocol import Kind, Report, Snapshot
from loadgen.load.recorder import Recorder
from loadgen.stats.series import Series

ROOT = Path(__file__).resolve().parents[2]
KINDS = [each for each in vars(protocol).values() if isinstance(each, Kind)]


def test_no_other_module_has_a_message_name() -> None:
    names = {kind.name for kind in KINDS} | {"raftload_series", "raftload_service"}
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("loadgen", "locustfiles")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert len({kind.name for kind in KINDS}) == len(KINDS) == 14
    assert found == {"loadgen/load/protocol.py"}


@pytest.mark.parametrize("junk", [None, 7, "hello", ["version"]])
def test_what_a_stranger_sends_is_an_empty_payload(junk: Any) -> None:
    assert protocol.HELLO.payload(SimpleNamespace(data=junk)) == {}


def test_a_report_arrives_as_it_was_sent() -> None:
    environment = SimpleNamespace(events=SimpleNamespace(request=SimpleNamespace(_handlers=[None])))
    recorder = Recorder(environment, open_loop=True)
    put = Operation(1, "put", b"k", b"v", 10, 20, 3_000_000, Outcome.OK)
    recorder.record(put)
    totals = recorder.totals()
    snapshot: Snapshot = {
        "prefix": "abcd/", "locust_counts": False, "totals": totals, "warmup": {}, "cpu_s": 0.5, "wall_s": 1.0,
        "engine": "python", "engine_reason": "--engine python", "in_flight": 2, "in_flight_max": 3, "resent": 0,
        "loop_lag_p99_ms": 0.1,
        "open_loop": {"scheduled": 1, "dropped": 0, "start_lags": dict(recorder.start_lags), "length_s": 0.0,
                      "overrun_s": 0.0},
        "streams": {"limit": 5, "connections": 3, "waits": {1 << 20: 2}}, "problems": ["1 watch was not confirmed"],
    }  # fmt: skip
    data: dict[str, Any] = {"stats": []}
    Report(snapshot, *recorder.take_series()).write(data)
    arrived = Report.read(msgpack.loads(msgpack.dumps(data), strict_map_key=False))  # as Locust does
    assert arrived is not None
    assert arrived.snapshot == snapshot
    assert set(totals["put"]) == set(get_type_hints(protocol.Counts))
    series, service = Series(), Series()
    series.add(arrived.series)
    service.add(arrived.service)
    assert series.summaries["put"].counts == series.summaries["total"].counts
    assert (series.summaries["put"].min_ns, service.summaries["put"].min_ns) == (2_999_990, 2_999_980)


def test_a_report_of_plain_locust_is_none_of_ours() -> None:
    assert Report.read({"stats": [], "user_count": 3}) is None
