"""A relay of TCP connections on loopback that holds back for a time what the server says."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def relay(behind: str, delay_s: float) -> Iterator[str]:
    """Yield the address, ``host:port``, of a relay to an address.

    What the server says arrives ``delay_s`` seconds later, or more where the machine is busy, and never less: so each
    request takes that long. Bytes keep their order, and requests do not wait for each other.
    """
    host, _, port = behind.removeprefix("http://").rpartition(":")
    loop = asyncio.new_event_loop()
    started = threading.Event()
    address: list[str] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait_s: float) -> None:
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def pass_on() -> None:
            while (item := await held.get())[1]:
                await asyncio.sleep(max(0.0, item[0] - loop.time()))
                writer.write(item[1])
                await writer.drain()
            writer.close()

        passing = asyncio.ensure_future(pass_on())
        data = b"-"
        while data:
            try:
                data = await reader.read(65_536)
            except OSError:
                data = b""
            held.put_nowait((loop.time() + wait_s, data))
        with contextlib.suppress(OSError):
            await passing

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(copy(reader, back, 0.0), copy(there, writer, delay_s))

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address.append("{}:{}".format(*server.sockets[0].getsockname()))
        started.set()
        await ended.wait()
        server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    ended = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    started.wait()
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
