"""A leader that is killed under load, and the pictures of what followed held against what the members say."""

from __future__ import annotations

import datetime
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from cluster.probe import member_status
from cluster.timeline import Timeline
from cluster.topology import Member
from tests.support import command

NEAR_S = 0.05


def raftload(folder: Path, *words: str, **env: str) -> subprocess.Popen[str]:
    """Starts `raftload …` with a state folder of its own."""
    return command.start(*words, cwd=folder, XDG_STATE_HOME=str(folder), **env)


def document(folder: Path, *words: str) -> Any:
    """What `raftload …` prints, which is JSON."""
    with raftload(folder, *words) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, f"{words}: {err}{out}"
    return json.loads(out)


def kill_leader_under_load(folder: Path, backend: str, etcd: str, base_port: int, nodes: int = 3) -> None:
    """Brings a cluster up, kills its leader while `bench` runs, and compares the pictures with the members.

    Asserts that winner and final term of the drawn election are what every member's Status says, and that it begins
    within 50 ms of the fault's own record.
    """
    words = ("--backend", backend, "--nodes", str(nodes), "--base-port", str(base_port), "--binary", etcd, "--json")
    up = document(folder, "cluster", "up", *words)
    events = Timeline(folder / "events.csv")
    polls = raftload(folder, "viz", "--type", "leader-election", "--format", "json", "--observed", "--for", "60s",
                     "--endpoints", ",".join(up["endpoints"]))  # fmt: skip
    with polls, raftload(folder, "bench", "--duration", "6s", "--concurrency", "10", "--json") as bench:
        _until_written(up["endpoints"][0], 200)
        assert bench.poll() is None
        killed = document(folder, "cluster", "kill", "leader", "--timeline", str(events.path), "--json")
        load, err = bench.communicate(timeout=120)
        assert bench.returncode in (0, 3), err
        document(folder, "cluster", "heal", "--json")
        time.sleep(0.5)
        polls.send_signal(2)
        polled, err = polls.communicate(timeout=30)
    assert json.loads(load)["results"]["total"]["succeeded"] > 0
    status = document(folder, "cluster", "status", "--json")
    (term,) = {member["term"] for member in status["members"]}
    assert killed["members"] == [up["leader"]]
    assert (killed["leader"], killed["term"]) == (status["leader"], term)

    drawn = document(folder, "viz", "--type", "leader-election", "--observed", "--format", "json")
    assert drawn["title"].startswith(f"Observed election: {status['leader']} leads term {term}, ")
    assert drawn["title"].endswith("after the leader was lost")
    lanes = {lane["label"]: lane["id"] for lane in drawn["lanes"]}
    lost = next(item for item in drawn["items"] if item["text"].startswith("leader lost"))
    assert lost["lane"] == lanes[up["leader"]]
    began = _seconds(drawn["items"][0]["text"].split()[0])
    record = {event["phase"]: _seconds(event["time"]) for event in events.read() if event["fault"] == "kill"}
    where = f"{began - record['begin']:+.3f} s from its begin, {began - record['done']:+.3f} s from its end"
    print(f"{up['version']} on {backend}: the kill is drawn {where}")
    assert record["begin"] - NEAR_S <= began <= record["done"] + NEAR_S, where

    who = document(folder, "viz", "--type", "timeline", "--observed", "--format", "json")
    rows = {row["label"]: row["spans"] for row in who["rows"]}
    assert set(rows) == {member["name"] for member in status["members"]}
    assert rows[status["leader"]][-1]["text"] == f"Leader, term {term}"
    assert [span["kind"] for span in rows[up["leader"]]].count("down") == 1

    seen = json.loads(polled)
    assert seen["title"].startswith(f"Polled election: {status['leader']} leads term {term}, ")
    assert "candidates and votes are not seen" in seen["items"][0]["text"]


def _until_written(endpoint: str, count: int) -> None:
    """Until the load has written so many keys."""
    member, deadline = Member("", f"http://{endpoint}", "", ""), time.monotonic() + 60
    before = member_status(member).revision
    while member_status(member).revision < before + count:
        assert time.monotonic() < deadline, "the load does not begin"
        time.sleep(0.05)


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()
