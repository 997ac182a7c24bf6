"""Which violations of actors' calls a known bug explains: by what was asked and what had happened, not by a release."""

from __future__ import annotations

import dataclasses
from array import array
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cluster.base.known_bugs import bug_of
from loadgen.check.rules import RULES, Finding
from loadgen.check.signatures import SIGNATURES, Explanations, Past, looks
from loadgen.history.calls import Call, Calls, MemberEvent
from loadgen.history.format import INFO, OK, Method
from loadgen.history.operation import Outcome
from loadgen.history.reader import Fault
from loadgen.proto import etcd_pb2 as pb
from tests.support.call_scripts import CallScript


class Run(Past):
    """What happened in a run whose record was written by hand, on one release."""

    def __init__(self, version: str, calls: Calls) -> None:
        self._calls, self.watches = calls, ()
        self.versions = frozenset({version})
        self.members, self._started_when_full = 3, []


def issue(version: str, script: CallScript, rule: str, call: Call, text: str = "") -> str:
    """Return what explains that a call broke a promise."""
    return Explanations(Run(version, script.record())).issue(Finding(rule, 5, text, (call,)))


def test_each_signature_is_of_a_bug_and_of_guarantees() -> None:
    for each in SIGNATURES:
        assert bug_of(each.issue).issue == each.issue
        assert set(each.rules) <= set(RULES)
    assert len({(each.issue, each.rules) for each in SIGNATURES}) == len(SIGNATURES)
    assert looks("1") is None


def _alarm(action: str) -> dict[str, Any]:
    return {"action": action, "memberID": 1, "alarm": "NOSPACE"}


def test_who_has_no_right_deletes_while_the_store_is_full_and_not_otherwise() -> None:
    script = CallScript()
    before = script.ok("DeleteRange", {"key": "secret"}, user="alice")
    script.ok("Alarm", _alarm("ACTIVATE"))
    meanwhile = script.ok("DeleteRange", {"key": "secret"}, user="alice")
    put = script.ok("Put", {"key": "secret"}, user="alice")
    script.ok("Alarm", _alarm("DEACTIVATE"))
    after = script.ok("DeleteRange", {"key": "secret"}, user="alice")
    assert [issue("3.5.35", script, "auth.denied", call) for call in (before, meanwhile, put, after)] == [
        "", "22386", "", "",
    ]  # fmt: skip
    assert issue("3.7.3", script, "auth.denied", meanwhile) == ""


@pytest.mark.parametrize(("later_s", "known"), [(5, "22386"), (15, "")])
def test_an_alarm_whose_call_had_no_answer_may_come_after_it_was_cleared(later_s: int, known: str) -> None:
    script = CallScript()
    script.add("Alarm", _alarm("ACTIVATE"), None, outcome=Outcome.INFO)
    script.ok("Alarm", _alarm("DEACTIVATE"))
    script.pass_s(later_s)
    script.ok("Alarm", _alarm("DEACTIVATE"))
    deletes = script.ok("DeleteRange", {"key": "secret"}, user="alice")
    assert issue("3.5.35", script, "auth.denied", deletes) == known


def test_a_transaction_of_reads_is_looked_at_while_the_store_is_full_too() -> None:
    script = CallScript()
    script.ok("Alarm", _alarm("ACTIVATE"))
    reads = script.ok("Txn", {"success": [{"request_range": {"key": "secret"}}]}, user="alice")
    deletes = script.ok("Txn", {"success": [{"request_delete_range": {"key": "secret"}}]}, user="alice")
    assert [issue("3.5.35", script, "auth.denied", call) for call in (reads, deletes)] == ["", "22386"]


