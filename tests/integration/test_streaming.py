"""Streaming calls against a server of the test's own (h2): both ways at once, back-pressure, and every kind of end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from time import perf_counter_ns

import gevent
import gevent.lock
import gevent.server
import gevent.socket
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import pytest

from cluster.base.endpoint import Endpoint
from loadgen.client import transport as transport_module
from loadgen.client.channel import Channel
from loadgen.client.connect_errors import CLOSED_HERE, LOST, REFUSED, SILENT, ConnectError
from loadgen.client.etcd import EtcdClient
from loadgen.client.transport import Transport
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto import kv_pb2
from loadgen.wire.grpc import PREFIX
from loadgen.wire.receiving import STREAM_WINDOW
from tests.support.http2_server import Listen, until
from tests.support.ports import closed_port
from tests.support.waiting import HANG_S

PATH = b"/test/Duplex"
OPEN = [(":status", "200"), ("content-type", "application/grpc")]
MEBI = 1 << 20


class Server:
    """Greets, opens every stream's answer at once, and gives each whole message to ``on_message``."""

    def __init__(self, on_message: Callable[[Server, int, bytes], None], *, window: int = 1 << 24) -> None:
        self.on_message = on_message
        self.window = window
        self.resets: list[int] = []
        self.written: dict[int, int] = {}
        self.silent = False
        self._lock = gevent.lock.RLock()
        self.bodies: dict[int, bytearray] = {}

    def __call__(self, client: gevent.socket.socket, _: object) -> None:
        self.socket = client
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.h2.local_settings.initial_window_size = self.window
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(1 << 30)
        self.flush()
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                if not self.silent:
                    for event in self.h2.receive_data(data):
                        self.on_event(event)
                    self.flush()

    def on_event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.h2.send_headers(event.stream_id, OPEN)
            self.bodies[event.stream_id] = bytearray()
        elif isinstance(event, h2.events.DataReceived):
            body = self.bodies[event.stream_id]
            body += event.data
            while len(body) >= 5 and len(body) >= 5 + (size := PREFIX.unpack_from(body)[1]):
                message = bytes(body[5 : 5 + size])
                del body[: 5 + size]
                gevent.spawn(self.on_message, self, event.stream_id, message)
        elif isinstance(event, h2.events.StreamReset):
            self.resets.append(event.stream_id)

    def flush(self) -> None:
        with self._lock:
            if data := self.h2.data_to_send():
                self.socket.sendall(data)

    def send(self, stream_id: int, message: bytes) -> None:
        """Send one message, as fast as the client's windows allow."""
        data = memoryview(PREFIX.pack(0, len(message)) + message)
        with contextlib.suppress(h2.exceptions.ProtocolError, OSError):
            while data:
                room = min(self.h2.local_flow_control_window(stream_id), 16_384)
                if room <= 0:
                    gevent.sleep(0.002)
                    continue
                self.h2.send_data(stream_id, bytes(data[:room]))
                self.written[stream_id] = self.written.get(stream_id, 0) + len(data[:room])
                data = data[room:]
                self.flush()

    def end(self, stream_id: int, status: int, text: str = "") -> None:
        self.h2.send_headers(stream_id, [("grpc-status", str(status)), ("grpc-message", text)], end_stream=True)
        self.flush()

    def widen(self, stream_id: int, by: int) -> None:
        self.h2.increment_flow_control_window(by, stream_id)
        self.flush()


Connect = Callable[[Server], Transport]


@pytest.fixture
def connect(listen: Listen) -> Iterator[Connect]:
    """Run a server and connect to it."""
    with contextlib.ExitStack() as stack:

        def start(server: Server) -> Transport:
            made = Transport(Endpoint.parse(listen(server)))
            made.connect(HANG_S)
            stack.callback(made.close)
            return made

        yield start


def settled(value: Callable[[], int]) -> int:
    """Wait until a number has not changed for a while, return it."""
    last, since = -1, 0
    while since < 10:
        gevent.sleep(0.01)
        since, last = (since + 1 if value() == last else 0), value()
    return last


def echo(server: Server, stream_id: int, message: bytes) -> None:
    server.send(stream_id, message)


def nothing(_server: Server, _stream_id: int, _message: bytes) -> None:
    pass


