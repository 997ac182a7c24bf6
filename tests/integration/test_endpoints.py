"""Endpoints as people have them: Unix sockets, IPv6, names with dots, names of many addresses, DNS SRV."""

from __future__ import annotations

import concurrent.futures
import contextlib
import csv
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.base.endpoint import Endpoint
from cluster.base.errors import NoAnswer
from cluster.base.security import Security
from cluster.base.topology import Member, ServerTls
from cluster.gateway.conformance_client import GatewayClient as Control
from cluster.local.cluster import LocalCluster
from cluster.observe.probe import member_status
from loadgen.client import connect_errors
from loadgen.client.etcd import EtcdClient, probe
from loadgen.history.operation import Outcome
from loadgen.load.json_client import GatewayClient
from tests.support.certificates import Authority
from tests.support.command import ROOT, assert_refused, called, run, start
from tests.support.hosts import no_hosts, with_hosts
from tests.support.http2_server import cause_of
from tests.support.missing import require
from tests.support.nameserver import Nameserver, nameserver
from tests.support.ports import closed_port, take_ports
from tests.support.waiting import HANG_S, until

CALLS = ("kv.delete", "txn.branches")  # tests of `cluster test` that make no load
LIVE, DEAD = "127.0.0.3", "127.0.0.1"  # a resolver sorts the second one to the front, as it is nearer to the source


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        return True
    return False


class Place:
    """One member that listens in many ways. ``other`` is its port on LIVE, where 127.0.0.1 has nothing."""

    def __init__(self, folder: Path, *, tls: bool = False) -> None:
        self.folder, self.scheme = folder, "https" if tls else "http"
        self.port, self.other = take_ports(1), take_ports(1)
        # Old releases take only what looks like a host and a port, and make a file of that name in etcd's folder.
        self.by_socket = "unixs" if tls else "unix"
        self.socket = f"{self.by_socket}://{folder}/etcd-node1/sock:1"

    @property
    def listen(self) -> str:
        urls = [f"{self.scheme}://127.0.0.1:{self.port}", f"{self.scheme}://{LIVE}:{self.other}"]
        urls.append(f"{self.by_socket}://sock:1")
        urls += [f"{self.scheme}://[::1]:{self.port}"] if has_ipv6() else []
        return f"--listen-client-urls={','.join(urls)}"

    def __call__(self, way: str) -> str:
        """Return an endpoint by how it is written."""
        if "::1" in way and not has_ipv6():
            require("ipv6", "no ::1 on this machine")
        return way.replace("PORT", str(self.port)).replace("OTHER", str(self.other)).replace("SOCKET", self.socket)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short one, since the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="rl-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def place(etcd_binary: str, folder: Path) -> Iterator[Place]:
    made = Place(folder)
    with LocalCluster(1, binary=etcd_binary, data_dir=folder, base_port=made.port, extra_args=[made.listen]):
        yield made


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder / "ca")


@pytest.fixture(scope="module")
def tls_place(etcd_binary: str, folder: Path, authority: Authority) -> Iterator[Place]:
    (folder / "tls").mkdir()
    made = Place(folder / "tls", tls=True)
    pair = authority.sign("server", "127.0.0.1", "::1", "localhost", "sock", "many")
    how, trust = ServerTls(pair.cert, pair.key), Security(cacert=authority.cert)
    with LocalCluster(
        1,
        binary=etcd_binary,
        data_dir=made.folder,
        base_port=made.port,
        extra_args=[made.listen],
        tls=how,
        security=trust,
    ):
        yield made


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("ETCDCTL_")]:
        monkeypatch.delenv(name)


WAYS = ["SOCKET", "[::1]:PORT", "http://[::1]:PORT/", "localhost.:PORT", "http://localhost:PORT/", "LOCALHOST:PORT"]


