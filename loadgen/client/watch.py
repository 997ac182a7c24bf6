"""One watch, from its reader's side.

Source: etcd's API (Watch service, "Watch API guarantees": ordered, atomic, resumable, bookmarkable).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypedDict

import gevent
import gevent.event

from cluster.base.etcd_errors import KINDS
from loadgen.client.mailbox import Mailbox
from loadgen.client.streaming import CANCELLED, KILLED, StreamingCall
from loadgen.proto import etcd_pb2 as pb

COMPACTED = KINDS["Compacted"].name
NOPUT, NODELETE = pb.WatchCreateRequest.NOPUT, pb.WatchCreateRequest.NODELETE


class WatchOptions(TypedDict, total=False):
    """What ``WatchCreateRequest`` takes beside the range.

    ``start_revision`` 0: what is written after the server created the watch. ``prev_kv``: with what each event
    replaced. ``progress_notify``: an answer without events now and then. ``filters``: ``NOPUT``, ``NODELETE``.
    ``watch_id`` 0: the server chooses. ``fragment``: the server may split what is larger than its message limit.
    """

    start_revision: int
    prev_kv: bool
    progress_notify: bool
    filters: Sequence[pb.WatchCreateRequest.FilterType]
    watch_id: int
    fragment: bool


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
        """Let the server send as much again."""
        for message in self.raw:
            self._call.consumed(message)


class Watch:
    """One watch, from ``EtcdClient.watch``: iterate over it, or call ``next``, in one greenlet.

    Every event from the start revision on comes once, in order, whatever becomes of connections and members. It ends
    when it is cancelled, when what it has not seen is compacted, or when the server refuses it.

    Attributes:
        request: the ``WatchCreateRequest``; where it goes on after a loss is ``next_revision``.
        id: the id on its stream; -1 before the server gave it one.
        created_revision: the store's revision when the server first confirmed it; 0 before that.
        next_revision: the first revision that it has not seen; 0 before it was created.
        interruptions: when (monotonic nanoseconds) and why its stream was lost, each time.
        error: why it ended: ``cancelled``, ``Compacted``, ``killed``, ``client closed`` or the error's name; None while
            it lives.
        reason: the server's own words for it, for people.
        compact_revision: with ``Compacted``: the oldest revision that can be watched from.
    """

    def __init__(self, request: pb.WatchCreateRequest, give_up: Callable[[Watch, str], None]) -> None:
        self.request = request
        self.id = -1
        self.created_revision = 0
        self.next_revision = request.start_revision
        self.interruptions: list[tuple[int, str]] = []
        self.error: str | None = None
        self.reason = ""
        self.compact_revision = 0
        # It was refused as one that the user may not have, once.
        self.denied = False
        self.fragments: list[tuple[pb.WatchResponse, bytes]] = []
        # On the present stream: the store's revision at its creation, and requests for progress sent before it.
        self.created_here = self.asked_before = 0
        self.inbox: Mailbox[WatchAnswer] = Mailbox()
        self._give_up = give_up
        self._created = gevent.event.Event()

    def __iter__(self) -> Iterator[WatchAnswer]:
        while (answer := self.next()) is not None:
            yield answer

    def next(self, timeout_s: float | None = None) -> WatchAnswer | None:
        """Return the next answer, with its events; None once it has ended, or after ``timeout_s`` seconds.

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
        """Wait until the server has confirmed the watch; return whether it has, within so many seconds."""
        self._created.wait(timeout_s)
        return self.created_revision > 0

    def cancel(self, cause: str = CANCELLED) -> None:
        """Give the watch up at once, with what has not been taken of it. May be called again."""
        self._give_up(self, cause)

    # ---- from the watcher

    def confirm(self, revision: int) -> None:
        """Take the store's revision at which the server created it, here or anew."""
        self.created_here = revision
        if not self.next_revision:
            self.next_revision = revision + 1
        if not self.created_revision:
            self.created_revision = revision
            self._created.set()

    def accept(self, answer: WatchAnswer) -> None:
        """Take an answer that is whole."""
        events = answer.response.events
        if events:
            self.next_revision = events[-1].kv.mod_revision + 1
        else:
            # A progress notification: everything up to there has been sent.
            self.next_revision = max(self.next_revision, answer.response.header.revision + 1)
        self.inbox.put(answer)

    def end(self, error: str, reason: str = "") -> None:
        """Take why nothing more comes."""
        self.error, self.reason = error, reason
        self.inbox.end()
        self._created.set()
