"""TLS over a socket that gives and takes what a test says: split and joined records, tickets, ends, partial sends."""

from __future__ import annotations

import _socket
import contextlib
import ssl
from collections import deque
from pathlib import Path
from typing import cast

import pytest

from cluster.base.security import CERTIFICATE_WANTED, TLS_FAILED, Security
from loadgen.client.connect_errors import TlsError
from loadgen.client.tls import Tls
from tests.support.certificates import Authority, Pair

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class Server:
    """The other end of the socket in memory, and the socket itself: reads come from ``coming``, one entry each."""

    def __init__(self, pair: Pair, version: ssl.TLSVersion, client_ca: str | None = None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        context.maximum_version = version
        context.set_alpn_protocols(["h2"])
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.coming: deque[bytes] = deque()
        self._shaking = True
        # How many bytes the socket takes; None: all.
        self.room: int | None = None

    # ---- as a server

    def take(self) -> bytes:
        """Return what it has to say."""
        return self._outgoing.read()

    def records(self, *texts: bytes) -> bytes:
        """Return a record for each."""
        for text in texts:
            self.object.write(text)
        return self.take()

    def read(self) -> bytes:
        """Return all that came whole."""
        found = bytearray()
        try:
            while part := self.object.read(65_536):
                found += part
        except ssl.SSLWantReadError:
            pass
        return bytes(found)

    def refuse(self) -> bytes:
        """Take a record that is none, return the alert."""
        self._incoming.write(b"\x17\x03\x03\x00\x20" + b"?" * 32)
        with pytest.raises(ssl.SSLError):
            self.object.read(1)
        return self.take()

    # ---- as the client's socket

    def settimeout(self, timeout_s: float) -> None:
        """Nothing here waits."""

    def sendall(self, data: bytes) -> None:
        self._incoming.write(data)

    def send(self, data: bytes | memoryview) -> int:
        size = len(data) if self.room is None else min(self.room, len(data))
        if not size:
            raise BlockingIOError
        if self.room is not None:
            self.room -= size
        return self._incoming.write(data[:size])

    def recv(self, size: int) -> bytes:
        if self._shaking:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.object.do_handshake()
            return self.take()
        if not self.coming:
            raise BlockingIOError
        data = self.coming.popleft()
        if len(data) > size:
            self.coming.appendleft(data[size:])
        return data[:size]

    def finish(self) -> bytes:
        """End the handshake; return what it says after it, such as tickets."""
        self._shaking = False
        with contextlib.suppress(ssl.SSLError):
            self.object.do_handshake()
        return self.take()


class Place:
    """Certificates, and connections of which the handshake is over."""

    def __init__(self, folder: Path) -> None:
        self._authority = Authority(folder)
        self._pair = self._authority.sign("server", "127.0.0.1")

    def connect(self, version: ssl.TLSVersion, *, mutual: bool = False) -> tuple[Server, Tls, bytes]:
        """Return both ends, and what the server said after the handshake."""
        server = Server(self._pair, version, self._authority.cert if mutual else None)
        tls = Tls(Security(cacert=self._authority.cert).context("h2"), "127.0.0.1", certificate=False)
        tls.handshake(cast("_socket.socket", server), 1e9)
        after = server.finish()
        tls.attach(cast("_socket.socket", server))
        return server, tls, after


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("certificates"))


def drain(tls: Tls) -> list[bytes]:
    """Read until there is nothing more now, or the end, which is empty."""
    found: list[bytes] = []
    while not found or found[-1]:
        try:
            found.append(tls.recv(65_536))
        except BlockingIOError:
            break
    return found


def read_all(server: Server, tls: Tls) -> bytes:
    """Read until the socket has no more, however often there is nothing for us in it."""
    found = bytearray()
    while server.coming:
        for part in drain(tls):
            found += part
    return bytes(found)


@pytest.mark.parametrize("version", VERSIONS)
def test_records_split_at_any_byte(place: Place, version: ssl.TLSVersion) -> None:
    server, tls, after = place.connect(version)
    server.coming.append(after)
    read_all(server, tls)
    texts = (b"head", b"a message of some length", b"t")
    split = 0
    while split < len(data := server.records(*texts)):
        server.coming += [part for part in (data[:split], data[split:]) if part]
        assert read_all(server, tls) == b"".join(texts)
        split += 1
    server.coming.append(data)
    assert read_all(server, tls) == b"".join(texts)
    server.coming += [bytes([byte]) for byte in server.records(*texts)]
    assert read_all(server, tls) == b"".join(texts)


