"""Operators' calls for the conformance tests: members, alarms, snapshots, users and roles."""

from __future__ import annotations

import base64
import json
from typing import BinaryIO, Protocol, runtime_checkable

from cluster.base.errors import NoAnswer
from cluster.gateway.control import ControlClient
from cluster.gateway.etcd3py import stream_error
from cluster.observe.health import Alarm

NO_SPACE = "NOSPACE"


@runtime_checkable
class Admin(Protocol):
    """The operator's half of a client; all raise NoAnswer and EtcdError as ``Client`` does."""

    def member_add(self, peer_url: str, *, learner: bool = False) -> int:
        """Add a member that is to be started at this peer URL; return its id."""

    def member_promote(self, member_id: int) -> None:
        """Give a learner a vote."""

    def member_remove(self, member_id: int) -> None:
        """Take a member out of the cluster."""

    def alarms(self) -> tuple[Alarm, ...]:
        """Return all alarms of all members."""

    def alarm_set(self, member_id: int, kind: str, *, raised: bool) -> None:
        """Raise or clears an alarm of a member."""

    def snapshot(self, file: BinaryIO) -> int:
        """Write the member's store into a file, as `etcdutl snapshot restore` takes it; return the bytes."""

    def auth(self, call: str, **fields: str | dict[str, str]) -> None:
        """Make a call of etcd's Auth service by its path, such as ``user/add``, with the fields of its request."""

    def login(self, user: str, password: str) -> None:
        """Make all later calls of this client as a user."""


class AdminClient(ControlClient):
    """The Admin over etcd3-py: ControlClient with the operator's calls."""

    def member_add(self, peer_url: str, *, learner: bool = False) -> int:
        """Add a member that is to be started at this peer URL; return its id."""
        answer = self.rpc("/cluster/member/add", {"peerURLs": [peer_url], "isLearner": learner})
        return int(answer["member"]["ID"])

    def member_promote(self, member_id: int) -> None:
        """Give a learner a vote."""
        self.rpc("/cluster/member/promote", {"ID": str(member_id)})

    def member_remove(self, member_id: int) -> None:
        """Take a member out of the cluster."""
        self.rpc("/cluster/member/remove", {"ID": str(member_id)})

    def alarms(self) -> tuple[Alarm, ...]:
        """Return all alarms of all members."""
        answer = self.rpc("/maintenance/alarm", {"action": "GET"})
        return tuple(Alarm(int(alarm.get("memberID", 0)), alarm.get("alarm", "")) for alarm in answer.get("alarms", ()))

    def alarm_set(self, member_id: int, kind: str, *, raised: bool) -> None:
        """Raise or clears an alarm of a member."""
        action = "ACTIVATE" if raised else "DEACTIVATE"
        self.rpc("/maintenance/alarm", {"action": action, "memberID": str(member_id), "alarm": kind})

    def snapshot(self, file: BinaryIO) -> int:
        """Write the member's store into a file, as `etcdutl snapshot restore` takes it; return the bytes."""
        response = self._call(self._client.call_rpc, "/maintenance/snapshot", {}, stream=True, encode=False, raw=True)
        written = 0
        with response:
            lines = response.iter_lines(chunk_size=65536)
            while (line := self._call(next, lines, None)) is not None:
                message = json.loads(line) if line else {}
                if "error" in message:
                    raise stream_error(message["error"])
                written += file.write(base64.b64decode(message.get("result", {}).get("blob", "")))
        if not written:
            raise NoAnswer(f"{self.endpoint}: an empty snapshot", cause="not etcd")
        return written

    def auth(self, call: str, **fields: str | dict[str, str]) -> None:
        """Make a call of etcd's Auth service by its path, such as ``user/add``, with the fields of its request."""
        self.rpc(f"/auth/{call}", dict(fields))
