"""Strikes at system calls of real members: held, failed, killed at them, timed, and nothing left whoever ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.base.errors import ClusterError, RaftloadError, UsageError
from cluster.faults import nemesis as nemeses
from cluster.faults.kinds import Fault
from cluster.faults.nemesis import Nemesis
from cluster.gateway.control import ControlClient
from cluster.local import seccomp
from cluster.local.cluster import LocalCluster
from cluster.local.strike_keeper import Striker
from cluster.local.strike_rules import FOR_DISKS, Rule, RuleState, fail, hold, kill
from loadgen import schema
from tests.support import command
from tests.support.command import ROOT, ClusterCommands
from tests.support.ports import take_ports
from tests.support.processes import runs
from tests.support.waiting import HANG_S, until

Leftovers = Callable[[float], set[str]]
NAME = "etcd-node1"
pytestmark = pytest.mark.strikes


@pytest.fixture(scope="module")
def member(etcd_binary: str) -> Iterator[LocalCluster]:
    """One member whose calls are trapped, all that can be. Its garbage collector interrupts threads all the time."""
    env = {**os.environ, "GOGC": "1"}
    with LocalCluster(1, binary=etcd_binary, strikes=seccomp.CALLS, timed=True, env=env) as cluster:
        yield cluster


@pytest.fixture
def struck(member: LocalCluster) -> Iterator[LocalCluster]:
    """The same, healthy and without rules."""
    yield member
    member.clear_strikes(NAME)
    if not member.is_running(NAME):
        member.start(NAME)
    member.wait_healthy(HANG_S)


@contextlib.contextmanager
def writing(cluster: LocalCluster) -> Iterator[None]:
    """Put keys at every member for the length of a block, whatever comes of it."""
    stop = threading.Event()

    def write(endpoint: str) -> None:
        while not stop.wait(0.01):
            with contextlib.suppress(RaftloadError), ControlClient(endpoint, timeout_s=2) as client:
                while not stop.wait(0.01):
                    client.put(b"key", b"value")

    threads = [threading.Thread(target=write, args=(endpoint,)) for endpoint in cluster.endpoints]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def put(cluster: LocalCluster) -> None:
    with ControlClient(cluster.endpoints[0]) as client:
        client.put(b"key", b"value")


def struck_by(cluster: LocalCluster, rule: Rule) -> RuleState:
    """Write until a rule has struck, and return what became of it."""
    number = cluster.strike(NAME, rule)
    with writing(cluster):
        return cluster.wait_struck(NAME, number, timeout_s=HANG_S)


# What a rule does


def test_a_call_is_held_until_its_rule_is_cleared_and_others_go_on(struck: LocalCluster) -> None:
    number = struck.strike(NAME, hold("fdatasync", ".wal"))
    with writing(struck):
        until(lambda: struck.rules(NAME)[number].held == 1)
        with ControlClient(struck.endpoints[0]) as client:
            client.get(b"key", serializable=True)
        other = struck.strike(NAME, hold("write", "socket*", 0.001))
        struck.wait_struck(NAME, other, timeout_s=HANG_S)
        struck.clear_strikes(NAME, other)
        assert struck.rules(NAME)[number].held == 1
        struck.clear_strikes(NAME, number)
        before = struck.timings(NAME)["fdatasync", ".wal"].count
        until(lambda: struck.timings(NAME)["fdatasync", ".wal"].count > before)
    assert struck.rules(NAME) == {}
    put(struck)


def test_a_call_is_held_for_a_time(struck: LocalCluster) -> None:
    state = struck_by(struck, hold("fdatasync", ".wal", 0.7, times=1))
    (strike,) = state.strikes
    assert (strike.call, state.struck) == ("fdatasync", 1)
    assert strike.paths[0].endswith(".wal")
    assert strike.at_ns <= time.monotonic_ns()
    put(struck)
    longest = until(lambda: (struck.timings(NAME)["fdatasync", ".wal"].max_s or 0) >= 0.7)
    assert longest


def test_a_call_is_held_for_longer_than_a_poll_can_wait(struck: LocalCluster) -> None:
    number = struck.strike(NAME, hold("fdatasync", ".wal", 1e9))
    with writing(struck):
        until(lambda: struck.rules(NAME)[number].held)
        struck.clear_strikes(NAME, number)
    put(struck)


def test_syncs_are_timed_and_every_call_is_counted(struck: LocalCluster) -> None:
    before = dict(struck.timings(NAME))
    for _ in range(10):
        put(struck)
    timings = struck.timings(NAME)
    syncs = timings["fdatasync", ".wal"]
    assert syncs.count >= before["fdatasync", ".wal"].count + 10
    assert syncs.timed == syncs.count
    assert syncs.p50_s is not None and syncs.p99_s is not None and syncs.max_s is not None
    assert 0 < syncs.p50_s <= syncs.p99_s <= syncs.max_s
    writes = timings["write", ".wal"]
    assert (writes.timed, writes.p50_s) == (0, None)
    assert writes.count >= before["write", ".wal"].count + 10
    assert {("rename", "wal"), ("pwrite64", "db"), ("write", "socket")} <= timings.keys()


@pytest.mark.parametrize("rule", [fail("sync", ".wal"), fail("pwrite64", "db", "ENOSPC")], ids=["EIO", "ENOSPC"])
def test_a_call_is_answered_with_an_error_on_which_etcd_ends_itself(struck: LocalCluster, rule: Rule) -> None:
    struck_by(struck, rule)
    until(lambda: not struck.is_running(NAME))
    words = {"EIO": "input/output error", "ENOSPC": "no space left on device"}
    assert words[rule.then] in struck.log(NAME).read_text().rpartition('"level":"fatal"')[2]


def test_a_member_is_killed_at_the_kth_call_and_rules_outlive_it(struck: LocalCluster) -> None:
    slow = struck.strike(NAME, hold("fdatasync", "db", 0.001))
    state = struck_by(struck, kill("fdatasync", "db", nth=7))
    assert (state.seen, state.struck) == (7, 1)
    assert not struck.is_running(NAME)
    before = struck.rules(NAME)[slow]
    struck.start(NAME)
    struck.wait_healthy(HANG_S)
    with writing(struck):
        until(lambda: struck.rules(NAME)[slow].struck > before.struck)
        until(lambda: struck.rules(NAME)[state.id].seen > 8)
    assert struck.rules(NAME)[state.id].struck == 1, "it is used up"
    assert struck.is_running(NAME)


def test_a_member_is_killed_at_the_rename_of_its_defragmentation(struck: LocalCluster) -> None:
    number = struck.strike(NAME, kill("rename", "db"))
    with pytest.raises(ClusterError):
        Nemesis(struck, wait_s=HANG_S).inject(Fault("defrag", NAME))
    (strike,) = struck.wait_struck(NAME, number, timeout_s=HANG_S).strikes
    old, new = strike.paths
    assert "db.tmp" in old
    assert new.endswith("/snap/db")
    assert Path(new).exists()
    assert Path(old).exists(), "the rename was not done"


def test_a_rule_is_told_what_it_needs(struck: LocalCluster, etcd_single: LocalCluster) -> None:
    with pytest.raises(KeyError):
        struck.strike("etcd-node9", kill("sync"))
    with pytest.raises(ClusterError, match="no rule 77"):
        struck.clear_strikes(NAME, 77)
    with pytest.raises(ClusterError, match="are not trapped"):
        etcd_single.strike(NAME, kill("sync"))
    number = struck.strike(NAME, kill("rename", "no such file"))
    with pytest.raises(ClusterError, match=r"struck 0 of 0 calls of etcd-node1 in 0\.1 s"):
        struck.wait_struck(NAME, number, timeout_s=0.1)


def test_a_member_is_paused_and_killed_while_a_call_is_held(struck: LocalCluster) -> None:
    number = struck.strike(NAME, hold("sync"))
    with writing(struck):
        until(lambda: struck.rules(NAME)[number].held)
        struck.pause(NAME)
        struck.resume(NAME)
        struck.kill(NAME)
    until(lambda: not struck.rules(NAME)[number].held)
    assert not struck.is_running(NAME)


# A call that signals interrupt

INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
for _ in range(200):
    os.write(file, b".")
    os.fdatasync(file)
signal.setitimer(signal.ITIMER_REAL, 0)  # at its end Python takes the handler away
"""


