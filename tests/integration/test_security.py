"""TLS, client certificates and users, against real etcd and against servers of our own that get it wrong."""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.server
import gevent.socket
import gevent.ssl
import pytest
import urllib3.connection

from cluster.base import security as tls
from cluster.base.errors import EtcdError, NoAnswer
from cluster.base.security import Security, SecurityError
from cluster.base.topology import ServerTls
from cluster.gateway.conformance_client import GatewayClient
from cluster.local.cluster import LocalCluster
from cluster.observe import calls
from loadgen.cli import main
from loadgen.client import connect_errors, transport
from loadgen.client.etcd import EtcdClient, probe, probe_all
from loadgen.history.operation import Outcome
from tests.support.certificates import Authority, Pair
from tests.support.command import run, start
from tests.support.http2_server import Listen, cause_of, silent
from tests.support.processes import arguments, descendants
from tests.support.waiting import HANG_S, until

HOUR = datetime.timedelta(hours=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "somebody else")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.sign("server", "127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def tls_cluster(etcd_binary: str, authority: Authority, server: Pair) -> Iterator[LocalCluster]:
    """One member that speaks TLS; its clients need no certificate."""
    trust = Security(cacert=authority.cert)
    with LocalCluster(1, binary=etcd_binary, tls=ServerTls(server.cert, server.key), security=trust) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def mutual(authority: Authority) -> Security:
    pair = authority.sign("client")
    return Security(cacert=authority.cert, cert=pair.cert, key=pair.key)


@pytest.fixture(scope="module")
def mutual_cluster(etcd_binary: str, authority: Authority, server: Pair, mutual: Security) -> Iterator[LocalCluster]:
    """One member that wants a certificate of its clients."""
    how = ServerTls(server.cert, server.key, client_ca=authority.cert)
    with LocalCluster(1, binary=etcd_binary, tls=how, security=mutual) as cluster:
        yield cluster


def gateway_says(endpoint: str, security: Security) -> str:
    """Why there is no connection, over etcd3-py."""
    with pytest.raises((NoAnswer, EtcdError)) as caught:
        GatewayClient(endpoint, timeout_s=HANG_S, security=security).status()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# TLS


def test_operations_over_tls(tls_cluster: LocalCluster, authority: Authority) -> None:
    client = EtcdClient(tls_cluster.endpoints, security=Security(cacert=authority.cert), connections=2)
    value = bytes(range(256)) * 4_000  # many records, more than the socket takes at once
    operations = gevent.joinall([gevent.spawn(client.put, b"tls/%d" % n, value) for n in range(20)])
    assert {each.value.outcome for each in operations} == {Outcome.OK}
    found = client.range(b"tls/", b"tls0").response
    assert found.count == 20
    assert all(kv.value == value for kv in found.kvs)
    client.close()


def test_an_endpoint_without_a_scheme_is_spoken_to_as_etcdctl_does(
    tls_cluster: LocalCluster, authority: Authority
) -> None:
    bare = tls_cluster.endpoints[0].removeprefix("https://")
    assert probe(bare, HANG_S, security=Security(cacert=authority.cert)).leader
    assert cause_of(bare, Security()) == connect_errors.TLS_SPOKEN


def test_any_certificate_where_told_so(tls_cluster: LocalCluster) -> None:
    assert probe(tls_cluster.endpoints[0], HANG_S, security=Security(insecure_skip_tls_verify=True)).leader
    with GatewayClient(tls_cluster.endpoints[0], security=Security(insecure_skip_tls_verify=True)) as client:
        assert client.status().leader_id


def test_a_stranger_is_not_trusted(tls_cluster: LocalCluster, stranger: Authority) -> None:
    for security in (Security(cacert=stranger.cert), Security()):
        assert cause_of(tls_cluster.endpoints[0], security) == tls.WRONG_CA
        assert tls.WRONG_CA in gateway_says(tls_cluster.endpoints[0], security)


def test_tls_to_a_plain_member(etcd_single: LocalCluster, authority: Authority) -> None:
    endpoint = etcd_single.endpoints[0].replace("http://", "https://")
    assert cause_of(endpoint, Security(cacert=authority.cert)) == tls.PLAIN_SPOKEN
    assert tls.PLAIN_SPOKEN in gateway_says(endpoint, Security(cacert=authority.cert))


def test_client_certificates(mutual_cluster: LocalCluster, mutual: Security) -> None:
    endpoint = mutual_cluster.endpoints[0]
    client = EtcdClient([endpoint], security=mutual)
    assert client.put(b"k", b"v").outcome == Outcome.OK
    client.close()
    with GatewayClient(endpoint, security=mutual) as control:
        assert control.get(b"k").kvs[0].value == b"v"
    none = Security(cacert=mutual.cacert)
    assert cause_of(endpoint, none) == tls.CERTIFICATE_WANTED
    assert tls.CERTIFICATE_WANTED in gateway_says(endpoint, none)


@pytest.mark.parametrize("whose", ["stranger", "expired"])
def test_client_certificates_that_are_refused(
    mutual_cluster: LocalCluster, authority: Authority, stranger: Authority, whose: str
) -> None:
    pair = stranger.sign("stranger") if whose == "stranger" else authority.sign("late", left=-HOUR)
    security = Security(cacert=authority.cert, cert=pair.cert, key=pair.key)
    assert cause_of(mutual_cluster.endpoints[0], security) == tls.CERTIFICATE_REFUSED
    assert tls.CERTIFICATE_REFUSED in gateway_says(mutual_cluster.endpoints[0], security)


def test_a_refusal_is_read_from_a_connection_that_was_reset(
    listen: Listen, authority: Authority, server: Pair, stranger: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd closes at its alert, so what is written then meets no connection."""
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.cert, server.key)
    context.load_verify_locations(authority.cert)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])

    def handle(client: Any, _: object) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            context.wrap_socket(client, server_side=True)
        client.close()

    def until_reset(sock: socket.socket, sleep: Callable[[float], object]) -> None:
        watched = select.poll()
        watched.register(sock, 0)
        until(lambda: any(events & select.POLLHUP for _, events in watched.poll(0)), "the reset", sleep=sleep)

    dial, connected = transport.dial, calls._connected

    def dialled(*words: Any) -> Any:
        raw, encrypted = dial(*words)
        if encrypted is not None:
            until_reset(raw, gevent.sleep)
        return raw, encrypted

    def connected_once(*words: Any) -> socket.socket:
        sock = connected(*words)
        if isinstance(sock, ssl.SSLSocket):
            until_reset(sock, time.sleep)
        return sock

    connect = urllib3.connection.HTTPSConnection.connect

    def connect_once(self: urllib3.connection.HTTPSConnection) -> None:
        connect(self)
        assert self.sock is not None
        until_reset(self.sock, time.sleep)

    monkeypatch.setattr(urllib3.connection.HTTPSConnection, "connect", connect_once)
    monkeypatch.setattr(transport, "dial", dialled)
    monkeypatch.setattr(calls, "_connected", connected_once)
    pair = stranger.sign("stranger")
    security = Security(cacert=authority.cert, cert=pair.cert, key=pair.key)
    endpoint = f"https://{listen(handle)}"
    assert cause_of(endpoint, security) == tls.CERTIFICATE_REFUSED
    for ask in (
        lambda: calls.grpc(endpoint, calls.STATUS, b"", HANG_S, security),
        lambda: calls.http(endpoint, "GET", "/version", timeout_s=HANG_S, security=security),
    ):
        with pytest.raises(NoAnswer) as caught:
            gevent.get_hub().threadpool.apply(ask)
        assert tls.CERTIFICATE_REFUSED in str(caught.value)
    assert tls.CERTIFICATE_REFUSED in gevent.get_hub().threadpool.apply(gateway_says, (endpoint, security))


Serve = Callable[..., str]


@pytest.fixture
def serve(listen: Listen) -> Serve:
    """Serve TLS with a certificate and protocols, hang up after the handshake; return the endpoint."""

    def start(pair: Pair, *alpn: str, host: str = "127.0.0.1") -> str:
        context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        if alpn:
            context.set_alpn_protocols(list(alpn))

        def handle(client: Any, _: object) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as encrypted:
                encrypted.recv(1)

        return f"https://{host}:{listen(handle).rpartition(':')[2]}"

    return start


def test_certificates_that_are_not_good_now(serve: Serve, authority: Authority) -> None:
    late = authority.sign("late", "127.0.0.1", left=-HOUR)
    early = authority.sign("early", "127.0.0.1", age=-HOUR)
    assert cause_of(serve(late, "h2"), Security(cacert=authority.cert)) == tls.EXPIRED
    assert cause_of(serve(early, "h2"), Security(cacert=authority.cert)) == tls.NOT_YET


def test_certificates_of_another_host(serve: Serve, authority: Authority) -> None:
    other = authority.sign("other", "etcd.example", "10.0.0.1")
    named = authority.sign("named", "localhost")
    nameless = authority.sign("localhost")  # the common name is not asked: Go's clients do not either
    for endpoint in (
        serve(other, "h2"),
        serve(other, "h2", host="localhost"),
        serve(named, "h2"),
        serve(nameless, "h2", host="localhost"),
    ):
        assert cause_of(endpoint, Security(cacert=authority.cert)) == tls.WRONG_HOST


def test_no_agreement_on_http2(serve: Serve, authority: Authority, server: Pair) -> None:
    for protocols in ((), ("http/1.1",)):
        assert cause_of(serve(server, *protocols), Security(cacert=authority.cert)) == tls.NO_ALPN


def test_a_server_that_says_nothing_in_the_handshake(listen: Listen, authority: Authority) -> None:
    with gevent.Timeout(HANG_S):
        cause = cause_of(f"https://{listen(silent)}", Security(cacert=authority.cert), timeout_s=0.5)
    assert cause == connect_errors.NO_ANSWER


def test_files_of_no_use(tmp_path: Path, authority: Authority, server: Pair) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    with pytest.raises(SecurityError, match=r"--cacert .* not certificates in PEM"):
        EtcdClient(["https://127.0.0.1:1"], security=Security(cacert=str(text)))
    with pytest.raises(SecurityError, match=r"--cert .* with --key .* not a certificate and its key"):
        EtcdClient(["https://127.0.0.1:1"], security=Security(cert=server.cert, key=authority.sign("x").key))
    with pytest.raises(SecurityError, match="--cert and --key go together"):
        Security(cert=server.cert)
    with pytest.raises(SecurityError, match="--cacert /none: No such file"):
        Security.from_environment({"ETCDCTL_CACERT": "/none"})


def test_a_bad_file_is_one_line_and_leaves_no_folder(tmp_path: Path, server: Pair, authority: Authority) -> None:
    """Of every command that connects: no greenlet's traceback stands above it."""
    (tmp_path / "text.pem").write_text("no certificate")
    pair = ("--cert", server.cert, "--key", authority.sign("y").key)
    for command in ("bench", "web", "worker", "cluster status", "cluster test", "viz --type cluster-status"):
        at = () if command == "worker" else ("--endpoints", "https://127.0.0.1:1")
        for files in (("--cacert", "text.pem"), pair) if command == "bench" else (("--cacert", "text.pem"),):
            done = run(*command.split(), *at, *files, cwd=tmp_path)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
            assert done.stderr.startswith(f"raftload: error: {files[0]} "), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["text.pem"]


def test_files_of_no_use_leave_no_greenlet_behind(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """From Python, where nothing has looked at them before: gevent prints what leaves a greenlet."""
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(SecurityError, match="not certificates in PEM"):
        probe_all(["https://127.0.0.1:1", "127.0.0.1:1"], security=Security(cacert=str(tmp_path / "text.pem")))
    assert capfd.readouterr().err == ""


# Users


ROOT = {"user": "root", "password": "secret-of-root"}


def enable_auth(cluster: LocalCluster, security: Security) -> None:
    with GatewayClient(cluster.endpoints[0], security=security) as admin:
        admin.rpc("/auth/user/add", {"name": ROOT["user"], "password": ROOT["password"]})
        admin.rpc("/auth/role/add", {"name": "root"})
        admin.rpc("/auth/user/grant", {"user": "root", "role": "root"})
        admin.rpc("/auth/user/add", {"name": "guest", "password": "guest"})
        admin.rpc("/auth/enable")


@pytest.fixture(scope="module")
def auth_cluster(etcd_binary: str, authority: Authority, server: Pair) -> Iterator[LocalCluster]:
    """Three members with TLS and auth."""
    trust = Security(cacert=authority.cert)
    with LocalCluster(3, binary=etcd_binary, tls=ServerTls(server.cert, server.key), security=trust) as cluster:
        enable_auth(cluster, trust)
        yield cluster


def test_a_user_logs_in(auth_cluster: LocalCluster, authority: Authority) -> None:
    root = Security(cacert=authority.cert, **ROOT)
    client = EtcdClient(auth_cluster.endpoints, timeout_s=HANG_S, security=root, connections=2)
    asked = gevent.joinall([gevent.spawn(client.put, b"auth/%d" % n, b"v") for n in range(50)])
    assert {each.value.outcome for each in asked} == {Outcome.OK}
    assert client.status(auth_cluster.endpoints[0]).outcome == Outcome.OK
    client.close()


def test_who_is_not_let_in(auth_cluster: LocalCluster, authority: Authority) -> None:
    wrong = Security(cacert=authority.cert, user="root", password="wrong")
    assert cause_of(auth_cluster.endpoints[0], wrong) == connect_errors.BAD_PASSWORD
    assert "authentication failed" in gateway_says(auth_cluster.endpoints[0], wrong)
    client = EtcdClient(auth_cluster.endpoints, timeout_s=HANG_S, security=wrong)
    refused = client.put(b"k", b"v")
    assert (refused.outcome, refused.error) == (Outcome.FAIL, connect_errors.BAD_PASSWORD)
    client.close()
    nobody = EtcdClient(auth_cluster.endpoints, timeout_s=HANG_S, security=Security(cacert=authority.cert))
    refused = nobody.put(b"k", b"v")
    assert (refused.outcome, refused.error) == (Outcome.FAIL, "UserEmpty")
    nobody.close()
    guest = EtcdClient(
        auth_cluster.endpoints,
        timeout_s=HANG_S,
        security=Security(cacert=authority.cert, user="guest", password="guest"),
    )
    refused = guest.put(b"k", b"v")
    assert (refused.outcome, refused.error) == (Outcome.FAIL, "PermissionDenied")
    guest.close()


def test_a_user_where_auth_is_off(tls_cluster: LocalCluster, authority: Authority) -> None:
    root = Security(cacert=authority.cert, **ROOT)
    assert cause_of(tls_cluster.endpoints[0], root) == connect_errors.AUTH_OFF


def test_a_request_with_an_expired_token_is_sent_again_with_another_one(
    make_cluster: Callable[..., LocalCluster],
) -> None:
    # Longer than what keeps this machine from the calls after the one with another token: theirs must not expire.
    cluster = make_cluster(1, extra_args=["--auth-token-ttl=4"])
    enable_auth(cluster, Security())
    client = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=Security(**ROOT))
    operations = [client.put(b"k", b"1")]
    with gevent.Timeout(HANG_S):
        while not client.channel.resent:
            gevent.sleep(6.0)  # nobody uses it for so long; etcd ends tokens in steps of a second
            operations.append(client.put(b"k", b"2"))
    operations += [client.put(b"k", b"3") for _ in range(5)]
    assert {each.outcome for each in operations} == {Outcome.OK}
    assert (client.channel.resent, client.channel.connects) == (1, 1)
    assert client.get(b"k").response.kvs[0].version == len(operations)
    client.close()


def test_a_member_that_was_started_again_has_forgotten_the_token(make_cluster: Callable[..., LocalCluster]) -> None:
    cluster = make_cluster(1)
    enable_auth(cluster, Security())
    client = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=Security(**ROOT))
    assert client.put(b"k", b"v").outcome == Outcome.OK
    name = cluster.members[0].name
    cluster.kill(name)
    cluster.start(name)
    errors = set()
    with gevent.Timeout(HANG_S):
        while (operation := client.put(b"k", b"v")).outcome != Outcome.OK:
            errors.add(operation.error)
            gevent.sleep(0.01)
    assert not errors & {"InvalidAuthToken", "AuthOldRevision", "UserEmpty"}
    client.close()


# The commands


PASSWORD = ROOT["password"]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """One member that wants a client certificate and a user; its endpoint without a scheme, and the options for it."""
    authority = Authority(tmp_path_factory.mktemp("strict"))
    server, client = authority.sign("server", "127.0.0.1"), authority.sign("client", common_name=False)
    mutual = Security(cacert=authority.cert, cert=client.cert, key=client.key)
    with LocalCluster(1, tls=ServerTls(server.cert, server.key, authority.cert), security=mutual) as cluster:
        enable_auth(cluster, mutual)
        options = ["--cacert", authority.cert, "--cert", client.cert, "--key", client.key]
        yield cluster.endpoints[0].removeprefix("https://"), options


def test_bench_with_a_certificate_and_a_user(strict: tuple[str, list[str]], tmp_path: Path) -> None:
    endpoint, options = strict
    words = ["bench", "--endpoints", endpoint, *options, "--user", f"root:{PASSWORD}", "--operations", "60"]
    words += ["--workers", "1"]
    done = run(*words, "--output", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["results"]["total"]["operations"], result["results"]["total"]["failed"]) == (60, 0)
    assert result["target"]["endpoints"] == [{"url": f"https://{endpoint}", "reachable": True}]
    assert len(result["target"]["members"]) == 1
    folder = tmp_path / "run"
    members, metrics = (
        list(csv.DictReader((folder / name).read_text().splitlines())) for name in ("members.csv", "metrics.csv")
    )
    assert members[-1]["role"] == "leader" and int(members[-1]["revision"]) > 1
    assert [row["phase"] for row in metrics if row["phase"]] == ["before", "end", "after"]
    assert "root:***" in result["run"]["command"]
    assert PASSWORD not in done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]


