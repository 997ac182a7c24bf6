"""Watches over one stream, each going on where it was when the connection is lost."""

from __future__ import annotations

import random
from collections import deque
from itertools import count
from time import perf_counter_ns
from typing import TYPE_CHECKING, Unpack
from weakref import WeakSet

import gevent
from google.protobuf.message import DecodeError

from cluster.base.etcd_errors import kind_of
from cluster.base.security import Security
from loadgen.client.call import MALFORMED, Caller
from loadgen.client.channel import Channel
from loadgen.client.connect_errors import CLOSED_HERE, ConnectError
from loadgen.client.kv import DEFINITE
from loadgen.client.login import BAD_TOKEN, is_token_refusal
from loadgen.client.streaming import CANCELLED, StreamingCall
from loadgen.client.watch import COMPACTED, Watch, WatchAnswer, WatchOptions
from loadgen.client.watch_progress import ProgressRequests
from loadgen.proto import etcd_pb2 as pb

if TYPE_CHECKING:
    from loadgen.history.writer import HistoryWriter

WATCH = b"/etcdserverpb.Watch/Watch"
# As the answer to a progress request comes: about all watches of the stream.
_EVERY_WATCH = -1
_FIRST_PAUSE_S = 0.05
# An id that no server chooses: each counts its own from 0 on.
_CHOSEN = 1 << 40
_numbers = count(1)
_LONGEST_PAUSE_S = 2.0


