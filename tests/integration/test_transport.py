"""The transport against servers that are not etcd, or not at their best; real sockets, no mocks."""

from __future__ import annotations

import contextlib
import ssl
import time
from pathlib import Path

import gevent
import gevent.server
import gevent.socket
import gevent.ssl
import pytest

from cluster.base.endpoint import Endpoint
from loadgen.client import connect_errors
from loadgen.client.channel import Channel
from loadgen.client.etcd import EtcdClient
from loadgen.client.transport import Transport
from loadgen.history.operation import Outcome
from loadgen.wire import Code, frames
from tests.support.certificates import Authority
from tests.support.http2_server import OPEN, Listen, Serve, cause_of, head, silent, until, whole
from tests.support.ports import closed_port
from tests.support.waiting import HANG_S

# Who is there


def test_probe_tells_apart_who_is_not_etcd(listen: Listen, serve: Serve) -> None:
    def http1(client: gevent.socket.socket, _: object) -> None:
        client.recv(1000)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    def chatter(client: gevent.socket.socket, _: object) -> None:
        client.sendall(b"220 mail.example ESMTP\r\n")
        client.recv(1000)

    def hang_up(client: gevent.socket.socket, _: object) -> None:
        client.recv(1000)

    other = serve(lambda _, stream_id: head(stream_id, [*OPEN, (b"grpc-status", b"12")], end=True))
    assert cause_of(closed_port()) == connect_errors.REFUSED
    assert cause_of(listen(http1)) == connect_errors.NOT_HTTP2
    assert cause_of(listen(chatter)) == connect_errors.NOT_HTTP2
    assert cause_of(listen(silent), timeout_s=0.3) == connect_errors.NO_ANSWER
    assert cause_of(listen(hang_up)) == connect_errors.CLOSED
    assert cause_of(other.endpoint) == connect_errors.NOT_ETCD
    assert cause_of(serve(lambda *_: b"").endpoint, timeout_s=0.3) == connect_errors.NO_ANSWER


def test_probe_knows_tls(listen: Listen, tmp_path: Path) -> None:
    pair = Authority(tmp_path).sign("server", "127.0.0.1")
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)

    def terse(client: gevent.socket.socket, _: object) -> None:
        # Like Go's listener, it hangs up on what is no TLS without a word.
        with contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as encrypted:
            encrypted.recv(1)

    assert cause_of(listen(terse)) == connect_errors.TLS_SPOKEN


@pytest.mark.parametrize(
    "text",
    ["", "host", ":2379", "host:", "host:0", "host:99999", "host:port", "ftp://h:1", "::1:2379", "h:1/v3", "a b:1",
     "h:1,i:2", "http://", "u@h:1", "[::1:2379"],
)  # fmt: skip
def test_malformed_endpoints_are_one_clear_line(text: str) -> None:
    with pytest.raises(ValueError, match="malformed endpoint") as caught:
        EtcdClient([text])
    assert "\n" not in str(caught.value)


# Calls


def test_localhost_is_tried_at_every_address(serve: Serve) -> None:
    port = serve(lambda _, stream_id: whole(stream_id)).endpoint.rpartition(":")[2]
    client = EtcdClient([f"localhost:{port}"])
    assert client.get(b"k").revision == 7
    client.close()


def test_refused_is_fail_and_does_not_spin() -> None:
    client = EtcdClient([closed_port()], timeout_s=HANG_S)
    began = time.monotonic()
    operations = [client.put(b"k", b"v") for _ in range(4)]
    assert {(each.outcome, each.error) for each in operations} == {(Outcome.FAIL, connect_errors.REFUSED)}
    assert time.monotonic() - began > 0.05
    assert client.channel.in_flight == 0
    client.close()


def test_a_dead_endpoint_among_live_ones_is_passed_over(serve: Serve) -> None:
    live = serve(lambda _, stream_id: whole(stream_id)).endpoint
    client = EtcdClient([closed_port(), live])
    assert [client.get(b"k").outcome for _ in range(20)] == [Outcome.OK] * 20
    client.close()


def test_deadline_is_kept_and_told(serve: Serve) -> None:
    """Calls with a deadline of 0.2 s end then, and one with a minute's goes on."""
    server = serve(lambda *_: b"")
    endpoint = server.endpoint
    client, patient = EtcdClient([endpoint], timeout_s=0.2), EtcdClient([endpoint], timeout_s=HANG_S)
    goes_on = gevent.spawn(patient.get, b"k")
    began = time.monotonic()
    calls = [gevent.spawn(client.put if n % 2 else client.get, b"k", *([b"v"] if n % 2 else [])) for n in range(10)]
    operations = [each.get() for each in calls]
    assert time.monotonic() - began >= 0.19
    assert {(each.f, each.outcome, each.error) for each in operations} == {
        ("put", Outcome.INFO, "DEADLINE_EXCEEDED"),
        ("get", Outcome.FAIL, "DEADLINE_EXCEEDED"),
    }
    assert all(each.latency_ns > 0.19e9 for each in operations)
    until(lambda: len(server.resets) == 10)
    assert not goes_on.ready()
    client.close()
    patient.close()
    assert goes_on.get(timeout=HANG_S).error == connect_errors.CLOSED_HERE