@pytest.mark.parametrize(
    ("version", "rule", "method", "request_", "known"),
    [
        ("3.5.16", "auth.denied", "Txn", {"success": [{"request_txn": {}}]}, "CVE-2026-33343"),
        ("3.5.16", "auth.denied", "Txn", {"success": [{"request_range": {"key": "a"}}]}, ""),
        ("3.5.16", "auth.denied", "Txn", {"success": [{"request_put": {"key": "a", "prev_kv": True}}]},
         "CVE-2026-44283"),
        ("3.5.16", "auth.denied", "Watch", {"key": "a", "range_end": "\0"}, "GHSA-xg4h-6gfc-h4m8"),
        ("3.5.16", "auth.denied", "Watch", {"key": "a", "range_end": "b"}, ""),
        ("3.5.16", "auth.anonymous", "MemberList", {}, "CVE-2026-33413"),
        ("3.5.16", "auth.anonymous", "Range", {"key": "a"}, ""),
        ("3.5.16", "auth.anonymous", "Txn", {"success": [{"request_txn": {}}]}, "CVE-2026-33343"),
        ("3.5.16", "auth.anonymous", "Txn", {"success": [{"request_range": {"key": "a"}}]}, ""),
        ("3.5.35", "auth.anonymous", "MemberList", {}, ""),
        ("3.5.16", "member.role", "MemberList", {}, "21694"),
    ],
)  # fmt: skip
def test_a_signature_goes_by_what_was_asked(
    version: str, rule: str, method: str, request_: dict[str, Any], known: str
) -> None:
    script = CallScript()
    assert issue(version, script, rule, script.ok(method, request_)) == known


def test_a_promise_that_no_known_bug_breaks_is_asked_about_nothing() -> None:
    explanations = Explanations(Run("3.7.3", Calls()))
    assert explanations.knows("alarm.kept") is False
    assert explanations.issue(dataclasses.replace(Finding("alarm.kept", 1, ""))) == ""


S = 1_000_000_000
A, B = "etcd-node1", "etcd-node2"


def watch(
    start: int = 3, *revisions: int, number: int = 1, refused: bool = False, member: int = 1, created: int = 10,
    began: int = 10, caught_up: int = 0, times: tuple[int, ...] = (),
) -> SimpleNamespace:  # fmt: skip
    """Return a watch on the first member that was created at revision 10, in second 10."""
    label = f"the watch on etcd-node{member} (stream 1, id {number}, from revision {start})"
    return SimpleNamespace(
        label=label, member=member, start=start, created=created, revisions=array("q", revisions),
        refused_beside=refused, began_ns=began * S, caught_up_ns=caught_up * S, times=array("q", times),
    )  # fmt: skip


class World(Run):
    """What happened in a run in which revision n was written at second n, up to 30; ``far`` times as many of them.

    Takes faults with the seconds of their beginning and end, which members were started again and when, and the
    revisions that were compacted by when.
    """

    def __init__(
        self, version: str, *, faults: tuple[tuple[str, str, int, int], ...] = (), restarts: tuple[str, ...] = (),
        compacted: tuple[tuple[int, int], ...] = (), script: CallScript | None = None, far: int = 1,
        watches: tuple[SimpleNamespace, ...] = (), parted: tuple[Finding, ...] = (), members: int = 3,
        txns: tuple[tuple[int, int, str, pb.TxnRequest], ...] = (),
    ) -> None:  # fmt: skip
        super().__init__(version, (script or CallScript()).record())
        del self.members, self._started_when_full  # which the evidence tells
        puts = range(1, 31)
        others = len(compacted) + len(txns)
        requests = [*(pb.CompactionRequest(revision=to) for to, _ in compacted), *(request for *_, request in txns)]
        revision = np.array([*(n * far for n in puts), *[0] * others])
        seconds = np.array([*puts, *(at for _, at in compacted), *(at for at, *_ in txns)])
        self._evidence = SimpleNamespace(  # type: ignore[assignment]
            history=SimpleNamespace(
                markers=[SimpleNamespace(name="restart", details={"member": name}, at_ns=12 * S) for name in restarts],
                faults=lambda: [Fault(name, (on,), began * S, healed * S) for name, on, began, healed in faults],
                endpoint=lambda row: A,
            ),
            method=np.array([Method.PUT] * 30 + [Method.COMPACT] * len(compacted) + [Method.TXN] * len(txns)),
            outcome=np.array([OK] * (len(seconds) - len(txns)) + [outcome for _, outcome, *_ in txns]),
            call=seconds * S,
            back=seconds * S,
            revision=revision,
            request=lambda number, _: requests[number - 30],
            error=lambda number: txns[number - 30 - len(compacted)][2],
            member_name=lambda member: A,
            cluster=SimpleNamespace(names={n: f"etcd-node{n}" for n in range(1, members + 1)}, places={A: A}),
            rows=np.arange(len(seconds)),
            epoch=0,
        )
        self.watches, self.parted = watches, parted  # type: ignore[assignment]

    def issue(self, rule: str, revision: int, text: str = "", said: str = "") -> str:
        return Explanations(self).issue(Finding(rule, revision, text, said=said))


