"""The client of `raftload cluster test --transport grpc`: blocking calls over gRPC.

It is a ``cluster.gateway.client.Client`` and an ``Admin``. The tests run in threads, which wait; the calls run as
greenlets of one thread for all clients.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import BinaryIO, TypeVar

import gevent
from google.protobuf import json_format
from google.protobuf.message import Message

from cluster.base.endpoint import Endpoint
from cluster.base.errors import EtcdError, NoAnswer
from cluster.base.etcd_values import Answer, Compare, KeyValue, Op
from cluster.base.security import Security
from cluster.gateway.admin import NO_SPACE
from cluster.gateway.client import ClientFactory, Lease, LeaseState, StoreHash, Unsupported, WatchCanceled, WatchEvent
from cluster.observe.health import Alarm
from cluster.observe.probe import MemberInfo, MemberStatus
from loadgen.client import kv
from loadgen.client.etcd import EtcdClient
from loadgen.client.hub_thread import HubThread
from loadgen.client.maintenance import CORRUPT, NOSPACE
from loadgen.client.watch import Watch
from loadgen.client.watcher import Watcher
from loadgen.history.operation import Operation, Outcome
from loadgen.proto import auth_pb2, kv_pb2
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import Code


def grpc_factory(*, timeout_s: float = 5.0, security: Security | None = None) -> ClientFactory:
    """Take the seconds that a call may take, and how to speak TLS; return what makes a client of an endpoint."""
    return lambda endpoint: BlockingClient(endpoint, timeout_s=timeout_s, security=security)


R = TypeVar("R", bound=Message)


class BlockingClient:
    """One endpoint of etcd over gRPC. For one thread at a time; a watch may be read by another one."""

    def __init__(self, endpoint: str, *, timeout_s: float = 5.0, security: Security | None = None) -> None:
        """Connect and asks for the version. Raises NoAnswer, EtcdError, and ValueError for a malformed endpoint."""
        self.endpoint = Endpoint.parse(endpoint).authority
        self._url = endpoint
        self._timeout_s = timeout_s
        self._security = security
        self._client = self._open(security)
        try:
            self.version: str = self._ask(pb.StatusResponse, lambda client: client.status()).version
        except BaseException:
            self.close()
            raise

    def _open(self, security: Security | None) -> EtcdClient:
        return _hub().run(lambda: EtcdClient([self._url], timeout_s=self._timeout_s, security=security))

    def close(self) -> None:
        """Close its connections."""
        _hub().run(self._client.close)

    def _ask(self, kind: type[R], call: Callable[[EtcdClient], Operation], timeout_s: float | None = None) -> R:
        """Run a call; return its response, which is of a kind, or raise what became of it."""
        response = self._do(call, timeout_s).response
        assert isinstance(response, kind)
        return response

    def _do(self, call: Callable[[EtcdClient], Operation], timeout_s: float | None = None) -> Operation:
        """Run a call that succeeds, or raise what became of it."""
        client = self._client

        def bounded() -> Operation | None:
            timer = gevent.Timeout.start_new(timeout_s)
            try:
                return call(client)
            except gevent.Timeout:
                return None
            finally:
                timer.close()

        done = _hub().run(bounded)
        if done is None:
            raise NoAnswer(f"{self.endpoint}: no answer in time", cause="timeout")
        if done.outcome == Outcome.OK:
            return done
        if done.code:
            raise EtcdError(done.code, done.detail)
        cause = "timeout" if done.error == Code.DEADLINE_EXCEEDED.name else done.error or "no answer"
        # Why there is no connection is said in whole, with etcd's own words.
        reason = done.detail if done.detail.startswith(self.endpoint) else f"{self.endpoint}: {cause}"
        raise NoAnswer(reason, cause=cause, sent=done.outcome == Outcome.INFO)

    # ---- members

    def status(self, name: str = "", timeout_s: float | None = None) -> MemberStatus:
        """Return the member's own view, which needs no quorum. ``name`` is what to call it."""
        said = self._ask(pb.StatusResponse, lambda client: client.status(), timeout_s)
        return MemberStatus(
            name=name,
            endpoint=self.endpoint,
            member_id=said.header.member_id,
            leader_id=said.leader,
            term=said.raftTerm,
            commit_index=said.raftIndex,
            applied_index=said.raftAppliedIndex,
            revision=said.header.revision,
            db_size=said.dbSize,
            version=said.version,
            is_learner=said.isLearner,
            errors=tuple(said.errors),
        )

    def members(self) -> tuple[MemberInfo, ...]:
        """Return who is in the cluster, as this member knows."""
        return tuple(
            MemberInfo(each.ID, each.name, tuple(each.peerURLs), tuple(each.clientURLs), each.isLearner)
            for each in self._ask(pb.MemberListResponse, lambda client: client.member_list()).members
        )

    # ---- keys and values

    def put(self, key: bytes, value: bytes, *, lease: int = 0, prev_kv: bool = False) -> Answer:
        """Set a key."""
        return _answer(self._ask(pb.PutResponse, lambda client: client.put(key, value, lease=lease, prev_kv=prev_kv)))

    def get(
        self,
        key: bytes,
        *,
        range_end: bytes = b"",
        serializable: bool = False,
        revision: int = 0,
        limit: int = 0,
        count_only: bool = False,
    ) -> Answer:
        """Read a key, or a range; linearizable unless told otherwise."""
        return _answer(
            self._ask(
                pb.RangeResponse,
                lambda client: client.range(
                    key, range_end, serializable=serializable, revision=revision, limit=limit, count_only=count_only
                ),
            )
        )

    def delete(self, key: bytes, *, range_end: bytes = b"", prev_kv: bool = False) -> Answer:
        """Delete a key, or a range."""
        return _answer(self._ask(pb.DeleteRangeResponse, lambda client: client.delete(key, range_end, prev_kv=prev_kv)))

    def txn(self, compare: Sequence[Compare], success: Sequence[Op] = (), failure: Sequence[Op] = ()) -> Answer:
        """If all conditions hold does ``success``, else ``failure``, at one revision."""
        conditions = [kv.compare(each.key, each.target, each.relation, each.operand) for each in compare]
        branches = [[_op(each) for each in branch] for branch in (success, failure)]
        return _answer(self._ask(pb.TxnResponse, lambda client: client.txn(conditions, *branches)))

    def compact(self, revision: int) -> None:
        """Forget history before ``revision``."""
        self._do(lambda client: client.compact(revision, physical=True))

    def hash_kv(self, revision: int) -> StoreHash:
        """Hash of the member's store at a revision. Raises Unsupported where that cannot be had."""
        try:
            said = self._ask(pb.HashKVResponse, lambda client: client.hash_kv(revision=revision))
        except EtcdError as exc:
            if exc.code != Code.UNIMPLEMENTED:
                raise
            raise Unsupported(f"{self.endpoint}: etcd {self.version} offers no HashKV") from exc
        return StoreHash(hash=said.hash, compact_revision=said.compact_revision)

    # ---- leases

    def lease_grant(self, ttl_s: int) -> Lease:
        """Return a new lease of at least so many seconds."""
        said = self._ask(pb.LeaseGrantResponse, lambda client: client.lease_grant(ttl_s))
        return Lease(id=said.ID, ttl_s=said.TTL)

    def lease_state(self, lease_id: int) -> LeaseState:
        """Return what is left of a lease, and its keys."""
        said = self._ask(pb.LeaseTimeToLiveResponse, lambda client: client.lease_time_to_live(lease_id, keys=True))
        return LeaseState(id=lease_id, remaining_s=said.TTL, granted_s=said.grantedTTL, keys=tuple(said.keys))

    def lease_keepalive(self, lease_id: int) -> int:
        """Renew a lease. Returns its seconds from now; 0 where it is gone already."""
        try:
            return int(self._ask(pb.LeaseKeepAliveResponse, lambda client: client.lease_keepalive(lease_id)).TTL)
        except EtcdError as exc:
            if exc.name == "LeaseNotFound":
                return 0
            raise

    def lease_revoke(self, lease_id: int) -> None:
        """End a lease, and its keys with it."""
        self._do(lambda client: client.lease_revoke(lease_id))

    # ---- watches

    def watch(
        self, key: bytes, *, range_end: bytes = b"", start_revision: int = 0, prev_kv: bool = False
    ) -> BlockingWatch:
        """Watch a key, or a range, from ``start_revision`` on; 0 is from now.

        Returns when the server has the watch. A watch that lost its stream has ended: going on could hide a gap.
        """
        client = self._client

        def begin() -> tuple[Watcher, Watch, bool]:
            watcher = client.watcher()
            made = watcher.watch(key, range_end, start_revision=start_revision, prev_kv=prev_kv)
            return watcher, made, made.wait_created(self._timeout_s)

        watcher, made, created = _hub().run(begin)
        watch = BlockingWatch(watcher, made, self.endpoint)
        if not created:
            watch.close()
            if made.reason:
                raise WatchCanceled(f"{self.endpoint}: watch canceled: {made.reason}")
            raise NoAnswer(f"{self.endpoint}: no watch in time", cause="timeout")
        return watch

    # ---- what operators do

    def member_add(self, peer_url: str, *, learner: bool = False) -> int:
        """Add a member that is to be started at this peer URL; return its id."""
        return int(
            self._ask(pb.MemberAddResponse, lambda client: client.member_add([peer_url], learner=learner)).member.ID
        )

    def member_promote(self, member_id: int) -> None:
        """Give a learner a vote."""
        self._do(lambda client: client.member_promote(member_id))

    def member_remove(self, member_id: int) -> None:
        """Take a member out of the cluster."""
        self._do(lambda client: client.member_remove(member_id))

    def alarms(self) -> tuple[Alarm, ...]:
        """Return all alarms of all members."""
        said = self._ask(pb.AlarmResponse, lambda client: client.alarm_list()).alarms
        return tuple(Alarm(each.memberID, pb.AlarmType.Name(each.alarm)) for each in said)

    def alarm_set(self, member_id: int, kind: str, *, raised: bool) -> None:
        """Raise or clears an alarm of a member."""
        alarm = NOSPACE if kind == NO_SPACE else CORRUPT
        if raised:
            self._do(lambda client: client.alarm_activate(member_id, alarm))
        else:
            self._do(lambda client: client.alarm_deactivate(member_id, alarm))

    def snapshot(self, file: BinaryIO) -> int:
        """Write the member's store into a file, as `etcdutl snapshot restore` takes it; return the bytes."""
        written = 0

        def write(blob: bytes) -> None:
            nonlocal written
            written += file.write(blob)

        self._do(lambda client: client.snapshot(write))
        return written

    def auth(self, call: str, **fields: str | dict[str, str]) -> None:
        """Make a call of etcd's Auth service by its path, such as ``user/add``, with the fields of its request."""
        self._do(lambda client: _AUTH[call](client, **fields))

    def login(self, user: str, password: str) -> None:
        """Make all later calls of this client as a user."""
        self._do(lambda client: client.authenticate(user, password))
        self.close()
        self._client = self._open(dataclasses.replace(self._security or Security(), user=user, password=password))


