"""`raftload capacity` as a user types it: what it refuses, what it leaves behind, and how a signal ends it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import jsonschema
import pytest

from loadgen import schema
from tests.support import command
from tests.support.truth import truth_server
from tests.support.waiting import until

SLO = ("--slo", "total.p99_ms < 1000")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say what has to hold with --slo"),
        (("--slo", "put.throughput_ops_s > 5"), "the throughput is what the capacity is"),
        (("--slo", "put.errors.NoSpace == 0"), "is a count"),
        (("--slo", "get.p99_ms < 5", "--mix", "put"), "no operation of type get"),
        ((*SLO, "--rate", "500"), "unrecognized arguments: --rate 500"),
        ((*SLO, "--start-rate", "500", "--max-rate", "100"), "--max-rate permits 100"),
        ((*SLO, "--start-rate", "0"), "--start-rate must be at least 1"),
        ((*SLO, "--precision", "0"), "--precision must be at least 0.5"),
        ((*SLO, "--precision", "two"), "--precision"),
        ((*SLO, "--time-limit", "1s"), "--time-limit must be at least 5"),
        ((*SLO, "--max-rate", "many"), "--max-rate"),
        ((*SLO, "--scenario", "steps"), "steps of its own"),
        ((*SLO, "--endpoints", "127.0.0.1:1"), "give --destructive"),
        ((*SLO, "--endpoints", "127.0.0.1:1", "--max-rate", "1000"), "capacity writes up to"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = command.run("capacity", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_search_on_a_server_changes_the_rate_and_leaves_a_capacity(tmp_path: Path) -> None:
    """The time of the server is long and its slots are many, so a busy machine changes little."""
    with truth_server(slots=8, service=10_000) as server:
        done = command.run(
            "capacity", *SLO, "--endpoints", server.endpoint, "--destructive", "--start-rate", "100", "--max-rate",
            "200", "--workers", "2", "--output", "run", "--json", "--time-limit", "60s", cwd=tmp_path,
        )  # fmt: skip
    result = json.loads(done.stdout)
    jsonschema.validate(result, schema.load("result"))
    jsonschema.validate(json.loads((tmp_path / "run" / "run.json").read_text()), schema.load("run"))
    capacity = result["capacity"]
    assert capacity["steps"][0]["rate"] == 100
    assert capacity["steps"][0]["phase"] == "probing"
    assert done.returncode in (1, 3), done.stderr
    assert result["verdict"] in ("fail", "unknown") and capacity["reason"] in result["verdict_reasons"]
    if capacity["rate"] is not None:
        # What holds at the highest permitted rate is a lower bound; on any machine that gets to it.
        assert capacity["rate"] == pytest.approx(200, rel=0.1)
        assert capacity["is_lower_bound"] and max(each["rate"] for each in capacity["steps"]) == 200
    served = server.of_run(result["run"]["prefix"])
    assert len(served) == result["results"]["total"]["operations"]
    again = command.run("report", "run", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["capacity"] == capacity


def test_ctrl_c_keeps_the_steps_so_far(tmp_path: Path) -> None:
    with truth_server(slots=2, service=1000) as server:
        words = ("--endpoints", server.endpoint, "--destructive", "--workers", "1", "--output", "run", "--json")
        with command.start("capacity", *SLO, *words, cwd=tmp_path) as process:
            until((tmp_path / "run" / "run.json").exists, "a run")
            assert process.stderr is not None
            while "/s" not in process.stderr.readline():
                pass  # the first rate is decided
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    result = json.loads(out)
    assert result["interrupted"] == "SIGINT"
    assert result["capacity"]["rate"] is None or result["capacity"]["steps"]
    assert "SIGINT" in result["capacity"]["reason"]
    assert result["capacity"]["steps"][0]["decision"] is not None
