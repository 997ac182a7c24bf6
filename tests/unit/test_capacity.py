"""What `raftload capacity` takes and says: its thresholds, its result, its verdict, and its part of the report."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.base.errors import UsageError
from cluster.observe.metrics import Histogram, Metrics
from loadgen import schema
from loadgen.capacity.found import Found, headline, render
from loadgen.capacity.measure import CapacityPlan
from loadgen.capacity.member_evidence import Evidence, Look, Witness, between
from loadgen.capacity.search import Block, Goal, Search
from loadgen.capacity.seen import Seen
from loadgen.capacity.slo import Slo, parse_all
from loadgen.capacity.steering import Steering
from loadgen.cli.capacity import most_bytes
from loadgen.load.settings import Settings, SettingsError
from loadgen.result.threshold import ThresholdError
from loadgen.run.target import TargetOptions
from tests.support.servers import BLOCK_S, SYSTEMS, run
from viz.report import capacity_section

MS = 1_000_000


@pytest.mark.parametrize(
    ("text", "share", "bound_s"),
    [
        ("put.p99_ms < 20", 0.01, 0.02),
        ("total.p99_9_ms <= 100", 0.001, 0.1),
        ("get.median_ms < 1.5", 0.5, 0.0015),
        ("total.service.p95_ms < 5", 0.05, None),
        ("total.success_rate >= 0.999", 0.001, None),
        ("put.success_rate >= 1", 0.0, None),
    ],
)
def test_a_threshold_is_a_share_of_bad_operations(text: str, share: float, bound_s: float | None) -> None:
    assert Slo.parse(text).goal == Goal(share, bound_s)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("put.throughput_ops_s > 2000", "the throughput is what the capacity is"),
        ("put.errors.NoSpace == 0", "is a count, which grows with the length of the run"),
        ("total.failed < 3", "total.success_rate >= 0.999"),
        ("put.max_ms < 100", "name a percentile"),
        ("put.mean_ms < 100", "name a percentile"),
        ("put.p99_ms > 20", "held from above"),
        ("put.p99_ms == 20", "held from above"),
        ("put.p99_ms < 0", "above 0"),
        ("total.success_rate < 0.9", "held from below"),
        ("total.success_rate >= 1.5", "at most 1"),
        ("total.success_rate >= 1e-13", "above 0"),
        ("total.success_rate > 1", "no success rate is above 1"),
        ("put.p99 < 20", "did you mean"),
        ("nonsense", "is not a threshold"),
    ],
)
def test_what_no_rate_can_be_searched_for_is_a_usage_error_that_says_what_can(text: str, said: str) -> None:
    with pytest.raises(ThresholdError, match=said):
        Slo.parse(text)


def test_there_has_to_be_a_threshold_on_what_the_run_has() -> None:
    with pytest.raises(ThresholdError, match="--slo"):
        parse_all((), ("put",))
    with pytest.raises(ThresholdError, match="no operation of type get"):
        parse_all(("get.p99_ms < 3",), ("put",))
    assert len(parse_all(("get.p99_ms < 3", "total.success_rate > 0.9"), None)) == 2


def test_an_operation_is_bad_when_it_takes_longer_or_fails() -> None:
    assert Slo.parse("put.p99_ms < 20").bad({10 * MS: 97, 30 * MS: 2}, 1) == (100, 3)
    assert Slo.parse("put.success_rate > 0.9").bad({10 * MS: 97, 30 * MS: 2}, 1) == (100, 1)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (CapacityPlan(("put.p99_ms < 9",), Settings(rate=5.0)), "rate is not for a capacity"),
        (CapacityPlan(("put.p99_ms < 9",), start_rate=500, max_rate=100), "--max-rate permits 100"),
        (CapacityPlan(("put.p99_ms < 9",), Settings(mix={"get": 1.0})), "no operation of type put"),
    ],
)
def test_what_cannot_be_measured_is_refused(plan: CapacityPlan, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan.check(TargetOptions(), "kv")


def test_a_scenario_with_steps_of_its_own_is_refused() -> None:
    with pytest.raises(SettingsError, match="steps of its own"):
        CapacityPlan(("put.p99_ms < 9",)).check(TargetOptions(), "steps")


@pytest.mark.parametrize(
    ("scenario", "mix", "share"),
    [("kv", {"put": 1.0, "get": 3.0}, 0.25), ("put", {"put": 1.0, "get": 3.0}, 1), ("get", {"put": 1.0}, 0),
     ("kubernetes", {"get": 1.0}, 1), ("mine.py", {"get": 1.0}, 1)],
)  # fmt: skip
def test_what_a_search_writes_at_the_most_is_not_understated(
    scenario: str, mix: dict[str, float], share: float
) -> None:
    settings = Settings(mix=mix, key_size=32, value_size=68)
    plan = CapacityPlan(("total.p99_ms < 9",), settings, max_rate=1000, limit_s=60)
    assert most_bytes(plan, scenario) == share * 1000 * 60 * 100
    assert most_bytes(dataclasses.replace(plan, max_rate=None), scenario) is None


SLOS = (Slo.parse("total.p99_ms < 20"),)


def found_of(search: Search, evidence: dict[int, Evidence] | None = None) -> Found:
    seen = {
        number: Seen({"total": {5 * MS: 990, (30 if stay.broken else 6) * MS: 11}}, {}, {"total": 0}, {1000: 1000})
        for number, stay in enumerate(search.stays)
    }
    return Found(search, SLOS, seen, evidence or {}, 50.0, None, 0.02)


def searched(name: str = "fifo", **options: Any) -> Search:
    system = SYSTEMS[name](3)
    search = Search(system.goals, **{"start_rate": 50.0, "max_rate": 1e6, **options})
    run(search, system.model)
    return search


def valid(document: Any) -> None:
    part = schema.load("result")["properties"]["capacity"]
    assert schema._problem(document, part, {}, "") is None


def test_a_capacity_that_was_found_passes_and_says_what_gave_way() -> None:
    document = found_of(searched()).document()
    valid(document)
    assert (document["verdict"], document["reason"], document["is_lower_bound"]) == ("pass", None, False)
    rate, limit = document["rate"], document["limit"]
    assert rate is not None and limit is not None and limit["rate"] > rate
    assert limit["broken"] == ["total.p99_ms < 20: 30.01"]
    assert limit["by"] == "overload"
    assert headline(document).startswith(f"capacity: {rate:,.0f} operations per second (seen to hold: ")
    text = render(document)
    assert f"gives way at {limit['rate']:,.0f}/s (overload): total.p99_ms < 20: 30.01" in text
    assert text.count("\n") >= len(document["steps"])
    page = capacity_section.section({"capacity": document})  # type: ignore[typeddict-item]
    assert 'id="capacity"' in page and "seen to break" in page and "total.p99_ms &lt; 20" in page


@pytest.mark.parametrize(
    ("evidence", "by"),
    [
        (Evidence(fsync_p99_ms=18.0), "disk"),
        (Evidence(fsync_p99_ms=3.0), "overload"),
        (Evidence(cpu_wait_share=0.8, fsync_p99_ms=18.0), "cpu"),
    ],
)
def test_who_gave_way_follows_from_what_the_members_did(evidence: Evidence, by: str) -> None:
    search = searched()
    limit = search.limit
    assert limit is not None
    document = found_of(search, {search.stays.index(limit): evidence, 0: Evidence(fsync_p99_ms=2.0)}).document()
    assert document["limit"] is not None and document["limit"]["by"] == by


def test_an_answer_that_no_test_decided_is_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    search = searched()
    monkeypatch.setattr(search, "bracket", lambda: (None, None))
    document = found_of(search).document()
    valid(document)
    assert document["verdict"] == "unknown" and document["rate"] is not None
    assert str(document["reason"]).startswith("no rate was seen to hold")
    assert "seen to hold: none, to break: none" in headline(document)
    monkeypatch.setattr(search, "bracket", lambda: (1.0, None))
    assert found_of(search).document()["verdict"] == "pass"


def test_a_disk_that_is_slow_at_every_rate_is_named_where_none_holds() -> None:
    search = Search([SLOS[0].goal], start_rate=8, max_rate=300)
    while search.rate is not None:
        search.add(at(max(2.0, search.rate), bad=True))
    evidence = dict.fromkeys(range(len(search.stays)), Evidence(fsync_p99_ms=18.0))
    limit = found_of(search, evidence).document()["limit"]
    assert limit is not None and limit["by"] == "disk"
    assert "the log's fsync took 18 ms (p99)" in limit["evidence"]


def at(rate: float, bad: bool, late: bool = False) -> Block:
    due = round(rate * BLOCK_S)
    return Block(BLOCK_S, due, 0, due, 1, ((due, due * bad),), is_late=late)


def test_where_the_generator_gave_way_first_the_answer_is_a_lower_bound() -> None:
    search = Search([SLOS[0].goal], start_rate=100, max_rate=1e6)
    while search.rate is not None:
        search.add(at(search.rate, search.rate > 1000, search.rate > 1000))
    document = found_of(search).document()
    valid(document)
    assert (document["verdict"], document["is_lower_bound"]) == ("unknown", True)
    assert "the load generator gave way first" in str(document["reason"])
    assert "at least" in headline(document)


def test_a_generator_that_is_late_where_the_server_breaks_anyway_is_not_to_blame() -> None:
    """Late at 1,010/s, and from 1,030/s on the server breaks by itself: no more than 2 % are in doubt."""
    search = Search([SLOS[0].goal], start_rate=100, max_rate=1e6)
    while search.rate is not None:
        search.add(at(search.rate, search.rate > 1000, 1000 < search.rate < 1015))
    document = found_of(search).document()
    assert document["verdict"] == "pass" and not document["is_lower_bound"]


def test_what_holds_at_the_highest_permitted_rate_is_a_lower_bound_too() -> None:
    search = Search([SLOS[0].goal], start_rate=100, max_rate=300)
    while search.rate is not None:
        search.add(at(search.rate, bad=False))
    document = found_of(search).document()
    valid(document)
    assert document["verdict"] == "unknown" and "no higher rate was permitted than 300/s" in str(document["reason"])
    assert document["limit"] is None and document["high"] is None
    capacity_section.section({"capacity": document})  # type: ignore[typeddict-item]


@pytest.mark.parametrize(("wait", "verdict"), [(0.0, "fail"), (0.9, "unknown")])
def test_where_not_even_the_lowest_rate_holds_it_fails_unless_the_machine_is_to_blame(
    wait: float, verdict: str
) -> None:
    search = Search([SLOS[0].goal], start_rate=8, max_rate=300)
    while search.rate is not None:
        search.add(at(max(2.0, search.rate), bad=True))
    evidence = dict.fromkeys(range(len(search.stays)), Evidence(cpu_wait_share=wait))
    document = found_of(search, evidence).document()
    valid(document)
    assert document["verdict"] == verdict and "not even 1 operations per second hold" in str(document["reason"])
    assert document["rate"] is None


def test_a_search_that_was_ended_keeps_its_steps() -> None:
    search = searched(limit_s=9.0)
    document = found_of(search).document()
    valid(document)
    assert document["verdict"] == "unknown" and document["steps"]
    assert "no more time" in headline(document)
    assert search.low is not None and f"; {search.low:,.0f}/s held by then" in headline(document)
    capacity_section.section({"capacity": document})  # type: ignore[typeddict-item]


def test_a_search_without_time_names_the_bracket_that_it_had() -> None:
    search = Search([SLOS[0].goal], start_rate=100, max_rate=1e6, limit_s=60)
    while search.high is None and search.rate is not None:
        search.add(at(search.rate, search.rate > 500))
    search.note_time(61)
    document = found_of(search).document()
    valid(document)
    assert (document["verdict"], document["rate"]) == ("unknown", None)
    assert document["reason"] == "there was no more time after 61 s; 400/s held and 800/s broke by then"


def test_the_time_is_up_by_the_clock_where_workers_report_nothing() -> None:
    asked: list[bool] = []
    search = Search([SLOS[0].goal], start_rate=100, max_rate=1e6, limit_s=60)
    hook = SimpleNamespace(add_listener=lambda _: None)
    session: Any = SimpleNamespace(environment=SimpleNamespace(events=SimpleNamespace(worker_report=hook)))
    run: Any = SimpleNamespace(lost={}, over=False, load_s=59.0, interrupted=None, ask_stop=lambda: asked.append(True))
    steering = Steering(session, run, search, SLOS, witness=Witness(run))
    steering.tick()
    assert not asked and not search.is_done
    run.load_s = 61.0
    steering.tick()
    assert asked == [True] and search.reason == "there was no more time after 61 s"


def test_after_a_signal_nothing_is_decided_any_more() -> None:
    search = Search([SLOS[0].goal], start_rate=100, max_rate=1e6)
    hook = SimpleNamespace(add_listener=lambda _: None)
    session: Any = SimpleNamespace(environment=SimpleNamespace(events=SimpleNamespace(worker_report=hook)))
    run: Any = SimpleNamespace(lost={}, over=True, load_s=1.0, interrupted="SIGINT")
    Steering(session, run, search, SLOS, witness=Witness(run)).tick()
    assert search.is_done and search.reason == "the run was interrupted by SIGINT"
    assert not search.add(at(100, bad=False)) and search.stays == []


def test_what_a_watch_delivers_counts_for_its_own_threshold_and_no_other() -> None:
    def rows(failed: int, counts: dict[int, int]) -> list[Any]:
        return [(10, 1, failed, 0, 1, 1, 1, counts)]

    report: Any = SimpleNamespace(
        series={"put": rows(1, {5 * MS: 9}), "watch": rows(2, {50 * MS: 30})}, service={"put": rows(1, {4 * MS: 9})}
    )
    seen = Seen()
    seen.add(report, first_tick=10, shift=0)
    assert seen.latencies == {"put": {5 * MS: 9}, "total": {5 * MS: 9}, "watch": {50 * MS: 30}}
    assert seen.failed == {"put": 1, "total": 1, "watch": 2}
    later = Seen()
    later.add(report, first_tick=11, shift=0)
    assert later.latencies == {} and not any(later.failed.values())


def test_evidence_is_of_the_time_between_two_looks() -> None:
    def look(at_s: float, cpu_s: float, *counts: int) -> Look:
        histogram = Histogram((0.001, 0.01, float("inf")), counts)
        return Look(at_s, {"a": Metrics({"started_at": 1.0, "cpu_s": cpu_s}, {"wal_fsync": histogram})}, {})

    evidence = between(look(10, 5.0, 1000, 1000, 1000), look(14, 7.0, 1000, 1100, 1100))
    assert evidence.cpu_cores == 0.5
    assert evidence.fsync_p99_ms == pytest.approx(9.91)
    assert dataclasses.astuple(between(Look(0, {}, {}), Look(1, {}, {}))) == (None,) * 4


@pytest.mark.parametrize(
    ("due_ms", "sent_ms", "lag_ms", "late"),
    [(25, 12, 13, True), (25, 24, 1, False), (60, 45, 10, False), (25, 22, 4, True), (15, 5, 9, False)],
)
def test_the_generator_is_to_blame_where_the_bound_would_hold_without_its_delay(
    due_ms: int, sent_ms: int, lag_ms: int, late: bool
) -> None:
    seen = Seen({"total": {due_ms * MS: 100}}, {"total": {sent_ms * MS: 100}}, {"total": 0}, {lag_ms * MS: 100})
    assert seen.is_late(SLOS) is late
