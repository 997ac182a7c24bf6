"""etcd's key-value store at one revision, in memory, and what its requests do to it.

Written from etcd's documentation of its API and from what its servers answer: ranges, compares and transactions mean
what they mean in etcd's ``server/etcdserver/txn`` (3.5: ``apply.go``) and ``server/storage/mvcc``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator

from sortedcontainers import SortedList

from loadgen.proto import etcd_pb2 as pb
from loadgen.proto import kv_pb2

Entry = tuple[bytes, int, int, int, int]
"""Value, create revision, mod revision, version, lease."""
Change = tuple[bytes, Entry | None, Entry | None]
"""A key, what it was, and what it is now; None where it does not exist."""
Changes = list[Change]
Item = tuple[bytes, Entry]
"""A key with what it has."""
ABSENT: Entry = (b"", 0, 0, 0, 0)


def within(key: bytes, low: bytes, end: bytes) -> bool:
    """Return whether a key is in etcd's range: one key, [low, end), or from ``low`` on if ``end`` is a zero byte."""
    if not end:
        return key == low
    if end == b"\0":
        return key >= low
    return low <= key < end


class Store:
    """The keys that exist. Takes nothing; it begins empty.

    Attributes:
        entries: by key.
        leases: the keys attached to each lease that has any.
        bare_keys_have_leases: whether members tell a key's lease where they are asked for keys without values; etcd
            3.7 and later do not.
    """

    def __init__(self) -> None:
        self.bare_keys_have_leases = True
        self.entries: dict[bytes, Entry] = {}
        self.leases: dict[int, set[bytes]] = {}
        self._keys = SortedList()

    # ---- changes

    def put(self, key: bytes, value: bytes, lease: int, revision: int, changes: Changes) -> None:
        """Write a key at a revision, and append the change."""
        old = self.entries.get(key)
        new = (value, old[1], revision, old[3] + 1, lease) if old else (value, revision, revision, 1, lease)
        if old is not None and old[4] == lease:
            self.entries[key] = new
        else:
            self.set(key, old, new)
        changes.append((key, old, new))

    def delete(self, key: bytes, changes: Changes) -> None:
        """Delete a key that exists, and append the change."""
        old = self.entries[key]
        self.set(key, old, None)
        changes.append((key, old, None))

    def set(self, key: bytes, old: Entry | None, new: Entry | None) -> None:
        """Replace what a key has. ``old`` is what it has now."""
        if new is None:
            if old is not None:
                del self.entries[key]
                self._keys.remove(key)
        else:
            self.entries[key] = new
            if old is None:
                self._keys.add(key)
        before, after = old[4] if old else 0, new[4] if new else 0
        if before != after:
            if before:
                attached = self.leases[before]
                attached.discard(key)
                if not attached:
                    del self.leases[before]
            if after:
                self.leases.setdefault(after, set()).add(key)

    def undo(self, changes: Changes) -> None:
        """Take changes back; they must be the last ones."""
        for key, old, new in reversed(changes):
            self.set(key, new, old)

    # ---- ranges

    def keys(self, low: bytes, end: bytes) -> Iterable[bytes]:
        """Return the keys of a range, in order."""
        if not end:
            return (low,) if low in self.entries else ()
        between: Iterator[bytes] = self._keys.irange(low, None if end == b"\0" else end, (True, False))
        return between if end == b"\0" or end > low else ()

    def count(self, low: bytes, end: bytes) -> int:
        """Return how many keys a range has, without walking through it."""
        if not end:
            return int(low in self.entries)
        first = self._keys.bisect_left(low)
        last = len(self._keys) if end == b"\0" else self._keys.bisect_left(end)
        return max(0, int(last) - int(first))

    def range(self, request: pb.RangeRequest) -> tuple[list[Item], int, bool]:
        """Return what a ``RangeRequest`` finds: keys with their entries, ``count`` and ``more``.

        Ties of a sort by anything but the key are in the order of the keys; etcd's may be in any.
        """
        low, end, limit = request.key, request.range_end, request.limit
        count = self.count(low, end)
        if request.count_only:
            return [], count, False
        entries = self.entries
        bounds = (
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        )
        plain = not request.sort_order and not any(bounds)
        found: list[tuple[bytes, Entry]] = []
        for key in self.keys(low, end):
            if plain and 0 < limit < len(found):
                break  # one more than asked for says that there is more
            entry = entries[key]
            if plain or _bounded(entry, bounds):
                found.append((key, entry))
        by = _SORT.get(request.sort_target)
        if by is not None and (request.sort_target or request.sort_order):
            found.sort(key=by, reverse=request.sort_order == pb.RangeRequest.DESCEND)
        more = 0 < limit < len(found)
        return (found[:limit] if more else found), count, more

    # ---- transactions

    def holds(self, compares: Iterable[pb.Compare]) -> bool:
        """Return whether all of a transaction's compares hold."""
        return all(self._holds(compare) for compare in compares)

    def _holds(self, compare: pb.Compare) -> bool:
        target, wanted = _TARGET[compare.target], _wanted(compare)
        result = compare.result
        entry = self.entries.get(compare.key)
        if entry is not None and not compare.range_end:
            return _compared(entry[target], wanted, result)
        found = [self.entries[key] for key in self.keys(compare.key, compare.range_end)]
        if not found:
            # A missing key has no value, not even an empty one; its numbers are 0.
            return compare.target != pb.Compare.VALUE and _compared(0, wanted, result)
        return all(_compared(entry[target], wanted, result) for entry in found)


def _bounded(entry: Entry, bounds: tuple[int, int, int, int]) -> bool:
    min_mod, max_mod, min_create, max_create = bounds
    return (
        (not min_mod or entry[2] >= min_mod)
        and (not max_mod or entry[2] <= max_mod)
        and (not min_create or entry[1] >= min_create)
        and (not max_create or entry[1] <= max_create)
    )


_SORT: dict[int, Callable[[Item], bytes | int]] = {
    pb.RangeRequest.KEY: lambda item: item[0],
    pb.RangeRequest.VERSION: lambda item: item[1][3],
    pb.RangeRequest.CREATE: lambda item: item[1][1],
    pb.RangeRequest.MOD: lambda item: item[1][2],
    pb.RangeRequest.VALUE: lambda item: item[1][0],
}
_TARGET = {
    pb.Compare.VALUE: 0, pb.Compare.CREATE: 1, pb.Compare.MOD: 2, pb.Compare.VERSION: 3, pb.Compare.LEASE: 4,
}  # fmt: skip
_FIELD = {
    pb.Compare.VALUE: "value", pb.Compare.CREATE: "create_revision", pb.Compare.MOD: "mod_revision",
    pb.Compare.VERSION: "version", pb.Compare.LEASE: "lease",
}  # fmt: skip

_RESULT = {
    pb.Compare.EQUAL: operator.eq, pb.Compare.NOT_EQUAL: operator.ne, pb.Compare.GREATER: operator.gt,
    pb.Compare.LESS: operator.lt,
}  # fmt: skip


def sort_key(request: pb.RangeRequest) -> Callable[[Item], bytes | int]:
    """Return the function that a range's answer is sorted by, over (key, entry)."""
    return _SORT[request.sort_target]


def _wanted(compare: pb.Compare) -> bytes | int:
    wanted: bytes | int = getattr(compare, _FIELD[compare.target])
    return wanted


def _compared(has: bytes | int, wanted: bytes | int, result: pb.Compare.CompareResult) -> bool:
    return bool(_RESULT[result](has, wanted))


def entry_of(kv: kv_pb2.KeyValue) -> Entry:
    """Return a ``KeyValue`` as an entry."""
    return (kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
