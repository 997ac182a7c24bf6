"""A writer of one worker's history: one append-only file, about a microsecond an operation."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.files import FileError, writing
from loadgen.history.format import (
    ANSWERED,
    BLOCK,
    BLOCK_MAGIC,
    FINAL,
    INFO,
    MAGIC,
    METHODS,
    RECORD,
    SCHEMA,
    Kind,
    Method,
)
from loadgen.history.operation import Outcome

if TYPE_CHECKING:
    import gevent

_FULL = 1 << 18
_FLUSH_NS = 500_000_000
_OUTCOMES = {Outcome.OK: 0, Outcome.FAIL: 1, Outcome.INFO: 2}
_OPERATION = int(Kind.OPERATION)


class HistoryWriter:
    """One worker's file. Not for several threads; greenlets are fine.

    Takes the path, which must not exist, what to call with the reason when the file cannot be written any more, and
    what the file's header is to say besides the schema, the clock and the process id (JSON). What is recorded is kept
    in memory and handed to the operating system when half a second or 256 KiB have come together; call ``flush`` once a
    second too, or have ``flush_every`` do it, so that a worker with nothing to do loses nothing either. A process that
    is killed loses what it had not flushed; the reader knows by the missing end. Raises OSError; the methods raise
    FileError where nobody is to be called, else they record nothing from then on, and the reader finds no end.
    """

    def __init__(self, path: Path, *, failed: Callable[[str], object] | None = None, **header: object) -> None:
        self.path = path
        self._failed = failed
        self.records = 0
        self._heads: list[bytes] = []
        self._payloads: list[bytes] = []
        self._size = 0
        self._due = 0
        self._flags = 0
        self._endpoints: dict[str, int] = {}
        self._written = 0
        self._take: Callable[[], tuple[int, bytes, bytes]] | None = None
        self._pack = RECORD.pack
        self._flusher: gevent.Greenlet | None = None
        self._file = open(path, "xb", buffering=0)  # noqa: PTH123, SIM115  (unbuffered: a block is one write)
        with writing(path):
            self._file.write(MAGIC)
        about = {
            "schema": SCHEMA, "clock": clock(), "monotonic_ns": time.perf_counter_ns(), "wall_ns": time.time_ns(),
            "pid": os.getpid(), **header,
        }  # fmt: skip
        self._add(Kind.HEADER, response=json.dumps(about).encode())
        self.flush()

    def draw_from(self, take: Callable[[], tuple[int, bytes, bytes]]) -> None:
        """Have the file hold what somebody else records, too, in its place among all that is recorded here.

        ``take`` returns what has come since it was last called: how many records, these one behind the other, and the
        messages of all of them, likewise; see ``format``.
        """
        self._take = take

    # ---- what happens

    def operation(
        self,
        path: bytes,
        process: int,
        due_ns: int,
        call_ns: int,
        return_ns: int,
        outcome: Outcome,
        request: bytes,
        response: bytes,
        *,
        code: int = 0,
        endpoint: int = 0,
        answered: bool = True,
    ) -> None:
        """Record an operation that ended.

        ``path`` is the gRPC method's, times are nanoseconds of the monotonic clock, ``request`` the message as sent.
        ``response`` is the message as received where the outcome is OK, otherwise the error's text. ``code`` is the
        gRPC status, ``answered`` whether it was the server's own, ``endpoint`` the number from ``endpoint()`` (0: not
        known; the member of an answer is in its header).
        """
        if self._take is not None:
            self._draw()
        size = len(request), len(response)
        self._heads.append(
            self._pack(
                _OPERATION, METHODS.get(path, Method.OTHER), _OUTCOMES[outcome], code, process, endpoint,
                self._flags | ANSWERED if answered else self._flags, due_ns, call_ns, return_ns, *size,
            )
        )  # fmt: skip
        self._payloads.append(request)
        self._payloads.append(response)
        self.records += 1
        self._size += size[0] + size[1]
        if self._size > _FULL or return_ns > self._due:
            self.flush()

    def watch_sent(self, watcher: int, at_ns: int, request: bytes, endpoint: int = 0) -> None:
        """Record a ``WatchRequest``, before it is sent. ``watcher`` numbers the stream, once a stream in a file."""
        self._add(Kind.WATCH_SENT, watcher, endpoint, at_ns, request=request)

    def watch_received(self, watcher: int, at_ns: int, response: bytes, endpoint: int = 0) -> None:
        """Record a ``WatchResponse``, in the order in which they came."""
        self._add(Kind.WATCH_RECEIVED, watcher, endpoint, at_ns, response=response)

    def watch_ended(self, watcher: int, at_ns: int, code: int, cause: str, endpoint: int = 0) -> None:
        """Record that a watch stream ended, by whomever: nothing can have come after it."""
        self._add(Kind.WATCH_ENDED, watcher, endpoint, at_ns, response=cause.encode(), code=code)

    def marker(self, name: str, at_ns: int = 0, **details: object) -> None:
        """Record that something happened at a time (0: now), such as ``fault``; ``details`` must be JSON."""
        self._add(
            Kind.MARKER,
            at_ns=at_ns or time.perf_counter_ns(),
            request=name.encode(),
            response=json.dumps(details).encode(),
        )

    def set_final(self, final: bool = True) -> None:
        """Say that what is recorded from here on are the final reads of each member; see ``format.FINAL``."""
        self._flags = FINAL if final else 0

    def endpoint(self, url: str) -> int:
        """Return the number that stands for an endpoint in this file; the first is 1."""
        number = self._endpoints.get(url)
        if number is None:
            number = self._endpoints[url] = len(self._endpoints) + 1
            self._add(Kind.ENDPOINT, endpoint=number, response=url.encode())
        return number

    # ---- the file

    def flush(self) -> None:
        """Hand everything recorded so far to the operating system; drop it once the file is closed or has failed.

        Raises FileError where nobody is to be called.
        """
        self._due = time.perf_counter_ns() + _FLUSH_NS
        self._draw()
        if not self._heads:
            return
        heads, payloads = b"".join(self._heads), b"".join(self._payloads)
        count, self._written = self.records - self._written, self.records
        self._heads.clear()
        self._payloads.clear()
        self._size = 0
        if self._file.closed:
            return
        crc = zlib.crc32(payloads, zlib.crc32(heads))
        block = memoryview(b"".join((BLOCK.pack(BLOCK_MAGIC, count, len(payloads), crc), heads, payloads)))
        try:
            with writing(self._file.name):
                while block:
                    block = block[self._file.write(block) or 0 :]
        except FileError as error:
            if self._failed is None:
                raise
            # Behind a block that is not whole nothing can be read.
            with contextlib.suppress(OSError):
                self._file.close()
            self._failed(str(error))

    def flush_every(self, seconds: float = 0.5) -> None:
        """Start a greenlet that flushes until the writer is closed."""
        import gevent

        def go_on() -> None:
            while not self._file.closed:
                gevent.sleep(seconds)
                if not self._file.closed:
                    self.flush()

        self._flusher = gevent.spawn(go_on)

    def close(self) -> None:
        """Write the end, without which the reader takes the file for cut. May be called again.

        What is recorded later is left out.
        """
        if self._file.closed:
            return
        if self._flusher is not None:
            self._flusher.kill()
        self._draw()
        self._add(Kind.END, response=json.dumps({"records": self.records}).encode())
        try:
            self.flush()
        finally:
            self._file.close()

    def _draw(self) -> None:
        """Take what somebody else has recorded until now."""
        if self._take is None:
            return
        count, heads, payloads = self._take()
        if count:
            self._heads.append(heads)
            self._payloads.append(payloads)
            self._size += len(payloads)
            self.records += count

    def _add(
        self,
        kind: Kind,
        process: int = 0,
        endpoint: int = 0,
        at_ns: int = 0,
        *,
        request: bytes = b"",
        response: bytes = b"",
        code: int = 0,
    ) -> None:
        self._draw()
        self._heads.append(
            self._pack(
                kind, 0, INFO, code, process, endpoint, 0, at_ns, at_ns, at_ns, len(request), len(response),
            )
        )  # fmt: skip
        self._payloads.append(request)
        self._payloads.append(response)
        self.records += 1
        self._size += len(request) + len(response)
        if self._size > _FULL or at_ns > self._due:
            self.flush()


def clock() -> str:
    """Return what tells one monotonic clock from another: times of equal clocks compare, others do not."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()
