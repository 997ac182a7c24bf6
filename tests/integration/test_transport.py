"""The transport against servers that are not etcd, or not at their best; real sockets, no mocks."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import gevent.server
import gevent.socket
import gevent.ssl
import hpack
import pytest

from cluster.base.endpoint import Endpoint
from loadgen.client import connect_errors
from loadgen.client.channel import Channel
from loadgen.client.connect_errors import ConnectError
from loadgen.client.etcd import EtcdClient, probe
from loadgen.client.transport import Transport
from loadgen.history.operation import Outcome
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import Code, frames
from loadgen.wire.grpc import PREFIX
from tests.support import waiting
from tests.support.certificates import Authority
from tests.support.ports import take_ports
from tests.support.waiting import HANG_S

Handler = Callable[[gevent.socket.socket, object], None]
Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a handler on a free port of loopback, return the endpoint."""
    with contextlib.ExitStack() as stack:

        def start(handler: Handler, **options: object) -> str:
            server = gevent.server.StreamServer(("127.0.0.1", 0), handler, **options)
            server.start()
            stack.callback(server.stop, 0.1)
            return f"127.0.0.1:{server.server_port}"

        yield start


def until(condition: Callable[[], bool]) -> None:
    waiting.until(condition, pause_s=0.005, sleep=gevent.sleep)


class Scripted:
    """A server that greets, then answers requests with what ``respond`` returns; None hangs up."""

    def __init__(self, respond: Callable[[int, int], bytes | None]) -> None:
        self.respond = respond
        self.connections = 0
        self.requests = 0
        self.resets: list[int] = []

    def __call__(self, client: gevent.socket.socket, _: object) -> None:
        self.connections += 1
        number = self.connections
        client.sendall(frames.settings({}))
        received = b""
        skipped = False
        with contextlib.suppress(OSError):
            while part := client.recv(65_536):
                received += part
                if not skipped and len(received) >= 24:
                    assert received.startswith(frames.PREFACE)
                    received, skipped = received[24:], True
                while skipped and len(received) >= 9:
                    word, flags, stream_id = frames.FRAME_HEADER.unpack_from(received)
                    if len(received) < 9 + (word >> 8):
                        break
                    received = received[9 + (word >> 8) :]
                    if word & 0xFF == frames.RST_STREAM:
                        self.resets.append(stream_id)
                    if word & 0xFF == frames.DATA and flags & frames.END_STREAM:
                        self.requests += 1
                        said = self.respond(number, stream_id)
                        if said is None:
                            return
                        client.sendall(said)


def answer(stream_id: int, message: bytes = b"") -> bytes:
    opening = [(b":status", b"200", True), (b"content-type", b"application/grpc", True)]
    message = message or pb.RangeResponse(header=pb.ResponseHeader(revision=7)).SerializeToString()
    return (
        frames.headers(stream_id, hpack.Encoder().encode(opening), 16_384)
        + frames.frame(frames.DATA, 0, stream_id, PREFIX.pack(0, len(message)) + message)
        + frames.headers(stream_id, hpack.Encoder().encode([(b"grpc-status", b"0", True)]), 16_384, end_stream=True)
    )


# Who is there


def cause_of(endpoint: str, timeout_s: float = HANG_S) -> str:
    with pytest.raises(ConnectError) as caught:
        probe(endpoint, timeout_s)
    assert "\n" not in str(caught.value)
    assert caught.value.hint in str(caught.value)
    return caught.value.cause


def test_probe_tells_apart_who_is_not_etcd(serve: Serve) -> None:
    def http1(client: gevent.socket.socket, _: object) -> None:
        client.recv(1000)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    def chatter(client: gevent.socket.socket, _: object) -> None:
        client.sendall(b"220 mail.example ESMTP\r\n")
        client.recv(1000)

    def silent(client: gevent.socket.socket, _: object) -> None:
        while client.recv(1000):
            pass

    def hang_up(client: gevent.socket.socket, _: object) -> None:
        client.recv(1000)

    refusal = hpack.Encoder().encode(
        [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-status", b"12")]
    )
    other = Scripted(lambda _, stream_id: frames.headers(stream_id, refusal, 16_384, end_stream=True))
    assert cause_of(f"127.0.0.1:{take_ports(1)}") == connect_errors.REFUSED
    assert cause_of(serve(http1)) == connect_errors.NOT_HTTP2
    assert cause_of(serve(chatter)) == connect_errors.NOT_HTTP2
    assert cause_of(serve(silent), 0.3) == connect_errors.NO_ANSWER
    assert cause_of(serve(hang_up)) == connect_errors.CLOSED
    assert cause_of(serve(other)) == connect_errors.NOT_ETCD
    assert cause_of(serve(Scripted(lambda *_: b"")), 0.3) == connect_errors.NO_ANSWER


def test_probe_knows_tls(serve: Serve, tmp_path: Path) -> None:
    pair = Authority(tmp_path).sign("server", "127.0.0.1")
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)

    def silent(client: gevent.socket.socket, _: object) -> None:
        # Like Go's listener, it hangs up on what is no TLS without a word.
        with contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as encrypted:
            encrypted.recv(1)

    assert cause_of(serve(silent)) == connect_errors.TLS_SPOKEN


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
    port = serve(Scripted(lambda _, stream_id: answer(stream_id))).rpartition(":")[2]
    client = EtcdClient([f"localhost:{port}"])
    assert client.get(b"k").revision == 7
    client.close()


