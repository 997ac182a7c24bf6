"""Header blocks through a memo (RFC 7541; the codec itself is the ``hpack`` package).

A gRPC client sends and receives the same few header blocks over and over. HPACK is stateful, but a block that left
the dynamic table as it found it means the same, and does as little, for as long as that table stays as it is. So such
blocks are remembered, and all are forgotten when the table changes. What "changes" means is decided by comparing the
whole table before and after, not by reading the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar, cast

import hpack

from loadgen.wire.errors import ErrorCode, RemoteError

T = TypeVar("T")
Fields = list[tuple[bytes, bytes]]

MAX_HEADER_LIST = 65_536
"""Bytes of a header list, decoded, that we accept (RFC 9113, section 10.5.1)."""

DEFAULT_TABLE_SIZE = 4_096
# Blocks with varying literals (an error text, say) are many; the memo is for the few.
_MEMO_ENTRIES = 512
_MEMO_BLOCK = 512


class HeaderDecoder(Generic[T]):
    """Takes header blocks, returns what ``parse`` makes of their fields.

    ``parse`` must be pure: its result is handed out again for every repetition of the block.
    """

    __slots__ = ("_codec", "_parse", "memo")

    def __init__(self, parse: Callable[[Fields], T]) -> None:
        self._codec = hpack.Decoder(MAX_HEADER_LIST)
        self._parse = parse
        self.memo: dict[bytes, T] = {}

    def decode(self, block: bytes) -> T:
        """Take one whole block, return its parsed fields.

        Raises RemoteError with COMPRESSION_ERROR where the block is not valid: the table is then lost, and the
        connection with it (RFC 9113, section 4.3).
        """
        known = self.memo.get(block)
        if known is not None:
            return known
        table = self._codec.header_table
        before = (table.maxsize, tuple(table.dynamic_entries))
        try:
            fields = cast(Fields, self._codec.decode(block, raw=True))
        except hpack.OversizedHeaderListError as exc:
            raise RemoteError("header list too long", ErrorCode.ENHANCE_YOUR_CALM) from exc
        except (hpack.HPACKError, IndexError, ValueError) as exc:
            raise RemoteError(f"header block cannot be decoded: {exc}", ErrorCode.COMPRESSION_ERROR) from exc
        parsed = self._parse(fields)
        if before != (table.maxsize, tuple(table.dynamic_entries)):
            self.memo.clear()
        elif len(block) <= _MEMO_BLOCK:
            if len(self.memo) >= _MEMO_ENTRIES:
                self.memo.clear()
            self.memo[block] = parsed
        return parsed


class HeaderEncoder:
    """Takes fields, returns header blocks; says whether a block may be sent again as it is."""

    __slots__ = ("_codec",)

    def __init__(self) -> None:
        self._codec = hpack.Encoder()

    def encode(self, fields: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bool]:
        """Take the fields, return their block and whether it is *steady*.

        A steady block left the table unchanged, so it may be repeated until a block that is not steady is encoded
        or ``set_table_size`` returns True.
        """
        before = self._state()
        block = self._codec.encode(fields)
        return block, before == self._state()

    def set_table_size(self, size: int) -> bool:
        """Take the peer's SETTINGS_HEADER_TABLE_SIZE, return True where remembered blocks are void.

        We never use more than the default size, which every peer must grant room to refuse (RFC 7541, section 4.2).
        """
        size = min(size, DEFAULT_TABLE_SIZE)
        codec = self._codec
        if size == codec.header_table.maxsize:
            # Setting it again would clear the codec's note that an earlier change is still to be announced.
            return False
        codec.header_table_size = size
        codec.header_table.resized = True
        changes = codec.table_size_changes
        # Only the smallest and the last are announced (RFC 7541, section 4.2); one in between may exceed the last.
        smallest = min(changes)
        changes[:] = [smallest, size] if smallest < size else [size]
        return True

    def _state(self) -> tuple[object, ...]:
        table = self._codec.header_table
        return (table.maxsize, table.resized, tuple(table.dynamic_entries))