MISSED = "got no event of revision 7 ('a'), but later ones or notice of them"


@pytest.mark.parametrize(
    ("found", "version", "known"),
    [
        (watch(3, 3, 9, number=0, refused=True), "3.5.1", "12385"),
        (watch(3, 3, 9, number=0), "3.5.1", ""),
        (watch(3, 3, 9, number=1, refused=True), "3.5.1", ""),
        (watch(3, 3, 9, number=0, refused=True), "3.5.16", ""),
    ],
)
def test_the_first_watch_of_a_stream_is_silenced_by_one_that_is_refused(
    found: SimpleNamespace, version: str, known: str
) -> None:
    assert World(version, watches=(found,)).issue("watch.reliable", 7, f"{found.label} {MISSED}") == known


@pytest.mark.parametrize(
    ("compacted", "revisions", "known"),
    [(((8, 9),), (3, 12), "17529"), (((8, 9),), (3, 8, 12), ""), (((6, 9),), (3, 12), ""), ((), (3, 12), "")],
)
def test_a_watch_that_goes_on_after_a_compaction_of_what_it_missed(
    compacted: tuple[tuple[int, int], ...], revisions: tuple[int, ...], known: str
) -> None:
    found = watch(3, *revisions)
    world = World("3.5.1", watches=(found,), compacted=compacted)
    text = f"{found.label} {MISSED}"
    assert [world.issue(rule, 7, text) for rule in ("watch.reliable", "watch.resumable")] == [known] * 2


@pytest.mark.parametrize(
    ("found", "known"),
    [(watch(3), "15220"), (watch(3, 3, 5), "15220"), (watch(3, 3, 5, caught_up=12), "15220"), (watch(3, 3, 9), "")],
)
def test_a_watch_that_was_told_too_early_and_then_ended(found: SimpleNamespace, known: str) -> None:
    text = f"{found.label} {MISSED}"
    assert World("3.5.1", watches=(found,)).issue("watch.resumable", 7, text) == known
    assert World("3.5.16", watches=(found,)).issue("watch.resumable", 7, text) == ""


def test_a_compaction_that_a_kill_has_ended_drops_a_deletion() -> None:
    found = watch(7, 9)
    text, fault = f"{found.label} {MISSED}", ("kill-follower", A, 10, 12)
    killed = World("3.5.16", watches=(found,), compacted=((7, 9),), faults=(fault,), restarts=(A,))
    assert killed.issue("watch.resumable", 7, text) == "19179"
    assert World("3.5.16", watches=(found,), compacted=((7, 9),)).issue("watch.resumable", 7, text) == ""
    assert killed.issue("watch.resumable", 8, text) == ""


@pytest.mark.parametrize(("far", "start", "known"), [(1000, 20_000, "20221"), (1, 20_000, ""), (1000, 9, "")])
def test_a_watch_of_the_future_on_a_member_that_fell_far_behind(far: int, start: int, known: str) -> None:
    found = watch(start)
    world = World("3.5.16", watches=(found,), far=far, faults=(("pause-follower", A, 5, 15),))
    text = f"{found.label} got an event before its start: the put of 'a' of revision 15000"
    assert world.issue("watch.filter", 15_000, text) == known


