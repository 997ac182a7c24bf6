"""The small gRPC client for questions to a member, against answers made byte by byte."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.base.errors import EtcdError
from cluster.observe.grpc_call import GrpcSocket, NotGrpcError

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY, ACK = 0x1, 0x4, 0x8, 0x20, 0x1
OPEN = {":status": "200", "content-type": "application/grpc"}
HANG_S = 60.0


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def block(fields: dict[str, str], *, huffman: bool = True) -> bytes:
    return hpack.Encoder().encode(list(fields.items()), huffman=huffman)


def head(fields: dict[str, str], flags: int = 0, stream: int = 1) -> bytes:
    return frame(HEADERS, END_HEADERS | flags, stream, block(fields))


def body(message: bytes, stream: int = 1) -> bytes:
    return frame(DATA, 0, stream, b"\0" + len(message).to_bytes(4, "big") + message)


def answer(message: bytes, stream: int = 1) -> bytes:
    end = head({"grpc-status": "0", "grpc-message": ""}, END_STREAM, stream)
    return head(OPEN, 0, stream) + body(message, stream) + end


GREETING = frame(SETTINGS, 0, 0)
END = head({"grpc-status": "0"}, END_STREAM)


@contextlib.contextmanager
def connected(said: bytes, *, hang_up: bool = True, piece: int = 1 << 20) -> Iterator[tuple[GrpcSocket, socket.socket]]:
    """Yield a client whose peer says these bytes, so many at a time, and then hangs up; and the peer's end."""
    here, there = socket.socketpair()

    def speak() -> None:
        with contextlib.suppress(OSError):
            for at in range(0, len(said), piece):
                there.sendall(said[at : at + piece])
            if hang_up:
                there.shutdown(socket.SHUT_WR)

    speaker = threading.Thread(target=speak)
    speaker.start()
    client = GrpcSocket(here, "m:1", "http")
    try:
        yield client, there
    finally:
        client.close()
        speaker.join()
        there.close()


def asked(said: bytes, **options: object) -> bytes:
    with connected(said, **options) as (client, _):  # type: ignore[arg-type]
        return client.call("/S/M", b"question", time.monotonic() + HANG_S)


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_an_answer_in_any_pieces(piece: int) -> None:
    assert asked(GREETING + answer(b"said"), piece=piece) == b"said"


def test_an_answer_of_more_than_a_frame() -> None:
    message = bytes(range(256)) * 200
    parts = b"\0" + len(message).to_bytes(4, "big") + message
    data = b"".join(frame(DATA, 0, 1, parts[at : at + 16_384]) for at in range(0, len(parts), 16_384))
    assert asked(GREETING + head(OPEN) + data + head({"grpc-status": "0"}, END_STREAM)) == message


def test_an_answer_of_several_frames_with_padding_priority_and_continuation() -> None:
    fields = block(OPEN)
    message = b"\0\0\0\0\x04said"
    said = (
        GREETING
        + frame(HEADERS, PADDED | PRIORITY, 1, b"\x03" + b"\0" * 5 + fields[:4] + b"\0" * 3)
        + frame(CONTINUATION, 0, 1, fields[4:6])
        + frame(CONTINUATION, END_HEADERS, 1, fields[6:])
        + frame(DATA, PADDED, 1, b"\x02" + message[:3] + b"\0\0")
        + frame(DATA, 0, 1, message[3:])
        + frame(0x77, 0, 0, b"unknown kinds of frames are passed over")
        + head({"grpc-status": "0"}, END_STREAM)
    )
    assert asked(said) == b"said"


