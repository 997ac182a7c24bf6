"""The rules of a diagnosis: one slow part at a time in a healthy cluster, and what stands beside it.

How right they are of real evidence, `test_diagnose_judging` says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jsonschema
import pytest

from cluster.observe.record import Record
from loadgen import schema
from loadgen.diagnose import finished, observed
from loadgen.diagnose.answer import Diagnosis
from loadgen.diagnose.answer_table import render
from loadgen.diagnose.causes import diagnose
from loadgen.diagnose.facts import ClientEvidence, Evidence, LoadEvidence, MemberEvidence, Times

LEADER, FOLLOWER, OTHER = NAMES = ("etcd-node1", "etcd-node2", "etcd-node3")
PROBED = {"connect": 0.3, "members": 1.0, "status": 1.2, "serializable": 1.3, "linearizable": 3.0, "put": 5.0,
          "large_put": 6.0}  # fmt: skip
Change = Callable[[MemberEvidence], MemberEvidence]


def took(p90_ms: float, count: int = 20, failed: int = 0, **more: float) -> Times:
    return Times(count, failed, p90_ms / 4, p90_ms / 2, p90_ms, p90_ms * 1.5, **{"most_ms": p90_ms * 2, **more})


def member(name: str) -> MemberEvidence:
    return MemberEvidence(
        name, f"{name}:2379", "3.6.16", leads=float(name == LEADER),
        probes={kind: took(ms) for kind, ms in PROBED.items()},
        histograms={"wal_fsync": took(3.0, 1500, wait_ms=0.3), "backend_commit": took(7.0, 190, wait_ms=0.3),
                    "apply": took(0.1, 2000)},
        rates={"cpu_cores": 0.1, "puts": 90.0, "ranges": 20.0, "txns": 5.0, "client_received_bytes": 20_000.0,
               "client_sent_bytes": 20_000.0, "compacted_keys": 0.0},
        counts={"leader_changes": 0, "restarts": 0},
        highest={"proposals_pending": 1.0, "db_size": 2e6, "quota": 2e9, "gomaxprocs": 2.0, "defragmenting": 0.0},
    )  # fmt: skip


def cluster(changes: Mapping[str, Change] | None = None, **more: Any) -> Evidence:
    made = (changes.get(name, same)(member(name)) for name in NAMES) if changes else map(member, NAMES)
    return Evidence("probes", 20.0, tuple(made), **more)


def run_of(evidence: Evidence, get_ms: float = 3.0, put_ms: float = 6.0, **client: Any) -> Evidence:
    """Return the same as evidence of a run, in which less is asked beside the load."""
    members = [
        dataclasses.replace(each, probes={kind: each.probes[kind] for kind in ("connect", "members", "status")})
        for each in evidence.members
    ]
    load = LoadEvidence(150.0, put_ms / 2, put_ms * 2, 0.0, 1.0, 150.0, {"get": took(get_ms), "put": took(put_ms)})
    return dataclasses.replace(
        evidence, source="run", members=tuple(members), load=load, client=ClientEvidence(**client)
    )  # fmt: skip


def same(found: MemberEvidence) -> MemberEvidence:
    return found


def with_(**changes: Mapping[str, Any]) -> Change:
    """Return what puts further probes, histograms, rates and so on in place of a member's."""

    def change(found: MemberEvidence) -> MemberEvidence:
        return dataclasses.replace(found, **{name: {**getattr(found, name), **each} for name, each in changes.items()})

    return change


def probes(**p90_ms: float) -> Change:
    return with_(probes={kind: took(ms) for kind, ms in p90_ms.items()})


def all_of(change: Change) -> dict[str, Change]:
    return dict.fromkeys(NAMES, change)


