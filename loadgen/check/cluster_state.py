"""The promises about the cluster's own state over the calls of actors: its members, their roles, and alarms."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from loadgen.check.call_record import Spread, asked, goes_by_log, header, performed, until_ns, words
from loadgen.check.rules import Ledger
from loadgen.history.calls import Call, Calls
from loadgen.history.operation import Outcome

_CHANGES = frozenset({"MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote"})
_LISTS = _CHANGES | {"MemberList"}
_NO_SPACE = "NoSpace"
_OVERDUE = ("Timeout", "DEADLINE_EXCEEDED")
_Listed = Mapping[int, tuple[object, ...]]
# Of what a member did by the log meanwhile: a leader that is elected at the very end does not count.
_SERVED = 3


def membership(record: Calls, ledger: Ledger) -> None:
    """Judge ``member.role``, ``member.list`` and ``member.forwards``.

    Source: etcd.io, "Learner": a learner is a non-voting member until it is promoted; "Runtime reconfiguration":
    changes of membership go by consensus, one after the other; and FAQ: "any request that requires consensus sent to a
    follower is automatically forwarded to the leader".
    """
    spread = Spread(record, lambda call: call.method in _CHANGES)
    _roles(record.calls, spread, ledger)
    _lists(record.calls, spread, ledger)
    _forwarded(record, ledger)
    for rule in ("member.role", "member.list", "member.forwards"):
        ledger.absent(rule, "nobody asked for the members as it takes to show it")


def _roles(calls: Sequence[Call], spread: Spread, ledger: Ledger) -> None:
    """Judge that a member that was added as a learner is one until it is promoted, and never after that again."""
    learners = {_added(change): change for change in spread.changes if _is_learner(change)}
    promotions: dict[int, list[tuple[int, Call]]] = {}
    for number, change in enumerate(spread.changes, 1):
        if change.method == "MemberPromote":
            promotions.setdefault(int(change.request.get("ID", 0)), []).append((number, change))
    for call, member, is_learner in _shown(calls):
        added = learners.get(member)
        if added is None or call.completed_ns < added.invoked_ns:
            continue
        ledger.judged["member.role"] += 1
        promoted = promotions.get(member, [])
        if not is_learner and not any(change.invoked_ns < call.completed_ns for _, change in promoted):
            text = f"{words(call)}: {member:x} is no learner, which it was added as by call {added.number}"
            ledger.broken("member.role", 0, text, (added, call))
        known = [change for number, change in promoted if change.ok and number <= spread.floor(call)]
        if is_learner and known:
            text = f"{words(call)}: {member:x} is a learner, after it was promoted by call {known[0].number}"
            ledger.broken("member.role", 0, text, (known[0], call))


def _is_learner(change: Call) -> bool:
    return change.ok and change.method == "MemberAdd" and bool(change.request.get("isLearner"))


def _added(change: Call) -> int:
    return int((change.answer or {}).get("member", {}).get("ID", 0))


def _shown(calls: Sequence[Call]) -> Iterator[tuple[Call, int, bool]]:
    """Give each statement about a member's role: the call, the member, whether it is a learner."""
    for call in calls:
        if call.ok and call.answer is not None:
            if call.method in _LISTS:
                for each in call.answer.get("members", ()):
                    yield call, int(each["ID"]), bool(each.get("isLearner"))
            elif call.method == "Status":
                yield call, int(call.answer.get("header", {}).get("member_id", 0)), bool(call.answer.get("isLearner"))


def _lists(calls: Sequence[Call], spread: Spread, ledger: Ledger) -> None:
    """Judge that two lists by members that have surely heard of the same changes are the same.

    Names and client URLs are left out: a member publishes these itself, when it has started. So is whom a change
    without an answer is about, as that may be made at any time.
    """
    unsure = _Unsure(spread.changes)
    first: dict[int, tuple[Call, _Listed]] = {}
    for call in calls:
        if not call.ok or call.method not in _LISTS or call.answer is None:
            continue
        floor = spread.floor(call)
        if floor != spread.most(call):
            continue
        if call.method in _CHANGES:
            floor += 1  # it knows of itself
        listed = {int(each["ID"]): (bool(each.get("isLearner")), *sorted(each.get("peerURLs", ())))
                  for each in call.answer.get("members", ())}  # fmt: skip
        if floor not in first:
            first[floor] = call, listed
            continue
        earlier, expected = first[floor]
        by_ns = max(earlier.completed_ns, call.completed_ns)
        ledger.judged["member.list"] += 1
        differ = sorted(
            each for each in {*listed, *expected}
            if listed.get(each) != expected.get(each)
            and not any(unsure.is_about(each, of.get(each, ()), by_ns) for of in (listed, expected))
        )  # fmt: skip
        if differ:
            what = ", ".join(
                f"{each:x} {_said(listed.get(each))}, there {_said(expected.get(each))}" for each in differ
            )
            text = f"{words(call)}: another list than call {earlier.number} at {earlier.member}: {what}"
            ledger.broken("member.list", 0, text, (earlier, call))