def works(endpoint: str, security: Security) -> None:
    """Assert that all our clients reach it."""
    assert probe(endpoint, HANG_S, security).leader
    client = EtcdClient([endpoint], timeout_s=HANG_S, security=security)
    assert client.put(b"k", endpoint.encode()).outcome == Outcome.OK
    client.close()
    gateway = GatewayClient([endpoint], timeout_s=HANG_S, security=security)
    found = gateway.get(b"k")
    assert (found.outcome, found.response.kvs[0].value) == (Outcome.OK, endpoint.encode())
    gateway.close()
    with Control(endpoint, timeout_s=HANG_S, security=security) as control:
        assert control.status().leader_id
        watch = control.watch(b"k")
        control.put(b"k", b"2")
        event = watch.next(HANG_S)
        assert event is not None and event.kv.value == b"2"
        watch.close()
    assert member_status(Member("m", str(Endpoint.parse(endpoint)), "", ""), HANG_S, security).leader_id


@pytest.mark.parametrize("way", WAYS)
def test_all_clients_reach_it(place: Place, way: str) -> None:
    works(place(way), Security())


@pytest.mark.parametrize("way", ["SOCKET", "https://[::1]:PORT", "https://localhost.:PORT", "https://localhost:PORT/"])
def test_all_clients_reach_it_over_tls(tls_place: Place, authority: Authority, way: str) -> None:
    works(tls_place(way), Security(cacert=authority.cert))


def test_a_relative_path_is_of_the_folder_that_one_is_in(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.folder / "etcd-node1")
    for text in (
        "unix:sock:1",
        "unix://sock:1",
        "unix://../etcd-node1/sock:1",
        f"unix:{place.folder}/etcd-node1/sock:1",
    ):
        works(text, Security())


def test_a_socket_that_is_not_there(folder: Path) -> None:
    nowhere = f"unix://{folder}/nowhere.sock"
    assert cause_of(nowhere, Security()) == connect_errors.NO_SOCKET
    with pytest.raises(NoAnswer, match=rf"^{nowhere}: No such file or directory$") as caught:
        Control(nowhere, timeout_s=HANG_S)
    assert (caught.value.cause, caught.value.sent) == ("no socket", False)
    (folder / "file").touch()
    assert cause_of(f"unix://{folder}/file", Security()) == connect_errors.REFUSED


Called = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def raftload(capsys: pytest.CaptureFixture[str]) -> Called:
    return lambda *words: called(capsys, *words)


@pytest.mark.parametrize("way", ["SOCKET", "localhost.:PORT", "[::1]:PORT"])
def test_commands_that_look(place: Place, way: str, raftload: Called) -> None:
    endpoint = place(way)
    done = raftload("cluster", "status", "--endpoints", endpoint, "--json")
    status = json.loads(done.stdout)
    assert (done.returncode, status["quorum"], status["endpoints"]) == (0, True, [endpoint])
    for transport in ("gateway", "grpc"):
        done = raftload(
            "cluster", "test", "--endpoints", endpoint, "--transport", transport, "--only", *CALLS, "--json"
        )
        assert done.returncode == 0, done.stderr
        assert [each["endpoint"] for each in json.loads(done.stdout)["target"]["members"]] == [endpoint]
    done = raftload("viz", "--type", "cluster-status", "--endpoints", endpoint, "--format", "ascii")
    assert done.returncode == 0 and "etcd-node1" in done.stdout and "leader" in done.stdout


@pytest.mark.parametrize("transport", ["grpc", "gateway"])
def test_bench_on_a_socket(place: Place, transport: str, tmp_path: Path) -> None:
    words = ["--endpoints", place("SOCKET"), "--transport", transport, "--operations", "30", "--workers", "1", "--json"]
    done = run("bench", *words, "--output", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["results"]["total"]["succeeded"], result["results"]["total"]["failed"]) == (30, 0)
    assert result["target"]["endpoints"] == [{"url": place("SOCKET"), "reachable": True}]
    with (tmp_path / "run" / "members.csv").open() as file:
        assert {row["role"] for row in csv.DictReader(file)} == {"leader"}


def test_workers_of_other_machines_have_not_our_sockets(place: Place, raftload: Called) -> None:
    words = ("bench", "--endpoints", place("SOCKET"), "--expect-workers", "1", "--bind", "0.0.0.0:5557", "--dry-run")
    assert_refused(raftload(*words), "is another host on each machine")


