"""Calls to one member rather than to the cluster: the Maintenance service."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

from google.protobuf.message import DecodeError

from loadgen.client.call import MALFORMED, Caller, failed
from loadgen.client.channel import STATUS, never_sent
from loadgen.client.connect_errors import ConnectError
from loadgen.history.operation import Operation, Outcome
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import Code

ALARM = b"/etcdserverpb.Maintenance/Alarm"
DEFRAGMENT = b"/etcdserverpb.Maintenance/Defragment"
HASH_KV = b"/etcdserverpb.Maintenance/HashKV"
SNAPSHOT = b"/etcdserverpb.Maintenance/Snapshot"
MOVE_LEADER = b"/etcdserverpb.Maintenance/MoveLeader"

NOSPACE, CORRUPT = pb.NOSPACE, pb.CORRUPT


class MaintenanceCalls(Caller):
    """The Maintenance service. Most are about the member asked: name its endpoint, or one of the client's is taken."""

    def status(self, endpoint: str = "") -> Operation:
        """Ask a member for its status. ``response`` is a ``StatusResponse``."""
        return self._aim(endpoint)._run(STATUS, b"", pb.StatusResponse.FromString, "status")

    def hash_kv(self, endpoint: str = "", revision: int = 0) -> Operation:
        """Ask a member for the hash of its keys up to a revision (0: as of now). ``response``: ``HashKVResponse``."""
        request = pb.HashKVRequest(revision=revision).SerializeToString()
        return self._aim(endpoint)._run(HASH_KV, request, pb.HashKVResponse.FromString, "hash_kv")

    def defragment(self, endpoint: str = "") -> Operation:
        """Have a member rewrite its database; it does nothing else meanwhile. ``response``: ``DefragmentResponse``."""
        return self._aim(endpoint)._run(DEFRAGMENT, b"", pb.DefragmentResponse.FromString, "defragment")

    def move_leader(self, endpoint: str, target_id: int) -> Operation:
        """Have the leader, which must be the member at ``endpoint``, hand over to the member ``target_id``.

        ``response`` is a ``MoveLeaderResponse``; another member than the leader answers NotLeader.
        """
        request = pb.MoveLeaderRequest(targetID=target_id).SerializeToString()
        return self._aim(endpoint)._run(MOVE_LEADER, request, pb.MoveLeaderResponse.FromString, "move_leader")

    # ---- alarms, which are the cluster's

    def alarm_list(self) -> Operation:
        """List the alarms that are raised. ``response`` is an ``AlarmResponse``."""
        request = pb.AlarmRequest(action=pb.AlarmRequest.GET).SerializeToString()
        return self._run(ALARM, request, pb.AlarmResponse.FromString, "alarm_list")

    def alarm_activate(self, member_id: int, alarm: pb.AlarmType) -> Operation:
        """Raise an alarm, ``NOSPACE`` or ``CORRUPT``, in a member's name. ``response`` is an ``AlarmResponse``."""
        request = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=member_id, alarm=alarm).SerializeToString()
        return self._run(ALARM, request, pb.AlarmResponse.FromString, "alarm_activate")

    def alarm_deactivate(self, member_id: int, alarm: pb.AlarmType) -> Operation:
        """Take a member's alarm back. ``response`` is an ``AlarmResponse``."""
        request = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=member_id, alarm=alarm)
        return self._run(ALARM, request.SerializeToString(), pb.AlarmResponse.FromString, "alarm_deactivate")

    # ---- snapshot

    def snapshot(self, write: Callable[[bytes], object], endpoint: str = "") -> Operation:
        """Give a copy of a member's database to ``write``, piece by piece; it ends with its own SHA-256.

        ``response`` is the last ``SnapshotResponse``. The client's timeout is for each piece. What ``write`` raises
        goes through, and the call is given up.
        """
        aimed = self._aim(endpoint)
        call_ns = perf_counter_ns()
        operation = Operation(0, "snapshot", b"", None, call_ns, call_ns)
        try:
            call = aimed.streams().open(SNAPSHOT, self._timeout_s)
        except ConnectError as exc:
            return failed(operation, never_sent(Code.UNAVAILABLE, exc.cause))
        with call:
            call.send(b"")
            call.finish()
            left = 1
            while (taken := call.take(self._timeout_s)) is not None:
                try:
                    piece = pb.SnapshotResponse.FromString(taken[0])
                except DecodeError:
                    call.cancel(MALFORMED)
                    break
                write(piece.blob)
                call.consumed(taken[0])
                left, operation.response = piece.remaining_bytes, piece
            if not call.ended:
                call.cancel(Code.DEADLINE_EXCEEDED.name)
        if call.code == Code.OK and left == 0:
            operation.outcome, operation.return_ns = Outcome.OK, call.ended_ns
            operation.endpoint = call.stream.endpoint
            operation.revision = operation.response.header.revision
            return operation
        operation.response = None
        if call.code == Code.OK:
            call.stream.code, call.stream.cause = int(Code.INTERNAL), MALFORMED
        return failed(operation, call.stream)

    def _aim(self, endpoint: str) -> MaintenanceCalls:
        return self.at(endpoint) if endpoint else self