@pytest.mark.parametrize("timed", [False, True], ids=["plain", "timed"])
@pytest.mark.parametrize("killable", [0, 1 << 5], ids=["old kernel", "this kernel"])
def test_an_interrupted_call_is_one_call(
    killable: int, timed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 5.19 each signal, of which there are some in every call here, has it notified anew."""
    monkeypatch.setattr(seccomp, "_WAIT_KILLABLE", killable)
    striker = Striker(["fdatasync"], timed=timed)
    try:
        rule = hold("fdatasync", ".wal", 0.05, nth=10, times=5)
        striker.ask({"op": "add", "rule": rule.to_json()})
        assert _start(striker, INTERRUPTED, str(tmp_path / "a.wal")).wait(HANG_S) == 0
        (seen,) = json.loads(striker.ask({"op": "rules"}))["rules"]
        (times,) = json.loads(striker.ask({"op": "timings"}))["timings"]
        assert (seen["seen"], seen["struck"], seen["held"], times["count"]) == (200, 5, 0, 200)
        assert times["timed"] == (200 if timed else 0)
    finally:
        striker.close()


def _start(striker: Striker, code: str, *words: str) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-c", code, *words],
            preexec_fn=striker.in_child(None),  # noqa: PLW1509 (as the keeper, which has one thread)
        )
    finally:
        striker.started()


def test_a_member_that_cannot_be_trapped_does_not_start_and_the_next_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    striker = Striker(["write"], timed=False)
    try:
        with monkeypatch.context() as patch, pytest.raises(subprocess.SubprocessError):
            patch.setattr(striker, "_install", lambda: os.open("/", os.O_WRONLY))
            _start(striker, "")
        assert _start(striker, "print(1)").wait(HANG_S) == 0
        os.kill(striker.pid, signal.SIGKILL)
        until(lambda: not striker.is_alive)
        assert _start(striker, "").wait(HANG_S) == 1, "nobody answers its calls"
        with pytest.raises(ConnectionError, match="the process that strikes it is gone"):
            striker.ask({"op": "rules"})
    finally:
        striker.close()


# Whoever ends


def _process(leftovers: set[str], word: str) -> int:
    return int(next(line for line in leftovers if word in line).split()[1].rstrip(":"))


def test_a_member_ends_with_the_process_that_answers_its_calls(etcd_binary: str, leftovers_after: Leftovers) -> None:
    with LocalCluster(1, binary=etcd_binary, strikes=("sync",)) as cluster:
        number = cluster.strike(NAME, hold("sync"))
        with writing(cluster):
            until(lambda: cluster.rules(NAME)[number].held)
            os.kill(_process(leftovers_after(0), "strike import main"), signal.SIGKILL)
            until(lambda: not cluster.is_running(NAME))
        with pytest.raises(ClusterError, match="the process that answers its system calls has ended"):
            cluster.rules(NAME)
        cluster.start(NAME)
        cluster.wait_healthy(HANG_S)
        assert cluster.rules(NAME) == {}
        put(cluster)
    assert not leftovers_after(60)


OWNER = """
import sys, time
from cluster.local.cluster import LocalCluster
from cluster.local.strike_rules import hold
with LocalCluster(1, binary=sys.argv[1], strikes=("sync",)) as cluster:
    rule = cluster.strike("etcd-node1", hold("sync"))
    while not cluster.rules("etcd-node1")[rule].held:
        from cluster.gateway.control import ControlClient
        try:
            with ControlClient(cluster.endpoints[0], timeout_s=0.5) as client:
                client.put(b"key", b"value")
        except Exception:
            pass
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("whom", ["owner", "keeper", "both"])
def test_nothing_is_left_or_stopped_when_one_is_killed_while_a_call_is_held(
    whom: str, etcd_binary: str, leftovers_after: Leftovers
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, etcd_binary], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        cwd=ROOT, start_new_session=True,
    ) as owner:  # fmt: skip
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "up\n"
            there = leftovers_after(0)
            member, keeper = _process(there, "--listen-client-urls"), _process(there, "keeper.py")
            if whom in ("keeper", "both"):
                os.kill(keeper, signal.SIGKILL)
            if whom in ("owner", "both"):
                owner.kill()
            until(lambda: not runs(member))
        finally:
            owner.kill()
    left = leftovers_after(60 if whom == "owner" else 1)
    # Where the keeper is killed and its owner does not come to it, the next keeper removes the folder.
    folders = [line.partition(" ")[2] for line in left if line.startswith("folder") and whom != "owner"]
    for folder in folders:
        shutil.rmtree(folder)
    assert len(left) == len(folders), left


