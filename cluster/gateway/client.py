"""The client that the conformance tests need, as a Protocol; ``conformance_client.py`` is the default.

The tests are written against ``Client`` alone, so that any transport can be tested, and so that a client that
lies can stand in for a cluster that is broken. A client belongs to one thread or greenlet at a time; a watch may
be read by another one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

from cluster.base.errors import ClusterError
from cluster.base.etcd_values import Answer, Compare, KeyValue, Op
from cluster.observe.probe import MemberInfo, MemberStatus


class Unsupported(ClusterError):  # noqa: N818
    """The server, or this client's way to it, does not offer the call."""


class WatchCanceled(ClusterError):  # noqa: N818
    """The server ended a watch.

    Attributes:
        compact_revision: the first revision that is still there, where the watch asked for one before it; else 0.
    """

    def __init__(self, message: str, *, compact_revision: int = 0) -> None:
        super().__init__(message)
        self.compact_revision = compact_revision


@dataclasses.dataclass(frozen=True, slots=True)
class Lease:
    """A lease as granted: the server may grant longer than asked for."""

    id: int
    ttl_s: int


@dataclasses.dataclass(frozen=True, slots=True)
class LeaseState:
    """A lease as it is. ``remaining_s`` is -1 for one that is gone; ``keys`` are those attached to it."""

    id: int
    remaining_s: int
    granted_s: int
    keys: tuple[bytes, ...] = ()

    @property
    def is_gone(self) -> bool:
        """Whether it expired or was revoked, or never was."""
        return self.remaining_s < 0


@dataclasses.dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. For a delete ``kv`` has the key and the revision of the delete, and no value.

    ``prev_kv`` is what was there before: None where nothing was, or where it was not asked for.
    """

    type: Literal["put", "delete"]
    kv: KeyValue
    prev_kv: KeyValue | None = None

    @property
    def revision(self) -> int:
        """Of the change."""
        return self.kv.mod_revision


@dataclasses.dataclass(frozen=True, slots=True)
class StoreHash:
    """A member's hash over its store up to a revision; two compare only where ``compact_revision`` is the same."""

    hash: int
    compact_revision: int


class Watch(Protocol):
    """A running watch; close it."""

    def next(self, timeout_s: float) -> WatchEvent | None:
        """Return the next event, None where none comes in time.

        Raises WatchCanceled where the server ends the watch and NoAnswer where the connection breaks.
        """

    def close(self) -> None:
        """End it; idempotent."""


class Client(Protocol):
    """One endpoint of etcd.

    Every method raises NoAnswer where none comes, and EtcdError where etcd refuses; ``ControlClient`` says what
    the first half takes and returns.
    """

    @property
    def endpoint(self) -> str:
        """``host:port``."""

    def close(self) -> None:
        """Close its connections."""

    def status(self, name: str = "", timeout_s: float | None = None) -> MemberStatus:
        """Return the member's own view, which needs no quorum. ``name`` is what to call it."""

    def members(self) -> tuple[MemberInfo, ...]:
        """Return who is in the cluster."""

    def put(self, key: bytes, value: bytes, *, lease: int = 0, prev_kv: bool = False) -> Answer:
        """Set a key."""

    def get(
        self,
        key: bytes,
        *,
        range_end: bytes = b"",
        serializable: bool = False,
        revision: int = 0,
        limit: int = 0,
        count_only: bool = False,
    ) -> Answer:
        """Read a key, or a range; linearizable unless told otherwise."""

    def delete(self, key: bytes, *, range_end: bytes = b"", prev_kv: bool = False) -> Answer:
        """Delete a key, or a range."""

    def txn(self, compare: Sequence[Compare], success: Sequence[Op] = (), failure: Sequence[Op] = ()) -> Answer:
        """If all conditions hold does ``success``, else ``failure``, at one revision."""

    def compact(self, revision: int) -> None:
        """Forget history before ``revision``."""

    def lease_grant(self, ttl_s: int) -> Lease:
        """Return a new lease of at least so many seconds."""

    def lease_state(self, lease_id: int) -> LeaseState:
        """Return what is left of a lease, and its keys."""

    def lease_keepalive(self, lease_id: int) -> int:
        """Renew a lease. Returns its seconds from now; 0 where it is gone already."""

    def lease_revoke(self, lease_id: int) -> None:
        """End a lease, and its keys with it."""

    def watch(self, key: bytes, *, range_end: bytes = b"", start_revision: int = 0, prev_kv: bool = False) -> Watch:
        """Watch a key, or a range, from ``start_revision`` on; 0 is from now.

        Returns when the server has the watch, so that no later change is missed. Raises WatchCanceled too.
        """

    def hash_kv(self, revision: int) -> StoreHash:
        """Hash of the member's store at a revision. Raises Unsupported where that cannot be had."""


ClientFactory = Callable[[str], Client]


@contextlib.contextmanager
def watching(
    client: Client, key: bytes, *, range_end: bytes = b"", start_revision: int = 0, prev_kv: bool = False
) -> Iterator[Watch]:
    """Yield a watch for the length of a ``with`` block; takes what ``Client.watch`` takes."""
    watch = client.watch(key, range_end=range_end, start_revision=start_revision, prev_kv=prev_kv)
    try:
        yield watch
    finally:
        watch.close()


def collect(watch: Watch, count: int, timeout_s: float, quiet_s: float = 0.0) -> list[WatchEvent]:
    """Take a watch, how many events to wait for and how long in all; return those that came, in order.

    With ``quiet_s`` it waits that long for one event too many.
    """
    events: list[WatchEvent] = []
    deadline = time.monotonic() + timeout_s
    while len(events) < count and (left := deadline - time.monotonic()) > 0:
        if (event := watch.next(left)) is not None:
            events.append(event)
    while quiet_s and (event := watch.next(quiet_s)) is not None:
        events.append(event)
    return events