class _Unsure:
    """Which members changes without an answer are about. Takes all changes."""

    def __init__(self, changes: Sequence[Call]) -> None:
        # Since when: by the member's id, and of one that was to be added, whose id nobody knows, by its peer URL.
        self._since: dict[object, int] = {}
        for change in changes:
            if not change.ok:
                about = (
                    change.request.get("peerURLs", ()) if change.method == "MemberAdd" else [change.request.get("ID")]
                )
                for each in about:
                    self._since[each] = min(change.invoked_ns, self._since.get(each, change.invoked_ns))

    def is_about(self, member: int, entry: tuple[object, ...], by_ns: int) -> bool:
        """Whether a change may have been made by a time to a member, which is listed so."""
        return any(self._since.get(each, by_ns) < by_ns for each in (member, *entry[1:]))


def _said(entry: tuple[object, ...] | None) -> str:
    if entry is None:
        return "is not in it"
    return f"is a {'learner' if entry[0] else 'voter'} at {' '.join(map(str, entry[1:]))}"


def _forwarded(record: Calls, ledger: Ledger) -> None:
    """Judge that no change was given up for its time while its member had all else that goes by the log done.

    A change is left out beside another, as Raft takes one at a time; and where the leader may have changed, or
    something else failed, since what a member passes on may be lost then.
    """
    changes = sorted((call for call in record.calls if call.method in _CHANGES), key=lambda call: call.invoked_ns)
    ends = _ends(changes)
    following = [*(change.invoked_ns for change in changes), math.inf][1:]
    by_log: dict[str, list[Call]] = defaultdict(list)
    for call in record.calls:
        if goes_by_log(call):
            by_log[call.member].append(call)
    before_ns: float = 0
    for call, end_ns, next_ns in zip(changes, ends, following, strict=True):
        is_alone = before_ns <= call.invoked_ns and call.completed_ns <= next_ns
        before_ns = max(before_ns, end_ns)
        if not is_alone:
            continue
        if call.outcome is not Outcome.INFO:
            ledger.judged["member.forwards"] += 1
            continue
        touched = any(event.member == call.member and call.invoked_ns < event.at_ns < call.completed_ns
                      for event in record.events)  # fmt: skip
        if call.error not in _OVERDUE or touched or (served := _served(by_log[call.member], call)) is None:
            continue
        ledger.judged["member.forwards"] += 1
        waited_s = (call.completed_ns - call.invoked_ns) / 1e9
        text = f"{words(call)}: {call.error} after {waited_s:.1f} s, in which it did call {served.number} and others"
        ledger.broken("member.forwards", 0, text, (call, served))


def _ends(changes: Sequence[Call]) -> list[float]:
    """Return until when each of some changes, in the order of their beginnings, may be in the way of another.

    Without an answer, until one that began afterwards was made: Raft takes one at a time.
    """
    found: list[float] = []
    made: list[tuple[int, float]] = []  # when those that were made began, the last first, and by when one of them was
    for change in reversed(changes):
        if change.outcome is Outcome.INFO:
            later = bisect_left(made, -change.completed_ns, key=lambda each: each[0])
            found.append(made[later - 1][1] if later else math.inf)
        else:
            found.append(change.completed_ns)
        if change.ok:
            made.append((-change.invoked_ns, min(change.completed_ns, made[-1][1] if made else math.inf)))
    return found[::-1]


