"""A relay between members that can do more to a link than the cluster's own: late by a function, and narrow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from unittest import mock

from cluster.local import relay
from cluster.local.relay import PeerRelay, hold_back

if TYPE_CHECKING:
    from cluster.local.cluster import LocalCluster

# A narrow link carries one in less time than heartbeats are apart.
_PIECE = 2048
_MOST_PIECES = 4096
# What waits before a narrow link, in seconds of what it carries; more stays with the sender.
_QUEUE_S = 0.5


Late = Callable[[str, str], float]


def _in_time(_sender: str, _receiver: str) -> float:
    return 0.0


class ShapedRelay(PeerRelay):
    """The same, and more.

    Attributes:
        late: takes the names of who sends a piece and of who receives it, and returns by how many seconds it is late.
        carries: how many bytes a second each connection of a member's links carries each way.
    """

    late: Late
    carries: dict[str, float]

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: tuple[int, str],
        head: bytes | None = None,
    ) -> None:  # fmt: skip
        """Move bytes until either side ends: from the caller, whose first bytes are the head, or to it."""
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_PIECES)
        sending = asyncio.ensure_future(self._send(late, writer, ends))
        due, first = 0.0, head or b""
        with contextlib.suppress(OSError):
            try:
                while data := first or await reader.read(_PIECE):
                    first = b""
                    caller = self._ids.get(ends[0], "")
                    sender, receiver = (ends[1], caller) if head is None else (caller, ends[1])
                    now = self._loop.time()
                    due = max(due, now + hold_back(self._ends(ends), self._rng) + self.late(sender, receiver))
                    for end in (caller, ends[1]):
                        if rate := self.carries.get(end):
                            due = max(due, now) + len(data) / rate
                            await asyncio.sleep(max(0.0, due - now - _QUEUE_S))
                    await late.put((due, data))
                await late.put((due, b""))
                await sending
            finally:
                sending.cancel()

    async def _send(
        self, late: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, ends: tuple[int, str]
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = await late.get()
                if not data:
                    return
                if (wait := due - self._loop.time()) > 0:
                    await asyncio.sleep(wait)
                await self._while_cut(ends)
                writer.write(data)
                await writer.drain()


@contextlib.contextmanager
def shaped() -> Iterator[None]:
    """Have clusters that start in the block relay their peers' links by a `ShapedRelay`."""
    with (
        mock.patch.object(ShapedRelay, "late", staticmethod(_in_time), create=True),
        mock.patch.object(ShapedRelay, "carries", {}, create=True),
        mock.patch.object(relay, "PeerRelay", ShapedRelay),
    ):
        yield


def shaped_relay(cluster: LocalCluster) -> ShapedRelay:
    """Return the relay of a cluster that was started in `shaped`."""
    made = cluster._relay
    assert isinstance(made, ShapedRelay)
    return made