class Watcher:
    """Watches that share one stream. The stream opens with the first watch and closes with the last.

    One creation at a time is open on the stream, as in etcd's own client: a confirmation names the id that the server
    gave, and not the request that it answers, and `etcd grpc-proxy` confirms in another order than it was asked.

    Takes the channel to open it on, and how long an attempt to connect may take in seconds. Where the stream is lost
    it is opened again, on any of the channel's endpoints, and every watch goes on after what it has seen. What goes
    over each stream is recorded in ``history``, if there is one.

    A slow taker holds up the whole stream once 16 MiB wait for it: give such a watch a watcher of its own.

    Attributes: ``watches``, those that have not ended; ``streams``, how many streams there have been; ``closed``.
    """

    def __init__(self, channel: Channel, timeout_s: float, history: HistoryWriter | None = None) -> None:
        self.watches: list[Watch] = []
        self.streams = 0
        self._channel = channel
        self._timeout_s = timeout_s
        self._history = history
        self._number = 0
        self._call: StreamingCall | None = None
        self._to_create: deque[Watch] = deque()
        self._creating: Watch | None = None
        self._open: dict[int, Watch] = {}
        self._progress = ProgressRequests()
        self._reader: gevent.Greenlet | None = None
        self.closed = False

    def watch(self, key: bytes, range_end: bytes = b"", **options: Unpack[WatchOptions]) -> Watch:
        """Watch a key, or the range up to ``range_end``; return at once, see ``Watch.wait_created``."""
        request = pb.WatchCreateRequest(key=key, range_end=range_end, **options)
        watch = Watch(request, self.cancel)
        if self.closed:
            watch.end(CLOSED_HERE)
            return watch
        self.watches.append(watch)
        if self._call is not None:
            self._to_create.append(watch)
            self._create_next(self._call)
        elif self._reader is None:
            self._reader = gevent.spawn(self._run)
        return watch

    def request_progress(self) -> bool:
        """Ask how far the stream is; every watch gets the answer, without events, with id -1. False: no stream."""
        self._progress.asked += 1
        return self._call is not None and self._send(
            self._call, pb.WatchRequest(progress_request=pb.WatchProgressRequest())
        )

    def cancel(self, watch: Watch, cause: str = CANCELLED) -> None:
        """Give up one watch; see ``Watch.cancel``."""
        if watch.error is not None:
            return
        self._finish(watch, cause)
        while watch.inbox.items:
            watch.inbox.items.popleft().release()
        if self._call is not None:
            if not self.watches:
                self._call.cancel()
                self._call = None
            elif self._open.get(watch.id) is watch:
                del self._open[watch.id]
                self._send_cancel(self._call, watch.id)
            # Otherwise it waits for its creation, which is then left out, or for the confirmation, whose reader
            # cancels it.

    def close(self) -> None:
        """End the stream and every watch. May be called again."""
        self.closed = True
        for watch in list(self.watches):
            self.cancel(watch, CLOSED_HERE)
        if self._reader is not None and self._reader is not gevent.getcurrent():
            self._reader.kill(block=False)

    # ---- the stream

    def _run(self) -> None:
        pause = _FIRST_PAUSE_S
        try:
            while self.watches:
                began = perf_counter_ns()
                try:
                    call = self._channel.open(WATCH, self._timeout_s)
                except ConnectError as exc:
                    if exc.cause == CLOSED_HERE:
                        self.close()
                    self._interrupted(self.watches, exc.cause)
                else:
                    with call:
                        self._follow(call)
                if perf_counter_ns() - began > _LONGEST_PAUSE_S * 1e9:
                    pause = _FIRST_PAUSE_S
                if self.watches:
                    gevent.sleep(pause * random.uniform(0.5, 1.0))
                    pause = min(pause * 2, _LONGEST_PAUSE_S)
        finally:
            self._reader = None

    def _follow(self, call: StreamingCall) -> None:
        """Read one stream until it ends."""
        self.streams += 1
        self._number = next(_numbers)
        self._progress = ProgressRequests()
        self._call = call
        try:
            self._to_create = deque(self.watches)
            self._create_next(call)
            while self.watches and (taken := call.take()) is not None:
                message, read_ns = taken
                if self._history is not None:
                    self._history.watch_received(self._number, read_ns, message, self._endpoint(call))
                try:
                    self._on_answer(call, pb.WatchResponse.FromString(message), message, read_ns)
                except DecodeError:
                    call.cancel(MALFORMED)
        finally:
            followed = list(self.watches)
            self._call = self._creating = None
            self._to_create.clear()
            self._open.clear()
            if self._history is not None:
                now, code, why = perf_counter_ns(), max(call.code, 0), call.error or ""
                self._history.watch_ended(self._number, now, code, why, self._endpoint(call))
        error = call.error or "ended by the server"
        if call.stream.answered and call.code in DEFINITE and not self._channel.token_refused(call.stream):
            for watch in followed:
                self._finish(watch, error, call.stream.detail)
        else:
            self._interrupted(followed, error)

    def _interrupted(self, watches: list[Watch], cause: str) -> None:
        now = perf_counter_ns()
        for watch in watches:
            watch.fragments.clear()
            watch.interruptions.append((now, cause))

    def _create_next(self, call: StreamingCall) -> None:
        """Ask for the next watch, where none is being created."""
        while self._creating is None and self._to_create:
            watch = self._to_create.popleft()
            if watch.error is not None:
                continue
            self._creating = watch
            request = pb.WatchRequest(create_request=watch.request)
            request.create_request.start_revision = watch.next_revision
            watch.asked_before = self._progress.asked
            self._send(call, request)

    def _send_cancel(self, call: StreamingCall, watch_id: int) -> None:
        self._send(call, pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=watch_id)))

    def _send(self, call: StreamingCall, request: pb.WatchRequest) -> bool:
        message = request.SerializeToString()
        if self._history is not None:
            self._history.watch_sent(self._number, perf_counter_ns(), message, self._endpoint(call))
        return call.send(message)

    def _endpoint(self, call: StreamingCall) -> int:
        return self._history.endpoint(str(call.endpoint)) if self._history is not None else 0

    def _finish(self, watch: Watch, error: str, reason: str = "") -> None:
        self.watches.remove(watch)
        watch.end(error, reason)

    def _on_answer(self, call: StreamingCall, response: pb.WatchResponse, message: bytes, read_ns: int) -> None:
        if response.created:
            self._on_created(call, response)
            call.consumed(message)
            return
        if response.watch_id == _EVERY_WATCH and not response.canceled:
            call.consumed(message)
            self._progress.told += 1
            for watch in self._open.values():
                if self._progress.is_about(watch.created_here, watch.asked_before, response.header.revision):
                    watch.accept(WatchAnswer(response, read_ns, call, ()))
            return
        found = self._open.get(response.watch_id)
        if found is None:
            call.consumed(message)  # cancelled by us meanwhile
            return
        if response.fragment or found.fragments:
            found.fragments.append((response, message))
            if response.fragment:
                return
            parts, found.fragments = found.fragments, []
            response = parts[0][0]
            response.fragment = False
            for part, _ in parts[1:]:
                response.events.extend(part.events)
            found.accept(WatchAnswer(response, read_ns, call, tuple(raw for _, raw in parts)))
        elif not response.canceled:
            found.accept(WatchAnswer(response, read_ns, call, (message,)))
        else:
            del self._open[response.watch_id]
            found.inbox.put(WatchAnswer(response, read_ns, call, (message,)))
            self._on_cancelled(found, response)

    def _on_created(self, call: StreamingCall, response: pb.WatchResponse) -> None:
        watch, self._creating = self._creating, None
        if watch is None:
            call.cancel(MALFORMED)
            return
        if response.canceled:
            if self._wants_another_token(watch, response):
                call.cancel(BAD_TOKEN)  # and all watches go on over another stream, with another token
            elif watch.error is None:
                self._on_cancelled(watch, response)
        elif watch.error is not None:
            self._send_cancel(call, response.watch_id)
        else:
            watch.id = response.watch_id
            self._open[watch.id] = watch
            watch.confirm(response.header.revision)
        self._create_next(call)

    def _wants_another_token(self, watch: Watch, refusal: pb.WatchResponse) -> bool:
        """Return whether a watch that was refused may be created with another token of the same user.

        etcd 3.5.1 and older deny a watch, too, where the token is bad: one that is denied gets one more try.
        """
        kind = kind_of(refusal.cancel_reason)
        if kind is None or not self._channel.logs_in:
            return False
        denied, watch.denied = watch.denied, watch.denied or kind.name == "PermissionDenied"
        return is_token_refusal(kind.name) or (kind.name == "PermissionDenied" and not denied)

    def _on_cancelled(self, watch: Watch, response: pb.WatchResponse) -> None:
        watch.compact_revision = response.compact_revision
        kind = kind_of(response.cancel_reason)
        error = COMPACTED if response.compact_revision else kind.name if kind else "refused"
        self._finish(watch, error, response.cancel_reason)


