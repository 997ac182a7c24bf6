"""Evidence from what members say of themselves: their metrics, their status, and a whole run folder."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from cluster.observe import record
from cluster.observe.metrics import Histogram, Metrics, parse
from cluster.observe.record import Poll, Scrape
from loadgen.diagnose import observed
from loadgen.diagnose.facts import COUNTS, HIGHEST, HISTOGRAMS, RATES, Evidence, MemberEvidence, Times
from loadgen.result import document
from tests.support.metric_columns import RELEASES, SINCE, columns_of, metrics_text

RECORDED = Path(__file__).parents[1] / "data" / "runs" / "leader-killed"


def poll(at: float, member: str, role: str = "follower", leader: str = "n1", **more: Any) -> Poll:
    known = {"term": 2, "commit_index": 10, "applied_index": 10, "revision": 5, "db_size": 4096, "round_trip_ms": 0.5,
             "reason": ""}  # fmt: skip
    return Poll(at, member, True, role, leader, **{**known, **more})


def silent(at: float, member: str, reason: str = "timeout") -> Poll:
    return Poll(at, member, False, "", "", None, None, None, None, None, None, reason)


def scrape(at: float, histograms: dict[str, Histogram] | None = None, **values: float) -> Scrape:
    return Scrape(at, "n1", "", Metrics({"started_at": 1.0, **values}, histograms or {}))


def of_text(at: float, name: str) -> Scrape:
    return Scrape(at, "n1", "", parse(metrics_text(name)))


@pytest.mark.parametrize("release", RELEASES)
def test_each_release_tells_what_it_measures(release: str) -> None:
    found = observed.member(
        MemberEvidence("n1", "127.0.0.1:2379"), [poll(1, "n1")], [of_text(1, release), of_text(11, release)]
    )
    missing = {column for column in SINCE if column not in columns_of(release)}
    assert found.histograms.keys() == HISTOGRAMS.keys() - missing
    assert found.rates.keys() == RATES.keys()
    assert found.counts.keys() == COUNTS.keys()
    assert found.highest.keys() == HIGHEST.keys() - missing


def test_the_figures_of_an_interval() -> None:
    scrapes = [of_text(100, "3.7.3.earlier"), of_text(110, "3.7.3")]
    rates = observed.rates(scrapes)
    assert (rates["puts"], rates["ranges"], rates["txns"], rates["proposals"]) == (15.0, 5.0, 0.0, 15.0)
    earlier, later = (each.metrics.values for each in scrapes)
    assert rates["cpu_cores"] == pytest.approx((later["cpu_s"] - earlier["cpu_s"]) / 10) and rates["cpu_cores"] > 0
    assert rates["gc_pause_share"] == pytest.approx((later["gc_pause_s"] - earlier["gc_pause_s"]) / 10)
    assert rates["peer_sent_bytes"] == (later["peer_sent_bytes"] - earlier["peer_sent_bytes"]) / 10 > 1000
    assert set(observed.counts(scrapes).values()) == {0}
    histograms = observed.histograms(scrapes)
    assert histograms["apply"].count == 150
    assert histograms["peer_round_trip"] == Times(0, wait_ms=0.0)
    assert histograms["wal_fsync"].count == scrapes[1].metrics.histograms["wal_fsync"].count - (
        scrapes[0].metrics.histograms["wal_fsync"].count
    )
    assert observed.highest([], scrapes)["quota"] == 2147483648


def test_of_one_scrape_there_is_no_rate_and_nothing_counted() -> None:
    one = [of_text(100, "3.7.3")]
    assert (observed.histograms(one), observed.rates(one)) == ({}, {})
    assert observed.counts(one) == {"restarts": 0}
    assert observed.highest([], one)["goroutines"] > 0


def test_of_no_scrape_only_the_polls_are_told() -> None:
    polls = [
        poll(1, "n1", db_size=100, commit_index=9, applied_index=4),
        poll(2, "n1", db_size=300, commit_index=9, applied_index=11),
        silent(3, "n1"),
    ]
    found = observed.member(MemberEvidence("n1", "a:1"), polls, [])
    assert found == MemberEvidence("n1", "a:1", answers=0.6667, highest={"db_size": 300.0, "apply_lag": 5.0})


def test_who_knows_of_no_leader() -> None:
    polls = [
        poll(1, "n1"),
        poll(2, "n1", "no leader", ""),
        poll(3, "n1", "no leader", ""),
        poll(4, "n1"),
        silent(5, "n1"),
    ]
    assert observed.member(MemberEvidence("n1", "a:1"), polls, []).without_leader == 0.5


def test_an_interval_goes_on_over_a_restart() -> None:
    begin, before = ({"puts": 100, "cpu_s": 7.5, "leader_changes": 4, "proposals_committed": 500},
                     {"puts": 120, "cpu_s": 8.0, "leader_changes": 5, "proposals_committed": 520})  # fmt: skip
    after = {"puts": 5, "cpu_s": 0.25, "leader_changes": 1, "proposals_committed": 530, "started_at": 9.0}
    scrapes = [scrape(0, **begin), scrape(2, **before), scrape(4, **after)]
    assert observed.rates(scrapes) == {"puts": 25 / 4, "cpu_cores": 0.75 / 4, "proposals": 30 / 4}
    # The leader that it sees first after its start was elected before.
    assert observed.counts(scrapes) == {"leader_changes": 1, "restarts": 1}


def test_snapshots_are_those_sent_and_those_received() -> None:
    scrapes = [scrape(0, snapshots_sent=1, snapshots_received=0), scrape(5, snapshots_sent=3, snapshots_received=1)]
    assert observed.counts(scrapes)["snapshots"] == 3


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((0, 0, 0), Times(0, wait_ms=0.0)),
        ((0, 10, 10), Times(10, 0, 1.1, 1.5, 1.9, 1.99, 2.0, 0.233)),
        ((10, 10, 10), Times(10, 0, 0.1, 0.5, 0.9, 0.99, 1.0, 0.033)),
        ((0, 5, 10), Times(10, 0, 1.2, 2.0, 2.0, 2.0, 2.0, 0.317)),  # of the longest no more is known than that bound
    ],
)
def test_a_histogram_as_milliseconds(counts: tuple[int, ...], expected: Times) -> None:
    assert observed.times_of(Histogram((0.001, 0.002, math.inf), counts), 0.05) == expected


def test_what_is_stuck_now_and_then_is_waited_for_longer_than_what_always_takes_as_long_together() -> None:
    """Of 10 s, 2 s are syncs: five of 400 ms, or a thousand of 2 ms."""
    bounds = (0.001, 0.002, 0.4, 0.400001, math.inf)
    stuck, steady = Histogram(bounds, (0, 0, 0, 5, 5)), Histogram((0.0019999, 0.002, math.inf), (0, 1000, 1000))
    assert observed.times_of(stuck, 10).wait_ms == pytest.approx(40, rel=1e-3)
    assert observed.times_of(steady, 10).wait_ms == pytest.approx(0.2, rel=1e-3)


# Who led


def test_who_led_for_how_long() -> None:
    polls = [
        poll(0, "n1", "leader"), poll(0, "n2"), poll(6, "n1", "follower", "n2"), poll(6, "n2", "leader", "n2"),
        poll(10, "n1", "follower", "n2"), poll(10, "n2", "leader", "n2"),
    ]  # fmt: skip
    assert observed.led(polls) == ({"n1": 0.6, "n2": 0.4}, 0.0)


def test_a_slow_leader_leads_and_a_dead_one_does_not() -> None:
    def after(reason: str) -> tuple[dict[str, float], float]:
        return observed.led([
            poll(0, "n1", "leader"), poll(0, "n2"), silent(4, "n1", reason), poll(6, "n2", "no leader", ""),
            silent(10, "n1", reason), poll(10, "n2", "no leader", ""),
        ])  # fmt: skip

    assert after("timeout") == ({"n1": 0.6}, 0.4)
    assert after("connection refused") == ({"n1": 0.4}, 0.6)


def test_a_leader_whom_nobody_asks_leads() -> None:
    assert observed.led([poll(0, "n2", leader="8e9e05c52164694d"), poll(5, "n2", leader="8e9e05c52164694d")])[1] == 0


def test_one_look_is_all_that_is_known() -> None:
    assert observed.led([poll(1, "n1", "leader")]) == ({"n1": 1.0}, 0.0)
    assert observed.led([poll(1, "n1", "no leader", "")]) == ({}, 1.0)


def test_a_status_that_is_hidden_was_answered() -> None:
    polls = [silent(1, "n1", "permission denied"), silent(2, "n1", "user required")]
    known = Evidence("probes", 1.0, (MemberEvidence("n1", "", leads=1.0, answers=0.0),), leaderless=0.25)
    found = observed.filled(known, polls, {})
    assert (found.members[0].answers, found.members[0].leads, found.leaderless) == (1.0, 1.0, 0.25)


def test_a_learner_learns() -> None:
    assert observed.member(MemberEvidence("n1", ""), [poll(1, "n1", "learner", "n2")], []).learns


def test_evidence_is_filled_by_member() -> None:
    blank = Evidence(
        "probes", 10.0, (MemberEvidence("n1", "a:1", probes={"put": Times(3)}), MemberEvidence("n2", "b:1"))
    )
    polls = [poll(9, "n2"), poll(0, "n1", "leader"), poll(0, "n2"), poll(9, "n1", "leader")]
    found = observed.filled(blank, polls, {"n1": [scrape(0, puts=1), scrape(5, puts=11)]})
    n1, n2 = found.members
    assert (n1.leads, n2.leads, found.leaderless) == (1.0, 0.0, 0.0)
    assert (n1.rates, n2.rates) == ({"puts": 2.0}, {})
    assert n1.probes == {"put": Times(3)}


# A run folder


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return document.build(Path(shutil.copytree(RECORDED, tmp_path_factory.mktemp("runs") / "leader-killed")))


def test_a_run_whose_leader_was_killed(result: Any) -> None:
    found = observed.of_run(record.read(RECORDED), result)
    assert found is not None
    assert (found.source, found.seconds) == ("run", 14.181)
    assert [each.name for each in found.members] == ["etcd-node1", "etcd-node2", "etcd-node3"]
    _, killed, won = found.members
    # 1.75 s passed until the next leader was seen; who followed the dead one still said so for a while.
    assert killed.leads + won.leads + found.leaderless == pytest.approx(1, abs=1e-3)
    assert 1.4 < found.leaderless * found.seconds < 1.75
    assert (killed.counts["restarts"], killed.counts["leader_changes"], won.counts["leader_changes"]) == (1, 0, 1)
    assert killed.answers < 0.6 and won.answers == 1
    # Only the load: members have synced before it, too.
    assert found.members[0].histograms["wal_fsync"].count == 4575
    assert found.members[0].rates["proposals"] == pytest.approx(373, abs=1)
    # What the raftload of then did not read is left out.
    assert "apply" not in won.histograms and "puts" not in won.rates and "quota" not in won.highest
    assert won.version == "3.5.1"
    assert found.client.saturated and found.client.lag_p99_ms == 7.998 and "compete" in found.client.why
    assert found.load is not None
    assert (found.load.rate, found.load.asked, found.load.failed_share) == (567.37, None, 0.000379)
    assert found.load.open == pytest.approx(3.66, abs=0.01)  # of four users
    assert found.load.operations.keys() == {"put", "get", "txn"}
    assert found.load.operations["put"].p90_ms == result["results"]["put"]["latency"]["p90_ms"]
    assert won.probes == {}  # the observer of then did not time its connections
    assert Evidence.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_what_was_not_observed_is_no_evidence(result: Any, tmp_path: Path) -> None:
    assert observed.of_run(record.read(tmp_path), result) is None


def test_the_observers_questions_are_probes(result: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(RECORDED, tmp_path / "run"))
    head, *rows = (folder / "members.csv").read_text().splitlines()
    timed = [",".join([*row.split(",")[:-1], "0.25,0.5,1.5", row.split(",")[-1]]) for row in rows]
    when, clock = next(row for row in rows if ",etcd-node1,1," in row and row > "2026-11-25T04:30:08").split(",")[:2]
    late = [f"{when},{clock},etcd-node1,0,,,,,,,,,{parts},timeout" for parts in (",,", "0.75,,", "0.75,2.5,")]
    head = head.replace("reason", "connect_ms,list_ms,status_ms,reason")
    (folder / "members.csv").write_text("\n".join([head, *timed, *late]) + "\n")
    found = observed.of_run(record.read(folder), result)
    assert found is not None
    connect, listed, status = (found.members[0].probes[name] for name in ("connect", "members", "status"))
    assert (connect.p50_ms, connect.most_ms, connect.failed) == (0.25, 0.75, 1)
    assert (listed.p50_ms, listed.most_ms, listed.failed) == (0.5, 2.5, 1)
    assert (status.p50_ms, status.most_ms, status.failed) == (1.5, 1.5, 1)
    assert connect.count == listed.count + 1 == status.count + 2


def test_members_are_known_by_name_and_by_address(result: Any, tmp_path: Path) -> None:
    """Of a member that had not answered yet the observer knows its address only."""
    folder = Path(shutil.copytree(RECORDED, tmp_path / "run"))
    text = (folder / "members.csv").read_text()
    head, *rows = text.splitlines()
    first = next(index for index, row in enumerate(rows) if ",etcd-node2," in row and row > "2026-11-25T04:30:08")
    when, clock = rows[first].split(",")[:2]
    rows.insert(first, f"{when},{clock},127.0.0.1:23791,0,,,,,,,,,connection refused")
    (folder / "members.csv").write_text("\n".join([head, *rows]) + "\n")
    named = [
        {**each, "name": name}
        for each, name in zip(result["target"]["members"], ("etcd-node1", "etcd-node2", "etcd-node3"), strict=True)
    ]
    wait = {"members": [{"name": "etcd-node1", "ran_s": 3.0, "waited_s": 1.0},
                        {"name": "etcd-node2", "ran_s": 0.0, "waited_s": 0.0}]}  # fmt: skip
    found = observed.of_run(
        record.read(folder), {**result, "target": {**result["target"], "members": named, "cpu_wait": wait}}
    )
    plain = observed.of_run(record.read(RECORDED), result)
    assert found is not None and plain is not None
    assert [(each.name, each.endpoint, each.cpu_wait_share) for each in found.members] == [
        ("etcd-node1", "127.0.0.1:23790", 0.25), ("etcd-node2", "127.0.0.1:23791", None),
        ("etcd-node3", "127.0.0.1:23792", None),
    ]  # fmt: skip
    assert found.members[1].answers < plain.members[1].answers


@pytest.mark.parametrize(("rate", "asked"), [(600.0, 600.0), (None, 571.429)])
def test_an_open_loop_says_what_it_asked_for(result: Any, rate: float | None, asked: float) -> None:
    run = {**result["run"], "loop": "open", "rate": rate, "duration_s": 14.0}
    found = observed.of_run(
        record.read(RECORDED), {**result, "run": run, "generator": {**result["generator"], "scheduled": 8000}}
    )
    assert found is not None and found.load is not None and found.load.asked == asked


def test_a_run_without_an_operation_has_seen_nothing(result: Any) -> None:
    found = observed.of_run(
        record.read(RECORDED), {**result, "results": {"total": None}, "generator": None, "target": None}
    )
    assert found is not None and found.load is None
    assert dataclasses.asdict(found.client) == {"lag_p99_ms": None, "cpu_share": None, "saturated": None, "why": ""}
