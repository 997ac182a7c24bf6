"""Requests to etcd's store and its answers as plain values, apart from any client."""

from __future__ import annotations

import dataclasses
from typing import Literal

Target = Literal["value", "version", "create", "mod", "lease"]
Relation = Literal["=", "!=", ">", "<"]


@dataclasses.dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as the store holds it, with its revisions. ``value`` is empty for an empty one, never None."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Compare:
    """One condition of a transaction: ``Compare(b"k", "mod", "=", 0)`` is "the key does not exist"."""

    key: bytes
    target: Target
    relation: Relation
    operand: bytes | int


@dataclasses.dataclass(frozen=True, slots=True)
class Op:
    """One operation of a transaction's branch; made by ``put``, ``get`` and ``delete``."""

    f: Literal["put", "get", "delete"]
    key: bytes
    value: bytes = b""
    range_end: bytes = b""
    lease: int = 0

    @classmethod
    def put(cls, key: bytes, value: bytes, *, lease: int = 0) -> Op:
        """Set a key, under a lease where one is given."""
        return cls("put", key, value, lease=lease)

    @classmethod
    def get(cls, key: bytes, *, range_end: bytes = b"") -> Op:
        """Read a key, or the range from it to ``range_end``, that excluded."""
        return cls("get", key, range_end=range_end)

    @classmethod
    def delete(cls, key: bytes, *, range_end: bytes = b"") -> Op:
        """Delete a key, or the range from it to ``range_end``, that excluded."""
        return cls("delete", key, range_end=range_end)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What etcd answered to one request.

    Attributes:
        revision: of the store, in the answer's header: the point at which the request took effect.
        member_id: who answered; 0 inside a transaction.
        term: its Raft term; 0 inside a transaction.
        kvs: the keys that a read found.
        count: how many there are in the range, of which ``kvs`` may hold fewer.
        deleted: how many a delete removed.
        prev_kvs: what was there before a put or delete, where asked for.
        succeeded: whether a transaction's conditions held; None for anything else.
        responses: of the branch that a transaction took, in order.
    """

    revision: int
    member_id: int = 0
    term: int = 0
    kvs: tuple[KeyValue, ...] = ()
    count: int = 0
    deleted: int = 0
    prev_kvs: tuple[KeyValue, ...] = ()
    succeeded: bool | None = None
    responses: tuple[Answer, ...] = ()


def prefix_end(prefix: bytes) -> bytes:
    """Return the end of the range of all keys that start with ``prefix``: ``b"ab"`` gives ``b"ac"``.

    An empty prefix, or one of 0xff bytes only, gives ``b"\\0"``, which is etcd's word for "no end".
    """
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b"\0"
