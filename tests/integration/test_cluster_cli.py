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

from cluster.base.errors import ClusterError, NoAnswer
from cluster.base.ports import is_free
from cluster.base.topology import Member
from cluster.observe import calls
from cluster.observe import running as state
from cluster.observe.probe import member_status
from cluster.observe.timeline import Timeline
from tests.support.command import ClusterCommands
from tests.support.leftovers import find_leftovers
from tests.support.ports import take_ports
from tests.support.waiting import HANG_S, until

Leftovers = Callable[[float], set[str]]


class Commands(ClusterCommands):
    """`raftload cluster …` with a state folder and ports of its own, and no Engine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, DOCKER_HOST=f"unix://{folder}/no-docker.sock")
        self.port = take_ports(7)
        self.before = find_leftovers()

    def remembered(self) -> bool:
        return any((self.folder / "raftload").glob("cluster-*"))

    def up_words(self, *args: str) -> tuple[str, ...]:
        return ("up", "--backend", "local", "--base-port", str(self.port), *args)

    def up(self, *args: str) -> Any:
        return self.json(*self.up_words(*args))


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what a process, of which some lines may have been read, still prints on stdout and stderr."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.read(), process.stderr.read()
    process.wait(HANG_S)
    assert "Traceback" not in err, err
    return out, err


@pytest.fixture
def raftload(tmp_path: Path, leftovers_after: Leftovers) -> Iterator[Commands]:
    commands = Commands(tmp_path)
    try:
        yield commands
    finally:
        commands.run("down", code=None)
        assert leftovers_after(60.0) == set()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Three members behind relays, for tests that break them and heal them again."""
    commands = Commands(tmp_path_factory.mktemp("three"))
    try:
        commands.up()
        yield commands
    finally:
        commands.run("down", code=None)


