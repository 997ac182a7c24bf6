"""Questions to a member: which protocol is tried first, and how long a user's call may take."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest

from cluster.base.endpoint import Endpoint
from cluster.base.errors import EtcdError, NoAnswer
from cluster.base.security import NO_ALPN, Security
from cluster.base.topology import Member
from cluster.observe import calls, probe
from cluster.observe.calls import _as_user, either
from cluster.observe.grpc_call import NotGrpcError
from cluster.observe.messages import encode
from tests.support.waiting import HANG_S

UNIMPLEMENTED = EtcdError(12, "unknown method Lie for service etcdserverpb.Maintenance")


@pytest.mark.parametrize(
    ("where", "why", "asked"),
    [
        ("192.0.2.1:1", UNIMPLEMENTED, ["grpc", "json", "grpc", "json"]),  # of one call: the next one may be known
        ("192.0.2.1:2", NotGrpcError("it answers in HTTP/1"), ["grpc", "json", "json"]),
    ],
)
def test_where_grpc_is_spoken_it_is_tried_first(where: str, why: Exception, asked: list[str]) -> None:
    seen: list[str] = []

    def by_grpc(_: float) -> NoReturn:
        seen.append("grpc")
        raise why

    def by_json(_: float) -> None:
        seen.append("json")

    for written in (where, f"http://{where}"):
        either(written, 60.0, by_grpc, by_json)
    assert seen == asked


@pytest.mark.parametrize("scheme", ["unix", "unixs"])
def test_a_path_with_the_words_of_an_error_is_not_that_error(scheme: str, short_folder: Path) -> None:
    """It was taken for a server over TLS that speaks HTTP/1 only."""
    where = f"{scheme}://{short_folder}/{NO_ALPN}/etcd.sock"
    with pytest.raises(NoAnswer) as caught:
        calls.grpc(where, calls.STATUS, b"")
    assert caught.value.cause == "no socket"


def test_a_server_that_refuses_http2_by_an_alert_is_asked_in_json() -> None:
    """As those of Go do that serve HTTP/1 only."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                # A record of TLS 1.2 with two bytes: fatal, no_application_protocol (RFC 8446, section 6; RFC 7301).
                connection.sendall(bytes([21, 3, 3, 0, 2, 2, 120]))

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(NotGrpcError, match="it agrees to no HTTP/2 over TLS"):
            calls.grpc(f"https://127.0.0.1:{server.getsockname()[1]}", calls.STATUS, b"", HANG_S, Security())
        thread.join()


def test_a_call_whose_token_is_refused_gets_what_is_left_of_its_time() -> None:
    moments: list[float] = []
    seen: list[tuple[str, float]] = []

    def log_in(_: float) -> str:
        return f"token-{len(seen)}"

    def call(token: str, until: float) -> str:
        moments.append(time.monotonic())
        seen.append((token, until))
        if len(seen) == 1:
            time.sleep(0.2)
            moments[0] = time.monotonic()
            raise EtcdError(16, "etcdserver: invalid auth token")
        return "answer"

    user = Security(user="somebody", password="secret")
    assert _as_user(Endpoint("192.0.2.1", 2379), user, 60.0, log_in, call) == "answer"
    (first, until), (second, until_then) = seen
    assert (first, second) == ("token-0", "token-1")
    # By the time of the second login at most, which is a part of what was between the calls.
    assert until <= until_then <= until + moments[1] - moments[0]


def test_a_status_that_is_asked_for_twice_gets_what_is_left_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str | None, float]] = []

    def grpc(_where: str, _path: str, _message: bytes, timeout_s: float, security: Security) -> bytes:
        asked.append((security.user, timeout_s))
        time.sleep(0.2)
        return encode({4: 7})  # a leader is known, so that the user can log in

    monkeypatch.setattr(probe, "grpc", grpc)
    member = Member("a", "http://192.0.2.2:2379", "", "")
    probe.member_status(member, 60.0, Security(user="somebody", password="secret"))
    (nobody, first), (user, second) = asked
    assert (nobody, user) == (None, "somebody")
    assert second <= first - 0.2


def test_a_connection_that_took_a_while_leaves_less_time_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float | None] = []

    def connect(*_: object) -> socket.socket:
        time.sleep(0.2)
        opened = Watched()
        opened.connect(listening.getsockname())
        return opened

    class Watched(socket.socket):
        def settimeout(self, value: float | None) -> None:
            left.append(value)
            super().settimeout(value)

    monkeypatch.setattr(calls, "connect", connect)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        for ask in (
            lambda: calls.http("192.0.2.1:1", "GET", "/version", timeout_s=0.4),
            lambda: calls.grpc("192.0.2.1:1", calls.STATUS, b"", 0.4),
        ):
            left.clear()
            with pytest.raises(NoAnswer, match="timed out"):
                ask()
            assert left and all(each is not None and each <= 0.2 for each in left)
