"""A registry of one image, on loopback, that can also answer nothing or be slow: for tests of pulling."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import tarfile
import threading
from pathlib import Path

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """Serves ``etcd:v0.0.1``, made of the files given by their path in it; ``silent`` accepts and never answers."""

    def __init__(self, files: dict[str, Path], *, silent: bool = False) -> None:
        layer = _layer(files)
        config = json.dumps(
            {
                "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/usr/local/bin"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        ).encode()  # fmt: skip
        self._blobs = {_digest(layer): layer, _digest(config): config}
        self._manifest = json.dumps(
            {
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": {"mediaType": "application/vnd.docker.container.image.v1+json",
                           "size": len(config), "digest": _digest(config)},
                "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                            "size": len(layer), "digest": _digest(layer)}],
            }
        ).encode()  # fmt: skip
        self._ended = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if silent:
                    outer._ended.wait()
                    return
                code, kind, body = outer.answer(self.path)
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
                if kind == MANIFEST:
                    self.send_header("Docker-Content-Digest", _digest(body))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def answer(self, path: str) -> tuple[int, str, bytes]:
        if path.rstrip("/") == "/v2":
            return 200, "application/json", b"{}"
        last = path.rpartition("/")[2]
        if "/manifests/" in path and last in ("v0.0.1", _digest(self._manifest)):
            return 200, MANIFEST, self._manifest
        if "/blobs/" in path and last in self._blobs:
            return 200, "application/octet-stream", self._blobs[last]
        error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
        return 404, "application/json", json.dumps(error).encode()

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _layer(files: dict[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, path in files.items():
            info = tarfile.TarInfo(name)
            info.mode, info.size = 0o755, path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(info, file)
    return buffer.getvalue()