# One member under two names, and a dead one beside live ones


def test_one_member_under_two_names_is_named_and_counted_once(place: Place, raftload: Called, tmp_path: Path) -> None:
    first, second = f"127.0.0.1:{place.port}", f"localhost:{place.port}"
    both = f"{first},{second},http://{first}/"  # the third is the first, written in another way
    done = raftload("cluster", "status", "--endpoints", both, "--json")
    assert [each["endpoint"] for each in json.loads(done.stdout)["members"]] == [first]
    assert f"raftload: note: {first} and {second} lead to one member: it is counted once" in done.stderr
    assert "1 of 1 members answer" in done.stderr and done.stderr.count("note:") == 1
    done = raftload("cluster", "test", "--endpoints", both, "--only", *CALLS, "--json")
    assert len(json.loads(done.stdout)["target"]["members"]) == 1
    assert f"note: {first} and {second} lead to one member: it is counted once" in done.stderr
    done = raftload("viz", "--type", "cluster-status", "--endpoints", both, "--format", "ascii")
    assert "(1 of 1 answer)" in done.stdout
    assert f"note: {first} and {second} lead to one member: it is counted once" in done.stderr
    done = run(
        "bench", "--endpoints", both, "--operations", "20", "--workers", "1", "--json", "--output", "run", cwd=tmp_path
    )
    target = json.loads(done.stdout)["target"]
    assert (len(target["members"]), [each["url"] for each in target["endpoints"]]) == (1, [first, second])
    assert done.stderr.count("lead to one member") == 1
    with (tmp_path / "run" / "members.csv").open() as file:
        stamps = [row["monotonic_ns"] for row in csv.DictReader(file)]
    assert len(stamps) == len(set(stamps)) and len(stamps) == target["observer"]["polls"]


