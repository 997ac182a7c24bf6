"""A Docker cluster of three that is broken and healed: each test finds it healthy, and leaves it so."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.base.binary import find_etcd
from cluster.gateway.control import ControlClient
from tests.docker.conftest import Docker, using_the_engine
from tests.support.waiting import until

pytestmark = pytest.mark.docker


Made = tuple[Docker, dict[str, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Yield commands against the Engine, and what `cluster up` said of the cluster there."""
    with using_the_engine(tmp_path_factory.mktemp("engine")) as docker:
        yield docker, docker.json("up")
        docker.run("down")


@pytest.fixture
def engine(made: Made) -> Iterator[Docker]:
    """Commands against the Engine, on which a healthy cluster of three is."""
    docker, _ = made
    yield docker
    assert docker.json("heal")["quorum"]


def test_the_default_is_three_members(made: Made) -> None:
    _, up = made
    assert (up["done"], up["nodes"], up["quorum"]) == ("created", 3, True)
    assert up["endpoints"] == ["127.0.0.1:2379", "127.0.0.1:2380", "127.0.0.1:2381"]
    assert up["version"] == find_etcd().version


def test_it_is_found_and_shown(engine: Docker) -> None:
    found = engine.json("up", "--nodes", "3")
    assert (found["done"], found["quorum"]) == ("found", True)
    assert found["endpoints"] == ["127.0.0.1:2379", "127.0.0.1:2380", "127.0.0.1:2381"]
    assert engine.docker("exec", "etcd-node1", "etcdctl", "put", "k", "v") == "OK\n"
    labels = json.loads(engine.docker("inspect", "-f", "{{json .Config.Labels}}", "etcd-node1"))
    assert "io.raftload.cluster" in labels
    engine.docker("stop", "etcd-node2")
    status = engine.json("status")
    assert [each["state"] for each in status["members"]] == ["running", "down", "running"]
    assert status["quorum"]
    engine.docker("start", "etcd-node2")
    until(lambda: engine.json("status")["members"][1]["role"] == "follower", "the member to follow again")


def campaigns_of(engine: Docker, name: str) -> int:
    """How often a member has stood for election, by its log."""
    return int(engine.client.containers.get(name).logs().count(b"is starting a new election"))


def test_a_partition_cuts_peers_and_not_clients(engine: Docker) -> None:
    cut = engine.json("partition", "follower")
    (name,) = cut["members"]
    networks = json.loads(engine.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", name))
    assert list(networks) == ["raftload-clients"]
    assert networks["raftload-clients"]["IPAddress"]
    status = {each["name"]: each for each in engine.json("status")["members"]}
    assert (status[name]["isolated"], status[name]["role"]) == (True, "no leader")
    with ControlClient(status[cut["leader"]]["endpoint"]) as leader:
        for number in range(20):
            leader.put(b"key", b"%d" % number)
        revision = leader.revision()
    campaigns = campaigns_of(engine, name)
    # It stands for election again and again, since it misses a leader: time enough for what might still reach it.
    until(lambda: campaigns_of(engine, name) >= campaigns + 2, "the member to miss its leader")
    with ControlClient(status[name]["endpoint"]) as alone:  # it answers its clients, and nothing of Raft reached it
        assert alone.status().revision < revision
        assert alone.status().leader_id == 0
        assert alone.get(b"key", serializable=True).kvs == ()
    assert engine.json("heal")["members"] == [name]
    with ControlClient(status[name]["endpoint"]) as back:
        assert back.get(b"key").kvs[0].value == b"19"
    ips = json.loads(engine.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", name))
    number = int(name.removeprefix("etcd-node"))
    assert ips["raftload-peers"]["IPAddress"].endswith(f".{10 + number}")


def test_each_fault_does_what_it_says(engine: Docker) -> None:
    leader = engine.json("status")["leader"]
    killed = engine.json("kill", "leader")
    assert killed["leader"] not in (None, leader)
    assert "down already" in engine.run("kill", leader, code=2).stderr
    assert not engine.json("pause", "random")["quorum"]
    assert engine.json("heal")["quorum"]
    assert engine.json("transfer-leader", "follower")["quorum"]
    assert engine.json("restart", "follower")["quorum"]
    assert "--backend local" in engine.run("delay", "leader", "--by", "1s", code=2).stderr
    assert engine.run("heal").stdout.startswith("nothing to heal")


# A kind each, of one or of most members.
ROUNDS = (("kill", "majority"), ("pause", "minority"), ("partition", "leader"))


def test_rounds_of_faults_end_healthy(engine: Docker) -> None:
    rng = random.Random(3)
    for number in range(int(os.environ.get("RAFTLOAD_ROUNDS", str(len(ROUNDS))))):
        kind, target = ROUNDS[number % len(ROUNDS)]
        if number >= len(ROUNDS):
            target = rng.choice(["leader", "follower", "random", "minority", "majority"])
        engine.json(kind, target, "--seed", str(number))
        assert engine.json("heal")["quorum"]
