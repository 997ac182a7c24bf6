"""The Docker cluster on a real Engine: up, found, replaced, refused, interrupted, gone."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.observe import calls
from tests.docker.conftest import Docker
from tests.support.command import interrupting
from tests.support.waiting import HANG_S, until

pytestmark = pytest.mark.docker
REMOVES = "`raftload cluster down` removes it"
STAYS = f"the cluster stays: {REMOVES}"


def test_one_then_seven_then_five(engine: Docker) -> None:
    one = engine.json("up", "--nodes", "1")
    assert (one["done"], one["nodes"], one["quorum"]) == ("created", 1, True)
    seven = engine.json("up", "--nodes", "7")
    assert (seven["done"], len(seven["members"]), seven["quorum"]) == ("replaced", 7, True)
    done = engine.run("up", NODES="5")
    assert "replacing the cluster that is there (7 members)" in done.stderr
    assert "replaced in" in done.stderr
    assert [name for name in engine.containers() if name.startswith("etcd-node")] == [
        f"etcd-node{number}" for number in range(1, 6)
    ]
    down = engine.run("down")
    assert "removed container etcd-node5" in down.stdout
    assert f"kept for the next cluster: the images {one['image']}" in down.stderr and "`docker rmi " in down.stderr
    down = engine.run("down")
    assert down.stdout == "nothing to remove\n" and "kept" not in down.stderr


def test_options_of_etcd(engine: Docker) -> None:
    words = ("up", "--nodes", "1", "--etcd-arg", "quota-backend-bytes=67108864")
    assert engine.json(*words)["done"] == "created"
    assert engine.json(*words)["done"] == "found"
    assert engine.json("status")["etcd_args"] == ["--quota-backend-bytes=67108864"]
    _, page = calls.http("127.0.0.1:2379", "GET", "/metrics", timeout_s=HANG_S)
    assert b"\netcd_server_quota_backend_bytes 6.7108864e+07\n" in page
    refused = engine.run("up", "--nodes", "1", "--etcd-arg", "nosuch=1", code=4)
    assert "replacing the cluster that is there (etcd with --quota-backend-bytes=67108864)" in refused.stderr
    assert "error: etcd-node1 ended: flag provided but not defined: -nosuch" in refused.stderr


def test_two_at_once_make_one_cluster(engine: Docker) -> None:
    words = ("up", "--nodes", "1", "--json")
    with engine.start(*words) as one, engine.start(*words) as other:
        ended = [process.communicate(timeout=120) for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], ended
    assert sorted(json.loads(out)["done"] for out, _ in ended) == ["created", "found"]


def test_two_of_different_users_do_not_take_each_other_down(engine: Docker, tmp_path: Path) -> None:
    """They have no lock in common: one has the names first, the other is refused and touches nothing of the first."""
    states = [{"XDG_STATE_HOME": str(tmp_path / name)} for name in ("a", "b")]
    with engine.start("up", "--json", **states[0]) as one, engine.start("up", "--json", **states[1]) as other:
        ended = [process.communicate(timeout=120) for process in (one, other)]
    codes = {one.returncode, other.returncode}
    assert 0 in codes and codes <= {0, 4}, ended
    assert engine.json("status")["quorum"], ended
    with engine.start("down", **states[0]) as one, engine.start("down", **states[1]) as other:
        ended = [process.communicate(timeout=120) for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], ended


def test_data_survives_a_stop_in_a_volume_and_in_memory(engine: Docker) -> None:
    for data, done in (("volume", "created"), ("shm", "replaced")):
        if data == "shm":
            for different in (("--nodes", "3"), ("--nodes", "1", "--data", "shm")):
                assert "--replace" in engine.run("up", *different, code=2).stderr
        assert engine.json("up", "--nodes", "1", "--data", data, "--replace")["done"] == done
        engine.docker("exec", "etcd-node1", "etcdctl", "put", "kept", data)
        engine.docker("stop", "etcd-node1")
        engine.run("start", "etcd-node1")
        assert engine.docker("exec", "etcd-node1", "etcdctl", "get", "kept") == f"kept\n{data}\n"


def test_volumes_of_a_cluster_whose_containers_somebody_else_removed_are_kept(engine: Docker) -> None:
    """The data is lost only to who says so."""
    assert engine.json("up", "--nodes", "1", "--data", "volume")["done"] == "created"
    there = engine.everything()["volumes"]
    assert there
    engine.docker("rm", "-f", "etcd-node1")
    for words in ((), ("--nodes", "1", "--data", "volume")):
        refused = engine.run("up", *words, code=2)
        assert refused.stderr == (
            "raftload: error: a cluster with named volumes is there (its containers are gone): `raftload cluster up"
            " --replace` removes it and its data\n"
        )
    assert engine.everything()["volumes"] == there
    assert engine.json("up", "--nodes", "1", "--replace")["done"] == "replaced"
    assert not set(there) & set(engine.everything()["volumes"])


@pytest.fixture(scope="module")
def image_of() -> Callable[[Docker], str]:
    """Return what tells the image of a cluster's members, once one of them was started."""
    found: list[str] = []

    def image(engine: Docker) -> str:
        if not found:
            found.append(engine.json("up", "--nodes", "1")["image"])
            engine.run("down")
        return found[0]

    return image


