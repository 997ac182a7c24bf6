"""Violations planted in an otherwise healthy history: each is found and named rightly, and nothing else with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from cluster.base.verdict import Verdict
from cluster.observe.raftlog import Event, Log
from loadgen.check.judge import check
from loadgen.check.rules import OF_HISTORY
from loadgen.history.operation import Outcome
from loadgen.history.reader import read
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto import kv_pb2
from tests.support.model import MS, NAMES, PREFIX, Model, Op, Script, Stream, final

ALL = {"key": PREFIX, "range_end": b"p0"}
LOGS = [
    Log(name, name, (Event(name, 1.0, "became", 2, detail="follower"), Event(name, 2.0, "became", 3, detail=role)),
        0.0, 9.0, 2, 0)
    for name, role in zip(NAMES, ("leader", "follower", "follower"), strict=True)
]  # fmt: skip


class Healthy(Script):
    """One process after the other, 10 ms each, over everything that a history can hold."""

    def __init__(self) -> None:
        super().__init__(Model(), [], [])
        self.at = 100 * MS
        self.when = [0, 0]
        self.named: dict[str, Op] = {}
        for n in range(5):
            self.do(pb.PutRequest(key=k(n), value=b"first-%d" % n))
        self.do(pb.RangeRequest(key=k(1)), "get")
        self.do(pb.RangeRequest(**ALL), "range")
        self.do(pb.RangeRequest(**ALL, limit=2), "limited")
        self.do(pb.RangeRequest(key=k(2), serializable=True), "stale get")
        self.do(pb.PutRequest(key=k(0), value=b"second-0", prev_kv=True), "put")
        self.do(pb.RangeRequest(key=k(0)), "get after")
        self.do(cas(k(1), 3, [(k(1), b"txn-1"), (k(2), b"txn-2")]), "txn")
        self.do(cas(k(1), 3, [(k(1), b"never")]), "failed txn")
        self.do(pb.DeleteRangeRequest(key=k(4), prev_kv=True), "delete")
        self.do(pb.DeleteRangeRequest(key=k(4)), "delete nothing")
        self.do(pb.RangeRequest(key=k(0), revision=4), "past")
        self.do(pb.LeaseGrantRequest(ID=7, TTL=2), "grant")
        self.do(pb.PutRequest(key=PREFIX + b"l1", value=b"leased-1", lease=7))
        self.do(pb.PutRequest(key=PREFIX + b"l2", value=b"leased-2", lease=7))
        self.do(pb.LeaseKeepAliveRequest(ID=7), "keep alive")
        self.do(pb.RangeRequest(**ALL, keys_only=True), "keys")
        self.at += 2500 * MS
        self.model.expire(7)
        self.mark()
        self.named["expired"] = self.ops[-1]
        self.expiry = self.model.revision
        self.do(pb.LeaseGrantRequest(ID=8, TTL=60))
        self.do(pb.PutRequest(key=PREFIX + b"l3", value=b"leased-3", lease=8))
        self.do(pb.LeaseRevokeRequest(ID=8), "revoke")
        self.do(pb.CompactionRequest(revision=6), "compact")
        self.refuse(pb.RangeRequest(key=k(0), revision=4), "mvcc: required revision has been compacted", "compacted")
        self.refuse(pb.RangeRequest(key=k(0), revision=900), "mvcc: required revision is a future revision", "future")
        self.refuse(pb.PutRequest(key=k(0), value=b"refused", lease=99), "requested lease not found", "refused")
        self.do(pb.PutRequest(key=k(3), value=b"unknown and done"), "unknown").outcome = Outcome.INFO
        self.refuse(pb.PutRequest(key=k(3), value=b"unknown and lost"), "lost", "lost").outcome = Outcome.INFO
        self.markers.append(("restart", self.at, {"member": "b"}))
        for n in range(4):
            self.do(pb.PutRequest(key=k(n), value=b"last-%d" % n), f"last {n}")
        self.do(pb.RangeRequest(**ALL), "last range")
        self.streams = [self.stream(member, 2) for member in range(3)]
        self.streams.append(self.stream(0, 9, created_at=self.at))
        for member in range(3):
            self.ops += final(self.model, member, self.at + 100 * MS)

    def do(self, request: Any, name: str = "") -> Op:
        """The next operation: 1 ms long, all of it done in between."""
        number = len(self.ops)
        op = Op(number % 3, self.at, self.at + MS, request, self.model.apply(request), member=number % 3)
        self.mark()
        self.at += 10 * MS
        self.ops.append(op)
        self.named[name] = op
        return op

    def refuse(self, request: Any, error: str, name: str) -> Op:
        op = Op(len(self.ops) % 3, self.at, self.at + MS, request, None, Outcome.FAIL, error=error)
        self.at += 10 * MS
        self.ops.append(op)
        self.named[name] = op
        return op

    def mark(self) -> None:
        """Keeps when the newest revision was made."""
        while len(self.when) <= self.model.revision:
            self.when.append(self.at)

    def stream(self, member: int, start: int, created_at: int = MS) -> Stream:
        create = pb.WatchCreateRequest(**ALL, start_revision=start, prev_kv=True)
        created = pb.WatchResponse(
            created=True, header=pb.ResponseHeader(revision=self.model.revision if created_at > MS else 1)
        )
        stream = Stream(member, [(created_at, pb.WatchRequest(create_request=create)), (created_at, created)])
        for revision in range(start, self.model.revision + 1):
            at = max(created_at, self.when[revision]) + MS
            header = pb.ResponseHeader(revision=revision)
            stream.entries.append((at, pb.WatchResponse(header=header, events=self.model.events[revision])))
        header = pb.ResponseHeader(revision=self.model.revision)
        stream.entries.append((self.at + 50 * MS, pb.WatchResponse(header=header)))
        return stream

    def everywhere(self, revision: int) -> Iterable[pb.WatchResponse]:
        """The answers of all watches that hold a revision."""
        for stream in self.streams:
            for _, answer in stream.events():
                if answer.events[0].kv.mod_revision == revision:
                    yield answer

    def drop(self, revision: int, streams: Iterable[Stream]) -> None:
        """Takes a revision's events out of watches."""
        for stream in streams:
            stream.entries = [
                entry for entry in stream.entries
                if not (isinstance(entry[1], pb.WatchResponse) and entry[1].events
                        and entry[1].events[0].kv.mod_revision == revision)
            ]  # fmt: skip

    def finals(self) -> list[Op]:
        return [op for op in self.ops if op.final and isinstance(op.request, pb.RangeRequest)]


