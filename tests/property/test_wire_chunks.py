"""However the bytes of a server are cut up, they mean the same; and whatever they are, the connection stands."""

from __future__ import annotations

import hpack
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.wire import Connection, ConnectionEnded, Message, Stream, frames
from loadgen.wire.grpc import PREFIX
from tests.support.examples import examples

PATH = b"/etcdserverpb.KV/Range"
SECOND = 1_000_000_000
OPEN = [(b":status", b"200"), (b"content-type", b"application/grpc")]
OK = [(b"grpc-status", b"0"), (b"grpc-message", b"")]


def framed(message: bytes) -> bytes:
    return PREFIX.pack(0, len(message)) + message


@st.composite
def answers(draw: st.DrawFn, stream_id: int, encoder: hpack.Encoder) -> list[bytes]:
    """One stream's frames, in order; the encoder's state makes the order of the streams matter."""
    kind = draw(
        st.sampled_from(["ok", "ok", "ok", "error", "trailers only", "reset", "no trailers", "html", "two", "nothing"])
    )

    def head(fields: list[tuple[bytes, bytes]], *, end: bool = False) -> list[bytes]:
        block = encoder.encode(fields)
        flags = frames.END_STREAM if end else 0
        if draw(st.booleans()):
            return [frames.frame(frames.HEADERS, flags | frames.END_HEADERS, stream_id, block)]
        if draw(st.booleans()):
            padded = bytes((3,)) + b"\x00\x00\x00\x07\x10" + block + b"\x00\x00\x00"
            return [
                frames.frame(
                    frames.HEADERS, flags | frames.END_HEADERS | frames.PADDED | frames.HAS_PRIORITY, stream_id, padded
                )
            ]
        cut = draw(st.integers(0, len(block)))
        # Nothing may come between these two, so they are one piece here.
        return [
            frames.frame(frames.HEADERS, flags, stream_id, block[:cut])
            + frames.frame(frames.CONTINUATION, frames.END_HEADERS, stream_id, block[cut:])
        ]

    def body(message: bytes, *, end: bool = False) -> list[bytes]:
        data = framed(message)
        parts = []
        while data:
            size = draw(st.sampled_from([1, 4, 5, 100, 16_000]))
            part, data = data[:size], data[size:]
            flags = frames.END_STREAM if end and not data else 0
            if draw(st.booleans()):
                flags |= frames.PADDED
                part = b"\x02" + part + b"\x00\x00"
            parts.append(frames.frame(frames.DATA, flags, stream_id, part))
        return parts

    message = draw(st.binary(max_size=300))
    match kind:
        case "ok":
            return (
                (head([(b":status", b"103")]) if draw(st.booleans()) else [])
                + head(OPEN)
                + body(message)
                + head(OK, end=True)
            )
        case "error":
            text = draw(st.text("abc %", max_size=5)).encode()
            return head(OPEN) + head([(b"grpc-status", b"5"), (b"grpc-message", text)], end=True)
        case "trailers only":
            return head([*OPEN, (b"grpc-status", b"14")], end=True)
        case "reset":
            return [*head(OPEN), frames.rst_stream(stream_id, draw(st.integers(0, 15)))]
        case "no trailers":
            return head(OPEN) + body(message, end=True)
        case "html":
            return head([(b":status", b"503"), (b"content-type", b"text/html")])
        case "two":
            return head(OPEN) + body(message) + body(message) + head(OK, end=True)
        case _:
            return head(OPEN) + head(OK, end=True)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[int, bytes]:
    """How many calls are made, and everything that the server says."""
    calls = draw(st.integers(1, 5))
    encoder = hpack.Encoder()
    script = [frames.settings({frames.MAX_CONCURRENT_STREAMS: 100, 0x99: 1})]
    # Streams interleave frame by frame, but the encoder's table binds the order of the header blocks: so one stream
    # is drawn after the other, and only frames without headers move between them.
    for index in range(calls):
        for piece in draw(answers(2 * index + 1, encoder)):
            script.append(piece)
            if draw(st.integers(0, 4)) == 0:
                script.append(
                    draw(
                        st.sampled_from(
                            [
                                frames.ping(b"12345678"),
                                frames.settings({frames.INITIAL_WINDOW_SIZE: 70_000}),
                                frames.settings_ack(),
                                frames.window_update(0, 1000),
                                frames.window_update(2 * index + 1, 1000),
                                frames.frame(frames.PRIORITY, 0, 1, b"\x00\x00\x00\x00\x01"),
                                frames.frame(0xEE, 0xFF, 1, b"unknown"),
                            ]
                        )
                    )
                )
    if draw(st.integers(0, 3)) == 0:
        script.append(frames.goaway(draw(st.integers(0, 9)), 0, b"bye"))
    return calls, b"".join(script)


def connected(calls: int) -> tuple[Connection, list[Stream]]:
    connection = Connection(b"127.0.0.1:2379")
    streams = [connection.call(PATH, b"request", SECOND, n, 0) for n in range(calls)]
    return connection, streams


def told(event: object) -> object:
    """Return an event as a value that can be compared."""
    if isinstance(event, Stream):
        return (event.id, event.context, event.code, event.message, event.cause, event.detail, event.unprocessed)
    return (event.stream.id, event.data) if isinstance(event, Message) else event


@settings(max_examples=examples(150), deadline=None)
@given(conversations(), st.data())
def test_any_cut_gives_equal_events(conversation: tuple[int, bytes], data: st.DataObject) -> None:
    calls, script = conversation
    whole, _ = connected(calls)
    expected = [told(event) for event in whole.receive_data(script)]
    output = whole.data_to_send()
    assert not any(isinstance(event, ConnectionEnded) for event in expected)

    cuts = sorted(data.draw(st.lists(st.integers(0, len(script)), max_size=30)))
    pieces = [script[a:b] for a, b in zip([0, *cuts], [*cuts, len(script)], strict=True)]
    for parts in (pieces, [script[n : n + 1] for n in range(len(script))]):
        connection, _ = connected(calls)
        events = [told(event) for part in parts for event in connection.receive_data(part)]
        assert events == expected
        assert connection.data_to_send() == output


@settings(max_examples=examples(300), deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(
                frames.frame,
                st.integers(0, 12),
                st.integers(0, 255),
                st.sampled_from([0, 1, 2, 3, 5, 7, 0x80000001]),
                st.one_of(st.binary(max_size=30), st.sampled_from([b"\x88", b"\x00" * 4, b"\x00" * 8, b"\x82\x86"])),
            ),
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_garbage_ends_in_nothing_worse_than_a_connection_error(script: list[bytes], greeted: bool) -> None:
    connection, streams = connected(3)
    duplex = connection.open_stream(b"/etcdserverpb.Watch/Watch", 0, "watch", 0)
    if greeted:
        connection.receive_data(frames.settings({}))
    ended: list[Stream] = []
    for part in script:
        for event in connection.receive_data(part):
            if isinstance(event, Stream):
                assert event.code >= 0
                ended.append(event)
    assert len(ended) == len(set(map(id, ended)))
    if connection.ended is not None:
        assert {id(each) for each in ended} == {id(each) for each in (*streams, duplex)}
        assert frames.goaway(0, connection.ended.code)[9:17] in connection.data_to_send()
        assert not connection.accepting
    assert {id(each) for each in connection.open_streams()} == {
        id(each) for each in (*streams, duplex) if each.code < 0
    }
