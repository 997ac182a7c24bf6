"""Leases: grant, revoke, how long they have to live, and keeping them alive."""

from __future__ import annotations

from collections import defaultdict, deque
from time import perf_counter_ns

import gevent
import gevent.event
import gevent.lock
from google.protobuf.message import DecodeError

from cluster.base.etcd_errors import KINDS
from loadgen.client.call import MALFORMED, Caller, failed
from loadgen.client.channel import never_sent
from loadgen.client.connect_errors import NO_ANSWER, ConnectError
from loadgen.client.streaming import StreamingCall
from loadgen.history.operation import Operation, Outcome
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import Code, Stream

GRANT = b"/etcdserverpb.Lease/LeaseGrant"
REVOKE = b"/etcdserverpb.Lease/LeaseRevoke"
KEEP_ALIVE = b"/etcdserverpb.Lease/LeaseKeepAlive"
TIME_TO_LIVE = b"/etcdserverpb.Lease/LeaseTimeToLive"
LEASES = b"/etcdserverpb.Lease/LeaseLeases"
_GONE = KINDS["LeaseNotFound"]


def lease_key(lease: int) -> bytes:
    """Return what stands for a lease as the key of an operation: its id in hexadecimal, as etcdctl writes it."""
    return b"%016x" % (lease & (1 << 64) - 1)


# Who waits for the answers about a lease, in the order of their requests. The answers about different leases come in
# any order: `etcd grpc-proxy` renews each by itself.
_Waiting = defaultdict[int, deque[gevent.event.AsyncResult]]


class LeaseCalls(Caller):
    """The Lease service. Times to live are whole seconds, here as in etcd."""

    _keeper: LeaseKeeper | None = None

    def lease_grant(self, ttl: int, lease: int = 0, *, process: int = 0, due_ns: int = 0) -> Operation:
        """Make a lease of ``ttl`` seconds; 0 lets the server choose its id. ``response``: ``LeaseGrantResponse``."""
        request = pb.LeaseGrantRequest(TTL=ttl, ID=lease).SerializeToString()
        decode = pb.LeaseGrantResponse.FromString
        return self._run(GRANT, request, decode, "lease_grant", lease_key(lease), None, process, due_ns)

    def lease_revoke(self, lease: int, *, process: int = 0, due_ns: int = 0) -> Operation:
        """End a lease, and delete its keys. ``response`` is a ``LeaseRevokeResponse``."""
        request = pb.LeaseRevokeRequest(ID=lease).SerializeToString()
        decode = pb.LeaseRevokeResponse.FromString
        return self._run(REVOKE, request, decode, "lease_revoke", lease_key(lease), None, process, due_ns)

    def lease_time_to_live(self, lease: int, *, keys: bool = False, process: int = 0, due_ns: int = 0) -> Operation:
        """Ask how long a lease has left (-1: it is gone). ``response`` is a ``LeaseTimeToLiveResponse``."""
        request = pb.LeaseTimeToLiveRequest(ID=lease, keys=keys).SerializeToString()
        decode = pb.LeaseTimeToLiveResponse.FromString
        return self._run(TIME_TO_LIVE, request, decode, "lease_time_to_live", lease_key(lease), None, process, due_ns)

    def lease_list(self) -> Operation:
        """List the leases. ``response`` is a ``LeaseLeasesResponse``."""
        return self._run(LEASES, b"", pb.LeaseLeasesResponse.FromString, "lease_list")

    def lease_keepalive(self, lease: int, *, process: int = 0, due_ns: int = 0) -> Operation:
        """Renew a lease once, over the stream that such calls of this client share; see ``LeaseKeeper.renew``."""
        if self._keeper is None:
            self._keeper = self.lease_keeper()
        return self._keeper.renew(lease, process=process, due_ns=due_ns)

    def lease_keeper(self) -> LeaseKeeper:
        """Return a keepalive stream of its own; the server answers the requests of one stream one after the other."""
        return LeaseKeeper(self, self._timeout_s)

    def close(self) -> None:
        """Close the connections; call that wait end. May be called again."""
        super().close()
        if self._keeper is not None:
            self._keeper.close()


