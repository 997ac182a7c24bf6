"""A record of calls as evidence: what a member surely knew when it was asked, and calls in words."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from loadgen.history.calls import Call, Calls, Plain
from loadgen.history.operation import Outcome


class Keys(NamedTuple):
    """The keys from ``first`` up to, not including, ``end``; None: up to the last."""

    first: bytes
    end: bytes | None

    @classmethod
    def of(cls, message: Plain) -> Keys:
        """Return what the fields ``key`` and ``range_end`` mean in any of etcd's messages."""
        first = str(message.get("key", "")).encode("latin-1")
        end = str(message.get("range_end", "")).encode("latin-1")
        if not end:
            return cls(first, first + b"\0")
        return cls(first, None if end == b"\0" else end)

    @classmethod
    def one(cls, key: str) -> Keys:
        """Return the keys that are this one alone."""
        return cls(raw := key.encode("latin-1"), raw + b"\0")

    def meets(self, other: Keys) -> bool:
        """Whether some key is in both."""
        return (other.end is None or self.first < other.end) and (self.end is None or other.first < self.end)

    def words(self) -> str:
        """Return them for people."""
        first = self.first.decode("latin-1")
        if self.end == self.first + b"\0":
            return repr(first)
        return f"[{first!r}, {'the last' if self.end is None else repr(self.end.decode('latin-1'))})"


def words(call: Call) -> str:
    """Return a call in words: who asked whom for what."""
    who = f"user {call.user}" if call.user else "nobody"
    about = f" {Keys.of(call.request).words()}" if "key" in call.request else ""
    if "ID" in call.request:
        about = f" of {call.request['ID']:x}"
    return f"call {call.number}: {call.method}{about} by {who} at {call.member}"


def until_ns(call: Call) -> float:
    """Return until when a call may have taken effect: one without an answer may at any time later."""
    return math.inf if call.outcome is Outcome.INFO else call.completed_ns


def header(call: Call, field: str) -> int:
    """Return a field of the header of a call's answer, 0 where there is none."""
    return int(((call.answer or {}).get("header") or {}).get(field, 0))


def operations(txn: Plain) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give each operation of a transaction, and of those in it, of both branches; with what it is."""
    for branch in ("success", "failure"):
        for each in txn.get(branch, ()):
            for op, request in each.items():
                yield op, request
                if op == "request_txn":
                    yield from operations(request)


def performed(call: Call) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give each operation of the KV service that a call certainly did, with what it is: none where it did not succeed.

    Of a transaction, and of those in it, those of the branch that its answer names.
    """
    if not call.ok:
        return
    if call.method == "Txn":
        yield from _taken(call.request, call.answer or {})
    elif call.method in _SINGLE:
        yield _SINGLE[call.method], call.request


def _taken(txn: Plain, answer: Plain) -> Iterator[tuple[str, Mapping[str, Any]]]:
    branch = txn.get("success" if answer.get("succeeded") else "failure", ())
    for each, said in zip(branch, answer.get("responses", ()), strict=False):
        for op, request in each.items():
            if op == "request_txn":
                yield from _taken(request, said.get("response_txn", {}))
            else:
                yield op, request


