"""The ``Client`` of the conformance tests over etcd's JSON gateway, by etcd3-py."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import socket
import threading
from typing import TYPE_CHECKING

from cluster.base.errors import ClusterError, NoAnswer
from cluster.base.security import Security
from cluster.gateway.admin import AdminClient
from cluster.gateway.client import ClientFactory, Lease, LeaseState, StoreHash, Unsupported, WatchCanceled, WatchEvent
from cluster.gateway.control import key_value
from cluster.gateway.etcd3py import stream_error

if TYPE_CHECKING:
    import requests

    from cluster.schema.gateway_answers import GatewayAnswer, GatewayEvent


def gateway_factory(*, timeout_s: float = 5.0, security: Security | None = None) -> ClientFactory:
    """Take what ControlClient takes beside the endpoint; return what makes a client of an endpoint."""
    return lambda endpoint: GatewayClient(endpoint, timeout_s=timeout_s, security=security)


class GatewayClient(AdminClient):
    """The Client over etcd3-py: ControlClient with leases, watches and hashes, and the operator's calls."""

    def lease_grant(self, ttl_s: int) -> Lease:
        """Return a new lease of at least so many seconds."""
        answer = self.rpc("/lease/grant", {"TTL": str(ttl_s)})
        return Lease(id=int(answer["ID"]), ttl_s=int(answer["TTL"]))

    def lease_state(self, lease_id: int) -> LeaseState:
        """Return what is left of a lease, and its keys."""
        answer = self.rpc("/lease/timetolive", {"ID": str(lease_id), "keys": True})
        return LeaseState(
            id=lease_id,
            remaining_s=int(answer.get("TTL", 0)),
            granted_s=int(answer.get("grantedTTL", 0)),
            keys=tuple(base64.b64decode(key) for key in answer.get("keys") or ()),
        )

    def lease_keepalive(self, lease_id: int) -> int:
        """Renew a lease. Returns its seconds from now; 0 where it is gone already."""
        answer = self.rpc("/lease/keepalive", {"ID": str(lease_id)})
        if "error" in answer:
            raise stream_error(answer["error"])
        return int(answer.get("result", {}).get("TTL", 0))

    def lease_revoke(self, lease_id: int) -> None:
        """End a lease, and its keys with it."""
        self.rpc("/lease/revoke", {"ID": str(lease_id)})

    def watch(
        self, key: bytes, *, range_end: bytes = b"", start_revision: int = 0, prev_kv: bool = False
    ) -> GatewayWatch:
        """Watch a key, or a range, from ``start_revision`` on; 0 is from now.

        etcd3-py's own watcher begins again after a broken connection and so could hide a gap; this one does not.
        """
        create: dict[str, object] = {"key": base64.b64encode(key).decode()}
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

    def __init__(self, response: requests.Response, endpoint: str, timeout_s: float) -> None:
        """Take the stream's response and the seconds in which the server must confirm the watch."""
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
        """Return the next event, None where none comes in time. Raises WatchCanceled and NoAnswer."""
        try:
            item = self._queue.get(timeout=max(timeout_s, 0.001))
        except queue.Empty:
            return None
        if isinstance(item, ClusterError):
            self._queue.put(item)  # it stays ended
            raise item
        return item

    def close(self) -> None:
        """End it; idempotent."""
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

    def _take(self, message: GatewayAnswer) -> None:
        if "error" in message:
            raise stream_error(message["error"])
        result = message.get("result", {})
        if result.get("canceled") or result.get("compact_revision"):
            compacted = int(result.get("compact_revision", 0))
            reason = result.get("cancel_reason") or (f"compacted up to {compacted}" if compacted else "no reason given")
            raise WatchCanceled(f"{self._endpoint}: watch canceled: {reason}", compact_revision=compacted)
        for event in result.get("events", ()):
            self._queue.put(_event(event))
        if result.get("created"):
            self._created.set()


def _event(event: GatewayEvent) -> WatchEvent:
    prev = event.get("prev_kv")
    return WatchEvent(
        type="delete" if event.get("type") == "DELETE" else "put",
        kv=key_value(event.get("kv", {})),
        prev_kv=key_value(prev) if prev is not None else None,
    )