# Faults of disks


@pytest.fixture(scope="module")
def three(fixed_etcd: str) -> Iterator[LocalCluster]:
    with LocalCluster(3, binary=fixed_etcd, strikes=FOR_DISKS) as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("kind", "target", "state"),
    [
        ("slow-disk", "all", "running"),
        ("stuck-disk", "leader", "running"),
        ("disk-error", "follower", "down"),
        ("disk-full", "leader", "down"),
        ("stuck-disk", "all", "running"),
        ("disk-error", "all", "down"),
    ],
)
def test_a_fault_of_disks_is_seen_and_healed(
    kind: str, target: str, state: str, three: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nemeses, "_STRUCK_S", HANG_S)  # somebody writes all the time
    nemesis = Nemesis(three, wait_s=HANG_S)
    with writing(three):
        effect = nemesis.inject(Fault(kind, target, {"by": 0.02} if kind == "slow-disk" else {}))
        disks = three.disks()
        assert set(disks) == set(effect.members)
        assert all(disk["struck"] for disk in disks.values()), effect.text
        assert {three.states()[name] for name in effect.members} == {state}
        if target == "leader":
            assert effect.leader not in (effect.before, None)
        assert effect.quorum == (target != "all" or kind == "slow-disk")
        with pytest.raises(UsageError, match=r"the disk of etcd-node\d is (slow|stuck) already|is down already"):
            nemesis.inject(Fault("stuck-disk", effect.members[0]))
        healed = nemesis.heal()
    assert healed.leader is not None
    assert three.disks() == {}
    three.wait_healthy(HANG_S)
    put(three)