SLOW_LOG = with_(histograms={"wal_fsync": took(64.0, 300, wait_ms=9.0)})
STALLS = with_(histograms={"wal_fsync": took(4.0, 1000, most_ms=512.0, wait_ms=40.0)})
SLOW_DATABASE = with_(
    histograms={"backend_commit": took(256.0, 60, wait_ms=110.0)},
    probes={"status": took(400.0), "serializable": took(400.0), "linearizable": took(410.0)},
)
HANGS = with_(
    histograms={"wal_fsync": Times(0), "apply": Times(0)}, highest={"proposals_pending": 170.0},
    probes={**{kind: Times(0, 3) for kind in PROBED}, "connect": took(0.3), "members": took(1.0)},
)  # fmt: skip
STARVED = probes(members=80.0, status=82.0, serializable=84.0, linearizable=250.0, put=260.0, large_put=270.0)
LOCKED = probes(status=600.0, serializable=620.0, linearizable=640.0, put=640.0, large_put=650.0)
FAR = probes(connect=80.0, members=81.0, status=82.0, serializable=82.0, linearizable=84.0, put=90.0, large_put=170.0)
NARROW = probes(large_put=137.0)
FLAPS = with_(counts={"leader_changes": 4}, probes={"put": Times(13, 1, 1.0, 2.0, 2.8, 1290.0, 1290.0, mean_ms=101.0)})
SLOW_WAY = probes(linearizable=160.0, put=200.0, large_put=210.0)


@pytest.mark.parametrize(
    ("evidence", "word", "blamed", "says"),
    [
        (cluster(), "healthy", (), "nothing is slow"),
        (cluster({LEADER: SLOW_LOG}), "disk", (LEADER,), "etcd-node1's syncs of its log take 64 ms (p90; 10 ms are"),
        (cluster(all_of(SLOW_LOG)), "disk", NAMES, "syncs of its log take 64 ms"),
        (cluster({FOLLOWER: STALLS}), "disk", (FOLLOWER,), "a sync of its log took 512 ms"),
        (cluster({FOLLOWER: HANGS}), "disk", (FOLLOWER,), "etcd-node2's disk hangs"),
        (cluster(all_of(SLOW_DATABASE)), "disk", NAMES, "commits of its database take 256 ms"),
        (cluster({OTHER: STARVED}), "cpu", (OTHER,), "etcd-node3 gets too little of a processor"),
        (cluster({LEADER: LOCKED}), "overload", (LEADER,), "something holds the store of etcd-node1"),
        (cluster(all_of(FAR)), "network", NAMES, "a connection takes 80 ms (p90; 10 ms are usual)"),
        (cluster(all_of(SLOW_WAY)), "network", (LEADER,), "the leader, and the others"),
        (cluster({LEADER: NARROW}), "network", (LEADER,), "a put of 16 KiB takes 66 ms (median"),
        (cluster({OTHER: FLAPS}), "network", (OTHER,), "the way between etcd-node3 and the leader is slow"),
        (cluster({OTHER: SLOW_WAY}), "network", (OTHER,), "the way between etcd-node3 and the leader is slow"),
    ],
)  # fmt: skip
def test_one_thing_is_slow(evidence: Evidence, word: str, blamed: tuple[str, ...], says: str) -> None:
    found = diagnose(evidence)
    assert (found.cluster.word, says in found.cluster.why) == (word, True), found.cluster
    assert tuple(name for name in NAMES if found.members[name].word != "healthy") == blamed
    assert bool(found.cluster.advice) == (word != "healthy")
    jsonschema.validate(found.to_json(), dict(schema.load("diagnosis")))


def test_syncs_that_are_slow_explain_what_members_wait_for() -> None:
    """Not the network: a linearizable read waits for the Raft loops of members that sync."""
    slow = cluster(all_of(lambda each: probes(linearizable=190.0, put=240.0, large_put=250.0)(SLOW_LOG(each))))
    assert diagnose(slow).cluster.word == "disk"
    stuck = cluster({LEADER: lambda each: probes(linearizable=420.0, put=430.0)(STALLS(each))})
    assert diagnose(stuck).cluster.word == "disk"


