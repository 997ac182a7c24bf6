"""A TCP relay on the links between members, where they can be cut, delayed and made lossy.

Every member is reached by its peers through a port of the relay's. Who calls is read from the first request on a
connection: etcd says so in ``X-Server-From`` wherever Raft is spoken. What a link does to the bytes is what a network
does to a TCP connection, which loses nothing but time:

- cut: nothing passes, connections stay; what was sent arrives after the cut, or its sender gives up;
- delay: everything passes that much later, in order;
- drop: a share of the pieces is lost and comes again after TCP's retransmission time, 200 ms and doubling; what is
  behind it waits.

Where members speak TLS to each other, the relay does so to both ends, with their certificate: else it could not read
who calls. It runs in a thread with an event loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import re
import select
import selectors
import ssl
import sys
import threading
from collections.abc import Mapping

from cluster.base.topology import ServerTls

_FROM = re.compile(rb"\r\nx-server-from: *([0-9a-f]+)", re.IGNORECASE)
_PIECE = 65536
_RETRANSMIT_S = 0.2
_TICK_S = 0.02
_START_S = 10.0
# FD_SETSIZE: select takes no file descriptor from here on.
_SELECTABLE = 1024


@dataclasses.dataclass(slots=True)
class LinkState:
    """What is done to the links of one member."""

    cut: bool = False
    delay_s: float = 0.0
    jitter_s: float = 0.0
    drop: float = 0.0

    @property
    def is_disturbed(self) -> bool:
        """Whether anything but a cut is done."""
        return self.delay_s > 0 or self.drop > 0


_UNDISTURBED = LinkState()


def hold_back(ends: tuple[LinkState, LinkState], rng: random.Random) -> float:
    """Return by how many seconds a piece is late on a link between two members. Takes the state of both ends' links."""
    late = 0.0
    for end in ends:
        if end.delay_s:
            late += max(0.0, end.delay_s + rng.uniform(-end.jitter_s, end.jitter_s))
        wait = _RETRANSMIT_S
        while end.drop and rng.random() < end.drop and wait < 60:
            late += wait
            wait *= 2
    return late


def _contexts(tls: ServerTls) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts for the side of the caller and for that of the called member."""
    made = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(tls.peer_ca)
        context.load_cert_chain(str(tls.peer_cert), tls.peer_key)
        made.append(context)
    return made[0], made[1]


def _event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose timers are late by 100 to 150 us where the machine is idle.

    epoll waits for whole milliseconds, so that a delay of 200 us would be one of more than 1 ms; select does not.
    """
    if sys.platform != "linux" or not hasattr(selectors, "EpollSelector"):  # gevent takes it away
        return asyncio.new_event_loop()

    class Exact(selectors.EpollSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0 and self.fileno() < _SELECTABLE:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)

    return asyncio.SelectorEventLoop(Exact())


class PeerRelay:
    """Relays to every member; close it."""

    def __init__(
        self, routes: Mapping[str, tuple[int, int]], seed: int | None = None, tls: ServerTls | None = None
    ) -> None:
        """Listen on 127.0.0.1.

        Takes for each member the port on which its peers reach it and the one on which it listens, and how members
        speak TLS to each other. Raises OSError where a port is taken.
        """
        self._as_server: ssl.SSLContext | None = None
        self._as_client: ssl.SSLContext | None = None
        if tls is not None and tls.peer_cert is not None:
            self._as_server, self._as_client = _contexts(tls)
        self._routes = dict(routes)
        self._link_states = {name: LinkState() for name in routes}
        self._ids: dict[int, str] = {}
        self._rng = random.Random(seed)
        self._loop = _event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="peer-relay", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_START_S)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all connections and the thread; idempotent."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def know(self, ids: Mapping[str, int]) -> None:
        """Take etcd's id of each member by its name: until then nothing is done to what callers send."""
        self._ids = {number: name for name, number in ids.items()}

    def link_state(self, name: str) -> LinkState:
        """Return what is done to a member's links, to be changed in place. Raises KeyError for an unknown member."""
        return self._link_states[name]

    @property
    def cut(self) -> frozenset[str]:
        """Members that are cut off."""
        return frozenset(name for name, link_state in self._link_states.items() if link_state.cut)

    @property
    def rough(self) -> frozenset[str]:
        """Members whose links are delayed or lossy."""
        return frozenset(name for name, link_state in self._link_states.items() if link_state.is_disturbed)

    # In the thread

    async def _listen(self) -> None:
        for name, (port, _) in self._routes.items():

            async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str = name) -> None:
                await self._accept(reader, writer, name)

            self._servers.append(
                await asyncio.start_server(accept, "127.0.0.1", port, limit=_PIECE, ssl=self._as_server)
            )

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        # Again and again: a connection that was accepted just before begins its task meanwhile.
        while tasks := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        there: asyncio.StreamWriter | None = None
        try:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as exc:
                head = exc.partial
            except asyncio.LimitOverrunError:
                head = b""
            said = _FROM.search(head)
            ends = (int(said.group(1), 16) if said else 0, name)
            await self._while_cut(ends)
            back, there = await asyncio.open_connection(
                "127.0.0.1", self._routes[name][1], limit=_PIECE, ssl=self._as_client
            )
            await asyncio.wait(
                [
                    asyncio.ensure_future(self._pump(reader, there, ends, head)),
                    asyncio.ensure_future(self._pump(back, writer, ends)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, there):
                if each is not None:
                    each.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: tuple[int, str], head: bytes = b""
    ) -> None:
        """Move bytes until either side ends. Late pieces are queued, so that a delay costs no throughput."""
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)
        sender: asyncio.Task[None] | None = None
        due = 0.0
        with contextlib.suppress(OSError):
            try:
                while data := head or await reader.read(_PIECE):
                    head = b""
                    held = hold_back(self._ends(ends), self._rng)
                    if not held and not self._is_cut(ends) and late.empty() and (sender is None or sender.done()):
                        writer.write(data)
                        await writer.drain()
                        continue
                    due = max(due, self._loop.time() + held)
                    await late.put((due, data))
                    if sender is None or sender.done():
                        sender = asyncio.ensure_future(self._send_late(late, writer, ends))
                if sender is not None:
                    await sender
            finally:
                if sender is not None:
                    sender.cancel()

    async def _send_late(
        self, late: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, ends: tuple[int, str]
    ) -> None:
        with contextlib.suppress(OSError):
            while not late.empty():
                due, data = late.get_nowait()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                await self._while_cut(ends)
                writer.write(data)
                await writer.drain()

    async def _while_cut(self, ends: tuple[int, str]) -> None:
        while self._is_cut(ends):
            await asyncio.sleep(_TICK_S)

    def _is_cut(self, ends: tuple[int, str]) -> bool:
        return any(end.cut for end in self._ends(ends))

    def _ends(self, ends: tuple[int, str]) -> tuple[LinkState, LinkState]:
        """Return the states of the caller's links and of the called member's; a caller may become known after it
        connected.
        """
        return self._link_states.get(self._ids.get(ends[0], ""), _UNDISTURBED), self._link_states[ends[1]]