def test_different_deadlines_on_one_transport(serve: Serve) -> None:
    """Each call ends after its own, however they were begun: none before, and none behind one with a later deadline."""
    where = Endpoint.parse(serve(lambda *_: b"").endpoint)
    transport = Transport(where)
    transport.connect(HANG_S)
    ends: dict[int, int] = {}

    def one(milliseconds: int) -> float:
        began = time.perf_counter_ns()
        stream = transport.call(b"/x", b"", milliseconds * 1_000_000, began)
        assert stream.code == Code.DEADLINE_EXCEEDED
        ends[milliseconds] = stream.ended_ns
        return (stream.ended_ns - began) / 1e6 - milliseconds

    beyond = gevent.spawn(transport.call, b"/x", b"", int(HANG_S * 1e9), time.perf_counter_ns())
    late = [each.get() for each in [gevent.spawn(one, n) for n in (300, 50, 200, 100, 51)]]
    assert min(late) >= 0
    assert sorted(ends, key=lambda n: ends[n]) == [50, 51, 100, 200, 300]
    assert not beyond.ready()
    transport.close()
    beyond.join()


def test_a_killed_greenlet_gives_up_its_call(serve: Serve) -> None:
    abandoned = []
    server = serve(lambda *_: b"")
    client = EtcdClient([server.endpoint], abandoned=abandoned.append)
    calls = [gevent.spawn(client.get, b"k") for _ in range(3)]
    until(lambda: len(server.requests) == 3)
    calls[1].kill()
    assert isinstance(calls[1].value, gevent.GreenletExit)
    assert [(each.f, each.outcome, each.error) for each in abandoned] == [("get", Outcome.INFO, "killed")]
    until(lambda: server.resets == [3])
    assert client.channel.in_flight == 2
    with gevent.Timeout(0.1, False):
        client.get(b"k")
    until(lambda: server.resets == [3, 7])
    client.close()
    gevent.joinall(calls)
    assert {each.value.error for each in (calls[0], calls[2])} == {connect_errors.CLOSED_HERE}


def test_refused_streams_are_sent_again_once(serve: Serve) -> None:
    server = serve(lambda _, stream_id: frames.rst_stream(stream_id, 7) if stream_id == 1 else whole(stream_id))
    client = EtcdClient([server.endpoint])
    operation = client.put(b"k", b"v", due_ns=123)
    assert (operation.outcome, operation.due_ns) == (Outcome.OK, 123)
    assert client.channel.resent == 1
    client.close()
    always = EtcdClient([serve(lambda _, stream_id: frames.rst_stream(stream_id, 7)).endpoint])
    operation = always.put(b"k", b"v")
    assert (operation.outcome, operation.error) == (Outcome.FAIL, "stream refused")
    assert always.channel.resent == 1
    always.close()


def test_goaway_moves_to_a_new_connection(serve: Serve) -> None:
    def respond(number: int, stream_id: int) -> bytes:
        if number == 1 and stream_id == 3:
            return frames.goaway(1, 0) + whole(1)
        return b"" if number == 1 else whole(stream_id)

    server = serve(respond)
    client = EtcdClient([server.endpoint])
    kept = gevent.spawn(client.get, b"a")
    until(lambda: len(server.requests) == 1)
    assert client.get(b"b").outcome == Outcome.OK
    assert kept.get().outcome == Outcome.OK
    assert (client.channel.resent, client.channel.connects) == (1, 2)
    client.close()


def test_a_connection_out_of_stream_ids_is_replaced(serve: Serve) -> None:
    client = EtcdClient([serve(lambda _, stream_id: whole(stream_id)).endpoint])
    assert client.get(b"k").outcome == Outcome.OK
    client.channel._live[0]._connection._sender.next_id = frames.LARGEST_STREAM_ID
    assert [client.get(b"k").outcome for _ in range(3)] == [Outcome.OK] * 3
    assert (client.channel.connects, client.channel.resent) == (2, 0)
    client.close()


def test_close_ends_what_waits(serve: Serve) -> None:
    server = serve(lambda *_: b"")
    client = EtcdClient([server.endpoint])
    put = gevent.spawn(client.put, b"k", b"v")
    until(lambda: len(server.requests) == 1)
    client.close()
    client.close()
    assert put.get(timeout=HANG_S).outcome == Outcome.INFO
    after = client.put(b"k", b"v")
    assert (after.outcome, after.error) == (Outcome.FAIL, "client closed")


def test_a_slow_reader_pushes_back(listen: Listen) -> None:
    """More is written than the socket takes at once: nothing is lost, nothing is reordered."""
    got = bytearray()

    def slow(client: gevent.socket.socket, _: object) -> None:
        client.sendall(frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 30}) + frames.window_update(0, 1 << 30))
        gevent.sleep(0.2)
        while part := client.recv(65_536):
            got.extend(part)

    channel = Channel([listen(slow)])
    values = [bytes((n,)) * 4_000_000 for n in range(8)]
    callers = [gevent.spawn(channel.call, b"/x", each, int(HANG_S * 1e9), time.perf_counter_ns()) for each in values]
    until(lambda: len(got) > 32_000_000)
    bodies: dict[int, bytearray] = {}
    rest = memoryview(bytes(got))[24:]
    while len(rest) >= 9:
        word, _, stream_id = frames.FRAME_HEADER.unpack_from(rest)
        if word & 0xFF == frames.DATA:
            bodies.setdefault(stream_id, bytearray()).extend(rest[9 : 9 + (word >> 8)])
        rest = rest[9 + (word >> 8) :]
    assert [bytes(each[5:]) for _, each in sorted(bodies.items())] == values
    channel.close()
    gevent.joinall(callers)


def test_no_endpoint_and_no_connection_are_errors() -> None:
    with pytest.raises(ValueError, match="no endpoint"):
        EtcdClient([])
    with pytest.raises(ValueError, match="connections"):
        EtcdClient(["h:1"], connections=0)
    with pytest.raises(ValueError, match="timeout"):
        EtcdClient(["h:1"], timeout_s=0)