def test_messages_go_and_come_one_by_one(connect: Connect) -> None:
    transport = connect(Server(echo))
    began = perf_counter_ns()
    with transport.open(PATH) as first, transport.open(PATH) as second:
        stamps = [began]
        for n in range(20):
            assert first.send(b"a%d" % n)
            assert second.send(b"b%d" % n)
            for call, name in ((first, b"a"), (second, b"b")):
                got = call.receive(HANG_S)
                assert got is not None
                assert got[0] == name + b"%d" % n
                stamps.append(got[1])
        stamps.append(perf_counter_ns())
        assert stamps == sorted(stamps)
        assert not first.ended
        assert (first.code, first.error) == (-1, None)
    assert (first.error, first.receive()) == ("cancelled", None)
    assert not first.send(b"late")
    assert transport.open_count == 0


def test_the_end_comes_after_the_last_message(connect: Connect) -> None:
    def answer(server: Server, stream_id: int, message: bytes) -> None:
        for _ in range(3):
            server.send(stream_id, message)
        server.end(stream_id, 9, "the reason")

    call = connect(Server(answer)).open(PATH)
    call.send(b"x")
    until(lambda: call.ended)
    assert [call.receive() for _ in range(4)].count(None) == 1
    assert (call.code, call.error, call.stream.detail, call.stream.answered) == (
        9, "FAILED_PRECONDITION", "the reason", True,
    )  # fmt: skip
    assert call.ended_ns > 0


def test_a_slow_taker_holds_the_server_back(connect: Connect) -> None:
    count = 48

    def flood(server: Server, stream_id: int, message: bytes) -> None:
        for n in range(count if message == b"flood" else 1):
            server.send(stream_id, bytes((n,)) * MEBI)

    server = Server(flood)
    transport = connect(server)
    slow, other = transport.open(PATH), transport.open(PATH)
    slow.send(b"flood")
    held = settled(lambda: server.written.get(1, 0))
    assert held <= STREAM_WINDOW
    # The connection goes on meanwhile, and one message is as large as it likes.
    other.send(b"one")
    assert other.receive(HANG_S) is not None
    # What is taken and kept counts too.
    kept = [slow.take(HANG_S) for _ in range(8)]
    assert settled(lambda: server.written[1]) == held
    for each in kept:
        assert each is not None
        slow.consumed(each[0])
    got = [slow.receive(HANG_S) for _ in range(count - 8)]
    assert [each[0][0] for each in got if each] == list(range(8, count))
    assert server.written[1] == count * (MEBI + 5)


def test_a_message_larger_than_the_window(connect: Connect) -> None:
    message = b"m" * (STREAM_WINDOW + 5 * MEBI)
    call = connect(Server(lambda server, stream_id, _: server.send(stream_id, message))).open(PATH)
    call.send(b"x")
    got = call.receive(HANG_S)
    assert got is not None
    assert got[0] == message


def test_send_waits_for_the_peers_window(connect: Connect) -> None:
    got = []
    server = Server(lambda _server, _stream_id, message: got.append(len(message)), window=65_535)
    call = connect(server).open(PATH)
    count = 8
    sending = gevent.spawn(lambda: [call.send(bytes(MEBI)) for _ in range(count)])
    # It has used up the window that it was given.
    until(lambda: len(server.bodies.get(1, b"")) == 65_535)
    assert not sending.ready()
    assert len(call.stream.upload.data) < 3 * MEBI  # type: ignore[union-attr]
    server.widen(1, count * (MEBI + 5))
    assert sending.get(timeout=HANG_S) == [True] * count
    until(lambda: got == [MEBI] * count)


def test_a_sender_that_waits_is_told_the_end(connect: Connect) -> None:
    server = Server(nothing, window=65_535)
    call = connect(server).open(PATH)
    sending = [gevent.spawn(lambda: [call.send(bytes(MEBI)) for _ in range(3)]) for _ in range(2)]
    until(lambda: len(server.bodies.get(1, b"")) == 65_535)
    server.end(1, 0)
    assert [each.get(timeout=HANG_S)[-1] for each in sending] == [False, False]
    assert (call.code, call.error) == (0, None)


def test_a_killed_greenlet_cancels_its_call(connect: Connect) -> None:
    server = Server(nothing)
    transport = connect(server)
    call = transport.open(PATH)
    receiving = gevent.spawn(call.receive)
    until(lambda: 1 in server.bodies)
    receiving.kill()
    until(lambda: server.resets == [1])
    assert (call.error, transport.open_count) == ("killed", 0)
    # A timeout is not a kill.
    again = transport.open(PATH)
    with gevent.Timeout(0.02, False):
        again.receive()
    assert again.receive(0.02) is None
    assert not again.ended
    waiting = gevent.spawn(again.receive)
    gevent.sleep(0.02)
    with pytest.raises(RuntimeError, match="another greenlet"):
        again.receive()
    assert not waiting.ready()
    assert not again.ended