class BlockingWatch:
    """A watch that one thread reads."""

    def __init__(self, watcher: Watcher, watch: Watch, endpoint: str) -> None:
        self._watcher, self._watch, self._endpoint = watcher, watch, endpoint
        self._events: deque[WatchEvent] = deque()

    def next(self, timeout_s: float) -> WatchEvent | None:
        """Return the next event, None where none comes in time. Raises WatchCanceled and NoAnswer."""
        watch = self._watch
        if not self._events:
            answer = _hub().run(lambda: watch.next(max(timeout_s, 0.001)))
            if answer is not None:
                self._events.extend(_event(each) for each in answer.response.events)
        if self._events:
            return self._events.popleft()
        if watch.error is not None:
            compacted = watch.compact_revision
            reason = watch.reason or (f"compacted up to {compacted}" if compacted else watch.error)
            raise WatchCanceled(f"{self._endpoint}: watch canceled: {reason}", compact_revision=compacted)
        if watch.interruptions:
            raise NoAnswer(f"{self._endpoint}: the watch's connection was lost", cause="connection lost")
        return None

    def close(self) -> None:
        """End it; idempotent."""
        _hub().run(self._watcher.close)


@functools.cache
def _hub() -> HubThread:
    return HubThread()


def _grant(client: EtcdClient, name: str, perm: dict[str, str]) -> Operation:
    permission = json_format.ParseDict(perm, auth_pb2.Permission())
    return client.role_grant_permission(name, permission.permType, permission.key, permission.range_end)


