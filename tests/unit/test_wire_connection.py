"""The rules of HTTP/2 and gRPC, one by one: what a server may say, and what comes of it."""

from __future__ import annotations

import hpack
import pytest

from loadgen.wire import (
    Code,
    Connection,
    ConnectionEnded,
    ErrorCode,
    GoAway,
    LocalError,
    NoStreamError,
    PingAcknowledged,
    SettingsReceived,
    Stream,
    frames,
)
from loadgen.wire.grpc import PREFIX

PATH = b"/etcdserverpb.KV/Range"
SECOND = 1_000_000_000
OPEN = [(b":status", b"200"), (b"content-type", b"application/grpc")]


def block(*fields: tuple[bytes, bytes]) -> bytes:
    """Return a header block that needs no table."""
    return hpack.Encoder().encode([(*field, True) for field in fields])


BEGUN = frames.frame(frames.HEADERS, 0, 1)


def head(stream_id: int, *fields: tuple[bytes, bytes], end: bool = False) -> bytes:
    return frames.headers(stream_id, block(*(fields or OPEN)), 16_384, end_stream=end)


def data(stream_id: int, message: bytes, *, end: bool = False) -> bytes:
    payload = PREFIX.pack(0, len(message)) + message
    return frames.frame(frames.DATA, frames.END_STREAM if end else 0, stream_id, payload)


def trailers(stream_id: int, status: bytes = b"0", text: bytes = b"") -> bytes:
    return head(stream_id, (b"grpc-status", status), (b"grpc-message", text), end=True)


def greeted(**values: int) -> Connection:
    """Return a connection after both sides' SETTINGS."""
    connection = Connection(b"127.0.0.1:2379")
    peer = {getattr(frames, name.upper()): value for name, value in values.items()}
    assert connection.receive_data(frames.settings(peer)) == [SettingsReceived()]
    connection.data_to_send()
    return connection


def sent(connection: Connection) -> list[tuple[int, int, int, bytes]]:
    """Return what is to be sent, as (kind, flags, stream, payload)."""
    out = connection.data_to_send()
    found = []
    while out:
        word, flags, stream_id = frames.FRAME_HEADER.unpack_from(out)
        found.append((word & 0xFF, flags, stream_id, out[9 : 9 + (word >> 8)]))
        out = out[9 + (word >> 8) :]
    return found


def call(connection: Connection, message: bytes = b"request") -> Stream:
    return connection.call(PATH, message, SECOND, None, 0)


def answered(bytes_in: bytes) -> Stream:
    """Return a call on stream 1 and what these bytes make of it."""
    connection = greeted()
    stream = call(connection)
    events = connection.receive_data(bytes_in)
    assert events == [stream], connection.ended
    assert connection.open_count == 0
    return stream


# Requests


def test_begins_with_preface_settings_and_a_large_window() -> None:
    out = Connection(b"h:1").data_to_send()
    assert out.startswith(frames.PREFACE)
    assert out[24:33] == frames.FRAME_HEADER.pack(18 << 8 | frames.SETTINGS, 0, 0)
    assert out.endswith(frames.window_update(0, (1 << 30) - 65_535))


def test_a_request_is_headers_and_data() -> None:
    connection = greeted()
    decoder = hpack.Decoder()
    for stream_id in (1, 3, 5):
        call(connection, b"abc")
        first, second = sent(connection)
        assert first[:3] == (frames.HEADERS, frames.END_HEADERS, stream_id)
        assert decoder.decode(first[3]) == [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", PATH.decode()),
            (":authority", "127.0.0.1:2379"),
            ("grpc-timeout", "1000000u"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "raftload"),
        ]
        assert second == (frames.DATA, frames.END_STREAM, stream_id, b"\x00\x00\x00\x00\x03abc")
    assert len(first[3]) == 8  # all of them indexed by now


def test_no_timeout_no_header() -> None:
    connection = greeted()
    connection.call(PATH, b"", 0, None, 0)
    assert "grpc-timeout" not in dict(hpack.Decoder().decode(sent(connection)[0][3]))


