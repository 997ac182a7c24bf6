"""Watchers of a chaos run: raw watch streams, whose every message goes into the history as it was sent and as it came.

Each member has one *steady* watcher, of everything the run writes, that goes on where it was when its stream is lost.
*Random watchers* come and go: from now, from the past, from what was just compacted, with filters, with previous
values, cancelled and created again. *Pollers* ask for progress all the time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from time import monotonic, perf_counter_ns
from typing import TypedDict

import gevent

from cluster.base.security import Security
from loadgen.chaos.traffic import SeenStore, Shape
from loadgen.client.channel import Channel
from loadgen.client.connect_errors import ConnectError
from loadgen.client.kv import bytes_prefix_end
from loadgen.client.streaming import StreamingCall
from loadgen.history.writer import HistoryWriter
from loadgen.proto import etcd_pb2 as pb

WATCH = b"/etcdserverpb.Watch/Watch"
_OPEN_S = 5.0
_PAUSE_S = 0.1
_NUDGE_S = 0.1


class WatcherFields(TypedDict, total=False):
    """The fields of a `WatcherOptions`."""

    everywhere: bool
    random_watchers: int
    pollers: int
    poll_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class WatcherOptions:
    """Which watchers a run has.

    Attributes:
        everywhere: whether every worker has a steady watcher at each member, and not one of them.
        random_watchers: at each member.
        pollers: at each member; each also watches everything.
        poll_s: seconds between a poller's requests for progress.
    """

    everywhere: bool = False
    random_watchers: int = 1
    pollers: int = 0
    poll_s: float = 0.1


class Watchers:
    """The watchers of one worker. The members' steady ones are shared out over the workers, by turns.

    Takes the members' endpoints, the traffic's shape, which watchers to have, what the worker knows, where to record
    (None: nowhere), whom to tell of an event that contradicts what was acknowledged, the worker's place in the run, and
    how to reach the members.
    """

    def __init__(
        self, endpoints: Sequence[str], shape: Shape, watching: WatcherOptions, known: SeenStore,
        history: HistoryWriter | None, suspect: Callable[[str], None], *, rank: int, workers: int, seed: int,
        security: Security | None = None,
    ) -> None:  # fmt: skip
        self._shape, self._known, self._history, self._watching = shape, known, history, watching
        self._suspect = suspect
        self._security = security
        self._rng = random.Random(f"watchers/{seed}/{rank}")
        self._endpoints, self._mine = endpoints, [*endpoints][rank::workers]
        self._channels: list[Channel] = []
        self._greenlets: list[gevent.Greenlet] = []
        self._numbers = 0
        self._until = 0
        self._steady: list[Steady] = []

    def start(self) -> None:
        """Start them all."""
        for url in self._endpoints if self._watching.everywhere else self._mine:
            self._add(url, self._steadily)
        for url in self._mine:
            for _ in range(self._watching.random_watchers):
                self._add(url, self._watch_at_random)
            for _ in range(self._watching.pollers):
                self._add(url, self._poll)

    def close(self, revision: int, timeout_s: float) -> None:
        """End them, the steady ones once they have seen the revision or after so many seconds."""
        deadline = monotonic() + timeout_s
        while monotonic() < deadline and any(each.seen < revision for each in self._steady):
            for each in self._steady:
                each.nudge()
            gevent.sleep(_NUDGE_S)
        gevent.killall(self._greenlets)
        for channel in self._channels:
            channel.close()

    def _add(self, url: str, body: Callable[[Channel], None]) -> None:
        channel = Channel([url], security=self._security)
        self._channels.append(channel)
        self._greenlets.append(gevent.spawn(body, channel))

    def _steadily(self, channel: Channel) -> None:
        steady = Steady()
        self._steady.append(steady)
        while True:
            with self._stream(channel) as stream:
                if stream is not None:
                    self._follow(stream, steady)
            gevent.sleep(_PAUSE_S)

    def _follow(self, stream: Stream, steady: Steady) -> None:
        steady.stream = stream
        try:
            start = steady.seen + 1 if steady.seen else 1
            self._create(stream, pb.WatchCreateRequest(start_revision=start, prev_kv=True, progress_notify=True))
            while (answer := stream.receive()) is not None:
                if answer.events:
                    steady.seen = answer.events[-1].kv.mod_revision
                    for event in answer.events:
                        if self._known.contradicts(event):
                            key, revision = event.kv.key.decode("latin-1"), event.kv.mod_revision
                            self._suspect(f"a watch got {key} as revision {revision}, which another put was promised")
                elif answer.canceled:
                    steady.seen = max(steady.seen, answer.compact_revision - 1)
                    return
                elif not answer.created:
                    steady.seen = max(steady.seen, answer.header.revision)
        finally:
            steady.stream = None

    def _watch_at_random(self, channel: Channel) -> None:
        rng = self._rng
        while True:
            with self._stream(channel) as stream:
                while stream is not None and not stream.ended:
                    for _ in range(rng.randint(1, 3)):
                        self._create(stream, self._drawn())
                    self._listen(stream, rng.uniform(0.2, 2.0))
                    if rng.random() < 0.3:
                        break
                    for watch_id in list(stream.open):
                        stream.send(pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=watch_id)))
                    self._listen(stream, 0.2)
            gevent.sleep(_PAUSE_S)

    def _drawn(self) -> pb.WatchCreateRequest:
        """Return the request of a random watch."""
        rng, known, shape = self._rng, self._known, self._shape
        start = rng.choice((0, 0, known.fence, known.fence + 1, max(1, known.revision - rng.randint(0, 200))))
        filters = rng.choice(((), (), (pb.WatchCreateRequest.NOPUT,), (pb.WatchCreateRequest.NODELETE,)))
        made = pb.WatchCreateRequest(
            start_revision=max(0, start), filters=filters, prev_kv=rng.random() < 0.5,
            progress_notify=rng.random() < 0.3, fragment=rng.random() < 0.2,
        )  # fmt: skip
        if rng.random() < 0.5:
            first = rng.randrange(shape.keys)
            made.key, made.range_end = shape.key(first), shape.key(first + 20) if rng.random() < 0.5 else b""
        return made

    def _listen(self, stream: Stream, for_s: float) -> None:
        until = monotonic() + for_s
        nudged = monotonic()
        while not stream.ended and (left := until - monotonic()) > 0:
            stream.receive(min(left, 0.1))
            if monotonic() - nudged > 0.3:
                nudged = monotonic()
                stream.send(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    def _poll(self, channel: Channel) -> None:
        progress = pb.WatchRequest(progress_request=pb.WatchProgressRequest())
        while True:
            with self._stream(channel) as stream:
                if stream is not None:
                    start = self._known.revision + 1 if self._known.revision else 0
                    self._create(stream, pb.WatchCreateRequest(start_revision=start))
                    reader = gevent.spawn(_drain, stream)
                    try:
                        while not stream.ended:
                            stream.send(progress)
                            gevent.sleep(self._watching.poll_s)
                    finally:
                        reader.kill()
            gevent.sleep(_PAUSE_S)

    def _create(self, stream: Stream, request: pb.WatchCreateRequest) -> None:
        """Ask for a watch, of all the run's keys where the request names none."""
        if not request.key:
            request.key, request.range_end = self._shape.prefix, bytes_prefix_end(self._shape.prefix)
        stream.create(request)

    @contextlib.contextmanager
    def _stream(self, channel: Channel) -> Iterator[Stream | None]:
        """Yield a new stream, recorded to its end; None where the member cannot be reached."""
        try:
            call = channel.open(WATCH, _OPEN_S)
        except ConnectError:
            yield None
            return
        self._numbers += 1
        stream = Stream(call, self._history, self._numbers)
        try:
            yield stream
        finally:
            stream.close()