def test_refused_is_fail_and_does_not_spin() -> None:
    client = EtcdClient([f"127.0.0.1:{take_ports(1)}"], timeout_s=HANG_S)
    began = time.monotonic()
    operations = [client.put(b"k", b"v") for _ in range(4)]
    assert {(each.outcome, each.error) for each in operations} == {(Outcome.FAIL, connect_errors.REFUSED)}
    assert time.monotonic() - began > 0.05
    assert client.channel.in_flight == 0
    client.close()


def test_a_dead_endpoint_among_live_ones_is_passed_over(serve: Serve) -> None:
    live = serve(Scripted(lambda _, stream_id: answer(stream_id)))
    client = EtcdClient([f"127.0.0.1:{take_ports(1)}", live])
    assert [client.get(b"k").outcome for _ in range(20)] == [Outcome.OK] * 20
    client.close()


def test_deadline_is_kept_and_told(serve: Serve) -> None:
    """Calls with a deadline of 0.2 s end then, and one with a minute's goes on."""
    server = Scripted(lambda *_: b"")
    endpoint = serve(server)
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
    where = Endpoint.parse(serve(Scripted(lambda *_: b"")))
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
    server = Scripted(lambda *_: b"")
    client = EtcdClient([serve(server)], abandoned=abandoned.append)
    calls = [gevent.spawn(client.get, b"k") for _ in range(3)]
    until(lambda: server.requests == 3)
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


def test_lost_after_sending_is_info_for_a_write_and_not_sent_again(serve: Serve) -> None:
    server = Scripted(lambda number, stream_id: None if number == 1 else answer(stream_id))
    client = EtcdClient([serve(server)])
    operation = client.put(b"k", b"v")
    assert (operation.outcome, operation.error) == (Outcome.INFO, connect_errors.LOST)
    assert client.get(b"k").outcome == Outcome.OK
    assert (client.channel.resent, client.channel.connects, server.requests) == (0, 2, 2)
    client.close()


def test_refused_streams_are_sent_again_once(serve: Serve) -> None:
    server = Scripted(lambda _, stream_id: frames.rst_stream(stream_id, 7) if stream_id == 1 else answer(stream_id))
    client = EtcdClient([serve(server)])
    operation = client.put(b"k", b"v", due_ns=123)
    assert (operation.outcome, operation.due_ns) == (Outcome.OK, 123)
    assert client.channel.resent == 1
    client.close()
    always = EtcdClient([serve(Scripted(lambda _, stream_id: frames.rst_stream(stream_id, 7)))])
    operation = always.put(b"k", b"v")
    assert (operation.outcome, operation.error) == (Outcome.FAIL, "stream refused")
    assert always.channel.resent == 1
    always.close()


def test_goaway_moves_to_a_new_connection(serve: Serve) -> None:
    def respond(number: int, stream_id: int) -> bytes:
        if number == 1 and stream_id == 3:
            return frames.goaway(1, 0) + answer(1)
        return b"" if number == 1 else answer(stream_id)

    server = Scripted(respond)
    client = EtcdClient([serve(server)])
    kept = gevent.spawn(client.get, b"a")
    until(lambda: server.requests == 1)
    assert client.get(b"b").outcome == Outcome.OK
    assert kept.get().outcome == Outcome.OK
    assert (client.channel.resent, client.channel.connects) == (1, 2)
    client.close()


def test_a_server_that_breaks_the_protocol(serve: Serve) -> None:
    server = Scripted(lambda number, stream_id: frames.rst_stream(0, 0) if number == 1 else answer(stream_id))
    client = EtcdClient([serve(server)])
    operation = client.put(b"k", b"v")
    assert (operation.outcome, operation.error) == (Outcome.INFO, "protocol error")
    assert client.put(b"k", b"v").outcome == Outcome.OK
    client.close()


def test_a_connection_out_of_stream_ids_is_replaced(serve: Serve) -> None:
    client = EtcdClient([serve(Scripted(lambda _, stream_id: answer(stream_id)))])
    assert client.get(b"k").outcome == Outcome.OK
    client.channel._live[0]._connection._sender.next_id = frames.LARGEST_STREAM_ID
    assert [client.get(b"k").outcome for _ in range(3)] == [Outcome.OK] * 3
    assert (client.channel.connects, client.channel.resent) == (2, 0)
    client.close()


def test_an_answer_that_is_no_message(serve: Serve) -> None:
    client = EtcdClient([serve(Scripted(lambda _, stream_id: answer(stream_id, b"\xff\xff")))])
    assert client.put(b"k", b"v").error == "malformed answer"
    client.close()


def test_close_ends_what_waits(serve: Serve) -> None:
    server = Scripted(lambda *_: b"")
    client = EtcdClient([serve(server)])
    put = gevent.spawn(client.put, b"k", b"v")
    until(lambda: server.requests == 1)
    client.close()
    client.close()
    assert put.get(timeout=HANG_S).outcome == Outcome.INFO
    after = client.put(b"k", b"v")
    assert (after.outcome, after.error) == (Outcome.FAIL, "client closed")


def test_a_slow_reader_pushes_back(serve: Serve) -> None:
    """More is written than the socket takes at once: nothing is lost, nothing is reordered."""
    got = bytearray()

    def slow(client: gevent.socket.socket, _: object) -> None:
        client.sendall(frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 30}) + frames.window_update(0, 1 << 30))
        gevent.sleep(0.2)
        while part := client.recv(65_536):
            got.extend(part)

    channel = Channel([serve(slow)])
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