def test_a_member_without_a_processor_syncs_late_too() -> None:
    late = with_(histograms={"wal_fsync": took(60.0, 900, wait_ms=4.0)})
    found = diagnose(cluster({OTHER: lambda each: late(STARVED(each))}))
    assert (found.cluster.word, found.members[OTHER].word) == ("cpu", "cpu")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_(rates={"cpu_cores": 1.2}), "CPU time that it used: 1.2 processors"),
        (with_(rates={"client_sent_bytes": 9e6, "ranges": 4.0}), "sent to clients for each request, on average: "),
        (with_(rates={"client_received_bytes": 9e6}), "size of a request, on average: "),
        (with_(rates={"compacted_keys": 30_000.0}), "keys that compaction removed: 30,000 /s"),
        (with_(highest={"defragmenting": 1.0}), "defragmentations under way: 1"),
        (with_(highest={"pending_events": 50_000.0}), "events that waited to be sent to watchers: 50,000"),
    ],
)
def test_a_member_that_has_much_to_do_is_not_short_of_a_processor(change: Change, says: str) -> None:
    found = diagnose(cluster(all_of(lambda each: change(STARVED(each)))))
    assert (found.cluster.word, says in found.cluster.why) == ("overload", True), found.cluster.why


def test_a_busy_cluster_that_is_fast_is_healthy() -> None:
    assert diagnose(cluster(all_of(with_(rates={"cpu_cores": 1.8, "puts": 9000.0})))).cluster.word == "healthy"


def test_a_busy_member_at_which_many_proposals_wait_is_overloaded() -> None:
    many = with_(highest={"proposals_pending": 40.0}, rates={"proposals": 500.0})
    assert diagnose(cluster(all_of(many))).cluster.word == "healthy"
    busy = with_(rates={"cpu_cores": 0.6})
    found = diagnose(cluster(all_of(lambda each: busy(many(each))))).cluster
    assert (found.word, "120 proposals waited at one moment" in found.why) == ("overload", True)


def test_proposals_that_wait_for_a_disk_are_not_too_many() -> None:
    """Of 1,000 a second 120 wait at any moment where a sync takes 60 ms."""
    slow = with_(highest={"proposals_pending": 100.0}, rates={"cpu_cores": 0.6, "proposals": 1000.0})
    assert diagnose(cluster(all_of(lambda each: slow(SLOW_LOG(each))))).cluster.word == "disk"


def test_work_that_comes_in_bursts_is_seen_by_a_high_percentile() -> None:
    compacts = with_(rates={"compacted_keys": 40_000.0})
    assert diagnose(cluster(all_of(compacts))).cluster.word == "healthy"
    late = with_(probes={"put": Times(20, 0, 1.0, 2.0, 6.0, 45.0, 50.0)})
    assert diagnose(cluster(all_of(late))).cluster.word == "healthy"
    found = diagnose(cluster(all_of(lambda each: compacts(late(each))))).cluster
    assert (found.word, found.why) == (
        "overload", "the cluster has work that keeps others waiting: keys that compaction removed: 40,000 /s; likewise "
        "etcd-node2, etcd-node3",
    )  # fmt: skip
    run = run_of(cluster(all_of(compacts)), 16.0, 18.0)
    assert diagnose(run).cluster.word == "overload"


def test_a_client_that_reads_large_answers_is_not_blamed_for_being_late() -> None:
    large = with_(rates={"client_sent_bytes": 40e6, "ranges": 18.0})
    slow = cluster(all_of(lambda each: large(STARVED(each))), client=ClientEvidence(300.0, 0.3, True, "late"))
    assert diagnose(slow).cluster.word == "overload"


def test_a_busy_cluster_may_have_a_slow_network() -> None:
    busy = with_(rates={"cpu_cores": 0.5})
    assert diagnose(cluster(all_of(lambda each: busy(SLOW_WAY(each))))).cluster.word == "network"


def test_large_writes_are_not_the_disks_fault() -> None:
    large = with_(rates={"client_received_bytes": 8e6, "puts": 20.0})
    assert diagnose(cluster(all_of(lambda each: large(SLOW_LOG(each))))).cluster.word == "overload"


