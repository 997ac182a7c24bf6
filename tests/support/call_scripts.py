"""Records of calls that are written by hand: one call after the other, 10 ms each."""

from __future__ import annotations

import dataclasses
from typing import Any

from cluster.base.verdict import Verdict
from loadgen.check.actors import judge
from loadgen.check.rules import OF_CALLS, Ledger
from loadgen.history.calls import Call, Calls, MemberEvent
from loadgen.history.operation import Outcome

MS = 1_000_000
A, B = "etcd-node1", "etcd-node2"
KEPT, BROKEN = Verdict.PASS, Verdict.FAIL


class CallScript:
    """Collects calls. ``member`` and ``user`` are who is asked, and who asks, where a call does not say so.

    Attributes:
        calls: so far.
        at: when the next one begins, in nanoseconds.
    """

    def __init__(self, user: str = "", member: str = A) -> None:
        self.user, self.member = user, member
        self.calls: list[Call] = []
        self.events = [MemberEvent(name, "started", 1) for name in (A, B)]
        self.at = 100 * MS

    def ok(
        self, method: str, request: dict[str, Any] | None = None, answer: dict[str, Any] | None = None, **who: Any
    ) -> Call:
        """Add a call that succeeds."""
        return self.add(method, request, {"header": {"raft_term": 2}, **(answer or {})}, **who)

    def no(
        self, method: str, request: dict[str, Any] | None = None, error: str = "PermissionDenied", **who: Any
    ) -> Call:
        """Add a call that is refused."""
        return self.add(method, request, None, outcome=Outcome.FAIL, error=error, **who)

    def add(
        self, method: str, request: dict[str, Any] | None, answer: dict[str, Any] | None, *,
        outcome: Outcome = Outcome.OK, error: str = "", user: str | None = None, member: str = "", long: int = 1,
    ) -> Call:  # fmt: skip
        """Add a call that takes so many times 10 ms."""
        begun = self.at
        self.at += long * 10 * MS
        call = Call(
            len(self.calls) + 1, self.user if user is None else user, member or self.member, method, request or {},
            answer, begun, self.at - MS, outcome, error,
        )  # fmt: skip
        self.calls.append(call)
        return call

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.at += int(seconds * 1e9)

    def beside(self, call: Call) -> None:
        """Have the next call begin while this one is under way."""
        self.at = (call.invoked_ns + call.completed_ns) // 2

    def auth(self, **rights: tuple[str, str, str]) -> None:
        """Add users, each with a right (READ, WRITE or READWRITE, key, end of the range), and switch auth on."""
        for user, (kind, key, end) in {"root": ("READ", "", ""), **rights}.items():
            self.ok("UserAdd", {"name": user}, user="")
            self.ok("RoleAdd", {"name": user}, user="")
            if key:
                perm = {"permType": kind, "key": key, **({"range_end": end} if end else {})}
                self.ok("RoleGrantPermission", {"name": user, "perm": perm}, user="")
            self.ok("UserGrantRole", {"user": user, "role": user}, user="")
        self.ok("AuthEnable", user="")

    def record(self) -> Calls:
        """Return all of it, as it is read."""
        return Calls(tuple(sorted(self.calls, key=lambda call: call.number)), tuple(self.events))

    def verdicts(self) -> dict[str, Verdict]:
        """Return the verdict on each rule that was tested."""
        ledger = Ledger()
        judge(self.record(), ledger)
        by_calls = [rule for rule in OF_CALLS if rule != "member.fair"]  # that is judged by what the history says
        results = [ledger.result(rule) for rule in by_calls]
        return {result.rule: result.verdict for result in results if result.verdict is not Verdict.SKIP}

    def broken(self) -> set[str]:
        """Return the rules that are broken."""
        return {rule for rule, verdict in self.verdicts().items() if verdict is Verdict.FAIL}


def without(call: Call, **changes: Any) -> Call:
    """Return a call with other fields."""
    return dataclasses.replace(call, **changes)
