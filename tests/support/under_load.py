"""A leader that is killed under load, and the pictures of what followed held against what the members say."""

from __future__ import annotations

import datetime
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, Literal

import pytest

from cluster.base.topology import Member
from cluster.lifecycle.up import find
from cluster.observe.probe import member_status
from cluster.observe.timeline import Timeline
from tests.support import command
from tests.support.waiting import HANG_S, until

Backend = Literal["docker", "local"]
# How far the clocks of one machine can be apart: a log's times have microseconds, a picture's milliseconds.
_ROUNDED_S = 0.002


def raftload(folder: Path, *words: str, **env: str) -> subprocess.Popen[str]:
    """Start `raftload …` with a state folder of its own."""
    return command.start(*words, cwd=folder, XDG_STATE_HOME=str(folder), **env)


def document(folder: Path, *words: str) -> Any:
    """Return what `raftload …` prints, which is JSON."""
    with raftload(folder, *words) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, f"{words}: {err}{out}"
    return json.loads(out)


def kill_leader_under_load(folder: Path, backend: Backend, etcd: str, base_port: int) -> None:
    """Brings three members up, kills their leader while `bench` runs, and compares the pictures with the members.

    Asserts that winner and final term of the drawn election are what every member's Status says, and that it begins
    when the members' logs say that the leader's connections broke, which is after the fault's own record began.
    """
    words = ("--backend", backend, "--base-port", str(base_port), "--etcd", etcd, "--json")
    up = document(folder, "cluster", "up", *words)
    events = Timeline(folder / "events.csv")
    endpoints = ",".join(up["endpoints"])
    polls = raftload(folder, "viz", "--type", "leader-election", "--format", "json", "--observed", "--for", "10m",
                     "--endpoints", endpoints)  # fmt: skip
    bench = raftload(folder, "bench", "--duration", "10m", "--concurrency", "10", "--workers", "1", "--json")
    with polls, bench:
        try:
            _until_written(up["endpoints"][0], 200, bench)
            killed = document(folder, "cluster", "kill", "leader", "--timeline", str(events.path), "--json")
            assert bench.poll() is None
            bench.send_signal(signal.SIGINT)
            load, err = bench.communicate(timeout=120)
            assert bench.returncode == 130, err
            document(folder, "cluster", "heal", "--json")
            status = document(folder, "cluster", "status", "--json")
            drawn = document(folder, "viz", "--type", "leader-election", "--observed", "--format", "json")
            polls.send_signal(signal.SIGINT)
            polled, err = polls.communicate(timeout=120)
        finally:
            polls.kill()
            bench.kill()
    assert json.loads(load)["results"]["total"]["succeeded"] > 0
    (term,) = {member["term"] for member in status["members"]}
    assert killed["members"] == [up["leader"]]
    assert (killed["leader"], killed["term"]) == (status["leader"], term)

    assert drawn["title"].startswith(f"Observed election: {status['leader']} leads term {term}, ")
    assert drawn["title"].endswith("after the leader was lost")
    lanes = {lane["label"]: lane["id"] for lane in drawn["lanes"]}
    lost = next(item for item in drawn["items"] if item["text"].startswith("leader lost"))
    assert lost["lane"] == lanes[up["leader"]]
    began = _seconds(drawn["items"][0]["text"].split()[0])
    record = {event["phase"]: _seconds(event["time"]) for event in events.read() if event["fault"] == "kill"}
    first = _leader_missed(folder, backend, up["leader"], record["begin"])
    where = f"{began - record['begin']:+.3f} s from its begin, {began - record['done']:+.3f} s from its end"
    print(f"{up['version']} on {backend}: the kill is drawn {where}")
    assert record["begin"] - _ROUNDED_S <= began, where
    assert began == pytest.approx(first, abs=_ROUNDED_S), where

    who = document(folder, "viz", "--type", "timeline", "--observed", "--format", "json")
    rows = {row["label"]: row["spans"] for row in who["rows"]}
    assert set(rows) == {member["name"] for member in status["members"]}
    assert rows[status["leader"]][-1]["text"] == f"Leader, term {term}"
    assert [span["kind"] for span in rows[up["leader"]]].count("down") == 1

    seen = json.loads(polled)
    assert seen["title"].startswith(f"Polled election: {status['leader']} leads term {term}, ")
    assert "candidates and votes are not seen" in seen["items"][0]["text"]


def _until_written(endpoint: str, count: int, bench: subprocess.Popen[str]) -> None:
    """Until the load has written so many keys."""
    member = Member("", f"http://{endpoint}", "", "")
    before = member_status(member, HANG_S).revision

    def written() -> bool:
        assert bench.poll() is None, bench.communicate()
        return bool(member_status(member, HANG_S).revision >= before + count)

    until(written, "the load")


def _leader_missed(folder: Path, backend: Backend, leader: str, since: float) -> float:
    """When the first member lost its connection to the leader, by their logs, in seconds since 1970."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        there = find(backend)
        assert there is not None
        with there as cluster:
            logs = [cluster.log(member.name) for member in cluster.members if member.name != leader]
    lines = [line for log in logs for line in log.splitlines() if "lost TCP streaming connection" in line]
    times = [_seconds(found.group(1)) for line in lines if (found := re.search(r'"ts":"([^"]+)"', line))]
    return min(at for at in times if at >= since - _ROUNDED_S)


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()