def test_up_stays_is_found_again_and_goes(raftload: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    with raftload.start(*raftload.up_words("--json")) as process:
        out, err = ended(process)
    assert process.returncode == 0, err
    made = json.loads(out)
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


def test_two_at_once_make_one_cluster(raftload: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", raftload.env["XDG_STATE_HOME"])
    with contextlib.ExitStack() as stack:
        with state.changing(lambda _: None):
            both = [stack.enter_context(raftload.start(*raftload.up_words("--json"))) for _ in range(2)]
            for process in both:
                assert process.stderr is not None
                lines = iter(process.stderr.readline, "")
                assert any("is starting or removing a cluster: waiting for it" in line for line in lines)
        printed = [ended(process) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert sorted(json.loads(out)["done"] for out, _ in printed) == ["created", "found"]


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
            _, err = ended(waiting)
    assert waiting.returncode == 130
    assert "interrupted by SIGINT" in err
    assert told == []


def test_another_size_replaces_and_an_even_one_warns(raftload: Commands) -> None:
    before = 0
    for nodes in (1, 2, 5, 7):
        done = raftload.run(*raftload.up_words("--nodes", str(nodes), "--json"))
        made = json.loads(done.stdout)
        assert (len(made["members"]), made["quorum"], made["nodes"]) == (nodes, True, nodes)
        assert made["done"] == ("replaced" if before else "created")
        assert ("warning: 2 members survive no more failures than 1" in done.stderr) is (nodes == 2)
        assert (f"replacing the cluster that is there ({before} members" in done.stderr) is (before > 0)
        assert len(raftload.json("status")["members"]) == nodes
        before = nodes


def test_faults_say_who_leads_and_heal_undoes_them(three: Commands) -> None:
    raftload = three
    log = Timeline(raftload.folder / "raftload" / "events.csv")
    leader, past = raftload.json("status")["leader"], len(log.read())
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

    events = log.read()[past:]
    assert [each["fault"] for each in events[:6]] == ["kill", "kill", "kill", "start", "start", "start"]
    assert [each["phase"] for each in events[:3]] == ["begin", "done", "effect"]


def test_delay_is_felt_and_goes(three: Commands) -> None:
    def put_s(endpoint: str) -> float:
        from cluster.gateway.control import ControlClient

        with ControlClient(endpoint) as client:
            client.put(b"warm", b"up")
            began = time.monotonic()
            client.put(b"key", b"value")
            return time.monotonic() - began

    leader = next(each for each in three.json("status")["members"] if each["role"] == "leader")
    three.run("delay", "leader", "--by", "80ms")
    assert put_s(leader["endpoint"]) >= 0.16  # there and back again
    assert three.json("heal")["members"] == [leader["name"]]
    # On a busy machine one put may take as long without a delay; with one, none is quicker.
    until(lambda: put_s(leader["endpoint"]) < 0.16, "a put that is not delayed")
    three.run("drop", "follower", "--share", "20%")
    put_s(leader["endpoint"])
    assert three.json("heal")["quorum"]


def test_rounds_of_faults_end_healthy(three: Commands) -> None:
    rng = random.Random(3)
    for round_ in range(int(os.environ.get("RAFTLOAD_ROUNDS", "3"))):
        kind = ("kill", "pause", "partition")[round_ % 3]
        target = rng.choice(["leader", "follower", "random", "minority", "majority"])
        three.json(kind, target, "--seed", str(round_))
        assert three.json("heal")["quorum"]
    assert three.json("status")["quorum"]


def test_it_heals_though_the_timeline_cannot_be_written(three: Commands) -> None:
    """As on a full disk. The exit code tells; the members are as they should be."""
    at_fault = three.json("pause", "follower")["members"]
    done = three.run("heal", "--timeline", "/dev/full", code=4)
    assert done.stderr == (
        "raftload: error: healed, but cannot write the timeline /dev/full: No space left on device\n"
    )
    paused = {each["name"]: each["state"] for each in three.json("status")["members"]}
    assert (len(at_fault), set(paused.values())) == (1, {"running"})
    refused = three.run("pause", "follower", "--timeline", "/dev/full", code=4)
    assert refused.stderr == "raftload: error: cannot write the timeline /dev/full: No space left on device\n"
    assert three.json("heal")["members"] == [], "what cannot be recorded is not done"


def test_direct_links_cannot_be_cut(raftload: Commands) -> None:
    raftload.up("--links", "direct")
    refused = raftload.run("partition", "leader", code=2)
    assert "--links relay" in refused.stderr
    assert raftload.json("kill", "minority")["quorum"]


def test_options_of_etcd(raftload: Commands) -> None:
    """The store's quota is in the member's metrics; a cluster with other options is another one."""
    words = ("--nodes", "1", "--etcd-arg", "quota-backend-bytes=67108864", "--etcd-arg=--max-txn-ops=7")
    raftload.up(*words)
    status = raftload.json("status")
    assert status["etcd_args"] == ["--quota-backend-bytes=67108864", "--max-txn-ops=7"]
    _, page = calls.http(status["endpoints"][0], "GET", "/metrics", timeout_s=HANG_S)
    assert b"\netcd_server_quota_backend_bytes 6.7108864e+07\n" in page
    assert raftload.up()["done"] == "found"
    done = raftload.run(*raftload.up_words("--nodes", "1", "--etcd-arg", "max-txn-ops=8"))
    was = "etcd with --quota-backend-bytes=67108864 --max-txn-ops=7"
    assert f"replacing the cluster that is there ({was})" in done.stderr
    assert raftload.json("status")["etcd_args"] == ["--max-txn-ops=8"]


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("nosuch=1", "etcd-node1 exited with 2: flag provided but not defined: -nosuch"),
        ("quota-backend-bytes=x", 'etcd-node1 exited with 2: invalid value "x" for flag -quota-backend-bytes'),
    ],
)
def test_options_that_etcd_has_not(raftload: Commands, option: str, reason: str) -> None:
    words = ("up", "--backend", "local", "--nodes", "1", "--base-port", str(take_ports(1)), "--etcd-arg", option)
    assert f"error: {reason}" in raftload.run(*words, code=4).stderr


@pytest.mark.xdist_group("docker")  # whose tests have clusters on the default port
def test_status_of_the_default_port(raftload: Commands) -> None:
    if not is_free(2379):
        pytest.skip("something listens on 127.0.0.1:2379")
    assert raftload.run("status", code=4).stderr == (
        "raftload: no member answers (127.0.0.1:2379: Connection refused); `raftload cluster up` starts a cluster\n"
    )


def test_status_of_dead_endpoints_is_one_line(raftload: Commands) -> None:
    done = raftload.run("status", "--endpoints", "127.0.0.1:1,127.0.0.1:2", code=4)
    why = "127.0.0.1:1: Connection refused, 127.0.0.1:2: Connection refused"
    assert done.stderr == f"raftload: no member answers ({why})\n"


@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        (["status", "--backend", "local"], 4, "there is no local cluster: `raftload cluster up --backend local`"),
        (["status", "--endpoints", "127.0.0.1"], 2, "malformed endpoint"),
        (["kill", "leader"], 4, "there is no cluster"),
        (["up"], 4, "no Docker Engine at unix://"),
        (["up", "--nodes", "0"], 2, "1 to 99 members"),
        (["up", "--backend", "local", "--data", "volume"], 2, "--data volume"),
        (["up", "--backend", "local", "--binary", "/nowhere/etcd"], 4, "no etcd binary at /nowhere/etcd"),
        (["up", "--backend", "local", "--binary", "/bin/true"], 4, "not a working etcd"),
        (["down", "--backend", "docker"], 4, "no Docker Engine"),
    ],
)
def test_bad_input(raftload: Commands, args: list[str], code: int, reason: str) -> None:
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
            if b"cluster.local.daemon" in command and os.fsencode(raftload.folder) in environ:
                os.kill(int(entry.name), signal.SIGKILL)
    until(lambda: state.find_running(HANG_S) is None, "the end of the cluster")
    assert raftload.up("--nodes", "1")["done"] == "created"


