"""One call to etcd and its outcome: the base of every group of calls in ``loadgen.client.etcd``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Protocol, Self

from google.protobuf.message import DecodeError

from cluster.base.errors import error_name
from cluster.base.security import Security
from loadgen.client.balancing import Balance
from loadgen.client.channel import Channel, MakeTransport
from loadgen.client.kv import classify
from loadgen.client.transport import Transport
from loadgen.history.operation import Operation, Outcome
from loadgen.wire import Code, Stream

if TYPE_CHECKING:
    from loadgen.history.writer import HistoryWriter
    from loadgen.proto import etcd_pb2 as pb

MALFORMED = "malformed answer"
_OK = Outcome.OK

KILLED = "killed"
AUTH = b"/etcdserverpb.Auth/"


class Answered(Protocol):
    """An answer of etcd: each has a header."""

    @property
    def header(self) -> pb.ResponseHeader:
        """Whose answer it is, and of which revision."""


class Caller:
    """Calls methods of etcd's services, for any number of greenlets of one process. Connects at the first call.

    Takes the endpoints, the time that a call may take in seconds, the connections to each endpoint, how to speak TLS
    and who logs in, which endpoints get the calls and what makes connections (see ``Channel``), and those of streaming
    calls; ``abandoned``: it is given the INFO operation of a greenlet that is killed while it waits, before the kill
    goes on; and ``history``, which every call and every answer of a watch is recorded in, as sent and as received.
    Raises ValueError for a malformed endpoint, SecurityError for files of no use. Calls raise nothing for what etcd or
    the network do: that is in the operation. ``channel`` holds the counters.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        timeout_s: float = 5.0,
        connections: int = 1,
        security: Security | None = None,
        balance: Balance = "round-robin",
        abandoned: Callable[[Operation], None] | None = None,
        history: HistoryWriter | None = None,
        make_transport: MakeTransport = Transport,
        make_streams: MakeTransport = Transport,
    ) -> None:
        if timeout_s <= 0:
            raise ValueError(f"timeout must be positive, not {timeout_s}")
        self.endpoints = list(endpoints)
        self.channel = Channel(
            endpoints, connections=connections, security=security, balance=balance, make_transport=make_transport
        )
        self._connections = connections
        self._timeout_s = timeout_s
        self._timeout_ns = int(timeout_s * 1e9)
        self._abandoned = abandoned
        self._security = security
        self._balance: Balance = balance
        self._history = history
        self._call = self.channel.call
        self._make_streams = make_streams
        self._streams: Channel | None = None
        self._apart: dict[str, Self] = {}
        self._closed = False

    def record_in(self, history: HistoryWriter) -> None:
        """Record what is called from now on, and its answers."""
        self._history = history

    def close(self) -> None:
        """Close the connections; call that wait end. May be called again."""
        self._closed = True
        self.channel.close()
        if self._streams is not None:
            self._streams.close()
        for each in self._apart.values():
            each.close()

    def at(self, endpoint: str) -> Self:
        """Return the client of one endpoint alone, the same one each time; it has connections of its own.

        It ends with this client. Raises ValueError for a malformed endpoint.
        """
        made = self._apart.get(endpoint)
        if made is None:
            made = self._apart[endpoint] = type(self)(
                [endpoint],
                timeout_s=self._timeout_s,
                connections=self._connections,
                abandoned=self._abandoned,
                security=self._security,
                history=self._history,
                make_streams=self._make_streams,
            )
            if self._closed:
                made.close()
        return made

    def streams(self) -> Channel:
        """Return where streaming calls go: a connection to each of the endpoints, apart from those of the other calls.

        What a watch delivers, or the end of a peer that it finds silent, does not meet them.
        """
        if self._streams is None:
            self._streams = Channel(
                self.endpoints, security=self._security, balance=self._balance, make_transport=self._make_streams
            )
            if self._closed:
                self._streams.close()
        return self._streams

    def unary(
        self, path: bytes, request: bytes, decode: Callable[[bytes], Answered], f: str, *, key: bytes = b"",
        process: int = 0, timeout_s: float | None = None,
    ) -> Operation:  # fmt: skip
        """Call any unary method, by its path, with an encoded request; ``decode`` reads its answer.

        ``f`` names it in the operation, and says whether it writes (see ``kv.READS``); ``timeout_s`` is for this call.
        """
        timeout_ns = 0 if timeout_s is None else max(1, int(timeout_s * 1e9))
        return self._run(path, request, decode, f, key, None, process, 0, timeout_ns)

    def _run(
        self,
        path: bytes,
        request: bytes,
        decode: Callable[[bytes], Answered],
        f: str,
        key: bytes = b"",
        value: bytes | None = None,
        process: int = 0,
        due_ns: int = 0,
        timeout_ns: int = 0,
    ) -> Operation:
        call_ns = perf_counter_ns()
        try:
            stream = self._call(path, request, timeout_ns or self._timeout_ns, call_ns)
        except BaseException:
            self.give_up(path, Operation(process, f, key, value, due_ns or call_ns, call_ns), request)
            raise
        return self._ended(stream, path, request, decode, f, key, value, process, due_ns, call_ns)

    def _ended(
        self,
        stream: Stream,
        path: bytes,
        request: bytes,
        decode: Callable[[bytes], Answered],
        f: str,
        key: bytes,
        value: bytes | None,
        process: int,
        due_ns: int,
        call_ns: int,
    ) -> Operation:
        """Return the operation of a call that has ended."""
        if stream.code == 0:
            try:
                response = decode(stream.message)  # type: ignore[arg-type]
            except DecodeError:
                stream.code, stream.answered, stream.cause = int(Code.INTERNAL), False, MALFORMED
            else:
                operation = Operation(
                    process, f, key, value, due_ns or call_ns, call_ns, stream.ended_ns, _OK,
                    response.header.revision, None, response, stream.endpoint,
                )  # fmt: skip
                if self._history is not None:
                    self.record(path, operation, request, stream.message or b"")
                return operation
        operation = failed(Operation(process, f, key, value, due_ns or call_ns, call_ns), stream)
        if self._history is not None:
            said = (stream.detail or operation.error or "").encode()
            self.record(path, operation, request, said, stream.code, stream.answered)
        return operation

    def record(
        self, path: bytes, operation: Operation, request: bytes, said: bytes, code: int = 0, answered: bool = True
    ) -> None:
        """Record an operation that has ended, in the terms of ``HistoryWriter.operation``.

        No password and no token is: of the service Auth no request, and of a login no answer.
        """
        history = self._history
        if history is None:
            return
        if path.startswith(AUTH):
            request, said = b"", b"" if path == AUTH + b"Authenticate" and code == 0 else said
        # With one endpoint it is known who was to be asked, also where nobody was.
        endpoint = operation.endpoint or (str(self.channel.endpoints[0]) if len(self.endpoints) == 1 else "")
        history.operation(
            path, operation.process, operation.due_ns, operation.call_ns, operation.return_ns, operation.outcome,
            request, said, code=code, answered=answered, endpoint=history.endpoint(endpoint) if endpoint else 0,
        )  # fmt: skip

    def give_up(self, path: bytes, operation: Operation, request: bytes) -> None:
        """Tell of an operation whose greenlet was killed while it waited."""
        operation.return_ns = perf_counter_ns()
        operation.error = KILLED
        self.record(path, operation, request, KILLED.encode(), Code.CANCELLED, False)
        if self._abandoned is not None:
            self._abandoned(operation)


def failed(operation: Operation, stream: Stream) -> Operation:
    """Take an operation and the stream that ended without an answer to it, return the operation with its end."""
    operation.return_ns = stream.ended_ns
    said = stream.detail if stream.answered else ""
    operation.outcome = classify(
        operation.f, stream.code, said, answered=stream.answered, unprocessed=stream.unprocessed
    )
    operation.error = stream.cause or error_name(stream.code, said)
    operation.endpoint = stream.endpoint
    operation.code = stream.code if stream.answered else 0
    operation.detail = stream.detail
    return operation
