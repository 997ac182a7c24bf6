"""`raftload cluster` on processes: what it prints, what it exits with, and that nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import state
from cluster.errors import ClusterError
from cluster.ports import is_free
from cluster.timeline import Timeline
from tests.support.command import ClusterCommands
from tests.support.ports import take_ports

Leftovers = Callable[[float], set[str]]


class Commands(ClusterCommands):
    """`raftload cluster …` with a state folder and ports of its own, and no Engine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, DOCKER_HOST=f"unix://{folder}/no-docker.sock")
        self.port = take_ports(7)

    def remembered(self) -> bool:
        return any((self.folder / "raftload").glob("cluster-*"))

    def up(self, *args: str) -> Any:
        return self.json("up", "--backend", "local", "--base-port", str(self.port), *args)


@pytest.fixture
def raftload(tmp_path: Path, leftovers_after: Leftovers) -> Iterator[Commands]:
    commands = Commands(tmp_path)
    try:
        yield commands
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            commands.run("down", code=None)
        assert leftovers_after(15.0) == set()


def test_up_stays_is_found_again_and_goes(raftload: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    made = raftload.up()
    assert (made["schema"], made["done"], made["backend"], made["nodes"]) == (
        "raftload.cluster/1",
        "created",
        "local",
        3,
    )
    assert made["endpoints"] == [f"127.0.0.1:{raftload.port + offset}" for offset in range(3)]
    assert made["quorum"]
    again = raftload.up()
    assert again["done"] == "found"
    assert [each["member_id"] for each in again["members"]] == [each["member_id"] for each in made["members"]]
    monkeypatch.setenv("XDG_STATE_HOME", raftload.env["XDG_STATE_HOME"])
    found = state.find_running()
    assert found is not None
    assert found.endpoints == tuple(f"http://{endpoint}" for endpoint in made["endpoints"])
    table = raftload.run("status").stdout
    assert table.count("follower") == 2
    assert "etcd-node1" in raftload.run("logs", "etcd-node1", "--lines", "400").stdout
    assert raftload.run("down").stdout.splitlines() == [f"removed process etcd-node{n}" for n in (1, 2, 3)]
    assert raftload.run("down").stdout == "nothing to remove\n"
    assert state.find_running() is None
    assert not Path(found.control).parent.exists()


@pytest.mark.parametrize("nodes", [1, 5, 7])
def test_sizes(raftload: Commands, nodes: int) -> None:
    made = raftload.up("--nodes", str(nodes))
    assert (len(made["members"]), made["quorum"]) == (nodes, True)


def test_two_at_once_make_one_cluster(raftload: Commands) -> None:
    arguments = ("up", "--backend", "local", "--base-port", str(raftload.port), "--json")
    with raftload.start(*arguments) as one, raftload.start(*arguments) as other:
        ended = [process.communicate(timeout=90) for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], ended
    assert sorted(json.loads(out)["done"] for out, _ in ended) == ["created", "found"]
    assert sum("is starting or removing a cluster: waiting for it" in err for _, err in ended) == 1


def test_down_waits_for_up(raftload: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", raftload.env["XDG_STATE_HOME"])
    told: list[str] = []
    with state.changing(told.append):
        with pytest.raises(ClusterError, match=rf"process {os.getpid()} has been starting or removing a cluster"):
            state.changing(told.append, within_s=0.0).__enter__()
        with raftload.start("down") as waiting:
            assert waiting.stderr is not None
            assert f"process {os.getpid()} is starting or removing a cluster" in waiting.stderr.readline()
            waiting.send_signal(signal.SIGINT)
            _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert "interrupted by SIGINT" in err
    assert told == []


def test_another_size_replaces_and_an_even_one_warns(raftload: Commands) -> None:
    raftload.up("--nodes", "1")
    done = raftload.run("up", "--backend", "local", "--base-port", str(raftload.port), "--nodes", "2")
    assert "warning: 2 members survive no more failures than 1" in done.stderr
    assert "replacing the cluster that is there (1 members" in done.stderr
    assert len(raftload.json("status")["members"]) == 2


def test_faults_say_who_leads_and_heal_undoes_them(raftload: Commands) -> None:
    leader = raftload.up()["leader"]
    killed = raftload.json("kill", "leader")
    assert killed["members"] == [leader] == [killed["before"]]
    assert killed["leader"] not in (None, leader)
    assert raftload.json("status")["leader"] == killed["leader"]
    refused = raftload.run("kill", leader, code=2)
    assert f"{leader} is down already: `raftload cluster start {leader}`" in refused.stderr
    assert raftload.json("start", leader)["quorum"]

    cut = raftload.json("partition", "leader")
    assert cut["leader"] not in (None, *cut["members"])
    views = {each["name"]: each for each in raftload.json("status")["members"]}
    alone = views[cut["members"][0]]
    assert (alone["isolated"], alone["answers"], alone["role"]) == (True, True, "no leader")
    raftload.json("heal")

    assert raftload.json("transfer-leader", "etcd-node2" if cut["leader"] != "etcd-node2" else "etcd-node3")["quorum"]
    none = raftload.json("pause", "majority")
    assert not none["quorum"]
    assert raftload.json("status", code=1)["quorum"] is False
    healed = raftload.json("heal")
    assert healed["quorum"]
    assert healed["members"] == none["members"]
    again = raftload.run("heal").stdout
    assert again.startswith("nothing to heal")
    assert len(raftload.json("stop", "etcd-node1,etcd-node2,etcd-node3")["members"]) == 3
    raftload.run("status", code=4)
    assert "no quorum: 1 of 3 members take part, 2 are needed" in raftload.run("start", "etcd-node1").stdout
    assert raftload.json("heal")["quorum"]

    events = Timeline(raftload.folder / "raftload" / "events.csv").read()
    assert [each["fault"] for each in events[:6]] == ["kill", "kill", "kill", "start", "start", "start"]
    assert [each["phase"] for each in events[:3]] == ["begin", "done", "effect"]


def test_delay_is_felt_and_goes(raftload: Commands) -> None:
    raftload.up()

    def put_s(endpoint: str) -> float:
        from cluster.control import ControlClient

        with ControlClient(endpoint) as client:
            client.put(b"warm", b"up")
            began = time.monotonic()
            client.put(b"key", b"value")
            return time.monotonic() - began

    leader = next(each for each in raftload.json("status")["members"] if each["role"] == "leader")
    raftload.run("delay", "leader", "--by", "80ms")
    assert put_s(leader["endpoint"]) >= 0.16  # there and back again
    assert raftload.json("heal")["members"] == [leader["name"]]
    assert put_s(leader["endpoint"]) < 0.16
    raftload.run("drop", "follower", "--share", "20%")
    put_s(leader["endpoint"])


def test_direct_links_cannot_be_cut(raftload: Commands) -> None:
    raftload.up("--links", "direct")
    refused = raftload.run("partition", "leader", code=2)
    assert "--links relay" in refused.stderr
    assert raftload.json("kill", "minority")["quorum"]


@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        (["status"], 4, "nobody answers"),
        (["status", "--backend", "local"], 4, "no local cluster is there: `raftload cluster up --backend local`"),
        (["status", "--endpoints", "127.0.0.1"], 2, "malformed endpoint"),
        (["kill", "leader"], 4, "no cluster is there"),
        (["up"], 4, "no Docker Engine at unix://"),
        (["up", "--nodes", "0"], 2, "1 to 99 members"),
        (["up", "--backend", "local", "--data", "volume"], 2, "--data volume"),
        (["up", "--backend", "local", "--binary", "/nowhere/etcd"], 4, "no etcd binary at /nowhere/etcd"),
        (["up", "--backend", "local", "--binary", "/bin/true"], 4, "not a working etcd"),
        (["down", "--backend", "docker"], 4, "no Docker Engine"),
    ],
)
def test_bad_input(raftload: Commands, args: list[str], code: int, reason: str) -> None:
    if args[0] == "status" and not is_free(2379):
        pytest.skip("something listens on 127.0.0.1:2379")
    done = raftload.run(*args, code=code)
    assert reason in done.stderr
    assert len([line for line in done.stderr.splitlines() if "error:" in line]) <= 1
    assert not raftload.remembered()