def test_settings_are_acknowledged_and_ping_is_echoed() -> None:
    connection = Connection(b"h:1")
    connection.data_to_send()
    connection.receive_data(frames.settings({}) + frames.ping(b"abcdefgh"))
    assert sent(connection) == [
        (frames.SETTINGS, frames.ACK, 0, b""),
        (frames.PING, frames.ACK, 0, b"abcdefgh"),
    ]


def test_our_ping_comes_back() -> None:
    connection = greeted()
    connection.ping(b"12345678")
    assert sent(connection) == [(frames.PING, 0, 0, b"12345678")]
    assert connection.receive_data(frames.ping(b"12345678", ack=True)) == [PingAcknowledged(b"12345678")]


def test_body_is_cut_to_windows_and_frame_size() -> None:
    connection = greeted(initial_window_size=20_000)
    stream = call(connection, b"x" * 30_000)
    sizes = [(kind, flags, len(payload)) for kind, flags, _, payload in sent(connection)]
    assert sizes[1:] == [(frames.DATA, 0, 16_384), (frames.DATA, 0, 3_616)]
    assert stream.end > 1 << 60
    connection.receive_data(frames.window_update(1, 5_000))
    assert [len(payload) for _, _, _, payload in sent(connection)] == [5_000]
    # A larger initial window widens the open stream, and the rest goes.
    connection.receive_data(frames.settings({frames.INITIAL_WINDOW_SIZE: 30_000}))
    assert [(kind, flags, len(payload)) for kind, flags, _, payload in sent(connection)] == [
        (frames.SETTINGS, frames.ACK, 0),
        (frames.DATA, frames.END_STREAM, 5_005),
    ]


def test_connection_window_is_shared_first_come_first_served() -> None:
    connection = greeted(initial_window_size=1 << 20)
    first, second, third = (call(connection, b"x" * size) for size in (65_000, 1_000, 10))
    assert sum(len(payload) for kind, _, _, payload in sent(connection) if kind == frames.DATA) == 65_535
    assert first.end < 1 << 60 < second.end
    connection.receive_data(frames.window_update(0, 400))
    assert [(stream_id, len(payload)) for _, _, stream_id, payload in sent(connection)] == [(3, 400)]
    connection.receive_data(frames.window_update(0, 65_535))
    assert [stream_id for _, flags, stream_id, _ in sent(connection) if flags] == [3, 5]
    assert third.end < 1 << 60


def test_a_window_can_become_negative() -> None:
    connection = greeted(initial_window_size=100)
    call(connection, b"x" * 145)
    sent(connection)
    connection.receive_data(frames.settings({frames.INITIAL_WINDOW_SIZE: 10}))
    connection.receive_data(frames.window_update(1, 90))
    assert [kind for kind, _, _, _ in sent(connection)] == [frames.SETTINGS]
    connection.receive_data(frames.window_update(1, 50))
    assert [(kind, len(payload)) for kind, _, _, payload in sent(connection)] == [(frames.DATA, 50)]


def test_calls_wait_for_a_free_stream_in_order() -> None:
    connection = greeted(max_concurrent_streams=2)
    streams = [call(connection) for _ in range(5)]
    assert [each.id for each in streams] == [1, 3, 0, 0, 0]
    assert connection.open_count == 5
    sent(connection)
    connection.receive_data(head(3) + data(3, b"") + trailers(3))
    assert [each.id for each in streams] == [1, 3, 5, 0, 0]
    assert [stream_id for _, _, stream_id, _ in sent(connection)] == [5, 5]
    connection.reset(streams[3], Code.CANCELLED)
    assert streams[3].unprocessed
    connection.receive_data(frames.settings({frames.MAX_CONCURRENT_STREAMS: 10}))
    assert [each.id for each in streams] == [1, 3, 5, 0, 7]


