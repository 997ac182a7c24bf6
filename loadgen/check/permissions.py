"""Users, roles and rights as the calls of a record made them, and who may do what at which moment.

The state is replayed from the auth calls themselves. When a change has come to a member is not known exactly
(`Spread`), so each question has several possible answers, and a promise is broken only where it is broken in all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from loadgen.check.call_record import Keys, Spread
from loadgen.history.calls import Call, Calls, Plain

ROOT = "root"
_MOST_STATES = 64
Mode = Literal["read", "write"]
_MODES: dict[str, frozenset[Mode]] = {
    "READ": frozenset({"read"}), "WRITE": frozenset({"write"}), "READWRITE": frozenset({"read", "write"}),
}  # fmt: skip


class Need(NamedTuple):
    """What a call needs the right for."""

    mode: Mode
    keys: Keys


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """Users, roles and rights at one moment.

    Attributes:
        enabled: whether authentication is on.
        users: the names of the roles of each user.
        roles: the rights of each role.
    """

    enabled: bool = False
    users: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    roles: Mapping[str, frozenset[tuple[frozenset[Mode], Keys]]] = dataclasses.field(default_factory=dict)

    def is_root(self, user: str) -> bool:
        """Whether a user has the role that may do everything."""
        return ROOT in self.users.get(user, ())

    def permits(self, user: str, needs: Iterable[Need]) -> bool:
        """Whether a user may do all that a call needs; everybody may while authentication is off."""
        if not self.enabled or self.is_root(user):
            return True
        rights = [right for role in self.users.get(user, ()) for right in self.roles.get(role, ())]
        return all(_covered(need.keys, [keys for modes, keys in rights if need.mode in modes]) for need in needs)

    def after(self, call: Call) -> State:
        """Return the state after an auth call that took effect."""
        request = call.request
        name, role = str(request.get("name", "")), str(request.get("role", ""))
        users, roles = dict(self.users), dict(self.roles)
        enabled = self.enabled
        match call.method:
            case "AuthEnable":
                enabled = True
            case "AuthDisable":
                enabled = False
            case "UserAdd":
                users.setdefault(name, frozenset())
            case "UserDelete":
                users.pop(name, None)
            case "UserGrantRole":
                user = str(request.get("user", ""))
                users[user] = users.get(user, frozenset()) | {role}
            case "UserRevokeRole":
                users[name] = users.get(name, frozenset()) - {role}
            case "RoleAdd":
                roles.setdefault(name, frozenset())
            case "RoleDelete":
                roles.pop(role, None)
                users = {user: has - {role} for user, has in users.items()}
            case "RoleGrantPermission":
                perm = request.get("perm", {})
                keys = Keys.of(perm)
                kept = {right for right in roles.get(name, ()) if right[1] != keys}
                roles[name] = frozenset({*kept, (_MODES[perm.get("permType", "READ")], keys)})
            case "RoleRevokePermission":
                keys = Keys.of(request)
                roles[role] = frozenset(right for right in roles.get(role, ()) if right[1] != keys)
        return State(enabled, users, roles)


CHANGES = frozenset({
    "AuthEnable", "AuthDisable", "UserAdd", "UserDelete", "UserGrantRole", "UserRevokeRole", "RoleAdd", "RoleDelete",
    "RoleGrantPermission", "RoleRevokePermission",
})  # fmt: skip


# Rights are looked at when these are applied (``server/etcdserver/apply_auth.go``), and else by the member that is
# asked, before it asks the others.
_WHEN_APPLIED = CHANGES | {"Range", "Put", "DeleteRange", "Txn"}


class Rights:
    """The states of a record, which it takes.

    Attributes:
        doubt: why the states are not known to the end; empty where they are. until_ns: until when they are.
        used: whether authentication was ever switched on.
    """

    def __init__(self, calls: Calls) -> None:
        self._spread = spread = Spread(calls, lambda call: call.method in CHANGES)
        self.used = any(call.method == "AuthEnable" for call in spread.changes)
        self.until_ns = spread.beside_ns
        self.doubt = "two changes of users or rights were under way at a time" if self.until_ns < math.inf else ""
        # After so many changes; several states where it is not known whether, or when, a change was made.
        self._states: list[list[State]] = [[State()]]
        late: list[Call] = []
        for change in spread.changes:
            if change.invoked_ns >= self.until_ns:
                break
            if change.ok:
                # A member passes on in order what it is asked: what it was asked before is done by now, or lost.
                late = [each for each in late if each.member != change.member]
            elif not any(_is_same(change, each) for each in late):
                late.append(change)
            before = self._states[-1]
            states = _reached([state.after(change) for state in before] if change.ok else before, late)
            if len(states) > _MOST_STATES:
                self.until_ns = change.invoked_ns
                self.doubt = "too many changes of users or rights were given up"
                break
            self._states.append(states)

    def possible(self, call: Call) -> list[State]:
        """Return the states in one of which a call was judged at its member."""
        surely = self._spread.floor(call) if call.method in _WHEN_APPLIED else self._spread.known(call)
        between = self._states[surely : self._spread.most(call) + 1]
        return [state for states in between for state in states]


def _is_same(change: Call, other: Call) -> bool:
    return (change.method, change.member, change.request) == (other.method, other.member, other.request)


def _reached(states: list[State], late: Sequence[Call]) -> list[State]:
    """Return the states that come of some, where any of the changes that were given up may still be made."""
    found: list[State] = []
    waiting = list(states)
    while waiting and len(found) <= _MOST_STATES:
        state = waiting.pop()
        if state not in found:
            found.append(state)
            waiting += [state.after(change) for change in late]
    return found


def needs(request: Plain, method: str, answer: Plain | None = None) -> list[Need]:
    """Return what a call of the KV service or a watch needs the right for.

    Takes the answer where there is one: then of a transaction what it did counts, and else both of its branches.
    """
    keys = Keys.of(request)
    match method:
        case "Range" | "Watch" | "request_range":
            return [Need("read", keys)]
        case "Put" | "request_put":
            shows = request.get("prev_kv") if answer is None else "prev_kv" in answer
            return [Need("write", keys), *([Need("read", keys)] if shows else [])]
        case "DeleteRange" | "request_delete_range":
            shows = request.get("prev_kv") if answer is None else answer.get("prev_kvs")
            return [Need("write", keys), *([Need("read", keys)] if shows else [])]
        case "Txn" | "request_txn":
            found = [Need("read", Keys.of(each)) for each in request.get("compare", ())]
            if answer is None:
                ops = [*request.get("success", ()), *request.get("failure", ())]
                answers: list[Plain | None] = [None] * len(ops)
            else:
                ops = request.get("success" if answer.get("succeeded") else "failure", ())
                said = answer.get("responses", ())
                answers = [next(iter(each.values()), {}) for each in said]
                answers += [{}] * (len(ops) - len(answers))
            for op, response in zip(ops, answers, strict=False):
                for name, inner in op.items():
                    found += needs(inner, name, response)
            return found
    return []


def _covered(keys: Keys, by: Sequence[Keys]) -> bool:
    """Whether ranges together hold all keys of a range."""
    at = keys.first
    for first, end in sorted(by, key=lambda each: each.first):
        if first > at:
            return False
        if end is None:
            return True
        at = max(at, end)
        if keys.end is not None and at >= keys.end:
            return True
    return False