# Interrupted: at moments that can be seen from outside, however quick the machine is


def moments(raftload: Commands, process: subprocess.Popen[str]) -> dict[str, Callable[[], bool]]:
    """Return what can be seen of a command while it makes or removes a cluster of three."""

    def running(word: str) -> int:
        return sum(word in each for each in find_leftovers() - raftload.before)

    lock = raftload.folder / "raftload" / state.LOCK
    return {
        "it holds the lock": lambda: lock.exists() and lock.read_text() == str(process.pid),
        "a keeper runs": lambda: running("cluster/local/keeper.py") > 0,
        "members run": lambda: running("--name=etcd-node") == 3,
        "it is remembered": raftload.remembered,
        "tests write": lambda: raftload.remembered() and _revision(f"http://127.0.0.1:{raftload.port}") > 50,
        "it is forgotten": lambda: not raftload.remembered(),
        "nothing runs": lambda: running("process ") == 0,
    }


def _revision(url: str) -> int:
    with contextlib.suppress(NoAnswer):
        return member_status(Member("", url, "", "")).revision
    return 0


def interrupt(raftload: Commands, process: subprocess.Popen[str], when: str, number: signal.Signals) -> str:
    """Send a signal at a moment; return what the command still says. It may have ended before the signal came."""
    there = moments(raftload, process)[when]
    until(lambda: there() or process.poll() is not None, when, pause_s=0.002)
    process.send_signal(number)
    _, err = ended(process)
    assert process.returncode in (0, 128 + number), err
    return err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["it holds the lock", "a keeper runs", "members run", "it is remembered"])
def test_interrupted_up_leaves_nothing(
    raftload: Commands, leftovers_after: Leftovers, number: signal.Signals, when: str
) -> None:
    with raftload.start(*raftload.up_words()) as process:
        err = interrupt(raftload, process, when, number)
    # The cluster was there already, which the end of the command says, or what it says of the signal; or nothing is.
    if process.returncode == 0 or "`raftload cluster down` removes it" in err:
        assert raftload.json("status")["quorum"]
        raftload.run("down")
    else:
        assert f"interrupted by {number.name}" in err
        assert "no cluster of ours is left" in err
    assert not raftload.remembered()
    assert leftovers_after(60.0) == set()


@pytest.mark.parametrize("when", ["members run", "it is remembered", "tests write"])
def test_interrupted_test_says_what_stays(raftload: Commands, leftovers_after: Leftovers, when: str) -> None:
    words = ("test", "--backend", "local", "--base-port", str(raftload.port))
    with raftload.start(*words) as process:
        err = interrupt(raftload, process, when, signal.SIGINT)
    assert process.returncode == 130, err
    stays = "the cluster stays: `raftload cluster down` removes it" in err
    assert raftload.remembered() is stays, err
    raftload.run("down")
    assert leftovers_after(60.0) == set()


@pytest.mark.parametrize(
    ("when", "number"),
    [
        ("it holds the lock", signal.SIGINT),
        ("it is forgotten", signal.SIGTERM),
        ("nothing runs", signal.SIGINT),
    ],
)
def test_interrupted_down_finishes(
    raftload: Commands, leftovers_after: Leftovers, when: str, number: signal.Signals
) -> None:
    raftload.up("--nodes", "1")
    with raftload.start("down") as process:
        err = interrupt(raftload, process, when, number)
    # Before it begins to remove anything the cluster stays, and that is said; from then on nothing does.
    stays = "the cluster stays: `raftload cluster down` removes it" in err
    assert not stays or when == "it holds the lock"
    assert raftload.remembered() is stays
    assert raftload.run("down").stdout == ("removed process etcd-node1\n" if stays else "nothing to remove\n")
    assert leftovers_after(60.0) == set()
