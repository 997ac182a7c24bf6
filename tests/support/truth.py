"""A server that takes a known time to answer, and wrote down when it read and answered each request; see truth.c.

It answers what a run asks a member for, as the leader of a cluster of one whose keys are all there. It takes its time
for an operation of the load only: a get, a put, a transaction that compares, of a key that does not end with a slash.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct

import hpack

from loadgen.client.channel import STATUS
from loadgen.client.etcd import DELETE_RANGE, PUT, RANGE, TXN
from loadgen.client.members import MEMBER_LIST
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto import kv_pb2
from loadgen.wire import frames
from loadgen.wire.grpc import PREFIX, Code
from tests.support import native
from tests.support.missing import require
from tests.support.waiting import HANG_S

# Flags of truth.c. A range has an end for its second field, a transaction that compares nothing has no first one.
_SERVED, _WRITES, _WITH_FIRST, _WITH_SECOND = 1, 2, 4, 8
_MARK = 0x123456789  # where the revision goes
_RECORD = Struct("=QQQQBBB5x40s")
_MEMBER = 1 << 61
_HEADER = pb.ResponseHeader(cluster_id=1 << 60, member_id=_MEMBER, revision=_MARK, raft_term=2)
_FOUND = kv_pb2.KeyValue(key=b"k" * 32, value=b"v" * 64, create_revision=5, mod_revision=77, version=3)


@dataclass(frozen=True, slots=True)
class Served:
    """A request and its answer: times in nanoseconds of the monotonic clock, ``answered`` 0 where it was not.

    ``began`` and ``due`` are when it was to be served and answered. Of the key it has the first 40 bytes.
    """

    read: int
    began: int
    due: int
    answered: int
    path: bytes
    refused: bool
    key: bytes

    @property
    def took(self) -> int:
        """From having read it to answering, in nanoseconds."""
        return self.answered - self.read


@dataclass
class TruthServer:
    """One that runs. ``served`` is empty until it has ended."""

    endpoint: str
    served: list[Served] = field(default_factory=list)

    def of_run(self, prefix: str) -> list[Served]:
        """Return the operations of a run with this prefix of its keys, in the order in which they were read."""
        return [each for each in self.served if each.key.startswith(prefix.encode())]


def block(*fields: tuple[bytes, bytes]) -> bytes:
    """Return a header block that needs no table."""
    return bytes(hpack.Encoder().encode([(*each, True) for each in fields], huffman=False))


_OPENS = ((b":status", b"200"), (b"content-type", b"application/grpc"))


def answer(message: bytes) -> bytes:
    """Return the frames that answer a call with a message; their stream's id is 0."""
    return (
        frames.frame(frames.HEADERS, frames.END_HEADERS, 0, block(*_OPENS))
        + frames.frame(frames.DATA, 0, 0, PREFIX.pack(0, len(message)) + message)
        + frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 0, block((b"grpc-status", b"0")))
    )


def refusal(code: Code, detail: bytes) -> bytes:
    """Return the frame that answers a call with an error; its stream's id is 0."""
    closes = block(*_OPENS, (b"grpc-status", b"%d" % code), (b"grpc-message", detail))
    return frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 0, closes)


def _methods(endpoint: str) -> list[tuple[int, bytes, bytes]]:
    written = pb.ResponseOp(response_put=pb.PutResponse(header=pb.ResponseHeader(revision=_MARK)))
    answers = [
        (_WITH_SECOND, RANGE, pb.RangeResponse(header=_HEADER)),
        (_SERVED, RANGE, pb.RangeResponse(header=_HEADER, kvs=[_FOUND], count=1)),
        (_SERVED | _WRITES, PUT, pb.PutResponse(header=_HEADER)),
        (_SERVED | _WRITES | _WITH_FIRST, TXN, pb.TxnResponse(header=_HEADER, succeeded=True, responses=[written])),
        (_WRITES, TXN, pb.TxnResponse(header=_HEADER, succeeded=True)),
        (_WRITES, DELETE_RANGE, pb.DeleteRangeResponse(header=_HEADER)),
        (0, STATUS, pb.StatusResponse(header=_HEADER, version="3.5.1", dbSize=1 << 20, dbSizeInUse=1 << 20,
                                      leader=_MEMBER, raftIndex=9, raftTerm=2, raftAppliedIndex=9)),
        (0, MEMBER_LIST, pb.MemberListResponse(header=_HEADER, members=[
            pb.Member(ID=_MEMBER, name="truth", clientURLs=[endpoint], peerURLs=["http://127.0.0.1:2380"])])),
    ]  # fmt: skip
    return [(flags, path, answer(message.SerializeToString())) for flags, path, message in answers]


_PATHS = [path for _, path, _ in _methods("")]


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@contextlib.contextmanager
def truth_server(**options: object) -> Iterator[TruthServer]:
    """Run one that is given options of truth.c, such as ``latency="exp:200"``; yield it. Skips without a compiler."""
    if reason := native.no_compiler():
        require("core", reason)
    with running(**options) as server:
        yield server


@contextlib.contextmanager
def running(**options: object) -> Iterator[TruthServer]:
    """Do the same outside of tests. Raises FileNotFoundError without a compiler."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with tempfile.NamedTemporaryFile() as record:
        process = subprocess.Popen(
            [native.build("truth"), record.name, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            server = TruthServer(f"127.0.0.1:{int(process.stdout.readline())}")
            process.stdin.write(_sized(refusal(Code.UNAVAILABLE, b"refused for a while")))
            process.stdin.write(_sized(refusal(Code.UNIMPLEMENTED, b"not a method of this server")))
            for flags, path, each in _methods(f"http://{server.endpoint}"):
                process.stdin.write(bytes([flags]) + _sized(path) + _sized(each))
            process.stdin.close()
            try:
                yield server
            finally:
                process.terminate()
                process.wait(HANG_S)
        assert process.returncode == 0, process.returncode
        for *times, method, refused, size, key in _RECORD.iter_unpack(Path(record.name).read_bytes()):
            server.served.append(Served(*times, _PATHS[method], bool(refused), key[:size]))