def test_a_taken_port(raftload: Commands) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", raftload.port + 1))
        taken.listen()
        done = raftload.run("up", "--backend", "local", "--base-port", str(raftload.port), code=4)
    assert f"port {raftload.port + 1} on 127.0.0.1 is taken" in done.stderr


def test_the_owner_killed_is_a_cluster_gone(raftload: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    raftload.up()
    monkeypatch.setenv("XDG_STATE_HOME", raftload.env["XDG_STATE_HOME"])
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environ = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes()
            if b"cluster.owner" in command and os.fsencode(raftload.folder) in environ:
                os.kill(int(entry.name), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while state.find_running(0.3) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert raftload.up()["done"] == "created"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_up_leaves_nothing(raftload: Commands, leftovers_after: Leftovers, number: signal.Signals) -> None:
    rng = random.Random(5)
    for _ in range(5):
        with raftload.start("up", "--backend", "local", "--base-port", str(raftload.port)) as process:
            time.sleep(rng.uniform(0.25, 1.8))
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        # The cluster was there already, which is said, or nothing is.
        if process.returncode == 0 or "the cluster stays: `raftload cluster down` removes it" in err:
            assert raftload.json("status")["quorum"]
            raftload.run("down")
        else:
            # On a busy machine the signal can come before Python has set a handler: the kernel then ends the process.
            assert process.returncode in (128 + number, -number), err
            begun = err.splitlines() != [f"raftload: interrupted by {number.name}"]  # it was still importing itself
            assert "no cluster of ours is left" in err or process.returncode < 0 or not begun
        assert leftovers_after(5.0) == set()
        assert not raftload.remembered()


def test_interrupted_test_says_what_stays(raftload: Commands, leftovers_after: Leftovers) -> None:
    rng = random.Random(7)
    for _ in range(3):
        with raftload.start("test", "--backend", "local", "--base-port", str(raftload.port)) as process:
            time.sleep(rng.uniform(0.5, 6.0))
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        stays = "the cluster stays: `raftload cluster down` removes it" in err
        assert raftload.remembered() is stays, err
        raftload.run("down")
        assert leftovers_after(5.0) == set()


def test_interrupted_down_finishes(raftload: Commands, leftovers_after: Leftovers) -> None:
    rng = random.Random(6)
    for _ in range(3):
        raftload.up("--nodes", "1")
        with raftload.start("down") as process:
            time.sleep(rng.uniform(0.1, 0.3))
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        raftload.run("down")
        assert leftovers_after(5.0) == set()


def test_rounds_of_faults_end_healthy(raftload: Commands) -> None:
    raftload.up()
    rng = random.Random(3)
    for round_ in range(int(os.environ.get("RAFTLOAD_ROUNDS", "6"))):
        kind = ("kill", "pause", "partition")[round_ % 3]
        target = rng.choice(["leader", "follower", "random", "minority", "majority"])
        raftload.json(kind, target, "--seed", str(round_))
        assert raftload.json("heal")["quorum"]
    assert raftload.json("status")["quorum"]