def test_a_start_does_not_wait_for_a_stream() -> None:
    connection = greeted(max_concurrent_streams=2)
    assert (connection.limit, connection.room) == (2, 2)
    started = [connection.start(PATH, b"", SECOND, None, 0) for _ in range(2)]
    with pytest.raises(NoStreamError):
        connection.start(PATH, b"", SECOND, None, 0)
    assert (connection.room, connection.waiting, connection.open_count) == (0, 0, 2)
    waiting = call(connection)
    assert (connection.room, connection.waiting, waiting.id) == (-1, 1, 0)
    # Who waits comes first.
    connection.receive_data(head(1) + data(1, b"") + trailers(1))
    assert (waiting.id, connection.room, connection.accepting) == (5, 0, True)
    connection.receive_data(head(3) + data(3, b"") + trailers(3))
    assert connection.start(PATH, b"", SECOND, None, 0).id == 7
    assert [each.code for each in started] == [0, 0]
    connection.receive_data(frames.goaway(7, 0, b""))
    with pytest.raises(LocalError) as refused:
        connection.start(PATH, b"", SECOND, None, 0)
    assert not isinstance(refused.value, NoStreamError)


def test_stream_ids_end() -> None:
    connection = greeted()
    call(connection)
    connection._sender.next_id = frames.LARGEST_STREAM_ID
    assert call(connection).id == frames.LARGEST_STREAM_ID
    with pytest.raises(LocalError):
        call(connection)
    assert not connection.accepting


def test_reset_tells_the_peer_and_forgets() -> None:
    connection = greeted()
    stream = call(connection)
    sent(connection)
    connection.reset(stream, Code.DEADLINE_EXCEEDED)
    assert (stream.code, stream.unprocessed) == (Code.DEADLINE_EXCEEDED, False)
    assert sent(connection) == [(frames.RST_STREAM, 0, 1, b"\x00\x00\x00\x08")]
    # What was under way is no error, and its header blocks still count for the table.
    assert connection.receive_data(head(1) + data(1, b"late") + trailers(1)) == []
    connection.reset(stream, Code.CANCELLED)
    assert (stream.code, connection.data_to_send()) == (Code.DEADLINE_EXCEEDED, b"")


def test_close_says_goodbye_once() -> None:
    connection = greeted()
    connection.close()
    connection.close()
    assert [kind for kind, _, _, _ in sent(connection)] == [frames.GOAWAY]
    with pytest.raises(LocalError):
        call(connection)


def test_lost_connection_knows_what_was_never_written() -> None:
    connection = greeted(max_concurrent_streams=3, initial_window_size=100)
    written = call(connection)
    on_the_wire = connection._sender.queued
    half = call(connection, b"x" * 200)
    kept = call(connection)
    waiting = call(connection)
    events = connection.lost("connection lost", on_the_wire + 50)
    assert events == [written, half, kept, waiting]
    assert [each.unprocessed for each in (written, half, kept, waiting)] == [False, True, True, True]
    assert {(each.code, each.cause) for each in (written, half)} == {(Code.UNAVAILABLE, "connection lost")}
    assert connection.lost("again", 0) == []


# Answers


def test_an_answer() -> None:
    stream = answered(head(1) + data(1, b"answer") + trailers(1))
    assert (stream.code, stream.message, stream.answered) == (0, b"answer", True)


def test_an_answer_in_many_frames() -> None:
    body = PREFIX.pack(0, 40_000) + b"y" * 40_000
    parts = b"".join(frames.frame(frames.DATA, 0, 1, body[n : n + 999]) for n in range(0, len(body), 999))
    assert answered(head(1) + parts + trailers(1)).message == b"y" * 40_000


def test_informational_heads_are_passed_over() -> None:
    early = head(1, (b":status", b"103"))
    assert answered(early + early + head(1) + data(1, b"a") + trailers(1)).code == 0


