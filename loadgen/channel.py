"""Several endpoints times several connections as one place to call: round-robin, reconnecting, honest about loss."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from time import perf_counter_ns

import gevent
import gevent.event

from loadgen.causes import CLOSED_HERE, NO_ANSWER, ConnectError
from loadgen.endpoint import Endpoint
from loadgen.streaming import StreamingCall
from loadgen.transport import Transport
from loadgen.wire import Code, LocalError, Stream

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
# A connection that lived for less does not prove that the next one will be better.
_STABLE_S = 1.0
CONNECT_TIMEOUT_S = 5.0


class Channel:
    """Calls go over every live connection in turn; dead ones come back in the background.

    Takes the endpoints and how many connections each gets. Nothing is connected before the first call.
    A request that the server certainly did not process (refused, above GOAWAY's last stream id, never written) is
    sent again once; nothing else is.

    Attributes:
        resent: requests sent again.
        in_flight, in_flight_max: calls that wait for their answer; now, and the most there ever were.
        connects: connections made.
    """

    def __init__(self, endpoints: Sequence[str | Endpoint], *, connections: int = 1) -> None:
        if not endpoints:
            raise ValueError("no endpoint given")
        if connections < 1:
            raise ValueError(f"connections must be at least 1, not {connections}")
        self.endpoints = [each if isinstance(each, Endpoint) else Endpoint.parse(each) for each in endpoints]
        for each in self.endpoints:
            if each.tls:
                raise ValueError(f"endpoint {each}: TLS is not supported yet; use http://")
        self.resent = 0
        self.in_flight = 0
        self.in_flight_max = 0
        self.connects = 0
        self._connections = connections
        self._live: list[Transport] = []
        self._draining: list[Transport] = []
        self._turn = cycle(self._live)
        self._current: Transport | None = None
        self._keepers: list[gevent.Greenlet] = []
        self._connecting = 0
        self._outcome = gevent.event.AsyncResult()
        self._closed = False

    def call(self, path: bytes, message: bytes, timeout_ns: int, call_ns: int) -> Stream:
        """Sends a unary request and waits for its end, in the terms of ``Transport.call``.

        Returns the ended stream. Where no connection could be made it ended UNAVAILABLE, ``unprocessed``, and its
        ``cause`` says why. Raises nothing but what is thrown into the greenlet from outside.
        """
        self.in_flight += 1
        if self.in_flight > self.in_flight_max:  # noqa: PLR1730  (max() costs twice as much)
            self.in_flight_max = self.in_flight
        try:
            transport = self._current
            if transport is None or not transport.flushing:
                # Round-robin by turns of the event loop: calls of one turn share one connection, and one send.
                transport = self._current = next(self._turn, None)
                if transport is None:
                    return self._call_later(path, message, timeout_ns, call_ns)
            stream = transport.call(path, message, timeout_ns, call_ns)
            if stream.code and _may_be_sent_again(stream):
                self.resent += 1
                return self._call_later(path, message, timeout_ns, call_ns, again=True)
            return stream
        except LocalError:
            return self._call_later(path, message, timeout_ns, call_ns)
        finally:
            self.in_flight -= 1

    def open(self, path: bytes, timeout_s: float) -> StreamingCall:
        """Opens a streaming call on one of the connections, waiting for one for at most ``timeout_s`` seconds.

        Raises ConnectError where none could be made.
        """
        deadline_ns = perf_counter_ns() + int(timeout_s * 1e9)
        while True:
            for transport in self._turn:
                try:
                    return transport.open(path)
                except LocalError:
                    transport.retire()
                    break
            else:
                if (failure := self._wait(deadline_ns)) is not None:
                    raise failure
                if perf_counter_ns() >= deadline_ns and not self._live:
                    raise ConnectError(self.endpoints[0], NO_ANSWER)

    def close(self) -> None:
        """Closes every connection; calls that wait end UNAVAILABLE. May be called again."""
        self._closed = True
        gevent.killall(self._keepers, block=False)
        for transport in self._live + self._draining:
            transport.close()
        self._settle(None)

    # ---- the slow ways

    def _call_later(self, path: bytes, message: bytes, timeout_ns: int, call_ns: int, *, again: bool = False) -> Stream:
        """Calls once a connection is there; waits for the outcome of the attempts under way, or of the next one.

        ``again``: it has been sent once already.
        """
        deadline_ns = call_ns + timeout_ns
        while True:
            now = perf_counter_ns()
            if now >= deadline_ns:
                return _never_sent(Code.DEADLINE_EXCEEDED, None)
            for transport in self._turn:
                try:
                    # The server is told the whole timeout again: one header block for all; we keep the deadline.
                    stream = transport.call(path, message, timeout_ns, call_ns)
                except LocalError:
                    transport.retire()  # out of stream ids, say
                    break
                if again or not _may_be_sent_again(stream):
                    return stream
                again = True
                self.resent += 1
                break
            else:
                if (failure := self._wait(deadline_ns)) is not None:
                    return _never_sent(Code.UNAVAILABLE, failure.cause, str(failure))

    def _wait(self, until_ns: int) -> ConnectError | None:
        """Waits for a connection; returns why there is none, or None where there is one or time is up."""
        if self._closed:
            return ConnectError(self.endpoints[0], CLOSED_HERE)
        self._start()
        outcome = self._outcome
        outcome.wait(max(0.0, (until_ns - perf_counter_ns()) / 1e9))
        failure: ConnectError | None = outcome.value
        return failure

    def _start(self) -> None:
        if not self._keepers:
            for _ in range(self._connections):
                for endpoint in self.endpoints:
                    self._connecting += 1
                    self._keepers.append(gevent.spawn(self._keep, endpoint))

    def _keep(self, endpoint: Endpoint) -> None:
        """Keeps one connection to one endpoint, for as long as the channel is open."""
        pause = _FIRST_PAUSE_S
        while not self._closed:
            ended = gevent.event.Event()
            transport = Transport(endpoint, partial(self._down, ended))
            try:
                transport.connect(CONNECT_TIMEOUT_S)
            except ConnectError as exc:
                self._connecting -= 1
                self._settle(exc)
            else:
                self._connecting -= 1
                self.connects += 1
                began = perf_counter_ns()
                self._live.append(transport)
                self._turn = cycle(self._live)
                self._current = None
                self._settle(None)
                ended.wait()
                if perf_counter_ns() - began > _STABLE_S * 1e9:
                    pause = _FIRST_PAUSE_S
                    self._connecting += 1
                    continue
            # Jitter, so that the workers of a run do not come back in step.
            gevent.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE_S)
            self._connecting += 1

    def _down(self, ended: gevent.event.Event, transport: Transport) -> None:
        if transport in self._live:
            self._live.remove(transport)
            self._turn = cycle(self._live)
            self._current = None
            self._draining = [each for each in self._draining if each.open_count]
            self._draining.append(transport)
        ended.set()

    def _settle(self, failure: ConnectError | None) -> None:
        """Tells those who wait for a connection: there is one, or no attempt is left that could give one."""
        if failure is not None and (self._live or self._connecting):
            return
        settled, self._outcome = self._outcome, gevent.event.AsyncResult()
        settled.set(failure)


def _may_be_sent_again(stream: Stream) -> bool:
    return stream.unprocessed and stream.code == Code.UNAVAILABLE


def _never_sent(code: Code, cause: str | None, detail: str = "") -> Stream:
    stream = Stream(None, 0)
    stream.code = int(code)
    stream.cause = cause
    stream.detail = detail
    stream.unprocessed = True
    stream.ended_ns = perf_counter_ns()
    return stream