PART = f"at applied index 9 {A} has revision 5, and {B} revision 7"


@pytest.mark.parametrize(("far", "method", "known"), [(1000, "AuthEnable", "14571"), (1, "AuthEnable", ""),
                                                      (1000, "Put", "")])  # fmt: skip
def test_rights_that_change_while_a_member_falls_far_behind(far: int, method: str, known: str) -> None:
    script = CallScript()
    script.pass_s(8)
    script.ok(method)
    world = World("3.5.1", script=script, far=far, faults=(("pause-follower", A, 5, 15),))
    assert world.issue("convergence.revision", 9, PART) == known
    assert world.issue("convergence.revision", 9, PART.replace(A, "etcd-node3")) == ""


def test_a_member_that_defragments_far_behind_loses_what_it_applies() -> None:
    script = CallScript()
    script.ok("Defragment", member=A)
    fault = ("pause-follower", A, 5, 15)
    assert World("3.5.16", script=script, far=1000, faults=(fault,), restarts=(A,)).issue(
        "convergence.revision", 9, PART) == "20271"  # fmt: skip
    assert World("3.5.16", far=1000, faults=(fault,), restarts=(A,)).issue("convergence.revision", 9, PART) == ""


@pytest.mark.parametrize(("far", "member", "known"), [(1000, A, "20271"), (1, A, ""), (1000, B, "")])
def test_a_member_that_defragments_far_behind_does_not_start_again(far: int, member: str, known: str) -> None:
    script = CallScript()
    script.ok("Defragment", member=A)
    world = World("3.4.23", script=script, far=far, faults=(("pause-follower", A, 5, 15),), restarts=(A,))
    said = (
        "failed to recover v3 backend from snapshot: failed to find database snapshot file (snap: snapshot file doesn't"
    )
    assert world.issue("member.lives", 0, f"{member} ended by itself", said) == known
    assert world.issue("member.lives", 0, f"{member} ended by itself", "another reason") == ""


@pytest.mark.parametrize(("outcome", "revision", "known"), [(Outcome.INFO, 9, "14685"), (Outcome.INFO, 5, ""),
                                                             (Outcome.OK, 9, "")])  # fmt: skip
def test_writes_that_are_applied_twice_after_a_kill_in_a_defragmentation(
    outcome: Outcome, revision: int, known: str
) -> None:
    script = CallScript()
    script.pass_s(8)
    script.add("Defragment", {}, {} if outcome is Outcome.OK else None, outcome=outcome, member=A)
    world = World("3.5.5", script=script, faults=(("kill-random", A, 9, 12),), restarts=(A,), members=1)
    assert world.issue("kv.once", revision, "again") == known


def test_a_revision_that_falls_below_a_compaction_in_which_its_member_was_killed() -> None:
    fault = ("kill-random", A, 10, 12)
    world = World("3.5.6", compacted=((8, 9),), faults=(fault,), restarts=(A,), members=1)
    assert world.issue("durability.revision", 1, "which is older") == "17780"
    assert world.issue("durability.revision", 9, "which is older") == ""
    alone = World("3.5.6", compacted=((8, 9),), members=1)
    assert alone.issue("durability.revision", 1, "which is older") == ""


EARLY = (
    "lease 1 ended at revision 9, seen at 9 s: 1 s too early for lease {} of lease 1 by process 1 at {} ({} s to {} s"
)