@pytest.mark.parametrize(
    ("said", "code", "detail"),
    [
        (trailers(1, b"0"), Code.INTERNAL, "an answer without :status"),
        (head(1, *OPEN, (b"grpc-status", b"11"), (b"grpc-message", b"mvcc: 100%25"), end=True), 11, "mvcc: 100%"),
        (head(1) + trailers(1, b"5", b"gone"), Code.NOT_FOUND, "gone"),
        (head(1) + trailers(1, b"99"), Code.UNKNOWN, ""),
        (head(1) + trailers(1, b"x"), Code.UNKNOWN, ""),
        (head(1) + trailers(1), Code.INTERNAL, "an answer without a message"),
        (head(1) + data(1, b"a", end=True), Code.UNKNOWN, "no grpc-status"),
        (head(1, end=True), Code.UNKNOWN, "no grpc-status"),
        (head(1) + data(1, b"a") + head(1, (b"x", b"y"), end=True), Code.UNKNOWN, "no grpc-status"),
        (head(1) + data(1, b"a") + data(1, b"b"), Code.INTERNAL, "more than one message"),
        (head(1) + frames.frame(0, 0, 1, b"\x01\x00\x00\x00\x00"), Code.INTERNAL, "compressed message"),
        (head(1) + frames.frame(0, 0, 1, b"\x00\xff\x00\x00\x00"), Code.INTERNAL, "message too large"),
        (head(1) + data(1, b"a") + frames.frame(0, 0, 1, bytes(1)) + trailers(1), 13, "a message was cut off"),
        (data(1, b"a"), Code.INTERNAL, "DATA before HEADERS"),
        (head(1) + data(1, b"a") + head(1), Code.INTERNAL, "trailers that are not the end"),
        (head(1, (b":status", b"100"), end=True), Code.INTERNAL, "an informational answer that ends the stream"),
        (head(1, (b":status", b"200"), (b":status", b"200")), Code.INTERNAL, None),
        (head(1, (b"x", b"y"), (b":status", b"200")), Code.INTERNAL, None),
        (head(1, (b":path", b"/")), Code.INTERNAL, None),
        (head(1, (b":status", b"2x0")), Code.INTERNAL, None),
        (head(1, (b":status", b"200"), (b"Upper", b"case")), Code.INTERNAL, "upper case in a field name"),
        (head(1, (b":status", b"503"), (b"content-type", b"text/html")), Code.UNAVAILABLE, "HTTP status 503"),
        (head(1, (b":status", b"404"), end=True), Code.UNIMPLEMENTED, "HTTP status 404"),
        (head(1, (b":status", b"200"), (b"content-type", b"text/html")), Code.UNKNOWN, "not a gRPC answer"),
        (head(1) + frames.window_update(1, 0), Code.INTERNAL, "WINDOW_UPDATE of nothing"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none(said: bytes, code: int, detail: str | None) -> None:
    stream = answered(said)
    assert stream.code == code
    if detail is not None:
        assert stream.detail == detail


@pytest.mark.parametrize(
    ("error", "code", "unprocessed"),
    [
        (ErrorCode.NO_ERROR, Code.INTERNAL, False),
        (ErrorCode.INTERNAL_ERROR, Code.INTERNAL, False),
        (ErrorCode.STREAM_CLOSED, Code.UNKNOWN, False),
        (ErrorCode.REFUSED_STREAM, Code.UNAVAILABLE, True),
        (ErrorCode.CANCEL, Code.CANCELLED, False),
        (ErrorCode.ENHANCE_YOUR_CALM, Code.RESOURCE_EXHAUSTED, False),
        (ErrorCode.INADEQUATE_SECURITY, Code.PERMISSION_DENIED, False),
        (0x99, Code.UNKNOWN, False),
    ],
)
def test_reset_by_the_peer(error: int, code: Code, unprocessed: bool) -> None:
    stream = answered(frames.rst_stream(1, error))
    assert (stream.code, stream.unprocessed, stream.answered) == (code, unprocessed, False)


def test_an_early_end_stops_the_upload() -> None:
    connection = greeted(initial_window_size=10)
    # The first answer makes the header blocks known, so that the second takes the short way.
    for stream_id in (1, 5):
        stream = call(connection, b"x" * 100)
        other = call(connection, b"x" * 100)
        sent(connection)
        said = head(stream_id) + data(stream_id, b"answer") + trailers(stream_id)
        assert connection.receive_data(said) == [stream]
        assert (stream.code, stream.message) == (0, b"answer")
        assert sent(connection) == [(frames.RST_STREAM, 0, stream_id, b"\x00\x00\x00\x08")]
        connection.receive_data(frames.window_update(stream_id, 100) + frames.window_update(other.id, 100))
        assert [each for _, _, each, _ in sent(connection)] == [other.id]
    assert other.code < 0


def test_goaway_ends_what_was_not_processed() -> None:
    connection = greeted(max_concurrent_streams=3)
    streams = [call(connection) for _ in range(5)]
    events = connection.receive_data(frames.goaway(3, 0, b"bye"))
    assert events == [GoAway(3, 0, b"bye"), *streams[2:]]
    assert all(each.unprocessed and each.cause == "going away" for each in streams[2:])
    assert not connection.accepting
    with pytest.raises(LocalError):
        call(connection)
    rest = b"".join(head(n) + data(n, b"a") + trailers(n) for n in (1, 3))
    assert connection.receive_data(rest) == streams[:2]
    assert [each.code for each in streams[:2]] == [0, 0]


def test_windows_are_given_back() -> None:
    connection = greeted()
    call(connection)
    size = 5 << 20
    body = PREFIX.pack(0, size) + b"z" * size
    connection.receive_data(head(1))
    sent(connection)
    out = []
    for n in range(0, len(body), 16_384):
        connection.receive_data(frames.frame(frames.DATA, 0, 1, body[n : n + 16_384]))
        out += sent(connection)
    of_connection = [int.from_bytes(payload) for _, _, stream_id, payload in out if stream_id == 0]
    assert {kind for kind, _, _, _ in out} == {frames.WINDOW_UPDATE}
    assert len(of_connection) == 5
    assert min(of_connection) >= 1 << 20
    assert [stream_id for _, _, stream_id, _ in out].count(1) == 1


def test_windows_are_given_back_for_small_answers_too() -> None:
    connection = greeted()
    given = []
    for _ in range(300):
        stream = call(connection)
        said = head(stream.id) + data(stream.id, bytes(8_000)) + trailers(stream.id)
        sent(connection)
        assert connection.receive_data(said) == [stream]
        given += [int.from_bytes(payload) for _, _, _, payload in sent(connection)]
    assert len(given) == 2
    assert all((1 << 20) <= each < (1 << 20) + 8_005 for each in given)


def test_small_requests_use_up_the_connection_window() -> None:
    connection = greeted()
    streams = [call(connection, bytes(9_995)) for _ in range(10)]
    bodies = [payload for kind, _, _, payload in sent(connection) if kind == frames.DATA]
    assert sum(map(len, bodies)) == 65_535
    assert [each.end < 1 << 60 for each in streams] == [True] * 6 + [False] * 4


# The connection


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (frames.frame(frames.PUSH_PROMISE, 4, 1, b"\x00\x00\x00\x02"), ErrorCode.PROTOCOL_ERROR),
        (frames.FRAME_HEADER.pack(16_385 << 8 | frames.DATA, 0, 1), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.DATA, 0, 1, bytes(16_385)), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.DATA, 0, 0, b""), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, 0, 9, b""), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, frames.PADDED, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, frames.PADDED, 1, b"\x04abc"), ErrorCode.PROTOCOL_ERROR),
        (head(2), ErrorCode.PROTOCOL_ERROR),
        (head(99), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
        (frames.frame(frames.HEADERS, frames.END_HEADERS | frames.HAS_PRIORITY, 1, b""), ErrorCode.FRAME_SIZE_ERROR),
        (BEGUN + frames.ping(bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (BEGUN + head(1), ErrorCode.PROTOCOL_ERROR),
        (BEGUN + frames.frame(frames.CONTINUATION, 4, 3, b""), ErrorCode.PROTOCOL_ERROR),
        (BEGUN + frames.frame(frames.CONTINUATION, 0, 1, b"") * 200, ErrorCode.ENHANCE_YOUR_CALM),
        (BEGUN + frames.frame(frames.CONTINUATION, 0, 1, bytes(16_000)) * 5, ErrorCode.ENHANCE_YOUR_CALM),
        (frames.frame(frames.CONTINUATION, 4, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.RST_STREAM, 0, 1, b"abc"), ErrorCode.FRAME_SIZE_ERROR),
        (frames.rst_stream(0, 0), ErrorCode.PROTOCOL_ERROR),
        (frames.rst_stream(3, 0), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.SETTINGS, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.SETTINGS, 0, 0, b"abc"), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.SETTINGS, frames.ACK, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
        (frames.settings({frames.ENABLE_PUSH: 1}), ErrorCode.PROTOCOL_ERROR),
        (frames.settings({frames.MAX_FRAME_SIZE: 1}), ErrorCode.PROTOCOL_ERROR),
        (frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 31}), ErrorCode.FLOW_CONTROL_ERROR),
        (frames.frame(frames.PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.PING, 0, 0, b""), ErrorCode.FRAME_SIZE_ERROR),
        (frames.ping(bytes(8)) * 5_000, ErrorCode.ENHANCE_YOUR_CALM),
        (frames.frame(frames.GOAWAY, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.GOAWAY, 0, 0, b""), ErrorCode.FRAME_SIZE_ERROR),
        (frames.window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
        (frames.window_update(0, (1 << 31) - 1), ErrorCode.FLOW_CONTROL_ERROR),
        (frames.window_update(7, 1), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.WINDOW_UPDATE, 0, 0, b""), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.PRIORITY, 0, 0, bytes(5)), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.PRIORITY, 0, 1, b""), ErrorCode.FRAME_SIZE_ERROR),
    ],
)  # fmt: skip
def test_a_peer_that_breaks_the_rules_ends_the_connection(said: bytes, error: ErrorCode) -> None:
    connection = greeted()
    stream = call(connection)
    sent(connection)
    events = connection.receive_data(said)
    ended = connection.ended
    assert ended is not None
    assert (ended.code, events) == (error, [stream, ConnectionEnded(error, ended.detail)])
    assert (stream.code, stream.cause) == (Code.INTERNAL, "protocol error")
    last = sent(connection)[-1]
    assert (last[0], last[3][4:8]) == (frames.GOAWAY, error.to_bytes(4))
    assert connection.receive_data(frames.ping(bytes(8))) == []
    with pytest.raises(LocalError):
        call(connection)


