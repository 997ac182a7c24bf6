"""The promises about leases over the calls of actors: how long they have to live, and when they are gone; their keys.

Source: etcd's API reference, service Lease: ``LeaseTimeToLiveResponse.TTL`` is "the remaining TTL in seconds for the
lease; the lease will expire in under TTL+1 seconds", ``grantedTTL`` what was granted; LeaseRevoke "revokes a lease";
LeaseKeepAlive "keeps the lease alive". And etcd.io, "KV API guarantees", Lease APIs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from loadgen.check.call_record import Keys, asked, header, performed, until_ns, words
from loadgen.check.rules import Ledger
from loadgen.history.calls import Call
from loadgen.history.operation import Outcome

_ABOUT = frozenset({"LeaseGrant", "LeaseRevoke", "LeaseKeepAlive", "LeaseTimeToLive"})
_WRITES = ("request_put", "request_delete_range")
_GONE = "LeaseNotFound"
# etcd tells seconds of its own clock, which may be a little slower than ours.
_CLOCKS_S = 0.05


def judge(calls: Sequence[Call], ledger: Ledger) -> None:
    """Judge ``lease.ttl``, ``lease.revoked`` and ``lease.renewed``."""
    by_lease: dict[int, list[Call]] = defaultdict(list)
    for call in calls:
        if call.method in _ABOUT and (lease := _lease(call)):
            by_lease[lease].append(call)
    terms = _Terms(calls)
    for about in by_lease.values():
        _times(about, ledger)
        _gone(about, terms, ledger)
        _there(about, terms, ledger)
    for rule in ("lease.ttl", "lease.revoked", "lease.renewed"):
        ledger.absent(rule, "nobody asked for a lease that could show it")


class _Terms:
    """Which terms the members had surely heard of. Takes all calls.

    A leader asks nobody before it says how long a lease has to live. One that was replaced, and has not heard of it,
    says what it knew; so what it says is not held against what came of a newer term.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        shown: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for call in calls:
            if term := header(call, "raft_term"):
                shown[call.member].append((call.completed_ns, term))
        self._at = {member: [at_ns for at_ns, _ in sorted(found)] for member, found in shown.items()}
        self._term = {member: list(accumulate((term for _, term in sorted(found)), max))
                      for member, found in shown.items()}  # fmt: skip

    def may_be_behind(self, call: Call, other: Call) -> bool:
        """Whether what a member said may be of a term before the one in which another call was answered."""
        if call.method != "LeaseTimeToLive" or call.member == other.member:
            return False
        known = bisect_left(self._at.get(call.member, []), call.invoked_ns)
        term = header(call, "raft_term") or (self._term[call.member][known - 1] if known else 0)
        return not 0 < header(other, "raft_term") <= term


def _lease(call: Call) -> int:
    """Return the lease that a call is about; of a grant without an answer only where it asked for an id."""
    return int((call.answer or {}).get("ID") or call.request.get("ID") or 0)


def _ttl(call: Call) -> int:
    return int((call.answer or {}).get("TTL", 0))


def _is_there(call: Call) -> bool:
    """Whether an answer says that the lease is there."""
    return call.ok and call.method != "LeaseRevoke" and _ttl(call) > 0


def _is_gone(call: Call) -> bool:
    """Whether an answer says that the lease is not there."""
    return call.error == _GONE or (call.ok and call.method == "LeaseTimeToLive" and _ttl(call) < 0)


class _Latest:
    """Until when any of some calls that were begun by a time may have taken effect. Those that failed did not."""

    def __init__(self, calls: Iterable[Call]) -> None:
        made = sorted((call for call in calls if call.outcome is not Outcome.FAIL), key=lambda call: call.invoked_ns)
        self._begun = [call.invoked_ns for call in made]
        self._until = list(accumulate(map(until_ns, made), max))

    def of(self, by_ns: int) -> float:
        """Return it for those that were begun before a time; 0 for none."""
        number = bisect_left(self._begun, by_ns)
        return self._until[number - 1] if number else 0


def _later(one: Call, other: Call) -> Call:
    return other if other.invoked_ns > one.invoked_ns else one


