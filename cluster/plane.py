"""The control plane of a whole cluster: all endpoints asked at the same moment, over ``control.py``."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from cluster.control import ControlClient, MemberInfo, split_endpoint
from cluster.errors import ClusterError, NoAnswer
from cluster.probe import MemberStatus, agreed_leader, version_key
from cluster.security import Security

T = TypeVar("T")


class ControlPlane:
    """A whole cluster, one client an endpoint, all asked at the same moment.

    Close it, or use it in ``with``.
    """

    def __init__(self, endpoints: Sequence[str], *, timeout_s: float = 2.0, security: Security | None = None) -> None:
        """Takes endpoints as ControlClient does, and the seconds for each call. Asks nothing yet.

        Raises ValueError for a malformed endpoint, or none.
        """
        if not endpoints:
            raise ValueError("no endpoints")
        self.endpoints = tuple(split_endpoint(endpoint)[0] for endpoint in endpoints)
        self._given = tuple(endpoints)
        self._timeout_s = timeout_s
        self._security = security
        self._clients: dict[str, ControlClient] = {}
        self._names: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections."""
        while self._clients:
            self._clients.popitem()[1].close()

    def client(self, endpoint: str) -> ControlClient:
        """The client of one endpoint, made at the first call. Raises as ControlClient does."""
        if endpoint not in self._clients:
            made = ControlClient(endpoint, timeout_s=self._timeout_s, security=self._security)
            self._clients[endpoint] = made
        return self._clients[endpoint]

    def ask(self) -> list[MemberStatus | ClusterError]:
        """Every endpoint's status, or why there is none, in order; at most twice the timeout."""

        def one(endpoint: str) -> MemberStatus | ClusterError:
            try:
                return self.client(endpoint).status()
            except ClusterError as exc:
                return exc

        with concurrent.futures.ThreadPoolExecutor(len(self._given)) as pool:
            answers = list(pool.map(one, self._given))
        statuses = [answer for answer in answers if isinstance(answer, MemberStatus)]
        if any(status.member_id not in self._names for status in statuses):
            with contextlib.suppress(ClusterError):
                self._names = {member.id: member.name for member in self.members()}
        return [
            dataclasses.replace(answer, name=self._names.get(answer.member_id, ""))
            if isinstance(answer, MemberStatus)
            else answer
            for answer in answers
        ]

    def statuses(self) -> list[MemberStatus]:
        """The statuses of those that answered."""
        return [answer for answer in self.ask() if isinstance(answer, MemberStatus)]

    def leader(self) -> MemberStatus | None:
        """The member that takes itself for the leader in the newest term; None where no one does."""
        leaders = [status for status in self.statuses() if status.is_leader]
        return max(leaders, key=lambda status: status.term, default=None)

    def members(self) -> tuple[MemberInfo, ...]:
        """Who is in the cluster, by the first endpoint that answers. Raises its error where none does."""
        return self._first(ControlClient.members)

    def revision(self) -> int:
        """The store's revision, by a linearizable read at the first endpoint that answers."""
        return self._first(ControlClient.revision)

    def version(self) -> str:
        """The lowest version of those that answer. Raises NoAnswer where none does."""
        versions = [status.version for status in self.statuses()]
        if not versions:
            raise NoAnswer(f"none of {', '.join(self.endpoints)} answers")
        return min(versions, key=version_key)

    def wait_healthy(self, timeout_s: float = 30.0) -> list[MemberStatus]:
        """Waits until all endpoints agree on a leader and serve linearizable reads; returns their statuses.

        Raises ClusterError with the first reason after ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            reason, statuses = self._why_unhealthy()
            if not reason:
                return statuses
            if time.monotonic() >= deadline:
                raise ClusterError(f"the cluster is not healthy after {timeout_s:g} s: {reason}")
            time.sleep(0.05)

    def _why_unhealthy(self) -> tuple[str, list[MemberStatus]]:
        statuses = []
        for answer in self.ask():
            if isinstance(answer, ClusterError):
                return str(answer), []
            statuses.append(answer)
        # The leader may be a member that was not named, so it need not be among them.
        leaders = {status.leader_id for status in statuses}
        if len(leaders) != 1 or 0 in leaders:
            return "the members do not agree on a leader", statuses
        if agreed_leader(statuses) is None and len(statuses) >= len(self._names):
            return "the leader does not know that it leads", statuses
        for endpoint in self._given:
            try:
                self.client(endpoint).revision()
            except ClusterError as exc:
                return f"{endpoint} serves no linearizable read ({exc})", statuses
        return "", statuses

    def _first(self, ask: Callable[[ControlClient], T]) -> T:
        failure: ClusterError = NoAnswer("no endpoint answers")
        for endpoint in self._given:
            try:
                return ask(self.client(endpoint))
            except NoAnswer as exc:
                failure = exc
        raise failure
