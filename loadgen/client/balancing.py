"""Load balancing over the endpoints of a cluster: all in turn, the leader alone, or one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, get_args

from cluster.base.endpoint import Endpoint

Balance = Literal["round-robin", "leader", "first"]
BALANCES = cast(tuple[Balance, ...], get_args(Balance))


class Leadership:
    """What the members behind some endpoints say about who leads."""

    def __init__(self) -> None:
        self._ids: dict[int, Endpoint] = {}
        self._views: dict[Endpoint, tuple[int, int]] = {}
        self._asked: set[Endpoint] = set()

    def said(self, endpoint: Endpoint, member_id: int, term: int, leader_id: int) -> None:
        """Take a member's own word: its id, its term, and the id of the leader it knows, 0 for none."""
        self._ids[member_id] = endpoint
        self._views[endpoint] = (term, leader_id)
        self._asked.add(endpoint)

    def silent(self, endpoint: Endpoint) -> None:
        """Take an endpoint that does not answer: what it said last does not count."""
        self.forget(endpoint)
        self._asked.add(endpoint)

    def forget(self, endpoint: Endpoint) -> None:
        """Take an endpoint that cannot be asked at present: what it said last does not count."""
        self._views.pop(endpoint, None)

    def chosen(self, endpoints: Sequence[Endpoint]) -> set[Endpoint]:
        """Take all endpoints, return those to call: the one of the leader in the newest term.

        None while no member knows a leader, and while the leader may be one that was not asked yet; all where the
        leader is a member that none of them stands for.
        """
        leader_id = max((view for view in self._views.values() if view[1]), default=(0, 0))[1]
        if leader_id == 0:
            return set()
        endpoint = self._ids.get(leader_id)
        if endpoint is not None:
            return {endpoint}
        return set(endpoints) if self._asked.issuperset(endpoints) else set()