def test_a_disk_that_nobody_writes_to_shows_nothing_yet(three: LocalCluster) -> None:
    nemesis = Nemesis(three, wait_s=0.3)

    def is_idle() -> bool:
        counts = [timing.count for timing in three.timings("etcd-node2").values()]
        time.sleep(0.5)
        return counts == [timing.count for timing in three.timings("etcd-node2").values()]

    until(is_idle)
    effect = nemesis.inject(Fault("disk-full", "etcd-node2"))
    assert effect.text.endswith("not every member has met it yet, which takes a write")
    assert effect.quorum
    nemesis.heal()
    assert set(three.states().values()) == {"running"}
    assert three.disks() == {}


# As commands


def test_the_commands_refuse_do_and_heal(tmp_path: Path, leftovers_after: Leftovers) -> None:
    raftload = ClusterCommands(tmp_path)
    up = ("up", "--backend", "local", "--nodes", "3", "--base-port", str(take_ports(3)))
    refused = raftload.run("up", "--disk-faults", code=2).stderr
    assert "--disk-faults is for members that are processes: give --backend local, too\n" in refused
    assert raftload.json(*up)["disk_faults"] is False
    try:
        refused = raftload.run("slow-disk", "leader", "--by", "50ms", code=2).stderr
        assert "start it with `raftload cluster up --backend local --disk-faults`" in refused
        assert refused.count("\n") == 1
        made = raftload.run(*up, "--disk-faults").stderr
        assert "replacing the cluster that is there (without --disk-faults)" in made
        assert raftload.json(*up)["done"] == "found"
        done = raftload.json("stuck-disk", "etcd-node2", "--wait", "300ms")
        assert (done["members"], done["quorum"]) == (["etcd-node2"], True)
        status = raftload.run("status").stdout
        assert "running, disk stuck" in status
        assert {each["name"]: each["disk"] for each in raftload.json("status")["members"]} == {
            "etcd-node1": None, "etcd-node2": "stuck", "etcd-node3": None,
        }  # fmt: skip
        assert raftload.json("heal")["members"] == ["etcd-node2"]
        assert raftload.run("heal").stdout.startswith("nothing to heal")
    finally:
        raftload.run("down")
    assert not leftovers_after(60)


def test_a_campaign_of_faults_of_disks_is_clean_and_in_the_report(
    fixed_etcd: str, tmp_path: Path, leftovers_after: Leftovers
) -> None:
    faults = "stuck-disk-leader,disk-full-follower"
    done = command.run(
        "chaos", "--faults", faults, "--every", "1s", "--rounds", "2", "--concurrency", "6", "--json", "--workers", "1",
        "--output", "run", cwd=tmp_path, timeout_s=300, RAFTLOAD_ETCD=fixed_etcd,
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert schema.problem(result, "result") is None
    assert (done.returncode, result["verdict"]) == (0, "pass"), result["verdict_reasons"]
    rows = {row["fault"]: row for row in result["chaos"]["faults"]}
    assert set(rows) == set(faults.split(","))
    assert all(name in (tmp_path / "run" / "report.html").read_text() for name in rows)
    assert "leaving out" not in done.stderr
    assert not leftovers_after(60)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_campaign_that_is_ended_while_disks_are_stuck_leaves_nothing(
    number: signal.Signals, code: int, fixed_etcd: str, tmp_path: Path, leftovers_after: Leftovers
) -> None:
    words = ("--faults", "stuck-disk-all", "--every", "1s", "--rounds", "100", "--concurrency", "6", "--workers", "1")
    with command.start("chaos", *words, "--output", "run", cwd=tmp_path, RAFTLOAD_ETCD=fixed_etcd) as process:
        events = tmp_path / "run" / "events.csv"
        until(lambda: process.poll() is not None or (events.exists() and "effect,stuck-disk" in events.read_text()))
        process.send_signal(number)
        output, errors = process.communicate(timeout=240)
    assert process.returncode == code, errors
    assert ("verdict" in output) is (number == signal.SIGTERM)
    assert not leftovers_after(60)
