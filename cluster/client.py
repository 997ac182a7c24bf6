"""What the conformance tests ask of etcd, as a Protocol, and its default over etcd3-py.

The tests are written against ``Client`` alone, so that any transport can be tested, and so that a client that
lies can stand in for a cluster that is broken. A client belongs to one thread or greenlet at a time; a watch may
be read by another one.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol

from cluster.admin import AdminClient
from cluster.control import MemberInfo
from cluster.errors import ClusterError, EtcdError, NoAnswer
from cluster.kv import Answer, Compare, KeyValue, Op
from cluster.probe import MemberStatus
from cluster.security import Security

_GONE = -1


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
        """The next event, None where none comes in time.

        Raises WatchCanceled where the server ends the watch and NoAnswer where the connection breaks.
        """

    def close(self) -> None:
        """Ends it; idempotent."""


class Client(Protocol):
    """One endpoint of etcd.

    Every method raises NoAnswer where none comes, and EtcdError where etcd refuses; ``ControlClient`` says what
    the first half takes and returns.
    """

    @property
    def endpoint(self) -> str:
        """``host:port``."""

    def close(self) -> None:
        """Closes its connections."""

    def status(self, name: str = "", timeout_s: float | None = None) -> MemberStatus:
        """The member's own view, which needs no quorum. ``name`` is what to call it."""

    def members(self) -> tuple[MemberInfo, ...]:
        """Who is in the cluster."""

    def put(self, key: bytes, value: bytes, *, lease: int = 0, prev_kv: bool = False) -> Answer:
        """Sets a key."""

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
        """Reads a key, or a range; linearizable unless told otherwise."""

    def delete(self, key: bytes, *, range_end: bytes = b"", prev_kv: bool = False) -> Answer:
        """Deletes a key, or a range."""

    def txn(self, compare: Sequence[Compare], success: Sequence[Op] = (), failure: Sequence[Op] = ()) -> Answer:
        """If all conditions hold does ``success``, else ``failure``, at one revision."""

    def compact(self, revision: int) -> None:
        """Forgets history before ``revision``."""

    def lease_grant(self, ttl_s: int) -> Lease:
        """A new lease of at least so many seconds."""

    def lease_state(self, lease_id: int) -> LeaseState:
        """What is left of a lease, and its keys."""

    def lease_keepalive(self, lease_id: int) -> int:
        """Renews a lease. Returns its seconds from now; 0 where it is gone already."""

    def lease_revoke(self, lease_id: int) -> None:
        """Ends a lease, and its keys with it."""

    def watch(self, key: bytes, *, range_end: bytes = b"", start_revision: int = 0, prev_kv: bool = False) -> Watch:
        """Watches a key, or a range, from ``start_revision`` on; 0 is from now.

        Returns when the server has the watch, so that no later change is missed. Raises WatchCanceled too.
        """

    def hash_kv(self, revision: int) -> StoreHash:
        """Hash of the member's store at a revision. Raises Unsupported where that cannot be had."""


ClientFactory = Callable[[str], Client]


def gateway_factory(*, timeout_s: float = 5.0, security: Security | None = None) -> ClientFactory:
    """Takes what ControlClient takes beside the endpoint; returns what makes a client of an endpoint."""
    return lambda endpoint: GatewayClient(endpoint, timeout_s=timeout_s, security=security)


class GatewayClient(AdminClient):
    """The Client over etcd3-py: ControlClient with leases, watches and hashes, and the operator's calls."""

    def lease_grant(self, ttl_s: int) -> Lease:
        """A new lease of at least so many seconds."""
        answer = self.rpc("/lease/grant", {"TTL": str(ttl_s)})
        return Lease(id=int(answer["ID"]), ttl_s=int(answer["TTL"]))

    def lease_state(self, lease_id: int) -> LeaseState:
        """What is left of a lease, and its keys."""
        answer = self.rpc("/lease/timetolive", {"ID": str(lease_id), "keys": True})
        return LeaseState(
            id=lease_id,
            remaining_s=int(answer.get("TTL", 0)),
            granted_s=int(answer.get("grantedTTL", 0)),
            keys=tuple(base64.b64decode(key) for key in answer.get("keys") or ()),
        )

    def lease_keepalive(self, lease_id: int) -> int:
        """Renews a lease. Returns its seconds from now; 0 where it is gone already."""
        answer = self.rpc("/lease/keepalive", {"ID": str(lease_id)})
        if "error" in answer:
            raise _stream_error(answer["error"])
        return int(answer.get("result", {}).get("TTL", 0))

    def lease_revoke(self, lease_id: int) -> None:
        """Ends a lease, and its keys with it."""
        self.rpc("/lease/revoke", {"ID": str(lease_id)})

    def watch(
        self, key: bytes, *, range_end: bytes = b"", start_revision: int = 0, prev_kv: bool = False
    ) -> GatewayWatch:
        """Watches a key, or a range, from ``start_revision`` on; 0 is from now.

        etcd3-py's own watcher begins again after a broken connection and so could hide a gap; this one does not.
        """
        create: dict[str, Any] = {"key": base64.b64encode(key).decode()}
        if range_end:
            create["range_end"] = base64.b64encode(range_end).decode()
        if start_revision:
            create["start_revision"] = str(start_revision)
        if prev_kv:
            create["prev_kv"] = True
        timeout_s = float(self._client.timeout)
        response = self._call(
            self._client.call_rpc, "/watch", {"create_request": create},
            stream=True, encode=False, raw=True, timeout=(timeout_s, None),
        )  # fmt: skip
        return GatewayWatch(response, self.endpoint, timeout_s)

    def hash_kv(self, revision: int) -> StoreHash:
        """Hash of the member's store at a revision.

        Before 3.5.10 the gateway has Hash under the name of HashKV, over the whole file, and ignores the
        revision: Unsupported there.
        """
        try:
            answer = self.rpc("/maintenance/hashkv", {"revision": str(revision)})
        except NoAnswer as exc:
            if exc.cause != "not etcd":
                raise
            raise Unsupported(f"{self.endpoint}: etcd {self.version} offers no HashKV over its gateway") from exc
        return StoreHash(hash=int(answer.get("hash", 0)), compact_revision=int(answer.get("compact_revision", 0)))