def test_a_dead_one_beside_live_ones_is_named(place: Place, folder: Path, raftload: Called, tmp_path: Path) -> None:
    dead, gone, nowhere = closed_port(), f"unix://{folder}/gone.sock", "no-such-host.invalid:2379"
    all_ = ",".join((dead, gone, place("SOCKET"), nowhere))
    done = raftload("cluster", "status", "--endpoints", all_)
    assert done.returncode == 0, done.stderr
    for reason in (f"{dead}: Connection refused", f"{gone}: No such file", f"{nowhere}: the name does not resolve"):
        assert reason in done.stderr
    done = raftload("cluster", "test", "--endpoints", all_, "--only", *CALLS)
    assert done.returncode == 3, done.stderr  # inconclusive, since members could not be tested
    assert all(f"warning: {each} does not answer" in done.stderr for each in (dead, gone, nowhere))
    for transport in ("grpc", "gateway"):
        words = ("--operations", "20", "--workers", "1", "--json", "--transport", transport)
        done = run("bench", "--endpoints", all_, *words, "--output", transport, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["results"]["total"]["succeeded"] == 20
        assert [each["reachable"] for each in result["target"]["endpoints"]] == [False, False, True, False]
        for reason in (f"{dead}: connection refused", f"{gone}: no socket", f"{nowhere}: host not found"):
            assert reason in done.stderr


# A name of several addresses


@contextlib.contextmanager
def black_hole(port: int) -> Iterator[None]:
    """Take connections to a port of DEAD into a queue that is full: the kernel drops what comes then."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server((DEAD, port), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    if reason := no_hosts():
        require("namespaces", reason)
    file = tmp_path / "hosts"
    file.write_text(f"127.0.0.1 localhost\n{DEAD} many\n{LIVE} many\n")
    return file


def within(hosts: Path, *words: str, module: str = "loadgen.cli") -> subprocess.CompletedProcess[str]:
    with start(*words, cwd=hosts.parent, before=with_hosts(hosts), module=module) as process:
        try:
            out, err = process.communicate(timeout=HANG_S)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "swallows"])
def test_a_name_of_which_one_address_is_dead(place: Place, hosts: Path, silent: bool) -> None:
    """An address that swallows gets half the deadline each time, so what waits for it waits at the same time."""
    name = f"many:{place.other}"
    words = ("--operations", "20", "--workers", "1", "--timeout", "10s", "--json")
    with contextlib.ExitStack() as stack:
        if silent:
            stack.enter_context(black_hole(place.other))
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(3))
        status = pool.submit(within, hosts, "cluster", "status", "--endpoints", name, "--json")
        runs = [
            pool.submit(
                within, hosts, "bench", "--endpoints", name, "--transport", transport, *words, "--output", transport
            )
            for transport in ("grpc", "gateway")
        ]
        done = status.result()
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["quorum"]
        for run_ in runs:
            done = run_.result()
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["results"]["total"]["succeeded"] == 20


def test_a_name_of_which_one_address_is_dead_over_tls(tls_place: Place, authority: Authority, hosts: Path) -> None:
    """The certificate names the name, whichever address is reached."""
    words = ("--endpoints", f"https://many.:{tls_place.other}", "--cacert", authority.cert, "--json")
    done = within(hosts, "cluster", "status", *words)
    assert done.returncode == 0, done.stderr


# DNS SRV


@pytest.fixture
def srv(place: Place) -> Iterator[Nameserver]:
    """A domain that names the member by its name, and a member that is dead."""
    records = {
        "_etcd-client._tcp.example.com.": [(0, 0, place.port, "localhost.")],
        "_etcd-client-blue._tcp.example.com.": [(0, 0, place.port, "localhost."), (9, 0, 1, "localhost.")],
    }
    with nameserver(records) as server:
        yield server


@pytest.fixture
def asked(srv: Nameserver, monkeypatch: pytest.MonkeyPatch) -> Nameserver:
    monkeypatch.setenv("RAFTLOAD_NAMESERVER", f"127.0.0.1:{srv.port}")
    return srv


def test_discovery_by_every_command(asked: Nameserver, place: Place, raftload: Called, tmp_path: Path) -> None:
    found = f"http://localhost.:{place.port}"
    done = raftload("cluster", "status", "--discovery-srv", "example.com", "--json")
    assert (done.returncode, json.loads(done.stdout)["endpoints"]) == (0, [f"localhost.:{place.port}"])
    for transport in ("grpc", "gateway"):
        done = raftload(
            "cluster", "test", "--discovery-srv", "example.com", "--only", *CALLS, "--transport", transport, "--json"
        )
        assert [each["endpoint"] for each in json.loads(done.stdout)["target"]["members"]] == [found], done.stderr
    done = raftload("viz", "--type", "cluster-status", "--discovery-srv", "example.com", "--format", "ascii")
    assert done.returncode == 0 and "etcd-node1" in done.stdout
    done = raftload("viz", "--type", "leader-election", "--discovery-srv", "example.com", "--format", "ascii")
    assert done.returncode == 0 and "etcd-node1" in done.stdout
    words = ("--operations", "20", "--workers", "1", "--json", "--output", "bench")
    done = run("bench", "--discovery-srv", "example.com", *words, cwd=tmp_path)  # over JSON in the next test
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["target"]["endpoints"] == [{"url": found, "reachable": True}]
    assert result["results"]["total"]["succeeded"] == 20
    words = ("--duration", "1s", "--concurrency", "4", "--workers", "1", "--output", "chaos")
    done = run("chaos", "--discovery-srv", "example.com", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_discovery_by_etcdctls_names(
    asked: Nameserver, place: Place, raftload: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"ETCDCTL_DISCOVERY_SRV": "example.com", "ETCDCTL_DISCOVERY_SRV_NAME": "blue", "ETCDCTL_ENDPOINTS": "x:1"}
    words = ("bench", "--operations", "20", "--workers", "1", "--transport", "gateway", "--json", "--output", "a")
    done = run(*words, cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["results"]["total"]["succeeded"] == 20
    assert [(each["url"], each["reachable"]) for each in result["target"]["endpoints"]] == [
        (f"http://localhost.:{place.port}", True), ("http://localhost.:1", False)
    ]  # fmt: skip
    assert "warning: not every endpoint answers: localhost.:1: connection refused" in done.stderr
    # An option wins over the environment, whichever it is.
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    done = raftload("bench", "--endpoints", f"127.0.0.1:{place.port}", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"127.0.0.1:{place.port} (--endpoints)" in done.stdout
    done = raftload("cluster", "status", "--endpoints", f"127.0.0.1:{place.port}", "--json")
    assert json.loads(done.stdout)["endpoints"] == [f"127.0.0.1:{place.port}"]


def test_discovery_over_tls(tls_place: Place, authority: Authority, raftload: Called, monkeypatch: Any) -> None:
    records = {"_etcd-client-ssl._tcp.example.com.": [(0, 0, tls_place.port, "localhost.")]}
    with nameserver(records) as server:
        monkeypatch.setenv("RAFTLOAD_NAMESERVER", f"127.0.0.1:{server.port}")
        done = raftload("cluster", "status", "--discovery-srv", "example.com", "--cacert", authority.cert, "--json")
    assert done.returncode == 0, done.stderr


def locust(*words: str, cwd: Path, **env: str) -> dict[str, Any]:
    """Return the only row of what plain Locust prints."""
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "locustfiles" / "put.py"), "--headless", "--json"]
    done = subprocess.run(
        [*command, "-u", "2", "-r", "2", "--operations", "20", *words],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), **env}, capture_output=True, text=True, timeout=HANG_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    return dict(row)


def test_plain_locust(asked: Nameserver, place: Place, tmp_path: Path) -> None:
    """Each way to name an endpoint, over one transport or the other: both take what was named from one place."""
    for transport in ("grpc", "gateway"):
        assert locust("--host", place("SOCKET"), "--transport", transport, cwd=tmp_path)["num_requests"] == 20
    assert locust(cwd=tmp_path, ETCDCTL_DISCOVERY_SRV="example.com")["num_requests"] == 20
    by_json = ("--transport", "gateway")
    assert locust(*by_json, cwd=tmp_path, ETCDCTL_ENDPOINTS=f"localhost.:{place.port}/")["num_requests"] == 20


def test_what_is_not_discovered_is_one_line(asked: Nameserver, raftload: Called) -> None:
    for words in (
        ("cluster", "status"),
        ("cluster", "test"),
        ("bench",),
        ("viz", "--type", "cluster-status"),
        ("chaos",),
    ):
        done = raftload(*words, "--discovery-srv", "example.org")
        where = f"NXDOMAIN from 127.0.0.1:{asked.port}"
        assert (done.returncode, done.stdout) == (4, ""), done.stderr
        assert done.stderr == (
            f"raftload: error: no endpoints of example.org by DNS SRV: _etcd-client-ssl._tcp.example.org: {where}; "
            f"_etcd-client._tcp.example.org: {where}\n"
        )
        assert_refused(raftload(*words, "--discovery-srv", "a..b"), "'a..b' is not a domain name")
        exclusive = raftload(*words, "--discovery-srv", "example.com", "--endpoints", "h:1")
        assert_refused(exclusive, "--endpoints and --discovery-srv exclude each other")


def test_web_on_a_socket_and_by_discovery(asked: Nameserver, place: Place, tmp_path: Path) -> None:
    import urllib.parse
    import urllib.request

    for number, target in enumerate((["--endpoints", place("SOCKET")], ["--discovery-srv", "example.com"])):
        cwd = tmp_path / str(number)
        cwd.mkdir()
        process = start("web", "--web-port", "0", "--workers", "1", "--operations", "20", *target, cwd=cwd)
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert "open http://127.0.0.1:" in line, line
            form = urllib.parse.urlencode({"user_count": "2", "spawn_rate": "2"}).encode()
            with urllib.request.urlopen(line.split()[2] + "/swarm", data=form, timeout=HANG_S) as answer:
                assert json.load(answer)["success"], answer
            found = until(lambda place=cwd: list(place.glob("runs/*/result.json")), "the run's result")  # type: ignore[misc]
            assert json.loads(found[0].read_text())["results"]["total"]["succeeded"] == 20
        finally:
            process.terminate()
            process.communicate(timeout=HANG_S)
