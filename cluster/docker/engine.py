"""The connection to the Docker Engine, and its errors in one line each."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cluster.base.errors import ClusterError
from cluster.base.signals import importing
from cluster.docker.address import EngineAddress

if TYPE_CHECKING:
    from docker.tls import TLSConfig

    from cluster.docker.sdk import Client

CALL_TIMEOUT_S = 60

# After an address of IPv4 or IPv6, as the Engine and Podman write it; the container's port may follow.
_PORT = re.compile(r"(?:\d+\.\d+\.\d+\.\d+|\]|::):(\d+)\b")
_NO_SUBNET = ("non-overlapping IPv4 address pool", "all predefined address pools have been fully subnetted",
              "could not find free subnet")  # fmt: skip
_WITHOUT = "cluster: --backend local, bench: --backend embedded"


class NoEngine(ClusterError):  # noqa: N818
    """No Docker Engine answers where one should be.

    Takes what a socket or the SDK raised, and the address that was tried.

    Attributes:
        reason: why, without what to do about it.
    """

    def __init__(self, exc: BaseException, address: EngineAddress) -> None:
        self.reason, advice = _reason_and_advice(exc, address)
        super().__init__(f"{self.reason}: {advice}")


def connect() -> Client:
    """Return a client of the Engine that the environment or the Docker context names. Close it.

    Raises NoEngine, in one line with what to do, where there is none, and ClusterError for a configuration of Docker's
    that is damaged.
    """
    address = EngineAddress.find()
    _expect_listener(address)
    with importing():
        import docker
        import requests

    try:
        client: Client = docker.DockerClient(
            base_url=address.host, tls=_tls(address), timeout=CALL_TIMEOUT_S, max_pool_size=16,
            use_ssh_client=address.host.startswith("ssh://"),
        )  # fmt: skip
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError, ValueError) as exc:
        raise NoEngine(exc, address) from exc
    except (AttributeError, TypeError) as exc:  # the SDK takes whatever JSON it finds there for an object
        raise ClusterError("Docker's config.json is damaged: it is not what the docker command writes") from exc
    try:
        client.ping()
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as exc:
        client.close()
        raise NoEngine(exc, address) from exc
    return client


def _tls(address: EngineAddress) -> TLSConfig | bool:
    if address.certificates is None:
        return False
    from docker.tls import TLSConfig

    names = ("cert.pem", "key.pem", "ca.pem")
    cert, key, ca = (str(path) if (path := address.certificates / name).exists() else None for name in names)
    return TLSConfig(client_cert=(cert, key) if cert and key else None, ca_cert=ca, verify=address.verify)


def _expect_listener(address: EngineAddress) -> None:
    """Raise NoEngine where nobody listens on the Engine's socket.

    Asked before the SDK is loaded, which takes half a second of every command on a machine without Docker, and leaves
    a socket open where it cannot connect.
    """
    if address.socket is None:
        return
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(CALL_TIMEOUT_S)
        try:
            asked.connect(str(address.socket))
        except OSError as exc:
            raise NoEngine(exc, address) from exc


def _reason_and_advice(exc: BaseException, address: EngineAddress) -> tuple[str, str]:
    causes = list(_chain(exc))
    other = next(iter(address.others), None)
    instead = f"or use the one at {other} (DOCKER_HOST=unix://{other}), " if other is not None else ""
    instead += f"or go without ({_WITHOUT})"
    if address.socket is not None and address.socket.exists() and not address.socket.is_socket():
        return f"{address} is no socket of a Docker Engine", f"name another one, {instead}"
    if isinstance(exc, ValueError) or "Invalid bind address" in str(exc):
        return f"{address} is no address ({_line(exc)})", f"write unix:///PATH or tcp://HOST:PORT, {instead}"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"no Docker Engine at {address}, since no host has that name", f"name another one, {instead}"
    # The SDK's way to find out that paramiko is not there: the name of what needs it is then not there either.
    if any(isinstance(cause, NameError) for cause in causes):
        return f"{address} needs the Python package paramiko", f"install it, {instead}"
    if any(isinstance(cause, PermissionError) for cause in causes):
        return f"no permission on {address}", f"join the group docker, {instead}"
    if any(isinstance(cause, FileNotFoundError) for cause in causes):
        return f"no Docker Engine at {address}", f"install or start Docker, {instead}"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return f"the Docker Engine at {address} is not running", f"start it, {instead}"
    if any(type(cause).__name__ == "InvalidVersion" for cause in causes):
        return f"the Docker Engine at {address} is too old ({_line(exc)})", f"update it, {instead}"
    return f"no Docker Engine answers at {address} ({_line(exc)})", f"start it, {instead}"


def _line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:160]


def _chain(exc: BaseException, depth: int = 0) -> Iterator[BaseException]:
    yield exc
    if depth < 8:
        for inner in (*exc.args, exc.__cause__, exc.__context__, getattr(exc, "reason", None)):
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
            ports = _PORT.findall(text)
            which = f"port {ports[0]} is taken" if ports else "a port is taken"
            text = f"{which}: stop what uses it, or choose another --base-port ({text[-160:]})"
        if any(words in text for words in _NO_SUBNET):
            text = (
                "its address pools have no free subnet: `docker network prune` removes unused networks, or give it "
                f"larger default-address-pools ({text[-160:]})"
            )
        raise ClusterError(f"cannot {what}: {text}") from exc
    except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
        raise ClusterError(f"cannot {what}: the Docker Engine does not answer ({type(exc).__name__})") from exc
