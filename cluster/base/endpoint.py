"""The address at which an etcd member listens for clients, as people write it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from cluster.base.security import Security


LONGEST_SOCKET_PATH = 107
"""Of a Unix socket, in bytes; the kernel's ``sun_path`` has 108 with the zero at its end."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A client URL's parts.

    Attributes:
        host, port: where a member listens; empty and 0 for a Unix socket.
        tls: whether it speaks TLS.
        path: of a Unix socket, absolute; empty for TCP.

    >>> Endpoint.parse("[::1]:2379")
    Endpoint(host='::1', port=2379, tls=False, path='')
    """

    host: str
    port: int
    tls: bool = False
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Take ``host:port``, ``http://host:port`` or ``https://host:port``, an IPv6 address in brackets; or a Unix
        socket as etcd writes it, ``unix:///absolute/path``, ``unix://relative/path`` or ``unix:path``, with ``unixs``
        where it speaks TLS.

        Raises ValueError with one clear line.
        """
        stripped = text.strip()
        scheme, colon, path = stripped.partition(":")
        if colon and scheme.lower() in ("unix", "unixs"):
            return cls._socket(text, path.removeprefix("//"), tls=scheme.lower() == "unixs")
        url = stripped if "://" in stripped else f"http://{stripped}"
        wanted = "expected host:port, such as 127.0.0.1:2379"

        def malformed(why: str) -> ValueError:
            # A password that is in it is not for everybody who reads the message.
            shown = re.sub(r"^(\w+://)?.*@", r"\1***@", text, flags=re.DOTALL)
            return ValueError(f"malformed endpoint {shown!r}: {why}; {wanted}")

        if stripped[:1] in ("'", '"'):  # files of `docker run --env-file` keep them
            raise malformed("quotation marks are around it")
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError as exc:  # whose text may have a password in it
            bracket = "[" in url or "]" in url
            raise malformed("brackets are for an IPv6 address" if bracket else "no host has such a name") from exc
        if parts.scheme not in ("http", "https"):
            raise malformed(f"scheme {parts.scheme!r}")
        if parts.username is not None:
            raise malformed("a user belongs into --user")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise malformed("more than a host and a port")
        if parts.netloc.count(":") > 1 and "[" not in url and not (host or "").strip("0123456789abcdef"):
            raise malformed("write an IPv6 address in brackets")
        if not host or any(each.isspace() or each == "," for each in host):
            raise malformed("no host")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if port is None:
            raise malformed("no port")
        if port == 0:
            raise malformed("its port is no number from 1 to 65535")
        if ":" in host:
            host = host.replace("%25", "%", 1)  # a zone, as in URLs (RFC 6874)
        elif not _is_name(host):
            raise malformed("no host has such a name")
        return cls(host, port, parts.scheme == "https")

    @classmethod
    def _socket(cls, text: str, path: str, *, tls: bool) -> Endpoint:
        wanted = "expected the path of a socket, such as unix:///run/etcd.sock"
        if not path or path.endswith("/") or "\0" in path:
            raise ValueError(f"malformed endpoint {text!r}: no path; {wanted}")
        path = os.path.abspath(path)  # noqa: PTH100 (resolve() would follow symbolic links)
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            raise ValueError(
                f"malformed endpoint {text!r}: the path of a socket has at most {LONGEST_SOCKET_PATH} bytes, "
                f"not {len(os.fsencode(path))}"
            )
        return cls("", 0, tls, path)

    @property
    def scheme(self) -> str:
        """``http``, or ``https`` where it speaks TLS; ``unix`` and ``unixs`` for a socket."""
        return ("unix" if self.path else "http") + ("s" if self.tls else "")

    @property
    def authority(self) -> str:
        """``host:port``, an IPv6 address in brackets; the whole URL of a Unix socket."""
        if self.path:
            return f"{self.scheme}://{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def bare(self) -> str:
        """The same as people write it: without ``http://``."""
        return str(self) if self.tls else self.authority

    @property
    def http_host(self) -> str:
        """What HTTP has as the host: without the zone of an address; ``localhost`` for a Unix socket."""
        if self.path:
            return "localhost"
        return f"[{self.host.partition('%')[0]}]:{self.port}" if ":" in self.host else self.authority

    @property
    def tls_name(self) -> str:
        """The name that its certificate must have: the host without a trailing dot, or the file of a Unix socket."""
        if self.path:
            return os.path.basename(self.path).partition(":")[0]  # noqa: PTH119
        return self.host.partition("%")[0].rstrip(".")

    def __str__(self) -> str:
        return self.authority if self.path else f"{self.scheme}://{self.authority}"


def _is_name(host: str) -> bool:
    """Tell whether a host can be looked up: labels of 1 to 63 bytes, at most 253 in all, and perhaps a trailing dot."""
    try:
        coded = host.removesuffix(".").encode("idna")
    except UnicodeError:
        return False
    return 0 < len(coded) <= 253


def split_endpoints(text: str | None) -> tuple[str, ...]:
    """Take endpoints with commas between them, return them as they are written, each once; none for no text.

    >>> split_endpoints("a:2379, b:2379,a:2379,")
    ('a:2379', 'b:2379')
    """
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def read_endpoints(text: str, security: Security) -> tuple[str, ...]:
    """Return the same, each with its scheme where how to reach the cluster says it (see ``Security.url``).

    One that is written in two ways (``a:1``, ``http://a:1/``) stands once, the path of a Unix socket is absolute.
    Raises ValueError with one clear line where one is malformed or there is none.
    """
    endpoints: dict[Endpoint, str] = {}
    for each in map(security.url, split_endpoints(text)):
        at = Endpoint.parse(each)
        endpoints.setdefault(at, str(at) if at.path else each.rstrip("/"))
    if not endpoints:
        raise ValueError("no endpoint is named: write host:port, several with commas")
    return tuple(endpoints.values())
