"""Workers as their master hears them: what real ones send, recorded on the way, and played by simulated ones.

A `Tape` is what one real worker sent from the beginning of its run, with the times. A simulated worker has a name and a
connection of its own; it says hello, answers the questions about its clock and the order to begin, sends a heartbeat a
second, and sends its tape's reports when their time has come, with the prefix of its own run and the times moved to it.
"""

from __future__ import annotations

import copy
import dataclasses
import select
import socket
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from threading import Event, Thread
from typing import Any

import msgpack
import zmq

from loadgen.load.protocol import BEGUN, CLOCK, DONE, HELLO
from loadgen.stats.series import TICK_NS

# What a tape has of the messages of a run; a simulated worker makes the others itself.
PLAYED = ("stats", "spawning_complete", "logs", DONE.name, "client_stopped", "client_ready")
HEARTBEAT_S = 1.0


def unpack(data: bytes) -> list[Any]:
    """Return a message of Locust's: its type, its data, and the client id."""
    message: list[Any] = msgpack.unpackb(data, raw=False, strict_map_key=False)
    return message


@dataclasses.dataclass
class Tape:
    """What one worker sent.

    Attributes:
        hello: its `Hello`.
        heartbeat: the data of one of its heartbeats.
        began_ns: its wall clock at the run's begin, in nanoseconds since 1970.
        messages: seconds since then, the type and the data of each message; infinite seconds after the order to stop.
    """

    hello: dict[str, Any] = dataclasses.field(default_factory=dict)
    heartbeat: dict[str, Any] = dataclasses.field(default_factory=dict)
    began_ns: int = 0
    messages: list[tuple[float, str, Any]] = dataclasses.field(default_factory=list)
    stopped: bool = False
    quitted: bool = False

    def up(self, data: bytes) -> None:
        """Take a message of the worker to its master."""
        kind, payload, _ = unpack(data)
        if kind == HELLO.name:
            self.hello = payload
        elif kind == "heartbeat":
            self.heartbeat = payload
        elif kind == BEGUN.name:
            self.began_ns = time.time_ns()
        elif kind in PLAYED and self.began_ns and not self.quitted:
            at_s = float("inf") if self.stopped else (time.time_ns() - self.began_ns) / 1e9
            self.messages.append((at_s, kind, payload))

    def down(self, data: bytes) -> None:
        """Take a message of the master to the worker."""
        kind = unpack(data)[0]
        self.stopped |= kind == "stop"
        self.quitted |= kind == "quit"

    @property
    def totals(self) -> dict[str, int]:
        """How many operations of each type its last report has, failed ones among them."""
        last = next(data for _, kind, data in reversed(self.messages) if kind == "stats" and "raftload" in data)
        return {f: row["succeeded"] + row["failed"] for f, row in last["raftload"]["totals"].items()}

    @property
    def reports(self) -> int:
        """How many reports there are."""
        return sum(kind == "stats" for _, kind, _ in self.messages)

    @property
    def report_bytes(self) -> float:
        """The mean size of a report."""
        sizes = [len(msgpack.packb(data)) for _, kind, data in self.messages if kind == "stats"]
        return sum(sizes) / len(sizes)

    def moved(self, now_ns: int, prefix: str) -> list[tuple[float, bytes]]:
        """Return when to send what, all but the client id that ends a message, for a run that begins now."""
        ticks = (now_ns - self.began_ns) // TICK_NS
        packed = []
        for at_s, kind, data in self.messages:
            if kind == "stats" and "raftload" in data:
                packed.append((at_s, _start_of(kind, _moved(data, ticks, prefix))))
            else:
                packed.append((at_s, _start_of(kind, data)))
        return packed


def _moved(report: dict[str, Any], ticks: int, prefix: str) -> dict[str, Any]:
    """Return a report of another run, so many ticks later."""
    report = copy.deepcopy(report)
    report["raftload"]["prefix"] = prefix
    for row in report["raftload"]["totals"].values():
        if row["last_return_ns"]:
            row["first_call_ns"] += ticks * TICK_NS
            row["last_return_ns"] += ticks * TICK_NS
    for series in ("raftload_series", "raftload_service"):
        for rows in report[series].values():
            for row in rows:
                row[0] += ticks
    return report