def test_two_calls_and_what_the_peer_is_told() -> None:
    """The peer's SETTINGS and PINGs are acknowledged; a long field goes out whole; the codec's table is kept."""
    encoder = hpack.Encoder()

    def whole(message: bytes, stream: int) -> bytes:
        opened = frame(HEADERS, END_HEADERS, stream, encoder.encode(list(OPEN.items())))
        ended = frame(HEADERS, END_HEADERS | END_STREAM, stream, encoder.encode([("grpc-status", "0")]))
        return opened + body(message, stream) + ended

    said = GREETING + frame(PING, 0, 0, b"12345678") + whole(b"one", 1) + whole(b"two", 3)
    token = "t" * 700
    with connected(said, hang_up=False) as (client, there):
        until = time.monotonic() + HANG_S
        assert client.call("/S/M", b"q1", until, [("token", token)]) == b"one"
        assert client.spoken
        assert client.call("/S/M", b"q2", until) == b"two"
        client.close()
        told = b""
        while part := there.recv(65_536):
            told += part
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert told.startswith(preface)
    frames, rest = [], told[len(preface) :]
    while rest:
        size = int.from_bytes(rest[:3], "big")
        frames.append((rest[3], rest[4], int.from_bytes(rest[5:9], "big"), rest[9 : 9 + size]))
        rest = rest[9 + size :]
    assert (SETTINGS, ACK, 0, b"") in frames and (PING, ACK, 0, b"12345678") in frames
    requests = [each for each in frames if each[0] == HEADERS]
    assert [each[2] for each in requests] == [1, 3]
    decoder = hpack.Decoder()
    first, second = (dict(decoder.decode(each[3])) for each in requests)
    timeouts = [first.pop("grpc-timeout"), second.pop("grpc-timeout")]
    assert all(text.endswith("u") and 0 < int(text[:-1]) <= HANG_S * 1e6 for text in timeouts)
    assert first.pop("token") == token
    assert first == second == {
        ":method": "POST", ":scheme": "http", ":authority": "m:1", ":path": "/S/M", "te": "trailers",
        "content-type": "application/grpc", "user-agent": "raftload",
    }  # fmt: skip
    assert [each[3] for each in frames if each[0] == DATA] == [b"\0\0\0\0\x02q1", b"\0\0\0\0\x02q2"]


def test_a_refusal_is_etcds_own() -> None:
    said = {**OPEN, "grpc-status": "7", "grpc-message": "etcdserver: %C3%A9 100%25 denied"}
    with pytest.raises(EtcdError) as caught:
        asked(GREETING + head(said, END_STREAM))
    assert (caught.value.code, caught.value.detail) == (7, "etcdserver: é 100% denied")
    with pytest.raises(EtcdError, match="HTTP 502: a proxy answers, and nobody behind it") as caught:
        asked(GREETING + head({":status": "502", "content-type": "text/html"}) + frame(DATA, END_STREAM, 1, b"<html>"))
    assert caught.value.code == 14


@pytest.mark.parametrize(
    ("said", "words", "http2"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1", False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not answer in HTTP/2", False),
        (b"\x15\x03\x01\x00\x02\x02\x0a" + b"\0" * 9, "not answer in HTTP/2", False),
        (GREETING + head({":status": "404", "content-type": "text/html"}, END_STREAM), "HTTP 404, not gRPC", True),
        (GREETING + head({**OPEN, "content-type": "text/html", "grpc-status": "0"}, END_STREAM), "not gRPC", True),
        (GREETING + head(OPEN, END_STREAM), "not gRPC", True),
        (GREETING + head({**OPEN, "grpc-status": "0"}, END_STREAM), "its answer is malformed", True),
        (GREETING + head(OPEN) + frame(DATA, 0, 1, b"\0\0\0\0\x09cut") + END, "its answer is malformed", True),
        (GREETING + head(OPEN) + frame(DATA, 0, 1, b"\1\0\0\0\x01z") + END, "its answer is malformed", True),
        (GREETING + frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"), "HTTP/2 is malformed", True),
        (GREETING + frame(HEADERS, 0, 1, b"\x88") + frame(DATA, 0, 1, b""), "HTTP/2 is malformed", True),
    ],
)  # fmt: skip
def test_what_is_not_grpc(said: bytes, words: str, http2: bool) -> None:
    with pytest.raises(NotGrpcError, match=words) as caught:
        asked(said)
    assert caught.value.http2 is http2


@pytest.mark.parametrize(
    "said",
    [
        b"",
        GREETING,
        GREETING + answer(b"said")[:-3],
        GREETING + frame(GOAWAY, 0, 0, b"\0" * 8),
        GREETING + frame(RST_STREAM, 0, 1, b"\0\0\0\x07"),
    ],
)
def test_a_connection_that_is_lost(said: bytes) -> None:
    with connected(said) as (client, _), pytest.raises(ConnectionError):
        client.call("/S/M", b"", time.monotonic() + HANG_S)
    assert client.spoken is bool(said)


def test_goaway_after_our_call_is_no_loss() -> None:
    assert asked(GREETING + frame(GOAWAY, 0, 0, b"\0\0\0\x01" + b"\0" * 4) + answer(b"said")) == b"said"


def test_it_waits_no_longer_than_it_is_told() -> None:
    with connected(GREETING, hang_up=False) as (client, _):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            client.call("/S/M", b"", began + 0.2)
        assert time.monotonic() - began >= 0.2


@given(st.binary(max_size=60), st.integers(0, 200))
def test_any_damage_is_one_of_its_errors(junk: bytes, at: int) -> None:
    whole = GREETING + answer(b"said")
    with contextlib.suppress(EtcdError, NotGrpcError, OSError):
        assert len(asked(whole[:at] + junk + whole[at:])) < 1 << 24
