"""Watches: many over one stream, each from a revision on, going on where they were when the connection is lost.

Source: etcd's API (Watch service, "Watch API guarantees": ordered, atomic, resumable, bookmarkable).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from time import perf_counter_ns

import gevent
import gevent.event
from google.protobuf.message import DecodeError

from loadgen.causes import CLOSED_HERE, ConnectError
from loadgen.channel import Channel
from loadgen.kv import DEFINITE
from loadgen.mailbox import Mailbox
from loadgen.proto import etcd_pb2 as pb
from loadgen.streaming import CANCELLED, KILLED, StreamingCall

WATCH = b"/etcdserverpb.Watch/Watch"
COMPACTED = "compacted"
MALFORMED = "malformed answer"
NOPUT, NODELETE = pb.WatchCreateRequest.NOPUT, pb.WatchCreateRequest.NODELETE
# As the answer to a progress request comes: about all watches of the stream.
_EVERY_WATCH = -1
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


class WatchAnswer:
    """One answer of a watch: events, or progress, or the end.

    Attributes:
        response: a ``WatchResponse``, put together from its fragments; ``header.member_id`` is who sent it.
        read_ns: when its last byte was read from the socket, on the monotonic clock.
        endpoint: where it came from, as a URL.
        raw: its bytes as they came, one item for each fragment.
    """

    __slots__ = ("_call", "endpoint", "raw", "read_ns", "response")

    def __init__(self, response: pb.WatchResponse, read_ns: int, call: StreamingCall, raw: tuple[bytes, ...]) -> None:
        self.response = response
        self.read_ns = read_ns
        self.endpoint = str(call.endpoint)
        self.raw = raw
        self._call = call

    def release(self) -> None:
        """Lets the server send as much again."""
        for message in self.raw:
            self._call.consumed(message)


class Watch:
    """One watch, from ``Watcher.watch``: iterate over it, or call ``next``, in one greenlet.

    Every event from the start revision on comes once, in order, whatever becomes of connections and members. It ends
    when it is cancelled, when what it has not seen is compacted, or when the server refuses it.

    Attributes:
        request: the ``WatchCreateRequest``; where it goes on after a loss is ``next_revision``.
        id: the id on its stream; -1 before the server gave it one.
        created_revision: the store's revision when the server first confirmed it; 0 before that.
        next_revision: the first revision that it has not seen; 0 before it was created.
        interruptions: when (monotonic nanoseconds) and why its stream was lost, each time.
        error: why it ended: ``cancelled``, ``compacted``, ``killed``, ``client closed`` or the status's name; None
            while it lives.
        reason: the server's own words for it, for people.
        compact_revision: with ``compacted``: the oldest revision that can be watched from.
    """

    def __init__(self, watcher: Watcher, request: pb.WatchCreateRequest) -> None:
        self.request = request
        self.id = -1
        self.created_revision = 0
        self.next_revision = request.start_revision
        self.interruptions: list[tuple[int, str]] = []
        self.error: str | None = None
        self.reason = ""
        self.compact_revision = 0
        self.fragments: list[tuple[pb.WatchResponse, bytes]] = []
        self.inbox: Mailbox[WatchAnswer] = Mailbox()
        self._watcher = watcher
        self._created = gevent.event.Event()

    def __iter__(self) -> Iterator[WatchAnswer]:
        while (answer := self.next()) is not None:
            yield answer

    def next(self, timeout_s: float | None = None) -> WatchAnswer | None:
        """Returns the next answer, with its events; None once it has ended, or after ``timeout_s`` seconds.

        ``error`` tells the two apart. A greenlet killed while it waits here gives the watch up.
        """
        try:
            answer = self.inbox.take(timeout_s)
        except gevent.Timeout:
            raise
        except BaseException:
            self.cancel(KILLED)
            raise
        if answer is not None:
            answer.release()
        return answer

    def wait_created(self, timeout_s: float | None = None) -> bool:
        """Waits until the server has confirmed the watch; returns whether it has, within so many seconds."""
        self._created.wait(timeout_s)
        return self.created_revision > 0

    def cancel(self, cause: str = CANCELLED) -> None:
        """Gives the watch up at once, with what has not been taken of it. May be called again."""
        self._watcher.cancel(self, cause)

    # ---- from the watcher

    def confirm(self, revision: int) -> None:
        """Takes the store's revision at which the server created it, here or anew."""
        if not self.next_revision:
            self.next_revision = revision + 1
        if not self.created_revision:
            self.created_revision = revision
            self._created.set()

    def accept(self, answer: WatchAnswer) -> None:
        """Takes an answer that is whole."""
        events = answer.response.events
        if events:
            self.next_revision = events[-1].kv.mod_revision + 1
        else:
            # A progress notification: everything up to there has been sent.
            self.next_revision = max(self.next_revision, answer.response.header.revision + 1)
        self.inbox.put(answer)

    def end(self, error: str, reason: str = "") -> None:
        """Takes why nothing more comes."""
        self.error, self.reason = error, reason
        self.inbox.end()
        self._created.set()