def test_a_client_that_is_late_by_little_of_what_it_measured_is_not_the_cause() -> None:
    many = with_(rates={"cpu_cores": 0.5, "proposals": 450.0}, highest={"proposals_pending": 70.0})
    slow = cluster(all_of(many))
    assert diagnose(run_of(slow, 250.0, 490.0, lag_p99_ms=17.8)).cluster.word == "overload"


def test_a_leader_without_a_processor_says_nothing_of_its_links() -> None:
    """Whatever waits for it waits for several turns of it, each of which may be long."""
    starved = probes(members=50.0, status=50.0, serializable=60.0, linearizable=180.0, put=190.0)
    behind = probes(linearizable=660.0, put=400.0)
    found = diagnose(cluster({LEADER: starved, FOLLOWER: behind, OTHER: behind}))
    assert (found.cluster.word, found.members[LEADER].word, found.members[FOLLOWER].word) == ("cpu", "cpu", "healthy")


def test_what_the_client_adds_is_the_clients() -> None:
    late = probes(**{kind: ms + 60 for kind, ms in PROBED.items() if kind != "connect"})
    found = diagnose(cluster(all_of(late), client=ClientEvidence(90.0, 0.1, True, "late")))
    assert (found.cluster.word, {each.word for each in found.members.values()}) == ("client", {"healthy"})
    assert "read answers 90 ms late" in found.cluster.why


def test_two_explanations_that_are_as_strong_are_unsure() -> None:
    found = diagnose(cluster({LEADER: SLOW_LOG, OTHER: probes(connect=50.0)})).cluster
    assert (found.word, found.next) == ("unsure", "network")
    assert found.margin is not None and 1 <= found.margin < 1.5
    assert "ping" in found.advice


SHORT_WAITS = probes(members=6.0, status=7.0, serializable=7.0, linearizable=38.0, put=40.0, large_put=45.0)


@pytest.mark.parametrize(("cores", "word", "says"), [
    (0.1, "cpu", "the members wait for processors again and again (agreement with a majority, p90: 31 ms)"),
    (0.5, "overload", "syncs that are short each add up: agreement with a majority, p90: 31 ms"),
])  # fmt: skip
def test_waits_that_are_short_each_add_up(cores: float, word: str, says: str) -> None:
    """No processor is 10 ms late, and a read waits for several turns at three members."""
    found = diagnose(cluster(all_of(lambda each: with_(rates={"cpu_cores": cores})(SHORT_WAITS(each)))))
    assert (found.cluster.word, says in found.cluster.why) == (word, True), found.cluster
    run = run_of(cluster(all_of(lambda each: with_(rates={"cpu_cores": cores})(SHORT_WAITS(each)))), 40.0, 45.0)
    found = diagnose(run).cluster
    assert (found.word, "the load, p90: 40 ms" in found.why) == (word, True), found.why


@pytest.mark.parametrize(
    ("waited", "slow", "word"),
    [(0.3, {}, "healthy"), (0.9, {}, "cpu"), (None, {}, "healthy"), (0.9, {"wal_fsync": took(30.0, 300)}, "disk")],
)
def test_short_syncs_of_members_that_have_no_processor_are_late_by_that(
    waited: float | None, slow: dict[str, Times], word: str
) -> None:
    late = {"backend_commit": took(10.2, 190), "wal_fsync": took(4.8, 1500), **slow}

    def change(found: MemberEvidence) -> MemberEvidence:
        found = with_(probes={"members": took(4.0), "status": took(4.0)}, histograms=late)(found)
        return dataclasses.replace(found, cpu_wait_share=waited)

    assert diagnose(run_of(cluster(all_of(change)), 27.0, 21.0)).cluster.word == word


@pytest.mark.parametrize(("cores", "word"), [(0.1, "unsure"), (0.6, "overload")])
def test_what_holds_the_store_of_a_busy_leader_keeps_what_it_applies(cores: float, word: str) -> None:
    """As hashes of the whole store do: the least request is answered at once, and all that goes by the log is late."""
    held = probes(members=5.0, status=67.0, serializable=70.0, linearizable=180.0, put=190.0, large_put=200.0)
    found = diagnose(cluster(all_of(lambda each: with_(rates={"cpu_cores": cores})(held(each))))).cluster
    assert found.word == word, found


