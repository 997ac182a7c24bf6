"""gRPC's small encodings."""

from __future__ import annotations

import pytest

from loadgen.wire.grpc import Code, MessageReader, code_of_http, code_of_reset, encode_timeout, percent_decode


@pytest.mark.parametrize(
    ("nanoseconds", "value"),
    [
        (0, b"1n"),
        (1, b"1n"),
        (99_999_999, b"99999999n"),
        (100_000_000, b"100000u"),
        (5_000_000_000, b"5000000u"),
        (5_000_000_001, b"5000001u"),
        (99_999_999_001, b"100000m"),
        (3_600 * 10**9, b"3600000m"),
        (10**9 * 10**6, b"1000000S"),
        (10**30, b"99999999M"),
    ],
)
def test_timeout(nanoseconds: int, value: bytes) -> None:
    assert encode_timeout(nanoseconds) == value
    assert len(value) <= 9


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain", "plain"),
        (b"100%25", "100%"),
        (b"%E2%82%AC", "€"),
        (b"%zz %4", "%zz %4"),
        (b"%ff", "\ufffd"),
        (b"", ""),
    ],
)
def test_percent_decoding(value: bytes, text: str) -> None:
    assert percent_decode(value) == text


def test_codes_of_http_and_reset() -> None:
    assert [code_of_http(each) for each in (400, 401, 403, 404, 429, 502, 503, 504, 500, 200)] == [
        Code.INTERNAL,
        Code.UNAUTHENTICATED,
        Code.PERMISSION_DENIED,
        Code.UNIMPLEMENTED,
        *[Code.UNAVAILABLE] * 4,
        *[Code.UNKNOWN] * 2,
    ]
    assert [code_of_reset(each) for each in range(13)] == [
        *[Code.INTERNAL] * 5,
        Code.UNKNOWN,
        Code.INTERNAL,
        Code.UNAVAILABLE,
        Code.CANCELLED,
        *[Code.INTERNAL] * 2,
        Code.RESOURCE_EXHAUSTED,
        Code.PERMISSION_DENIED,
    ]


def test_messages_out_of_pieces() -> None:
    reader = MessageReader()
    whole = b"\x00\x00\x00\x00\x02ab" + b"\x00\x00\x00\x00\x00" + b"\x00\x00\x00\x00\x01c"
    assert [message for n in range(len(whole)) for message in reader.feed(whole[n : n + 1])] == [b"ab", b"", b"c"]
    assert not reader.partial
    assert reader.feed(whole + b"\x00") == [b"ab", b"", b"c"]
    assert reader.partial
