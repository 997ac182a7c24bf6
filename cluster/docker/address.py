"""The address of the Docker Engine, found as the `docker` command finds it."""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from cluster.base.console import printable
from cluster.base.errors import ClusterError

DEFAULT = Path("/var/run/docker.sock")


@dataclasses.dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where the Engine is.

    Attributes:
        host: its URL, such as ``unix:///var/run/docker.sock``.
        source: who says so, for people; empty for the default.
        certificates: the folder with ``ca.pem``, ``cert.pem`` and ``key.pem``; None where TLS is not spoken.
        verify: whether the Engine's certificate is verified.
    """

    host: str
    source: str = ""
    certificates: Path | None = None
    verify: bool = True

    @classmethod
    def find(cls, env: Mapping[str, str] | None = None) -> EngineAddress:
        """Return that of $DOCKER_HOST, else of $DOCKER_CONTEXT, else of the current context, else the default one.

        Raises ClusterError for a context that is not there.
        """
        env = os.environ if env is None else env
        folder = Path(env.get("DOCKER_CONFIG") or Path("~/.docker").expanduser())
        if env.get("DOCKER_HOST", "").strip():
            speaks_tls = bool(env.get("DOCKER_TLS_VERIFY") or env.get("DOCKER_CERT_PATH"))
            certificates = Path(env.get("DOCKER_CERT_PATH") or folder) if speaks_tls else None
            return cls(_host(env["DOCKER_HOST"]), "$DOCKER_HOST", certificates, bool(env.get("DOCKER_TLS_VERIFY")))
        name, source = env.get("DOCKER_CONTEXT", ""), "$DOCKER_CONTEXT"
        if not name:
            name, source = _current(folder), f"currentContext of {folder / 'config.json'}"
        return cls(f"unix://{DEFAULT}") if name in ("", "default") else cls._of_context(folder, name, source)

    @classmethod
    def _of_context(cls, folder: Path, name: str, source: str) -> EngineAddress:
        digest = hashlib.sha256(name.encode()).hexdigest()
        meta = folder / "contexts" / "meta" / digest / "meta.json"
        try:
            endpoint = json.loads(meta.read_text(encoding="utf-8"))["Endpoints"]["docker"]
            host, verify = _host(endpoint.get("Host") or ""), not endpoint.get("SkipTLSVerify", False)
        except FileNotFoundError as exc:
            raise ClusterError(
                f"there is no Docker context {name!r} ({source}): `docker context ls` shows those that there are"
            ) from exc
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ClusterError(f"the Docker context {name!r} ({source}) cannot be read: {meta} is damaged") from exc
        certificates = folder / "contexts" / "tls" / digest / "docker"
        return cls(host, f"the Docker context {name}", certificates if certificates.is_dir() else None, verify)

    @property
    def socket(self) -> Path | None:
        """The Unix socket; None where it is not one."""
        return Path(self.host.removeprefix("unix://")) if self.host.startswith("unix://") else None

    @property
    def is_local(self) -> bool:
        """Whether what it publishes on 127.0.0.1 is on this machine; no other one is named where it is no address."""
        if self.socket is not None:
            return True
        try:
            host = urlsplit(self.host).hostname
        except ValueError:
            host = None
        if not host:
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def others(self) -> tuple[Path, ...]:
        """Sockets of other Engines on this machine: rootless, Docker Desktop's, and Podman's."""
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
        home = Path("~").expanduser()
        known = (
            DEFAULT, runtime / "docker.sock", home / ".docker/run/docker.sock", home / ".docker/desktop/docker.sock",
            home / ".colima/default/docker.sock", runtime / "podman/podman.sock", Path("/run/podman/podman.sock"),
        )  # fmt: skip
        return tuple(each for each in known if each != self.socket and _is_usable(each))

    def __str__(self) -> str:
        where = str(self.socket) if self.socket is not None and not self.source else self.host
        return printable(f"{where} ({self.source})" if self.source else where)


def _host(text: str) -> str:
    """Return a host without the blanks around it; the default one where it is none, as the `docker` command does."""
    host = text.strip()
    return f"unix://{DEFAULT}" if host in ("", "unix://") else host


def _is_usable(path: Path) -> bool:
    try:
        return path.is_socket() and os.access(path, os.W_OK)
    except OSError:
        return False


def _current(folder: Path) -> str:
    """Return the name of the current context; empty where none is chosen."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("currentContext") or "")
    except (OSError, ValueError, AttributeError):
        return ""