def test_a_leader_whose_loop_stands_still_for_no_sync_waits_for_its_log() -> None:
    """It syncs 20 times a second for 100 proposals, each sync takes 3 ms, and reads take some turns of 50 ms."""
    seldom = with_(histograms={"wal_fsync": took(3.0, 400, wait_ms=0.1)}, rates={"proposals": 100.0},
                   probes={"linearizable": took(160.0), "put": took(170.0)})  # fmt: skip
    others = probes(linearizable=170.0, put=180.0)
    found = diagnose(cluster({LEADER: seldom, FOLLOWER: others, OTHER: others}))
    assert (found.cluster.word, found.members[LEADER].word) == ("disk", "disk")
    assert "etcd-node1's Raft loop stands still: a turn of it takes 50 ms" in found.cluster.why
    assert diagnose(run_of(cluster({LEADER: seldom}), 160.0, 170.0)).cluster.word == "disk"
    # One that syncs as often as proposals come has pauses, so its loop is not what they wait for.
    often = with_(rates={"proposals": 15.0})
    found = diagnose(cluster({LEADER: lambda each: often(seldom(each)), FOLLOWER: others, OTHER: others}))
    assert found.cluster.word == "network"
    # And where reads are fast it has many at a time, as of a load that goes to its limits.
    quick = probes(linearizable=3.0, put=5.0)
    assert diagnose(cluster({LEADER: lambda each: quick(seldom(each))})).cluster.word == "healthy"


def test_a_member_that_stands_still_now_and_then_is_short_of_a_processor() -> None:
    """By chance twice in twenty times it did so at a list of members, and four times at a status."""
    stands = with_(probes={
        "members": took(1.0, most_ms=256.0, mean_ms=22.0), "status": took(230.0, mean_ms=48.0),
        "serializable": took(196.0, mean_ms=49.0), "linearizable": took(200.0, mean_ms=37.0),
        "put": took(260.0, mean_ms=44.0),
    })  # fmt: skip
    found = diagnose(cluster({OTHER: stands}))
    assert (found.cluster.word, found.members[OTHER].word) == ("cpu", "cpu")
    assert "least request or read of its own store" in found.members[OTHER].figures[0].name


def test_a_member_that_alone_knows_no_leader_is_cut_off() -> None:
    away = cluster({OTHER: lambda each: dataclasses.replace(each, without_leader=0.9)})
    found = diagnose(run_of(away))
    assert (found.cluster.word, found.members[OTHER].word, found.members[LEADER].word) == (
        "network", "network", "healthy",
    )  # fmt: skip
    assert "etcd-node3 is cut off from the leader that the others follow: it knew none for 90 %" in found.cluster.why
    lost = cluster({OTHER: with_(counts={"leader_changes": 5})})
    found = diagnose(run_of(lost))
    assert (found.cluster.word, found.members[OTHER].word) == ("network", "network")
    assert "loses the leader from sight again and again, and the others do not: it saw 5 changes" in found.cluster.why
    # In an election nobody knows one, and one that was started again did not know one either.
    all_away = all_of(lambda each: dataclasses.replace(each, without_leader=0.3))
    assert diagnose(run_of(cluster(all_away))).cluster.word == "healthy"
    back = {OTHER: lambda each: dataclasses.replace(with_(counts={"restarts": 1})(each), without_leader=0.3)}
    assert diagnose(run_of(cluster(back))).cluster.word == "healthy"


def test_elections_explain_what_some_reads_wait_for() -> None:
    waits = with_(
        counts={"leader_changes": 3},
        probes={kind: Times(20, 0, 1.0, 3.0, 840.0, 1100.0, 1100.0) for kind in ("linearizable", "put", "large_put")},
    )
    found = diagnose(cluster(all_of(waits), leaderless=0.1)).cluster
    assert (found.word, found.why.partition(":")[0]) == ("unsure", "elections")
    # Messages that are slow at other times too are not explained by them.
    slow = with_(counts={"leader_changes": 3}, probes={"linearizable": took(900.0), "put": took(900.0)})
    assert diagnose(cluster(all_of(slow), leaderless=0.1)).cluster.word == "network"


