"""The process that holds a cluster and breaks it by order: faults, their healing, and nothing left whoever ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.base.errors import ClusterError, EtcdNotFound, UsageError
from cluster.base.security import Security
from cluster.base.topology import DISK_METHODS, Member
from cluster.faults.driver import Driver, _Desk
from cluster.faults.kinds import KINDS, Fault, Kind, Request
from cluster.faults.nemesis import Nemesis
from cluster.faults.plan import plan_rounds
from cluster.local.cluster import LocalCluster
from cluster.observe import probe
from cluster.observe.leaderless import leaderless
from cluster.observe.log_times import parse_time
from cluster.observe.raftlog import read_log
from cluster.observe.timeline import Timeline, TimelineError
from tests.support.command import ROOT
from tests.support.etcds import each_etcd
from tests.support.processes import descendants, name_of
from tests.support.waiting import HANG_S, until

Leftovers = Callable[[float], set[str]]


def test_a_plan_is_carried_out_and_healed(tmp_path: Path, leftovers_after: Leftovers) -> None:
    names = ("kill-leader", "pause-follower", "isolate-random", "crash-all", "defrag", "transfer-leader")
    with Driver() as driver:
        held = driver.open("embedded", nodes=3, peer_links="relay", log_dir=str(tmp_path / "logs"),
                           timeline=str(tmp_path / "events.csv"))  # fmt: skip
        assert held.ours
        assert set(held.cannot) == set(DISK_METHODS)
        for each in plan_rounds(names, [member.name for member in held.members], every_s=1, count=6, seed=3):
            assert each.fault is not None
            effect = driver.inject(each.fault, each.seed)
            assert effect["members"], each
            driver.heal()
            driver.wait_healthy(HANG_S)
            assert not probe.why_unhealthy(held.members, 5.0)
    events = Timeline(tmp_path / "events.csv").read()
    assert len([row for row in events if row["phase"] == "begin" and row["fault"] != "heal"]) == 6
    begun = next(row for row in events if row["fault"] == "kill" and row["phase"] == "begin")
    healed = next(
        row for row in events if row["fault"] == "heal" and int(row["monotonic_ns"]) > int(begun["monotonic_ns"])
    )
    logs = [read_log((tmp_path / "logs" / f"etcd-node{n}.log").read_text().splitlines()) for n in (1, 2, 3)]
    begin, end = parse_time(begun["time"]), parse_time(healed["time"])
    (gap,) = leaderless(logs, begin, end, taken=True)
    assert gap.term is not None
    assert 0.3 < gap.duration_s < end - begin  # etcd's election timeout is a second
    assert not leftovers_after(60)


@pytest.mark.parametrize("etcd", each_etcd())
def test_who_leads_is_seen_while_etcd_shows_its_status_to_users_only(
    etcd: str, make_cluster: Callable[..., LocalCluster]
) -> None:
    cluster = make_cluster(3, binary=etcd, with_auth=True)
    cluster.log_in(Security())  # as somebody else has switched authentication on, of which the driver knows nothing
    led = cluster.leader()
    assert led is not None
    nemesis = Nemesis(cluster)
    effect = nemesis.inject(Fault("kill", "leader"))
    assert effect.members == (led.name,)
    assert effect.leader in {member.name for member in cluster.members} - {led.name}
    assert effect.leader in effect.text
    nemesis.heal()
    cluster.wait_healthy(HANG_S)
    for member in cluster.members:
        nemesis.inject(Fault("kill", member.name))
    assert cluster.leader() is None


def test_a_fault_of_the_leader_waits_out_an_election(make_cluster: Callable[..., LocalCluster]) -> None:
    cluster = make_cluster(3)
    led = cluster.leader()
    assert led is not None
    cluster.kill(led.name)
    nemesis = Nemesis(cluster)
    paused = nemesis.inject(Fault("pause", "leader"))
    assert {led.name, *paused.members} < {member.name for member in cluster.members}
    with pytest.raises(UsageError, match="there is no leader now"):  # nor can there be one
        nemesis.inject(Fault("kill", "leader"))


def test_a_member_that_ends_by_itself_is_named_once_and_started(leftovers_after: Leftovers, tmp_path: Path) -> None:
    def pids() -> list[int]:
        return [pid for pid in descendants(os.getpid()) if name_of(pid) == "etcd"]

    with Driver() as driver:
        driver.open("embedded", nodes=1, log_dir=str(tmp_path / "logs"))
        assert driver.ended() == []
        (pid,) = pids()
        os.kill(pid, signal.SIGKILL)
        # The keeper hears of it a moment later than we do.
        (ended,) = until(driver.ended, "the end of the member")
        assert (ended["member"], ended["by_itself"], ended["started"]) == ("etcd-node1", True, True)
        assert ended["at_ns"] <= time.monotonic_ns()
        driver.wait_healthy(HANG_S)
        assert driver.ended() == []
        driver.inject(Fault("kill", "etcd-node1"), 1)
        assert driver.ended() == []  # by order
        driver.heal()
        driver.wait_healthy(HANG_S)
        (pid,) = pids()
        os.kill(pid, signal.SIGKILL)
        assert [each["member"] for each in until(driver.ended, "the end of the member")] == ["etcd-node1"]
    assert not leftovers_after(60)


def test_a_member_ends_of_its_disk_by_a_fault_and_of_all_else_by_itself(tmp_path: Path) -> None:
    cluster = SimpleNamespace(members=[Member("m", "", "", "")], states=lambda: {"m": "down"}, log=lambda name: said)
    with contextlib.ExitStack() as stack:
        desk = _Desk(stack)
        desk._cluster = cluster  # type: ignore[assignment]
        desk._inject(SimpleNamespace(inject=lambda fault: SimpleNamespace(  # type: ignore[arg-type]
            members=("m",), began_ns=1, to_json=dict)), Fault("disk-full", "m"))  # fmt: skip
        said = '{"level":"fatal","msg":"failed to save","error":"write x.wal: no space left on device"}'
        assert desk.do("ended", {}) == {"members": []}
        said = "panic: runtime error: invalid memory address or nil pointer dereference"
        (ended,) = desk._ended()
        assert (ended["by_itself"], ended["started"], ended["said"]) == (True, False, said)
        assert desk._ended() == []


def test_a_member_that_cannot_be_started_again_is_named_once_with_the_others() -> None:
    def start(name: str) -> None:
        if name == "a":
            raise ClusterError("no process can be made")

    cluster = SimpleNamespace(states=lambda: {"a": "down", "b": "down"}, log=lambda name: "panic: no", start=start)
    with contextlib.ExitStack() as stack:
        desk = _Desk(stack)
        desk._cluster = cluster  # type: ignore[assignment]
        assert [(each["member"], each["started"]) for each in desk._ended()] == [("a", False), ("b", True)]
        cluster.states = lambda: {"a": "down", "b": "running"}
        assert desk._ended() == []


def test_a_new_record_is_a_fault_of_a_real_cluster(
    make_cluster: Callable[..., LocalCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "stun", Kind("stun", "freeze a member for a moment", ("pause", "resume")))
    hash_store = Request("/v3/maintenance/hash", "/etcdserverpb.Maintenance/Hash", "hash its store")
    lie = Request("/v3/maintenance/lie", "/etcdserverpb.Maintenance/Lie", "lie")
    monkeypatch.setitem(KINDS, "hash", Kind("hash", "have a member hash its store", ("hash",), request=hash_store))
    monkeypatch.setitem(KINDS, "lie", Kind("lie", "", ("lie",), request=lie))
    cluster = make_cluster(1)
    nemesis = Nemesis(cluster)
    for kind in ("stun", "hash"):
        effect = nemesis.inject(Fault(kind, "leader"))
        assert (effect.fault, effect.members, effect.leader) == (kind, ("etcd-node1",), "etcd-node1")
    assert cluster.states() == {"etcd-node1": "running"}
    with pytest.raises(ClusterError, match="etcd-node1 does not lie: "):
        nemesis.inject(Fault("lie", "all"))


def test_a_heal_says_what_it_could_not_write_itself(make_cluster: Callable[..., LocalCluster], tmp_path: Path) -> None:
    """Not what an earlier one could not."""
    blocked = tmp_path / "file"
    blocked.touch()
    nemesis = Nemesis(make_cluster(1), Timeline(blocked / "events.csv"))
    for _ in range(2):
        with pytest.raises(TimelineError, match="healed, but cannot write the timeline"):
            nemesis.heal()
    blocked.unlink()
    assert nemesis.heal().members == ()
    assert len(Timeline(blocked / "events.csv").read()) == 3


def test_errors_come_back_as_they_are(leftovers_after: Leftovers, tmp_path: Path) -> None:
    logs = tmp_path / "file" / "logs"
    logs.parent.touch()
    with Driver() as driver:
        with pytest.raises(EtcdNotFound, match="no etcd binary at /nowhere") as caught:
            driver.open("embedded", nodes=1, binary="/nowhere")
        assert caught.value.refers_to is None
        with pytest.raises(ClusterError, match=f"cannot write to the log folder {logs}") as refused:
            driver.open("embedded", nodes=1, log_dir=str(logs))
        assert refused.value.refers_to == logs
        driver.open("embedded", nodes=1)
        with pytest.raises(UsageError, match="no member"):
            driver.inject(Fault("kill", "etcd-node9"), 1)
        with pytest.raises(UsageError, match="--links relay"):
            driver.open("embedded", nodes=3)
            driver.inject(Fault("partition", "random"), 1)
        with pytest.raises(ClusterError, match="unknown order"):
            driver.ask("dance")
    with pytest.raises(ClusterError, match="gone"):
        driver.heal()
    assert not leftovers_after(60)


def test_a_killed_starter_leaves_nothing(leftovers_after: Leftovers) -> None:
    script = (
        "from cluster.faults.driver import Driver; from cluster.faults.kinds import Fault; import time\n"
        "d = Driver(); d.open('embedded', nodes=3); d.inject(Fault('pause', 'leader'), 1)\n"
        "print('paused', flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    with starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"paused\n"
        starter.send_signal(signal.SIGKILL)
    assert not leftovers_after(60)


def test_to_wait_for_health_reads_the_passwords_once() -> None:
    read = []

    class Ill:
        members = ()

        @property
        def security(self) -> Security:
            read.append(1)
            return Security()

    with contextlib.ExitStack() as stack:
        desk = _Desk(stack)
        desk._cluster = Ill()  # type: ignore[assignment]
        with pytest.raises(ClusterError, match=r"not healthy after 0\.2 s: the members do not agree on a leader"):
            desk.do("healthy", {"timeout_s": 0.2})
    assert read == [1]