def _served(here: Sequence[Call], change: Call) -> Call | None:
    """Take what a member was asked by the log, and a change that it was asked for; return the last of what it did
    meanwhile. None unless it did all of it, and much, and had one leader from before on.
    """
    beside = [
        call for call in here
        if call.completed_ns > change.invoked_ns and call.invoked_ns < change.completed_ns and call is not change
    ]  # fmt: skip
    before = [call for call in here if call.ok and call.completed_ns < change.invoked_ns]
    if len(beside) < _SERVED or not before or not all(call.ok for call in beside):
        return None
    terms = {header(call, "raft_term") for call in (before[-1], *beside)}
    return beside[-1] if len(terms) == 1 else None


def alarms(calls: Sequence[Call], ledger: Ledger) -> None:
    """Judge ``alarm.nospace`` and ``alarm.kept``.

    Source: etcd.io, "Maintenance", space quota: a member over its quota raises "a cluster-wide alarm that puts the
    cluster into a maintenance mode which only accepts key reads and deletes", until it is switched off.
    """
    seen = _Alarms(calls)
    for call in calls:
        on = list(seen.on(call))
        if not on:
            continue
        if call.ok and _is(call, "GET"):
            ledger.judged["alarm.kept"] += 1
            for shown, alarm in on:
                if alarm not in _alarms(call) and _asks_for(call, alarm):
                    text = f"{words(call)}: no alarm {alarm[1]} of {alarm[0]:x}, which call {shown.number} saw"
                    ledger.broken("alarm.kept", 0, text, (shown, call))
        full = next((shown for shown, alarm in on if alarm[1] == "NOSPACE"), None)
        if full is not None and (takes := _takes_space(call)) is not None and (call.ok or call.error == _NO_SPACE):
            ledger.judged["alarm.nospace"] += 1
            if takes == call.ok:
                how = "was done" if takes else "was refused for the space, which it does not take"
                text = f"{words(call)}: it {how}, with the alarm of call {full.number} on"
                ledger.broken("alarm.nospace", 0, text, (full, call))
    for rule in ("alarm.nospace", "alarm.kept"):
        ledger.absent(rule, "no alarm was seen")


class _Alarms:
    """Which alarms were certainly on when a call was made. Takes all calls."""

    def __init__(self, calls: Sequence[Call]) -> None:
        offs = [call for call in calls if _is(call, "DEACTIVATE") and call.outcome is not Outcome.FAIL]
        offs.sort(key=lambda call: call.invoked_ns)
        self._off_from = [call.invoked_ns for call in offs]
        self._off_until = list(accumulate(map(until_ns, offs), max))
        self._shown: dict[tuple[int, str], list[Call]] = defaultdict(list)
        for call in sorted(calls, key=lambda call: call.invoked_ns):
            if call.ok and (_is(call, "GET") or _is(call, "ACTIVATE")):
                for alarm in _alarms(call):
                    self._shown[alarm].append(call)

    def on(self, call: Call) -> Iterator[tuple[Call, tuple[int, str]]]:
        """Give each alarm that was on before a call, and not switched off up to its answer; with who saw it first."""
        switched = bisect_left(self._off_from, call.completed_ns)
        since = self._off_until[switched - 1] if switched else 0
        for alarm, shown in self._shown.items():
            first = bisect_left(shown, since, key=lambda each: each.invoked_ns)
            if first < len(shown) and shown[first].completed_ns < call.invoked_ns:
                yield shown[first], alarm


def _is(call: Call, action: str) -> bool:
    return call.method == "Alarm" and call.request.get("action", "GET") == action


def _alarms(call: Call) -> set[tuple[int, str]]:
    return {(int(each["memberID"]), str(each["alarm"])) for each in (call.answer or {}).get("alarms", ())}


def _asks_for(call: Call, alarm: tuple[int, str]) -> bool:
    """Whether a list of alarms is to have one, by what it asks for."""
    member, kind = call.request.get("memberID", 0), call.request.get("alarm", "NONE")
    return member in (0, alarm[0]) and kind in ("NONE", alarm[1])


def _takes_space(call: Call) -> bool | None:
    """Return whether a call takes space in the store; None where that cannot be said.

    A transaction that could write, and whose branch wrote nothing, may be refused or not.
    """
    if call.method in ("Put", "LeaseGrant"):
        return True
    if call.method == "Txn":
        if any(op == "request_put" for op, _ in performed(call)):
            return True
        writes = any(op == "request_put" for op, _ in asked(call))
        return None if writes and call.ok else writes
    return False if call.method in ("Range", "DeleteRange") else None
