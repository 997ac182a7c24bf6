"""The promises over the calls of actors: what users may do, and that members live; and all others, by their modules.

Each function judges some of ``rules.OF_CALLS`` over a record of calls; pure, as all of the check.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadgen.check import availability, cluster_state, lease_calls
from loadgen.check.call_record import Keys, header, words
from loadgen.check.lease_calls import LeaseKeys, attachments
from loadgen.check.permissions import CHANGES, Need, Rights, needs
from loadgen.check.rules import Ledger
from loadgen.history.calls import Call, Calls

_KV = frozenset({"Range", "Put", "DeleteRange", "Txn"})
# What the role root is for: membership, maintenance, and who may do what (etcd.io, "Role-based access control").
_OF_ROOT = (CHANGES - {"AuthEnable"}) | {
    "MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote", "Defragment", "HashKV", "Snapshot", "MoveLeader",
    "UserList", "RoleList", "UserChangePassword",
}  # fmt: skip
# What needs some user. Not among them: to log in, and what shows no more than that a member lives, as its status.
_OF_USERS = _OF_ROOT | _KV | {"Watch", "Compact", "LeaseGrant", "LeaseRevoke", "LeaseLeases", "MemberList", "Alarm"}
# What needs no more than some user: where the members are, and how they do (CHANGELOG of 3.5.29 and 3.5.32).
_OF_ANY_USER = ("MemberList", "Status")
_DENIED = ("PermissionDenied", "UserEmpty", "InvalidAuthToken")
NOTHING_RECORDED = "the run recorded no calls of actors"


def judge(calls: Calls, ledger: Ledger) -> None:
    """Judge all that a record of calls can be held against."""
    rights = Rights(calls)
    _permissions(calls.calls, rights, ledger)
    _lives(calls, ledger)
    lease_calls.judge(calls.calls, ledger)
    cluster_state.membership(calls, ledger)
    cluster_state.alarms(calls.calls, ledger)
    availability.reads(calls, ledger)
    availability.leases(calls.calls, ledger)


def _permissions(calls: Sequence[Call], rights: Rights, ledger: Ledger) -> None:
    """Judge ``auth.denied``, ``auth.granted`` and ``auth.anonymous``.

    Source: etcd.io, "Role-based access control": with authentication enabled a request needs a user who was granted
    the key or the range for reading or writing; the role root alone may change members, users and rights, defragment
    and take snapshots. A lease takes its keys with it when it is revoked, so who revokes it, or attaches another key to
    it, needs the right to write all that it has (``server/etcdserver/apply_auth.go``).
    """
    for rule in ("auth.denied", "auth.granted", "auth.anonymous"):
        if not rights.used:
            ledger.absent(rule, "authentication was never switched on")
    if not rights.used:
        return
    attached = LeaseKeys(calls)
    for call in calls:
        if call.completed_ns >= rights.until_ns:
            continue
        if call.ok:
            _held_off(call, rights, attached, ledger)
        elif call.error in _DENIED:
            _let_in(call, rights, ledger)
    for rule in ("auth.denied", "auth.granted", "auth.anonymous"):
        # What came before is judged, and is enough.
        if rights.doubt and not ledger.judged[rule]:
            ledger.doubt(rule, rights.doubt)


def _held_off(call: Call, rights: Rights, attached: LeaseKeys, ledger: Ledger) -> None:
    """Judge a call that succeeded: nobody sees or changes what they may not."""
    # A watch is judged when it is created: what is taken away afterwards ends none.
    states = rights.possible(call)
    if not any(state.enabled for state in states):
        ledger.judged["auth.granted"] += bool(call.user)
        return
    is_on = all(state.enabled for state in states)
    if not call.user:
        if call.method in _OF_USERS and is_on:
            ledger.judged["auth.anonymous"] += 1
            if not _is_empty(call):
                ledger.broken("auth.anonymous", header(call, "revision"), lambda: f"{words(call)}: answered", (call,))
        return
    wanted = _seen(call)
    if is_on and (call.method in _OF_ROOT or wanted):
        ledger.judged["auth.denied"] += 1
    if call.method in _OF_ROOT and not any(not state.enabled or state.is_root(call.user) for state in states):
        ledger.broken("auth.denied", header(call, "revision"), lambda: f"{words(call)}: only root may", (call,))
    for need in wanted:
        if not any(state.permits(call.user, [need]) for state in states):
            text = f"{words(call)}: no right to {need.mode} {need.keys.words()}"
            ledger.broken("auth.denied", header(call, "revision"), text, (call,))
            return
    for lease in _leases(call):
        for keys, by in attached.of(lease, call):
            ledger.judged["auth.denied"] += 1
            if not any(state.permits(call.user, [Need("write", keys)]) for state in states):
                text = f"{words(call)}: no right to write {keys.words()}, which call {by.number} attached to its lease"
                ledger.broken("auth.denied", header(call, "revision"), text, (by, call))
                return


def _leases(call: Call) -> set[int]:
    """Return the leases that a call revoked, or attached keys to."""
    if call.method == "LeaseRevoke":
        return {int(call.request.get("ID", 0))}
    return {lease for lease, _ in attachments(call)}


def _let_in(call: Call, rights: Rights, ledger: Ledger) -> None:
    """Judge a call that was denied: whoever may is never denied."""
    states = rights.possible(call)
    if not any(state.enabled for state in states):
        ledger.judged["auth.granted"] += 1
        ledger.broken("auth.granted", 0, lambda: f"{words(call)}: {call.error}, with authentication off", (call,))
        return
    if not call.user:
        ledger.judged["auth.anonymous"] += 1
        return
    # About the token, and not about rights: who logs in at a member that has not heard of authentication yet is given
    # none, and shows none when that member has.
    if call.error in ("InvalidAuthToken", "UserEmpty"):
        return
    ledger.judged["auth.denied"] += 1
    may = needs(call.request, call.method)
    # A put that attaches a lease may be denied for the other keys of the lease.
    if may and not _names_lease(call.request):
        ledger.judged["auth.granted"] += 1
        if all(state.permits(call.user, may) for state in states):
            ledger.broken("auth.granted", 0, lambda: f"{words(call)}: denied, with every right to it", (call,))
    elif call.method in _OF_ANY_USER:
        ledger.judged["auth.granted"] += 1
        if all(state.enabled and call.user in state.users for state in states):
            ledger.broken("auth.granted", 0, lambda: f"{words(call)}: denied, which needs no right", (call,))
    elif all(state.is_root(call.user) for state in states):
        ledger.judged["auth.granted"] += 1
        ledger.broken("auth.granted", 0, lambda: f"{words(call)}: denied, though root may do everything", (call,))


def _seen(call: Call) -> list[Need]:
    """Return what a call that succeeded has seen and changed, as the rights that it needed."""
    answer = call.answer or {}
    if call.method == "Watch":
        return [Need("read", Keys.one(event["kv"]["key"])) for event in answer.get("events", ())]
    if call.method == "LeaseTimeToLive":
        return [Need("read", Keys.one(key)) for key in answer.get("keys", ())]
    return needs(call.request, call.method, answer)


def _is_empty(call: Call) -> bool:
    """Whether a transaction asks for nothing."""
    return call.method == "Txn" and not any(call.request.get(part) for part in ("compare", "success", "failure"))


def _names_lease(request: object) -> bool:
    if isinstance(request, dict):
        return bool(request.get("lease")) or any(map(_names_lease, request.values()))
    return isinstance(request, list) and any(map(_names_lease, request))


def _lives(calls: Calls, ledger: Ledger) -> None:
    """Judge ``member.lives``.

    Source: etcd.io, "Failure modes": a member ends by a failure of its machine, and nothing that a client asks is one.
    """
    ledger.judged["member.lives"] += sum(event.what == "started" for event in calls.events)
    for event in calls.events:
        if event.what == "ended":
            last = [call for call in calls.calls if call.member == event.member and call.invoked_ns < event.at_ns]
            asked = f", after {words(last[-1])}" if last else ""
            ledger.broken(
                "member.lives", 0, f"{event.member} ended by itself{asked}: {event.said or 'it logged nothing'}",
                tuple(last[-1:]), event.said,
            )  # fmt: skip
