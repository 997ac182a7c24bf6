"""Drawn conversations of a server with both engines of the load path: correct ones, odd ones, hostile ones.

Every choice comes from a seed, so a conversation that shows a difference can be held again: `play(seed)`. What both
sides say must be the same bytes at the same times, and what they count must be equal.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.base.etcd_errors import KINDS
from loadgen.history.writer import HistoryWriter
from loadgen.load.settings import Settings
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto import kv_pb2
from loadgen.wire import Code, frames
from loadgen.wire.grpc import PREFIX
from loadgen.wire.headers import HeaderDecoder, HeaderEncoder
from tests.support.two_engines import Clock, CompiledSide, PythonSide, Side, operations_in, stopped_clock

OPEN = [(b":status", b"200"), (b"content-type", b"application/grpc")]
END = [(b"grpc-status", b"0"), (b"grpc-message", b"")]
_HEADS: list[list[tuple[bytes, bytes]]] = [
    [*OPEN, (b"date", b"today")], [(b":status", b"200"), (b"content-type", b"application/grpc+proto")],
    [(b":status", b"100")], [(b":status", b"503")], [(b":status", b"200"), (b"content-type", b"text/html")],
    [(b":status", b"200")], [(b"content-type", b"application/grpc")], [(b"x", b"y"), (b":status", b"200")],
    [*OPEN, (b"grpc-status", b"0")], [*OPEN, (b"Upper", b"x")],
]  # fmt: skip
_ENDS: list[list[tuple[bytes, bytes]]] = [
    [(b"grpc-status", b"0")], [(b"grpc-status", b"00")], [(b"grpc-status", b"x")], [(b"grpc-message", b"no status")],
    [(b":status", b"200"), (b"grpc-status", b"0")], [*END, (b"more", b"of it")],
]  # fmt: skip
_TEXTS = [each.text.encode() for each in KINDS.values()] + [b"", b"what nobody knows", b"100%25 %zz"]
_KINDS = {b"/etcdserverpb.KV/Put": "put", b"/etcdserverpb.KV/Range": "get", b"/etcdserverpb.KV/Txn": "txn"}
_SIZES = (0, 1, 5, 15, 16, 17, 64, 200, 1_000, 16_200, 16_379, 20_000, 70_000)
_WINDOWS = (0, 1, 5, 100, 16_384, 65_535, 65_536, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_MS = 1_000_000
PLAIN, ODD, HOSTILE = range(3)


class DifferenceError(AssertionError):
    """The two engines did not do the same."""


class Peer:
    """The server's end of one connection: what was asked, and what is to be said."""

    def __init__(self) -> None:
        self.encoder = HeaderEncoder()
        self.blocks: dict[tuple[tuple[bytes, bytes], ...], bytes] = {}
        self.decoder: HeaderDecoder[bytes] = HeaderDecoder(_path)
        self.asked: dict[int, str] = {}
        self.paths: dict[int, bytes] = {}
        self.bodies: dict[int, bytearray] = {}
        self.block = b""
        self.outgoing = bytearray()
        self.unread = bytearray()
        self.last = 0

    def fields(self, fields: list[tuple[bytes, bytes]], *, indexed: bool = True) -> bytes:
        """Return a header block, through the table or not."""
        if not indexed:
            return b"".join(
                b"\x10" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in fields
            )
        known = self.blocks.get(tuple(fields))
        if known is None:
            known, steady = self.encoder.encode(fields)
            if not steady:
                self.blocks.clear()
            else:
                self.blocks[tuple(fields)] = known
        return known

    def hear(self, first: bytes, second: bytes) -> list[tuple[int, str, bytes]]:
        """Take what both sides have written, return the requests in it. Raises DifferenceError."""
        if first != second:
            raise DifferenceError(f"the two say:\n{_show(first)}\n{_show(second)}")
        self.unread += first
        heard, self.unread = _apart(self.unread)
        return self._requests(heard)

    def _requests(self, heard: list[bytes]) -> list[tuple[int, str, bytes]]:
        found = []
        for each in heard:
            word, flags, stream_id = frames.FRAME_HEADER.unpack_from(each)
            kind = word & 0xFF
            if kind in (frames.HEADERS, frames.CONTINUATION):
                self.block = each[9:] if kind == frames.HEADERS else self.block + each[9:]
                if flags & frames.END_HEADERS:
                    self.paths[stream_id] = self.decoder.decode(self.block)
                    assert stream_id > self.last
                    self.last = stream_id
            elif kind == frames.DATA:
                if flags & frames.END_STREAM and stream_id not in self.bodies:
                    message = each[9:]
                else:
                    self.bodies.setdefault(stream_id, bytearray()).extend(each[9:])
                    if not flags & frames.END_STREAM:
                        continue
                    message = bytes(self.bodies.pop(stream_id))
                assert PREFIX.unpack_from(message) == (0, len(message) - 5)
                f = _KINDS[self.paths.pop(stream_id)]
                self.asked[stream_id] = f
                found.append((stream_id, f, message[5:]))
            elif kind == frames.RST_STREAM:
                self.asked.pop(stream_id, None)
                self.bodies.pop(stream_id, None)
        return found