def k(n: int) -> bytes:
    return PREFIX + b"k%d" % n


def cas(key: bytes, mod: int, puts: list[tuple[bytes, bytes]]) -> pb.TxnRequest:
    return pb.TxnRequest(
        compare=[pb.Compare(target=pb.Compare.MOD, key=key, mod_revision=mod)],
        success=[pb.RequestOp(request_put=pb.PutRequest(key=each, value=value)) for each, value in puts],
        failure=[pb.RequestOp(request_range=pb.RangeRequest(key=key))],
    )


Plant = Callable[[Healthy], None]
PLANTED: dict[str, tuple[Plant, set[str]]] = {}


def plant(*rules: str) -> Callable[[Plant], Plant]:
    """Registers a violation with the guarantees that it breaks, all of them."""

    def register(planted: Plant) -> Plant:
        PLANTED[planted.__name__] = planted, set(rules)
        return planted

    return register


# ---- KV


@plant("kv.real-time")
def stale_read(h: Healthy) -> None:
    """A linearizable read answers from before a write that had returned."""
    op = h.named["get after"]
    op.response = h.model.read(op.request, op.response.header.revision - 1)


@plant("kv.real-time")
def reordered_writes(h: Healthy) -> None:
    """A write is over before another is invoked, and has the newer revision."""
    first, second = h.named["last 0"], h.named["last 1"]
    first.call, second.call = second.call, first.call
    first.back, second.back = second.back, first.back


@plant("kv.reads")
def wrong_value(h: Healthy) -> None:
    h.named["get"].response.kvs[0].value = b"of nobody"


@plant("kv.reads")
def wrong_version(h: Healthy) -> None:
    h.named["stale get"].response.kvs[0].version = 2


@plant("kv.reads")
def key_missing_in_range(h: Healthy) -> None:
    del h.named["range"].response.kvs[1]


@plant("kv.reads")
def lease_missing_at_a_bare_key(h: Healthy) -> None:
    leased_in(h.named["keys"]).lease = 0


@plant("kv.reads")
def wrong_lease_at_a_bare_key_of_3_7(h: Healthy) -> None:
    h.version = "3.7.3"
    leased_in(h.named["keys"]).lease = 8


def leased_in(op: Op) -> Any:
    """A key of an answer that hangs on a lease."""
    return next(kv for kv in op.response.kvs if kv.lease)


@plant("kv.reads")
def wrong_count(h: Healthy) -> None:
    h.named["limited"].response.count = 2


@plant("kv.reads")
def more_forgotten(h: Healthy) -> None:
    h.named["limited"].response.more = False


@plant("kv.reads")
def wrong_order(h: Healthy) -> None:
    kvs = h.named["range"].response.kvs
    swapped = [kvs[1], kvs[0], *kvs[2:]]
    del kvs[:]
    kvs.extend(swapped)


