"""The promises about being served: violations planted in records are found, and healthy records have none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from cluster.base.verdict import Verdict
from loadgen.check.availability import watches_apart
from loadgen.check.evidence import Evidence
from loadgen.check.rules import Ledger
from loadgen.check.watches import Watch
from loadgen.history.calls import Call, MemberEvent
from loadgen.history.format import OK, Method
from loadgen.history.operation import Outcome
from tests.support.call_scripts import KEPT, MS, A, B, CallScript

# ---- reads


def _hung(script: CallScript, seconds: float = 5.0, **asked: Any) -> Call:
    """Add a read that was given up after so long, and have the next call begin in its midst."""
    call = script.add("Range", {"key": "a", **asked}, None, outcome=Outcome.FAIL, error="DEADLINE_EXCEEDED",
                      long=int(seconds * 100))  # fmt: skip
    script.beside(call)
    return call


def _served(script: CallScript, *, member: str = A, leader: int = 7, writes: bool = True) -> None:
    script.ok("Range", {"key": "a", "serializable": True}, member=member)
    if writes:
        script.ok("Put", {"key": "b"}, member=member)
    script.ok("Status", {}, {"leader": leader} if leader else {}, member=member)


def test_a_read_that_hangs_while_its_member_serves_others_is_found() -> None:
    script = CallScript()
    script.ok("Range", {"key": "a"})
    assert script.verdicts()["member.reads"] is KEPT
    _hung(script)
    _served(script)
    assert script.broken() == {"member.reads"}


def test_a_read_may_wait_for_a_leader_and_for_its_member() -> None:
    waits = []
    for served in ({"leader": 0}, {"member": B}, {"writes": False}, None):  # the third: its disk is stuck
        script = CallScript()
        _hung(script)
        if served is not None:
            _served(script, **served)
        waits.append(script.broken())
    early = CallScript()
    _hung(early, seconds=3.0)  # the others are answered 1.5 s after it began
    _served(early)
    late = CallScript()
    call = _hung(late)
    late.at = call.completed_ns - 900 * MS  # a leader at last
    _served(late)
    stale = CallScript()
    _hung(stale, serializable=True)
    _served(stale)
    started = CallScript()
    call = _hung(started)
    _served(started)
    started.events.append(MemberEvent(A, "started", call.invoked_ns + 1))
    assert [*waits, *(each.broken() for each in (early, late, stale, started))] == [set()] * 8


# ---- leases


@pytest.mark.parametrize(
    ("left", "granted", "wrote_s", "long", "broken"),
    [
        (-1, 0, 14.0, 1, False), (-3, 5, 14.0, 1, False), (4, 5, 14.0, 1, False), (-15, 5, 14.0, 1, True),
        (-15, 5, None, 1, False),  # the log stands still
        (-15, 5, 1.0, 1, False),  # and did, soon after its time was over
        (-15, 5, 4.0, 1000, False),  # the member was paused for most of it
    ],
)  # fmt: skip
def test_a_lease_that_is_there_long_after_its_time_is_found(
    left: int, granted: int, wrote_s: float | None, long: int, broken: bool
) -> None:
    script = CallScript()
    over = script.at
    if wrote_s is not None:
        script.pass_s(wrote_s)
        script.ok("Put", {"key": "a"})
    script.at = over + 15_000 * MS - long * 10 * MS
    script.ok("LeaseTimeToLive", {"ID": 7}, {"ID": 7, "TTL": left, **({"grantedTTL": granted} if granted else {})},
              long=long)  # fmt: skip
    assert ("lease.ends" in script.broken()) is broken


# ---- watches that are far behind


def _verdict(turns: int, behind: int, usual_ms: float, beside_ms: float) -> Verdict:
    """Return the verdict on so many turns of a second without a watch, and then one beside one that is behind."""
    calls: list[int] = []
    times: list[float] = []
    watches: list[Any] = []
    for turn in range(turns):
        for part, slow_ms in ((0, usual_ms), (1, beside_ms)):
            begin = (2 * turn + part) * 1000 * MS
            calls += [begin + number * 10 * MS for number in range(100)]
            times += [slow_ms if number % 10 == 0 else 1.0 for number in range(100)]
        watches.append(SimpleNamespace(member=1, start=2, created=2 + behind, began_ns=(2 * turn + 1) * 1000 * MS,
                                       caught_up_ns=(2 * turn + 2) * 1000 * MS, label="the watch"))  # fmt: skip
    count = len(calls)
    call = np.array(calls, np.int64)
    evidence = SimpleNamespace(
        method=np.full(count, Method.PUT, np.uint8), outcome=np.full(count, OK, np.uint8), call=call,
        back=call + (np.array(times) * MS).astype(np.int64), member=np.full(count, 1, np.uint64),
        clock_of_part=np.zeros(1, np.int64),
    )  # fmt: skip
    ledger = Ledger()
    watches_apart(cast("Evidence", evidence), cast("list[Watch]", watches), ledger)
    return ledger.result("member.fair").verdict


def test_a_watch_that_slows_others_down_is_found() -> None:
    assert _verdict(4, 20_000, 2.0, 40.0) is Verdict.FAIL


def test_a_slow_machine_and_a_watch_that_is_near_are_no_violation() -> None:
    assert _verdict(4, 20_000, 20.0, 40.0) is Verdict.PASS
    assert _verdict(4, 20_000, 40.0, 2.0) is Verdict.PASS
    assert _verdict(2, 20_000, 2.0, 40.0) is Verdict.SKIP
    assert _verdict(4, 100, 2.0, 40.0) is Verdict.SKIP
