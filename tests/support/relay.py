"""A relay of TCP connections on loopback that holds back for a time what the server says.

It has a thread for each direction of a connection and sleeps in `clock_nanosleep`: an event loop waits in epoll, whose
least time is a millisecond, so that a delay of 200 us would be one of 1 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

_PR_SET_TIMERSLACK = 29


@contextlib.contextmanager
def relay(behind: str, delay_s: float | Callable[[float], float]) -> Iterator[str]:
    """Yield the address, ``host:port``, of a relay to an address.

    What the server says arrives ``delay_s`` seconds later, or more where the machine is busy, and never less: so each
    request takes that long. Bytes keep their order, and requests do not wait for each other. The delay may be a
    function of the seconds since the relay's first connection.
    """
    host, _, port = behind.removeprefix("http://").rpartition(":")
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    ends: list[socket.socket] = []
    began: list[float] = []

    def delay() -> float:
        return delay_s(time.monotonic() - began[0]) if callable(delay_s) else delay_s

    def serve() -> None:
        while True:
            try:
                there, _ = listening.accept()
            except OSError:  # closed
                return
            began.append(time.monotonic())
            ends.append(there)
            try:
                back = socket.create_connection((host, int(port)))
            except OSError:
                there.close()
                continue
            ends.append(back)
            for each in (there, back):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_copy, args=(there, back, None), daemon=True).start()
            threading.Thread(target=_copy, args=(back, there, delay), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield "{}:{}".format(*listening.getsockname())
    finally:
        for each in (listening, *ends):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _copy(source: socket.socket, sink: socket.socket, wait: Callable[[], float] | None) -> None:
    """Pass on what comes from one end to the other, so many seconds later, until either is closed."""
    held: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
    if wait:
        threading.Thread(target=_send_late, args=(held, sink), daemon=True).start()
    data = b"-"
    while data:
        try:
            data = source.recv(65_536)
            if wait:
                held.put((time.monotonic() + wait(), data))
            elif data:
                sink.sendall(data)
            else:
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            data = b""
            held.put((0.0, b""))


def _send_late(held: queue.SimpleQueue[tuple[float, bytes]], sink: socket.socket) -> None:
    if sys.platform == "linux":
        # This thread's timers may be late by 50 us otherwise.
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        while (item := held.get())[1]:
            time.sleep(max(0.0, item[0] - time.monotonic()))
            sink.sendall(item[1])
        sink.shutdown(socket.SHUT_WR)
