"""The control plane against a real cluster, and against what is none."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.base.errors import EtcdError, NoAnswer
from cluster.base.etcd_values import Compare, Op, prefix_end
from cluster.base.topology import Member
from cluster.gateway.control import ControlClient
from cluster.local.cluster import LocalCluster
from cluster.observe.probe import member_status
from tests.support.waiting import HANG_S

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def client(etcd_single: LocalCluster) -> Iterator[ControlClient]:
    with ControlClient(etcd_single.endpoints[0]) as client:
        yield client


# Members


def test_every_member_has_a_status_and_one_leads(etcd_cluster: LocalCluster) -> None:
    statuses = []
    for endpoint in etcd_cluster.endpoints:
        with ControlClient(endpoint) as client:
            statuses.append(client.status())
            assert sorted(member.name for member in client.members()) == ["etcd-node1", "etcd-node2", "etcd-node3"]
    assert [status.is_leader for status in statuses].count(True) == 1
    assert {status.term for status in statuses} == {statuses[0].term}
    assert all(status.db_size > 0 and status.commit_index >= status.applied_index > 0 for status in statuses)


# Keys


def test_values_come_back_byte_for_byte(client: ControlClient) -> None:
    for value in (b"", b"\x00", b"\xff\xfe", bytes(range(256)), "größer".encode(), b"x" * 8192):
        revision = client.put(b"c/bytes", value).revision
        (kv,) = client.get(b"c/bytes").kvs
        assert kv.value == value
        assert kv.mod_revision == revision
    assert client.get(b"c/none").kvs == ()
    with pytest.raises(TypeError, match="bytes, not str"):
        client.put("c/text", b"")  # type: ignore[arg-type]


def test_previous_values_are_told_where_there_were_any(client: ControlClient) -> None:
    assert client.put(b"c/prev", b"", prev_kv=True).prev_kvs == ()
    assert client.put(b"c/prev", b"2", prev_kv=True).prev_kvs[0].value == b""
    answer = client.delete(b"c/prev", prev_kv=True)
    assert (answer.deleted, answer.prev_kvs[0].value) == (1, b"2")
    assert client.delete(b"c/prev").deleted == 0


def test_ranges(client: ControlClient) -> None:
    for number in range(5):
        client.put(b"c/range/%d" % number, b"v")
    end = prefix_end(b"c/range/")
    assert client.get(b"c/range/", range_end=end, count_only=True).count == 5
    limited = client.get(b"c/range/", range_end=end, limit=2)
    assert (len(limited.kvs), limited.count) == (2, 5)
    assert client.delete(b"c/range/", range_end=end).deleted == 5


def test_both_branches_of_a_transaction(client: ControlClient) -> None:
    absent = Compare(b"c/txn", "create", "=", 0)
    create = client.txn([absent], [Op.put(b"c/txn", b"1"), Op.get(b"c/txn")], [Op.get(b"c/txn")])
    assert create.succeeded is True
    assert create.responses[1].kvs[0].value == b"1"
    again = client.txn([absent], [Op.put(b"c/txn", b"2")], [Op.get(b"c/txn")])
    assert again.succeeded is False
    assert again.responses[0].kvs[0].mod_revision == create.revision
    swap = [Compare(b"c/txn", "value", "=", b"1"), Compare(b"c/txn", "mod", "=", create.revision)]
    assert client.txn(swap, [Op.delete(b"c/txn")]).responses[0].deleted == 1
    assert client.txn([Compare(b"c/txn", "version", ">", 0)]).succeeded is False


def test_server_errors_carry_their_code(client: ControlClient) -> None:
    cases: list[tuple[Callable[[], object], int, str]] = [
        (lambda: client.put(b"", b"v"), 3, "EmptyKey"),
        (lambda: client.put(b"c/lease", b"v", lease=77), 5, "LeaseNotFound"),
        (lambda: client.get(b"c/x", revision=10**9), 11, "FutureRev"),
        (lambda: client.txn([], [Op.put(b"c/d", b"1"), Op.put(b"c/d", b"2")]), 3, "duplicate key"),
    ]
    for call, code, text in cases:
        with pytest.raises(EtcdError, match=text) as caught:
            call()
        assert caught.value.code == code


def test_compacted_history_is_out_of_range(client: ControlClient) -> None:
    first = client.put(b"c/compact", b"1").revision
    last = client.put(b"c/compact", b"2").revision
    client.compact(last)
    with pytest.raises(EtcdError, match="compacted"):
        client.get(b"c/compact", revision=first)


# What is not etcd


@contextlib.contextmanager
def listener(answer: bytes | None) -> Iterator[str]:
    """Yield a server that answers every request alike, or with None never."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    kept.append(connection)
                    if answer is not None:
                        connection.recv(65536)
                        connection.sendall(answer)
                        connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(HANG_S)
        for connection in kept:
            connection.close()