@pytest.mark.parametrize(
    ("fault", "revision", "renewal", "at_s", "members", "known"),
    [
        ("stuck-disk-leader", 9, "keep-alive", 7, 3, "15247"),
        ("stuck-disk-random", 9, "keep-alive", 7, 3, "15247"),
        ("stuck-disk-leader", 4, "keep-alive", 7, 3, ""),
        ("stuck-disk-follower", 9, "keep-alive", 7, 3, ""),  # only who leads revokes
        ("kill-leader", 9, "keep-alive", 7, 3, ""),
        ("stuck-disk-leader", 9, "keep-alive", 3, 3, ""),  # which that leader knew
        ("stuck-disk-leader", 9, "keep-alive", 25, 3, ""),
        ("stuck-disk-leader", 9, "grant", 7, 3, ""),
        ("stuck-disk-leader", 9, "keep-alive", 7, 1, ""),  # nobody else can renew
    ],
)
def test_leases_that_a_member_revokes_whose_disk_is_stuck(
    fault: str, revision: int, renewal: str, at_s: int, members: int, known: str
) -> None:
    world = World("3.5.1", faults=((fault, A, 5, 12),), members=members)
    text = EARLY.format(renewal, B, f"{at_s}.000000", f"{at_s}.010000")
    assert world.issue("lease.early", revision, text) == known


@pytest.mark.parametrize(
    ("fault", "revision", "members", "known"),
    [
        ("kill-random", 10, 1, "14370"),
        ("kill-random", 3, 1, ""),  # long before
        ("restart-random", 10, 1, ""),  # which takes nothing with it
        ("kill-random", 10, 3, "13766"),
    ],
)
def test_a_kill_takes_with_it_what_the_only_member_had_just_acknowledged(
    fault: str, revision: int, members: int, known: str
) -> None:
    world = World("3.5.1", faults=((fault, A, 10, 12),), restarts=(A,), members=members)
    world.parted = [Finding("convergence.revision", 9, PART)]
    assert world.issue("durability.acknowledged", revision, "it is gone") == known


def test_a_kill_takes_with_it_what_was_acknowledged_since_the_disk_stood_still() -> None:
    faults = (("stuck-disk-random", A, 4, 12), ("kill-random", A, 10, 12))
    world = World("3.5.1", faults=faults, restarts=(A,), members=1)
    assert [world.issue("durability.revision", each, "older") for each in (2, 4)] == ["", "14370"]


MINUS, BESIDE = watch(-1, number=2), watch(3, number=3)


@pytest.mark.parametrize(
    ("found", "beside", "compacted", "revision", "known"),
    [
        (BESIDE, MINUS, (), 7, "20693"),
        (BESIDE, MINUS, ((5, 20),), 7, "20693"),  # which was later
        (BESIDE, watch(-1, number=2, began=25), ((5, 5),), 7, ""),  # what is compacted ends that one
        (BESIDE, watch(-2, number=2), (), 7, ""),  # and so is this
        (BESIDE, watch(-1, number=2, member=2), (), 7, ""),
        (BESIDE, MINUS, (), 25, ""),  # written long after
        (watch(25, number=3), MINUS, (), 25, ""),  # nothing to catch up with
        (watch(3, number=3, began=25), MINUS, (), 7, ""),  # when that one was through
        (watch(3, number=3, began=1, caught_up=2), watch(-1, number=2, began=20), (), 7, ""),  # and it was itself
        (watch(-1, 9, number=3), BESIDE, (), 7, "20693"),  # what was written before its first event
        (watch(-1, 9, number=3), BESIDE, (), 10, ""),
        (watch(-1, 9, number=3, began=25), BESIDE, ((5, 5),), 7, ""),
    ],
)
def test_a_watch_that_catches_up_beside_one_from_before_all(
    found: SimpleNamespace, beside: SimpleNamespace, compacted: tuple[tuple[int, int], ...], revision: int, known: str
) -> None:
    world = World("3.6.4", watches=(found, beside), compacted=compacted)
    assert world.issue("watch.reliable", revision, f"{found.label} {MISSED}") == known


def test_what_is_known_of_watches_is_of_those_that_were_set_last() -> None:
    world = World("3.6.4")
    text = f"{BESIDE.label} {MISSED}"
    assert world.issue("watch.reliable", 7, text) == ""
    world.watches = (BESIDE, MINUS)  # type: ignore[assignment]
    assert world.issue("watch.reliable", 7, text) == "20693"
    world.watches = (BESIDE,)  # type: ignore[assignment]
    assert world.issue("watch.reliable", 7, text) == ""


