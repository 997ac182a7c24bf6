"""Several endpoints times several connections as one place to call: balanced, reconnecting, with losses reported."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, cycle, islice
from time import perf_counter_ns
from typing import TYPE_CHECKING, Protocol

import gevent
import gevent.event
from google.protobuf.message import DecodeError

from cluster.base.endpoint import Endpoint
from cluster.base.security import Security
from loadgen.client.balancing import Balance, Leadership
from loadgen.client.connect_errors import CLOSED_HERE, LEADER_HIDDEN, LOST, NO_ANSWER, NO_STREAM, ConnectError
from loadgen.client.login import TOKEN_PAUSES_S, Login, is_token_refused
from loadgen.client.streaming import StreamingCall
from loadgen.client.transport import Transport
from loadgen.proto import etcd_pb2 as pb
from loadgen.stats.precision import bucket_ns
from loadgen.wire import Code, LocalError, Stream

if TYPE_CHECKING:
    from loadgen.client.tls import TlsOptions

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
# A connection that lived for less does not prove that the next one will be better.
_STABLE_S = 1.0
# How often every endpoint is asked who leads, where only the leader is called.
_ASK_S = 0.2
_ASK_TIMEOUT_NS = 1_000_000_000
STATUS = b"/etcdserverpb.Maintenance/Status"
# As gRPC servers say that they have no limit: more streams than there are ids.
UNLIMITED = (1 << 31) - 1


class MakeTransport(Protocol):
    """What makes a connection: `Transport`, or one that does more."""

    def __call__(
        self, endpoint: Endpoint, on_end: Callable[[Transport], None] | None = None, tls: TlsOptions | None = None, /
    ) -> Transport:
        """Take what `Transport` takes."""


class Channel:
    """Calls go over the live connections in turn; dead ones come back in the background.

    Takes the endpoints, how many connections each gets, how to speak TLS and who logs in, and which endpoints get the
    calls: all (``round-robin``), the ``leader``, which is followed when leadership moves and waited for while there is
    none, or the ``first`` alone. Nothing is connected before the first call. Raises ValueError, and SecurityError for
    files of no use.
    Where the streams of all connections are used up (MAX_CONCURRENT_STREAMS), each endpoint gets a further one, which
    is called only while those before it are full. Until it is there calls wait for a stream, against their deadline;
    how long is in ``stream_waits``.
    A request that the server certainly did not process (refused, above GOAWAY's last stream id, never written) is
    sent again once. So is one whose token was refused, which certainly was not executed either, with another token, and
    again where a member has not heard of that one yet. Nothing else is sent again.

    Attributes:
        resent: requests sent again.
        in_flight, in_flight_max: calls that wait for their answer; now, and the most there ever were.
        connects: connections made.
        connected_max: the most connections that there were at a time.
        stream_limit: the fewest streams that a connection allowed at a time; None where none had a limit.
        stream_waits: calls that had to wait for a stream, by how long, in buckets of nanoseconds; see
            ``forget_waits``.
        closed: ``close`` was called.
    """

    def __init__(
        self,
        endpoints: Sequence[str | Endpoint],
        *,
        connections: int = 1,
        security: Security | None = None,
        balance: Balance = "round-robin",
        make_transport: MakeTransport = Transport,
    ) -> None:
        if not endpoints:
            raise ValueError("no endpoint given")
        if connections < 1:
            raise ValueError(f"connections must be at least 1, not {connections}")
        security = security or Security()
        self.endpoints = [
            each if isinstance(each, Endpoint) else Endpoint.parse(security.url(each)) for each in endpoints
        ]
        if balance == "first":
            del self.endpoints[1:]
        self._make_transport = make_transport
        self._dial_timeout_s = security.dial_timeout_s
        self._tls = tls_options(self.endpoints, security)
        self._login = login_of(security)
        self._leadership = Leadership() if balance == "leader" else None
        self.resent = 0
        self.in_flight = 0
        self.in_flight_max = 0
        self.connects = 0
        self.connected_max = 0
        self.stream_limit: int | None = None
        self.stream_waits: defaultdict[int, int] = defaultdict(int)
        self._waits_from_ns = 0
        self._connections = connections
        self._live: list[Transport] = []
        self._draining: list[Transport] = []
        # Those that are called: in turn, and the further ones while these are full.
        self._dealt: list[Transport] = []
        self._spare: list[Transport] = []
        self._spares: set[Transport] = set()
        self._turn = cycle(self._dealt)
        self._spare_turn = cycle(self._spare)
        self._current: Transport | None = None
        # That of `choose`, until it is used.
        self._chosen: Transport | None = None
        self._keepers: list[gevent.Greenlet] = []
        # Where streaming calls ended because their token was refused, and when those were opened.
        self._refused: list[tuple[Transport, int]] = []
        self._connecting = 0
        # Connections under way because streams were used up, and streaming calls that wait for one.
        self._widening = self._openers = 0
        self._outcome = gevent.event.AsyncResult()
        self.closed = False

    @property
    def logs_in(self) -> bool:
        """Whether its requests are a user's, so that a refused token can be replaced."""
        return self._login is not None

    def call(self, path: bytes, message: bytes, timeout_ns: int, call_ns: int) -> Stream:
        """Send a unary request and wait for its end, in the terms of ``Transport.call``.

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
                transport = self._current = self._chosen or next(self._turn, None)
                self._chosen = None
                if transport is None:
                    return self._call_later(path, message, timeout_ns, call_ns)
            stream = transport.call(path, message, timeout_ns, call_ns)
            if stream.code:
                return self._after(transport, stream, path, message, timeout_ns, call_ns)
            return stream
        except LocalError:
            return self._call_later(path, message, timeout_ns, call_ns)
        finally:
            self.in_flight -= 1

    def choose(self) -> Transport | None:
        """Return the connection of the calls of this turn of the event loop; None where there is none."""
        transport = self._current
        if transport is None or not transport.flushing:
            # Where nothing was sent there after all, it is still its turn.
            transport = self._current = self._chosen = self._chosen or next(self._turn, None)
        return transport

    def use_chosen(self) -> None:
        """Take note that something is sent over the connection that `choose` returned."""
        self._chosen = None

    def turn_to(self, transport: Transport | None) -> None:
        """Have a connection, or the next one, get the calls of this turn from here on."""
        if self._current is not None and self._current is not transport:
            self._current.passed_over()
        self._current, self._chosen = transport, None

    def after(
        self, transport: Transport, stream: Stream, path: bytes, message: bytes, timeout_ns: int, call_ns: int
    ) -> Stream:
        """Take a call that has ended on a connection, return it as `call` does: sent again where that is due."""
        if not stream.code:
            return stream
        self.in_flight += 1
        try:
            return self._after(transport, stream, path, message, timeout_ns, call_ns)
        finally:
            self.in_flight -= 1

    def _after(
        self, transport: Transport, stream: Stream, path: bytes, message: bytes, timeout_ns: int, call_ns: int
    ) -> Stream:
        if self._current is transport:
            # What the end of a call put out (RST_STREAM at a deadline) makes no turn to share: callers that waited for
            # a member that hangs would all call it again, and for ever.
            self.turn_to(None)
        if _may_be_sent_again(stream):
            self.resent += 1
            return self._call_later(path, message, timeout_ns, call_ns, again=True)
        if self.token_refused(stream):
            return self._call_readmitted(transport, stream, path, message, timeout_ns, call_ns, call_ns)
        return stream

    def open(self, path: bytes, timeout_s: float) -> StreamingCall:
        """Open a streaming call on one of the connections, waiting for one for at most ``timeout_s`` seconds.

        Raises ConnectError where none could be made.
        """
        deadline_ns = perf_counter_ns() + int(timeout_s * 1e9)
        self._readmit_streams()
        while True:
            transport = self._with_room()
            if transport is not None:
                try:
                    return transport.open(path, partial(self._on_freed, transport, perf_counter_ns()))
                except LocalError:
                    transport.retire()  # out of stream ids, say
                    continue
            self._openers += 1
            try:
                self._widen()
                if (failure := self._wait(deadline_ns)) is not None:
                    raise failure
            finally:
                self._openers -= 1
            if perf_counter_ns() >= deadline_ns and self._with_room() is None:
                full = self._called[0].endpoint if self._called else None
                raise ConnectError(full or self.endpoints[0], NO_STREAM if full else NO_ANSWER)

    def reserve(self, streams: int, timeout_s: float) -> None:
        """Connect until so many streams can be open at a time, or for at most ``timeout_s`` seconds."""
        deadline_ns = perf_counter_ns() + int(timeout_s * 1e9)
        while perf_counter_ns() < deadline_ns:
            missing = streams - sum(transport.limit for transport in self._called)
            if missing <= 0:
                return
            self._widen(missing)
            if self._wait(deadline_ns) is not None:
                return  # nobody answers: the calls will say why

    def forget_waits(self) -> None:
        """Count in ``stream_waits`` the calls from now on alone: those before were a warm-up."""
        self._waits_from_ns = perf_counter_ns()
        self.stream_waits.clear()

    @property
    def connected(self) -> int:
        """How many connections there are now."""
        return len(self._live)

    def token_refused(self, stream: Stream) -> bool:
        """Tell whether a call ended because its token was refused, and there may be another one."""
        return self._login is not None and is_token_refused(stream)

    def _readmit_streams(self) -> None:
        """Give another token to connections where a streaming call has ended because its token was refused."""
        refused, self._refused = self._refused, []
        for transport, opened_ns in refused:
            if self._login is not None and transport.accepting:
                try:
                    self._login.readmit(transport, opened_ns)
                except ConnectError:
                    transport.retire()  # the next connection says why

    def close(self) -> None:
        """Close every connection; call that wait end UNAVAILABLE. May be called again."""
        self.closed = True
        gevent.killall(self._keepers, block=False)
        for transport in self._live + self._draining:
            transport.close()
        self._settle(None)

    # ---- the slow ways

    def _call_later(self, path: bytes, message: bytes, timeout_ns: int, call_ns: int, *, again: bool = False) -> Stream:
        """Call once a connection is there; wait for the outcome of the attempts under way, or of the next one.

        ``again``: it has been sent once already.
        """
        deadline_ns = call_ns + timeout_ns
        while True:
            now = sent_ns = perf_counter_ns()
            if now >= deadline_ns:
                return never_sent(Code.DEADLINE_EXCEEDED, None)
            transport = self._with_room()
            if transport is not None:
                self.turn_to(transport)
            elif self._called:
                transport = min(self._called, key=_crowd)
            if transport is None:
                if (failure := self._wait(deadline_ns)) is not None:
                    return never_sent(Code.UNAVAILABLE, failure.cause, str(failure))
                continue
            try:
                # The server is told the whole timeout again: one header block for all; we keep the deadline.
                if transport.room > 0:
                    stream = transport.call(path, message, timeout_ns, call_ns)
                else:
                    self._widen(1)
                    stream = transport.call(path, message, timeout_ns, call_ns, queued=True)
                    sent_ns = stream.opened_ns or now
                    if call_ns >= self._waits_from_ns:
                        self._note_limit(transport)
                        self.stream_waits[bucket_ns((stream.opened_ns or stream.ended_ns) - now)] += 1
            except LocalError:
                transport.retire()  # out of stream ids, say
                continue
            if again or not _may_be_sent_again(stream):
                if self.token_refused(stream):
                    return self._call_readmitted(transport, stream, path, message, timeout_ns, call_ns, sent_ns)
                return stream
            again = True
            self.resent += 1

    def _note_limit(self, transport: Transport) -> None:
        """Note how many streams a connection allows; its peer may say so at any time."""
        limit, known = transport.limit, self.stream_limit
        if limit < UNLIMITED and (known is None or limit < known):
            self.stream_limit = limit

    def _with_room(self) -> Transport | None:
        """Return the next connection on which a stream can be opened; None where there is none."""
        for transport in chain(islice(self._turn, len(self._dealt)), islice(self._spare_turn, len(self._spare))):
            if transport.room > 0:
                return transport
        return None

    @property
    def _called(self) -> list[Transport]:
        return self._dealt + self._spare

    def _widen(self, more: int = 0) -> None:
        """Begin a further connection to each endpoint that is called, as often as those who wait for a stream need it.

        Takes how many want one beside those who wait already.
        """
        wanted = more + self._openers + sum(transport.waiting for transport in self._called)
        limits = {transport.endpoint: transport.limit for transport in self._called}
        coming = self._widening * max(limits.values(), default=0)
        while sum(limits.values()) > 0 and coming < wanted:
            for endpoint in limits:
                self._widening += 1
                self._connecting += 1
                self._keepers.append(gevent.spawn(self._keep, endpoint, widening=True))
            coming += sum(limits.values())

    def _on_freed(self, transport: Transport, opened_ns: int, call: StreamingCall) -> None:
        """Take a streaming call that has ended: those who wait to open one look again."""
        if self.token_refused(call.stream):
            self._refused.append((transport, opened_ns))
        if self._openers:
            self._tell(None)

    def _call_readmitted(
        self,
        transport: Transport,
        refused: Stream,
        path: bytes,
        message: bytes,
        timeout_ns: int,
        call_ns: int,
        sent_ns: int,
    ) -> Stream:
        """Call again on a connection where the token of a call was refused, which was sent at ``sent_ns``.

        etcd checks the token before it does anything, so no request is executed twice. Where there is no other token
        the call ends as it was refused, with the cause; and so it does where the other one is refused, too.
        """
        login = self._login
        assert login is not None
        deadline_ns = call_ns + timeout_ns
        for tried, pause_s in enumerate(TOKEN_PAUSES_S):
            try:
                # What a member has not heard of yet it may know a little later.
                known = login.readmit(transport, sent_ns)
            except ConnectError as exc:
                refused.cause = exc.cause
                transport.retire()  # and the next connections wait for a login
                break
            # A member that refuses what it has just given itself gets its time, too: passwords are dear to check.
            left_s = (deadline_ns - perf_counter_ns()) / 1e9
            gevent.sleep(0 if known and not tried else max(0.0, min(pause_s, left_s)))
            sent_ns = perf_counter_ns()
            if sent_ns >= deadline_ns:
                break
            self.resent += 1
            try:
                # The server is told the whole timeout again: one header block for all; we keep the deadline.
                stream = transport.call(path, message, timeout_ns, call_ns)
            except LocalError:
                return self._call_later(path, message, timeout_ns, call_ns, again=True)
            if _may_be_sent_again(stream):
                self.resent += 1
                return self._call_later(path, message, timeout_ns, call_ns, again=True)
            if not is_token_refused(stream):
                return stream
            refused = stream
        return refused

    def _wait(self, until_ns: int) -> ConnectError | None:
        """Wait for a connection; return why there is none, or None where there is one or time is up."""
        if self.closed:
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
            if self._leadership is not None:
                self._keepers += [gevent.spawn(self._ask_who_leads, each) for each in self.endpoints]

    def _keep(self, endpoint: Endpoint, *, widening: bool = False) -> None:
        """Keep one connection to one endpoint, for as long as the channel is open.

        ``widening``: it is a further one, and counts among those under way until it is there.
        """
        pause = _FIRST_PAUSE_S
        former: Transport | None = None
        further = widening
        while not self.closed:
            ended = gevent.event.Event()
            tls = self._tls if endpoint.tls else None
            transport = self._make_transport(endpoint, partial(self._down, ended), tls)
            try:
                transport.connect(self._dial_timeout_s)
                if self._login is not None:
                    # A member that was started again has forgotten the token.
                    self._login.admit(transport, former)
                    former = transport
                    if not transport.accepting:  # lost while it waited for a login of another one
                        raise ConnectError(endpoint, LOST)
            except ConnectError as exc:
                transport.close()
                self._connecting -= 1
                self._silent(endpoint)
                self._settle(exc)
            else:
                self._connecting -= 1
                self._widening -= widening
                widening = False
                self.connects += 1
                began = perf_counter_ns()
                self._live.append(transport)
                if further:
                    self._spares.add(transport)
                self.connected_max = max(self.connected_max, len(self._live))
                self._note_limit(transport)
                self._deal()
                self._settle(None)
                if self._login is None:
                    ended.wait()
                else:
                    self._keep_logged_in(self._login, transport, ended)
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
            self._spares.discard(transport)
            self._deal()
            self._draining = [each for each in self._draining if each.open_count]
            self._draining.append(transport)
        ended.set()

    def _deal(self) -> None:
        """Begin the turns anew, over the connections that are to be called now."""
        turn = self._live
        if self._leadership is not None:
            chosen = self._leadership.chosen(self.endpoints)
            turn = [each for each in self._live if each.endpoint in chosen]
        first = [each for each in turn if each not in self._spares]
        further = [each for each in turn if each in self._spares]
        # Where no first one is left, the further ones take their place.
        self._dealt, self._spare = (first, further) if first else (further, [])
        self._turn, self._spare_turn = cycle(self._dealt), cycle(self._spare)
        self.turn_to(None)

    def _ask_who_leads(self, endpoint: Endpoint) -> None:
        """Keep up to date what the member behind one endpoint says about the leader."""
        leadership = self._leadership
        assert leadership is not None
        while not self.closed:
            before = leadership.chosen(self.endpoints)
            transport = next((each for each in self._live if each.endpoint == endpoint), None)
            said = Code.UNAVAILABLE if transport is None else _say_who_leads(transport, leadership)
            if transport is None:
                leadership.forget(endpoint)
            elif said != Code.OK:
                leadership.silent(endpoint)
            if said == Code.PERMISSION_DENIED:
                self._tell(ConnectError(endpoint, LEADER_HIDDEN))
            if leadership.chosen(self.endpoints) != before:
                self._deal()
                self._settle(None)
            gevent.sleep(_ASK_S if transport is not None else _ASK_S / 10)

    def _silent(self, endpoint: Endpoint) -> None:
        """Take an endpoint to which no connection could be made: nothing is to be waited for from there."""
        if self._leadership is None or any(each.endpoint == endpoint for each in self._live):
            return
        before = self._leadership.chosen(self.endpoints)
        self._leadership.silent(endpoint)
        if self._leadership.chosen(self.endpoints) != before:
            self._deal()
            self._settle(None)

    def _keep_logged_in(self, login: Login, transport: Transport, ended: gevent.event.Event) -> None:
        """Wait for the end of a connection and renew its token in time."""
        while not ended.wait(login.renew_in_s):
            try:
                login.admit(transport, transport)
            except ConnectError:
                transport.retire()  # the next connection says why

    def _settle(self, failure: ConnectError | None) -> None:
        """Tell those who wait for a connection: there is one, or no attempt is left that could give one."""
        if failure is None or not (self._live or self._connecting):
            self._tell(failure)

    def _tell(self, failure: ConnectError | None) -> None:
        settled, self._outcome = self._outcome, gevent.event.AsyncResult()
        settled.set(failure)


def tls_options(endpoints: Sequence[Endpoint], security: Security) -> TlsOptions | None:
    """Take endpoints, return how to speak TLS where one of them is to be spoken to so. Raises SecurityError."""
    if not any(each.tls for each in endpoints):
        return None
    from loadgen.client.tls import TlsOptions

    return TlsOptions(security)


def login_of(security: Security) -> Login | None:
    """Return the login of a user, None where none is named."""
    if security.user is None:
        return None
    return Login(security.user, security.password or "", security.dial_timeout_s)


def _say_who_leads(transport: Transport, leadership: Leadership) -> int:
    """Ask a member who leads and note what it says; return the code it answered with."""
    try:
        stream = transport.call(STATUS, b"", _ASK_TIMEOUT_NS, perf_counter_ns(), queued=True)
        if stream.code == Code.OK:
            answer = pb.StatusResponse.FromString(stream.message or b"")
            leadership.said(transport.endpoint, answer.header.member_id, answer.raftTerm, answer.leader)
    except (LocalError, DecodeError):
        return Code.UNAVAILABLE
    return stream.code


def _crowd(transport: Transport) -> int:
    """Return how many calls wait for a stream of a connection."""
    return transport.waiting


def _may_be_sent_again(stream: Stream) -> bool:
    return stream.unprocessed and stream.code == Code.UNAVAILABLE


def never_sent(code: Code, cause: str | None, detail: str = "") -> Stream:
    """Return what stands for a call that was not sent at all, ended now."""
    stream = Stream(None, 0)
    stream.endpoint = ""
    stream.code = int(code)
    stream.cause = cause
    stream.detail = detail
    stream.unprocessed = True
    stream.ended_ns = perf_counter_ns()
    return stream
