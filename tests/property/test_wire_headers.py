"""The memo of header blocks changes nothing: both directions are held to the plain ``hpack`` codec."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.wire.errors import ErrorCode, RemoteError
from loadgen.wire.headers import Fields, HeaderDecoder, HeaderEncoder
from tests.support.examples import examples

NAMES = [b"grpc-status", b"grpc-message", b"content-type", b"x-long-" + b"n" * 40, b":status", b"x"]
VALUES = [b"", b"0", b"200", b"application/grpc", b"v" * 60, b"w" * 200]

# Few names and values, so that blocks repeat; large ones and small tables, so that entries are evicted.
fields = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES), st.sampled_from([False, False, False, False, True])),
    min_size=1,
    max_size=5,
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("block"), st.integers(0, 3)),
        st.tuples(st.just("block"), fields),
        st.tuples(st.just("size"), st.sampled_from([0, 50, 100, 300, 4096])),
    ),
    min_size=5,
    max_size=40,
)


def plain(entries: list[tuple[bytes, bytes, bool]]) -> Fields:
    return [(name, value) for name, value, _ in entries]


@settings(max_examples=examples(300), deadline=None)
@given(steps, st.lists(fields, min_size=4, max_size=4), st.booleans())
def test_decoding_equals_the_plain_decoder(
    script: list[tuple[str, object]], favourites: list[list[tuple[bytes, bytes, bool]]], huffman: bool
) -> None:
    encoder = hpack.Encoder()
    oracle = hpack.Decoder()
    ours: HeaderDecoder[Fields] = HeaderDecoder(lambda parsed: [(bytes(n), bytes(v)) for n, v in parsed])
    for what, argument in script:
        if what == "size":
            assert isinstance(argument, int)
            if argument != encoder.header_table_size:  # the codec forgets what it has to announce otherwise
                encoder.header_table_size = argument
            continue
        entries = favourites[argument] if isinstance(argument, int) else argument
        assert isinstance(entries, list)
        block = encoder.encode(entries, huffman=huffman)
        expected = [(bytes(n), bytes(v)) for n, v in oracle.decode(block, raw=True)]
        assert ours.decode(block) == expected == plain(entries)


@settings(max_examples=examples(300), deadline=None)
@given(steps, st.lists(fields, min_size=4, max_size=4))
def test_repeating_steady_blocks_is_what_encoding_again_would_be(
    script: list[tuple[str, object]], favourites: list[list[tuple[bytes, bytes, bool]]]
) -> None:
    ours = HeaderEncoder()
    reader = hpack.Decoder()
    kept: dict[bytes, bytes] = {}
    for what, argument in script:
        if what == "size":
            assert isinstance(argument, int)
            # The peer announces a size, and from its acknowledgement on insists on it.
            if ours.set_table_size(argument):
                kept.clear()
            reader.max_allowed_table_size = argument
            continue
        entries = favourites[argument] if isinstance(argument, int) else argument
        assert isinstance(entries, list)
        wanted = plain(entries)
        known = repr(wanted).encode()
        block = kept.get(known)
        if block is None:
            block, steady = ours.encode(wanted)
            if steady:
                kept[known] = block
            else:
                kept.clear()
        assert [(bytes(n), bytes(v)) for n, v in reader.decode(block, raw=True)] == wanted


def test_the_same_block_after_the_table_changed() -> None:
    encoder = hpack.Encoder()
    decoder: HeaderDecoder[Fields] = HeaderDecoder(lambda parsed: [(bytes(n), bytes(v)) for n, v in parsed])
    blocks = []
    for value in (b"a", b"b"):
        for _ in range(3):
            blocks.append(encoder.encode([(b"x", value)]))
            assert decoder.decode(blocks[-1]) == [(b"x", value)]
    assert blocks[1] == blocks[2] == blocks[4] == blocks[5]  # index 62, the newest entry, whatever that is


@given(st.binary(max_size=80))
def test_a_block_that_is_none_is_a_compression_error(block: bytes) -> None:
    decoder: HeaderDecoder[Fields] = HeaderDecoder(lambda parsed: parsed)
    try:
        decoder.decode(block)
    except RemoteError as exc:
        assert exc.code in (ErrorCode.COMPRESSION_ERROR, ErrorCode.ENHANCE_YOUR_CALM)


def test_a_header_list_that_inflates_is_refused() -> None:
    encoder = hpack.Encoder()
    encoder.encode([(b"bomb", b"b" * 3000)])
    block = encoder.encode([(b"bomb", b"b" * 3000)]) * 60
    decoder: HeaderDecoder[Fields] = HeaderDecoder(lambda parsed: parsed)
    decoder.decode(hpack.Encoder().encode([(b"bomb", b"b" * 3000)]))
    with pytest.raises(RemoteError) as caught:
        decoder.decode(block)
    assert caught.value.code == ErrorCode.ENHANCE_YOUR_CALM


def test_the_memo_is_bounded() -> None:
    decoder: HeaderDecoder[Fields] = HeaderDecoder(lambda parsed: parsed)
    encoder = hpack.Encoder()
    for n in range(3000):
        decoder.decode(encoder.encode([(b"grpc-message", b"%d" % n, True)]))
    assert 0 < len(decoder.memo) <= 512
