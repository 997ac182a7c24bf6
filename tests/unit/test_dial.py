"""Names as the opening of a connection asks for them."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from cluster.base.dial import connect
from cluster.base.endpoint import Endpoint


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("localhost.", ["localhost"]),
        ("LOCALHOST.", ["localhost"]),
        ("localhost", ["localhost"]),
        ("etcd1.example.com", ["etcd1.example.com"]),
        ("etcd1.example.com.", ["etcd1.example.com.", "etcd1.example.com"]),
    ],
)
def test_no_name_server_is_asked_for_localhost(host: str, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library finds ``localhost`` in /etc/hosts, and asks a name server for ``localhost.``."""
    asked = []

    def not_found(name: str, *_: Any) -> Any:
        asked.append(name)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", not_found)
    with pytest.raises(socket.gaierror):
        connect(Endpoint.parse(f"{host}:2379"), 5.0)
    assert asked == names
