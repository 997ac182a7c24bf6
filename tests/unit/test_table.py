"""The table that people see. The golden files are regenerated with RAFTLOAD_GOLDEN=1."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from loadgen.result import document, gate, table
from loadgen.result.threshold import Threshold
from viz.report import sections

DATA = Path(__file__).parent.parent / "data" / "report"
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def troubled() -> dict[str, Any]:
    """Return a result with something to say on every line."""
    result = document.build(DATA / "precise")
    result["generator"] |= {"saturated": True, "saturated_by": "event loop busy for up to 9.1 ms at p99"}
    result["generator"] |= {"start_lag_p99_ms": 0.5, "dropped": 12, "resent": 1}
    result["target"] |= {"requested_version": "3.6", "leader_changes": 2, "disk_faults": True}
    result["target"]["endpoints"][1]["reachable"] = False
    result["target"]["cpu_wait"] = {
        "members": [
            {"name": "etcd-node1", "ran_s": 3.0, "waited_s": 1.25},
            {"name": "etcd-node2", "ran_s": 2.0, "waited_s": 1234.5},
        ],
        "share": 0.834, "contended": True, "contended_by": "threads of etcd-node2 waited", "nice": 10,
        "session_nice": None,
    }  # fmt: skip
    result["books"] |= {"balanced": False, "revision_delta": 12345678}
    result["lost_workers"] = [{"name": "worker 2 (pid 4711)", "reason": "killed by SIGKILL"}]
    result["interrupted"] = "SIGTERM"
    result["run"] |= {"rate": 5000.0, "loop": "open", "operations": None, "requested_duration_s": 30.0}
    result["results"]["put"]["errors"] = {f"CAUSE_{number}": 11 - number for number in range(10)}
    result["results"]["put"]["throughput_ops_s"] = 123456.78
    result["results"]["put"]["operations"] = 12_345_678
    result["results"]["txn"]["latency"] |= {"max_ms": 12345.678, "p99_9_ms": 812.5}
    result["problems"] = ["could not remove the run's keys: the cluster did not answer within 10 s\nat all"]
    expressions = ("put.p99_ms < 50", "put.p99_ms < 1", "total.success_rate >= 0.999", "get.service.p99_ms < 3")
    return gate.apply(result, [Threshold.parse(text) for text in expressions])


CASES = {
    "precise": lambda: document.build(DATA / "precise"),
    "failing": lambda: document.build(DATA / "failing"),
    "plain": lambda: document.from_csv(DATA / "plain" / "locust"),
    "troubled": troubled,
}


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, width: int) -> None:
    text = table.render(CASES[name](), color=False, width=width, folder=Path("runs/20260102T030405Z-kv")) + "\n"
    golden = DATA / "golden" / f"{name}-{width}.txt"
    if os.environ.get("RAFTLOAD_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("width", [80, 90, 100, 120])
@pytest.mark.parametrize("name", CASES)
def test_lines_fit_and_colour_changes_nothing_else(name: str, width: int) -> None:
    result = CASES[name]()
    plain = table.render(result, color=False, width=width)
    assert plain.isascii()
    assert max(map(len, plain.splitlines())) <= width
    assert all(line == line.rstrip() for line in plain.splitlines())
    colored = table.render(result, color=True, width=width)
    assert [line.rstrip() for line in ESCAPES.sub("", colored).splitlines()] == plain.splitlines()
    assert ESCAPES.search(colored)


def test_what_a_server_sends_does_not_reach_the_terminal_as_control_characters() -> None:
    result = document.build(DATA / "failing")
    result["results"]["put"]["errors"] = {"\x1b[2Jboom\r\n" + "x" * 200: 20}
    text = table.render(result, color=False, width=80)
    assert "\x1b" not in text
    assert "[2Jboom" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.4123, 99.9], ["0.412", "99.900"]),
        ([0.4123, 100.0], ["0.41", "100.00"]),
        ([0.4123, 12345.6789, None], ["0.4", "12,345.7", "-"]),
        ([None], ["-"]),
    ],
)
def test_decimals_are_those_of_the_largest_in_a_column(values: list[float | None], expected: list[str]) -> None:
    assert table._aligned(values, (3, 2, 1)) == expected


def test_an_endpoint_that_did_not_answer_is_named_wherever_the_result_is_shown() -> None:
    result = troubled()
    line = f"endpoint {result['target']['endpoints'][1]['url']} was not reachable"
    assert line in table.render(result, color=False, width=100)
    assert f"<li>{line}</li>" in sections.verdict(result)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, "others may write to this cluster, too"),
        ({"lost_workers": [{"name": "worker 1", "reason": "killed"}]}, "a worker was lost, and nobody knows"),
        ({"books": {"revision_delta": None}}, "the cluster did not tell its revision after the load"),
    ],
)
def test_writes_that_were_not_compared_say_why(change: dict[str, Any], why: str) -> None:
    result = document.build(DATA / "precise")
    result["books"] |= {"balanced": None, **change.pop("books", {})}
    text = table.render({**result, **change}, color=False, width=120)
    assert f"writes      not compared with the store's revision: {why}" in text


ANSWER: dict[str, Any] = {
    "word": "disk", "why": "etcd-node2's syncs of its log take 61 ms (p90; 10 ms are usual)", "figures": [],
    "next": None, "margin": None, "advice": "Put the data folder of etcd-node2 on a disk of its own.",
}  # fmt: skip


@pytest.mark.parametrize("width", [80, 100])
def test_what_was_slow_stands_above_the_table(width: int) -> None:
    result = document.build(DATA / "precise")
    result["diagnosis"] = {"cluster": ANSWER, "members": [], "notes": []}  # type: ignore[typeddict-item]
    lines = table.render(result, color=False, width=width).splitlines()
    assert lines[2] == "disk: etcd-node2's syncs of its log take 61 ms (p90; 10 ms are usual)"
    assert lines[3] == "" and "operations" in lines[5]
    assert "what to do  Put the data folder of etcd-node2 on a disk of its own." in lines
    result["diagnosis"]["cluster"] = {**ANSWER, "word": "healthy", "why": "nothing is slow", "advice": ""}
    text = table.render(result, color=True, width=width)
    assert "\x1b[1;32mhealthy: nothing is slow\x1b[0m" in text and "what to do" not in text