def _start_of(kind: str, data: object) -> bytes:
    """Return a message but for its last part, the client id."""
    start: bytes = b"\x93" + msgpack.packb(kind) + msgpack.packb(data)
    return start


@contextmanager
def recording(port: int, master_port: int) -> Iterator[dict[bytes, Tape]]:
    """Pass everything on between the workers that come to a port and the master at another; yield their tapes by id."""
    context = zmq.Context()
    context.setsockopt(zmq.LINGER, 0)
    front = context.socket(zmq.ROUTER)
    front.bind(f"tcp://127.0.0.1:{port}")
    tapes: dict[bytes, Tape] = {}
    ended = Event()

    def pass_on() -> None:
        poller = zmq.Poller()
        poller.register(front, zmq.POLLIN)
        backs: dict[Any, bytes] = {}
        ways: dict[bytes, Any] = {}
        while not ended.is_set():
            for ready, _ in poller.poll(100):
                if ready is front:
                    name, data = front.recv_multipart()
                    if name not in ways:
                        back = ways[name] = context.socket(zmq.DEALER)
                        back.setsockopt(zmq.IDENTITY, name)
                        back.connect(f"tcp://127.0.0.1:{master_port}")
                        backs[back], tapes[name] = name, Tape()
                        poller.register(back, zmq.POLLIN)
                    tapes[name].up(data)
                    ways[name].send(data)
                else:
                    data = ready.recv()
                    tapes[backs[ready]].down(data)
                    front.send_multipart([backs[ready], data])

    thread = Thread(target=pass_on)
    thread.start()
    try:
        yield tapes
    finally:
        ended.set()
        thread.join()
        front.close()
        context.term()


class _Simulated:
    """One simulated worker."""

    def __init__(self, number: int, tape: Tape, made: Any) -> None:
        self.number = number
        self.name = f"{socket.gethostname()}_{uuid.uuid4().hex}"
        self.tail: bytes = msgpack.packb(self.name)
        self.tape = tape
        self.socket = made
        self.asked: deque[float] = deque()
        self.queue: deque[tuple[float, bytes]] = deque()
        self.began_at = self.answered_at = 0.0
        self.stopped = self.quitted = False

    def send(self, kind: str, data: object) -> None:
        self.socket.send(msgpack.packb((kind, data, self.name)))


@dataclasses.dataclass
class Played:
    """What became of simulated workers.

    Attributes:
        waits_ms: from each heartbeat of a run to the master's answer to it, in milliseconds.
        late_ms: how late they sent what they had to.
        silent_s: the longest time in which one heard nothing of the master; after 10 s a real one ends.
        unanswered: heartbeats without an answer when the master said stop.
        began_at, stopped_at: when the first was told to begin, and the first to stop, on the monotonic clock.
        told_s: from the first to the last order to begin.
    """

    waits_ms: list[float] = dataclasses.field(default_factory=list)
    late_ms: list[float] = dataclasses.field(default_factory=list)
    silent_s: float = 0.0
    unanswered: int = 0
    began_at: float = 0.0
    stopped_at: float = 0.0
    told_s: float = 0.0


