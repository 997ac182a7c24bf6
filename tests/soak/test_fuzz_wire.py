"""Fuzzing of ``loadgen.wire``, guided by coverage: a hostile server and a careless user, whatever they do in any order.

A conversation is played from a *tape*, the bytes from which every choice is made, so that any conversation can be
played again and tapes can be mutated. Tapes that reach new transitions between lines of the package are kept and
mutated further, as AFL does (M. Zalewski, "Technical whitepaper for afl-fuzz").

What must hold, whatever the server says: ``receive_data`` raises nothing; a call ends once, and never by itself; the
books of open calls are exact; what we send is correct HTTP/2 within the server's limits; buffers stay bounded; and the
short ways through the code (the memo of header blocks, whole messages taken in place) give the same as the long ones.
"""

from __future__ import annotations

import base64
import gc
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import hpack
import pytest

import loadgen.wire
from loadgen.wire import Code, Connection, ConnectionEnded, LocalError, Message, Stream, frames
from loadgen.wire.grpc import PREFIX, MessageReader
from loadgen.wire.headers import MAX_HEADER_LIST

PATHS = (b"/etcdserverpb.KV/Range", b"/etcdserverpb.KV/Put")
SECOND = 1_000_000_000
PACKAGE = str(Path(loadgen.wire.__file__).parent)
OPEN = [(b":status", b"200"), (b"content-type", b"application/grpc")]
OK = [(b"grpc-status", b"0"), (b"grpc-message", b"")]
SIZES = (0, 1, 4, 5, 90, 1_000, 16_379, 16_384, 65_531, 70_000)
WINDOWS = (0, 1, 5, 100, 16_384, 65_535, 65_536, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
SETTINGS_IDS = (1, 2, 3, 4, 5, 6, 7, 0x99)
LONGEST_RECEIVE_S = 5.0  # of CPU, generous: it catches what grows without bound, not what is slow


class Tape:
    """Choices from bytes; past its end every choice is the first one."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def below(self, n: int) -> int:
        size = 1 if n <= 256 else 4
        part = self.data[self.at : self.at + size]
        self.at += size
        return int.from_bytes(part, "big") % n

    def pick(self, choices: Any) -> Any:
        return choices[self.below(len(choices))]

    def take(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        self.at += size
        return part

    @property
    def over(self) -> bool:
        return self.at >= len(self.data)


class Forgetful(dict[bytes, Any]):
    """A memo that remembers nothing."""

    def __setitem__(self, _key: bytes, _value: Any) -> None:
        pass


class Peer:
    """What a server sees of our output: it checks that every frame is correct, in order, and within its limits."""

    def __init__(self) -> None:
        self.frame_size = frames.DEFAULT_FRAME_SIZE
        self.initial = frames.DEFAULT_WINDOW
        self.window = frames.DEFAULT_WINDOW
        self.windows: dict[int, int] = {}
        self.closed: set[int] = set()
        self.last = -1
        self.begun = False
        self.lax = False  # noise may have widened a window, or narrowed it
        self.decoder = hpack.Decoder(1 << 20)
        self.table = 4_096

    def apply(self, settings: dict[int, int]) -> None:
        """Our SETTINGS as the client has acknowledged them."""
        if frames.INITIAL_WINDOW_SIZE in settings:
            change = settings[frames.INITIAL_WINDOW_SIZE] - self.initial
            self.initial += change
            self.windows = {each: window + change for each, window in self.windows.items()}
        self.frame_size = settings.get(frames.MAX_FRAME_SIZE, self.frame_size)

    def read(self, out: bytes) -> None:
        if not self.begun:
            assert out.startswith(frames.PREFACE)
            self.begun, out = True, out[len(frames.PREFACE) :]
        block, within = b"", 0
        while out:
            assert len(out) >= 9, "a frame's header was cut"
            word, flags, stream_id = frames.FRAME_HEADER.unpack_from(out)
            kind, size = word & 0xFF, word >> 8
            payload, out = out[9 : 9 + size], out[9 + size :]
            assert len(payload) == size, "a frame was cut"
            assert self.lax or size <= max(self.frame_size, frames.DEFAULT_FRAME_SIZE)
            assert not within or (kind == frames.CONTINUATION and stream_id == within)
            if kind in (frames.HEADERS, frames.CONTINUATION):
                if kind == frames.HEADERS:
                    assert stream_id > self.last
                    assert stream_id % 2
                    self.last = stream_id
                    self.windows[stream_id] = self.initial
                    block = b""
                block += payload
                within = 0 if flags & frames.END_HEADERS else stream_id
                if not within:
                    names = [name for name, _ in self.decoder.decode(block)]
                    assert names[:4] == [":method", ":scheme", ":path", ":authority"]
            elif kind == frames.DATA:
                assert stream_id in self.windows
                assert stream_id not in self.closed, "DATA after the end"
                if size:
                    self.window -= size
                    self.windows[stream_id] -= size
                    assert self.lax or (self.window >= 0 and self.windows[stream_id] >= 0)
                if flags & frames.END_STREAM:
                    self.closed.add(stream_id)
            elif kind == frames.RST_STREAM:
                assert stream_id in self.windows, "reset of what was never opened"
                self.closed.add(stream_id)
            elif kind == frames.WINDOW_UPDATE:
                assert 0 < frames.UINT32.unpack(payload)[0] <= frames.LARGEST_WINDOW
            else:
                assert kind in (frames.SETTINGS, frames.PING, frames.GOAWAY)
        assert not within


class Conversation:
    """One connection, and beside it a twin that always takes the long way."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.ours = Connection(b"127.0.0.1:2379")
        self.twin = Connection(b"127.0.0.1:2379")
        self.twin._receiver._decoder.memo = Forgetful()
        self.pairs: list[tuple[Stream, Stream]] = []
        self.ended: set[int] = set()
        self.peer = Peer()
        self.encoder = hpack.Encoder()
        self.written = 0

    # ---- what the user does

    def call(self) -> None:
        path, size = self.tape.pick(PATHS), self.tape.pick(SIZES)
        timeout = self.tape.pick((SECOND, 0, 5 * SECOND))
        self._make(lambda each: each.call(path, bytes(size), timeout, None, 0))

    def open_stream(self) -> None:
        self._make(lambda each: each.open_stream(b"/etcdserverpb.Watch/Watch", 0, None, 0))

    def _make(self, make: Callable[[Connection], Stream]) -> None:
        try:
            first = make(self.ours)
        except LocalError:
            assert not self.ours.accepting
            with pytest.raises(LocalError):
                make(self.twin)
            return
        second = make(self.twin)
        if not second.streaming:
            second.reader = MessageReader()  # no message is taken in place
        self.pairs.append((first, second))

    def send(self) -> None:
        alive = [pair for pair in self.pairs if pair[0].streaming and pair[0].code < 0]
        if alive:
            first, second = self.tape.pick(alive)
            message = bytes(self.tape.pick(SIZES))
            finish = not self.tape.below(3)
            for connection, stream in ((self.ours, first), (self.twin, second)):
                try:
                    connection.send_message(stream, message)
                except LocalError:
                    assert stream.upload is None or stream.upload.finishing
                if finish:
                    connection.finish(stream)

    def reset(self) -> None:
        alive = [pair for pair in self.pairs if pair[0].code < 0]
        if alive:
            first, second = self.tape.pick(alive)
            self.ours.reset(first, Code.CANCELLED)
            self.twin.reset(second, Code.CANCELLED)
            self.ended.add(id(first))

    def ping(self) -> None:
        self.ours.ping(b"12345678")
        self.twin.ping(b"12345678")

    # ---- what the server says

    def some_id(self) -> int:
        alive = [first.id for first, _ in self.pairs if first.code < 0 and first.id]
        if alive and self.tape.below(8):
            return int(self.tape.pick(alive))
        return int(self.tape.pick((0, 1, 2, 3, 5, 7, 9, 4_001, 0x7FFFFFFF, 0x80000001)))

    def head(self, stream_id: int, fields: list[tuple[bytes, bytes]], *, end: bool = False) -> bytes:
        block = self.encoder.encode(fields, huffman=not self.tape.below(16))  # hpack's own huffman code is slow
        flags = frames.END_STREAM if end else 0
        style = self.tape.below(6)
        if style == 4:
            pad = self.tape.below(20)
            block = bytes((pad,)) + block + bytes(pad)
            flags |= frames.PADDED
        elif style == 5:
            cuts = sorted(self.tape.below(len(block) + 1) for _ in range(self.tape.below(4)))
            parts = [block[a:b] for a, b in zip([0, *cuts], [*cuts, len(block)], strict=True)]
            last = len(parts) - 1
            return b"".join(
                frames.frame(
                    frames.CONTINUATION if n else frames.HEADERS,
                    (frames.END_HEADERS if n == last else 0) | (0 if n else flags),
                    stream_id,
                    part,
                )
                for n, part in enumerate(parts)
            )
        if len(block) > frames.DEFAULT_FRAME_SIZE:
            return frames.headers(stream_id, block, frames.DEFAULT_FRAME_SIZE, end_stream=end)
        return frames.frame(frames.HEADERS, flags | frames.END_HEADERS, stream_id, block)

    def body(self, stream_id: int) -> bytes:
        size = self.tape.pick(SIZES)
        message = PREFIX.pack(self.tape.pick((0, 0, 0, 0, 0, 0, 0, 1)), size) + bytes(size)
        how = self.tape.below(8)
        if how == 6:
            message = message[: self.tape.below(len(message) + 1)]
        elif how == 7:
            message += PREFIX.pack(0, self.tape.pick((1, 1 << 20, 1 << 31)))
        out = b""
        while True:
            part, message = message[: frames.DEFAULT_FRAME_SIZE - 300], message[frames.DEFAULT_FRAME_SIZE - 300 :]
            flags = 0
            if how == 5:
                pad = self.tape.below(256)
                part, flags = bytes((pad,)) + part + bytes(pad), frames.PADDED
            out += frames.frame(frames.DATA, flags, stream_id, part)
            if not message:
                return out

    def answer(self) -> bytes:
        stream_id = self.some_id()
        out = self.head(stream_id, OPEN) if self.tape.below(10) else b""
        for _ in range(self.tape.pick((1, 1, 1, 1, 0, 2, 3))):
            out += self.body(stream_id)
        return out + (self.trailers(stream_id) if self.tape.below(8) else b"")

    def trailers(self, stream_id: int) -> bytes:
        fields = [
            OK, OK, OK, OK, [(b"grpc-status", b"14"), (b"grpc-message", b"%zz%41" * self.tape.below(40))],
            [(b":status", b"503"), (b"content-type", b"text/html")], [*OPEN, *OK], [*OPEN, (b"grpc-status", b"9x")],
            [(b":status", b"100")], [(b"x", b"y"), (b":status", b"200")], [(b"grpc-message", b"x" * 5_000)],
            [(b"x%d" % n, bytes(100)) for n in range(self.tape.pick((1, 3, 10, 400, 800)))],
        ]  # fmt: skip
        return self.head(stream_id, self.tape.pick(fields), end=bool(self.tape.below(6)))

    def settings(self) -> bytes:
        self.write()  # what is queued was made under the limits until now
        values = {self.tape.pick(SETTINGS_IDS): self.tape.pick(WINDOWS) for _ in range(self.tape.below(4))}
        if frames.HEADER_TABLE_SIZE in values:
            self.peer.decoder.max_allowed_table_size = max(
                self.peer.decoder.max_allowed_table_size, values[frames.HEADER_TABLE_SIZE]
            )
        self.peer.apply(values)
        return frames.settings(values)

    def window(self) -> bytes:
        self.write()
        stream_id, increment = self.some_id(), self.tape.pick(WINDOWS)
        known = stream_id & 0x7FFFFFFF
        if known in self.peer.windows:
            self.peer.windows[known] += increment & 0x7FFFFFFF
        elif known == 0:
            self.peer.window += increment & 0x7FFFFFFF
        return frames.window_update(stream_id, increment)

    def control(self) -> bytes:
        stream_id = self.some_id()
        return bytes(
            self.tape.pick(
                (
                    frames.rst_stream(stream_id, self.tape.below(20)),
                    frames.ping(b"abcdefgh", ack=bool(self.tape.below(2))),
                    frames.goaway(self.tape.pick((0, 1, 3, 5, 0x7FFFFFFF)), self.tape.below(16), b"bye"),
                    frames.frame(frames.PUSH_PROMISE, frames.END_HEADERS, stream_id, b"\x00\x00\x00\x02\x88"),
                    frames.frame(frames.PRIORITY, 0, stream_id, self.tape.take(5)),
                    frames.settings_ack(),
                    frames.frame(0xEE, 0xFF, stream_id, b"unknown"),
                )
            )
        )

    def noise(self) -> bytes:
        """Any frame, a broken one, or no frame at all."""
        self.peer.lax = True
        how = self.tape.below(6)
        if how == 0:
            return self.tape.take(self.tape.below(60))
        if how == 1:
            return frames.frame(self.tape.below(12), self.tape.below(256), self.some_id(), self.tape.take(30))
        if how == 2:
            size = self.tape.pick((16_384, 16_385, 70_000))
            return frames.frame(self.tape.below(12), self.tape.below(256), self.some_id(), bytes(size))
        if how == 3:
            flood = self.tape.pick((frames.ping(bytes(8)), frames.settings({}), frames.settings({4: 0, 1: 0, 3: 0})))
            return bytes(flood) * self.tape.pick((1, 3, 10, 100, 5_000))
        if how == 4:
            stream_id = self.some_id()
            piece = frames.frame(frames.CONTINUATION, 0, stream_id, bytes(self.tape.pick((0, 1, 1_000))))
            return frames.frame(frames.HEADERS, 0, stream_id, b"\x88") + piece * self.tape.pick((1, 127, 200))
        whole = bytearray(self.answer())
        for _ in range(1 + self.tape.below(4)):
            if whole:
                whole[self.tape.below(len(whole))] = self.tape.below(256)
        return bytes(whole[: self.tape.below(len(whole) + 1)] if self.tape.below(2) else whole)

    # ---- one after the other

    def play(self) -> None:
        if self.tape.below(20):
            self.receive(frames.settings({}))
        user = (self.call, self.call, self.call, self.open_stream, self.send, self.reset, self.ping)
        server = (
            self.answer, self.answer, self.answer, self.answer, self.settings, self.window, self.control, self.noise
        )  # fmt: skip
        for _ in range(80):
            if self.tape.over:
                break
            if self.tape.below(2):
                self.tape.pick(user)()
            else:
                self.receive(self.tape.pick(server)())
            if self.tape.below(3):
                self.write()
            self.check()
        self.write()
        self.lose()

    def receive(self, data: bytes) -> None:
        chunk = self.tape.pick((1 << 20, 1 << 20, 4_096, 100, 7, 1))
        if len(data) > 5_000 * chunk:
            chunk = 4_096
        events: list[Any] = []
        twins: list[Any] = []
        began = time.process_time()
        for start in range(0, len(data), chunk):
            events += self.ours.receive_data(data[start : start + chunk])
            twins += self.twin.receive_data(data[start : start + chunk])
        assert time.process_time() - began < LONGEST_RECEIVE_S
        for event in events:
            if isinstance(event, Stream):
                assert event.code >= 0
                assert id(event) not in self.ended, "a call ended twice"
                self.ended.add(id(event))
        assert list(map(told, events)) == list(map(told, twins))
        for event, other in zip(events, twins, strict=True):
            if isinstance(event, Message) and self.tape.below(4):
                self.ours.consumed(event.stream, event.data)
                self.twin.consumed(other.stream, other.data)
        if any(isinstance(event, ConnectionEnded) for event in events):
            assert self.ours.ended is not None

    def write(self) -> None:
        out = self.ours.data_to_send()
        assert out == self.twin.data_to_send()
        self.written += len(out)
        if self.ours.ended is None:
            self.peer.read(out)

    def check(self) -> None:
        alive = {id(first) for first, _ in self.pairs if first.code < 0}
        assert {id(each) for each in self.ours.open_streams()} == alive
        assert self.ours.open_count == len(alive)
        assert not alive & self.ended
        sender, receiver = self.ours._sender, self.ours._receiver
        assert set(sender.blocked) <= set(sender.streams)
        assert all(each.id == 0 for each in sender.waiting)
        assert not (self.ours.ended and alive)
        assert len(receiver._tail) < frames.DEFAULT_FRAME_SIZE + 9
        assert sum(map(len, receiver._pieces)) <= MAX_HEADER_LIST + frames.DEFAULT_FRAME_SIZE
        assert len(receiver._pieces) <= 129
        assert sender.replies <= 4_097
        assert len(receiver._decoder.memo) <= 512
        assert len(sender._templates) <= 256

    def lose(self) -> None:
        for event in self.ours.lost("connection lost", self.written):
            assert isinstance(event, Stream)
            assert id(event) not in self.ended
            self.ended.add(id(event))
            assert event.unprocessed == (event.end > self.written)
        assert self.ours.open_count == 0
        assert self.ended == {id(first) for first, _ in self.pairs}
        sender = self.ours._sender
        assert not (sender.streams or sender.blocked or sender.waiting)


def told(event: object) -> object:
    """Return an event as a value that can be compared."""
    if isinstance(event, Stream):
        return (event.id, event.code, event.message, event.cause, event.detail, event.unprocessed, event.answered)
    return (event.stream.id, event.data) if isinstance(event, Message) else event


def play(tape: bytes) -> None:
    """Plays one conversation. Raises AssertionError, or whatever ``wire`` should not have raised."""
    Conversation(Tape(tape)).play()


def covered(tape: bytes) -> set[tuple[str, int, int]]:
    """Plays a conversation; returns the transitions from line to line in the package that it took."""
    found: set[tuple[str, int, int]] = set()

    def trace(frame: FrameType, _event: str, _arg: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE):
            return None
        before = 0

        def line(inner: FrameType, event: str, _arg: Any) -> Any:
            nonlocal before
            if event == "line":
                found.add((name, before, inner.f_lineno))
                before = inner.f_lineno
            return line

        return line

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        play(tape)
    finally:
        sys.settrace(previous)
    return found


def mutate(rng: random.Random, tape: bytes, other: bytes) -> bytes:
    """Return a tape like this one: bytes changed, parts removed, repeated, or taken from another."""
    new = bytearray(tape)
    for _ in range(1 << rng.randrange(5)):
        at = rng.randrange(len(new) + 1)
        match rng.randrange(6):
            case 0 | 1:
                new[at : at + 1] = rng.randbytes(1)
            case 2:
                del new[at : at + rng.randrange(1, 30)]
            case 3:
                new[at:at] = rng.randbytes(rng.randrange(1, 30))
            case 4:
                start = rng.randrange(len(other) + 1)
                new[at:at] = other[start : start + rng.randrange(1, 60)]
            case _:
                new[at:at] = new[at : at + rng.randrange(1, 60)]
    return bytes(new[:600])


def fuzz(seed: int, seconds: float) -> tuple[int, int]:
    """Fuzzes for so long; returns how many conversations were held and how many transitions were seen."""
    rng = random.Random(seed)
    corpus = [rng.randbytes(200) for _ in range(20)]
    seen: set[tuple[str, int, int]] = set()
    played, objects = 0, 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        tape = mutate(rng, rng.choice(corpus), rng.choice(corpus)) if rng.random() < 0.8 else rng.randbytes(300)
        try:
            # Every tenth with the tracer, which makes it slow.
            if played % 10 and played > 500:
                play(tape)
            else:
                found = covered(tape)
                if not found <= seen:
                    seen |= found
                    corpus.append(tape)
        except BaseException as exc:
            exc.add_note(f"play it again by play(base64.b85decode({base64.b85encode(tape)!r}))")
            raise
        played += 1
        if played % 5_000 == 0:
            gc.collect()
            now = len(gc.get_objects())
            # The corpus is bytes, which are not counted: conversations must leave nothing behind.
            assert not objects or now < objects + 20_000, f"{now - objects} objects more than at first"
            objects = objects or now
    return played, len(seen)


def test_some_conversations() -> None:
    rng = random.Random(5)
    for _ in range(400):
        tape = rng.randbytes(rng.choice((60, 200, 400)))
        try:
            play(tape)
        except BaseException as exc:
            exc.add_note(f"the tape: {base64.b85encode(tape)!r}")
            raise


@pytest.mark.soak
def test_for_as_long_as_there_is_time(soak_s: float) -> None:
    seed = int(os.environ.get("RAFTLOAD_FUZZ_SEED") or random.SystemRandom().randrange(1 << 32))
    played, transitions = fuzz(seed, soak_s)
    print(f"seed {seed}: {played:,} conversations, {transitions} transitions between lines of loadgen/wire")
    # A dozen conversations come so far; fewer have not got into the code that they are to try.
    assert transitions > 400