@plant("kv.past-reads")
def past_read_of_another_revision(h: Healthy) -> None:
    op = h.named["past"]
    op.response.kvs[0].CopyFrom(h.model.states[-1][k(0)])


@plant("kv.writes")
def wrong_previous_value_of_a_put(h: Healthy) -> None:
    h.named["put"].response.prev_kv.value = b"of nobody"


@plant("kv.writes")
def wrong_previous_value_of_a_delete(h: Healthy) -> None:
    h.named["delete"].response.prev_kvs[0].mod_revision = 3


@plant("kv.writes")
def deleted_nothing_that_was_there(h: Healthy) -> None:
    h.named["delete nothing"].request.key = k(3)


@plant("kv.revisions", "durability.acknowledged")
def two_writes_of_one_revision(h: Healthy) -> None:
    """A write's revision is given away again: the first one is gone."""
    op = h.named["last 2"]
    h.ops.append(
        Op(7, op.call, op.back, pb.PutRequest(key=k(0), value=b"gone"), pb.PutResponse(header=op.response.header))
    )


@plant("kv.explained")
def phantom(h: Healthy) -> None:
    """A watch event that no operation made, on every member."""
    op = h.named["last 1"]
    h.ops.remove(op)


@plant("kv.failed")
def refused_write_has_an_effect(h: Healthy) -> None:
    op = h.named["last 1"]
    op.outcome, op.error = Outcome.FAIL, "required revision has been compacted"


@plant("kv.failed")
def refused_delete_has_an_effect(h: Healthy) -> None:
    op = h.named["delete"]
    op.outcome, op.error = Outcome.FAIL, "required revision has been compacted"


@plant("kv.once")
def unsure_write_happens_twice(h: Healthy) -> None:
    op, again = h.named["unknown"], h.named["last 3"]
    h.ops.remove(again)
    revision = again.response.header.revision
    for answer in h.everywhere(revision):
        answer.events[0].kv.value = op.request.value
    for each in (*h.finals(), h.named["last range"]):
        next(kv for kv in each.response.kvs if kv.key == k(3)).value = op.request.value


@plant("kv.once", "kv.real-time")
def effect_before_the_call(h: Healthy) -> None:
    op = h.named["unknown"]
    op.call, op.back = h.at + 10 * MS, h.at + 11 * MS


@plant("kv.compaction")
def compacted_revision_read(h: Healthy) -> None:
    op = h.named["compacted"]
    op.outcome = Outcome.OK
    op.response = h.model.states[4] and pb.RangeResponse(count=1, kvs=[h.model.states[4][k(0)]])
    op.response.header.revision = h.named["revoke"].response.header.revision


@plant("kv.compaction")
def compacted_by_nobody(h: Healthy) -> None:
    h.named["compacted"].request.revision = 8


@plant("kv.compaction")
def past_revision_called_future(h: Healthy) -> None:
    h.named["future"].request.revision = 10


# ---- durability and convergence


@plant("durability.acknowledged")
def lost_write(h: Healthy) -> None:
    """An acknowledged write that no member has, in the end or ever."""
    op = h.named["last 2"]
    revision = op.response.header.revision
    h.drop(revision, h.streams)
    before = h.model.states[revision - 1][k(2)]
    for each in (*h.finals(), h.named["last range"]):
        next(kv for kv in each.response.kvs if kv.key == k(2)).CopyFrom(before)


@plant("durability.acknowledged", "convergence.keys", "watch.reliable")
def write_lost_on_one_member(h: Healthy) -> None:
    """etcd#13766: one member has not got a write that the others have, at the same revision."""
    revision = h.named["last 2"].response.header.revision
    h.drop(revision, h.streams[1:2])
    before = h.model.states[revision - 1][k(2)]
    next(kv for kv in h.finals()[1].response.kvs if kv.key == k(2)).CopyFrom(before)


@plant("kv.reads", "convergence.keys")
def deleted_key_left_on_one_member(h: Healthy) -> None:
    """A member that parted has not got the deletion of a key that was last written long before."""
    left = h.model.states[h.named["delete"].response.header.revision - 1][k(4)]
    h.finals()[1].response.kvs.insert(4, left)
    h.finals()[1].response.count += 1


@plant("durability.revision", "kv.real-time")
def revision_falls_over_a_restart(h: Healthy) -> None:
    op = h.named["last 0"]
    at = h.at
    behind = Op(
        1, at, at + MS, pb.RangeRequest(key=k(4)), h.model.read(pb.RangeRequest(key=k(4)), 12), member=op.member
    )
    h.ops.append(behind)