FAR = {"start": 2, "created": 9_000, "caught_up": 14}


@pytest.mark.parametrize(
    ("watches", "faults", "known"),
    [
        ((watch(**FAR, times=(11, 12)),), (), "22264"),
        ((watch(**FAR, times=(11, 11)),), (), ""),  # all at once
        ((watch(**{**FAR, "created": 900}, times=(11, 12)),), (), ""),  # no more than that at any time
        ((watch(**FAR, times=(11, 12)),), (("slow-disk-random", A, 9, 20),), ""),
        ((watch(**FAR, times=(11, 12)), watch(**{**FAR, "caught_up": 29}, began=25, number=2, times=(26, 27))),
         (("slow-disk-random", A, 9, 20),), "22264"),
        ((), (), ""),
    ],
)  # fmt: skip
def test_writes_that_a_watch_slows_down_which_is_told_bit_by_bit(
    watches: tuple[SimpleNamespace, ...], faults: tuple[tuple[str, str, int, int], ...], known: str
) -> None:
    for each in watches:
        each.revisions = array("q", (3, 1_500))
    world = World("3.7.3", watches=watches, faults=faults)
    label = watch(2).label
    text = f"while {label} caught up with 9,000 revisions, the 5th slowest put took 90 ms or more"
    assert world.issue("member.fair", 2, text) == known


COMPACTED = "required revision has been compacted"
READ = pb.RequestOp(request_range=pb.RangeRequest(key=b"a", revision=2))
LATE = pb.TxnRequest(success=[READ, pb.RequestOp(request_put=pb.PutRequest(key=b"a"))])
FENCED = pb.TxnRequest(compare=[pb.Compare(key=b"fence")], success=LATE.success)


@pytest.mark.parametrize(
    ("txn", "text", "known"),
    [
        ((8, 1, COMPACTED, LATE), PART, "18667"),
        ((8, 1, COMPACTED, LATE), PART.replace(A, "etcd-node3"), ""),  # those that were not asked do the same
        ((8, INFO, "timeout", LATE), PART, "18667"),
        ((4, INFO, "timeout", LATE), PART, ""),  # before it was compacted
        ((8, INFO, "timeout", FENCED), PART, ""),  # not done where it would come too late
        ((8, 1, "etcdserver: too many requests", LATE), PART, ""),
        ((8, 1, COMPACTED, pb.TxnRequest(success=[READ])), PART, ""),
        ((12, 1, COMPACTED, LATE), PART, ""),  # after they had parted
    ],
)
def test_members_part_from_the_one_that_refuses_a_late_transaction(
    txn: tuple[int, int, str, pb.TxnRequest], text: str, known: str
) -> None:
    world = World("3.6.16", txns=(txn,), compacted=((5, 6),))
    assert world.issue("convergence.revision", 9, text) == known
    assert world.issue("kv.reads", 20) == ""
    world.parted = [Finding("convergence.revision", 9, text)]
    assert world.issue("kv.reads", 20) == known
    assert world.issue("kv.reads", 2) == ""


def test_what_was_refused_for_something_else_is_not_done_by_a_late_transaction() -> None:
    world = World("3.6.16", txns=((8, 1, COMPACTED, LATE),), compacted=((5, 6),),
                  parted=(Finding("convergence.revision", 9, PART),))  # fmt: skip
    said = f"transaction that may put a=1 by process 1 at {A} (8 s to 9 s, refused: {{}}) has an effect: the put of a"
    assert world.issue("kv.failed", 9, said.format(COMPACTED)) == "18667"
    assert world.issue("kv.failed", 9, said.format("too many requests")) == ""


