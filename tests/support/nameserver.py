"""A nameserver for tests, on loopback: it answers with the SRV records that it was given, over UDP and TCP."""

from __future__ import annotations

import contextlib
import socketserver
import struct
import threading
from collections.abc import Iterator, Mapping
from typing import Literal

Record = tuple[int, int, int, str]
"""Priority, weight, port and target, the last with a dot at its end."""
Manner = Literal["plain", "cut", "deaf", "silent", "refusing", "garbled", "stranger"]
_SRV = 33


class Nameserver:
    """The records of a nameserver and how it behaves.

    Attributes:
        records: by name, in lower case and with a dot at the end.
        manner: ``cut``: over UDP it says that the answer is to be had over TCP; ``deaf``: the same, but over TCP
            nobody listens; ``silent``: it says nothing; ``refusing``: it answers REFUSED; ``garbled``: with half an
            answer; ``stranger``: first another question's.
        asked: the names that it was asked for, with the protocol.
    """

    def __init__(self, records: Mapping[str, list[Record]], manner: Manner) -> None:
        self.records, self.manner = dict(records), manner
        self.asked: list[tuple[str, str]] = []
        self.port = 0

    def answer(self, query: bytes, protocol: str) -> bytes:
        """Return the answer to a question."""
        name, end = _read(query, 12)
        self.asked.append((protocol, name))
        question = query[12 : end + 4]
        (kind,) = struct.unpack(">H", query[end : end + 2])
        assert kind == _SRV, kind
        cut = self.manner in ("cut", "deaf") and protocol == "udp"
        known = name.lower() in self.records
        found = self.records.get(name.lower(), []) if not cut else []
        code = 5 if self.manner == "refusing" else 0 if known or cut else 3
        flags = 0x8180 | (0x0200 if cut else 0) | code
        answers = b""
        for priority, weight, port, target in found:
            # The owner's name is a pointer to the question, as all nameservers write it.
            data = struct.pack(">HHH", priority, weight, port) + _written(target)
            answers += struct.pack(">HHHIH", 0xC00C, _SRV, 1, 60, len(data)) + data
        whole = query[:2] + struct.pack(">HHHHH", flags, 1, len(found), 0, 0) + question + answers
        return whole[:-4] if self.manner == "garbled" else whole


def _read(message: bytes, at: int) -> tuple[str, int]:
    labels = []
    while message[at]:
        labels.append(message[at + 1 : at + 1 + message[at]].decode())
        at += 1 + message[at]
    return ".".join(labels) + ".", at + 1


def _written(name: str) -> bytes:
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


@contextlib.contextmanager
def nameserver(records: Mapping[str, list[Record]], manner: Manner = "plain") -> Iterator[Nameserver]:
    """Yield a nameserver that runs for a block, at ``port`` of 127.0.0.1."""
    made = Nameserver(records, manner)

    class Datagrams(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            query, sock = self.request
            answer = made.answer(query, "udp")
            if made.manner == "stranger":
                sock.sendto(bytes([answer[0] ^ 1]) + answer[1:], self.client_address)
            if made.manner != "silent":
                sock.sendto(answer, self.client_address)

    class Streams(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            (size,) = struct.unpack(">H", self.rfile.read(2))
            answer = made.answer(self.rfile.read(size), "tcp")
            self.wfile.write(struct.pack(">H", len(answer)) + answer)

    with (
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Streams, bind_and_activate=False) as streams,
        contextlib.ExitStack() as stack,
    ):
        streams.server_bind()
        datagrams = stack.enter_context(
            socketserver.ThreadingUDPServer(streams.server_address, Datagrams)  # type: ignore[arg-type]
        )
        servers: list[socketserver.BaseServer] = [datagrams]
        if manner != "deaf":
            streams.server_activate()
            servers.append(streams)
        made.port = streams.server_address[1]
        for server in servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield made
        finally:
            for server in servers:
                server.shutdown()
