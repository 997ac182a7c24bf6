"""The knee: which seconds belong to a step, and which step is the knee."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadgen.result import knee, table
from loadgen.stats import hdr

RESULT: Any = {
    "run": {"scenario": "steps"}, "target": None, "generator": None, "books": None, "thresholds": [], "notes": [],
    "results": {"total": {"operations": 1, "succeeded": 1, "failed": 0, "throughput_ops_s": 1.0, "latency": None,
                          "errors": {}, "info": 0}},
    "verdict": "pass", "problems": [], "lost_workers": [], "interrupted": None, "verdict_reasons": [],
}  # fmt: skip


def run(**changed: Any) -> dict[str, Any]:
    return {"scenario": "steps", "loop": "closed", "users": 8, "duration_s": 16.0, "step": None, **changed}


def server(load: float, capacity: float = 4.0) -> tuple[int, int]:
    """Operations a second, and nanoseconds of each, of a server that does so many at a time, 10 ms each."""
    rate = min(load, capacity) * 100
    return round(rate), round(load / rate * 1e9)


def write_log(folder: Path, seconds: list[tuple[int, int]]) -> None:
    """Write a log of a second each with so many operations of so long."""
    lines = [hdr.log_head(1_795_581_000)]
    for number, (count, latency_ns) in enumerate(seconds):
        lines.append(hdr.log_line(number, 1.0, latency_ns, hdr.encode({hdr.bucket(latency_ns): count})))
    (folder / "total.hlog").write_text("".join(lines))


def test_the_knee_of_a_server_with_four_places_is_at_four(tmp_path: Path) -> None:
    write_log(tmp_path, [server(users) for users in (1, 2, 4, 8) for _ in range(4)])
    found = knee.find(tmp_path, run())
    assert found is not None
    assert [step["load"] for step in found["steps"]] == [1, 2, 4, 8]
    assert [step["throughput_ops_s"] for step in found["steps"]] == [100, 200, 400, 400]
    assert found["knee"] == found["steps"][2]
    assert found["knee"]["mean_ms"] == pytest.approx(10, rel=0.001)
    assert (found["reason"], found["caution"], found["axis"]) == (None, None, "users")


@pytest.mark.parametrize(
    ("capacity", "reason"),
    [(100.0, "measure more than 8 users"), (0.5, "there is no lower load than one user")],
)
def test_a_knee_outside_the_steps_is_not_made_up(tmp_path: Path, capacity: float, reason: str) -> None:
    write_log(tmp_path, [server(users, capacity) for users in (1, 2, 4, 8) for _ in range(4)])
    found = knee.find(tmp_path, run())
    assert found is not None
    assert found["knee"] is None
    assert reason in found["reason"]
    assert "begin with a lower" not in found["reason"], "one user is the lowest load of a closed loop"


@pytest.mark.parametrize(
    ("capacity", "reason"),
    [(100.0, "measure a higher rate than 500/s"), (0.5, "begin with a lower rate than 200/s")],
)
def test_a_knee_outside_the_steps_of_a_rate_says_where_to_look(tmp_path: Path, capacity: float, reason: str) -> None:
    write_log(tmp_path, [server(rate / 100, capacity) for rate in (200, 300, 400, 500) for _ in range(4)])
    found = knee.find(tmp_path, run(scenario="kv", loop="open", step="200:500:100/4s"))
    assert found is not None
    assert found["knee"] is None
    assert reason in found["reason"]


def test_the_first_second_of_a_step_is_not_in_it(tmp_path: Path) -> None:
    seconds = []
    for users in (1, 2, 4, 8):
        seconds += [(9999, 10**9), *[server(users)] * 3]
    write_log(tmp_path, seconds)
    found = knee.find(tmp_path, run())
    assert found is not None
    assert [(step["seconds"], step["throughput_ops_s"]) for step in found["steps"]] == [
        (3, 100), (3, 200), (3, 400), (3, 400),
    ]  # fmt: skip


def test_steps_that_are_no_whole_seconds_take_what_lies_whole_in_them(tmp_path: Path) -> None:
    write_log(tmp_path, [(100, 10**7)] * 18)
    found = knee.find(tmp_path, run(duration_s=18.0))  # 4.5 s each
    assert found is not None
    assert [step["seconds"] for step in found["steps"]] == [3, 3, 3, 3]


def test_steps_of_a_rate(tmp_path: Path) -> None:
    write_log(tmp_path, [server(rate / 100) for rate in (200, 300, 400, 500) for _ in range(4)])
    found = knee.find(tmp_path, run(scenario="kv", loop="open", step="200:500:100/4s", generator={"saturated": True}))
    assert found is not None
    assert found["axis"] == "rate"
    assert found["knee"]["load"] == 400
    assert "saturated" in found["caution"]


def test_a_knee_of_members_that_waited_for_a_cpu(tmp_path: Path) -> None:
    write_log(tmp_path, [server(users) for users in (1, 2, 4, 8) for _ in range(4)])
    found = knee.find(tmp_path, run(target={"cpu_wait": {"contended": True}}))
    assert found is not None
    assert found["caution"] == "the members waited for a CPU, so the knee may be this machine's"


def test_the_terminal_shows_the_steps_and_marks_the_knee(tmp_path: Path) -> None:
    write_log(tmp_path, [server(users) for users in (1, 2, 4, 8) for _ in range(4)])
    result = {**RESULT, "knee": knee.find(tmp_path, run())}
    text = table.render(result, color=False, width=80)
    rows = [line.split() for line in text.partition("steps ")[2].splitlines()[1:5]]
    assert [row[:2] for row in rows] == [["1", "100.0"], ["2", "200.0"], ["4", "400.0"], ["8", "400.0"]]
    assert [row[-2:] == ["<-", "knee"] for row in rows] == [False, False, True, False]
    assert text.count("<- knee") == 1
    assert max(map(len, text.splitlines())) <= 80


def test_the_terminal_says_why_there_is_no_knee_and_shows_the_steps_all_the_same(tmp_path: Path) -> None:
    write_log(tmp_path, [server(users, 0.5) for users in (1, 2, 4, 8) for _ in range(4)])
    text = table.render({**RESULT, "knee": knee.find(tmp_path, run())}, color=False, width=80)
    assert "no knee: power fell from the first step on" in text
    assert "<- knee" not in text
    assert [line.split()[0] for line in text.partition("steps ")[2].splitlines()[1:5]] == ["1", "2", "4", "8"]


def test_of_very_many_steps_those_around_the_knee_are_shown(tmp_path: Path) -> None:
    write_log(tmp_path, [server(rate / 100) for rate in range(10, 1010, 10) for _ in range(3)])
    found = knee.find(tmp_path, run(scenario="kv", loop="open", step="10:1000:10/3s"))
    assert found is not None
    text = table.render({**RESULT, "knee": found}, color=False, width=80)
    assert "<- knee" in text
    assert f"and {100 - table.MAX_STEPS} more, in report.html" in text


def test_a_run_that_was_cut_short_has_the_steps_that_it_went_through(tmp_path: Path) -> None:
    write_log(tmp_path, [server(users) for users in (1, 2, 4, 8) for _ in range(4)][:9])
    found = knee.find(tmp_path, run())
    assert found is not None
    assert [step["load"] for step in found["steps"]] == [1, 2]
    assert "3 are needed" in found["reason"]
    (tmp_path / "total.hlog").unlink()
    found = knee.find(tmp_path, run())
    assert found is not None
    assert found["steps"] == []


@pytest.mark.parametrize("changed", [{"scenario": "kv"}, {"loop": "open"}, {"duration_s": None}])
def test_a_run_without_steps_has_none(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert knee.find(tmp_path, run(**changed)) is None


@pytest.mark.parametrize(
    ("users", "steps"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (9, (1, 2, 4, 8, 9))]
)
def test_users_double_up_to_all(users: int, steps: tuple[int, ...]) -> None:
    assert knee.users_by_step(users) == steps
