"""TLS over a non-blocking socket, with a socket's own ``recv`` and ``send``, for the transport.

OpenSSL works on memory (``ssl.SSLObject``), so one read of the socket brings many records and one record carries what
all greenlets of a turn have written.
"""

from __future__ import annotations

import _socket
import contextlib
import ssl
from time import monotonic

from cluster.base.security import NO_ALPN, PLAIN_SPOKEN, Security, tls_cause
from loadgen.client.connect_errors import TlsError

_RECORD = 16_384  # the most that a record holds (RFC 8446, section 5.1)
_READ_SIZE = 65_536


class TlsOptions:
    """How the connections of one client speak TLS: one context for all. Raises SecurityError for files of no use."""

    def __init__(self, security: Security) -> None:
        self._context = security.context("h2")
        self._certificate = security.cert is not None

    def begin(self, host: str) -> Tls:
        """Take the host that certificates must name, return the TLS of a new connection."""
        return Tls(self._context, host, certificate=self._certificate)


class Tls:
    """The TLS of one connection.

    Takes the context that ``Security.context`` makes, the host as certificates name it, and whether the context has a
    client certificate. TLS 1.3's key updates and tickets are answered by OpenSSL, within reading and writing.
    """

    def __init__(self, context: ssl.SSLContext, host: str, *, certificate: bool) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._certificate = certificate
        self._socket: _socket.socket | None = None
        self._unsent: bytes | memoryview = b""
        self._owed = 0

    def handshake(self, socket: _socket.socket, until: float) -> None:
        """Shake hands over a socket that waits, until a moment of the monotonic clock; HTTP/2 must be agreed upon.

        Raises TlsError, whose ``cause`` says why not, and OSError as the socket does.
        """
        begun = False
        try:
            while True:
                try:
                    self._object.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    socket.settimeout(max(0.001, until - monotonic()))
                    socket.sendall(self._outgoing.read())
                    data = socket.recv(_READ_SIZE)
                    if not data:
                        raise ConnectionResetError("connection closed during the TLS handshake") from None
                    if not begun and data[:1] not in (b"\x15", b"\x16"):
                        raise TlsError(PLAIN_SPOKEN, "its answer is not TLS") from None
                    begun = True
                    self._incoming.write(data)
            socket.sendall(self._outgoing.read())
        except ssl.SSLError as exc:
            with contextlib.suppress(OSError):
                socket.sendall(self._outgoing.read())  # the alert
            raise self._translated(exc) from exc
        if self._object.selected_alpn_protocol() != "h2":
            raise TlsError(NO_ALPN, "its answer names no protocol, or another one")

    def attach(self, socket: _socket.socket) -> None:
        """Take the non-blocking socket for what follows."""
        self._socket = socket

    def recv(self, size: int) -> bytes:
        """Return what came, decrypted; empty at the end. ``size`` is how much to take from the network.

        Raises BlockingIOError where there is nothing yet, TlsError for an alert, and OSError as the socket does.
        """
        # An operation that comes alone pays for all of this once a record: etcd writes its answer in three or four.
        incoming = self._incoming
        if not incoming.pending:  # else the handshake left some
            assert self._socket is not None
            data = self._socket.recv(size)
            if not data:
                return b""
            incoming.write(data)
        try:
            first = self._object.read(_RECORD)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None  # a part of a record, or one without data, as a ticket
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLError as exc:
            raise self._translated(exc) from exc
        # Not asked again where nothing is left: OpenSSL would raise what costs more than a record.
        if not incoming.pending or not first:
            return first
        parts = [first]
        with contextlib.suppress(ssl.SSLError):  # the end of the connection follows what is wrong
            while incoming.pending:
                part = self._object.read(_RECORD)
                if not part:
                    break  # close_notify
                parts.append(part)
        return b"".join(parts)

    def send(self, data: bytes | memoryview) -> int:
        """Encrypt and write; return how many bytes of ``data`` have gone out whole.

        What the socket did not take is kept, so the next call must begin with the byte after those. A record of which
        the peer has not got the last byte tells it nothing, so its bytes do not count as sent. Raises BlockingIOError
        where none has gone out, and OSError as the socket does.
        """
        assert self._socket is not None
        whole = len(data)
        taken = 0
        while True:
            if self._unsent:
                try:
                    size = self._socket.send(self._unsent)
                except (BlockingIOError, InterruptedError):
                    break
                if size < len(self._unsent):
                    self._unsent = memoryview(self._unsent)[size:]
                    break
                self._unsent = b""
                taken += self._owed
                self._owed = 0
            if taken == whole:
                return taken
            fits = not taken and whole <= _RECORD
            self._owed = self._object.write(data if fits else memoryview(data)[taken : taken + _RECORD])
            self._unsent = self._outgoing.read()
        if not taken:
            raise BlockingIOError
        return taken

    def close(self) -> None:
        """Say goodbye with close_notify, where the socket takes it; do not wait for the peer's."""
        if self._socket is None or self._unsent:
            return
        with contextlib.suppress(OSError):
            with contextlib.suppress(ssl.SSLError):
                self._object.unwrap()
            self._socket.send(self._outgoing.read())

    def _translated(self, exc: ssl.SSLError) -> TlsError:
        return TlsError(tls_cause(exc, certificate=self._certificate), exc.reason or str(exc))
