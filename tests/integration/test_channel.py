"""Connections of a channel that get lost, are refused, or log in, against servers that do it on cue."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import count
from time import perf_counter_ns
from typing import Any

import gevent
import gevent.socket
import pytest

from cluster.base.security import Security
from loadgen.client import channel as channel_module
from loadgen.client.channel import Channel
from loadgen.client.etcd import EtcdClient
from loadgen.client.streaming import StreamingCall
from loadgen.client.watcher import Watcher
from loadgen.history.operation import Outcome
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import Code, frames
from tests.support.http2_server import END, OPEN, Handler, Respond, Server, body, head, until, whole
from tests.support.waiting import HANG_S

Listen = Callable[[Handler], str]
Serve = Callable[[Respond], Server]
USER = Security(user="user", password="secret")
LOGIN = pb.AuthenticateRequest(name="user", password="secret").SerializeToString()
BAD_TOKEN = b"etcdserver: invalid auth token"


def says(stream_id: int, answer: Any) -> bytes:
    """Return a whole answer with a message."""
    return head(stream_id, OPEN) + body(stream_id, answer.SerializeToString()) + head(stream_id, END, end=True)


def refuses(stream_id: int, text: bytes = BAD_TOKEN) -> bytes:
    """Return the end of a call whose token is refused."""
    return head(stream_id, [*OPEN, (b"grpc-status", b"16"), (b"grpc-message", text)], end=True)


def call(channel: Channel, timeout_s: float = HANG_S) -> Any:
    return channel.call(b"/x", b"", int(timeout_s * 1e9), perf_counter_ns())


class Member:
    """Logs everybody in, and answers what else is asked as a script says.

    Takes ``respond(number of the connection, stream id)``. Attributes: ``logins``, when each came, in nanoseconds.
    """

    def __init__(self, serve: Serve, respond: Respond) -> None:
        self.logins: list[int] = []
        self._respond = respond
        self.server = serve(self.answer)
        self.endpoint = self.server.endpoint

    def answer(self, connection: int, stream_id: int) -> bytes | None:
        if self.server.requests[-1][2][5:] == LOGIN:
            self.logins.append(perf_counter_ns())
            return says(stream_id, pb.AuthenticateResponse(token=f"token-{len(self.logins)}"))
        return self._respond(connection, stream_id)


# Logins


def test_a_connection_lost_while_it_waited_for_a_login_is_not_called(
    listen: Listen, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two members, one login: while it lasts at the first, the second hangs up, and from then on at once."""
    lost: list[object] = []
    down = Channel._down
    monkeypatch.setattr(Channel, "_down", lambda self, *args: (down(self, *args), lost.append(args)))

    def slow(_: int, stream_id: int) -> bytes:
        if stream_id > 1:
            return whole(stream_id)
        until(lambda: lost, "the loss of the connection to the second member")
        return says(stream_id, pb.AuthenticateResponse(token="token"))

    first = serve(slow)

    def fleeting(client: gevent.socket.socket, _: object) -> None:
        if not lost:
            until(lambda: first.requests, "the login at the first member")
            client.sendall(frames.settings({}))
            client.recv(65_536)  # what the client says first
            client.recv(65_536)  # that it has read the settings
        client.close()

    channel = Channel([first.endpoint, listen(fleeting)], security=USER)
    with contextlib.closing(channel):
        assert [call(channel).code for _ in range(4)] == [Code.OK] * 4
        assert (channel.connected, channel.connects, channel.resent) == (1, 1, 0)


def test_a_member_that_was_started_again_is_asked_for_a_token_before_the_first_call(serve: Serve) -> None:
    """Also where the token that it has forgotten was not the first one there."""
    calls = count()

    def respond(connection: int, stream_id: int) -> bytes | None:
        number = next(calls)
        return refuses(stream_id) if number == 1 else None if number == 3 else whole(stream_id)

    member = Member(serve, respond)
    client = EtcdClient([member.endpoint], security=USER)
    with contextlib.closing(client):
        assert [client.put(b"k", b"v").outcome for _ in range(2)] == [Outcome.OK] * 2
        assert (client.channel.resent, len(member.logins)) == (1, 2)
        assert client.put(b"k", b"v").outcome is Outcome.INFO  # it hung up
        assert client.put(b"k", b"v").outcome is Outcome.OK
    second = [message[5:] for connection, _, message in member.server.requests if connection == 2]
    assert second[0] == LOGIN
    assert client.channel.resent == 1


def test_a_call_that_waited_for_its_connection_gets_another_token_at_once(serve: Serve) -> None:
    """It was sent after the token was given, although it began before."""
    member = Member(serve, lambda _, stream_id: refuses(stream_id) if len(member.logins) < 2 else whole(stream_id))
    client = EtcdClient([member.endpoint], security=USER)
    with contextlib.closing(client):
        assert client.put(b"k", b"v").outcome is Outcome.OK
        assert (client.channel.resent, len(member.logins)) == (1, 2)


