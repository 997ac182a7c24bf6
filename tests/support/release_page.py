"""A release page of etcd on loopback, archives for it, and a proxy that leads to it: for tests of `raftload etcd`."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import random
import select
import socket
import ssl
import tarfile
import threading
from pathlib import Path

from cluster.releases.archive import PROGRAMS
from tests.support.certificates import Pair


def make_archive(release: str, programs: Path) -> bytes:
    """Return an archive laid out as etcd's own, of the programs in a folder; not deflated, which takes time."""
    entries = [file_entry(f"{release}/{each}", b"text") for each in ("README.md", "Documentation/README.md")]
    there = [path for each in PROGRAMS if (path := programs / each).is_file()]
    return pack([*entries, *(file_entry(f"{release}/{path.name}", path.read_bytes()) for path in there)], level=0)


def small_archive(release: str, version: str) -> bytes:
    """Return an archive of two megabytes, for what does not depend on which programs are in it.

    Takes the name of the release, and the version that its etcd gives as its own.
    """
    program = f"#!/bin/sh\necho etcd Version: {version}\n".encode()
    return pack([file_entry(f"{release}/etcd", program), file_entry(f"{release}/etcdctl", random.randbytes(1 << 21))])


def file_entry(path: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    """Return a regular file."""
    info = tarfile.TarInfo(path)
    info.size = len(content)
    return info, content


def link_entry(path: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    """Return a symbolic link."""
    info = tarfile.TarInfo(path)
    info.type, info.linkname = tarfile.SYMTYPE, to
    return info, b""


def pack(entries: list[tuple[tarfile.TarInfo, bytes]], level: int = 6) -> bytes:
    """Return a tar.gz of entries, as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=level) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class ReleasePage:
    """Serves releases as github.com does, under ``url``; close it, or use it in ``with``.

    Attributes:
        files: content by path, such as ``v3.6.14/SHA256SUMS``.
        cut: paths of which only a half is sent, though all of it is announced.
        stalled: paths that stop in the middle until ``go`` is set.
        moved: addresses to go to, by path.
        codes: other answers than 200, by path.
        asked: the paths that were asked for, in order.
        halfway: set when a stalled file has stopped.
    """

    def __init__(self, pair: Pair | None = None) -> None:
        """Take a certificate for TLS."""
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.stalled: set[str] = set()
        self.moved: dict[str, str] = {}
        self.codes: dict[str, int] = {}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.halfway, self.go = threading.Event(), threading.Event()
        page = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page._answer(self)

            def log_message(self, *args: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                """Says nothing of a client that trusts us not, or is gone."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"{'https' if pair else 'http'}://127.0.0.1:{self.port}/etcd"
        if pair:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pair.cert, pair.key)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> ReleasePage:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, version: str, name: str, content: bytes) -> None:
        """Add an archive of a version and its checksum."""
        sums = self.files.get(f"v{version}/SHA256SUMS", b"")
        self.files[f"v{version}/SHA256SUMS"] = sums + f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()
        self.files[f"v{version}/{name}"] = content

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        # A proxy is asked for a whole address.
        path = request.path.partition("/etcd/")[2]
        self.asked.append(path)
        self.headers.append(dict(request.headers))
        content = self.files.get(path)
        if path in self.moved:
            request.send_response(302)
            request.send_header("Location", self.moved[path])
        elif content is None or path in self.codes:
            request.send_response(self.codes.get(path, 404))
        else:
            request.send_response(200)
        body = content if content is not None and path not in self.codes and path not in self.moved else b""
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        half = len(body) // 2
        with contextlib.suppress(OSError):
            request.wfile.write(body[:half])
            if path in self.cut:
                request.close_connection = True
                return
            if path in self.stalled:
                request.wfile.flush()
                self.halfway.set()
                self.go.wait()
            request.wfile.write(body[half:])


class ConnectProxy:
    """A proxy on loopback that leads every CONNECT to one port, whatever host was asked for."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._lead, args=(self._listener.accept()[0],), daemon=True).start()

    def _lead(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(1)
            self.asked.append(head.split(b"\r\n")[0].decode())
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                while ready := select.select([client, server], [], [])[0]:
                    for each in ready:
                        if not (data := each.recv(1 << 16)):
                            return
                        (server if each is client else client).sendall(data)