def test_why_it_died(connect: Connect) -> None:
    def act(server: Server, stream_id: int, message: bytes) -> None:
        if message == b"reset":
            server.h2.reset_stream(stream_id, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            server.flush()
        elif message == b"hang up":
            server.socket.close()
        elif message == b"go away":
            server.h2.close_connection(last_stream_id=0)
            server.flush()

    for asked, error, unprocessed in (
        (b"reset", "RESOURCE_EXHAUSTED", False),
        (b"hang up", LOST, False),
        (b"go away", "going away", True),
        (b"close", CLOSED_HERE, False),
    ):
        server = Server(act)
        transport = connect(server)
        call = transport.open(PATH)
        receiving = gevent.spawn(call.receive)
        call.send(asked)
        if asked == b"close":
            until(lambda server=server: 1 in server.bodies)  # type: ignore[misc]
            transport.close()
        assert receiving.get(timeout=HANG_S) is None
        assert (call.error, call.stream.unprocessed) == (error, unprocessed)
        assert call.ended_ns > 0


def test_a_peer_that_vanished_is_noticed(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    # Long beside what keeps this process from its processor: a PING that is not answered within it is silence.
    monkeypatch.setattr(transport_module, "_SILENCE_S", 1.0)
    server = Server(nothing)
    call = connect(server).open(PATH)
    assert call.receive(3.5) is None
    assert not call.ended  # it answers PINGs
    server.silent = True
    assert call.receive(HANG_S) is None
    assert call.error == SILENT


def test_every_socket_is_read_before_any_message_is_taken(connect: Connect) -> None:
    """What the taker of one does is no part of when another one, on another connection, was read."""
    servers = [Server(nothing) for _ in range(3)]
    calls = [connect(server).open(PATH) for server in servers]
    read: list[int] = []
    woken: list[int] = []

    def take(number: int) -> None:
        taken = calls[number].take(HANG_S)
        assert taken is not None
        woken.append(perf_counter_ns())
        read.append(taken[1])

    for each in calls:
        each.send(b"open")
    until(lambda: all(server.bodies for server in servers))
    gevent.sleep(0.05)  # the answers' heads are read
    takers = [gevent.spawn(take, number) for number in range(3)]
    gevent.sleep(0)
    for server in servers:
        server.send(1, b"x")
    gevent.joinall(takers, raise_error=True)
    assert max(read) <= min(woken)


def test_through_a_channel(listen: Listen) -> None:
    channel = Channel([listen(Server(echo))])
    call = channel.open(PATH, HANG_S)
    call.send(b"hello")
    assert call.receive(HANG_S)[0] == b"hello"  # type: ignore[index]
    channel.close()
    assert call.receive(HANG_S) is None
    with pytest.raises(ConnectError) as closed:
        channel.open(PATH, HANG_S)
    assert closed.value.cause == CLOSED_HERE
    nobody = Channel([closed_port()])
    with pytest.raises(ConnectError) as refused:
        nobody.open(PATH, HANG_S)
    assert refused.value.cause == REFUSED
    nobody.close()


class Busy:
    """Watches as a busy etcd has them: what was asked before a watch is answered behind the news of its creation."""

    def __init__(self) -> None:
        self.created = self.asked = 0

    def __call__(self, server: Server, stream_id: int, message: bytes) -> None:
        def say(**words: object) -> None:
            header = pb.ResponseHeader(revision=10)
            server.send(stream_id, pb.WatchResponse(header=header, **words).SerializeToString())

        request = pb.WatchRequest.FromString(message)
        if request.HasField("progress_request"):
            self.asked += 1
            if self.asked > 1:
                say(watch_id=-1)
            return
        say(watch_id=self.created, created=True)
        if self.asked:
            say(watch_id=-1)
            for revision in (9, 10):
                event = kv_pb2.Event(kv=kv_pb2.KeyValue(key=b"k", mod_revision=revision))
                say(watch_id=self.created, events=[event])
        self.created += 1


def test_progress_from_before_a_watch_is_not_its_own(listen: Listen) -> None:
    client = EtcdClient([listen(Server(Busy()))])
    watcher = client.watcher()
    assert watcher.watch(b"elsewhere").wait_created(HANG_S)
    assert watcher.request_progress()
    watch = watcher.watch(b"k", start_revision=9)
    for revision in (9, 10):
        assert (answer := watch.next(HANG_S)) is not None
        assert [event.kv.mod_revision for event in answer.response.events] == [revision]
    assert watcher.request_progress()
    assert (answer := watch.next(HANG_S)) is not None and not answer.response.events
    client.close()