def test_a_run_whose_requests_fail_is_not_healthy() -> None:
    run = run_of(cluster())
    assert run.load is not None
    found = diagnose(dataclasses.replace(run, load=dataclasses.replace(run.load, failed_share=0.3))).cluster
    assert (found.word, found.why) == (
        "unsure", "30 % of the load's requests failed, and nothing that is slow explains it",
    )  # fmt: skip


def test_elections_without_a_cause_are_named_and_nobody_is_blamed() -> None:
    found = diagnose(cluster(all_of(with_(counts={"leader_changes": 40})), leaderless=0.2))
    assert (found.cluster.word, found.cluster.why.partition(":")[0]) == ("unsure", "elections")
    assert {each.word for each in found.members.values()} == {"healthy"}
    assert any("40 elections" in note for note in found.notes)
    one = diagnose(cluster(all_of(with_(counts={"leader_changes": 1})), leaderless=0.106)).cluster
    assert (one.word, one.why) == (
        "unsure", "elections: no member led for 10.6 % of the time, and nothing that is slow explains it",
    )  # fmt: skip
    # What is slow beside them, so that it explains them, is the answer.
    slow = cluster(all_of(lambda each: with_(counts={"leader_changes": 3})(SLOW_LOG(each))))
    assert diagnose(slow).cluster.word == "disk"


def test_a_member_that_is_cut_off_has_no_hung_disk() -> None:
    """It has nothing to sync, and knows of no leader."""
    found = diagnose(cluster({OTHER: lambda each: dataclasses.replace(
        with_(histograms={"wal_fsync": Times(0)}, highest={"proposals_pending": 20.0},
              probes={kind: Times(0, 5) for kind in ("linearizable", "put", "large_put")})(each),
        without_leader=0.8,
    )}))  # fmt: skip
    assert (found.cluster.word, found.members[OTHER].word) == ("network", "network")


def test_a_member_that_gets_its_entries_late_and_many_at_once_has_no_hung_disk() -> None:
    """As over a link that loses messages: it syncs seldom, and applies all."""
    late = with_(histograms={"wal_fsync": took(3.0, 200)}, highest={"proposals_pending": 90.0},
                 probes={kind: took(1800.0) for kind in ("linearizable", "put", "large_put")})  # fmt: skip
    found = diagnose(cluster({OTHER: late}))
    assert (found.cluster.word, found.members[OTHER].word) == ("network", "network")


def test_a_member_that_does_not_answer_is_named() -> None:
    gone = cluster({OTHER: lambda each: MemberEvidence(each.name, each.endpoint, answers=0.0,
                                                       probes={"connect": Times(0, 40)})})  # fmt: skip
    found = diagnose(gone).cluster
    assert (found.word, found.why) == ("unsure", "etcd-node3 does not answer: not running, or cut off from here")


def test_a_full_database_and_a_restart_are_notes() -> None:
    full = with_(highest={"db_size": 1.9e9}, counts={"restarts": 2})
    found = diagnose(cluster({OTHER: full}))
    assert found.cluster.word == "healthy"
    assert [note.partition(":")[0] for note in found.notes] == [
        "etcd-node3's database has 95 % of its quota", "etcd-node3 was started again 2 times meanwhile",
    ]  # fmt: skip


def test_without_metrics_the_probes_alone_are_judged() -> None:
    bare = cluster(
        all_of(lambda each: dataclasses.replace(STARVED(each), histograms={}, rates={}, highest={}, counts={}))
    )
    found = diagnose(bare)
    assert found.cluster.word == "cpu"
    assert "$" not in render(found.to_json(), color=False)


