"""Fault plans, and the times without a leader that members' logs tell of."""

from __future__ import annotations

from collections import Counter

import pytest

from cluster.base.errors import UsageError
from cluster.faults.kinds import KINDS, TARGETS
from cluster.faults.plan import DEFAULT, needs_relay, needs_strikes, parse, plan_rounds
from cluster.observe.leaderless import leaderless
from cluster.observe.raftlog import Event, Log

THREE = ("etcd-node1", "etcd-node2", "etcd-node3")


def test_the_same_seed_gives_the_same_plan() -> None:
    one, two, other = (plan_rounds(DEFAULT, THREE, every_s=3, count=30, seed=seed) for seed in (7, 7, 8))
    assert one == two
    assert one != other


def test_every_fault_has_its_turn_before_one_comes_again() -> None:
    rounds = plan_rounds(DEFAULT, THREE, every_s=3, count=3 * len(DEFAULT), seed=1)
    assert [each.number for each in rounds] == list(range(1, len(rounds) + 1))
    for first in range(0, len(rounds), len(DEFAULT)):
        assert Counter(each.name for each in rounds[first : first + len(DEFAULT)]) == Counter(DEFAULT)


def test_a_fault_is_held_for_a_tenth_to_half_of_the_period_or_not_at_all() -> None:
    rounds = plan_rounds(("kill-random", "pause-leader", "crash-random"), THREE, every_s=2, count=300, seed=1)
    held = [each.hold_s for each in rounds if each.name != "crash-random"]
    assert 0.2 <= min(held) < 0.3
    assert 0.9 < max(held) <= 1.0
    assert {each.hold_s for each in rounds if each.name == "crash-random"} == {0.0}


def test_random_is_a_member_by_name_and_each_comes_up() -> None:
    rounds = plan_rounds(("kill-random",), THREE, every_s=1, count=60, seed=1)
    assert {each.fault.target for each in rounds if each.fault} == set(THREE)


def test_every_name_makes_a_fault_that_exists() -> None:
    kinds = (
        "kill", "crash", "stop", "restart", "pause", "partition", "isolate", "delay", "drop", "defrag", "slow-disk",
        "stuck-disk", "disk-error", "disk-full",
    )  # fmt: skip
    names = [f"{kind}-{target}" for kind in kinds for target in TARGETS]
    for each in plan_rounds([*parse(",".join(names)), *DEFAULT], THREE, every_s=1, count=200, seed=1):
        assert (each.fault is None) == (each.name == "compact")
        if each.fault is not None:
            assert each.fault.kind in KINDS


@pytest.mark.parametrize(
    ("names", "relay"),
    [("kill-leader,compact", False), ("isolate-random", True), ("delay-all", True), ("drop-random,defrag", True)],
)
def test_links_go_through_a_relay_only_where_a_fault_is_done_to_them(names: str, relay: bool) -> None:
    assert needs_relay(parse(names)) is relay


@pytest.mark.parametrize(
    ("names", "strikes"), [("kill-leader,delay-all", False), ("stuck-disk-leader", True), ("disk-full-all", True)]
)
def test_calls_are_trapped_only_where_a_fault_is_done_to_disks(names: str, strikes: bool) -> None:
    assert needs_strikes(parse(names)) is strikes


@pytest.mark.parametrize("text", ["", ",", "kill", "kill-everyone", "explode-leader", "compact-all", "kill-etcd-node1"])
def test_what_is_no_fault_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(UsageError, match="such as kill-leader"):
        parse(text)


@pytest.mark.parametrize("name", ["isolate-random", "transfer-leader", "kill-follower", "pause-minority"])
def test_what_needs_peers_is_refused_for_one_member(name: str) -> None:
    with pytest.raises(UsageError, match="more than one member"):
        plan_rounds((name,), THREE[:1], every_s=1, count=1, seed=1)


# Times without a leader: member a led term 2 until something happened at 10.0.


def _log(member: str, *events: tuple[float, str, int]) -> Log:
    made = tuple(
        Event(member, at, what, term, peer="a") if what in ("lost", "elected")
        else Event(member, at, "became", term, detail=what)
        for at, what, term in events
    )  # fmt: skip
    return Log(member, member, made, 0.0, 100.0, len(made), 0)


def test_a_killed_leader_is_missed_from_its_end_until_the_next_is_elected() -> None:
    logs = [_log("a"), _log("b", (11.5, "lost", 2), (11.6, "candidate", 3), (11.7, "leader", 3)), _log("c")]
    (only,) = leaderless(logs, 10.0, 20.0, taken=True)
    assert (only.start, only.end, only.term) == (10.0, 11.7, 3)
    assert only.duration_s == pytest.approx(1.7)


def test_a_leader_that_hands_over_is_missed_from_the_first_who_noticed() -> None:
    logs = [_log("a", (10.2, "lost", 2)), _log("b", (10.25, "lost", 2), (10.3, "leader", 3))]
    (only,) = leaderless(logs, 10.0, 20.0, taken=False)
    assert (only.start, only.end) == (10.2, 10.3)


def test_without_a_loss_there_is_none_and_without_an_election_it_goes_on() -> None:
    assert leaderless([_log("a"), _log("b")], 10.0, 20.0, taken=False) == ()
    cut_off = [_log("a"), _log("b", (11.0, "lost", 2))]
    assert leaderless(cut_off, 10.0, 20.0, taken=False) == ()
    (only,) = leaderless([_log("a"), _log("b", (11.0, "lost", 2))], 10.0, 20.0, taken=True)
    assert (only.start, only.end, only.term) == (10.0, 20.0, None)


def test_a_member_cut_off_that_notes_its_loss_late_opens_no_second_one() -> None:
    logs = [_log("a", (12.0, "lost", 2)), _log("b", (11.0, "lost", 2), (11.2, "leader", 3))]
    assert len(leaderless(logs, 10.0, 20.0, taken=True)) == 1


def test_who_missed_heartbeats_and_follows_the_same_leader_again_begins_no_time_without_one() -> None:
    alone = _log("c", (10.5, "lost", 2), (10.6, "elected", 2), (14.2, "lost", 3))
    assert leaderless([_log("a"), _log("b"), alone], 10.0, 20.0, taken=False) == ()
    logs = [_log("a"), _log("b", (14.0, "lost", 2), (14.1, "candidate", 3), (14.3, "leader", 3)), alone]
    (only,) = leaderless(logs, 10.0, 20.0, taken=False)
    assert (only.start, only.end) == (14.0, 14.3)
    # It finds the same leader of another term only once that is elected: there was none in between.
    again = [_log("a", (11.0, "leader", 4)), _log("b", (10.5, "lost", 2), (10.9, "elected", 4))]
    (only,) = leaderless(again, 10.0, 20.0, taken=False)
    assert (only.start, only.end) == (10.5, 11.0)


def test_two_losses_are_two_times() -> None:
    logs = [_log("b", (10.5, "leader", 3), (12.0, "lost", 3)), _log("c", (12.5, "leader", 4))]
    assert [each.term for each in leaderless(logs, 10.0, 20.0, taken=True)] == [3, 4]
