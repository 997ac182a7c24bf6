"""An actor: a client of one member, as one user or as nobody, each call of which is recorded with who made it.

For a few hundred calls of any kind, from threads that gevent has not patched. What is called for speed, or in
thousands, is called by ``EtcdClient``, whose operations the history alone has.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import gevent
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from cluster.base.endpoint import Endpoint
from cluster.base.etcd_errors import kind_of
from cluster.base.security import Security
from loadgen.client.call import KILLED
from loadgen.client.etcd import EtcdClient
from loadgen.client.hub_thread import HubThread
from loadgen.client.kv import bytes_prefix_end
from loadgen.client.transport import Transport
from loadgen.client.watch import COMPACTED, Watch, WatchOptions
from loadgen.history.calls import Call, CallWriter, Plain
from loadgen.history.operation import Operation, Outcome
from loadgen.proto import etcd_pb2 as pb

if TYPE_CHECKING:
    from loadgen.client.tls import TlsOptions
    from loadgen.history.writer import HistoryWriter

T = TypeVar("T")
VALUE_KEPT = 64
"""How many bytes of a value ``plain`` keeps; the history has all of it."""


def plain(message: Message) -> dict[str, Any]:
    """Return a message as ``calls.Plain``: what is set of it, by the names of its fields; of a value its beginning."""
    return {field.name: _plain(field, value) for field, value in message.ListFields()}


def _plain(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, bytes | str | int | bool | Message):
        return _single(field, value)
    return [_single(field, each) for each in value]


def _single(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, bytes):
        return (value[:VALUE_KEPT] if field.name == "value" else value).decode("latin-1")
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        number = field.enum_type.values_by_number.get(value)
        return number.name if number is not None else value
    return value


@dataclasses.dataclass(frozen=True, slots=True)
class Rpc:
    """A unary method of etcd's API.

    Attributes:
        name: such as ``LeaseGrant``; no two services have one of the same name.
        path: as gRPC has it.
        f: its name in operations, such as ``lease_grant``.
        decode: reads its answer.
    """

    name: str
    path: bytes
    f: str
    decode: Callable[[bytes], Any]


_NAMES = {"DeleteRange": "delete", "Compact": "compact", "HashKV": "hash_kv", "LeaseLeases": "lease_list"}


def _rpc(service: str, method: MethodDescriptor) -> Rpc:
    f = _NAMES.get(method.name) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method.name).lower()
    answer = message_factory.GetMessageClass(method.output_type)
    return Rpc(method.name, f"/{service}/{method.name}".encode(), f, answer.FromString)


UNARY: dict[str, Rpc] = {
    method.input_type.full_name: _rpc(service.full_name, method)
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if not (method.client_streaming or method.server_streaming)
}
"""Each unary method of etcd's API by the name of its request."""