# By the gateway's paths, with the fields of its requests.
_AUTH: dict[str, Callable[..., Operation]] = {
    "enable": lambda client: client.auth_enable(),
    "disable": lambda client: client.auth_disable(),
    "user/add": lambda client, name, password: client.user_add(name, password),
    "user/delete": lambda client, name: client.user_delete(name),
    "user/grant": lambda client, user, role: client.user_grant_role(user, role),
    "role/add": lambda client, name: client.role_add(name),
    "role/delete": lambda client, role: client.role_delete(role),
    "role/grant": _grant,
}


def _op(op: Op) -> pb.RequestOp:
    if op.f == "put":
        return kv.put_op(op.key, op.value, lease=op.lease)
    return kv.get_op(op.key, op.range_end) if op.f == "get" else kv.delete_op(op.key, op.range_end)


def _answer(said: kv.KvResponse) -> Answer:
    """From any of the KV service's responses, of which each has some of these fields."""
    prev = [said.prev_kv] if isinstance(said, pb.PutResponse) and said.HasField("prev_kv") else ()
    responses = (getattr(each, each.WhichOneof("response")) for each in getattr(said, "responses", ()))
    return Answer(
        revision=said.header.revision,
        member_id=said.header.member_id,
        term=said.header.raft_term,
        kvs=tuple(map(_key_value, getattr(said, "kvs", ()))),
        count=getattr(said, "count", 0),
        deleted=getattr(said, "deleted", 0),
        prev_kvs=tuple(map(_key_value, getattr(said, "prev_kvs", prev))),
        succeeded=said.succeeded if isinstance(said, pb.TxnResponse) else None,
        responses=tuple(map(_answer, responses)),
    )


def _key_value(said: kv_pb2.KeyValue) -> KeyValue:
    return KeyValue(said.key, said.value, said.create_revision, said.mod_revision, said.version, said.lease)


def _event(said: kv_pb2.Event) -> WatchEvent:
    return WatchEvent(
        type="delete" if said.type == kv_pb2.Event.DELETE else "put",
        kv=_key_value(said.kv),
        prev_kv=_key_value(said.prev_kv) if said.HasField("prev_kv") else None,
    )