def _path(fields: list[tuple[bytes, bytes]]) -> bytes:
    found = dict(fields)
    assert found[b":method"] == b"POST"
    assert found[b"te"] == b"trailers"
    assert found[b"content-type"] == b"application/grpc"
    assert b"grpc-timeout" in found
    return found[b":path"]


def _apart(data: bytearray) -> tuple[list[bytes], bytearray]:
    """Return the whole frames in it, and the rest."""
    found, at = [], 0
    if data.startswith(frames.PREFACE):
        at = len(frames.PREFACE)
    while len(data) - at >= 9:
        stop = at + 9 + int.from_bytes(data[at : at + 3], "big")
        if stop > len(data):
            break
        found.append(bytes(data[at:stop]))
        at = stop
    return found, data[at:]


def _show(said: bytes) -> str:
    """Return kind, flags, stream and size of the frames of which the first one is whole."""
    heard, rest = _apart(bytearray(said))
    shown = (f"{each[3]}/{each[4]}/{int.from_bytes(each[5:9], 'big')}/{len(each) - 9}" for each in heard)
    return " ".join(shown) + f" and {len(rest)} B"


class Conversation:
    """One run of both engines with one server.

    Takes the seed of all choices, how hostile it may get, the clock, and a folder for what both record; None: nothing.
    """

    def __init__(self, seed: int, style: int | None, clock: Clock, folder: Path | None = None) -> None:
        rng = self.rng = random.Random(f"conversation/{seed}")
        self.style = style if style is not None else rng.choice((PLAIN, PLAIN, ODD, ODD, HOSTILE))
        self.clock = clock
        large = self.style and rng.random() < 0.1
        types = rng.choice((("put",), ("get",), ("txn",), ("put", "get"), ("put", "get", "txn"), ("txn", "put")))
        key_space = rng.choice((1, 3, 50))
        self.open_loop = rng.random() < 0.25
        self.users = rng.choice((1, 1, 2, 5, 20))
        self.settings = Settings(
            prefix=b"abcd/", mix={f: rng.choice((1.0, 2.5, 0.1)) for f in types}, key_space=key_space,
            key_size=rng.choice((12, 20, 32, 130)), value_size=rng.choice(_SIZES if large else _SIZES[:8]),
            seed=rng.randrange(1 << 20), timeout_s=rng.choice((0.5, 5.0)), rate=100.0 if self.open_loop else None,
            operations=None if self.open_loop else rng.choice((None, 5, 300, 100_000)),
            read_consistency=rng.choice(("linearizable", "serializable")),
        )  # fmt: skip
        self.endless = not self.open_loop and self.settings.operations is None
        planned_s = rng.choice((1.0, None, 600.0))
        warmup_ns = rng.choice((0, 0, 30 * _MS))
        self.recorded = 0
        self.histories: list[HistoryWriter | None] = [None, None]
        if folder is not None:
            self.histories = [HistoryWriter(folder / f"{n}.hist") for n in range(2)]
        self.python = PythonSide(self.settings, clock, warmup_ns, planned_s, self.histories[0])
        self.compiled = CompiledSide(self.settings, clock, warmup_ns, planned_s, self.histories[1])
        self.peers: list[Peer] = []
        self.number = 0
        self.processes = 0
        self.revision = 1
        self.most = rng.choice((1, 1, 2, 3))
        self.partly = self.style and rng.random() < 0.2

    # ---- both at once

    def both(self, do: Callable[[Side], object]) -> Any:
        first = do(self.python)
        second = do(self.compiled)
        if first != second:
            raise DifferenceError(f"{first} and {second}")
        for place, peer in enumerate(self.peers):
            out, other = self.python.sockets[place].out, self.compiled.sockets[place].out
            if out or other:
                peer.hear(bytes(out), bytes(other))
                out.clear()
                other.clear()
        return first

    def compare(self) -> None:
        first, second = self.python.state(), self.compiled.state()
        if first != second:
            raise DifferenceError("\n".join(f"{k}: {first[k]} and {second[k]}" for k in first if first[k] != second[k]))

    # ---- connections

    def connect(self) -> None:
        rng = self.rng
        peer = Peer()
        self.peers.append(peer)
        self.both(Side.connect)
        settings: dict[int, int] = {}
        if self.style and rng.random() < 0.5:
            settings = self.some_settings()
        if rng.random() < 0.7:
            settings.setdefault(frames.MAX_CONCURRENT_STREAMS, rng.choice((1, 2, 4, 100, 250, (1 << 32) - 1)))
        greeting = frames.settings(settings)
        if rng.random() < 0.8:
            greeting += frames.settings_ack() + frames.window_update(0, rng.choice((1 << 20, 1 << 30)))
        if self.style == HOSTILE and rng.random() < 0.05:
            greeting = self.noise(peer)
        peer.outgoing += greeting
        self.deliver(len(self.peers) - 1, whole=True)
        place = len(self.peers) - 1
        self.both(lambda side: side.join(place))
        self.both(lambda side: side.loop.run())

    def some_settings(self) -> dict[int, int]:
        rng = self.rng
        found = {}
        for _ in range(rng.randrange(1, 3)):
            name = rng.choice((1, 3, 4, 5))
            found[name] = {
                1: rng.choice((0, 64, 4_096, 65_536)), 3: rng.choice((0, 1, 2, 100)),
                4: rng.choice(_WINDOWS[:9] if self.style < HOSTILE else _WINDOWS),
                5: rng.choice((16_384, 20_000, 1 << 20)),
            }[name]  # fmt: skip
        if self.style == HOSTILE and rng.random() < 0.2:
            found[rng.choice((1, 2, 3, 4, 5, 6, 99))] = rng.choice(_WINDOWS)
        return found

    def deliver(self, place: int, *, whole: bool = False) -> None:
        """Have both sides read what is to be said, in the same pieces."""
        rng, peer = self.rng, self.peers[place]
        how = rng.random()
        while peer.outgoing:
            size = len(peer.outgoing)
            if how > 0.97 and size < 400:
                size = 1
            elif how > 0.6:
                size = rng.randrange(1, size + 1)
            size = min(size, 65_536)
            part = bytes(peer.outgoing[:size])
            del peer.outgoing[:size]
            self.both(lambda side, part=part: side.read(place, part))  # type: ignore[misc]
            if rng.random() < 0.3:
                self.clock.now += rng.choice((1, 1_000, 50_000, _MS))
            if not whole and how > 0.9 and rng.random() < 0.3:
                break

    # ---- answers

    def answer(self) -> None:
        """Answer some of the requests, or all; else go on with what was not said to its end."""
        rng = self.rng
        place = self.some_place()
        if place is None:
            for n, peer in enumerate(self.peers):
                if peer.outgoing:
                    self.deliver(n)
            return
        peer = self.peers[place]
        asked = list(peer.asked)
        if rng.random() < 0.5:
            rng.shuffle(asked)
        chosen = asked[: rng.choice((1, 2, len(asked), len(asked)))]
        said = [self.frames_of(peer, stream_id, peer.asked.pop(stream_id)) for stream_id in chosen]
        if len(said) > 1 and rng.random() < 0.3:
            together: list[bytes] = []
            while said:
                at = rng.randrange(len(said))
                together.append(said[at].pop(0))
                if not said[at]:
                    del said[at]
        else:
            together = [frame for each in said for frame in each]
        if self.style and rng.random() < 0.2:
            # A header block must not be interrupted: these may be between its pieces only where all is allowed.
            whole = self.style == HOSTILE or not any(each[3] == frames.CONTINUATION for each in together)
            together.insert(rng.randrange(len(together) + 1) if whole else 0, self.control(peer))
        if self.style == HOSTILE and rng.random() < 0.1:
            self.spoil(together)
        peer.outgoing += b"".join(together)
        self.deliver(place)

    def some_place(self) -> int | None:
        places = [n for n, peer in enumerate(self.peers) if peer.asked and not self.python.sockets[n].closed]
        return self.rng.choice(places) if places else None

    def frames_of(self, peer: Peer, stream_id: int, f: str) -> list[bytes]:
        rng = self.rng
        odd = self.style and rng.random() < 0.3
        message = self.message(f)
        if not odd:
            # As etcd: one DATA, and both blocks through the table.
            return [
                frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, peer.fields(OPEN)),
                *self.body(stream_id, PREFIX.pack(0, len(message)) + message),
                frames.frame(frames.HEADERS, 5, stream_id, peer.fields(END)),
            ]
        kind = rng.randrange(12)
        if kind == 0:
            return [frames.rst_stream(stream_id, rng.choice((0, 2, 7, 8, 11, 99)))]
        if kind == 1:  # trailers only
            fields = [*OPEN, (b"grpc-status", b"%d" % rng.randrange(19)), (b"grpc-message", rng.choice(_TEXTS))]
            return self.block(peer, stream_id, fields, end=True)
        indexed = rng.random() < 0.7
        said = self.block(peer, stream_id, rng.choice(_HEADS) if kind == 2 else OPEN, indexed=indexed)
        if kind == 3:
            said = self.block(peer, stream_id, [(b":status", b"103")]) + said
        prefix = PREFIX.pack(0, len(message))
        if kind == 4:
            prefix = rng.choice((PREFIX.pack(1, len(message)), PREFIX.pack(0, len(message) + 1), b"\0\0\0", prefix * 2))
        if kind == 5:
            said += self.body(stream_id, prefix + message, cut=True)
            if rng.random() < 0.3:
                said += self.body(stream_id, rng.choice((b"", b"\0", prefix + message)), cut=rng.random() < 0.5)
        elif kind != 6:
            said += self.body(stream_id, prefix + message)
        if kind == 7:
            last = bytearray(said.pop())
            last[4] |= frames.END_STREAM
            said.append(bytes(last))
            return said
        fields = END
        if kind == 8:
            fields = rng.choice(_ENDS)
        elif kind == 9:
            fields = [(b"grpc-status", b"%d" % rng.randrange(19)), (b"grpc-message", rng.choice(_TEXTS))]
        elif kind == 10 and len(said) > 1:
            widened = frames.window_update(stream_id, rng.choice((1, 5, 1_000, 0, 1 << 30)))
            said.insert(rng.randrange(len(said)), widened)
        elif kind == 11 and rng.random() < 0.3:
            peer.asked[stream_id] = f  # the end comes later, or never
            return said
        return said + self.block(peer, stream_id, fields, end=True, indexed=rng.random() < 0.7)

    def block(
        self, peer: Peer, stream_id: int, fields: list[tuple[bytes, bytes]], *, end: bool = False, indexed: bool = True
    ) -> list[bytes]:
        rng = self.rng
        block = peer.fields(fields, indexed=indexed)
        how = rng.random()
        flags = frames.END_STREAM if end else 0
        if how < 0.1:
            at = rng.randrange(len(block) + 1)
            return [
                frames.frame(frames.HEADERS, flags, stream_id, block[:at]),
                frames.frame(frames.CONTINUATION, frames.END_HEADERS, stream_id, block[at:]),
            ]
        flags |= frames.END_HEADERS
        if how < 0.2:
            return [frames.frame(frames.HEADERS, flags | frames.PADDED, stream_id, b"\x03" + block + bytes(3))]
        if how < 0.25:
            return [frames.frame(frames.HEADERS, flags | frames.HAS_PRIORITY, stream_id, bytes(5) + block)]
        return [frames.frame(frames.HEADERS, flags, stream_id, block)]

    def body(self, stream_id: int, data: bytes, *, cut: bool = False) -> list[bytes]:
        rng = self.rng
        parts = []
        if cut and data and rng.random() < 0.7:
            at = rng.randrange(len(data) + 1)
            parts = [data[:at], data[at:]]
        else:
            parts = [data[n : n + 16_384] for n in range(0, len(data), 16_384)] or [b""]
        if cut and rng.random() < 0.3 and len(parts[0]) < 16_000:
            head = frames.frame(frames.DATA, frames.PADDED, stream_id, b"\x02" + parts[0] + bytes(2))
            return [head] + [frames.frame(frames.DATA, 0, stream_id, part) for part in parts[1:]]
        return [frames.frame(frames.DATA, 0, stream_id, part) for part in parts]

    def message(self, f: str) -> bytes:
        """Return an answer of etcd's, or what looks like one."""
        rng = self.rng
        self.revision += rng.choice((0, 1, 1, 1, 130, 20_000))
        if self.style and rng.random() < 0.02:
            self.revision = rng.choice((1, 1 << 20, 1 << 35, 1 << 62))
        message = answer(rng, f, self.revision, plain=not self.style or rng.random() < 0.7)
        if self.style and rng.random() < 0.05:
            message = spoiled(rng, message)
        return message

    # ---- what else a server does

    def control(self, peer: Peer) -> bytes:
        """Return a frame that is about the connection."""
        rng = self.rng
        some = rng.choice((0, 1, peer.last, peer.last + 2, peer.last + 1, *peer.asked, *peer.asked))
        kind = rng.randrange(9 if self.style == HOSTILE else 6)
        if kind == 0:
            return frames.ping(rng.randbytes(8), ack=rng.random() < 0.2)
        if kind == 1:
            return frames.settings(self.some_settings())
        if kind == 2:
            return frames.window_update(0, rng.choice((1, 100, 70_000, 1 << 20)))
        if kind == 3:
            return frames.settings_ack()
        if kind == 4:
            if rng.random() < 0.4:
                last = rng.choice((0, 1, peer.last, peer.last - 4, 0x7FFFFFFF))
                return frames.goaway(max(0, last), rng.choice((0, 0, 2, 11)), b"bye")
            return frames.frame(0xEE, 0xFF, some, b"unknown")
        if kind == 5:
            stream_id = rng.choice(list(peer.asked) or [1])
            peer.asked.pop(stream_id, None)
            return frames.rst_stream(stream_id, rng.choice((2, 7, 8)))
        if kind == 6:
            return frames.window_update(rng.choice((0, some)), rng.choice((0, 1, 1 << 30, (1 << 31) - 1)))
        if kind == 7:
            return frames.frame(frames.PRIORITY, 0, some, bytes(rng.choice((5, 5, 4))))
        return self.noise(peer)

    def noise(self, peer: Peer) -> bytes:
        """Return any frame, a broken one, or no frame at all."""
        rng = self.rng
        some = rng.choice((0, 1, peer.last, peer.last + 2, *peer.asked, 1 << 31, 1 << 31 | peer.last))
        how = rng.randrange(6)
        if how == 0:
            return rng.randbytes(rng.randrange(60))
        if how == 1:
            return frames.frame(rng.randrange(12), rng.randrange(256), some, rng.randbytes(rng.randrange(30)))
        if how == 2:
            size = rng.choice((16_384, 16_385, 70_000))
            return frames.frame(rng.randrange(12), rng.randrange(256), some, bytes(size))
        if how == 3:
            flood = rng.choice((frames.ping(bytes(8)), frames.settings({}), frames.settings({4: 0, 1: 0, 3: 0})))
            return flood * rng.choice((1, 3, 10, 100, 4_095, 4_096, 4_097))
        if how == 4:
            piece = frames.frame(frames.CONTINUATION, 0, some, bytes(rng.choice((0, 1, 1_000))))
            return frames.frame(frames.HEADERS, 0, some, b"\x88") + piece * rng.choice((1, 127, 200))
        return frames.frame(rng.choice((0, 1)), rng.choice((0, 1, 4, 5)), some, rng.randbytes(rng.randrange(30)))

    def spoil(self, together: list[bytes]) -> None:
        """Change a frame, or the order of them."""
        rng = self.rng
        at = rng.randrange(len(together))
        how = rng.randrange(6)
        if how == 0:
            together[at] = spoiled(rng, together[at])
        elif how == 1:
            together.insert(rng.randrange(len(together) + 1), together[at])
        elif how == 2:
            del together[at]
        elif how == 3:
            rng.shuffle(together)
        elif how == 4:
            changed = bytearray(together[at])
            changed[rng.choice((3, 4, 5, 8))] ^= 1 << rng.randrange(8)
            together[at] = bytes(changed)
        else:
            together.insert(at, self.noise(self.peers[-1]))

    def say(self) -> None:
        """Say something about the connection."""
        places = [n for n in range(len(self.peers)) if not self.python.sockets[n].closed]
        if places:
            place = self.rng.choice(places)
            self.peers[place].outgoing += self.control(self.peers[place])
            self.deliver(place)

    def lose(self) -> None:
        place = self.rng.randrange(len(self.peers))
        how: bytes | OSError = self.rng.choice((b"", ConnectionResetError(104, "reset")))
        self.both(lambda side: side.read(place, how))

    def refuse(self) -> None:
        self.both(Side.refuse)
        self.both(lambda side: side.loop.run())

    def come_back(self) -> None:
        if len(self.python.channel._live) < self.most:
            self.connect()

    # ---- time, users

    def passes(self) -> None:
        """Let time pass, and what is due then happen."""
        rng = self.rng
        step = rng.choice((1_000, 100_000, 3 * _MS, 50 * _MS))
        if rng.random() < 0.1:
            step = rng.choice((200 * _MS, 1_000 * _MS, self.python.timeout_ns, self.python.timeout_ns + _MS))
        if rng.random() < 0.01:
            step = 130_000 * _MS
        self.clock.now += step
        self.both(Side.wait)

    def add(self) -> None:
        self.processes += 1
        self.both(lambda side: side.add_user(self.processes))

    def leave(self) -> None:
        if not self.open_loop:
            place = self.rng.randrange(len(self.python.users))
            self.both(lambda side: side.leave(place))

    def kill(self) -> None:
        place = self.rng.randrange(len(self.python.users))
        self.both(lambda side: side.kill(place))

    def hand(self) -> None:
        """Hand out what is due in an open loop."""
        if not self.open_loop:
            return
        for _ in range(self.rng.choice((1, 2, self.users))):
            due_ns = self.clock.now - self.rng.choice((0, 1, 1_000, 70_000, 3 * _MS))
            number = self.number if self.clock.now >= self.python.warm_until_ns else -1
            if self.both_hand(number, due_ns) and number >= 0:
                self.number += 1
        self.both(lambda side: side.loop.run())

    def both_hand(self, number: int, due_ns: int) -> bool:
        first, second = self.python.hand(number, due_ns), self.compiled.hand(number, due_ns)
        if first != second:
            raise DifferenceError(f"an idle user: {first} and {second}")
        return first

    def kernel(self) -> None:
        """Have the kernel take less, or again all."""
        if self.partly:
            place = self.rng.randrange(len(self.peers))
            room = self.rng.choice((0, 1, 30, 100, 1 << 40, 1 << 40))
            self.both(lambda side: side.write(place, room))

    def report(self) -> None:
        first, second = self.python.series(), self.compiled.series()
        if first != second:
            raise DifferenceError(f"series {first} and {second}")

    # ---- one after the other

    def play(self, steps: int) -> int:
        """Hold it; return how many operations ended. Raises DifferenceError."""
        rng = self.rng
        if rng.random() < 0.9:
            self.connect()
        for _ in range(self.users):
            self.add()
        if not self.peers:
            self.connect()
        acts: list[Callable[[], None]] = [self.answer] * 12 + [self.hand] * 12 * self.open_loop
        acts += [self.passes, self.come_back, self.report]
        if self.style:
            acts += [self.say, self.say, self.kernel, self.refuse, self.kill, self.leave, self.add, self.lose]
            acts += [self.answer] * 20
        for n in range(steps):
            rng.choice(acts)()
            if n % 16 == 0:
                self.compare()
        self.finish()
        counts: list[Any] = [*self.python.recorder.totals().values(), *self.python.warmup.totals().values()]
        return sum(each["succeeded"] + each["failed"] for each in counts)

    def finish(self) -> None:
        """End all, and compare what is left."""
        self.compare()
        for place in range(len(self.python.users)):
            if self.rng.random() < 0.5:
                self.both(lambda side, place=place: side.kill(place))  # type: ignore[misc]
        for place in range(len(self.peers)):
            self.both(lambda side, place=place: side.read(place, b""))  # type: ignore[misc]
        for place in range(len(self.python.users)):
            self.both(lambda side, place=place: side.kill(place))  # type: ignore[misc]
        self.report()
        self.compare()
        for side in (self.python, self.compiled):
            side.client.close()
        self.compare_histories()

    def compare_histories(self) -> None:
        """Hold what both have recorded to each other, record by record."""
        found = []
        for history in self.histories:
            if history is not None:
                history.close()
                found.append(operations_in(history.path))
        if found and found[0] != found[1]:
            first, second = found
            n = next((n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), -1)
            raise DifferenceError(f"{len(first)} and {len(second)} records; number {n}: {first[n]} and {second[n]}")
        self.recorded = len(found[0]) if found else 0