def page(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


@pytest.mark.parametrize(
    ("answer", "cause", "text"),
    [
        (page("200 OK", b"<html>"), "not etcd", "not an answer of etcd"),
        (page("200 OK", b"[1]"), "not etcd", "not an answer of etcd"),
        (page("200 OK", b'{"etcdserver": 3}'), "not etcd", "not an answer of etcd"),
        (page("400 Bad Request", b"Client sent an HTTP request to an HTTPS server.\n"), "tls", "use https"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not etcd", "not an answer of etcd"),
    ],
)
def test_what_answers_but_is_not_etcd(answer: bytes, cause: str, text: str) -> None:
    with listener(answer) as endpoint, pytest.raises(NoAnswer, match=text) as caught:
        ControlClient(endpoint, timeout_s=HANG_S)
    assert caught.value.cause == cause


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"", "connection lost"),
        (b"HTTP/1.0 200 OK\r\nConte", "connection lost"),
        (page("200 OK", b'{"header": {}}')[:-1], "connection lost"),
        (page("200 OK", b"[1]"), "not etcd"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not etcd"),
    ],
)
def test_who_hangs_up_in_mid_answer_is_lost_and_not_somebody_else(answer: bytes, cause: str) -> None:
    with listener(answer) as endpoint, pytest.raises(NoAnswer) as caught:
        member_status(Member("m", f"http://{endpoint}", "", ""), HANG_S)
    assert caught.value.cause == cause


@pytest.mark.parametrize(
    ("endpoint", "cause", "text"),
    [
        ("no-such-host.invalid:2379", "host not found", "no-such-host.invalid:2379: the name does not resolve"),
        ("no-such-host.invalid.:2379", "host not found", "no-such-host.invalid.:2379: the name does not resolve"),
        ("127.0.0.1:1", "connection refused", "127.0.0.1:1: Connection refused"),
    ],
)
def test_why_there_is_no_connection(endpoint: str, cause: str, text: str) -> None:
    for ask in (
        lambda: ControlClient(f"http://{endpoint}", timeout_s=HANG_S),
        lambda: member_status(Member("m", f"http://{endpoint}", "", ""), HANG_S),
    ):
        with pytest.raises(NoAnswer) as caught:
            ask()
        assert (str(caught.value), caught.value.cause, caught.value.sent) == (text, cause, False)


def test_what_hangs_is_given_up_in_time() -> None:
    with listener(None) as endpoint:
        began = time.monotonic()
        with pytest.raises(NoAnswer, match="no answer in time") as caught:
            ControlClient(endpoint, timeout_s=0.3)
        assert time.monotonic() - began >= 0.3
    assert caught.value.cause == "timeout"


def test_an_endpoint_without_tls_asked_for_tls(etcd_single: LocalCluster) -> None:
    with pytest.raises(NoAnswer):
        ControlClient(etcd_single.endpoints[0].replace("http://", "https://"), timeout_s=HANG_S)


def test_it_works_where_gevent_has_patched(etcd_cluster: LocalCluster) -> None:
    script = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import sys; from cluster.gateway.control import ControlClient\n"
        "print([ControlClient(endpoint).status().revision > 0 for endpoint in sys.argv[1:]])"
    )
    command = [sys.executable, "-W", "error", "-c", script, *etcd_cluster.endpoints]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "[True, True, True]\n", done.stderr


def test_starting_a_cluster_imports_nothing_that_gevent_must_patch_first() -> None:
    script = "import cluster.local.cluster, sys; "
    script += "print({'ssl', 'requests', 'urllib3', 'gevent', 'locust'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
