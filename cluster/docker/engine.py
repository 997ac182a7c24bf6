"""The connection to the Docker Engine, and its errors in one line each."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cluster.base.errors import ClusterError
from cluster.base.signals import importing

if TYPE_CHECKING:
    from cluster.docker.sdk import Client

CALL_TIMEOUT_S = 60

_WITHOUT = "cluster: --backend local, bench: --cluster embedded"


def connect() -> Client:
    """Return a client of the Engine that the environment names. Close it.

    Raises ClusterError, in one line with what to do, where there is none.
    """
    _expect_listener()
    with importing():
        import docker
        import requests

    try:
        client: Client = docker.from_env(timeout=CALL_TIMEOUT_S, max_pool_size=16)
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError, ValueError) as exc:
        raise ClusterError(why_no_engine(exc)) from exc
    try:
        client.ping()
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as exc:
        client.close()
        raise ClusterError(why_no_engine(exc)) from exc
    return client


def _expect_listener() -> None:
    """Raise ClusterError where nobody listens on the Engine's socket.

    Asked before the SDK is loaded, which takes half a second of every command on a machine without Docker, and leaves
    a socket open where it cannot connect.
    """
    where = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not where.startswith("unix:///"):
        return
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(CALL_TIMEOUT_S)
        try:
            asked.connect(where.removeprefix("unix://"))
        except OSError as exc:
            raise ClusterError(why_no_engine(exc)) from exc


def why_no_engine(exc: BaseException) -> str:
    """Take what the SDK raised, return the reason and what to do."""
    where = os.environ.get("DOCKER_HOST") or "/var/run/docker.sock"
    causes = list(_chain(exc))
    if any(isinstance(cause, PermissionError) for cause in causes):
        return f"no permission on {where}: join the group docker, or go without ({_WITHOUT})"
    if any(isinstance(cause, FileNotFoundError) for cause in causes):
        return f"no Docker Engine at {where}: install or start Docker, or go without ({_WITHOUT})"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return f"the Docker Engine at {where} is not running: start it, or go without ({_WITHOUT})"
    return f"no Docker Engine answers at {where} ({' '.join(str(exc).split())[:160]}): or go without ({_WITHOUT})"


def _chain(exc: BaseException, depth: int = 0) -> Iterator[BaseException]:
    yield exc
    if depth < 8:
        for inner in (*exc.args, exc.__cause__, exc.__context__):
            if isinstance(inner, BaseException):
                yield from _chain(inner, depth + 1)


@contextlib.contextmanager
def talking(what: str) -> Iterator[None]:
    """Turn what the SDK raises into ClusterError. Takes what is being done, ``start etcd-node1``."""
    import docker
    import requests

    try:
        yield
    except docker.errors.APIError as exc:
        text = " ".join(str(exc.explanation or exc).split())
        if "port is already allocated" in text or "address already in use" in text:
            text = f"a port is taken: stop what uses it, or choose another --base-port ({text[-160:]})"
        raise ClusterError(f"cannot {what}: {text}") from exc
    except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
        raise ClusterError(f"cannot {what}: the Docker Engine does not answer ({type(exc).__name__})") from exc