@pytest.mark.parametrize("version", VERSIONS)
def test_several_records_are_one_read(place: Place, version: ssl.TLSVersion) -> None:
    server, tls, after = place.connect(version)
    server.coming.append(after + server.records(b"one", b"two", b"three"))
    assert drain(tls) == [b"onetwothree"]
    # The whole ones come at once, the rest with its end.
    data = server.records(b"four", b"f" * 40_000)
    server.coming += [data[:20_000], data[20_000:]]
    first, second = drain(tls)
    assert first.startswith(b"four") and first + second == b"four" + b"f" * 40_000
    # More than is taken from the network at a time.
    server.coming.append(server.records(b"g" * 300_000))
    assert read_all(server, tls) == b"g" * 300_000


def test_what_holds_no_data_is_nothing_to_read(place: Place) -> None:
    """TLS 1.3's tickets are records, too."""
    server, tls, tickets = place.connect(ssl.TLSVersion.TLSv1_3)
    assert tickets
    server.coming.append(tickets)
    assert drain(tls) == []
    server.coming.append(server.records(b"data"))
    assert drain(tls) == [b"data"]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_came_with_the_handshake_is_read(place: Place, version: ssl.TLSVersion) -> None:
    server, tls, after = place.connect(version)
    tls._incoming.write(after + server.records(b"settings"))
    assert drain(tls) == [b"settings"]


@pytest.mark.parametrize("version", VERSIONS)
def test_ends(place: Place, version: ssl.TLSVersion) -> None:
    """With close_notify, alone or after data, and without."""
    for texts in ((), (b"last",)):
        server, tls, after = place.connect(version)
        data = server.records(*texts)
        with pytest.raises(ssl.SSLError):
            server.object.unwrap()
        server.coming += [after + data + server.take(), b""]
        assert drain(tls) == [*texts, b""]
    server, tls, after = place.connect(version)
    server.coming += [after + server.records(b"last"), b""]
    assert drain(tls) == [b"last", b""]
    # In the middle of a record.
    server, tls, after = place.connect(version)
    server.coming += [after + server.records(b"last")[:-1], b""]
    assert read_all(server, tls) == b""


@pytest.mark.parametrize("version", VERSIONS)
def test_alerts(place: Place, version: ssl.TLSVersion) -> None:
    server, tls, after = place.connect(version)
    server.coming.append(after + server.refuse())
    with pytest.raises(TlsError) as caught:
        drain(tls)
    assert caught.value.cause == TLS_FAILED and "BAD_RECORD_MAC" in str(caught.value)
    # What was said before it is not lost.
    server, tls, after = place.connect(version)
    server.coming += [after + server.records(b"answer") + server.refuse(), b""]
    assert drain(tls) == [b"answer", b""]


def test_an_alert_about_our_certificate(place: Place) -> None:
    """In TLS 1.3 the client has finished by then."""
    _, tls, after = (found := place.connect(ssl.TLSVersion.TLSv1_3, mutual=True))
    found[0].coming.append(after)
    with pytest.raises(TlsError) as caught:
        drain(tls)
    assert caught.value.cause == CERTIFICATE_WANTED


@pytest.mark.parametrize("version", VERSIONS)
def test_a_record_that_was_changed(place: Place, version: ssl.TLSVersion) -> None:
    server, tls, after = place.connect(version)
    data = bytearray(after + server.records(b"data"))
    data[-1] ^= 1
    server.coming.append(bytes(data))
    with pytest.raises(TlsError):
        drain(tls)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [1, 16_384, 16_385, 100_000])
def test_sending_into_little_room(place: Place, version: ssl.TLSVersion, size: int) -> None:
    """What counts as sent has reached the peer, and no byte comes twice."""
    server, tls, _ = place.connect(version)
    text = bytes(number % 251 for number in range(size))
    sent, got = 0, bytearray()
    server.room = 0
    while sent < size:
        with pytest.raises(BlockingIOError):
            tls.send(memoryview(text)[sent:])
        for room in (1, 7_000, 20_000):
            server.room = room
            try:
                if sent < size:
                    sent += tls.send(memoryview(text)[sent:] if sent else text)
            except BlockingIOError:
                pass
            got += server.read()
            assert len(got) >= sent and text.startswith(bytes(got))
            assert not server.room or sent == size
        server.room = 0
    assert got == text
    # And with room the next one goes at once.
    server.room = None
    assert tls.send(text) == size and server.read() == text


def test_a_record_is_read_once(place: Place) -> None:
    """OpenSSL is not asked for more than has come: its refusal costs more than a record."""
    server, tls, after = place.connect(ssl.TLSVersion.TLSv1_3)
    server.coming.append(after)
    read_all(server, tls)
    asked = []
    read = tls._object.read

    class Counted:
        def read(self, size: int) -> bytes:
            asked.append(size)
            return read(size)

    tls._object = cast("ssl.SSLObject", Counted())
    for texts in ((b"one",), (b"two", b"three"), (b"four",)):
        server.coming.append(server.records(*texts))
    assert drain(tls) == [b"one", b"twothree", b"four"]
    assert len(asked) == 4
