"""Thresholds, verdicts and exit codes, and what CI systems are told of them."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.base.console import STYLES
from cluster.base.verdict import Verdict
from loadgen import schema
from loadgen.load.settings import Settings
from loadgen.result import document, gate, junit, table
from loadgen.result.threshold import (
    FIELDS,
    LATENCY_FIELDS,
    OPERATORS,
    SERVICE_FIELDS,
    TYPES,
    Threshold,
    ThresholdError,
)
from loadgen.run.benchmark import check_thresholds
from tests.support.command import assert_refused, called

DATA = Path(__file__).parent.parent / "data" / "report"


@pytest.fixture
def result() -> dict[str, Any]:
    """1,000 operations of which four failed; put p99 is 3.662 ms, 1,230.769 ops/s in all."""
    return gate.apply(document.build(DATA / "precise"), [])


def verdict(expression: str, result: dict[str, Any]) -> str:
    return gate.judge(Threshold.parse(expression, result["results"]), result).verdict.value


thresholds = st.builds(
    Threshold,
    type=st.sampled_from(TYPES),
    field=st.sampled_from((*FIELDS, "errors.NoSpace", "errors.connection lost")),
    operator=st.sampled_from(sorted(OPERATORS)),
    bound=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9).map(float),
)


@given(thresholds)
def test_a_threshold_survives_its_text(threshold: Threshold) -> None:
    assert Threshold.parse(str(threshold)) == threshold


@given(thresholds, st.text(" \t", max_size=3), st.text(" \t", max_size=3))
def test_spaces_do_not_matter(threshold: Threshold, before: str, after: str) -> None:
    metric, operator, bound = str(threshold).rsplit(" ", 2)
    assert Threshold.parse(f"{before}{metric}{after}{operator}{before}{bound}{after}") == threshold


@given(st.text() | st.text("put.p9_ms <>=0123456789"))
def test_any_text_is_a_threshold_or_one_line(text: str) -> None:
    try:
        Threshold.parse(text)
    except ThresholdError as exc:
        assert len(str(exc).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "write <type>.<field> <operator> <number>"),
        ("put.p99_ms", "write <type>.<field> <operator> <number>"),
        ("put.p99_ms < ", "write <type>.<field> <operator> <number>"),
        ("put.p99_ms = 5", "operators: < <= > >= =="),
        ("put.p99_ms != 5", "operators: < <= > >= =="),
        ("put.p99_ms < 5 < 6", "'p99_ms < 5' in"),
        ("put.p99 < 5", "did you mean 'p99_ms'?"),
        ("put.succes_rate > 0.9", "did you mean 'success_rate'?"),
        ("put < 5", "'' in 'put < 5' is not a field"),
        ("puts.p99_ms < 5", "'puts' in 'puts.p99_ms < 5' is not an operation type; did you mean 'put'?"),
        ("compact.p99_ms < 5", "There are put, get, txn, range, list"),
        (".p99_ms < 5", "is not an operation type"),
        ("put.p99_ms < 50ms", "'50ms' in 'put.p99_ms < 50ms' is not a plain number; latencies are in ms"),
        ("put.success_rate > 99%", "success_rate is between 0 and 1"),
        ("put.p99_ms < nan", "is not a plain number"),
        ("put.p99_ms < inf", "is not a plain number"),
        ("put.p99_ms < 1e999", "is not a plain number"),
        ("put.p99_ms < 1_000", "is not a plain number"),
        ("put.p99_ms < ٣", "is not a plain number"),
        (
            "put.errors.Nospace == 0",
            "'Nospace' in 'put.errors.Nospace == 0' is not a cause of failures; did you mean 'NoSpace'?",
        ),
        ("put.errors. == 0", "'' in 'put.errors. == 0' is not a cause of failures"),
        ("put.errors == 0", "'errors' in 'put.errors == 0' is not a field"),
        ("puts.errors.NoSpace == 0", "'puts' in 'puts.errors.NoSpace == 0' is not an operation type; did you mean"),
    ],
)
def test_what_is_no_threshold_is_told_what_would_be(text: str, expected: str) -> None:
    with pytest.raises(ThresholdError) as caught:
        Threshold.parse(text)
    assert expected in str(caught.value)


def test_request_names_of_plain_locust_runs() -> None:
    name = "GET /v1.2/items?a=1"
    threshold = Threshold.parse(f"{name}.service.p99_ms <= 5", [name])
    assert (threshold.type, threshold.field) == (name, "service.p99_ms")
    plain = document.from_csv(DATA / "plain" / "locust")
    assert verdict("GET /v1.2/items.p99_ms < 100", plain) == "pass"


def test_a_threshold_on_a_cause_of_failures(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = document.build(DATA / "precise")
    failed = gate.apply(
        result, [Threshold.parse("put.errors.DEADLINE_EXCEEDED == 0"), Threshold.parse("put.failed == 0")]
    )
    assert [(each["verdict"], each["value"], each["reason"]) for each in failed["thresholds"]] == [
        ("fail", 3, "put.errors.DEADLINE_EXCEEDED is 3"), ("fail", 3, "put.failed is 3: 3 DEADLINE_EXCEEDED"),
    ]  # fmt: skip
    # Nothing says that there was none of them: the run did not put, or no file has the causes.
    assert gate.judge(Threshold.parse("range.errors.NoSpace == 0"), result).verdict is Verdict.UNKNOWN
    result["results"]["put"]["errors"] = None  # type: ignore[index]
    assert verdict("put.errors.NoSpace == 0", result) == "unknown"
    # What the run itself has as a cause may be named, whatever it is; a plain Locust run may have any text.
    assert called(capsys, "gate", run_dir, "--threshold", "put.errors.NoSpace == 0").returncode == 0
    assert_refused(
        called(capsys, "gate", run_dir, "--threshold", "put.errors.no space == 0"), "did you mean 'NoSpace'?"
    )
    plain = document.from_csv(DATA / "plain" / "locust")
    name = "a.errors.b"
    parsed = Threshold.parse(f"{name}.errors.Connection refused. == 0", [*plain["results"], name], lambda: None)
    assert (parsed.type, parsed.cause) == (name, "Connection refused.")


def test_a_lost_worker_leaves_a_cause_in_doubt(result: dict[str, Any]) -> None:
    result["lost_workers"] = [{"name": "worker 1", "reason": "gone"}]
    assert verdict("put.errors.DEADLINE_EXCEEDED >= 4", result) == "unknown"
    assert verdict("put.errors.DEADLINE_EXCEEDED <= 2", result) == "fail"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("put.p99_ms < 50", "pass"),
        ("put.p99_ms < 3.662", "fail"),
        ("put.p99_ms <= 3.662", "pass"),
        ("put.p99_ms == 3.662", "pass"),
        ("put.p99_ms > 3.662", "fail"),
        ("put.p99_ms >= 3.662", "pass"),
        ("total.success_rate >= 0.996", "pass"),
        ("total.success_rate >= 0.999", "fail"),
        ("total.operations == 1000", "pass"),
        ("total.failed <= 3", "fail"),
        ("total.info < 4", "pass"),
        ("total.throughput_ops_s > 1230", "pass"),
        ("total.throughput_ops_s > 2000", "fail"),
        ("put.service.p99_ms < 50", "unknown"),
        ("put.errors.NoSpace == 0", "pass"),
        ("put.errors.DEADLINE_EXCEEDED == 0", "fail"),
        ("put.errors.DEADLINE_EXCEEDED == 3", "pass"),
        ("total.errors.UNAVAILABLE < 1", "fail"),
        ("total.errors.connection lost <= 0", "pass"),
    ],
)
def test_judge(expression: str, expected: str, result: dict[str, Any]) -> None:
    assert verdict(expression, result) == expected


def test_no_sample_is_unknown() -> None:
    result = document.build(DATA / "failing")
    for expression, reason in (
        ("put.p99_ms < 50", "no put succeeded, so there is no latency"),
        ("get.p99_ms < 50", "get was not run"),
        ("get.failed <= 0", "get was not run"),
    ):
        judgement = gate.judge(Threshold.parse(expression), result)
        assert (judgement.value, judgement.verdict, judgement.reason) == (None, Verdict.UNKNOWN, reason)
    assert verdict("put.success_rate > 0.5", result) == "fail"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("put.p99_ms < 50", "pass"),
        ("put.p99_ms <= 3.662", "pass"),
        ("put.p99_ms < 1", "unknown"),
        ("put.p99_ms > 1", "unknown"),
        ("put.p99_ms >= 50", "unknown"),
        ("put.p99_ms == 3.662", "unknown"),
        ("put.service.p99_ms < 50", "pass"),
        ("put.service.p99_ms < 1", "unknown"),
        ("total.throughput_ops_s > 1000", "pass"),
        ("total.throughput_ops_s > 2000", "unknown"),
        ("total.throughput_ops_s < 2000", "unknown"),
        ("total.success_rate > 0.9", "pass"),
        ("total.success_rate > 0.999", "fail"),
        ("total.failed <= 4", "pass"),
        ("total.failed <= 3", "fail"),
        ("total.info < 4", "pass"),
        ("put.errors.NoSpace == 0", "pass"),
        ("put.errors.DEADLINE_EXCEEDED < 3", "fail"),
    ],
)
def test_a_saturated_generator(expression: str, expected: str, result: dict[str, Any]) -> None:
    result["generator"]["saturated"] = True
    put = result["results"]["put"]
    put["latency"]["service"] = {field: put["latency"][field] for field in LATENCY_FIELDS}
    assert verdict(expression, result) == expected


@pytest.mark.parametrize("field", [each for each in FIELDS if each != "info"])
@pytest.mark.parametrize("by_time", [False, True])
def test_what_a_late_generator_cannot_have_caused_is_decided(field: str, by_time: bool, result: dict[str, Any]) -> None:
    """Hold each bound against what was measured and what etcd alone may have done: a verdict must be that of both."""
    result["run"]["operations"] = None if by_time else 1000
    put = result["results"]["put"]
    put["latency"]["service"] = {each: put["latency"][each] for each in LATENCY_FIELDS}
    name = field.removeprefix("service.")
    measured = float(put[name] if name in put else put["latency"][name])
    possible = [measured]
    if field in LATENCY_FIELDS or field in SERVICE_FIELDS:
        possible.append(measured / 10)
    elif field == "throughput_ops_s" or (by_time and field in ("operations", "succeeded")):
        possible.append(measured * 10)
    result["generator"]["saturated"] = True
    for operator in OPERATORS:
        for bound in (measured / 2, measured, measured * 2):
            threshold = Threshold("put", field, operator, bound)
            held = {threshold.holds(value) for value in possible}
            found = gate.judge(threshold, result).verdict
            if found is Verdict.UNKNOWN:
                assert len(possible) > 1 and held != {True}, threshold
            else:
                assert held == {found is Verdict.PASS}, threshold


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("put.p99_ms < 50", "pass"),
        ("put.p99_ms <= 50", "pass"),
        ("put.p99_ms < 1", "unknown"),
        ("put.p99_ms > 1", "unknown"),
        ("put.p99_ms > 50", "unknown"),
        ("total.throughput_ops_s > 1000", "pass"),
        ("total.throughput_ops_s > 2000", "unknown"),
        ("total.success_rate > 0.9", "pass"),
        ("total.success_rate > 0.999", "fail"),
    ],
)
@pytest.mark.parametrize("contended", [True, False, None])
def test_members_that_waited_for_a_cpu(
    expression: str, expected: str, contended: bool | None, result: dict[str, Any]
) -> None:
    without = verdict(expression, result)
    result["target"]["cpu_wait"] = {"contended": contended}
    assert verdict(expression, result) == (expected if contended else without)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("put.p99_ms < 1", "fail"),
        ("total.success_rate > 0.999", "fail"),
        ("total.throughput_ops_s > 2000", "unknown"),
        ("total.operations >= 2000", "unknown"),
        ("total.operations == 2000", "unknown"),
        ("total.operations == 500", "fail"),
        ("total.failed <= 3", "fail"),
        ("put.p99_ms < 50", "pass"),
    ],
)
def test_a_lost_worker(expression: str, expected: str, result: dict[str, Any]) -> None:
    result["lost_workers"] = [{"name": "worker 2 (pid 4711)", "reason": "killed by SIGKILL"}]
    assert verdict(expression, result) == expected
    judged = gate.apply(result, [Threshold.parse(expression)])
    assert judged["verdict"] == ("fail" if expected == "fail" else "unknown")
    assert "worker 2 (pid 4711) was lost: killed by SIGKILL" in judged["verdict_reasons"]


KEPT = {"name": "kv.revisions", "promise": "", "verdict": "pass", "judged": 1, "broken": 0, "reason": None}
PASSING, FAILING, UNKNOWN = "put.p99_ms < 50", "put.p99_ms < 1", "put.service.p99_ms < 1"


@pytest.mark.parametrize(
    ("change", "expressions", "verdict", "code"),
    [
        ({}, [], "none", 0),
        ({"check": {"verdict": "pass", "guarantees": [KEPT]}}, [], "pass", 0),
        ({"check": {"verdict": "unknown", "guarantees": [{**KEPT, "verdict": "skip"}]}}, [], "unknown", 3),
        ({}, [PASSING], "pass", 0),
        ({}, [PASSING, FAILING], "fail", 1),
        ({}, [PASSING, UNKNOWN], "unknown", 3),
        ({}, [FAILING, UNKNOWN], "fail", 1),
        ({"lost_workers": [{"name": "w1"}]}, [], "unknown", 3),
        ({"lost_workers": [{"name": "w1"}]}, [PASSING], "unknown", 3),
        ({"lost_workers": [{"name": "w1"}]}, [FAILING], "fail", 1),
        ({"generator": {"workers_lost": 1}}, [], "unknown", 3),
        ({"books": {"balanced": False}}, [], "unknown", 3),
        ({"books": {"balanced": None}}, [PASSING], "pass", 0),
        ({"books": None}, [PASSING], "pass", 0),
        ({"problems": ["the disk is full"]}, [PASSING], "unknown", 3),
        ({"problems": ["the disk is full"]}, [FAILING], "fail", 1),
        ({"generator": {"saturated": True}}, [], "none", 0),
        ({"generator": {"saturated": True}}, [PASSING], "pass", 0),
        ({"generator": {"saturated": True}}, [FAILING], "unknown", 3),
        ({"interrupted": "SIGINT"}, [], "unknown", 130),
        ({"interrupted": "SIGTERM"}, [PASSING], "unknown", 143),
        ({"interrupted": "SIGINT"}, [FAILING], "fail", 130),
        ({"interrupted": "SIGTERM", "lost_workers": [{"name": "w1"}]}, [], "unknown", 143),
    ],
)
def test_verdict_and_exit_code(
    change: dict[str, Any], expressions: list[str], verdict: str, code: int, result: dict[str, Any]
) -> None:
    judged = gate.apply({**result, **change}, [Threshold.parse(text) for text in expressions])
    assert (judged["verdict"], gate.exit_code(judged)) == (verdict, code)
    assert gate.verdict_code(judged) == {"pass": 0, "none": 0, "fail": 1, "unknown": 3}[verdict]
    assert bool(judged["verdict_reasons"]) == (verdict in ("fail", "unknown"))
    if "interrupted" in change and verdict == "unknown":
        assert f"the run was interrupted by {change['interrupted']}" in judged["verdict_reasons"]


def test_every_operation_failed() -> None:
    result = document.build(DATA / "failing")
    assert (result["verdict"], gate.exit_code(result)) == ("fail", 1)
    judged = gate.apply(result, [Threshold.parse("put.p99_ms < 50")])
    assert (judged["verdict"], gate.exit_code(judged)) == ("unknown", 3)


def test_no_operation_is_unknown(result: dict[str, Any]) -> None:
    result["results"]["total"] |= {"operations": 0, "succeeded": 0, "failed": 0, "latency": None}
    assert gate.exit_code(gate.apply(result, [])) == 3


def test_apply_returns_a_document_of_the_schema_and_leaves_its_argument(result: dict[str, Any]) -> None:
    before = json.dumps(result)
    judged = gate.apply(result, [Threshold.parse(text) for text in (PASSING, FAILING, UNKNOWN)])
    jsonschema.validate(judged, schema.load("result"))
    assert json.dumps(result) == before


def test_junit(result: dict[str, Any], tmp_path: Path) -> None:
    result["problems"] = ["a \x1b[31mstrange\x00 <problem> & more"]
    judged = gate.apply(result, [Threshold.parse(text) for text in (PASSING, FAILING, UNKNOWN)])
    junit.write(judged, tmp_path / "gate.xml")
    root = ElementTree.parse(tmp_path / "gate.xml").getroot()
    suite = root.find("testsuite")
    assert suite is not None
    for element in (root, suite):
        assert (element.get("tests"), element.get("failures"), element.get("errors")) == ("4", "1", "2")
    assert suite.get("timestamp") == "2026-01-02T03:04:05"
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [PASSING, FAILING, UNKNOWN, "the run is sound"]
    assert [[child.tag for child in case] for case in cases] == [
        ["system-out"], ["failure"], ["error"], ["error", "system-out"],
    ]  # fmt: skip
    assert cases[1][0].get("message") == "put.p99_ms is 3.662"
    assert cases[3][0].get("message") == "a  [31mstrange  <problem> & more"
    assert cases[3][1].text == "failures by cause: 3 DEADLINE_EXCEEDED, 1 UNAVAILABLE"


@pytest.mark.parametrize(
    ("folder", "tags", "counts"),
    [("failing", ["failure", "system-out"], ("1", "0", "0")), ("plain", ["skipped", "system-out"], ("0", "0", "1"))],
)
def test_junit_without_thresholds(folder: str, tags: list[str], counts: tuple[str, ...]) -> None:
    result = document.from_csv(DATA / folder / "locust")
    (suite,) = ElementTree.fromstring(junit.to_xml(result))
    assert [[child.tag for child in case] for case in suite] == [tags]
    assert tuple(suite.get(name) for name in ("failures", "errors", "skipped")) == counts


def nearly_all_failed(result: dict[str, Any]) -> dict[str, Any]:
    """Return a run without a threshold of whose 300 operations 292 failed."""
    row = {**result["results"]["put"], "operations": 300, "succeeded": 8, "failed": 292, "success_rate": 8 / 300}
    return gate.apply({**result, "results": {"put": row, "get": None, "txn": None, "total": row}}, [])


def test_what_nothing_judged_is_neither_good_nor_bad_and_its_failures_are_red(
    result: dict[str, Any],
) -> None:
    judged = nearly_all_failed(result)
    jsonschema.validate(judged, schema.load("result"))
    assert (judged["verdict"], judged["verdict_reasons"], gate.exit_code(judged)) == ("none", [], 0)
    text = table.render(judged, color=True)
    codes = {STYLES[name] for name in ("green", "red", "yellow")}
    (line,) = [line for line in text.splitlines() if "NONE" in line]
    assert not codes & set(re.findall(r"[0-9]+(?=[;m])", line)), line
    counts = re.findall(r"\x1b\[([0-9;]*)m *292\x1b", text)
    assert len(counts) == 2 and all(STYLES["red"] in each.split(";") for each in counts)
    assert "green" not in text and f"\x1b[{STYLES['green']}" not in text
    summary = junit.to_markdown(judged)
    assert summary.startswith("### raftload kv: NONE\n\nNothing was judged: there was no threshold and no check.\n\n")
    assert "| total | 300 | **292** |" in summary and "PASS" not in summary


def test_markdown(result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = gate.apply({**result, "problems": ["a | b"]}, [Threshold.parse(PASSING)])
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert not junit.append_step_summary(judged)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    (tmp_path / "summary.md").write_text("before\n")
    assert junit.append_step_summary(judged)
    assert (tmp_path / "summary.md").read_text() == (
        "before\n"
        "### raftload kv: UNKNOWN\n\n"
        "| verdict | threshold | measured |\n| --- | --- | ---: |\n| PASS | `put.p99_ms < 50` | 3.662 |\n\n"
        "- a \\| b\n\n"
        "| | operations | failed | ops/s | p50 ms | p95 ms | p99 ms | max ms |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| put | 334 | **3** | 411.077 | 1.290 | 2.777 | 3.662 | 41.535 |\n"
        "| get | 333 | 0 | 410.099 | 0.441 | 0.940 | 1.176 | 40.339 |\n"
        "| txn | 333 | **1** | 409.897 | 1.520 | 3.400 | 4.669 | 41.441 |\n"
        "| total | 1,000 | **4** | 1,230.769 | 1.184 | 2.957 | 3.891 | 41.535 |\n\n"
        "failures by cause: 3 DEADLINE_EXCEEDED, 1 UNAVAILABLE\n\n"
    )


def named(result: dict[str, Any], names: dict[str, int]) -> dict[str, Any]:
    """Return a result of other request names; takes how many operations each has, of which one failed."""
    put = result["results"]["put"]
    rows = {name: {**put, "operations": number, "failed": 1, "errors": {name: 1}} for name, number in names.items()}
    return {**result, "results": {"get": None, **rows, "total": result["results"]["total"]}}


def test_markdown_shows_names_as_they_are(result: dict[str, Any]) -> None:
    names = ["/users/<id>/orders", "a`b", "a|b\\|c", "*b* _c_ [d](e) ~f~", "- g", "1. h", "p99_ms", "$x$ &lt;", "i\nj"]
    lines = junit.to_markdown(named(result, dict.fromkeys(names, 2))).splitlines()
    cells = [line.split(" | ")[0] for line in lines if line.endswith(" | 41.535 |")]
    assert cells == [
        "| /users/&#60;id&#62;/orders",
        "| a&#96;b",
        "| a\\|b&#92;\\|c",
        "| &#42;b&#42; &#95;c&#95; &#91;d&#93;(e) &#126;f&#126;",
        "| &#45; g",
        "| 1&#46; h",
        "| p99_ms",
        "| &#36;x&#36; &#38;lt;",
        "| i j",
        "| total",
    ]


def test_markdown_shows_expressions_as_code(result: dict[str, Any]) -> None:
    result = named(result, {"/<id>": 2, "a`b|c": 2})
    judged = gate.apply(
        result, [Threshold.parse(f"{name}.p99_ms < 50", result["results"]) for name in ("/<id>", "a`b|c")]
    )
    text = junit.to_markdown(judged)
    assert "| PASS | `/<id>.p99_ms < 50` | 3.662 |" in text
    assert "| PASS | <code>a&#96;b\\|c.p99_ms &#60; 50</code> | 3.662 |" in text


def test_markdown_of_many_names_is_short_and_adds_up(result: dict[str, Any]) -> None:
    many = named(result, {f"/{'<' * 500}/{n}": n for n in range(1, 20_001)})
    expressions = [Threshold.parse(f"put.p{p}_ms < {n}") for n in range(1000) for p in ("50", "99")]
    problems = [f"{'|' * 1000} {n}" for n in range(1000)]
    text = junit.to_markdown(gate.apply({**many, "problems": problems}, expressions))
    assert len(text.encode()) < 460_000
    (rest,) = (line for line in text.splitlines() if "more names" in line)
    # The 200 names with the most operations are shown.
    assert rest.startswith(f"| 19,800 more names | {sum(range(1, 19_801)):,} | **19,800** | ")
    assert [line for line in text.splitlines() if line.endswith(" more")] == ["1,800 more", "2,950 more"]


def test_a_step_summary_that_would_be_discarded_is_left_alone(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    summary.write_bytes(b"x" * (junit.LONGEST_SUMMARY - 100))
    done = called(capsys, "gate", run_dir, "--threshold", PASSING)
    assert (done.returncode, summary.stat().st_size) == (0, junit.LONGEST_SUMMARY - 100)
    assert f"hint: {summary} would be longer than the 1,024 KiB that GitHub takes" in done.stderr
    summary.write_bytes(b"x" * (junit.LONGEST_SUMMARY - 10_000))
    done = called(capsys, "gate", run_dir, "--threshold", PASSING)
    assert done.stderr == "" and summary.stat().st_size > junit.LONGEST_SUMMARY - 10_000


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return Path(shutil.copytree(DATA / "precise", tmp_path / "run"))


def test_main(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = called(capsys, "gate", run_dir, "--threshold", PASSING, "--junit", tmp_path / "x.xml")
    assert (done.returncode, done.stdout) == (
        0,
        "thresholds  PASS     put.p99_ms < 50  3.662 ms\n"
        "verdict     PASS\n",
    )  # fmt: skip
    assert (tmp_path / "x.xml").exists()
    done = called(capsys, "gate", run_dir, "--threshold", PASSING, "--threshold", UNKNOWN, "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (3, "unknown")
    done = called(capsys, "gate", run_dir)  # the thresholds that the run was started with
    assert done.returncode == 1 and "total.success_rate >= 0.999" in done.stdout


def test_main_takes_a_result_json(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document.write(run_dir)
    assert called(capsys, "gate", run_dir / "result.json", "--threshold", PASSING).returncode == 0
    (run_dir / "result.json").write_text('{"schema": "raftload.result/1"}')
    done = called(capsys, "gate", run_dir / "result.json", "--threshold", PASSING)
    assert_refused(done, "not a result document: the document has no 'run'")


@pytest.mark.parametrize(
    "words",
    [
        ("{run}", "--threshold", "puts.p99_ms < 5"),
        ("{run}", "--junit", "{run}/no/such/folder.xml"),
        ("{run}", "--junit", "{run}"),
        ("{run}/locust_stats.csv",),
    ],
)
def test_main_refuses_in_one_line(words: tuple[str, ...], run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(called(capsys, "gate", *(word.format(run=run_dir) for word in words)))


def test_a_file_that_cannot_be_written_is_named(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = called(capsys, "gate", run_dir, "--junit", "/dev/full")
    said = "raftload: error: cannot write /dev/full: No space left on device\n"
    assert (done.returncode, done.stdout, done.stderr) == (4, "", said)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/dev/full")
    done = called(capsys, "gate", run_dir)
    assert (done.returncode, done.stdout, done.stderr) == (4, "", said)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    done = called(capsys, "gate", run_dir)
    assert (done.returncode, done.stderr) == (4, f"raftload: error: cannot write {tmp_path}: Is a directory\n")


def test_of_thousands_of_names_some_are_suggested() -> None:
    with pytest.raises(ThresholdError) as caught:
        Threshold.parse("/999.p99_ms < 5", [f"/{n}/{'x' * 1000}" for n in range(5000)])
    assert "There are /0/xxx" in str(caught.value) and "and 4,960 more" in str(caught.value)
    assert len(str(caught.value)) < 6000


def test_an_interrupted_run_is_judged_by_its_verdict(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_dir / "run.json"
    path.write_text(path.read_text().replace('"interrupted": null', '"interrupted": "SIGINT"'))
    assert called(capsys, "gate", run_dir, "--threshold", PASSING).returncode == 3


def test_a_threshold_on_a_type_that_a_run_does_not_have_is_a_mistake() -> None:
    for text in ("put.p99_ms < 5", "total.failed == 0", "watch.success_rate == 1"):
        Threshold.parse(text).check_is_run(("put", "watch"))
    with pytest.raises(ThresholdError, match=r"'txn.p99_ms < 5': .* no operation of type txn; it runs put, watch"):
        Threshold.parse("txn.p99_ms < 5").check_is_run(("put", "watch"))
    with pytest.raises(ThresholdError, match="no operation of type watch; it runs put, get, txn"):
        check_thresholds(["watch.p99_ms < 5"], Settings(), "kv")
    with pytest.raises(ThresholdError, match="no operation of type get; it runs put"):
        check_thresholds(["get.p99_ms < 5"], dataclasses.replace(Settings(), mix={"put": 1.0}), "steps")
    check_thresholds(["frob.p99_ms < 5"], Settings(), "own.py")  # its file is not loaded yet
    with pytest.raises(ThresholdError, match="is not a field"):
        check_thresholds(["frob.p98_ms < 5"], Settings(), "own.py")


def test_a_type_of_which_a_run_came_to_nothing_is_unknown(run_dir: Path) -> None:
    """As the deliveries of a run that ended at once: its threshold must not cost the result."""
    path = run_dir / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"thresholds": ["watch.p99_ms < 5"]}))
    (threshold,) = document.build(run_dir)["thresholds"]
    assert (threshold["verdict"], threshold["reason"]) == ("unknown", "watch was not run")