def play(seed: int, style: int | None = None, steps: int = 60) -> int:
    """Hold one conversation; return how many operations ended in it. Raises DifferenceError."""
    with stopped_clock() as clock, contextlib.ExitStack() as stack:
        folder = None
        if seed % 3:  # the others record nothing
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="raftload-two-")))
        try:
            return Conversation(seed, style, clock, folder).play(steps)
        except BaseException as exc:
            exc.add_note(f"hold it again by tests.support.conversation.play({seed}, {style}, {steps})")
            raise


# ---- messages


def answer(rng: random.Random, f: str, revision: int, *, plain: bool) -> bytes:
    """Return an answer to a put, a get or a compare-and-swap; a ``plain`` one is as etcd's are."""
    header = pb.ResponseHeader(
        cluster_id=rng.getrandbits(64), member_id=rng.getrandbits(64), revision=revision, raft_term=rng.randrange(9)
    )
    kvs = [_kv(rng, revision) for _ in range(rng.choice((0, 1, 1, 1)) if plain else rng.randrange(4))]
    found: Any
    if f == "put":
        found = pb.PutResponse(header=header)
        if not plain and rng.random() < 0.2:
            found.prev_kv.CopyFrom(_kv(rng, revision))
    elif f == "get":
        found = pb.RangeResponse(header=header, kvs=kvs, count=len(kvs), more=not plain and rng.random() < 0.2)
    else:
        inner = pb.ResponseHeader(revision=revision) if rng.random() < 0.5 else None
        found = pb.TxnResponse(header=header, succeeded=rng.random() < 0.5)
        one = found.responses.add()
        if found.succeeded ^ (not plain and rng.random() < 0.1):
            one.response_put.CopyFrom(pb.PutResponse(header=inner))
        else:
            one.response_range.CopyFrom(pb.RangeResponse(header=inner, kvs=kvs, count=len(kvs)))
        if not plain and rng.random() < 0.1:
            del found.responses[:]
        elif not plain and rng.random() < 0.1:
            found.responses.add()
    if not plain and rng.random() < 0.1:
        found.header.revision = rng.choice((0, -1, -(1 << 63), (1 << 63) - 1, 1 << 56))
    if not plain and rng.random() < 0.05:
        found.ClearField("header")
    message = found.SerializeToString()
    if not plain and rng.random() < 0.2:
        message = _odd(rng, message)
    return bytes(message)