class Players:
    """Simulated workers of one process. Takes their numbers, the tapes in turns for them, and the master's port."""

    def __init__(self, numbers: range, tapes: list[Tape], port: int) -> None:
        self.played = Played()
        self._port = port
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, len(numbers) + 10)
        self._workers: dict[int, _Simulated] = {}
        # Due times, in a heap: when, a number that decides between equal ones, who, and what: a heartbeat or None.
        self._due: list[tuple[float, int, _Simulated, bool]] = []
        self._count = 0
        self._moved: dict[int, list[tuple[float, bytes]]] = {}
        self._epoll = select.epoll()
        for number in numbers:
            made = self._context.socket(zmq.DEALER)
            worker = _Simulated(number, tapes[number % len(tapes)], made)
            made.setsockopt(zmq.IDENTITY, worker.name.encode())
            made.setsockopt(zmq.SNDHWM, 0)
            made.connect(f"tcp://127.0.0.1:{port}")
            self._workers[made.fd] = worker
            self._epoll.register(made.fd, select.EPOLLIN)

    def play(self, timeout_s: float) -> Played:
        """Work until the master has told all to quit. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        for worker in self._workers.values():
            worker.send("client_ready", -1)
            worker.send(HELLO.name, {**worker.tape.hello, "pid": 1_000_000 + worker.number})
            # As with real ones, their heartbeats are spread over a second.
            self._plan(time.monotonic() + worker.number % 97 / 97, worker, is_heartbeat=True)
        for worker in self._workers.values():
            self._receive(worker)
        while not all(worker.quitted for worker in self._workers.values()):
            now = time.monotonic()
            if now > deadline:
                raise TimeoutError(f"{sum(not w.quitted for w in self._workers.values())} workers were not let go")
            wait_s = min(0.1, max(0.0, self._due[0][0] - now)) if self._due else 0.1
            for fd, _ in self._epoll.poll(wait_s):
                self._receive(self._workers[fd])
            while self._due and self._due[0][0] <= (now := time.monotonic()):
                at, _, worker, is_heartbeat = heappop(self._due)
                self._send_due(worker, at, now, is_heartbeat=is_heartbeat)
        self._context.destroy(linger=1000)
        return self.played

    def _plan(self, at: float, worker: _Simulated, *, is_heartbeat: bool) -> None:
        self._count += 1
        heappush(self._due, (at, self._count, worker, is_heartbeat))

    def _send_due(self, worker: _Simulated, at: float, now: float, *, is_heartbeat: bool) -> None:
        if worker.quitted:
            return
        if is_heartbeat:
            worker.asked.append(now)
            worker.send("heartbeat", worker.tape.heartbeat)
            self._plan(at + HEARTBEAT_S, worker, is_heartbeat=True)
        elif not worker.stopped and worker.queue:
            worker.socket.send(worker.queue.popleft()[1] + worker.tail)
            self._plan_next(worker)
        if worker.began_at and not worker.stopped:
            self.played.late_ms.append(1000 * (now - at))
        # What has come in the meantime is not told again.
        self._receive(worker)

    def _plan_next(self, worker: _Simulated) -> None:
        if worker.queue and worker.queue[0][0] != float("inf"):
            self._plan(worker.began_at + worker.queue[0][0], worker, is_heartbeat=False)

    def _receive(self, worker: _Simulated) -> None:
        while True:
            try:
                data = worker.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            kind, payload, _ = unpack(data)
            if kind == "heartbeat" and worker.asked:
                asked, now = worker.asked.popleft(), time.monotonic()
                if worker.began_at and asked > worker.began_at and not worker.stopped:
                    self.played.waits_ms.append(1000 * (now - asked))
                    self.played.silent_s = max(self.played.silent_s, now - worker.answered_at)
                worker.answered_at = now
            elif kind == CLOCK.name:
                worker.send(CLOCK.name, {"sent": payload["sent"], "there": time.time_ns()})
            elif kind == "spawn":
                self._begin(worker, payload)
            elif kind == "stop":
                self._stop(worker)
            elif kind == "quit":
                worker.quitted = True

    def _begin(self, worker: _Simulated, order: dict[str, Any]) -> None:
        worker.send("spawning", None)
        if worker.began_at:
            return
        prefix = order["parsed_options"]["key_prefix"]
        tape = id(worker.tape)
        if tape not in self._moved:
            self._moved[tape] = worker.tape.moved(time.time_ns(), prefix)
        worker.queue.extend(self._moved[tape])
        worker.began_at = worker.answered_at = time.monotonic()
        self.played.began_at = self.played.began_at or worker.began_at
        self.played.told_s = worker.began_at - self.played.began_at
        worker.send(BEGUN.name, {"prefix": prefix})
        self._plan_next(worker)

    def _stop(self, worker: _Simulated) -> None:
        self.played.stopped_at = self.played.stopped_at or time.monotonic()
        self.played.unanswered += len(worker.asked)
        worker.stopped = True
        while worker.queue:
            worker.socket.send(worker.queue.popleft()[1] + worker.tail)
