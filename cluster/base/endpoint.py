"""The address at which an etcd member listens for clients, as people write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from cluster.base.security import Security


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A client URL's parts.

    >>> Endpoint.parse("[::1]:2379")
    Endpoint(host='::1', port=2379, tls=False)
    """

    host: str
    port: int
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Take ``host:port``, ``http://host:port`` or ``https://host:port``, an IPv6 address in brackets.

        Raises ValueError with one clear line.
        """
        stripped = text.strip()
        url = stripped if "://" in stripped else f"http://{stripped}"
        wanted = "expected host:port, such as 127.0.0.1:2379"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as exc:
            raise ValueError(f"malformed endpoint {text!r}: {exc}; {wanted}") from exc
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"malformed endpoint {text!r}: scheme {parts.scheme!r}; {wanted}")
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
            raise ValueError(f"malformed endpoint {text!r}: more than a host and a port; {wanted}")
        if not host or any(each.isspace() or each == "," for each in host):
            raise ValueError(f"malformed endpoint {text!r}: no host; {wanted}")
        if ":" in host and "[" not in url:
            raise ValueError(f"malformed endpoint {text!r}: write an IPv6 address in brackets; {wanted}")
        if port is None or port == 0:
            raise ValueError(f"malformed endpoint {text!r}: no port; {wanted}")
        return cls(host, port, parts.scheme == "https")

    @property
    def scheme(self) -> str:
        """``http``, or ``https`` where it speaks TLS."""
        return "https" if self.tls else "http"

    @property
    def authority(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def split_endpoints(text: str | None) -> tuple[str, ...]:
    """Take endpoints with commas between them, return them as they are written, each once; none for no text.

    >>> split_endpoints("a:2379, b:2379,a:2379,")
    ('a:2379', 'b:2379')
    """
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def read_endpoints(text: str, security: Security) -> tuple[str, ...]:
    """Return the same, each with its scheme where how to reach the cluster says it (see ``Security.url``).

    Raises ValueError with one clear line where one is malformed or there is none.
    """
    endpoints = tuple(map(security.url, split_endpoints(text)))
    if not endpoints:
        raise ValueError("no endpoint is named: write host:port, several with commas")
    for each in endpoints:
        Endpoint.parse(each)
    return endpoints