def test_what_others_made_is_not_touched(engine: Docker, image_of: Callable[[Docker], str]) -> None:
    image = image_of(engine)
    engine.docker("create", "--name", "etcd-node2", "--entrypoint", "etcd", image)
    try:
        done = engine.run("up", code=4)
        assert "a container named etcd-node2 is there that raftload did not make" in done.stderr
        engine.run("down")
        assert "etcd-node2" in engine.containers()
    finally:
        engine.docker("rm", "-f", "etcd-node2")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 2380))
        taken.listen()
        assert "port 2380 on 127.0.0.1 is taken" in engine.run("up", code=4).stderr


def test_a_member_that_ends_is_shown_with_its_last_words(engine: Docker, image_of: Callable[[Docker], str]) -> None:
    image = image_of(engine)
    broken = "raftload-test-broken:1"
    engine.docker("create", "--name", "raftload-test-broken", image, "x")
    try:
        engine.docker("commit", "-c", "ENV ETCD_ELECTION_TIMEOUT=1", "raftload-test-broken", broken)
        done = engine.run("up", "--nodes", "1", "--image", broken, code=4)
        assert "etcd-node1 ended: " in done.stderr
        assert "election" in done.stderr
    finally:
        engine.docker("rm", "-f", "raftload-test-broken")
        engine.docker("rmi", broken)


# Signals, each at a moment that the command has come to


class Reader(threading.Thread):
    """Reads a command's stderr as it comes, so that a test can wait for a line of it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__()
        assert process.stderr is not None
        self._stream, process.stderr = process.stderr, None  # communicate() would read it too
        self.text = ""
        self.start()

    def run(self) -> None:
        with self._stream:
            for line in self._stream:
                self.text += line

    def whole(self) -> str:
        """All of it, once the command has ended."""
        self.join()
        return self.text


Moment = Callable[[Docker, Reader], bool]


def made(name: str) -> Moment:
    return lambda engine, _: name in engine.containers() + engine.networks()


def gone(name: str) -> Moment:
    return lambda engine, _: name not in engine.containers()


def said(pattern: str) -> Moment:
    return lambda _, err: re.search(pattern, err.text) is not None


def interrupted(engine: Docker, moment: Moment, number: signal.Signals, *words: str) -> tuple[int, str]:
    """Run a command and send it a signal at a moment; return its exit code and stderr.

    A command that has ended before the moment was noticed is one that the signal came too late for.
    """
    with engine.start(*words) as process:
        err = Reader(process)
        until(lambda: moment(engine, err) or process.poll() is not None, f"{words} to come so far", pause_s=0.005)
        process.send_signal(number)
        process.communicate(timeout=120)
        return process.returncode, err.whole()


INTERRUPTED_UP = {
    "before anything is made": (said(r"image \S+ \("), signal.SIGINT),
    "with a network": (made("raftload-clients"), signal.SIGTERM),
    "with a container": (made("etcd-node2"), signal.SIGINT),
    "while it waits for health": (said("waiting for health"), signal.SIGTERM),
    "when it is done": (said("created in"), signal.SIGINT),
}


@pytest.mark.parametrize("when", INTERRUPTED_UP)
def test_interrupted_up_leaves_all_or_nothing(engine: Docker, when: str) -> None:
    before = engine.everything()
    moment, number = INTERRUPTED_UP[when]
    code, err = interrupted(engine, moment, number, "up")
    # The cluster was there already, which the end of the command says, or what it says of the signal.
    if code == 0 or REMOVES in err:
        assert when in ("while it waits for health", "when it is done")
        assert engine.json("status")["quorum"]
        engine.run("down")
    else:
        assert code == 128 + number, err
        assert "no cluster of ours is left" in err
        assert err.endswith(f"interrupted by {number.name}\n")
    assert engine.everything() == before


def test_interrupted_while_it_imports_what_cleans_up(engine: Docker, tmp_path: Path) -> None:
    """An import that is cut in the middle cannot be begun anew."""
    done = engine.run("up", code=130, PYTHONPATH=interrupting(tmp_path, "urllib3.connectionpool"))
    assert done.stderr == "raftload: no cluster of ours is left\nraftload: interrupted by SIGINT\n"


def test_interrupted_test_says_what_stays(engine: Docker) -> None:
    before = engine.everything()
    code, err = interrupted(engine, made("etcd-node1"), signal.SIGINT, "test")
    assert (code, STAYS in err) == (130, False), err
    assert engine.everything() == before
    code, err = interrupted(engine, said("created: 3 members, docker"), signal.SIGINT, "test")
    assert (code, STAYS in err) == (130, True), err
    # The cluster is ended by a `down` that gets a signal too, and goes on to its end.
    assert engine.json("status")["quorum"]
    code, err = interrupted(engine, gone("etcd-node1"), signal.SIGINT, "down")
    assert code in (0, 130), err
    assert engine.everything() == before
