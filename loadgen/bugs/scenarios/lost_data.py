"""What a member loses for good, of requests that it takes."""

from __future__ import annotations

from loadgen.bugs.scenario import Scenario
from loadgen.bugs.stage import Stage, answer_of
from loadgen.check.rules import Finding
from loadgen.check.signatures import involves
from loadgen.proto import etcd_pb2 as pb

_IDS = (-7, (1 << 63) - 1)
_TOLD_S = 10.0


def _grant_odd_leases(stage: Stage) -> None:
    """Grant leases of ids that etcd itself never chooses, and start the member anew.

    #12535 (mended by #13676): it reads the leases of the ids from 0 up to, not including, the highest.
    """
    actor, name = stage.actor(), stage.names[0]
    for lease in _IDS:
        answer_of(actor.ask(pb.LeaseGrantRequest(TTL=600, ID=lease)))
        actor.put(b"key%d" % lease, b"1", lease=lease)
    answer_of(
        actor.snapshot()
    )  # which commits; what is not committed yet is applied again, and not read from the store
    stage.kill(name)
    stage.start(name)
    actor = stage.actor()
    for lease in _IDS:
        actor.ask(pb.LeaseTimeToLiveRequest(ID=lease, keys=True))
        actor.keepalive(lease)


def _delete_and_put_in_one(stage: Stage) -> None:
    """Delete a key and put it again in one transaction, and compact at its revision.

    #22376: the compaction keeps the deletion, as it is of that very revision (#18274), and not the value that came
    after it in the same revision. A range to the last key is not seen to hold the key, so etcd takes the transaction.
    """
    actor, name = stage.actor(), stage.names[0]
    actor.put(b"key", b"1")
    both = [
        pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"key", range_end=b"\0")),
        pb.RequestOp(request_put=pb.PutRequest(key=b"key", value=b"2")),
    ]
    done = answer_of(actor.ask(pb.TxnRequest(success=both)))
    answer_of(actor.ask(pb.CompactionRequest(revision=done["header"]["revision"], physical=True)))
    if stage.died_of(actor.get(b"key")):
        stage.start(name)
        stage.actor().get(b"key")


def _is_value_lost(finding: Finding) -> bool:
    return finding.rule != "member.lives" or "failed to find revision pair" in finding.said


def _compact_to_a_deletion(stage: Stage) -> None:
    """Delete a key, compact at the revision of that, and watch from it on, which can be watched still."""
    actor = stage.actor()
    live = actor.watch(b"key")
    actor.put(b"key", b"1")
    deleted = answer_of(actor.delete(b"key"))["header"]["revision"]
    live.take_up_to(deleted, within_s=_TOLD_S)
    answer_of(actor.ask(pb.CompactionRequest(revision=deleted, physical=True)))
    watch = actor.watch(b"key", start_revision=deleted)
    put = answer_of(actor.put(b"key", b"2"))
    watch.take_up_to(put["header"]["revision"], within_s=_TOLD_S)


SCENARIOS = (
    Scenario("12535", ("lease.renewed",), _grant_odd_leases, fits=involves("LeaseTimeToLive", "LeaseKeepAlive")),
    Scenario("18089", ("watch.resumable",), _compact_to_a_deletion),
    Scenario("22376", ("member.lives", "kv.real-time", "kv.reads"), _delete_and_put_in_one, fits=_is_value_lost),
)
