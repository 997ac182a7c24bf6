"""Rules for system calls, how long calls took, and why they cannot be trapped here."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.base.errors import ClusterError, UsageError
from cluster.local import seccomp, strike, strike_rules
from cluster.local.cluster import LocalCluster
from cluster.local.strike_rules import FOR_DISKS, FOR_EVER, Rule, RuleState, fail, hold, kill, named
from tests.support.command import ROOT

WAL, DB = "/d/member/wal/0000000000000001-0000000000002a51.wal", "/d/member/snap/db"


def _strikes(rule: Rule, *calls: tuple[str, tuple[str, ...]], every_s: float = 0.0) -> list[int]:
    """Return the numbers, from 1, of the calls that a rule strikes."""
    judged, struck = strike._Rule(1, rule.to_json()), []
    for number, (call, names) in enumerate(calls, 1):
        now = int(number * every_s * 1e9)
        if judged.is_about(call, names) and judged.counts(now):
            judged.note(call, names, now)
            struck.append(number)
    return struck


@pytest.mark.parametrize(
    ("file", "matched"),
    [
        (".wal", {WAL}), ("db", {DB}), ("*", {WAL, DB, "socket:[7]", "/d/member/snap/db.tmp.77"}),
        ("db*", {DB, "/d/member/snap/db.tmp.77"}), ("*/wal/*", {WAL}), ("socket*", {"socket:[7]"}), (".snap", set()),
    ],
)  # fmt: skip
def test_a_rule_is_about_files(file: str, matched: set[str]) -> None:
    paths = (WAL, DB, "socket:[7]", "/d/member/snap/db.tmp.77")
    assert {paths[n - 1] for n in _strikes(fail("sync", file), *(("fsync", (path,)) for path in paths))} == matched


def test_a_rename_is_of_both_its_names() -> None:
    call = ("rename", ("/d/member/snap/db.tmp.77", DB))
    assert _strikes(kill("rename", "db"), call) == [1]
    assert _strikes(kill("renameat", "db.tmp.*"), call) == [1]
    assert _strikes(kill("sync", "db"), call) == []


def test_a_rule_strikes_from_the_kth_call_on_so_often_or_for_so_long() -> None:
    calls = [("fdatasync", (WAL,)), ("fdatasync", (DB,))] * 6
    assert _strikes(fail("sync", ".wal"), *calls) == [1, 3, 5, 7, 9, 11]
    assert _strikes(fail("sync", ".wal", nth=3), *calls) == [5, 7, 9, 11]
    assert _strikes(fail("sync", ".wal", nth=3, times=2), *calls) == [5, 7]
    assert _strikes(kill("sync", ".wal", nth=3), *calls) == [5]
    assert _strikes(hold("sync", ".wal", 1.0, nth=2, for_s=0.4), *calls, every_s=0.1) == [3, 5, 7]


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (lambda: kill("open"), "no call to strike is named 'open': there are fsync, fdatasync, rename, write"),
        (lambda: kill(()), "needs a call"),
        (lambda: kill("sync", ""), "needs a call and a file"),
        (lambda: kill("sync", nth=0), "counts calls from 1"),
        (lambda: kill("sync", times=0), "once or more"),
        (lambda: hold("sync", hold_s=-1), "no negative time"),
        (lambda: hold("sync", for_s=float("nan")), "no negative time"),
        (lambda: hold("sync", hold_s=float("nan")), "no negative time"),
        (lambda: fail("sync", error="EVERYTHING"), "'EVERYTHING' is no error"),
        (lambda: Rule(("fsync",)), "holds calls, answers them with an error, or kills"),
        (lambda: hold("sync", then="EIO"), "EIO comes after a hold, and this one has no end"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule, reason: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=reason):
        rule()


def test_calls_have_short_names() -> None:
    assert named("sync") == ("fsync", "fdatasync")
    assert named(("renameat", "sync", "rename", "write")) == ("rename", "fsync", "fdatasync", "write")
    assert named("fsync, write") == ("fsync", "write")
    assert set(FOR_DISKS) <= set(seccomp.CALLS)


def test_a_rule_comes_back_as_it_was_set() -> None:
    rule = hold(("sync", "write"), ".wal", nth=2, for_s=9.0)
    judged = strike._Rule(5, json.loads(json.dumps(rule.to_json(), allow_nan=False)))
    judged.note("fsync", (WAL,), 77)
    state = RuleState.from_json(json.loads(json.dumps(judged.to_json(), allow_nan=False)))
    assert (state.id, state.rule, state.rule.hold_s) == (5, rule, FOR_EVER)
    assert state.strikes == (strike_rules.Struck("fsync", (WAL,), 77),)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (WAL, ".wal"), (DB, "db"), ("/d/member/snap/db.tmp.2391824", "db.tmp.*"), ("/d/member/wal/1.tmp", ".tmp"),
        ("/d/member/snap/0000000000000002-0000000000000007.snap", ".snap"), ("pipe:[9]", "pipe"), ("?", "?"),
        ("/d/member/snap/0000000000000007.snap.db", ".snap.db"), ("/d/member/wal", "wal"),
        ("anon_inode:[eventfd]", "anon_inode"), ("/d/member/wal/1.tmp (deleted)", ".tmp"), ("/", ""),
    ],
)  # fmt: skip
def test_files_have_few_kinds(path: str, kind: str) -> None:
    assert strike.kind_of_file(path) == kind


@given(st.lists(st.integers(1, 10**11), min_size=1, max_size=60), st.sampled_from([0.01, 0.5, 0.99, 1.0]))
def test_a_percentile_is_off_by_two_percent_at_most(took: list[int], share: float) -> None:
    times = strike._Times()
    for each in took:
        times.add(each)
    exact = sorted(took)[max(0, -int(-share * len(took) // 1) - 1)]
    assert times.at(share) == pytest.approx(exact / 1e9, rel=0.02)
    assert times.longest_ns == max(took)


def test_no_percentile_of_nothing() -> None:
    assert strike._Times().at(0.5) is None


# Where it does not work


@pytest.fixture
def fresh() -> None:
    """Have it tried anew."""
    seccomp.why_not.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_another_system_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert seccomp.why_not() == "seccomp user notifications need Linux, and this is Darwin"
    seccomp.why_not.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_another_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(seccomp, "_NUMBERS", {})
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert seccomp.why_not() == "system calls can be trapped on x86-64 and aarch64, and this is riscv64"
    seccomp.why_not.cache_clear()


def test_a_cluster_says_why_not_before_anything_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(seccomp, "why_not", lambda: "seccomp user notifications need Linux, and this is Darwin")
    cluster = LocalCluster(1, strikes=("sync",), data_dir=tmp_path / "data")
    with pytest.raises(ClusterError, match="cannot be trapped on this machine: seccomp user notifications need Linux"):
        cluster.start()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no system call to strike is named open"):
        LocalCluster(1, strikes=("open",))


def test_a_cluster_says_which_faults_of_disks_it_has() -> None:
    advice = "start the cluster with `--disk-faults`"
    assert advice in LocalCluster(1).cannot["slow_disk"]
    assert advice in LocalCluster(1, strikes=("sync",)).cannot["disk_full"]
    assert "slow_disk" not in LocalCluster(1, strikes=FOR_DISKS).cannot


REFUSED = """
import ctypes, sys
from cluster.local import seccomp
number = seccomp._NUMBERS[sys.argv[1]]
program = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | 1), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(seccomp._INSTRUCTION.pack(*each) for each in program))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(seccomp._Program(len(program), ctypes.addressof(code))), 0, 0) == 0
from cluster.base.errors import ClusterError
from cluster.local.cluster import LocalCluster
try:
    LocalCluster(1, strikes=("sync",)).start()
except ClusterError as exc:
    print(exc)
"""
BLIND = """
from cluster.local import seccomp
seccomp.paths = lambda trapped, call: ("?",)
print(seccomp.tried())
"""


def _printed(code: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.strikes
def test_a_kernel_that_refuses_is_named() -> None:
    """As a container does, or a kernel from before Linux 5.0."""
    assert _printed(REFUSED, "seccomp") == (
        f"system calls of members cannot be trapped on this machine: Linux {platform.release()} does not let an "
        "ordinary process trap system calls (Operation not permitted) (see docs/chaos.md)"
    )


@pytest.mark.strikes
def test_a_proc_that_does_not_tell_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a yama that lets no process look into its children."""
    assert "/proc does not tell the files of process" in _printed(BLIND)


@pytest.mark.strikes
def test_it_works_here() -> None:
    assert seccomp.why_not() == ""