class LeaseKeeper:
    """Renews leases over one stream, which is opened when it is needed, and again after a loss.

    Takes whose stream it is, and the time that a renewal may take in seconds. Nothing is sent twice: a renewal that the
    loss met is INFO.

    Attributes: ``streams``, how many streams there have been.
    """

    def __init__(self, caller: Caller, timeout_s: float) -> None:
        self.streams = 0
        self._caller = caller
        self._channel = caller.streams()
        self._timeout_s = timeout_s
        self._call: StreamingCall | None = None
        self._waiting: _Waiting = defaultdict(deque)
        self._opening = gevent.lock.BoundedSemaphore()
        self._kept: set[gevent.Greenlet] = set()

    def open(self) -> str | None:
        """Open the stream where there is none; return why there is none then, None where there is one."""
        try:
            self._opened(perf_counter_ns() + int(self._timeout_s * 1e9))
        except ConnectError as exc:
            return exc.cause
        return None

    def renew(self, lease: int, *, process: int = 0, due_ns: int = 0) -> Operation:
        """Give a lease its whole time to live again. ``response`` is a ``LeaseKeepAliveResponse``.

        A lease that is gone fails with LeaseNotFound: the server says so with a time to live of 0.
        """
        request = pb.LeaseKeepAliveRequest(ID=lease).SerializeToString()
        call_ns = perf_counter_ns()
        operation = Operation(process, "lease_keepalive", lease_key(lease), None, due_ns or call_ns, call_ns)
        try:
            message = self._renew(operation, request, lease)
        except BaseException:
            self._caller.give_up(KEEP_ALIVE, operation, request)
            raise
        if operation.outcome == Outcome.OK:
            self._caller.record(KEEP_ALIVE, operation, request, message or b"")
        else:
            # What was not answered has no status of its own.
            said = operation.detail or operation.error or ""
            self._caller.record(
                KEEP_ALIVE, operation, request, said.encode(), operation.code or Code.UNKNOWN, operation.code > 0
            )
        return operation

    def keep(self, lease: int, ttl: int) -> gevent.Greenlet:
        """Renew a lease every third of its ``ttl`` seconds, as etcd's Go client does, until it is gone.

        Returns the greenlet that does so; kill it to stop. Its value is the renewal that found the lease gone.
        """

        def renew() -> Operation:
            while True:
                done = self.renew(lease)
                if done.error == _GONE.name or (done.outcome == Outcome.FAIL and self._channel.closed):
                    return done
                gevent.sleep(max(ttl, 1) / 3)

        made = gevent.spawn(renew)
        self._kept.add(made)
        made.link(self._kept.discard)
        return made

    def close(self) -> None:
        """End the stream, and what ``keep`` began. May be called again."""
        gevent.killall(list(self._kept), block=False)
        if self._call is not None:
            self._call.cancel()

    def _renew(self, operation: Operation, request: bytes, lease: int) -> bytes | None:
        """Fill the operation in; return the answer's bytes, if there was one."""
        until_ns = operation.call_ns + int(self._timeout_s * 1e9)
        for again in (True, False):
            renewal: gevent.event.AsyncResult = gevent.event.AsyncResult()
            try:
                call = self._opened(until_ns)
            except ConnectError as exc:
                failed(operation, never_sent(Code.UNAVAILABLE, exc.cause))
                return None
            self._waiting[lease].append(renewal)
            answer: tuple[bytes, int, pb.LeaseKeepAliveResponse] | Stream | None = call.stream
            if call.send(request):
                # One that comes too late finds its place in the queue, and nobody there.
                answer = renewal.wait(_left_s(until_ns))
            # A stream that ends for its token was not read any further: what waited there was not executed.
            if not (again and isinstance(answer, Stream) and self._channel.token_refused(answer)):
                break
            self._caller.channel.resent += 1
        if answer is None:
            operation.return_ns = perf_counter_ns()
            operation.error = Code.DEADLINE_EXCEEDED.name
            return None
        if isinstance(answer, Stream):
            failed(operation, answer)
            return None
        message, operation.return_ns, response = answer
        operation.endpoint = call.stream.endpoint
        if response.TTL <= 0:
            operation.outcome, operation.error = Outcome.FAIL, _GONE.name
            operation.code, operation.detail = int(Code.NOT_FOUND), _GONE.text
        else:
            operation.outcome, operation.response = Outcome.OK, response
        operation.revision = response.header.revision
        return message

    def _opened(self, until_ns: int) -> StreamingCall:
        """Return the stream, opened if need be. Raises ConnectError where there is none at a moment."""
        if not self._opening.acquire(timeout=_left_s(until_ns)):
            raise ConnectError(self._channel.endpoints[0], NO_ANSWER)  # somebody else waits for it as long
        try:
            if self._call is None or self._call.ended:
                self._call = self._channel.open(KEEP_ALIVE, _left_s(until_ns))
                self._waiting = defaultdict(deque)
                self.streams += 1
                gevent.spawn(self._read, self._call, self._waiting)
            return self._call
        finally:
            self._opening.release()

    def _read(self, call: StreamingCall, waiting: _Waiting) -> None:
        while (taken := call.receive()) is not None:
            message, read_ns = taken
            try:
                response = pb.LeaseKeepAliveResponse.FromString(message)
            except DecodeError:
                response = pb.LeaseKeepAliveResponse()
            asked = waiting.get(response.ID)
            if not asked:
                call.cancel(MALFORMED)
                break
            asked.popleft().set((message, read_ns, response))
            if not asked:
                del waiting[response.ID]
        for asked in waiting.values():
            for renewal in asked:
                renewal.set(call.stream)


def _left_s(until_ns: int) -> float:
    """Return the seconds until a moment on the monotonic clock; 0 after it."""
    return max(0.0, (until_ns - perf_counter_ns()) / 1e9)
