"""No violation in what a simulated etcd answers: changes that spread late, restarts, and calls beside others."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cluster.base.verdict import Verdict
from loadgen.check.actors import judge
from loadgen.check.call_record import goes_by_log
from loadgen.check.permissions import CHANGES, State, needs
from loadgen.check.rules import OF_CALLS, Ledger
from loadgen.history.calls import Call, Calls, MemberEvent
from loadgen.history.operation import Outcome

MEMBERS = ("a", "b", "c")
USERS = ("root", "u", "v", "")
KEYS = ("k", "l", "m")
RANGES = [{"key": key} for key in KEYS] + [{"key": "k", "range_end": "m"}, {"key": "k", "range_end": "\0"}]

_DONE = {"succeeded": True, "responses": [{"response_range": {}}, {"response_put": {}}]}


class Simulated:
    """A cluster that hears of changes of rights when it likes, and answers as etcd promises. Times are whole numbers.

    Takes the source of all choices.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.now = rng, 10
        self.calls: list[Call] = []
        self.events = [MemberEvent(member, "started", 1) for member in MEMBERS]
        self.changes: list[Call] = []
        self.committed: list[int] = []
        self.applied: dict[str, list[int]] = {member: [] for member in MEMBERS}

    def change(self, method: str, request: dict[str, Any]) -> None:
        """Make a change, one after the other; it may be that nobody hears what became of it."""
        rng, member = self.rng, self.rng.choice(MEMBERS)
        begun = self.now + 1
        committed = begun + rng.randint(1, 5)
        lost, made = rng.random() < 0.03, True
        if lost:
            made = rng.random() < 0.5
        for each, times in self.applied.items():
            late = rng.choice((1, 2, 30, 200)) if each != member else 1
            if made:
                times.append(max(committed + late, times[-1] + 1 if times else 0))
        ended = (self.applied[member][-1] if made else committed) + rng.randint(1, 5)
        outcome, answer = (Outcome.INFO, None) if lost else (Outcome.OK, {})
        call = Call(0, "root", member, method, request, answer, begun, ended, outcome)
        self.calls.append(call)
        if made:
            self.changes.append(call)
            self.committed.append(committed)
        self.now = ended + 1

    def ask(self, method: str, request: dict[str, Any], user: str) -> None:
        """Ask for something that a right is needed for, while the next changes go on, perhaps."""
        rng, member = self.rng, self.rng.choice(MEMBERS)
        begun = self.now + rng.randint(0, 3)
        call = Call(0, user, member, method, request, {}, begun, 0, Outcome.OK)
        at = begun + rng.randint(1, 40)
        if goes_by_log(call):
            heard = sum(each < begun for each in self.committed)
            at = max([at, *self.applied[member][:heard]])
        state = self.state(member, at)
        ended = at + rng.randint(1, 40)
        denied = not state.permits(user, needs(request, method)) if user else state.enabled
        if denied:
            error = "PermissionDenied" if user else "UserEmpty"
            done = Call(0, user, member, method, request, None, begun, ended, Outcome.FAIL, error)
        else:
            answer = {"Watch": {"events": [{"kv": {"key": request.get("key")}}]}, "Txn": _DONE}.get(method, {})
            done = Call(0, user, member, method, request, answer, begun, ended, Outcome.OK)
        self.calls.append(done)
        self.now = begun

    def state(self, member: str, at: int) -> State:
        """Return what a member knew at a time."""
        state = State()
        for change, when in zip(self.changes, self.applied[member], strict=True):
            if when <= at:
                state = state.after(change)
        return state

    def record(self) -> Calls:
        """Return all that was recorded."""
        self.calls.sort(key=lambda call: call.invoked_ns)
        numbered = [
            Call(number, each.user, each.member, each.method, each.request, each.answer, each.invoked_ns,
                 each.completed_ns, each.outcome, each.error)
            for number, each in enumerate(self.calls, 1)
        ]  # fmt: skip
        return Calls(tuple(numbered), tuple(self.events))


def _some_change(rng: random.Random) -> tuple[str, dict[str, Any]]:
    role = rng.choice(("u", "v"))
    method = rng.choice(sorted(CHANGES - {"UserAdd", "UserDelete", "RoleDelete", "RoleAdd"}))
    kind = rng.choice(("READ", "WRITE", "READWRITE"))
    requests: dict[str, dict[str, Any]] = {
        "UserGrantRole": {"user": rng.choice(("u", "v")), "role": role},
        "UserRevokeRole": {"name": rng.choice(("u", "v")), "role": role},
        "RoleGrantPermission": {"name": role, "perm": {"permType": kind, **rng.choice(RANGES)}},
        "RoleRevokePermission": {"role": role, **rng.choice(RANGES)},
    }
    return method, requests.get(method, {})


@given(st.integers(0, 1 << 32))
def test_what_a_simulated_etcd_answers_breaks_no_promise(seed: int) -> None:
    rng = random.Random(seed)
    etcd = Simulated(rng)
    for user in ("root", "u", "v"):
        etcd.change("UserAdd", {"name": user})
        etcd.change("RoleAdd", {"name": user})
        etcd.change("UserGrantRole", {"user": user, "role": user})
    etcd.change("AuthEnable", {})
    for _ in range(rng.randint(5, 30)):
        if rng.random() < 0.3:
            etcd.change(*_some_change(rng))
        else:
            method = rng.choice(("Range", "Put", "Txn", "Watch"))
            request = dict(rng.choice(RANGES if method in ("Range", "Watch") else RANGES[:3]))
            if method == "Range" and rng.random() < 0.5:
                request["serializable"] = True
            if method == "Txn":
                request = {"success": [{"request_range": rng.choice(RANGES)}, {"request_put": request}]}
            etcd.ask(method, request, rng.choice(USERS))
    ledger = Ledger()
    judge(etcd.record(), ledger)
    broken = [result for rule in OF_CALLS if (result := ledger.result(rule)).verdict is Verdict.FAIL]
    assert not broken, broken