@pytest.mark.parametrize("first", [frames.ping(bytes(8)), frames.settings_ack(), b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_settings_come_first(first: bytes) -> None:
    connection = Connection(b"h:1")
    assert [type(event) for event in connection.receive_data(first)] == [ConnectionEnded]


def test_what_is_unknown_is_ignored() -> None:
    connection = greeted()
    assert connection.receive_data(frames.frame(0xAB, 0xFF, 0x55, b"?") + frames.settings({0xF00: 1})) == [
        SettingsReceived()
    ]
    assert connection.ended is None


def test_reserved_bit_is_ignored() -> None:
    connection = greeted()
    stream = call(connection)
    said = bytearray(head(1) + data(1, b"a") + trailers(1))
    said[5] |= 0x80
    assert connection.receive_data(bytes(said)) == [stream]
    assert stream.code == 0


def test_a_stream_window_overflow_ends_that_stream() -> None:
    connection = greeted(initial_window_size=1 << 30)
    blocker = call(connection, b"x" * 65_530)
    stream, other = call(connection, b"x" * 20), call(connection, b"x" * 20)
    sent(connection)
    # The connection's window is used up, so the stream's own can only grow.
    assert connection.receive_data(frames.window_update(stream.id, 1 << 30)) == [stream]
    assert (stream.code, stream.cause) == (Code.INTERNAL, "protocol error")
    assert sent(connection) == [(frames.RST_STREAM, 0, 3, b"\x00\x00\x00\x03")]
    assert blocker.code < 0 > other.code
    assert connection.ended is None
