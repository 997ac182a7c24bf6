"""Percentiles of too few samples: which they are, and what to add to the command for a longer run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.observe import samples
from loadgen.result import document, junit, known, table
from loadgen.result.gate import apply
from loadgen.result.threshold import Threshold
from viz.report import sections

DATA = Path(__file__).parent.parent / "data" / "report"
SHOWN = ("min_ms", "mean_ms", "p50_ms", "p95_ms", "p99_ms", "p99_9_ms", "max_ms")


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.95, 0.99, 0.999, 0.9999])
def test_the_rule_is_the_least_number_that_leaves_five_percent(fraction: float) -> None:
    # Wilks: of n samples none lies beyond the percentile with the probability fraction ** n.
    n = samples.needed(fraction)
    assert fraction**n <= 0.05 < fraction ** (n - 1)
    assert samples.are_enough(n, fraction) and not samples.are_enough(n - 1, fraction)


@pytest.mark.parametrize(
    ("count", "few"),
    [
        (4, ["median_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_9_ms", "p99_99_ms"]),
        (58, ["p95_ms", "p99_ms", "p99_9_ms", "p99_99_ms"]), (298, ["p99_ms", "p99_9_ms", "p99_99_ms"]),
        (299, ["p99_9_ms", "p99_99_ms"]), (29_955, ["p99_99_ms"]), (29_956, []),
    ],
)  # fmt: skip
def test_which_are_of_too_few(count: int, few: list[str]) -> None:
    assert known.too_few_samples(count) == few


def result(put: int, get: int, **run: Any) -> Any:
    """Return the recorded result with so many successes in half a second, and no failure."""
    made: Any = document.build(DATA / "precise")
    for name, count in (("put", put), ("get", get), ("total", put + get)):
        made["results"][name] |= {"operations": count, "succeeded": count, "failed": 0}
        made["results"][name]["latency"]["too_few_samples"] = known.too_few_samples(count)
    made["results"]["txn"] = None
    made["run"] |= {"duration_s": 0.5, "operations": None, "requested_duration_s": None, **run}
    return made


@pytest.mark.parametrize(
    ("put", "get", "run", "said"),
    [
        # 2,995 / 300 * 1.05 = 10.48 times as many.
        (300, 700, {"operations": 1000}, "for all that are shown, add --operations 11000 (about 6 s)"),
        (300, 700, {"requested_duration_s": 0.5}, "for all that are shown, add --duration 6s"),
        (300, 700, {"requested_duration_s": 0.5, "step": "1:2:1/1s"},
         "for all that are shown, run it 11 times as long (about 6 s)"),
        (300, 700, {}, "for all that are shown, run it 11 times as long (about 6 s)"),
        (300, 700, {"duration_s": None}, "for all that are shown, run it 11 times as long"),
        (300, 700, {"operations": 20_000}, "for all that are shown, let it run to its end"),
        # Nobody waits days for a type that is one operation in a hundred thousand.
        (1, 2000, {"operations": 2001, "duration_s": 100.0},
         "for those of the total, add --operations 3200 (about 2 min 40 s)"),
    ],
)  # fmt: skip
def test_what_to_add_for_a_longer_run(put: int, get: int, run: dict[str, Any], said: str) -> None:
    found = known.advice(result(put, get, **run), SHOWN)
    assert found[-1] == said
    assert "p99.9 takes 2,995" in found[0]


def test_there_is_nothing_to_say_where_all_that_is_shown_is_known() -> None:
    assert known.advice(result(3000, 3000), SHOWN) == []
    assert known.advice(result(300, 300), ("p50_ms", "p99_ms")) == []


def test_tables_show_a_dash_and_json_what_was_measured() -> None:
    made = result(298, 5000)
    lines = {line.split()[0]: line.split() for line in table.render(made, color=False, width=120).splitlines() if line}
    heads = lines["operations"]
    put, get = (dict(zip(heads, lines[name][1:], strict=True)) for name in ("put", "get"))
    assert (put["p95"], put["p99"], put["p99.9"]) == ("2.777", "-", "-")
    assert "-" not in get.values()
    assert made["results"]["put"]["latency"]["p99_ms"] == 3.662
    assert "| put | 298 | 0 | 410.880 | 1.290 | 2.777 | - | 41.535 |" in junit.to_markdown(made).replace(
        "411.077", "410.880"
    )


def test_a_result_of_before_says_it_too() -> None:
    made = result(298, 5000)
    for name in ("put", "get", "total"):
        del made["results"][name]["latency"]["too_few_samples"]
    assert known.known_in(made["results"]["put"], "p99_ms") is None
    assert known.known_in(made["results"]["get"], "p99_9_ms") == 40.239


def test_a_threshold_on_too_few_samples_says_so() -> None:
    judged = apply(result(298, 5000), [Threshold.parse("put.p99_ms < 50"), Threshold.parse("get.p99_ms < 50")])
    text = table.render_verdict(judged, color=False)
    assert "put.p99_ms < 50  3.662 ms (of 298 samples; it takes 299)" in text
    assert "get.p99_ms < 50  1.176 ms\n" in text + "\n"
    assert [each["verdict"] for each in judged["thresholds"]] == ["pass", "pass"]
    summary = junit.to_markdown(judged)
    assert "| 3.662 (of 298 samples; it takes 299) |" in summary and "| 1.176 |" in summary
    page = sections.verdict(judged)
    assert page.count("of too few samples") == 1


def test_plain_locust_counts_the_requests_that_it_has_timed() -> None:
    made = document.from_csv(DATA / "plain" / "locust")
    post: Any = made["results"]["POST /v1.2/items"]  # 50, five of them failed
    assert post["latency"]["too_few_samples"] == known.too_few_samples(50)
    json.dumps(made)