def _kv(rng: random.Random, revision: int) -> kv_pb2.KeyValue:
    """Return a key with its value; now and then without some of its fields."""
    return kv_pb2.KeyValue(
        key=b"abcd/0000001"[: rng.choice((0, 12, 12))], value=bytes(rng.choice((0, 1, 64, 127, 128, 300))),
        mod_revision=revision - rng.choice((0, 0, 1, revision, revision + 1)),
        create_revision=rng.choice((0, 1, 1 << 40)), version=rng.randrange(3), lease=rng.choice((0, 0, 5, -1)),
    )  # fmt: skip


def _odd(rng: random.Random, message: bytes) -> bytes:
    """Return a message that protobuf still reads: with unknown, repeated and overlong parts."""
    more = [
        b"\x78\x01", b"\x7a\x02ab", b"\x0a\x02\x18\x05", b"\x0a\x03\x18\x85\x00", b"\x0a\x00", b"\x10\x01", b"\x10\x00",
        b"\x10\x81\x00", b"\x18\x81\x80\x00", b"\x20\x01", b"\x1a\x00", b"\x12\x00", b"\x8a\x00\x02\x18\x07",
        b"\x0a\x0b\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x7d\x01\x02\x03\x04", b"\x79" + bytes(8),
        b"\x0a\x0b\x18\x81\x80\x80\x80\x80\x80\x80\x80\x80\x00",
        b"\x0a\x0b\x18\x81\x80\x80\x80\x80\x80\x80\x80\x80\x02",
    ]  # fmt: skip
    some = rng.choice(more)
    return some + message if rng.random() < 0.5 else message + some


def spoiled(rng: random.Random, data: bytes) -> bytes:
    """Return some bytes with bits turned, parts cut out, repeated or put in."""
    new = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(new) + 1)
        how = rng.randrange(4)
        if how == 0 and new:
            new[at % len(new)] ^= 1 << rng.randrange(8)
        elif how == 1:
            del new[at : at + rng.randrange(1, 9)]
        elif how == 2:
            new[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            new[at:at] = new[at : at + rng.randrange(1, 20)]
    return bytes(new)


__all__ = ["HOSTILE", "ODD", "PLAIN", "Code", "DifferenceError", "answer", "play", "spoiled"]
