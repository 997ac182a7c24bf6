"""Whom a fault hits, what it does to them, and when it is refused."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn, cast

import pytest

from cluster.base.errors import UsageError
from cluster.base.topology import Member
from cluster.faults import nemesis
from cluster.faults.driver import Driver
from cluster.faults.kinds import KINDS, Action, Fault, Subject, after, healing, plan
from cluster.local.relay import LinkState, PeerRelay, hold_back
from cluster.observe.probe import MemberStatus
from cluster.observe.timeline import COLUMNS, Timeline
from tests.support.ports import take_ports

A, B, C = (Subject(f"etcd-node{number}") for number in (1, 2, 3))
DOWN, PAUSED, CUT = Subject("etcd-node2", "down"), Subject("etcd-node2", "paused"), Subject("etcd-node2", isolated=True)
STUCK, FULL = Subject("etcd-node2", disk="stuck"), Subject("etcd-node2", "down", disk="full")


def _plan(kind, target, members=(A, B, C), leader="etcd-node1", seed=1):  # type: ignore[no-untyped-def]
    options = {"delay": {"by": 0.05, "jitter": 0.01}, "drop": {"share": 0.1}, "slow-disk": {"by": 0.1}}.get(kind, {})
    return plan(Fault(kind, target, options), members, leader, random.Random(seed))


@pytest.mark.parametrize(
    ("kind", "target", "actions"),
    [
        ("kill", "leader", [Action("kill", "etcd-node1")]),
        ("stop", "etcd-node3", [Action("terminate", "etcd-node3")]),
        ("pause", "etcd-node3,etcd-node2", [Action("pause", "etcd-node3"), Action("pause", "etcd-node2")]),
        ("pause", "etcd-node3,etcd-node3", [Action("pause", "etcd-node3")]),
        ("restart", "etcd-node2", [Action("terminate", "etcd-node2"), Action("start", "etcd-node2")]),
        ("partition", "leader", [Action("isolate", "etcd-node1")]),
        ("delay", "leader", [Action("delay", "etcd-node1", (0.05, 0.01))]),
        ("drop", "leader", [Action("drop", "etcd-node1", (0.1,))]),
        ("slow-disk", "leader", [Action("slow_disk", "etcd-node1", (0.1,))]),
        ("stuck-disk", "etcd-node2", [Action("stuck_disk", "etcd-node2")]),
        ("transfer-leader", "etcd-node2", [Action("transfer", "etcd-node2")]),
    ],
)
def test_plan(kind: str, target: str, actions: list[Action]) -> None:
    assert list(_plan(kind, target)) == actions


def test_restart_starts_what_is_down() -> None:
    assert _plan("restart", "etcd-node2", (A, DOWN, C)) == (Action("start", "etcd-node2"),)


@pytest.mark.parametrize(
    ("kind", "target", "members", "hit"),
    [
        ("kill", "follower", (A, B, C), {"etcd-node2", "etcd-node3"}),
        ("kill", "follower", (A, DOWN, C), {"etcd-node3"}),
        ("kill", "follower", (A, CUT, C), {"etcd-node3"}),
        ("kill", "follower", (A, STUCK, C), {"etcd-node3"}),
        ("stuck-disk", "random", (A, STUCK, C), {"etcd-node1", "etcd-node3"}),
        ("kill", "random", (A, B, C), {"etcd-node1", "etcd-node2", "etcd-node3"}),
        ("kill", "random", (A, DOWN, C), {"etcd-node1", "etcd-node3"}),
        ("start", "random", (A, DOWN, C), {"etcd-node2"}),
        ("resume", "random", (A, PAUSED, C), {"etcd-node2"}),
        ("transfer-leader", "random", (A, B, C), {"etcd-node2", "etcd-node3"}),
    ],
)
def test_chance_hits_only_those_to_whom_it_applies(
    kind: str, target: str, members: tuple[Subject, ...], hit: set[str]
) -> None:
    assert {_plan(kind, target, members, seed=seed)[0].member for seed in range(60)} == hit


@pytest.mark.parametrize(
    ("count", "majority", "minority"),
    [(1, 1, None), (2, 2, None), (3, 2, 1), (4, 3, 1), (5, 3, 2), (7, 4, 3)],
)
def test_majority_and_minority(count: int, majority: int, minority: int | None) -> None:
    members = tuple(Subject(f"etcd-node{number + 1}") for number in range(count))
    assert len({action.member for action in _plan("kill", "majority", members)}) == majority
    if minority is None:
        with pytest.raises(UsageError, match="no minority"):
            _plan("kill", "minority", members)
    else:
        assert len({action.member for action in _plan("kill", "minority", members)}) == minority


def test_a_seed_repeats() -> None:
    assert _plan("kill", "majority", seed=7) == _plan("kill", "majority", seed=7)


@pytest.mark.parametrize(
    ("kind", "target", "members", "leader", "reason"),
    [
        ("kill", "etcd-node9", (A, B, C), "etcd-node1", "no member 'etcd-node9': there are etcd-node1"),
        ("kill", "", (A, B, C), "etcd-node1", "no member ''"),
        ("kill", "leader", (A, B, C), None, "there is no leader now"),
        ("kill", "etcd-node2", (A, DOWN, C), "etcd-node1", "down already: `raftload cluster start etcd-node2`"),
        ("pause", "etcd-node2", (A, DOWN, C), "etcd-node1", "down already"),
        ("pause", "etcd-node2", (A, PAUSED, C), "etcd-node1", "`raftload cluster resume etcd-node2`"),
        ("partition", "etcd-node2", (A, CUT, C), "etcd-node1", "cut off already: `raftload cluster heal`"),
        ("partition", "leader", (A,), "etcd-node1", "a cluster of one"),
        (
            "disk-full",
            "etcd-node2",
            (A, STUCK, C),
            "etcd-node1",
            "the disk of etcd-node2 is stuck already: `raftload cluster heal`",
        ),
        ("stuck-disk", "etcd-node2", (A, DOWN, C), "etcd-node1", "down already"),
        ("start", "etcd-node2", (A, FULL, C), "etcd-node1", "would not serve: `raftload cluster heal`"),
        ("transfer-leader", "etcd-node2", (A, STUCK, C), "etcd-node1", "would not serve: `raftload cluster heal`"),
        ("start", "etcd-node2", (A, B, C), "etcd-node1", "nothing to start"),
        ("start", "random", (A, B, C), "etcd-node1", "no member to start"),
        ("resume", "etcd-node2", (A, B, C), "etcd-node1", "nothing to resume"),
        ("transfer-leader", "leader", (A, B, C), "etcd-node1", "leads already"),
        ("transfer-leader", "etcd-node2", (A, B, C), None, "there is no leader now"),
        ("kill", "majority", (A, DOWN, Subject("etcd-node3", "down")), "etcd-node1", "only 1 members to kill"),
    ],
)
def test_refused_with_the_reason_and_what_to_do(
    kind: str, target: str, members: tuple[Subject, ...], leader: str | None, reason: str
) -> None:
    with pytest.raises(UsageError) as caught:
        _plan(kind, target, members, leader)
    assert reason in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("explode", {}), ("delay", {}), ("delay", {"by": -1}), ("delay", {"by": 61}), ("kill", {"by": 1}),
        ("slow-disk", {}), ("slow-disk", {"by": 0}), ("stuck-disk", {"by": 1}),
        ("delay", {"by": 1, "jitter": -1}), ("drop", {}), ("drop", {"share": 1.0}), ("drop", {"by": 1, "share": 0.1}),
    ],
)  # fmt: skip
def test_senseless_faults(kind: str, options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Fault(kind, "leader", options)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("start", "resume", "delay", "drop")])
def test_healing_undoes_what_was_planned(kind: str) -> None:
    members = (A, B, C)
    broken = after(members, _plan(kind, "follower"))
    assert after(broken, healing(broken)) == members
    assert healing(members) == ()


def test_a_disk_is_mended_before_its_member_is_started() -> None:
    broken = after((A, B, C), _plan("disk-error", "etcd-node2"))
    assert broken[1] == Subject("etcd-node2", "down", disk="failing")
    assert healing(broken) == (Action("mend_disk", "etcd-node2"), Action("start", "etcd-node2"))


def test_who_takes_part_and_answers() -> None:
    assert [each.answers for each in (A, DOWN, PAUSED, CUT, STUCK)] == [True, False, False, True, False]
    disks = {disk: Subject("a", disk=disk).takes_part for disk in ("", "slow", "stuck", "failing", "full")}
    assert disks == {"": True, "slow": True, "stuck": False, "failing": False, "full": False}


def test_a_member_that_hangs_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(members: Sequence[Member], *_: object, **__: object) -> dict[str, MemberStatus]:
        asked.extend(member.name for member in members)
        return {}

    monkeypatch.setattr(nemesis, "ask", ask)
    members = tuple(Member(each.name, "", "", "") for each in (A, B, C))
    cluster = cast("nemesis.Breakable", SimpleNamespace(members=members, security=None))
    assert nemesis.Nemesis(cluster)._leader((A, STUCK, C)) is None
    assert asked == ["etcd-node1", "etcd-node3"]


def test_healing_calms_the_links() -> None:
    assert healing((A, B, C), {"etcd-node3"}) == (
        Action("delay", "etcd-node3", (0.0, 0.0)),
        Action("drop", "etcd-node3", (0.0,)),
    )


def test_how_late_a_piece_is() -> None:
    calm, rng = LinkState(), random.Random(1)
    assert hold_back((calm, calm), rng) == 0
    assert hold_back((LinkState(delay_s=0.05), calm), rng) == 0.05
    assert hold_back((LinkState(delay_s=0.05), LinkState(delay_s=0.01)), rng) == pytest.approx(0.06)
    late = [hold_back((calm, LinkState(delay_s=0.05, jitter_s=0.02)), rng) for _ in range(500)]
    assert min(late) >= 0.03
    assert max(late) <= 0.07
    lost = [hold_back((calm, LinkState(drop=0.25)), rng) for _ in range(4000)]
    # One piece in four waits 200 ms, one in sixteen of them 400 ms more, and so on: 0.25*0.2 + 0.0625*0.4 + … = 0.1.
    assert statistics.mean(lost) == pytest.approx(0.1, rel=0.2)
    assert sum(each == 0 for each in lost) / len(lost) == pytest.approx(0.75, abs=0.03)


@pytest.mark.timing
def test_a_delay_below_a_millisecond_is_no_longer_than_that() -> None:
    """The least of many is meant: what takes longer may be the machine's."""
    port = take_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as behind:
        routes = {"etcd-node1": (port, behind.getsockname()[1])}
        with contextlib.closing(PeerRelay(routes)) as relay, socket.create_connection(("127.0.0.1", port)) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sendall(b"POST /raft HTTP/1.1\r\nX-Server-From: 1\r\n\r\n")
            member, _ = behind.accept()
            with member:
                member.recv(1024)
                times = {}
                for delay_s in (0.0, 200e-6):
                    relay.link_state("etcd-node1").delay_s = delay_s
                    times[delay_s] = [_way_s(peer, member) for _ in range(300)]
    assert min(times[200e-6]) >= 200e-6
    assert min(times[200e-6]) - min(times[0.0]) < 800e-6