class Actor:
    """Takes the member's URL and its name, and who asks: a user with a password, or nobody.

    ``timeout_s`` is for each call where that does not say otherwise; ``calls`` gets every call, and ``history`` the
    operations and the watches. ``metadata`` are header fields that each unary call has, such as a token of one's own,
    which is for an actor without a password. It connects, and logs in, at the first call; a token that is refused is
    renewed once, as ``EtcdClient`` does. For any number of threads, and after ``close`` for none.
    """

    def __init__(
        self,
        url: str,
        member: str,
        *,
        hub: HubThread,
        calls: CallWriter,
        history: HistoryWriter | None = None,
        user: str = "",
        password: str = "",
        process: int = 0,
        timeout_s: float = 5.0,
        metadata: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.url, self.member, self.user = url, member, user
        self._hub, self._calls, self._process = hub, calls, process
        self._timeout_s = timeout_s
        security = Security(user=user, password=password) if password else None

        def connection(
            endpoint: Endpoint, on_end: Callable[[Transport], None] | None = None, tls: TlsOptions | None = None
        ) -> Transport:
            made = Transport(endpoint, on_end, tls)
            if metadata:
                made.set_metadata(metadata)
            return made

        self.client: EtcdClient = hub.run(
            lambda: EtcdClient(
                [url], timeout_s=timeout_s, security=security, history=history, make_transport=connection
            )
        )

    def close(self) -> None:
        """Close its connections; calls that wait end."""
        self._hub.run(self.client.close)

    # ---- calls

    def ask(self, request: Message, *, timeout_s: float | None = None, cancel_after_s: float | None = None) -> Call:
        """Make the call that a request is for, such as ``pb.MemberListRequest()``; return what came of it.

        After ``timeout_s`` it is given up, and the server knows when that will be; ``cancel_after_s``: it is given up
        then, and the server is told only at that moment. Raises nothing for what etcd or the network do.
        """
        return self.start(request, timeout_s=timeout_s, cancel_after_s=cancel_after_s).result()

    def start(
        self, request: Message, *, timeout_s: float | None = None, cancel_after_s: float | None = None
    ) -> Future[Call]:
        """Make a call as ``ask`` does and return at once; the future has what came of it."""
        rpc = UNARY[request.DESCRIPTOR.full_name]
        encoded, number = request.SerializeToString(), self._calls.begin()
        f = "alarm_list" if isinstance(request, pb.AlarmRequest) and request.action == request.GET else rpc.f
        key: bytes = getattr(request, "key", b"")

        def go() -> Operation:
            return self.client.unary(
                rpc.path, encoded, rpc.decode, f, key=key, process=self._process, timeout_s=timeout_s
            )

        return self._hub.start(lambda: self._recorded(number, rpc.name, plain(request), go, cancel_after_s))

    def keepalive(self, lease: int) -> Call:
        """Renew a lease once; one that is gone fails with LeaseNotFound."""
        request, number = pb.LeaseKeepAliveRequest(ID=lease), self._calls.begin()
        return self._hub.run(
            lambda: self._recorded(
                number, "LeaseKeepAlive", plain(request),
                lambda: self.client.lease_keepalive(lease, process=self._process),
            )
        )  # fmt: skip

    def snapshot(self, write: Callable[[bytes], object] | None = None) -> Call:
        """Take a copy of the member's database, and give it to ``write``; the answer says how large it is, in bytes."""
        number, size = self._calls.begin(), [0]

        def take(piece: bytes) -> None:
            size[0] += len(piece)
            if write is not None:
                write(piece)

        return self._hub.run(
            lambda: self._recorded(number, "Snapshot", {}, lambda: self.client.snapshot(take), size=size)
        )

    def _recorded(
        self, number: int, method: str, request: Plain, go: Callable[[], Operation],
        cancel_after_s: float | None = None, size: list[int] | None = None,
    ) -> Call:  # fmt: skip
        invoked_ns = perf_counter_ns()
        if cancel_after_s is None:
            done: Operation | None = go()
        else:
            asked = gevent.spawn(go)
            asked.join(cancel_after_s)
            asked.kill()
            done = asked.value if isinstance(asked.value, Operation) else None
        call = self._call_of(number, method, request, done, invoked_ns)
        if size is not None and call.ok:
            call = dataclasses.replace(call, answer={"header": (call.answer or {}).get("header", {}), "bytes": size[0]})
        self._calls.call(call)
        return call

    def _call_of(self, number: int, method: str, request: Plain, done: Operation | None, invoked_ns: int) -> Call:
        if done is None:
            return Call(number, self.user, self.member, method, request, None, invoked_ns, perf_counter_ns(),
                        Outcome.INFO, KILLED)  # fmt: skip
        answer = plain(done.response) if done.outcome is Outcome.OK else None
        return Call(
            number, self.user, self.member, method, request, answer, done.call_ns, done.return_ns, done.outcome,
            done.error or "", done.detail,
        )  # fmt: skip

    # ---- calls that are made often

    def put(self, key: bytes, value: bytes, *, lease: int = 0, prev_kv: bool = False) -> Call:
        """Set a key."""
        return self.ask(pb.PutRequest(key=key, value=value, lease=lease, prev_kv=prev_kv))

    def get(self, key: bytes, *, prefix: bool = False, serializable: bool = False, revision: int = 0) -> Call:
        """Read a key, or every key that begins so."""
        end = bytes_prefix_end(key) if prefix else b""
        return self.ask(pb.RangeRequest(key=key, range_end=end, serializable=serializable, revision=revision))

    def delete(self, key: bytes, *, prefix: bool = False, prev_kv: bool = False) -> Call:
        """Delete a key, or every key that begins so."""
        end = bytes_prefix_end(key) if prefix else b""
        return self.ask(pb.DeleteRangeRequest(key=key, range_end=end, prev_kv=prev_kv))

    # ---- watches

    def watch(
        self, key: bytes, range_end: bytes = b"", *, recorded: bool = True, **options: Unpack[WatchOptions]
    ) -> ActorWatch:
        """Watch a key, or the range up to ``range_end``, over a stream of its own; return once the server has answered.

        Takes the options of ``Watcher.watch``. The first call that it records is its creation: OK with the answer
        ``{"created": true}``, or refused. Where nobody answered in time the outcome is INFO. ``recorded`` is whether
        what comes is recorded as calls too: thousands of events are better in the history alone.
        """
        return ActorWatch(self, key, range_end, options, recorded=recorded)

    def _watch_call(
        self, request: Plain, invoked_ns: int, answer: Plain | None, error: str = "", detail: str = "",
        outcome: Outcome = Outcome.FAIL, at_ns: int = 0,
    ) -> Call:  # fmt: skip
        call = Call(
            self._calls.begin(), self.user, self.member, "Watch", request, answer, invoked_ns,
            at_ns or perf_counter_ns(), Outcome.OK if answer is not None else outcome, error, detail,
        )  # fmt: skip
        self._calls.call(call)
        return call


class ActorWatch:
    """One watch of an actor, each answer of which is recorded when it is taken. For one thread.

    Attributes:
        created: the call that created it, or was refused.
        events: all events that were taken, as ``Plain``, in order; none where they are not recorded.
    """

    def __init__(
        self, actor: Actor, key: bytes, range_end: bytes, options: WatchOptions, *, recorded: bool = True
    ) -> None:
        self._actor, self._recorded = actor, recorded
        self._hub = actor._hub
        self._invoked_ns = perf_counter_ns()
        self.events: list[Mapping[str, Any]] = []
        self._over = False

        def begin() -> tuple[Any, Watch, bool]:
            watcher = actor.client.watcher()
            made = watcher.watch(key, range_end, **options)
            return watcher, made, made.wait_created(actor._timeout_s)

        self._watcher, self._watch, created = self._hub.run(begin)
        self._request = plain(self._watch.request)
        if created:
            answer = {"created": True, "revision": self._watch.created_revision}
            self.created = actor._watch_call(self._request, self._invoked_ns, answer)
        else:
            self.created = self._end()

    def next(self, timeout_s: float) -> Call | None:
        """Return the next answer, with events or the end; None where none comes in so many seconds, or after the end.

        The end is a call that failed. Where nothing is recorded an answer is the call that created the watch.
        """
        if self._over:
            return None
        taken = self._hub.run(lambda: self._watch.next(max(timeout_s, 0.001)))
        if taken is not None and not taken.response.canceled:
            if not self._recorded:
                return self.created
            answer = plain(taken.response)
            self.events += answer.get("events", ())
            return self._actor._watch_call(self._request, self._invoked_ns, answer, at_ns=taken.read_ns)
        if taken is not None or self._watch.error is not None:
            return self._end()
        return None

    def take(self, count: int, within_s: float) -> list[Mapping[str, Any]]:
        """Take answers until there are so many events, the watch has ended or the time is up; return all events."""
        until = perf_counter_ns() + int(within_s * 1e9)
        while len(self.events) < count and (left := (until - perf_counter_ns()) / 1e9) > 0:
            if self.next(left) is None and self._over:
                break
        return self.events

    def take_up_to(self, revision: int, within_s: float) -> list[Mapping[str, Any]]:
        """Take answers until there is an event of that revision or a later one, or as ``take``; return all events."""
        until = perf_counter_ns() + int(within_s * 1e9)
        while not self.events or self.events[-1]["kv"]["mod_revision"] < revision:
            left = (until - perf_counter_ns()) / 1e9
            if left <= 0 or (self.next(left) is None and self._over):
                break
        return self.events

    def close(self) -> None:
        """Give it up. May be called again."""
        self._over = True
        self._hub.run(self._watcher.close)

    def _end(self) -> Call:
        """Record why it ended, or was never there."""
        self._over = True
        watch = self._watch
        kind = kind_of(watch.reason)
        error = watch.error or ""
        outcome = Outcome.FAIL if error else Outcome.INFO
        name = kind.name if kind and error != COMPACTED else error or "no answer"
        return self._actor._watch_call(self._request, self._invoked_ns, None, name, watch.reason, outcome)