class _Newest:
    """Which of some calls that had ended by a time was begun last."""

    def __init__(self, calls: Iterable[Call]) -> None:
        ended = sorted(calls, key=lambda call: call.completed_ns)
        self._ended = [call.completed_ns for call in ended]
        self._newest = list(accumulate(ended, _later))

    def of(self, by_ns: int) -> Call | None:
        """Return it of those that had ended before a time; None for none."""
        number = bisect_left(self._ended, by_ns)
        return self._newest[number - 1] if number else None


def _times(about: list[Call], ledger: Ledger) -> None:
    """Judge the times that were told of one lease.

    A leader that is new gives every lease its whole time again, and some more for the election; so what is compared was
    told in one term.
    """
    renewals = _Latest(call for call in about if call.method in ("LeaseGrant", "LeaseKeepAlive"))
    granted: dict[int, int] = {}  # by when the lease was granted in a term
    for call in about:
        if call.method == "LeaseGrant" and call.ok:
            term = header(call, "raft_term")
            granted[term] = min(call.completed_ns, granted.get(term, call.completed_ns))
    told: list[Call] = []
    first: dict[int, Call] = {}  # of those that were told in a term, the one by which the lease ends first
    for call in sorted(about, key=lambda each: each.invoked_ns):
        if call.method != "LeaseTimeToLive" or not _is_there(call):
            continue
        ttl, term = _ttl(call), header(call, "raft_term")
        at_most = int((call.answer or {}).get("grantedTTL", 0))
        if granted.get(term, call.invoked_ns) < call.invoked_ns:
            ledger.judged["lease.ttl"] += 1
            if ttl > at_most:
                ledger.broken("lease.ttl", 0, f"{words(call)}: {ttl} s left of the {at_most} s granted", (call,))
        # What was told before a renewal says nothing of what is told after it.
        since = renewals.of(call.completed_ns)
        first = {each: earlier for each, earlier in first.items() if since <= earlier.invoked_ns}
        for each in told:
            if each.completed_ns <= call.invoked_ns and since <= each.invoked_ns:
                its = header(each, "raft_term")
                first[its] = min(each, first.get(its, each), key=_end_ns)
        told = [each for each in told if each.completed_ns > call.invoked_ns] + [call]
        if (earlier := first.get(term)) is None:
            continue
        ledger.judged["lease.ttl"] += 1
        passed_s = (call.invoked_ns - earlier.completed_ns) / 1e9
        if ttl > _ttl(earlier) + 1 - passed_s + _CLOCKS_S:
            text = f"{words(call)}: {ttl} s left, {passed_s:.2f} s after call {earlier.number} told {_ttl(earlier)} s"
            ledger.broken("lease.ttl", 0, text, (earlier, call))
            return


def _end_ns(told: Call) -> float:
    """Return when a lease ends at the latest, by the time that was told of it."""
    return told.completed_ns + _ttl(told) * 1e9


def _gone(about: list[Call], terms: _Terms, ledger: Ledger) -> None:
    """Judge that one lease stays gone once it is, until it is granted again."""
    ends = _Newest(call for call in about if (call.method == "LeaseRevoke" and call.ok) or _is_gone(call))
    grants = _Latest(call for call in about if call.method == "LeaseGrant")
    for call in about:
        if call.method in ("LeaseGrant", "LeaseRevoke") or not (call.ok or _is_gone(call)):
            continue
        last = ends.of(call.invoked_ns)
        if last is None or grants.of(call.completed_ns) > last.invoked_ns or terms.may_be_behind(call, last):
            continue
        ledger.judged["lease.revoked"] += 1
        if _is_there(call):
            how = "revoked" if last.method == "LeaseRevoke" else "told to be gone"
            text = f"{words(call)}: {_ttl(call)} s to live, after the lease was {how} by call {last.number}"
            ledger.broken("lease.revoked", 0, text, (last, call))