@plant("durability.revision")
def serializable_revision_falls(h: Healthy) -> None:
    request = pb.RangeRequest(key=k(4), serializable=True)
    h.ops.append(Op(1, h.at, h.at + MS, request, h.model.read(request, 12), member=1))


@plant("convergence.revision")
def another_revision_at_the_same_index(h: Healthy) -> None:
    status = next(op for op in h.ops if isinstance(op.response, pb.StatusResponse) and op.member == 2)
    status.response.header.revision += 1


@plant("convergence.hash")
def another_hash(h: Healthy) -> None:
    next(op for op in h.ops if isinstance(op.response, pb.HashKVResponse) and op.member == 2).response.hash ^= 1


@plant("convergence.keys", "kv.reads", "watch.members")
def forked_member(h: Healthy) -> None:
    """One member has another value of one revision, and shows it to everybody who asks it."""
    revision = h.named["last 2"].response.header.revision
    h.streams[2].holding(revision).events[0].kv.value = b"forked"
    next(kv for kv in h.finals()[2].response.kvs if kv.key == k(2)).value = b"forked"


# ---- transactions


@plant("txn.compares")
def succeeds_though_its_compare_does_not_hold(h: Healthy) -> None:
    h.named["txn"].request.compare[0].mod_revision = 2


@plant("txn.compares")
def fails_though_its_compare_holds(h: Healthy) -> None:
    op = h.named["failed txn"]
    op.request.compare[0].mod_revision = op.response.header.revision


@plant("txn.responses")
def wrong_answer_in_a_transaction(h: Healthy) -> None:
    h.named["failed txn"].response.responses[0].response_range.kvs[0].value = b"of nobody"


@plant("txn.atomic")
def split_transaction(h: Healthy) -> None:
    """Its second write has the next revision; what comes after moves up."""
    revision = h.named["txn"].response.header.revision
    h.streams.pop()
    for stream in h.streams:
        for place, answer in reversed(stream.events()):
            if answer.events[0].kv.mod_revision == revision:
                second = answer.events.pop()
                second.kv.mod_revision = revision + 1
                at = stream.entries[place][0]
                stream.entries.insert(place + 1, (at, pb.WatchResponse(header=answer.header, events=[second])))
                del stream.entries[place + 2 :]
    later = [op for op in h.ops if op.call > h.named["txn"].call]
    for op in later:
        h.ops.remove(op)


# ---- watches


@plant("watch.filter")
def event_of_another_key(h: Healthy) -> None:
    answer = h.streams[1].holding(5)
    answer.events.add(kv=kv_pb2.KeyValue(key=b"q", value=b"x", mod_revision=5, create_revision=5, version=1))


@plant("watch.filter")
def event_before_the_start(h: Healthy) -> None:
    entries = h.streams[3].entries  # from revision 9
    entries.insert(2, (entries[1][0], h.streams[0].holding(8)))


@plant("watch.ordered")
def events_out_of_order(h: Healthy) -> None:
    (first, a), (second, b) = h.streams[1].events()[3:5]
    entries = h.streams[1].entries
    at = entries[second][0]
    entries[first], entries[second] = (at, b), (at, a)


@plant("watch.unique")
def event_delivered_twice(h: Healthy) -> None:
    place, answer = h.streams[1].events()[3]
    h.streams[1].entries.insert(place + 1, (h.streams[1].entries[place][0], answer))


@plant("watch.unique")
def event_delivered_twice_much_later(h: Healthy) -> None:
    answer = h.streams[1].events()[3][1]
    h.streams[1].entries.insert(-1, (h.at, answer))


@plant("watch.atomic")
def revision_in_two_answers(h: Healthy) -> None:
    revision = h.named["txn"].response.header.revision
    place = next(place for place, each in h.streams[1].events() if each.events[0].kv.mod_revision == revision)
    at, answer = h.streams[1].entries[place]
    second = answer.events.pop()
    h.streams[1].entries.insert(place + 1, (at, pb.WatchResponse(header=answer.header, events=[second])))


@plant("watch.atomic")
def half_of_a_revision(h: Healthy) -> None:
    h.streams[1].holding(h.named["txn"].response.header.revision).events.pop()


@plant("watch.members")
def another_value_in_a_fragment(h: Healthy) -> None:
    """All watches get a revision in two fragments, without previous values; one of them not as the others do."""
    revision = h.named["txn"].response.header.revision
    for number, stream in enumerate(h.streams[:3]):
        stream.entries[0][1].create_request.prev_kv = False
        for _, answer in stream.events():
            for event in answer.events:
                event.ClearField("prev_kv")
        place = next(place for place, each in stream.events() if each.events[0].kv.mod_revision == revision)
        at, answer = stream.entries[place]
        answer.fragment = True
        second = answer.events.pop()
        if number == 1:
            second.kv.value = b"another"
        stream.entries.insert(place + 1, (at, pb.WatchResponse(header=answer.header, events=[second])))