def test_bench_over_the_gateway_by_etcdctls_names(strict: tuple[str, list[str]], tmp_path: Path) -> None:
    endpoint, options = strict
    env = {f"ETCDCTL_{name[2:].upper()}": path for name, path in zip(options[::2], options[1::2], strict=True)}
    env |= {"ETCDCTL_ENDPOINTS": endpoint, "ETCDCTL_USER": "root", "ETCDCTL_PASSWORD": PASSWORD}
    words = ["bench", "--operations", "30", "--workers", "1"]
    done = run(*words, "--transport", "gateway", "--output", "run", cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    # An embedded cluster has nothing to do with what the environment says of another one.
    done = run(*words, "--backend", "embedded", "--nodes", "1", "--output", "own", cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("transport", ["grpc", "gateway"])
def test_a_user_with_a_colon_in_the_name(strict: tuple[str, list[str]], transport: str, tmp_path: Path) -> None:
    """Kubernetes has such names; workers are told the user by their environment."""
    endpoint, options = strict
    cacert, cert, key = options[1::2]
    root = EtcdClient([f"https://{endpoint}"], timeout_s=HANG_S, security=Security(cacert, cert, key, **ROOT))
    name = f"system:{transport}"
    assert root.user_add(name, "pw").outcome == root.user_grant_role(name, "root").outcome == Outcome.OK
    root.close()
    words = ["bench", "--endpoints", endpoint, *options, "--transport", transport, "--operations", "10", "--json"]
    done = run(*words, "--workers", "1", cwd=tmp_path, ETCDCTL_USER=name, ETCDCTL_PASSWORD="pw")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"]["total"]["succeeded"] == 10
    done = run(*words, "--workers", "1", cwd=tmp_path, ETCDCTL_USER=f"{name}:pw")  # the user is `system` then
    assert done.returncode == 4 and "wrong user or password" in done.stderr


def test_nobody_sees_the_password_of_a_running_bench(strict: tuple[str, list[str]], tmp_path: Path) -> None:
    endpoint, options = strict
    words = ["bench", "--endpoints", endpoint, *options, "--user", "root", "--duration", "120s", "--output", "run"]
    process = start(*words, "--workers", "1", cwd=tmp_path, anew=True, ETCDCTL_PASSWORD=PASSWORD)
    try:
        # The observer and the worker.
        until(lambda: (tmp_path / "run" / "run.json").exists() and len(descendants(process.pid)) >= 2, "the run")
        shown = arguments()
        lines = {pid: b"\0".join(shown[pid]) for pid in (process.pid, *descendants(process.pid)) if pid in shown}
        assert b"\0--user\0root\0" in lines[process.pid]
        assert len(lines) >= 3
        assert all(PASSWORD.encode() not in line for line in lines.values())
    finally:
        process.terminate()
        process.communicate(timeout=HANG_S)
    assert process.returncode == 143


@pytest.mark.parametrize(
    "words", [("cluster", "status"), ("viz", "--type", "cluster-status"), ("cluster", "test", "--only", "kv.delete")]
)
def test_the_other_commands(
    strict: tuple[str, list[str]], capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    def says(code: int, *more: str) -> str:
        """Return what a command of this process prints on stderr."""
        assert main.main([*words, *more]) == code, capsys.readouterr()
        out, err = capsys.readouterr()
        assert PASSWORD not in out + err
        assert "Traceback" not in err
        return err

    endpoint, options = strict
    user = ["--user", f"root:{PASSWORD}"]
    says(0, "--endpoints", endpoint, *options, *user)
    assert "authentication failed" in says(4, "--endpoints", endpoint, *options, "--user", "root:wrong")
    assert tls.WRONG_CA in says(4, "--endpoints", f"https://{endpoint}", *user)


@pytest.mark.parametrize(
    "words",
    [
        ["bench", "--backend", "embedded", "--user", "root:x"],
        ["bench", "--endpoints", "h:1", "--cacert", "/none"],
        ["bench", "--endpoints", "h:1", "--transport", "gateway", "--balance", "leader"],
        ["cluster", "status", "--endpoints", "h:1", "--cert", "/dev/null"],
        ["cluster", "test", "--endpoints", "h:1", "--user", "root"],
        ["viz", "--type", "cluster-status", "--endpoints", "h:1", "--key", "/dev/null"],
    ],
    ids=" ".join,
)
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(words) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1), err


# Balance


def test_only_the_leader_is_called_and_followed(make_cluster: Callable[..., LocalCluster]) -> None:
    cluster = make_cluster(3)
    client = EtcdClient(cluster.endpoints, balance="leader", timeout_s=15)

    def asked() -> set[int]:
        return {client.get(b"k", serializable=True).response.header.member_id for _ in range(30)}

    def leader() -> int:
        found = [each for each in (cluster.statuses()) if each is not None and each.is_leader]
        return max(found, key=lambda each: each.term).member_id if found else 0

    def followed() -> int:
        """Return the leader, once it gets every call: on a busy machine leadership moves by itself."""
        until(lambda: asked() == {leader()}, "all calls at the leader", sleep=gevent.sleep)
        return leader()

    first = followed()
    name = next(each.name for each in cluster.statuses(HANG_S) if each is not None and each.member_id == first)
    gone = gevent.get_hub().threadpool.apply(cluster.kill, (name,))
    assert gone is None
    # Calls made while nobody leads wait for whoever does next.
    assert client.put(b"k", b"v").outcome == Outcome.OK
    assert followed() != first
    client.close()


@pytest.mark.parametrize(("balance", "count"), [("first", 1), ("round-robin", 3)])
def test_the_first_alone_or_all_in_turn(etcd_cluster: LocalCluster, balance: Any, count: int) -> None:
    client = EtcdClient(etcd_cluster.endpoints, balance=balance)

    def asked() -> int:
        """How many members 12 calls in a row go to."""
        return len({client.get(b"balance").response.header.member_id for _ in range(12)})

    until(lambda: asked() == count, "the connections to all members", sleep=gevent.sleep)
    assert [asked() for _ in range(3)] == [count] * 3
    client.close()


def test_a_user_who_may_not_ask_who_leads(auth_cluster: LocalCluster, authority: Authority) -> None:
    """Newer releases of etcd tell that the role root only: then calls fail at once, and say why."""
    guest = Security(cacert=authority.cert, user="guest", password="guest")
    client = EtcdClient(auth_cluster.endpoints, timeout_s=HANG_S, security=guest, balance="leader")
    said = client.get(b"k").error  # and not that it waited for an answer in vain
    assert said in ("PermissionDenied", connect_errors.LEADER_HIDDEN)
    client.close()