def renumbers_watches(endpoint: str, key: bytes, timeout_s: float, security: Security | None = None) -> bool:
    """Return whether whoever answers at an endpoint gives watches ids of its own, as `etcd grpc-proxy` does.

    etcd takes the id that it is asked for, from 3.4 on. Takes a key to watch, the seconds to wait for an answer,
    without which it returns False, and how to reach the endpoint.
    """
    channel = Channel([endpoint], security=security)
    watcher = Watcher(channel, timeout_s)
    try:
        watch = watcher.watch(key, watch_id=_CHOSEN)
        return watch.wait_created(timeout_s) and watch.id != _CHOSEN
    finally:
        watcher.close()
        channel.close()


class WatchCalls(Caller):
    """The Watch service."""

    _watcher: Watcher | None = None
    # Whoever has a watch holds its watcher, too.
    _watchers: WeakSet[Watcher] | None = None

    def watch(self, key: bytes, range_end: bytes = b"", **options: Unpack[WatchOptions]) -> Watch:
        """Watch a key or a range, in the terms of ``Watcher.watch``, over the stream that a client's watches share.

        ``client.at(endpoint).watch(...)`` watches at one member.
        """
        if self._watcher is None:
            self._watcher = self.watcher()
        return self._watcher.watch(key, range_end, **options)

    def watcher(self) -> Watcher:
        """Return a stream for watches of its own."""
        made = Watcher(self.streams(), self._timeout_s, self._history)
        if self._watchers is None:
            self._watchers = WeakSet()
        self._watchers.add(made)
        return made

    def close(self) -> None:
        """Close the connections; call that wait end, and so do watches. May be called again."""
        for each in list(self._watchers or ()):
            each.close()
        super().close()