@plant("watch.reliable")
def gap(h: Healthy) -> None:
    h.drop(5, h.streams[1:2])


@plant("watch.resumable")
def gap_after_resuming(h: Healthy) -> None:
    h.drop(10, h.streams[3:])


@plant("watch.bookmarkable")
def progress_ahead_of_events(h: Healthy) -> None:
    """etcd#15220: a progress notification, and then an event that it said had come."""
    place, answer = h.streams[1].events()[3]
    revision = answer.events[0].kv.mod_revision
    notice = pb.WatchResponse(watch_id=-1, header=pb.ResponseHeader(revision=revision))
    h.streams[1].entries.insert(place, (h.streams[1].entries[place][0] - 1, notice))


@plant("watch.previous-value")
def wrong_previous_value(h: Healthy) -> None:
    revision = h.named["last 1"].response.header.revision
    h.streams[1].holding(revision).events[0].prev_kv.value = b"of nobody"


@plant("watch.previous-value")
def no_previous_value(h: Healthy) -> None:
    h.streams[1].holding(h.named["last 1"].response.header.revision).events[0].ClearField("prev_kv")


@plant("watch.flags")
def modification_called_creation(h: Healthy) -> None:
    revision = h.named["last 1"].response.header.revision
    kv = h.streams[1].holding(revision).events[0].kv
    kv.create_revision, kv.version = revision, 1


@plant("watch.members")
def another_event_on_one_member(h: Healthy) -> None:
    h.streams[1].holding(h.named["last 1"].response.header.revision).events[0].kv.value = b"of nobody"


@plant("watch.members")
def deletion_called_put(h: Healthy) -> None:
    event = h.streams[1].holding(h.named["delete"].response.header.revision).events[0]
    event.type = kv_pb2.Event.PUT


# ---- leases and Raft


@plant("lease.early")
def lease_runs_out_early(h: Healthy) -> None:
    h.named["keep alive"].response.TTL = 3


@plant("lease.together")
def half_a_lease_runs_out(h: Healthy) -> None:
    for answer in h.everywhere(h.expiry):
        answer.events.pop()
    last = h.model.states[h.expiry - 1][PREFIX + b"l2"]
    for op in (*h.finals(), h.named["last range"]):
        op.response.kvs.append(last)
        op.response.count += 1


@plant("lease.attached")
def key_attached_to_an_ended_lease(h: Healthy) -> None:
    op = h.named["last 3"]
    op.request.lease = 7
    for answer in h.everywhere(op.response.header.revision):
        answer.events[0].kv.lease = 7
    for each in (*h.finals(), h.named["last range"]):
        next(kv for kv in each.response.kvs if kv.key == k(3)).lease = 7


def judged(script: Script, folder: Path, logs: list[Log] | None = None) -> dict[str, list[str]]:
    """What is broken, by guarantee."""
    results = check(read(script.write(folder)), logs=LOGS if logs is None else logs).results
    return {each.rule: [found.text for found in each.findings] for each in results if each.verdict == Verdict.FAIL}


def test_the_history_is_healthy_without_anything_planted(tmp_path: Path) -> None:
    results = check(read(Healthy().write(tmp_path)), logs=LOGS).results
    assert {each.rule: (each.verdict, each.reason) for each in results if each.verdict != Verdict.PASS} == {}


def test_what_comes_after_the_final_reads_is_no_part_of_the_history(tmp_path: Path) -> None:
    """A lease may end then, and a write that was given up may take effect."""
    unknown = []
    for moved in (False, True):
        script = Healthy()
        newer = pb.ResponseHeader(revision=script.model.revision + 1)
        at = script.at + 200 * MS
        script.ops.append(Op(99, at, at + MS, pb.StatusRequest(), pb.StatusResponse(header=newer)))
        for op in script.ops if moved else ():
            if op.final:
                op.response.header.revision = newer.revision
        results = check(read(script.write(tmp_path / str(moved))), logs=LOGS).results
        unknown.append({each.rule: each.verdict for each in results if each.verdict != Verdict.PASS})
    assert unknown == [{}, {"kv.explained": Verdict.UNKNOWN}]


