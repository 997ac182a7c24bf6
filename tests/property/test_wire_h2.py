"""Our connection against the h2 package as the server, in memory: every request arrives whole, every answer returns.

h2 is strict: it raises on any frame of ours that breaks the rules, flow control included.
"""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import h2.settings
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.wire import Code, Connection, Message, Stream, frames
from loadgen.wire.grpc import PREFIX
from tests.support.examples import examples

PATH = b"/etcdserverpb.KV/Put"
SECOND = 1_000_000_000
OPEN = [(":status", "200"), ("content-type", "application/grpc")]
Codes = h2.settings.SettingCodes


def apart(data: bytes) -> list[bytes]:
    """Frame by frame: h2 would apply our acknowledgement of a larger frame size only to the next read."""
    parts = [data[:24]] if data.startswith(frames.PREFACE) else []
    data = data[24:] if parts else data
    while data:
        size = 9 + (frames.FRAME_HEADER.unpack_from(data)[0] >> 8)
        parts.append(data[:size])
        data = data[size:]
    return parts


class Server:
    """Echoes what it is asked, as and when the script says."""

    def __init__(self, first: dict[int, int]) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.h2.initiate_connection()
        if first:
            self.h2.update_settings(first)
        self.bodies: dict[int, bytes] = {}
        self.unacknowledged: dict[int, int] = {}
        self.whole: list[int] = []
        self.resets: list[int] = []
        self.open: set[int] = set()
        self.most_open = 0

    def read(self, data: bytes, *, acknowledge: bool) -> None:
        for event in [each for part in apart(data) for each in self.h2.receive_data(part)]:
            if isinstance(event, h2.events.RequestReceived):
                headers = dict(event.headers)
                assert headers[b":path"] == PATH
                assert headers[b"te"] == b"trailers"
                assert headers[b"grpc-timeout"] == b"1000000u"
                self.bodies[event.stream_id] = b""
                self.open.add(event.stream_id)
                self.most_open = max(self.most_open, len(self.open))
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                count = event.flow_controlled_length
                self.unacknowledged[event.stream_id] = self.unacknowledged.get(event.stream_id, 0) + count
            elif isinstance(event, h2.events.StreamEnded):
                self.whole.append(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.resets.append(event.stream_id)
                self.open.discard(event.stream_id)
        if acknowledge:
            self.acknowledge()

    def acknowledge(self) -> None:
        """Give the windows back."""
        for stream_id, count in self.unacknowledged.items():
            if count:
                self.h2.acknowledge_received_data(count, stream_id)
        self.unacknowledged.clear()

    def request(self, stream_id: int) -> bytes:
        compressed, size = PREFIX.unpack_from(self.bodies[stream_id])
        assert (compressed, size) == (0, len(self.bodies[stream_id]) - 5)
        return self.bodies[stream_id][5:]

    def answer(self, stream_id: int, message: bytes, cut: int) -> None:
        self.h2.send_headers(stream_id, OPEN)
        data = PREFIX.pack(0, len(message)) + message
        while data:
            size = min(cut, self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
            assert size > 0
            self.h2.send_data(stream_id, data[:size], pad_length=cut % 7 or None)
            data = data[size:]
        self.h2.send_headers(stream_id, [("grpc-status", "0"), ("grpc-message", "")], end_stream=True)
        self.open.discard(stream_id)


sizes = st.one_of(st.integers(0, 100), st.sampled_from([16_379, 16_380, 65_530, 65_531, 200_000]))
limits = st.fixed_dictionaries(
    {},
    optional={
        Codes.INITIAL_WINDOW_SIZE: st.sampled_from([0, 1, 100, 5_000, 65_535, 1 << 20]),
        Codes.MAX_CONCURRENT_STREAMS: st.sampled_from([1, 2, 5, 100]),
        Codes.MAX_FRAME_SIZE: st.sampled_from([16_384, 20_000, 1 << 20]),
        Codes.HEADER_TABLE_SIZE: st.sampled_from([0, 64, 4_096, 65_536]),
    },
)
actions = st.one_of(
    st.tuples(st.just("call"), sizes),
    st.tuples(st.just("call"), sizes),
    st.tuples(st.just("answer"), st.sampled_from([1, 50, 5_000, 16_000])),
    st.tuples(st.just("settings"), limits),
    st.tuples(st.just("window"), st.sampled_from([1, 100, 70_000])),
    st.tuples(st.just("acknowledge"), st.none()),
    st.tuples(st.just("reset by server"), st.sampled_from([7, 8, 2])),
    st.tuples(st.just("reset by us"), st.none()),
    st.tuples(st.just("ping"), st.none()),
)


@settings(max_examples=examples(200), deadline=None)
@given(limits, st.lists(actions, max_size=40), st.integers(1, 5_000))
def test_every_request_is_answered(first: dict[int, int], script: list[tuple[str, object]], chunk: int) -> None:
    server = Server(first)
    client = Connection(b"127.0.0.1:2379")
    called: dict[int, bytes] = {}
    streams: list[Stream] = []
    returned: list[Stream] = []
    given_up: list[Stream] = []
    refused: set[int] = set()

    def to_client() -> None:
        data = server.h2.data_to_send()
        for start in range(0, len(data), chunk if len(data) < 50_000 else 20_011):
            part = data[start : start + (chunk if len(data) < 50_000 else 20_011)]
            returned.extend(event for event in client.receive_data(part) if isinstance(event, Stream))
        assert client.ended is None

    def exchange(*, acknowledge: bool = False) -> None:
        while True:
            to_client()
            data = client.data_to_send()
            if not data:
                return
            server.read(data, acknowledge=acknowledge)

    exchange()
    for what, argument in script:
        alive = [each for each in server.whole if each in server.open]
        if what == "call":
            assert isinstance(argument, int)
            message = bytes((len(streams) % 251,)) * argument
            streams.append(client.call(PATH, message, SECOND, len(streams), 0))
            called[len(streams) - 1] = message
        elif what == "answer" and alive:
            assert isinstance(argument, int)
            answer = server.request(alive[0])
            server.answer(alive[0], answer, max(argument, len(answer) // 50 + 1))
        elif what == "settings" and isinstance(argument, dict):
            # What h2 has been told is in force once we acknowledge, which exchange() sees to.
            server.h2.update_settings(argument)
        elif what == "window":
            assert isinstance(argument, int)
            server.h2.increment_flow_control_window(argument)
        elif what == "acknowledge":
            server.acknowledge()
        elif what == "reset by server" and server.open:
            assert isinstance(argument, int)
            victim = min(server.open)
            server.h2.reset_stream(victim, argument)
            server.open.discard(victim)
            server.unacknowledged.pop(victim, None)
            refused.add(victim)
        elif what == "reset by us":
            for stream in [each for each in streams if each.code < 0][:1]:
                client.reset(stream, Code.CANCELLED)
                given_up.append(stream)
        elif what == "ping":
            server.h2.ping(b"12345678")
        exchange()

    # In the end everything is let through, and every call that neither side gave up is answered whole.
    server.h2.update_settings({Codes.INITIAL_WINDOW_SIZE: 1 << 20, Codes.MAX_CONCURRENT_STREAMS: 100})
    server.h2.increment_flow_control_window(1 << 24)
    for _ in range(200):
        exchange(acknowledge=True)
        for stream_id in [each for each in server.whole if each in server.open]:
            server.answer(stream_id, server.request(stream_id), 16_000)
        if all(each.code >= 0 for each in streams):
            break
    exchange(acknowledge=True)
    assert all(each.code >= 0 for each in streams)
    assert len(returned) == len({id(each) for each in returned})
    assert {id(each) for each in returned} == {id(each) for each in streams} - {id(each) for each in given_up}
    for stream in returned:
        if stream.id in refused:
            assert stream.code != 0
        else:
            assert (stream.code, stream.message) == (0, called[stream.context])
    assert client.open_count == 0
    assert not client.data_to_send()


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.binary(max_size=3_000), max_size=10), st.integers(1, 4_000))
def test_both_ways_at_once(messages: list[bytes], chunk: int) -> None:
    """A streaming call: messages go and come one by one, and its end comes as the stream."""
    server = Server({Codes.INITIAL_WINDOW_SIZE: 1_000})
    client = Connection(b"127.0.0.1:2379")
    stream = client.open_stream(PATH, SECOND, "duplex", 0)
    for message in messages:
        client.send_message(stream, message)
    events = []
    for last in (False, True):
        if last:
            client.finish(stream)
        while data := client.data_to_send():
            server.read(data, acknowledge=True)
            events += client.receive_data(server.h2.data_to_send())
    body = server.bodies[stream.id]
    assert body == b"".join(PREFIX.pack(0, len(each)) + each for each in messages)
    assert server.whole == [stream.id]
    server.h2.send_headers(stream.id, OPEN)
    for start in range(0, len(body), chunk):
        server.h2.send_data(stream.id, body[start : start + chunk])
    server.h2.send_headers(stream.id, [("grpc-status", "0")], end_stream=True)
    events += client.receive_data(server.h2.data_to_send())
    assert [event.data for event in events if isinstance(event, Message)] == messages
    assert events[-1] is stream
    assert (stream.code, stream.message) == (0, None)