def test_of_no_evidence_nothing_is_said() -> None:
    found = diagnose(Evidence("run", 10.0, (MemberEvidence("n1", "a:1"),)))
    assert (found.cluster.word, found.cluster.why) == ("unsure", "nothing was measured")


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_cluster_of_any_size_is_judged(count: int) -> None:
    members = tuple(dataclasses.replace(member(f"n{number}"), leads=float(number == 0)) for number in range(count))
    assert diagnose(Evidence("probes", 20.0, members)).cluster.word == "healthy"


# A run


@pytest.mark.parametrize(
    ("evidence", "word"),
    [
        (run_of(cluster()), "healthy"),
        (run_of(cluster({LEADER: SLOW_LOG}), 120.0, 190.0), "disk"),
        (run_of(cluster({LEADER: STALLS}), 420.0, 430.0), "disk"),
        (run_of(cluster(all_of(SLOW_DATABASE)), 300.0, 310.0), "disk"),
        (run_of(cluster({OTHER: HANGS}), 3.0, 2000.0), "disk"),
        (run_of(cluster(all_of(STARVED)), 250.0, 260.0), "cpu"),
        (run_of(cluster(all_of(FAR)), 84.0, 90.0), "network"),
        (run_of(cluster(), 160.0, 200.0), "network"),
        (run_of(cluster(all_of(with_(rates={"cpu_cores": 0.9}))), 160.0, 200.0), "network"),
        (
            run_of(cluster(all_of(with_(rates={"cpu_cores": 0.9}, highest={"proposals_pending": 60.0}))), 160.0, 200.0),
            "overload",
        ),
        (run_of(cluster(), 160.0, 200.0, lag_p99_ms=150.0), "client"),
        (run_of(cluster(), 3.0, 6.0, lag_p99_ms=4.0, cpu_share=0.97, saturated=True, why="busy"), "client"),
    ],
)
def test_a_run(evidence: Evidence, word: str) -> None:
    found: Diagnosis = diagnose(evidence)
    assert found.cluster.word == word, found.cluster
    jsonschema.validate(found.to_json(), dict(schema.load("diagnosis")))


def test_a_run_of_writes_alone() -> None:
    load = LoadEvidence(150.0, 100.0, 300.0, 0.0, 1.0, 150.0, {"put": took(200.0)})
    assert diagnose(dataclasses.replace(run_of(cluster()), load=load)).cluster.word == "network"


def test_a_run_that_knows_the_status_alone() -> None:
    """As where gRPC is not spoken; a commit of the database keeps a status waiting."""

    def without_list(evidence: Evidence) -> Evidence:
        bare = [
            dataclasses.replace(each, probes={kind: each.probes[kind] for kind in ("connect", "status")})
            for each in evidence.members
        ]
        return dataclasses.replace(evidence, members=tuple(bare))

    assert diagnose(without_list(run_of(cluster()))).cluster.word == "healthy"
    assert diagnose(without_list(run_of(cluster(all_of(STARVED)), 250.0, 260.0))).cluster.word == "cpu"
    assert diagnose(without_list(run_of(cluster(all_of(SLOW_DATABASE)), 300.0, 310.0))).cluster.word == "disk"
    assert diagnose(without_list(run_of(cluster({OTHER: HANGS}), 3.0, 2000.0))).cluster.word == "disk"


@pytest.mark.parametrize(("saturated", "contended", "more"), [
    (False, False, ""),
    (True, False, ", though the run was SATURATED: latencies are partly the generator's own"),
    (False, True, ", though the run was CONTENDED: latencies are partly the members' wait for a CPU"),
    (True, True, ", though the run was SATURATED and CONTENDED: latencies are partly the machine's own"),
])  # fmt: skip
def test_a_healthy_run_says_what_its_machine_was_short_of(
    monkeypatch: pytest.MonkeyPatch, saturated: bool, contended: bool, more: str
) -> None:
    monkeypatch.setattr(observed, "of_run", lambda *_: run_of(cluster()))
    result: Any = {"generator": {"saturated": saturated}, "target": {"cpu_wait": {"contended": contended}}}
    found = finished.diagnose(Record((), {}), result)
    assert found is not None and found.cluster.why == f"nothing is slow{more}"