def test_what_a_watch_still_gets_after_its_cancellation_is_owed_to_nobody(tmp_path: Path) -> None:
    script = Healthy()
    stream = script.streams[1]
    at, last = next(entry for entry in reversed(stream.entries) if entry[1].events)
    # As etcd does: the watch is forgotten, and with it that it asked for previous key-values.
    last.events[0].ClearField("prev_kv")
    cancel = (at - MS // 2, pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=0)))
    stream.entries.insert(stream.entries.index((at, last)), cancel)
    assert judged(script, tmp_path) == {}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_and_nothing_else(name: str, tmp_path: Path) -> None:
    planted, rules = PLANTED[name]
    script = Healthy()
    planted(script)
    found = judged(script, tmp_path)
    assert set(found) == rules, found
    assert all(text for texts in found.values() for text in texts)


def explained(script: Script, folder: Path) -> dict[str, set[str]]:
    """By which bugs each broken guarantee is explained; an empty name: by none."""
    results = check(read(script.write(folder)), logs=LOGS).results
    return {each.rule: {finding.issue for finding in each.findings} for each in results if each.findings}


@pytest.mark.parametrize(
    ("name", "version", "issue"),
    [
        ("progress_ahead_of_events", "3.5.1", "15220"),
        ("progress_ahead_of_events", "3.5.30", ""),  # which is fixed there
        ("gap_after_resuming", "3.5.1", ""),  # of a watch, in another way
        ("write_lost_on_one_member", "3.5.1", "13766"),
        ("write_lost_on_one_member", "3.5.30", ""),
        ("deleted_key_left_on_one_member", "3.5.1", "13766"),
        ("forked_member", "3.5.1", ""),  # one that was never started again
        ("lost_write", "3.5.1", ""),  # where the members agree
    ],
)
def test_a_known_bug_explains_what_has_its_signature(name: str, version: str, issue: str, tmp_path: Path) -> None:
    planted, rules = PLANTED[name]
    script = Healthy()
    script.version = version
    planted(script)
    assert explained(script, tmp_path) == {rule: {issue} for rule in rules}


def test_the_first_event_after_a_compaction_is_explained_and_a_later_one_is_news(tmp_path: Path) -> None:
    """etcd#18089: a watch from the revision that was compacted misses it. The unexplained stand first."""
    script = Healthy()
    script.version = "3.5.1"
    compact = script.named["compact"].request
    compact.revision = script.streams[3].entries[0][1].create_request.start_revision
    script.drop(compact.revision, script.streams[3:])
    assert explained(script, tmp_path / "one") == {"watch.resumable": {"18089"}}
    script.drop(compact.revision + 1, script.streams[3:])
    results = check(read(script.write(tmp_path / "two")), logs=LOGS).results
    (broken,) = [each for each in results if each.findings]
    assert [finding.issue for finding in broken.findings] == ["", "18089"]
    assert (broken.broken, broken.unexplained, broken.explained) == (2, 1, {"18089": 1})


def test_every_guarantee_has_something_planted() -> None:
    covered = set().union(*(rules for _, rules in PLANTED.values()))
    assert covered | {"raft.term", "raft.leader"} == set(OF_HISTORY)
    assert len(PLANTED) >= 20


@pytest.mark.parametrize(
    ("rule", "member", "events"),
    [
        ("raft.leader", "b", [(2, "follower"), (3, "leader")]),
        ("raft.term", "b", [(3, "follower"), (2, "follower")]),
    ],
)
def test_what_is_planted_in_the_logs(rule: str, member: str, events: list[tuple[int, str]], tmp_path: Path) -> None:
    told = tuple(Event(member, float(n), "became", term, detail=role) for n, (term, role) in enumerate(events))
    logs = [LOGS[0], Log(member, member, told, 0.0, 9.0, 2, 0), LOGS[2]]
    found = judged(Healthy(), tmp_path, logs)
    assert set(found) == {rule}
    assert member in found[rule][0]


@pytest.mark.parametrize(
    ("answer", "broken"),
    [("MsgVote", {"raft.term"}), ("MsgPreVote", set()), ("", set())],  # the last one answers after its start
)
def test_a_term_in_which_a_member_has_answered_outlives_it(answer: str, broken: set[str], tmp_path: Path) -> None:
    """etcd stores a term before it answers, and a kill may come before that; seen in the soak of 3.6.16."""
    told = (
        Event("b", 1.0, "became", 3, detail="follower"), Event("b", 1.1, "cast", 3, "a", "MsgVote"),
        Event("b", 1.2, "start"), Event("b", 1.3, "became", 2, detail="follower"),
    )  # fmt: skip
    asker = (
        Event("a", 1.1, "became", 3, detail="candidate"), Event("a", 1.1, "granted", 3, "a", "MsgVote"),
        Event("a", 1.1 if answer else 1.4, "granted", 3, "b", answer or "MsgVote"),
        Event("a", 1.5, "became", 3, detail="leader"),
    )  # fmt: skip
    logs = [Log("a", "a", asker, 0.0, 9.0, 2, 0), Log("b", "b", told, 0.0, 9.0, 2, 0), LOGS[2]]
    assert set(judged(Healthy(), tmp_path / "one", logs)) == broken
    again = (Event("b", 1.6, "start"), Event("b", 1.7, "became", 1, detail="follower"))
    logs[1] = Log("b", "b", told + again, 0.0, 9.0, 2, 0)
    assert set(judged(Healthy(), tmp_path / "two", logs)) == {"raft.term"}, "it had read term 2 from its disk"


def test_the_counterexample_names_operations_times_members_and_revisions(tmp_path: Path) -> None:
    script = Healthy()
    stale_read(script)
    text = judged(script, tmp_path)["kv.real-time"][0]
    assert "get p/k0 by process" in text
    assert " at a (" in text
    assert "has revision 6, which is older than revision 7 of put p/k0=second-0 by process" in text


def test_an_answer_from_before_a_watch_says_nothing_of_it(tmp_path: Path) -> None:
    """etcd may send the answer to an older request for progress after the news that a watch was created."""
    found = []
    for asked in (True, False):
        script = Healthy()
        entries = script.streams[3].entries
        (at, create), (_, created), *events = entries
        told = pb.WatchResponse(watch_id=-1, header=created.header)
        ask = pb.WatchRequest(progress_request=pb.WatchProgressRequest())
        entries[:] = [*([(at, ask)] if asked else []), (at, create), (at, created), (at, told), *events]
        found.append(set(judged(script, tmp_path / str(asked))))
    assert found == [set(), {"watch.bookmarkable"}]


def begun_now(script: Script, shown: int, said: int, first: int) -> Stream:
    """Takes in a watch of everything from now on, whose stream had shown a revision before. Its creation says another
    revision, and it got the events from a third on.
    """
    stream = script.stream(0, first)
    (at, ask), (_, created), *events = stream.entries
    before = pb.WatchResponse(watch_id=7, created=True, header=pb.ResponseHeader(revision=shown))
    ask.create_request.start_revision = 0
    created.header.revision = said
    stream.entries = [(at, before), (at, ask), (at, created), *events]
    script.streams.append(stream)
    return stream


def test_a_watch_from_now_may_begin_before_the_revision_that_its_creation_says(tmp_path: Path) -> None:
    """etcd 3.5.30 takes the watch in first and reads the revision for its answer then."""
    script = Healthy()
    stream = begun_now(script, shown=5, said=9, first=7)
    assert judged(script, tmp_path / "healthy") == {}
    script.drop(8, [stream])
    assert set(judged(script, tmp_path / "gap")) == {"watch.reliable"}
    script = Healthy()
    begun_now(script, shown=7, said=9, first=7)
    assert set(judged(script, tmp_path / "before")) == {"watch.filter"}


def test_previous_values_may_end_before_a_cancelled_watch_does(tmp_path: Path) -> None:
    """etcd forgets what a watch had asked for when it is told to cancel it, and then sends what it had in hand."""
    found = []
    for cancelled in (True, False):
        script = Healthy()
        revision = script.named["last 1"].response.header.revision
        script.streams[1].holding(revision).events[0].ClearField("prev_kv")
        if cancelled:
            answer = script.streams[1].holding(revision)
            place, at = next((n, at) for n, (at, each) in enumerate(script.streams[1].entries) if each is answer)
            request = pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=0))
            script.streams[1].entries.insert(place, (at - 1, request))
        found.append(set(judged(script, tmp_path / str(cancelled))))
    assert found == [set(), {"watch.previous-value"}]


