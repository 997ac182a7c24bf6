"""`raftload chaos` from outside: what it finds in an etcd with bugs, what it says of one without, its manners."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.binary import find_etcd
from cluster.bugs import known_bug
from cluster.local import LocalCluster
from loadgen import schema
from loadgen.etcd import EtcdClient
from tests.support import command

ROOT = Path(__file__).resolve().parents[2]
Leftovers = Callable[[float], set[str]]


def _chaos(*options: str, etcd: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({"RAFTLOAD_ETCD": etcd} if etcd else {})}
    return subprocess.run(
        [sys.executable, "-m", "loadgen.cli", "chaos", *options],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


def _result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(done.stdout)
    assert schema.problem(result, "result") is None
    return result


def _broken(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in result["check"]["guarantees"] if row["verdict"] == "fail"}


def _needs_bug(binary: str, issue: int) -> None:
    version = find_etcd(binary).version
    if known_bug(issue, version) is None:
        pytest.skip(f"etcd {version} does not have etcd#{issue}")


# What it finds


def test_it_finds_members_that_part_for_ever(etcd_binary: str, tmp_path: Path, leftovers_after: Leftovers) -> None:
    _needs_bug(etcd_binary, 18667)
    folder = tmp_path / "run"
    done = _chaos("--track", "18667", "--corrupting", "--json", "--output", str(folder), etcd=etcd_binary)
    assert done.returncode == 1, done.stderr
    assert "has etcd#18667" in done.stderr
    result = _result(done)
    assert result["verdict"] == "fail"
    assert result["chaos"]["corrupting"]
    broken = _broken(result)
    # The member that was asked wrote nothing and the others did: what they hold differs.
    assert {"convergence.keys", "kv.failed"} & set(broken)
    assert "has been compacted" in json.dumps(broken) or "convergence.keys" in broken
    assert json.loads((folder / "result.json").read_text())["check"]["verdict"] == "fail"
    again = subprocess.run([sys.executable, "-m", "loadgen.cli", "check", str(folder)], cwd=ROOT, capture_output=True,
                           text=True, timeout=60, check=False)  # fmt: skip
    assert again.returncode == 1
    assert "is broken" in again.stdout
    assert not leftovers_after(5)


def test_it_finds_progress_ahead_of_events(etcd_binary: str, tmp_path: Path) -> None:
    _needs_bug(etcd_binary, 15220)
    done = _chaos("--track", "15220", "--duration", "6s", "--concurrency", "30", "--json", "--output",
                  str(tmp_path / "run"), "--guarantee", "watch.bookmarkable", etcd=etcd_binary)  # fmt: skip
    assert done.returncode == 1, done.stderr
    broken = _broken(_result(done))
    assert set(broken) == {"watch.bookmarkable"}
    assert "was told that all events up to revision" in broken["watch.bookmarkable"]["violations"][0]["text"]


# What it says of an etcd without bugs


def test_a_healthy_cluster_passes(fixed_etcd: str, tmp_path: Path, leftovers_after: Leftovers) -> None:
    folder = tmp_path / "run"
    faults = "kill-leader,isolate-random,compact,pause-follower,crash-random"
    done = _chaos("--faults", faults, "--every", "2s", "--rounds", "5", "--concurrency", "12", "--json", "--output",
                  str(folder), etcd=fixed_etcd)  # fmt: skip
    result = _result(done)
    assert (done.returncode, result["verdict"]) == (0, "pass"), result["verdict_reasons"]
    rounds = result["chaos"]["faults"]
    assert sorted(row["fault"] for row in rounds) == sorted(faults.split(","))
    killed = next(row for row in rounds if row["fault"] == "kill-leader")
    # etcd's election timeout is a second, and nobody can be acknowledged a write without a leader.
    assert 0.3 < killed["leaderless_s"] <= killed["longest_gap_s"] + 0.5
    assert killed["before"]["throughput_ops_s"] > killed["during"]["throughput_ops_s"]
    with (folder / "events.csv").open(newline="") as file:
        begun = [row for row in csv.DictReader(file) if row["phase"] == "begin" and row["fault"] != "heal"]
    assert len(begun) == 4  # a compaction is a request
    assert "kill-leader" in (folder / "report.html").read_text()
    assert [int(row["monotonic_ns"]) for row in begun] == sorted(int(row["monotonic_ns"]) for row in begun)
    assert not leftovers_after(5)


def test_the_same_traffic_without_corrupting_passes(fixed_etcd: str, tmp_path: Path) -> None:
    done = _chaos("--track", "18667", "--json", "--output", str(tmp_path / "run"), etcd=fixed_etcd)
    result = _result(done)
    assert (done.returncode, result["verdict"]) == (0, "pass"), result["verdict_reasons"]


# Somebody's cluster


def test_foreign_endpoints_are_loaded_and_checked_and_left_as_they_were(
    etcd_cluster: LocalCluster, tmp_path: Path
) -> None:
    with_scheme = ",".join(etcd_cluster.endpoints)
    statuses = [status for status in etcd_cluster.statuses() if status]
    done = _chaos("--endpoints", with_scheme, "--duration", "2s", "--concurrency", "6", "--json", "--output",
                  str(tmp_path / "run"))  # fmt: skip
    result = _result(done)
    assert result["chaos"]["faults"] == []
    assert not set(_broken(result)) - {"watch.bookmarkable"}, _broken(result)  # etcd#15220
    assert result["target"]["kind"] == "external"
    assert [status.term for status in etcd_cluster.statuses() if status] == [status.term for status in statuses]
    client = EtcdClient(etcd_cluster.endpoints[:1])
    prefix = result["run"]["prefix"].encode()
    assert client.range(prefix, prefix[:-1] + b"0", count_only=True).response.count == 0
    client.close()


# Manners


def test_interrupted_it_heals_checks_what_ran_and_leaves_nothing(tmp_path: Path, leftovers_after: Leftovers) -> None:
    folder = tmp_path / "run"
    words = ("--faults", "pause-leader", "--every", "1s", "--rounds", "100", "--concurrency", "6")
    with command.start("chaos", *words, "--output", str(folder), cwd=tmp_path) as process:
        events = folder / "events.csv"
        deadline = time.monotonic() + 60
        while not (events.exists() and "pause" in events.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "verdict" in output
    assert not leftovers_after(5)


def test_interrupted_before_there_is_load_it_ends_at_once(tmp_path: Path, leftovers_after: Leftovers) -> None:
    folder = tmp_path / "run"
    with command.start("chaos", "--rounds", "2", "--output", str(folder), cwd=tmp_path) as process:
        deadline = time.monotonic() + 60
        while not (folder / "history").exists() and time.monotonic() < deadline:
            time.sleep(0.002)  # it is made before the keys are
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    assert "interrupted before there was a result" in errors
    assert not leftovers_after(5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--faults", "explode-leader"), "there is no fault 'explode-leader'"),
        (("--endpoints", "127.0.0.1:1", "--rounds", "3"), "--rounds is for clusters of ours"),
        (("--endpoints", "127.0.0.1:1", "--corrupting"), "--corrupting breaks a cluster for ever"),
        (("--cluster", "local", "--corrupting"), "--corrupting breaks a cluster for ever"),
        (("--endpoints", "127.0.0.1:1", "--cluster", "docker"), "exclude each other"),
        (("--faults", ""), "needs a --duration"),
        (("--guarantee", "hope"), "no guarantee 'hope'"),
        (("--every", "soon"), "--every"),
        (("--nodes", "1", "--faults", "isolate-random"), "more than one member"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_code_2(
    options: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    done = _chaos(*options, "--output", str(folder))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not folder.exists()


def test_an_unreachable_cluster_is_the_environments_fault(tmp_path: Path) -> None:
    done = _chaos("--endpoints", "127.0.0.1:1", "--duration", "1s", "--output", str(tmp_path / "run"))
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