def test_a_member_that_ends_is_known_by_what_it_says() -> None:
    script = CallScript()
    script.no("Defragment", member=A)
    world = World("3.5.1", script=script)
    ends = f"{A} ended by itself"
    assert world.issue("member.lives", 0, ends, "unexpected error during txn: context canceled") == "14110"
    assert world.issue("member.lives", 0, ends, "runtime error: nil pointer dereference") == "18810"
    assert World("3.5.1").issue("member.lives", 0, ends, "runtime error: nil pointer dereference") == ""
    assert world.issue("member.lives", 0, ends, "failed to publish") == ""


def test_what_is_refused_or_done_with_authentication() -> None:
    script = CallScript()
    call = script.no("Range", {"key": "a"}, error="InvalidAuthToken")
    off = "call 1: Range 'a' by nobody at etcd-node1: InvalidAuthToken, with authentication off"
    assert issue("3.5.1", script, "auth.granted", call, off) == "13577"
    assert issue("3.5.1", script, "auth.granted", call, off.replace("InvalidAuthToken", "UserEmpty")) == ""
    moved, asked = script.ok("MoveLeader"), script.ok("Defragment")
    assert issue("3.5.16", script, "auth.anonymous", moved) == "14663"
    assert issue("3.5.16", script, "auth.anonymous", asked) == ""
    assert issue("3.6.4", script, "auth.anonymous", moved) == ""


def _full_with_users(*, auth: int = 30, off_ns: int = 14 * S) -> CallScript:
    """Return the calls of a run in which the store was full from second 8 on.

    Authentication is on until second ``auth``; 0: never.
    """
    script = CallScript()
    made = [script.ok("AuthEnable"), script.ok("AuthDisable")] if auth else []
    made += [script.ok("Alarm", _alarm("ACTIVATE")), script.ok("Alarm", _alarm("DEACTIVATE"))]
    times = ([(5 * S, 6 * S), (auth * S - 1, auth * S)] if auth else []) + [(8 * S, 9 * S), (off_ns, off_ns + S)]
    script.calls[:] = [
        dataclasses.replace(call, invoked_ns=began, completed_ns=ended)
        for call, (began, ended) in zip(made, times, strict=True)
    ]
    return script


def test_a_member_that_starts_while_the_store_is_full_parts_from_those_that_know_no_rights() -> None:
    restarted = {"version": "3.5.35", "restarts": (A,), "faults": (("kill", A, 11, 12),)}
    text = f"at applied index 9 {A} has revision 3, and {B} revision 4"
    full = World(**restarted, script=_full_with_users())  # type: ignore[arg-type]
    assert full.issue("convergence.revision", 20, text) == "22386"
    assert full.issue("convergence.revision", 5, text) == ""  # before it
    assert full.issue("convergence.revision", 20, f"at applied index 9 {B} has revision 3") == ""  # another member
    assert World(**restarted, members=1, script=_full_with_users()).issue("kv.reads", 20) == ""  # type: ignore[arg-type]
    healed_late = _full_with_users(off_ns=10 * S + S // 2)  # the fault's end is told of when it was full no more
    assert World(**restarted, script=healed_late).issue("convergence.revision", 20, text) == "22386"  # type: ignore[arg-type]
    told_late = _full_with_users(off_ns=10 * S + S // 2)
    told_late.events.append(MemberEvent(A, "killed", 12 * S - 1))  # as of a member that a fault starts again at once
    assert World(**restarted, script=told_late).issue("convergence.revision", 20, text) == "22386"  # type: ignore[arg-type]
    # Its users may be others, too, which nobody compares.
    asked = CallScript().no("Range", {"key": "a"}, error="UserEmpty")
    for at_s, known in ((20, "22386"), (5, "")):
        call = dataclasses.replace(asked, invoked_ns=at_s * S, completed_ns=at_s * S + 1)
        assert Explanations(full).issue(Finding("auth.granted", 0, "with authentication off", (call,))) == known
    for other in (_full_with_users(auth=0), _full_with_users(auth=7), _full_with_users(off_ns=10 * S)):
        assert World(**restarted, script=other).issue("convergence.revision", 20, text) == ""  # type: ignore[arg-type]