def _way_s(source: socket.socket, sink: socket.socket) -> float:
    """Return how many seconds a byte is under way."""
    began = time.perf_counter()
    source.sendall(b"-")
    assert sink.recv(1) == b"-"
    return time.perf_counter() - began


def test_timeline(tmp_path: Path) -> None:
    timeline = Timeline(tmp_path / "deep" / "events.csv")
    assert timeline.read() == []
    timeline.add("begin", "kill", ["etcd-node1", "etcd-node2"])
    timeline.add("effect", "kill", ["etcd-node1"], "kill: etcd-node1; a, b")
    first, second = timeline.read()
    assert tuple(first) == COLUMNS
    assert (first["members"], second["detail"]) == ("etcd-node1 etcd-node2", "kill: etcd-node1; a, b")
    assert int(first["monotonic_ns"]) <= int(second["monotonic_ns"])
    assert first["time"].endswith("+00:00")


def test_what_ended_is_told_where_who_asked_first_was_ended() -> None:
    """Its answer comes before that to the next order, and the member has been started again."""
    member = {"member": "a", "said": "panic", "at_ns": 1, "by_itself": True, "started": True}
    answers = [
        {"number": 1, "answer": {"members": [member]}}, {"number": 2, "answer": {}},
        {"number": 3, "answer": {"members": []}}, {"number": 4, "answer": {"members": []}},
    ]  # fmt: skip
    says = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdout.write(sys.argv[1]); sys.stdout.flush(); sys.stdin.read()",
         "".join(json.dumps(answer) + "\n" for answer in answers)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    ask = Driver.ask

    def cut_short(self: Driver, order: str, **values: object) -> NoReturn:
        self._number += 1
        raise TimeoutError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(subprocess, "Popen", lambda *_, **__: says)
        driver = Driver()
        patched.setattr(Driver, "ask", cut_short)
        with pytest.raises(TimeoutError):
            driver.ended()
        patched.setattr(Driver, "ask", ask)
    with driver:
        driver.wait_healthy(1.0)
        assert [dict(each) for each in driver.ended()] == [member]
        assert driver.ended() == []
