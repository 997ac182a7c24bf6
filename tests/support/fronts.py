"""What stands between clients and etcd: proxies that pass on only a part of what etcd speaks."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import http.server
import shutil
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import grpc

from cluster.observe.calls import speaks_grpc
from tests.support.missing import require
from tests.support.ports import take_ports
from tests.support.waiting import HANG_S, until


@contextlib.contextmanager
def json_only(endpoint: str) -> Iterator[str]:
    """Yield the endpoint of a proxy for HTTP/1.1, which passes etcd's JSON gateway on, and no gRPC."""

    class Front(http.server.BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            behind = http.client.HTTPConnection(endpoint, timeout=10)
            with contextlib.closing(behind):
                headers = {name: value for name, value in self.headers.items() if name == "Authorization"}
                behind.request(self.command, self.path, body, headers)
                answer = behind.getresponse()
                said = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = _pass_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Front)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(HANG_S)


@contextlib.contextmanager
def denying(
    endpoint: str, *methods: str, port: int = 0, asked: list[str] | None = None, lost: Collection[str] = ()
) -> Iterator[str]:
    """Yield the endpoint of a proxy for gRPC that refuses some methods, as etcd 3.5.28 to 3.5.31 and 3.6.0 to 3.6.11
    refuse ``Maintenance/Status`` to users without the role root.

    It passes unary calls on, and speaks no HTTP/1, so that JSON is no way around it. ``port`` is its own; 0 for any.
    What it is asked for is added to ``asked``, as ``Cluster/MemberList``. The first answer to each of the methods
    ``lost`` is lost: etcd has done what was asked for, and the client hears that nobody is there.
    """
    channel = grpc.insecure_channel(endpoint)
    to_lose = set(lost)

    class Front(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            metadata = [(name, value) for name, value in details.invocation_metadata if name == "token"]

            def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
                name = details.method.rpartition(".")[2]
                if asked is not None:
                    asked.append(name)
                if name in methods:
                    context.abort(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
                try:
                    said: bytes = channel.unary_unary(details.method)(request, timeout=10, metadata=metadata)
                except grpc.RpcError as exc:
                    context.abort(exc.code(), exc.details())
                if name in to_lose:
                    to_lose.remove(name)
                    context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
                return said

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Front(),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait(HANG_S)
        channel.close()


@contextlib.contextmanager
def _process(argv: list[str], endpoint: str, is_up: Callable[[], Any]) -> Iterator[str]:
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: process.poll() is not None or is_up(), argv[0])
        assert process.poll() is None, f"{argv[0]} ended with {process.returncode}"
        yield endpoint
    finally:
        process.terminate()
        process.wait(HANG_S)


@contextlib.contextmanager
def etcd_proxy(binary: str, *endpoints: str) -> Iterator[str]:
    """Yield the endpoint of an ``etcd grpc-proxy`` in front of members."""
    front = f"127.0.0.1:{take_ports(1)}"
    # It ends after 5 s where it does not reach itself at the address that it gives to clients.
    where = (f"--listen-addr={front}", f"--advertise-client-url={front}")
    argv = [binary, "grpc-proxy", "start", f"--endpoints={','.join(endpoints)}", *where]
    with _process(argv, front, lambda: speaks_grpc(front)):
        yield front


_NGINX = """\
daemon off; pid {folder}/pid; error_log {folder}/errors;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen {front} http2; {what} }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, what: str) -> Iterator[str]:
    """Yield the endpoint of an nginx that speaks HTTP/2 without TLS and does what its configuration says of a server;
    take a folder for its files. Skips the test where there is no nginx.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        require("nginx", "no nginx on PATH")
    assert program is not None
    front = f"127.0.0.1:{take_ports(1)}"
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, front=front, what=what))
    argv = [program, "-e", str(folder / "errors"), "-c", str(config)]
    with _process(argv, front, lambda: speaks_grpc(front) is not None):
        yield front