def asked(call: Call) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give each operation of the KV service that a call may have done, of both branches of a transaction."""
    if call.method == "Txn":
        yield from operations(call.request)
    elif call.method in _SINGLE:
        yield _SINGLE[call.method], call.request


_SINGLE = {"Range": "request_range", "Put": "request_put", "DeleteRange": "request_delete_range"}
_BY_LOG = frozenset({
    "Put", "DeleteRange", "Compact", "LeaseGrant", "LeaseRevoke", "AuthEnable", "AuthDisable", "UserAdd", "UserDelete",
    "UserGrantRole", "UserRevokeRole", "RoleAdd", "RoleDelete", "RoleGrantPermission", "RoleRevokePermission",
    "MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote", "Alarm",
})  # fmt: skip


def goes_by_log(call: Call) -> bool:
    """Whether the member that answers a call has applied by then all that was answered before the call began."""
    if call.method == "Range":
        return not call.request.get("serializable")
    if call.method == "Txn":
        return any(op != "request_range" or not each.get("serializable") for op, each in operations(call.request))
    return call.method in _BY_LOG


class Spread:
    """How far changes had come at the member that a call asked.

    A change takes effect somewhere between its call and its answer, and at another member later. What a member surely
    knows is what it has shown to know since its process began, by answering the change itself, or anything that goes
    by the log after it: one that was started again takes in once more what its log says.

    Takes a record, and whether one is of the changes in question; those that failed are none.

    Attributes:
        changes: those that were made, or may have been, in the order of their answers.
        beside_ns: from when on their order is not known, since two were under way at a time; infinite where it is known
            to the end. One without an answer may still be made later.
    """

    def __init__(self, record: Calls, is_change: Callable[[Call], bool]) -> None:
        calls = record.calls
        found = [call for call in calls if call.outcome is not Outcome.FAIL and is_change(call)]
        self.changes = sorted(found, key=lambda call: call.completed_ns)
        pairs = pairwise(self.changes)
        beside = (min(earlier.invoked_ns, later.invoked_ns) for earlier, later in pairs
                  if later.invoked_ns < earlier.completed_ns)  # fmt: skip
        self.beside_ns = next(beside, math.inf)
        self._ends = [change.completed_ns for change in self.changes]
        # The earliest that any of the changes from here on began: it rises, and so can be searched.
        begun = accumulate((change.invoked_ns for change in reversed(self.changes)), min)
        self._begun = list(begun)[::-1]
        self._restarts: dict[str, list[int]] = {}
        for event in sorted(record.events, key=lambda event: event.at_ns):
            self._restarts.setdefault(event.member, []).append(event.at_ns)
        shown: dict[str, list[tuple[int, int]]] = {}
        for number, change in enumerate(self.changes, 1):
            if change.ok:
                shown.setdefault(change.member, []).append((change.completed_ns, number))
        for call in calls:
            if call.ok and goes_by_log(call) and (number := bisect_left(self._ends, call.invoked_ns)):
                shown.setdefault(call.member, []).append((call.completed_ns, number))
        self._known = {member: self._most_since_start(member, found) for member, found in shown.items()}

    def _most_since_start(self, member: str, shown: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Take how many changes a member has shown to know and when; return the most since its process began."""
        found: list[tuple[int, int]] = []
        for at_ns, number in sorted(shown):
            before = found[-1][1] if found and self._since(member, at_ns) < found[-1][0] else 0
            found.append((at_ns, max(number, before)))
        return found

    def _since(self, member: str, at_ns: int) -> int:
        """Return when the process of a member that is there at a time began, or ended; 0 where nothing says so."""
        restarts = self._restarts.get(member, [])
        before = bisect_left(restarts, at_ns)
        return restarts[before - 1] if before else 0

    def floor(self, call: Call) -> int:
        """Return how many changes the member that a call asks has surely heard of when it answers.

        One that refuses may do so by what it knows, before it asks the others.
        """
        number = bisect_left(self._ends, call.invoked_ns) if call.ok and goes_by_log(call) else 0
        return max(number, self.known(call))

    def known(self, call: Call) -> int:
        """Return how many changes the member that a call asks has surely heard of before it is asked."""
        known = self._known.get(call.member, [])
        before = bisect_left(known, (call.invoked_ns, 0))
        if before and known[before - 1][0] > self._since(call.member, call.invoked_ns):
            return known[before - 1][1]
        return 0

    def most(self, call: Call) -> int:
        """Return how many changes it may have heard of at most when it answers, besides the call itself."""
        number = bisect_left(self._begun, call.completed_ns)
        if number and self.changes[number - 1].number == call.number:
            begun = (n for n in range(number - 1, 0, -1) if self.changes[n - 1].invoked_ns < call.completed_ns)
            number = next(begun, 0)
        return max(self.floor(call), number)