class Steady:
    """How far a member's steady watcher is: ``seen``, the newest revision of which it has seen everything."""

    def __init__(self) -> None:
        self.seen = 0
        self.stream: Stream | None = None

    def nudge(self) -> None:
        """Ask the member for its progress."""
        if self.stream is not None:
            self.stream.send(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))


class Stream:
    """One watch stream, recorded message by message. ``open`` holds the ids of its watches.

    One creation at a time is open: a confirmation does not say which request it answers, and `etcd grpc-proxy` answers
    in another order than it was asked. So the history says which watch is which.
    """

    def __init__(self, call: StreamingCall, history: HistoryWriter | None, number: int) -> None:
        self._call, self._history, self._number = call, history, number
        self._endpoint = history.endpoint(str(call.endpoint)) if history is not None else 0
        self.open: set[int] = set()
        self._to_create: deque[pb.WatchCreateRequest] = deque()
        self._creating = False

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return bool(self._call.ended)

    def create(self, request: pb.WatchCreateRequest) -> None:
        """Ask for a watch, once those that were asked for before are there."""
        self._to_create.append(request)
        self._create_next()

    def _create_next(self) -> None:
        if self._to_create and not self._creating:
            self._creating = True
            self.send(pb.WatchRequest(create_request=self._to_create.popleft()))

    def send(self, request: pb.WatchRequest) -> None:
        """Send a request; nothing where the stream has ended."""
        message = request.SerializeToString()
        if self._history is not None and not self._call.ended:
            self._history.watch_sent(self._number, perf_counter_ns(), message, self._endpoint)
        self._call.send(message)

    def receive(self, timeout_s: float | None = None) -> pb.WatchResponse | None:
        """Return the next answer; None where the stream has ended, or after so many seconds."""
        taken = self._call.receive(timeout_s)
        if taken is None:
            return None
        message, read_ns = taken
        if self._history is not None:
            self._history.watch_received(self._number, read_ns, message, self._endpoint)
        answer = pb.WatchResponse.FromString(message)
        if answer.created:
            self._creating = False
            self._create_next()
        if answer.canceled:
            self.open.discard(answer.watch_id)
        elif answer.created:
            self.open.add(answer.watch_id)
        return answer

    def close(self) -> None:
        """Give the stream up where it has not ended, and record its end."""
        self._call.cancel()
        if self._history is not None:
            self._history.watch_ended(
                self._number, perf_counter_ns(), max(0, self._call.code), self._call.error or "", self._endpoint
            )


def _drain(stream: Stream) -> None:
    while stream.receive() is not None:
        pass
