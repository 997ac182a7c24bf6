"""The server of ``--metrics-listen``: a session's runs for Prometheus, over HTTP on the master's event loop.

A scrape is a greenlet of its own, and costs the master a few milliseconds; workers do not notice it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cluster.base.errors import RaftloadError
from loadgen.load.settings import SettingsError

if TYPE_CHECKING:
    from loadgen.run.session import Session

OPTION = "--metrics-listen"
LOOPBACK = "127.0.0.1"
PATH = "/metrics"
# How long a scrape that is going on at the end may take.
LAST_SCRAPE_S = 1.0

logger = logging.getLogger(__name__)


def add_argument(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the option that says where to serve metrics."""
    parser.add_argument(
        OPTION, metavar="[HOST]:PORT",
        help="serve metrics for Prometheus at http://HOST:PORT/metrics until the command ends, such as :9464 (default "
        f"host: {LOOPBACK}; port 0: any free one, which stderr names); whoever reaches the address can read them",
    )  # fmt: skip


def parse(text: str) -> tuple[str, int]:
    """Return the host and the port that ``:9464``, ``127.0.0.1:9464`` or ``[::1]:0`` mean. Raises SettingsError."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
        if port is None or parts.netloc != text or parts.username is not None:
            raise ValueError("no port")
        (host or LOOPBACK).encode("idna")  # else gevent's resolver prints a traceback
    except ValueError as error:
        raise SettingsError(
            f"{OPTION}: {text!r} is not [HOST]:PORT, such as :9464 or [::1]:0", option=OPTION
        ) from error
    return host or LOOPBACK, port


def check(text: str | None) -> None:
    """Raise SettingsError for an address that is none; None is no address to serve at."""
    if text is not None:
        parse(text)


class Exporter:
    """A listening socket, and from `serve` on what answers there. `listening` makes and closes it.

    Takes host and port. Raises RaftloadError where nobody can listen there.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server: Any = None
        try:
            family, kind, proto, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._socket = socket.socket(family, kind, proto)
        except OSError as error:
            raise RaftloadError(f"{OPTION}: cannot listen on {host}: {error.strerror}") from error
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
            self._socket.listen()
        except OSError as error:
            self._socket.close()
            raise RaftloadError(f"{OPTION}: cannot listen on {_shown(host, port)}: {error.strerror}") from error
        # A forked worker closes what a program that is executed would have; this is the master's.
        self._socket.set_inheritable(True)
        self.url = f"http://{_shown(host, self._socket.getsockname()[1])}{PATH}"

    def serve(self, session: Session) -> None:
        """Serve the metrics of a session's runs, once its workers are forked."""
        from gevent.pool import Pool
        from gevent.pywsgi import WSGIServer
        from prometheus_client import make_wsgi_app

        from loadgen.run.exposition import registry_of

        self._socket.set_inheritable(False)
        session.exporter = self
        app = _only_metrics(make_wsgi_app(registry_of(session)))
        # In a pool `stop` ends them; and what is no request is for the log: stderr may be for programs.
        self._server = WSGIServer(self._socket, app, spawn=Pool(), log=None, error_log=logger)
        self._server.start()

    def close(self) -> None:
        """Answer nobody any more; a scrape that is going on gets `LAST_SCRAPE_S`."""
        if self._server is not None:
            self._server.stop(timeout=LAST_SCRAPE_S)
        self._socket.close()


@contextlib.contextmanager
def listening(text: str | None) -> Iterator[Exporter | None]:
    """Yield what listens at an address, and close it at the end; None where there is none.

    For a process that `patching.patch` has patched, before it forks workers. Raises SettingsError and RaftloadError.
    """
    if text is None:
        yield None
        return
    with contextlib.closing(Exporter(*parse(text))) as exporter:
        yield exporter


def serve(exporter: Exporter | None, session: Session, say: Callable[[str], None]) -> None:
    """Have an exporter, where there is one, serve a session's runs, and say where."""
    if exporter is not None:
        exporter.serve(session)
        say(f"metrics at {exporter.url}")


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _only_metrics(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Return an application that serves an application's answer at one path, and says so at each other one.

    Each answer is the last on its connection, so that the end of the command waits for none that is idle.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *more: object) -> object:
            return start_response(status, [*headers, ("Connection", "close")], *more)

        if environ.get("PATH_INFO") == PATH:
            return app(environ, start)
        start("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"raftload serves its metrics at {PATH}\n".encode()]

    return answer
