"""`raftload chaos` from outside: what it finds in an etcd with bugs, what it says of one without, its manners."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.base.errors import ClusterError
from cluster.base.known_bugs import known_bug
from cluster.local.cluster import LocalCluster
from loadgen import schema
from loadgen.chaos.actor_kinds import KINDS
from loadgen.chaos.master_client import MasterClient
from loadgen.chaos.traffic import Shape
from loadgen.client.etcd import EtcdClient
from loadgen.history.operation import Outcome
from loadgen.history.writer import HistoryWriter
from loadgen.run import master_history
from loadgen.run.master_history import MasterHistory
from tests.support import command
from tests.support.ports import take_ports
from tests.support.processes import arguments, children, descendants, name_of, runs
from tests.support.waiting import HANG_S, until

Leftovers = Callable[[float], set[str]]
# A run of faults that goes on until it is ended.
PAUSES = ("--faults", "pause-leader", "--every", "1s", "--rounds", "100", "--concurrency", "6")


def _chaos(folder: Path, *options: str, etcd: str = "", workers: int = 1) -> subprocess.CompletedProcess[str]:
    """Return a run whose folder is ``run`` in this one."""
    env = {"RAFTLOAD_ETCD": etcd} if etcd else {}
    words = ("--workers", str(workers), "--output", str(folder / "run"))
    return command.run("chaos", *options, *words, cwd=folder, timeout_s=300, **env)


@contextlib.contextmanager
def _started(
    folder: Path, *options: str, cwd: Path, file: str = "events.csv", word: str = "pause"
) -> Iterator[subprocess.Popen[str]]:
    """Yield a command once a file in its run folder has this word, or it has ended: by default, once a fault is on."""
    words = ("--workers", "1", "--output", str(folder))
    with command.start("chaos", *options, *words, cwd=cwd) as process:
        read = folder / file
        until(lambda: process.poll() is not None or (read.exists() and word in read.read_text()), f"{word} in {file}")
        yield process


def _result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(done.stdout)
    assert schema.problem(result, "result") is None
    return result


def _broken(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in result["check"]["guarantees"] if row["verdict"] == "fail"}


# What it finds, and what it says of an etcd without bugs: in a group of their own, to balance the workers

CAMPAIGNS = pytest.mark.xdist_group("chaos-campaigns")


@CAMPAIGNS
def test_it_finds_members_that_part_for_ever(wheel_etcd: str, tmp_path: Path, leftovers_after: Leftovers) -> None:
    done = _chaos(tmp_path, "--track", "18667", "--corrupting", "--json", etcd=wheel_etcd)
    assert done.returncode == 1, done.stderr
    assert "has etcd#18667" in done.stderr
    result = _result(done)
    assert result["verdict"] == "fail"
    assert result["chaos"]["corrupting"]
    broken = _broken(result)
    # The member that was asked wrote nothing and the others did: what they hold differs.
    assert {"convergence.keys", "kv.failed"} & set(broken)
    assert "has been compacted" in json.dumps(broken) or "convergence.keys" in broken
    assert json.loads((tmp_path / "run" / "result.json").read_text())["check"]["verdict"] == "fail"
    again = command.run("check", str(tmp_path / "run"), cwd=tmp_path)
    assert again.returncode == 1
    assert "etcd#18667 (fixed in 3.7.0), " in again.stdout and " is broken" not in again.stdout
    assert not leftovers_after(60)


@CAMPAIGNS
def test_it_finds_progress_ahead_of_events(wheel_etcd: str, tmp_path: Path) -> None:
    done = _chaos(tmp_path, "--track", "15220", "--duration", "6s", "--concurrency", "30", "--json",
                  "--guarantee", "watch.bookmarkable", etcd=wheel_etcd, workers=2)  # fmt: skip
    assert done.returncode == 1, done.stderr
    broken = _broken(_result(done))
    assert set(broken) == {"watch.bookmarkable"}
    assert "was told that all events up to revision" in broken["watch.bookmarkable"]["violations"][0]["text"]
    check = json.loads(done.stdout)["check"]
    assert check["news"] == []
    (bug,) = check["explained"]
    assert (bug["bug"], bug["places"]) == ("etcd#15220", broken["watch.bookmarkable"]["broken"])
    text = command.run("check", str(tmp_path / "run"), "--guarantee", "watch.bookmarkable", cwd=tmp_path)
    assert text.returncode == 1
    assert "No news: each violation is of a known bug:\n  etcd#15220 (fixed in 3.4.25, 3.5.8), " in text.stdout


@CAMPAIGNS
def test_a_healthy_cluster_passes(fixed_etcd: str, tmp_path: Path, leftovers_after: Leftovers) -> None:
    folder = tmp_path / "run"
    faults = "kill-leader,isolate-random,compact,pause-follower,crash-random"
    done = _chaos(tmp_path, "--faults", faults, "--every", "2s", "--rounds", "5", "--concurrency", "12", "--json",
                  etcd=fixed_etcd, workers=2)  # fmt: skip
    result = _result(done)
    assert (done.returncode, result["verdict"]) == (0, "pass"), result["verdict_reasons"]
    rounds = result["chaos"]["faults"]
    assert sorted(row["fault"] for row in rounds) == sorted(faults.split(","))
    killed = next(row for row in rounds if row["fault"] == "kill-leader")
    # etcd's election timeout is a second, and nobody can be acknowledged a write without a leader.
    assert 0.3 < killed["leaderless_s"] <= killed["healthy_s"]
    assert killed["longest_gap_s"] > 0.3
    assert killed["before"]["throughput_ops_s"] > killed["during"]["throughput_ops_s"]
    with (folder / "events.csv").open(newline="") as file:
        begun = [row for row in csv.DictReader(file) if row["phase"] == "begin" and row["fault"] != "heal"]
    assert len(begun) == 4  # a compaction is a request
    assert "kill-leader" in (folder / "report.html").read_text()
    assert [int(row["monotonic_ns"]) for row in begun] == sorted(int(row["monotonic_ns"]) for row in begun)
    # One clock: a round began when its event did.
    times = [row["began_ns"] for row in rounds if row["fault"] != "compact"]
    assert all(0 <= began - int(row["monotonic_ns"]) < 1e9 for began, row in zip(times, begun, strict=True))
    # Each operation is in one place, with the same outcome as in the results.
    places = [result["chaos"]["earlier"], *(row[part] for row in rounds for part in ("during", "after"))]
    total = result["results"]["total"]
    assert sum(each["operations"] for each in places) == total["operations"]
    assert sum(each["failed"] + each["unknown"] for each in places) == total["failed"]
    assert sum(each["unknown"] for each in places) == total["info"]
    assert result["check"]["environment"] == {"RAFTLOAD_ETCD": fixed_etcd}
    again = command.run("check", str(folder), cwd=tmp_path).stdout
    assert f"repeat     RAFTLOAD_ETCD={shlex.quote(fixed_etcd)} raftload chaos --faults {faults} " in again
    assert " --seed 1\n" in again and "--output" not in again
    assert f"etcd       {result['target']['etcd_version']}\n" in again
    assert not leftovers_after(60)


@CAMPAIGNS
def test_actors_act_beside_the_load_and_are_checked(fixed_etcd: str, tmp_path: Path) -> None:
    words = ("--actors", "all", "--faults", "", "--duration", "15s", "--json")
    done = _chaos(tmp_path, *words, etcd=fixed_etcd)
    result = _result(done)
    # Of the newest 3.5: users and a full store meet etcd#22386 where luck has it.
    assert not result["check"]["news"], result["check"]
    assert {bug["bug"] for bug in result["check"]["explained"]} <= {"etcd#22386", "etcd#22134"}
    assert set(result["chaos"]["actors"]) == set(KINDS)
    assert all(turns for turns in result["chaos"]["actors"].values()), result["chaos"]["actors"]
    verdicts = {each["name"]: each["verdict"] for each in result["check"]["guarantees"]}
    for rule in ("auth.denied", "auth.anonymous", "member.role", "alarm.nospace"):
        assert verdicts[rule] in ("pass", "fail")
    assert (tmp_path / "run" / "calls.jsonl").is_file()


def test_the_same_traffic_without_corrupting_passes(fixed_etcd: str, tmp_path: Path) -> None:
    done = _chaos(tmp_path, "--track", "18667", "--json", etcd=fixed_etcd)
    result = _result(done)
    assert (done.returncode, result["verdict"]) == (0, "pass"), result["verdict_reasons"]


# Somebody's cluster


def test_foreign_endpoints_are_loaded_and_checked_and_left_as_they_were(
    etcd_cluster: LocalCluster, tmp_path: Path
) -> None:
    with_scheme = ",".join(etcd_cluster.endpoints)
    statuses = [status for status in etcd_cluster.statuses(HANG_S) if status]
    done = _chaos(tmp_path, "--endpoints", with_scheme, "--duration", "2s", "--concurrency", "6", "--json")
    result = _result(done)
    assert result["chaos"]["faults"] == []
    known = {"watch.bookmarkable"} if known_bug("15220", etcd_cluster.binary.version) else set()
    assert not set(_broken(result)) - known, _broken(result)
    assert result["target"]["kind"] == "external"
    assert [status.term for status in etcd_cluster.statuses(HANG_S) if status] == [status.term for status in statuses]
    client = EtcdClient(etcd_cluster.endpoints[:1])
    prefix = result["run"]["prefix"].encode()
    assert client.range(prefix, prefix[:-1] + b"0", count_only=True).response.count == 0
    client.close()


# Manners


def test_interrupted_it_heals_checks_what_ran_and_leaves_nothing(tmp_path: Path, leftovers_after: Leftovers) -> None:
    with _started(tmp_path / "run", *PAUSES, cwd=tmp_path) as process:
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=240)
    assert process.returncode == 130, errors
    # What ran may be right, and is not all of it: two answers, and one verdict. An etcd with bugs can have met one.
    check = re.search(r"^check      (pass|unknown|fail)$", output, re.MULTILINE)
    assert check and "\nverdict " not in output, output
    assert check[1] != "fail" or not os.environ.get("RAFTLOAD_ETCD_FIXED"), output
    verdict = "FAIL" if check[1] == "fail" else "UNKNOWN"
    assert f"\n{verdict}\n" in output and "interrupted by SIGINT" in output, output
    assert not leftovers_after(60)


def test_nothing_is_left_of_actors_whose_command_was_killed(tmp_path: Path, leftovers_after: Leftovers) -> None:
    """While they have switched something on, which nobody can switch off any more."""
    words = ("--actors", "users,alarms,members", "--faults", "", "--duration", "600s", "--concurrency", "6")
    with _started(tmp_path / "run", *words, cwd=tmp_path, file="calls.jsonl", word="AuthEnable") as process:
        (actors,) = [pid for pid in children(process.pid) if b"actor_process" in b" ".join(arguments().get(pid, []))]
        process.kill()
    until(lambda: not runs(actors), "the end of the actors")
    assert not leftovers_after(60)


def test_a_member_that_ends_by_itself_breaks_a_promise_and_the_run_goes_on(fixed_etcd: str, tmp_path: Path) -> None:
    words = ("--actors", "late-watches", "--faults", "", "--duration", "15s", "--json", "--etcd", fixed_etcd)
    with _started(tmp_path / "run", *words, cwd=tmp_path, file="calls.jsonl", word='"call"') as process:
        member = next(pid for pid in descendants(process.pid) if name_of(pid) == "etcd")
        os.kill(member, signal.SIGKILL)
        output, errors = process.communicate(timeout=HANG_S)
    result = json.loads(output)
    assert process.returncode == 1, errors
    assert "ended by itself" in errors
    broken = _broken(result)
    assert set(broken) == {"member.lives"}
    assert broken["member.lives"]["violations"][0]["text"].startswith("etcd-node")
    assert result["chaos"]["stopped_by"] is None


def test_a_second_signal_leaves_what_ran(tmp_path: Path, leftovers_after: Leftovers) -> None:
    """While a fault is on, and a worker does not answer, which is waited for after the first one.

    The history is checked as far as it goes, and nobody says that all of it was.
    """
    with _started(tmp_path / "run", *PAUSES, "--json", cwd=tmp_path) as process:
        (worker,) = command.workers(process.pid)
        os.kill(worker, signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=2)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=240)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    result = json.loads(output)
    assert schema.problem(result, "result") is None
    assert (result["interrupted"], [each["reason"] for each in result["lost_workers"]]) == (
        "SIGINT", ["ended by a second signal"],
    )  # fmt: skip
    assert result["results"]["total"]["operations"] > 0
    assert result["verdict"] != "pass"
    assert not leftovers_after(60)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_disk_that_is_full_ends_the_load_and_what_ran_is_checked(
    tmp_path: Path, small_disk: Callable[[str], Path], leftovers_after: Leftovers, as_json: bool
) -> None:
    """During a fault, which is healed; the result is printed, and what is on the disk by then stays."""
    folder = small_disk("4m") / "run"
    with _started(folder, *PAUSES, *(["--json"] if as_json else []), cwd=tmp_path) as process:
        with contextlib.suppress(OSError), (folder.parent / "other").open("wb", buffering=0) as other:
            while True:
                other.write(bytes(4096))
        output, errors = process.communicate(timeout=240)
    assert process.returncode == 4, errors
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("raftload: error: ")]
    # Which file needed more room first is a matter of time.
    assert re.fullmatch(rf"raftload: error: (healed, but )?cannot write .*{folder}\S*: No space left on device", line)
    reason = line.removeprefix("raftload: error: ")
    assert not leftovers_after(60)
    if not as_json:
        assert "the run folder is not complete: " in output and f"ended early: {reason}\n" in output
        assert re.search(r"^kv\.real-time +pass", output, re.MULTILINE)
        return
    result = json.loads(output)
    assert schema.problem(result, "result") is None
    assert (result["chaos"]["stopped_by"], result["verdict"]) == (reason, "unknown")
    assert not _broken(result)
    assert [file["name"] for file in result["check"]["files"] if file["cut"]]
    assert result["results"]["total"]["operations"] > 0


def test_interrupted_before_there_is_load_it_ends_at_once(tmp_path: Path, leftovers_after: Leftovers) -> None:
    folder = tmp_path / "run"
    with command.start("chaos", "--rounds", "2", "--workers", "1", "--output", str(folder), cwd=tmp_path) as process:
        # It is made before the keys are.
        until(lambda: process.poll() is not None or (folder / "history").exists(), "the history", pause_s=0.002)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    assert "interrupted before there was a result" in errors
    assert not leftovers_after(60)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--faults", "explode-leader"), "there is no fault 'explode-leader'"),
        (("--endpoints", "127.0.0.1:1", "--rounds", "3"), "--rounds is for clusters that raftload started"),
        (("--endpoints", "127.0.0.1:1", "--corrupting"), "--corrupting damages a cluster for ever"),
        (("--backend", "local", "--corrupting"), "--corrupting damages a cluster for ever"),
        (("--endpoints", "127.0.0.1:1", "--backend", "docker"), "exclude each other"),
        (("--faults", ""), "needs a --duration"),
        (("--endpoints", "127.0.0.1:1", "--actors", "users"), "the actor users is for clusters that raftload made"),
        (("--backend", "local", "--actors", "alarms"), "the actor alarms is for clusters that raftload made"),
        (("--guarantee", "hope"), "no guarantee 'hope'"),
        (("--every", "soon"), "--every"),
        (("--nodes", "1", "--faults", "isolate-random"), "more than one member"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_code_2(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    done = command.refusal(capsys, "chaos", *options, "--output", str(folder))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not folder.exists()


def test_an_unreachable_cluster_is_the_environments_fault(tmp_path: Path) -> None:
    done = _chaos(tmp_path, "--endpoints", f"127.0.0.1:{take_ports(1)}", "--duration", "1s")
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr


def test_a_history_does_not_begin_and_members_do_not_agree_while_nobody_answers(
    etcd_single: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all that the store had before would count as written by nobody."""
    monkeypatch.setattr(master_history, "_AGREE_S", 0.2)
    dead = f"http://127.0.0.1:{take_ports(1)}"
    history = HistoryWriter(tmp_path / "master.hist", worker=0, prefix="run")
    with contextlib.closing(MasterHistory([dead], b"run", history)) as master:
        with pytest.raises(ClusterError, match="no member answered in 0 s"):
            master.agree(0.0)
        with pytest.raises(ClusterError, match=f"{dead} did not answer"):
            master.begin(1, {}, exclusive=False, watched=False)
    history = HistoryWriter(tmp_path / "other.hist", worker=0, prefix="run")
    with contextlib.closing(MasterHistory([*etcd_single.endpoints, dead], b"run", history)) as master:
        master.begin(1, {}, exclusive=False, watched=False)
        with pytest.raises(ClusterError, match="second did not answer"):
            master.begin(1, {dead: "second"}, exclusive=True, watched=False)


def test_the_fence_stands_above_what_others_compacted_before(etcd_single: LocalCluster, tmp_path: Path) -> None:
    """Else transactions that go by it read compacted revisions, and the members of any etcd before 3.7 part for it."""
    client = EtcdClient(etcd_single.endpoints)
    try:
        before = max(client.put(b"earlier", b"%d" % number).revision for number in range(60))
        assert client.compact(before - 1).outcome is Outcome.OK
        shape = Shape(prefix=b"later", seed=1, keys=8)
        history = HistoryWriter(tmp_path / "master.hist", worker=0, prefix="later")
        master = MasterClient(etcd_single.endpoints, shape, history, whole=True)
        try:
            master.fill(before, {}, exclusive=False)
            fences = []
            for _ in range(5):
                master.compact()
                fences.append(int(client.get(shape.fence).response.kvs[0].value))
        finally:
            master.close()
        assert fences[0] >= before and fences == sorted(fences)
    finally:
        client.close()
