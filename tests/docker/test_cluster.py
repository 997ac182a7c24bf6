"""The Docker cluster on a real Engine: up, found, broken, healed, gone."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from cluster.control import ControlClient
from tests.docker.conftest import Docker
from tests.support.command import interrupting

pytestmark = pytest.mark.docker


def test_up_twice_and_down(engine: Docker) -> None:
    made = engine.json("up")
    assert (made["done"], made["nodes"], made["quorum"]) == ("created", 3, True)
    assert made["endpoints"] == ["127.0.0.1:2379", "127.0.0.1:2380", "127.0.0.1:2381"]
    assert engine.json("up", "--nodes", "3")["done"] == "found"
    assert engine.docker("exec", "etcd-node1", "etcdctl", "put", "k", "v") == "OK\n"
    labels = json.loads(engine.docker("inspect", "-f", "{{json .Config.Labels}}", "etcd-node1"))
    assert "io.raftload.cluster" in labels
    engine.docker("stop", "etcd-node2")
    status = engine.json("status")
    assert [each["state"] for each in status["members"]] == ["running", "down", "running"]
    assert status["quorum"]
    engine.docker("start", "etcd-node2")
    deadline = time.monotonic() + 20
    while engine.json("status")["members"][1]["role"] != "follower":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "removed container etcd-node1" in engine.run("down").stdout
    assert engine.run("down").stdout == "nothing to remove\n"


def test_seven_then_five_then_three(engine: Docker) -> None:
    engine.run("up", "--nodes", "1")  # the image is there from now on
    seven = engine.json("up", "--nodes", "7")
    assert (seven["done"], len(seven["members"]), seven["quorum"]) == ("replaced", 7, True)
    five = engine.json("up", "--nodes", "5")
    assert (five["done"], len(five["members"])) == ("replaced", 5)
    done = engine.run("up", NODES="3")
    assert "replacing the cluster that is there (5 members)" in done.stderr


def test_two_at_once_make_one_cluster(engine: Docker) -> None:
    with engine.start("up", "--json") as one, engine.start("up", "--json") as other:
        ended = [process.communicate(timeout=120) for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], ended
    assert sorted(json.loads(out)["done"] for out, _ in ended) == ["created", "found"]


def test_two_of_different_users_do_not_take_each_other_down(engine: Docker, tmp_path: Path) -> None:
    """They have no lock in common: one has the names first, the other is refused and touches nothing of the first."""
    engine.run("up", "--nodes", "1")
    engine.run("down")
    states = [{"XDG_STATE_HOME": str(tmp_path / name)} for name in ("a", "b")]
    with engine.start("up", "--json", **states[0]) as one, engine.start("up", "--json", **states[1]) as other:
        ended = [process.communicate(timeout=120) for process in (one, other)]
    codes = {one.returncode, other.returncode}
    assert 0 in codes and codes <= {0, 4}, ended
    assert engine.json("status")["quorum"], ended
    with engine.start("down", **states[0]) as one, engine.start("down", **states[1]) as other:
        ended = [process.communicate(timeout=120) for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], ended


@pytest.mark.parametrize("data", ["volume", "shm"])
def test_data_survives_a_stop(engine: Docker, data: str) -> None:
    engine.run("up", "--nodes", "1", "--data", data)
    engine.docker("exec", "etcd-node1", "etcdctl", "put", "kept", "yes")
    engine.docker("stop", "etcd-node1")
    engine.run("start", "etcd-node1")
    assert "yes" in engine.docker("exec", "etcd-node1", "etcdctl", "get", "kept")
    if data == "volume":
        assert "--replace" in engine.run("up", "--nodes", "3", code=2).stderr
        assert engine.json("up", "--nodes", "3", "--replace")["done"] == "replaced"


def test_a_partition_cuts_peers_and_not_clients(engine: Docker) -> None:
    engine.run("up")
    cut = engine.json("partition", "follower")
    (name,) = cut["members"]
    address = engine.docker("inspect", "-f", '{{(index .NetworkSettings.Networks "raftload-clients").IPAddress}}', name)
    networks = json.loads(engine.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", name))
    assert list(networks) == ["raftload-clients"]
    assert address.strip()
    status = {each["name"]: each for each in engine.json("status")["members"]}
    assert (status[name]["isolated"], status[name]["role"]) == (True, "no leader")
    with ControlClient(status[cut["leader"]]["endpoint"]) as leader:
        for number in range(20):
            leader.put(b"key", b"%d" % number)
        revision = leader.revision()
    with ControlClient(status[name]["endpoint"]) as alone:  # it answers its clients, and nothing of Raft reached it
        time.sleep(2)
        assert alone.status().revision < revision
        assert alone.status().leader_id == 0
        assert alone.get(b"key", serializable=True).kvs == ()
    assert engine.json("heal")["members"] == [name]
    with ControlClient(status[name]["endpoint"]) as back:
        assert back.get(b"key").kvs[0].value == b"19"
    ips = json.loads(engine.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", name))
    number = int(name.removeprefix("etcd-node"))
    assert ips["raftload-peers"]["IPAddress"].endswith(f".{10 + number}")


def test_faults(engine: Docker) -> None:
    leader = engine.json("up")["leader"]
    killed = engine.json("kill", "leader")
    assert killed["leader"] not in (None, leader)
    assert "down already" in engine.run("kill", leader, code=2).stderr
    assert not engine.json("pause", "random")["quorum"]
    assert engine.json("heal")["quorum"]
    assert engine.json("transfer-leader", "follower")["quorum"]
    assert engine.json("restart", "follower")["quorum"]
    assert "--backend local" in engine.run("delay", "leader", "--by", "1s", code=2).stderr
    assert engine.run("heal").stdout.startswith("nothing to heal")


def test_foreign_containers_are_not_touched(engine: Docker) -> None:
    engine.run("up", "--nodes", "1")
    image = engine.json("status")["image"]
    engine.run("down")
    engine.docker("create", "--name", "etcd-node2", "--entrypoint", "etcd", image)
    try:
        done = engine.run("up", code=4)
        assert "a container named etcd-node2 is there that raftload did not make" in done.stderr
        engine.run("down")
        assert "etcd-node2" in engine.everything()["containers"]
    finally:
        engine.docker("rm", "-f", "etcd-node2")


def test_a_taken_port(engine: Docker) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 2380))
        taken.listen()
        assert "port 2380 on 127.0.0.1 is taken" in engine.run("up", code=4).stderr


def test_a_member_that_ends_is_shown_with_its_last_words(engine: Docker) -> None:
    engine.run("up", "--nodes", "1")
    image = engine.json("status")["image"]
    engine.run("down")
    broken = "raftload-test-broken:1"
    engine.docker("create", "--name", "raftload-test-broken", image, "x")
    try:
        engine.docker("commit", "-c", "ENV ETCD_ELECTION_TIMEOUT=1", "raftload-test-broken", broken)
        done = engine.run("up", "--image", broken, code=4)
        assert "etcd-node1 ended" in done.stderr or "etcd-node2 ended" in done.stderr or "etcd-node3" in done.stderr
        assert "election" in done.stderr
    finally:
        engine.docker("rm", "-f", "raftload-test-broken")
        engine.docker("rmi", broken)


def unborn(process: subprocess.Popen[str], err: str) -> bool:
    """Whether the signal came, on a busy machine, before there was a handler of ours: the kernel ends the process then,
    or Python does while it starts."""
    return process.returncode in (-signal.SIGINT, -signal.SIGTERM) or "init_import_site" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_up_leaves_nothing(engine: Docker, number: signal.Signals) -> None:
    engine.run("up", "--nodes", "1")
    engine.run("down")
    before, rng = engine.everything(), random.Random(4)
    for _ in range(5):
        with engine.start("up") as process:
            time.sleep(rng.uniform(0.3, 2.5))
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        # The cluster was there already, which is said, or nothing is.
        if process.returncode == 0 or "the cluster stays: `raftload cluster down` removes it" in err:
            assert engine.json("status")["quorum"]
            engine.run("down")
        else:
            assert process.returncode == 128 + number or unborn(process, err), err
            # Before anything was begun, that it was interrupted is all there is to say.
            begun = err.removeprefix(f"raftload: interrupted by {number.name}\n")
            assert "no cluster of ours is left" in err or not begun or unborn(process, err)
        assert engine.everything() == before


def test_interrupted_while_it_imports_what_cleans_up(engine: Docker, tmp_path: Path) -> None:
    """An import that is cut in the middle cannot be begun anew."""
    done = engine.run("up", code=130, PYTHONPATH=interrupting(tmp_path, "urllib3.connectionpool"))
    assert done.stderr == "raftload: no cluster of ours is left\nraftload: interrupted by SIGINT\n"


def test_interrupted_test_says_what_stays(engine: Docker) -> None:
    before, rng = engine.everything(), random.Random(6)
    for _ in range(2):
        with engine.start("test") as process:
            time.sleep(rng.uniform(0.5, 9.0))
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130 or unborn(process, err), err
        stays = engine.everything() != before
        assert ("the cluster stays: `raftload cluster down` removes it" in err) is stays, err
        engine.run("down")
        assert engine.everything() == before


def test_interrupted_down_finishes(engine: Docker) -> None:
    rng = random.Random(5)
    for _ in range(2):
        before = engine.everything()
        engine.run("up")
        with engine.start("down") as process:
            time.sleep(rng.uniform(0.3, 1.0))
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode in (0, 130) or unborn(process, err), err
        if process.returncode and "no cluster of ours is left" not in err:  # before anything was begun
            engine.run("down")
        assert engine.everything() == before


def test_rounds_of_faults_end_healthy(engine: Docker) -> None:
    import os

    engine.run("up")
    rng = random.Random(3)
    for round_ in range(int(os.environ.get("RAFTLOAD_ROUNDS", "6"))):
        kind = ("kill", "pause", "partition")[round_ % 3]
        engine.json(kind, rng.choice(["leader", "follower", "random", "minority", "majority"]), "--seed", str(round_))
        assert engine.json("heal")["quorum"]
