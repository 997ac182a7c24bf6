"""The few messages of etcd's gRPC API that questions to a member need, as protocol buffers.

``loadgen.proto`` has all of the API, which ``cluster`` does not import. Numbers of fields are those of etcd's
``api/etcdserverpb/rpc.proto``; a message is read into its fields by number, and what is unknown is passed over
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Message:
    """The fields of an encoded message by their numbers. Raises ValueError for what is no message."""

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        at = 0
        while at < len(data):
            key, at = _read_varint(data, at)
            number, kind = key >> 3, key & 7
            value: int | bytes
            if kind == _VARINT:
                value, at = _read_varint(data, at)
            elif kind in (_BYTES, _FIXED32, _FIXED64):
                size, at = _read_varint(data, at) if kind == _BYTES else ({_FIXED32: 4, _FIXED64: 8}[kind], at)
                value, at = data[at : at + size], at + size
            else:
                raise ValueError(f"a field of wire type {kind}")
            if at > len(data):
                raise ValueError("a field that is cut off")
            self._fields.setdefault(number, []).append(value)

    def number(self, field: int) -> int:
        """Return the value of an integer or a boolean; 0 where it is absent."""
        values = self._fields.get(field, [])
        if any(isinstance(value, bytes) for value in values):
            raise ValueError(f"field {field} is not a number")
        return next((value for value in reversed(values) if isinstance(value, int)), 0)

    def texts(self, field: int) -> tuple[str, ...]:
        """Return the values of a repeated text."""
        return tuple(value.decode("utf-8", "replace") for value in self._raw(field))

    def text(self, field: int) -> str:
        """Return the value of a text; empty where it is absent."""
        return next(iter(self.texts(field)[-1:]), "")

    def messages(self, field: int) -> tuple[Message, ...]:
        """Return the values of a repeated message."""
        return tuple(map(Message, self._raw(field)))

    def message(self, field: int) -> Message:
        """Return the value of a message; an empty one where it is absent."""
        return Message(b"".join(self._raw(field)))

    def _raw(self, field: int) -> list[bytes]:
        values = self._fields.get(field, [])
        found = [value for value in values if isinstance(value, bytes)]
        if len(found) != len(values):
            raise ValueError(f"field {field} is a number")
        return found


def encode(fields: dict[int, int | str | bytes]) -> bytes:
    """Take the fields of a message by their numbers, return it encoded."""
    parts = []
    for number, value in fields.items():
        if isinstance(value, int):
            parts.append(_varint(number << 3 | _VARINT) + _varint(value))
        else:
            raw = value.encode() if isinstance(value, str) else value
            parts.append(_varint(number << 3 | _BYTES) + _varint(len(raw)) + raw)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
    raise ValueError("a number that is cut off")