class GatewayWatch:
    """A watch over the gateway: a thread reads the stream's JSON lines into a queue."""

    def __init__(self, response: Any, endpoint: str, timeout_s: float) -> None:
        """Takes the stream's response and the seconds in which the server must confirm the watch."""
        self._response, self._endpoint = response, endpoint
        self._queue: queue.SimpleQueue[WatchEvent | ClusterError] = queue.SimpleQueue()
        self._created, self._closed = threading.Event(), False
        # One's own descriptor of the socket, to wake the reader with.
        self._socket = socket.socket(fileno=os.dup(response.raw.fileno()))
        self._thread = threading.Thread(target=self._read, name="watch", daemon=True)
        self._thread.start()
        if not self._created.wait(timeout_s):
            self.close()
            raise NoAnswer(f"{endpoint}: no watch in time", cause="timeout")

    def next(self, timeout_s: float) -> WatchEvent | None:
        """The next event, None where none comes in time. Raises WatchCanceled and NoAnswer."""
        try:
            item = self._queue.get(timeout=max(timeout_s, 0.001))
        except queue.Empty:
            return None
        if isinstance(item, ClusterError):
            self._queue.put(item)  # it stays ended
            raise item
        return item

    def close(self) -> None:
        """Ends it; idempotent."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()
        self._response.close()

    def _read(self) -> None:
        ended: ClusterError = NoAnswer(f"{self._endpoint}: the watch's connection was lost", cause="connection lost")
        try:
            for line in self._response.iter_lines(chunk_size=None):
                if line:
                    self._take(json.loads(line))
        except ClusterError as exc:
            ended = exc
        except Exception as exc:  # whatever requests and urllib3 make of a broken stream
            ended.__cause__ = exc
        self._queue.put(ended)
        self._created.set()

    def _take(self, message: dict[str, Any]) -> None:
        if "error" in message:
            raise _stream_error(message["error"])
        result = message.get("result", {})
        if result.get("canceled") or result.get("compact_revision"):
            compacted = int(result.get("compact_revision", 0))
            reason = result.get("cancel_reason") or (f"compacted up to {compacted}" if compacted else "no reason given")
            raise WatchCanceled(f"{self._endpoint}: watch canceled: {reason}", compact_revision=compacted)
        for event in result.get("events", ()):
            self._queue.put(_event(event))
        if result.get("created"):
            self._created.set()


@contextlib.contextmanager
def watching(
    client: Client, key: bytes, *, range_end: bytes = b"", start_revision: int = 0, prev_kv: bool = False
) -> Iterator[Watch]:
    """A watch for the length of a ``with`` block; takes what ``Client.watch`` takes."""
    watch = client.watch(key, range_end=range_end, start_revision=start_revision, prev_kv=prev_kv)
    try:
        yield watch
    finally:
        watch.close()


def collect(watch: Watch, count: int, timeout_s: float, quiet_s: float = 0.0) -> list[WatchEvent]:
    """Takes a watch, how many events to wait for and how long in all; returns those that came, in order.

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


def _event(event: dict[str, Any]) -> WatchEvent:
    prev = event.get("prev_kv")
    return WatchEvent(
        type="delete" if event.get("type") == "DELETE" else "put",
        kv=_key_value(event.get("kv", {})),
        prev_kv=_key_value(prev) if prev is not None else None,
    )


def _key_value(kv: dict[str, Any]) -> KeyValue:
    return KeyValue(
        key=base64.b64decode(kv.get("key", "")),
        value=base64.b64decode(kv.get("value", "")),
        create_revision=int(kv.get("create_revision", 0)),
        mod_revision=int(kv.get("mod_revision", 0)),
        version=int(kv.get("version", 0)),
        lease=int(kv.get("lease", 0)),
    )


def _stream_error(error: Any) -> EtcdError:
    if not isinstance(error, dict):
        return EtcdError(2, str(error))
    return EtcdError(int(error.get("grpc_code") or error.get("code") or 2), str(error.get("message", "")))