class Watcher:
    """Watches that share one stream. The stream opens with the first watch and closes with the last.

    Takes the channel to open it on, and how long an attempt to connect may take in seconds. Where the stream is lost
    it is opened again, on any of the channel's endpoints, and every watch goes on after what it has seen.

    A slow taker holds up the whole stream once 16 MiB wait for it: give such a watch a watcher of its own.

    Attributes: ``watches``, those that have not ended; ``streams``, how many streams there have been.
    """

    def __init__(self, channel: Channel, timeout_s: float) -> None:
        self.watches: list[Watch] = []
        self.streams = 0
        self._channel = channel
        self._timeout_s = timeout_s
        self._call: StreamingCall | None = None
        self._creating: deque[Watch] = deque()
        self._open: dict[int, Watch] = {}
        self._reader: gevent.Greenlet | None = None
        self._closed = False

    def watch(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        start_revision: int = 0,
        prev_kv: bool = False,
        progress_notify: bool = False,
        fragment: bool = False,
        filters: Sequence[pb.WatchCreateRequest.FilterType] = (),
        watch_id: int = 0,
    ) -> Watch:
        """Watches a key, or the range up to ``range_end``; returns at once, see ``Watch.wait_created``.

        ``start_revision`` 0: what is written after the server created it. ``filters``: ``NOPUT``, ``NODELETE``.
        ``watch_id`` 0: the server chooses. ``fragment`` lets the server split what is larger than its message limit.
        """
        request = pb.WatchCreateRequest(
            key=key,
            range_end=range_end,
            start_revision=start_revision,
            prev_kv=prev_kv,
            progress_notify=progress_notify,
            fragment=fragment,
            filters=filters,
            watch_id=watch_id,
        )
        watch = Watch(self, request)
        if self._closed:
            watch.end(CLOSED_HERE)
            return watch
        self.watches.append(watch)
        if self._call is not None:
            self._create(self._call, watch)
        elif self._reader is None:
            self._reader = gevent.spawn(self._run)
        return watch

    def request_progress(self) -> bool:
        """Asks how far the stream is; every watch gets the answer, without events, with id -1. False: no stream."""
        return self._call is not None and self._call.send(
            pb.WatchRequest(progress_request=pb.WatchProgressRequest()).SerializeToString()
        )

    def cancel(self, watch: Watch, cause: str = CANCELLED) -> None:
        """Gives up one watch; see ``Watch.cancel``."""
        if watch.error is not None:
            return
        self._finish(watch, cause)
        while watch.inbox.items:
            watch.inbox.items.popleft().release()
        if self._call is not None:
            # One that is being created is cancelled by whoever reads its confirmation.
            if self._open.get(watch.id) is watch:
                del self._open[watch.id]
                self._send_cancel(self._call, watch.id)
            if not self.watches:
                self._call.cancel()
                self._call = None

    def close(self) -> None:
        """Ends the stream and every watch. May be called again."""
        self._closed = True
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
        """Reads one stream until it ends."""
        self.streams += 1
        self._call = call
        try:
            for watch in list(self.watches):
                self._create(call, watch)
            while self.watches and (taken := call.take()) is not None:
                message, read_ns = taken
                try:
                    self._on_answer(call, pb.WatchResponse.FromString(message), message, read_ns)
                except DecodeError:
                    call.cancel(MALFORMED)
        finally:
            followed = [watch for watch in (*self._open.values(), *self._creating) if watch.error is None]
            self._call = None
            self._creating.clear()
            self._open.clear()
        error = call.error or "ended by the server"
        if call.stream.answered and call.code in DEFINITE:
            for watch in followed:
                self._finish(watch, error, call.stream.detail)
        else:
            self._interrupted(followed, error)

    def _interrupted(self, watches: list[Watch], cause: str) -> None:
        now = perf_counter_ns()
        for watch in watches:
            watch.fragments.clear()
            watch.interruptions.append((now, cause))

    def _create(self, call: StreamingCall, watch: Watch) -> None:
        request = pb.WatchRequest(create_request=watch.request)
        request.create_request.start_revision = watch.next_revision
        self._creating.append(watch)
        call.send(request.SerializeToString())

    def _send_cancel(self, call: StreamingCall, watch_id: int) -> None:
        call.send(pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=watch_id)).SerializeToString())

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
            for watch in self._open.values():
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
        # The server confirms in the order in which it was asked.
        if not self._creating:
            call.cancel(MALFORMED)
            return
        watch = self._creating.popleft()
        if response.canceled:
            if watch.error is None:
                self._on_cancelled(watch, response)
        elif watch.error is not None:
            self._send_cancel(call, response.watch_id)
        else:
            watch.id = response.watch_id
            self._open[watch.id] = watch
            watch.confirm(response.header.revision)

    def _on_cancelled(self, watch: Watch, response: pb.WatchResponse) -> None:
        watch.compact_revision = response.compact_revision
        self._finish(watch, COMPACTED if response.compact_revision else "refused", response.cancel_reason)


__all__ = ["COMPACTED", "NODELETE", "NOPUT", "WATCH", "Watch", "WatchAnswer", "Watcher"]