@pytest.mark.parametrize(
    ("change", "verdict", "why"),
    [
        ({}, Verdict.FAIL, ""),
        ({"cut": True}, Verdict.UNKNOWN, "w0.hist is cut"),
        ({"exclusive": False}, Verdict.UNKNOWN, "others use it"),
    ],
)
def test_a_previous_value_may_be_missing_where_a_compaction_may_not_be_known(
    change: dict[str, bool], verdict: Verdict, why: str, tmp_path: Path
) -> None:
    """Another one than there was is wrong, whatever was compacted."""
    for plant_, expected in ((no_previous_value, verdict), (wrong_previous_value, Verdict.FAIL)):
        script = Healthy()
        plant_(script)
        vars(script).update(change)
        results = check(read(script.write(tmp_path / plant_.__name__)), logs=LOGS).results
        (found,) = [each for each in results if each.rule == "watch.previous-value"]
        assert found.verdict == expected
        if found.verdict == Verdict.UNKNOWN:
            assert f"the store may have been compacted: {why}" in found.reason


@pytest.mark.parametrize(
    "planted",
    [refused_delete_has_an_effect, lease_runs_out_early, half_a_lease_runs_out, key_attached_to_an_ended_lease],
)
def test_where_the_history_is_cut_keys_may_be_gone_by_what_is_not_in_it(planted: Plant, tmp_path: Path) -> None:
    """A delete or a revocation of the lease, whose record is lost."""
    script = Healthy()
    planted(script)
    script.cut = True
    results = check(read(script.write(tmp_path)), logs=LOGS).results
    _, (rule,) = PLANTED[planted.__name__]
    assert {each.rule: each.verdict for each in results}[rule] == Verdict.UNKNOWN
    assert Verdict.FAIL not in {each.verdict for each in results}
    assert "w0.hist is cut" in " ".join(each.reason for each in results if each.verdict == Verdict.UNKNOWN)