def _there(about: list[Call], terms: _Terms, ledger: Ledger) -> None:
    """Judge that one lease is there for as long as it was granted or renewed for."""
    given = _Newest(call for call in about if call.method in ("LeaseGrant", "LeaseKeepAlive") and _is_there(call))
    revoked = _Latest(call for call in about if call.method == "LeaseRevoke")
    for call in about:
        if call.method not in ("LeaseKeepAlive", "LeaseTimeToLive") or not (_is_there(call) or _is_gone(call)):
            continue
        last = given.of(call.invoked_ns)
        if last is None or call.completed_ns >= last.invoked_ns + _ttl(last) * 1e9:
            continue
        if revoked.of(call.completed_ns) > last.invoked_ns or terms.may_be_behind(call, last):
            continue
        ledger.judged["lease.renewed"] += 1
        if _is_gone(call):
            after_s = (call.completed_ns - last.completed_ns) / 1e9
            what = "granted" if last.method == "LeaseGrant" else "renewed"
            text = f"{words(call)}: gone {after_s:.2f} s after it was {what} for {_ttl(last)} s by call {last.number}"
            ledger.broken("lease.renewed", 0, text, (last, call))


class LeaseKeys:
    """The keys that were certainly attached to a lease at a moment, as the calls of a record tell.

    Takes the calls, beside which nobody may write the same keys.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        attached: dict[int, dict[Keys, list[Call]]] = defaultdict(lambda: defaultdict(list))
        # By the key, and of ranges.
        touched: dict[Keys, list[Call]] = defaultdict(list)
        self._ranges: list[tuple[Keys, Call]] = []
        self._granted: dict[int, list[Call]] = defaultdict(list)
        self._revoked: dict[int, list[Call]] = defaultdict(list)
        for call in calls:
            if call.outcome is Outcome.FAIL:
                continue
            for keys in {Keys.of(request) for op, request in asked(call) if op in _WRITES}:
                if keys.end == keys.first + b"\0":
                    touched[keys].append(call)
                else:
                    self._ranges.append((keys, call))
            for lease, keys in attachments(call):
                attached[lease][keys].append(call)
            if call.method == "LeaseRevoke":
                self._revoked[int(call.request.get("ID", 0))].append(call)
            elif call.method == "LeaseGrant" and call.ok:
                self._granted[int((call.answer or {}).get("ID", 0))].append(call)
        self._attached = {lease: {keys: _Newest(by) for keys, by in each.items()} for lease, each in attached.items()}
        self._touched = {keys: _Lasting(each) for keys, each in touched.items()}

    def of(self, lease: int, call: Call) -> Iterator[tuple[Keys, Call]]:
        """Give each key that a lease had when a call was made, with the call that attached it."""
        if any(revoked.invoked_ns < call.completed_ns for revoked in self._revoked[lease] if revoked is not call):
            return
        since = min(
            (granted.invoked_ns for granted in self._granted[lease]
             if granted.completed_ns < call.invoked_ns
             and call.completed_ns < granted.invoked_ns + _ttl(granted) * 1e9),
            default=None,
        )  # fmt: skip
        if since is None:
            return
        for keys, attached in self._attached.get(lease, {}).items():
            by = attached.of(call.invoked_ns)  # which has replaced those before it
            if by is not None and since < by.invoked_ns and not self._touches(keys, by, call):
                yield keys, by

    def _touches(self, keys: Keys, since: Call, until: Call) -> bool:
        """Whether anything but two calls may have written a key between them."""
        touched = self._touched[keys].of(until.completed_ns) if keys in self._touched else ()
        ranges = (call for found, call in self._ranges if call.invoked_ns < until.completed_ns and found.meets(keys))
        return any(
            other is not since and other is not until and until_ns(other) > since.invoked_ns
            for other in (*touched, *ranges)
        )


class _Lasting:
    """Which of some calls may have taken effect the latest: three of them, since whoever asks leaves two out."""

    def __init__(self, calls: Iterable[Call]) -> None:
        made = sorted(calls, key=lambda call: call.invoked_ns)
        self._begun = [call.invoked_ns for call in made]
        self._last: list[list[Call]] = [[]]
        for call in made:
            self._last.append(sorted([*self._last[-1], call], key=until_ns)[-3:])

    def of(self, by_ns: int) -> list[Call]:
        """Return those among the calls that were begun before a time."""
        return self._last[bisect_left(self._begun, by_ns)]


def attachments(call: Call) -> Iterator[tuple[int, Keys]]:
    """Give each lease that a call attached a key to, with the key."""
    for op, request in performed(call):
        if op == "request_put" and request.get("lease"):
            yield int(request["lease"]), Keys.of(request)