def test_a_member_that_refuses_its_own_tokens_is_not_hurried(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password costs etcd a tenth of a second of its processor."""
    monkeypatch.setattr(channel_module, "TOKEN_PAUSES_S", (HANG_S,) * 8)
    calls = count()
    member = Member(serve, lambda _, stream_id: refuses(stream_id) if next(calls) else whole(stream_id))
    channel = Channel([member.endpoint], security=USER)
    with contextlib.closing(channel):
        assert call(channel).code == Code.OK  # which connects and logs in: that takes what it takes
        began = perf_counter_ns()
        assert call(channel, 1.0).code != Code.OK
    # One for the connection, one for the call, which is then sent again at once, and one more before the first pause.
    assert len(member.logins) <= 3
    # No pause goes beyond the call's deadline.
    assert perf_counter_ns() - began < HANG_S / 2 * 1e9


# Streaming calls


def test_a_watch_that_nobody_logged_in_for_ends_with_its_refusal(serve: Serve) -> None:
    """Another token would make it good, and there is none to be had."""
    server = serve(lambda _, stream_id: refuses(stream_id))
    client = EtcdClient([server.endpoint])
    with contextlib.closing(client):
        watcher = client.watcher()
        watch = watcher.watch(b"k")
        until(lambda: watch.error is not None or watcher.streams > 1, "the end of the watch")
        assert (watch.error, watch.reason, watcher.streams) == ("InvalidAuthToken", BAD_TOKEN.decode(), 1)
        assert client.lease_keepalive(7).error == "InvalidAuthToken"
        assert client.channel.resent == 0


def test_a_stream_that_is_refused_its_token_gets_another_one(serve: Serve) -> None:
    member = Member(serve, lambda _, stream_id: refuses(stream_id) if len(member.logins) < 3 else b"")
    channel = Channel([member.endpoint], security=USER)
    with contextlib.closing(channel):
        for logins in (1, 2):
            refused = channel.open(b"/x", HANG_S)
            refused.send(b"x")
            assert refused.receive(HANG_S) is None
            assert (refused.error, len(member.logins)) == ("InvalidAuthToken", logins)
        channel.open(b"/x", HANG_S)
        assert len(member.logins) == 3


def test_the_cost_of_a_stream_does_not_grow_with_the_streams_that_are_open(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[StreamingCall] = []

    def ended(call: StreamingCall) -> bool:
        looked.append(call)
        return call._stream.code >= 0

    member = Member(serve, lambda _, stream_id: b"")
    channel = Channel([member.endpoint], security=USER)
    with contextlib.closing(channel):
        channel.open(b"/x", HANG_S)
        monkeypatch.setattr(StreamingCall, "ended", property(ended))
        for _ in range(200):
            channel.open(b"/x", HANG_S)
        assert len(looked) <= 200


def test_the_cost_of_a_watcher_does_not_grow_with_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    client = EtcdClient(["127.0.0.1:1"])
    looked: list[Watcher] = []

    def closed(watcher: Watcher) -> bool:
        looked.append(watcher)
        return bool(vars(watcher)["closed"])

    def close(watcher: Watcher, value: bool) -> None:
        vars(watcher)["closed"] = value

    monkeypatch.setattr(Watcher, "closed", property(closed, close), raising=False)
    watchers = [client.watcher() for _ in range(200)]
    assert len(looked) <= 200
    client.close()
    assert all(each.closed for each in watchers)


# Who leads


def test_a_further_connection_that_is_refused_says_nothing_about_the_leader(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The member has said who leads over the connection that there is."""
    status = pb.StatusResponse(header=pb.ResponseHeader(member_id=7), leader=7, raftTerm=2)
    asked: list[int] = []
    attempts: list[int] = []

    def respond(connection: int, stream_id: int) -> bytes | None:
        if len(server.requests[-1][2]) > 5:
            return whole(stream_id)  # a put
        asked.append(stream_id)
        return says(stream_id, status)

    class OneConnection(Server):
        def __call__(self, client: gevent.socket.socket, address: object) -> None:
            if self.connections:
                attempts.append(1)
                client.close()
            else:
                super().__call__(client, address)

    monkeypatch.setattr(channel_module, "_LONGEST_PAUSE_S", 0.05)
    server = OneConnection(respond)
    client = EtcdClient([listen(server)], balance="leader", connections=2)
    with contextlib.closing(client):
        assert client.put(b"k", b"v").outcome is Outcome.OK
        monkeypatch.setattr(channel_module, "_ASK_S", HANG_S)
        # The next question is the last one; then the next connection but one begins once the next one is given up.
        for what, more in ((asked, 1), (attempts, 2)):
            wanted = len(what) + more
            until(lambda what=what, wanted=wanted: len(what) >= wanted)  # type: ignore[misc]
        assert client.put(b"k", b"v").outcome is Outcome.OK, "and it is not asked again for a long time"