@pytest.mark.parametrize("planted", [refused_write_has_an_effect, lost_write, stale_read, write_lost_on_one_member])
def test_what_is_certain_is_broken_in_a_history_that_is_cut_too(planted: Plant, tmp_path: Path) -> None:
    script = Healthy()
    planted(script)
    script.cut = True
    assert PLANTED[planted.__name__][1] <= set(judged(script, tmp_path))


def test_progress_is_not_about_a_watch_that_is_being_cancelled(tmp_path: Path) -> None:
    """The news that it was cancelled may come after the answer to a request for progress that was sent after that."""
    found = []
    for cancelled in (True, False):
        script = Healthy()
        entries = script.streams[1].entries
        last = pb.ResponseHeader(revision=script.model.revision)
        (at, _), *_ = entries[10:]
        del entries[10:]
        if cancelled:
            entries.append((at, pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=0))))
        entries.append((at, pb.WatchResponse(header=last, watch_id=-1)))
        entries.append((at, pb.WatchResponse(header=last, canceled=True)))
        found.append(set(judged(script, tmp_path / str(cancelled))))
    assert found == [set(), {"watch.reliable"}]


def test_a_refused_watch_does_not_end_another_whose_id_its_refusal_has(tmp_path: Path) -> None:
    """etcd 3.5.5 and older refuse a watch with the id 0, which the first one of the stream has."""
    found = []
    for silent in (True, False):
        script = Healthy()
        entries = script.streams[1].entries
        at, _ = entries[9]
        if silent:
            del entries[10:-1]
        header = pb.ResponseHeader(revision=2)
        refusal = pb.WatchResponse(header=header, created=True, canceled=True, cancel_reason="permission denied")
        entries[10:10] = [(at, pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"x"))), (at, refusal)]
        found.append(set(judged(script, tmp_path / str(silent))))
    assert found == [{"watch.reliable"}, set()]


def test_from_3_7_on_a_key_without_its_value_is_without_its_lease(tmp_path: Path) -> None:
    """Tried with 3.7.3: 3.5 and 3.6 tell the lease of such a key."""
    healthy = Healthy()
    healthy.version = "3.7.3"
    for kv in healthy.named["keys"].response.kvs:
        kv.lease = 0
    results = check(read(healthy.write(tmp_path)), logs=LOGS).results
    assert {each.rule: (each.verdict, each.reason) for each in results if each.verdict != Verdict.PASS} == {}


def test_what_a_proxy_does_not_promise_is_skipped(tmp_path: Path) -> None:
    """It answers serializable reads from a cache, and asks any member; what it does promise is judged as ever."""
    cached = Healthy()
    serializable_revision_falls(cached)
    cached.proxy = "http://proxy:2379"
    results = check(read(cached.write(tmp_path / "cached")), logs=LOGS).results
    skipped = {each.rule for each in results if each.verdict is Verdict.SKIP}
    assert {each.rule for each in results if each.verdict is Verdict.PASS} == set(OF_HISTORY) - skipped
    assert skipped == {
        "durability.acknowledged", "durability.revision", "convergence.revision", "convergence.hash",
        "convergence.keys",
    }  # fmt: skip
    assert all("etcd grpc-proxy" in each.reason for each in results if each.rule in skipped)
    for planted, rule in ((stale_read, "kv.real-time"), (forked_member, "convergence.keys")):
        script = Healthy()
        planted(script)
        script.proxy = "http://proxy:2379"
        assert rule in judged(script, tmp_path / rule)


def test_a_proxys_keepalive_may_be_older_than_it_was_asked_for(tmp_path: Path) -> None:
    """It renews by itself, and answers with what it was told last: the grant is what a lease lives from."""
    found = []
    for proxy in ("", "http://proxy:2379"):
        script = Healthy()
        kept = script.named["keep alive"]
        kept.call, kept.back = kept.call + 1000 * MS, kept.back + 1000 * MS
        script.proxy = proxy
        found.append(set(judged(script, tmp_path / f"proxy-{proxy[:1]}")))
    assert found == [{"lease.early"}, set()]
