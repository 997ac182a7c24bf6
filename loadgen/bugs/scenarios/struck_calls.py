"""What a member does where one of its system calls is its last, fails, or is held up by a stuck disk.

The calls are struck from outside (``cluster.local.strike_rules``), so the etcd is the one that everybody runs. Each
function says how its bug comes about; the source is the issue that its scenario names.
"""

from __future__ import annotations

import time

from cluster.local.strike_rules import fail, hold, kill
from loadgen.bugs.scenario import CannotTryError, ClusterOptions, Scenario
from loadgen.bugs.stage import Stage, answer_of
from loadgen.check.rules import Finding
from loadgen.client.actor import Actor
from loadgen.client.kv import put_op
from loadgen.history.calls import Call
from loadgen.proto import etcd_pb2 as pb

_PUTS = 20
_TOLD_S = 10.0
_BATCH, _OPERATIONS = 1000, 125  # what etcd compacts between two commits, and what fits into a transaction
# With etcd's own 100 ms a commit of its own may come between what is to be in one; on a busy machine with a minute too.
_NO_COMMITS = ClusterOptions(args=("--backend-batch-interval=1h",), strikes=("sync", "rename"))


def _kill_in_defragmentation(stage: Stage) -> None:
    """Kill a member as it puts the new database in the place of the old one.

    The commit that comes before that leaves out how far the log was applied, so all since the commit before it is
    applied again.
    """
    name, actor = stage.names[0], stage.actor()
    for number in range(_PUTS):
        actor.put(b"key", b"%d" % number)
    rule = stage.strike(name, kill("rename", "db"))
    actor.ask(pb.DefragmentRequest())
    stage.struck(name, rule)
    stage.start(name)
    stage.actor().get(b"key")


def _put_a_batch(actor: Actor, prefix: bytes) -> None:
    """Put as many keys as one batch of a compaction goes through."""
    keys = [prefix + b"%04d" % number for number in range(_BATCH)]
    for first in range(0, _BATCH, _OPERATIONS):
        actor.ask(pb.TxnRequest(success=[put_op(key, b"") for key in keys[first : first + _OPERATIONS]]))


def _kill_in_compaction(stage: Stage, actor: Actor, deleted: Call, nth: int) -> int:
    """Compact to a deletion, and kill the member at its ``nth`` sync of the database; return the revision.

    Each commit takes two syncs: that of the plan to compact, and that of each whole batch that drops a key.
    """
    revision: int = answer_of(deleted)["header"]["revision"]
    rule = stage.strike(stage.names[0], kill("fdatasync", "db", nth=nth))
    actor.ask(pb.CompactionRequest(revision=revision, physical=True))
    stage.struck(stage.names[0], rule)
    stage.start(stage.names[0])
    return revision


def _kill_at_the_end_of_compaction(stage: Stage) -> None:
    """Delete every key, and kill the member when the compaction has dropped all, and not yet noted that it ended.

    The second batch has the deletions. So nothing is left from which the member could tell its revision.
    """
    actor = stage.actor()
    _put_a_batch(actor, b"key")
    _kill_in_compaction(stage, actor, actor.delete(b"key", prefix=True), nth=7)
    stage.actor().get(b"key", prefix=True)


def _kill_within_compaction(stage: Stage) -> None:
    """Kill when the first batch has dropped what was put, and the last one has not yet come to its deletion.

    The member does not read a deletion of what it does not know, so the compaction that it goes on with drops it.
    """
    actor = stage.actor()
    live = actor.watch(b"key")
    actor.put(b"key", b"deleted")
    _put_a_batch(actor, b"other")
    _put_a_batch(actor, b"other")
    deleted = actor.delete(b"key")
    live.take(2, within_s=_TOLD_S)
    revision = _kill_in_compaction(stage, actor, deleted, nth=5)
    again = stage.actor()
    # It goes on with the compaction. This one is refused when that one has ended, and is in the database.
    again.ask(pb.CompactionRequest(revision=revision, physical=True))
    watch = again.watch(b"key", start_revision=revision)
    after = answer_of(again.put(b"key", b"after"))
    watch.take_up_to(after["header"]["revision"], within_s=_TOLD_S)


def _hold_the_log(stage: Stage) -> None:
    """Hold what is written to the log, and the next commit of the database, and kill the member.

    One that is alone applies and acknowledges a write while it still writes that to its log.
    """
    name = stage.names[0]
    actor = stage.actor()
    for number in range(5):
        actor.put(b"key", b"%d" % number)
    answer_of(actor.snapshot())  # for which etcd commits what was written so far
    rules = [stage.strike(name, hold("fdatasync", "db")), stage.strike(name, hold("write", ".wal"))]
    put = actor.start(pb.PutRequest(key=b"key", value=b"the last"), timeout_s=_TOLD_S)
    stage.struck(name, rules[1])
    put.result()
    stage.kill(name)
    for rule in rules:
        stage.cluster.clear_strikes(name, rule)
    stage.start(name)
    stage.actor().get(b"key")


def _defragment_on_a_full_disk(stage: Stage) -> None:
    """Have no room for the new database: the defragmentation fails, and leaves the old one without a transaction."""
    actor = stage.actor()
    for number in range(_PUTS):
        actor.put(b"key%d" % number, b"x" * 1000)
    full = stage.strike(stage.names[0], fail("fdatasync", "db.tmp*", "ENOSPC"))
    actor.ask(pb.DefragmentRequest())
    stage.struck(stage.names[0], full)
    actor.put(b"key", b"after")
    stage.notice()


def _hold_the_leaders_disk(stage: Stage) -> None:
    """Hold a sync of the leader's log for longer than leases live, which are renewed at a follower meanwhile.

    The others elect another leader, which renews them. The old one cannot tell, and revokes what it knows.
    """
    ttl, held_s = 2, 5.0
    leader = stage.leader()
    near, far = (name for name in stage.names if name != leader)
    actor, other = stage.actor(near), stage.actor(far)
    granted = [actor.ask(pb.LeaseGrantRequest(TTL=ttl)) for _ in range(3)]
    leases = [call.answer["ID"] for call in granted if call.answer is not None]
    for lease in leases:
        actor.put(b"lease%d" % lease, b"held", lease=lease)
    watch = actor.watch(b"lease", b"leasf")
    rule = stage.strike(leader, hold("fdatasync", ".wal", held_s, times=1))
    other.start(pb.PutRequest(key=b"other", value=b"what the leader has to write to its log"))
    until = time.monotonic() + held_s + 3.0
    gone = False
    while time.monotonic() < until and not gone:
        for lease in leases:
            gone |= actor.keepalive(lease).error == "LeaseNotFound"
        time.sleep(0.2)
    # A lease that is renewed no more has to end at last, which shows that the watch would have told.
    watch.take(len(leases), within_s=ttl + 4.0)
    watch.close()
    stage.struck(leader, rule, timeout_s=0.1)
    if not gone and stage.leader() == leader:
        raise CannotTryError(f"the others elected no leader while {leader} was held up")


def _after_the_puts(finding: Finding) -> bool:
    return finding.revision > 1 + _PUTS


_SYNCS = ("sync", "rename")
SCENARIOS = (
    Scenario("14685", ("kv.once", "kv.explained"), _kill_in_defragmentation, cluster=_NO_COMMITS, fits=_after_the_puts,
             unanswered=("Defragment",)),
    Scenario("17780", ("durability.revision",), _kill_at_the_end_of_compaction, cluster=_NO_COMMITS,
             unanswered=("Compact",)),
    Scenario("19179", ("watch.resumable",), _kill_within_compaction, cluster=_NO_COMMITS, unanswered=("Compact",)),
    Scenario("14370", ("durability.acknowledged", "durability.revision"), _hold_the_log,
             cluster=ClusterOptions(strikes=(*_SYNCS, "write")), unanswered=("Put",)),
    Scenario("18810", ("member.lives",), _defragment_on_a_full_disk, cluster=ClusterOptions(strikes=_SYNCS)),
    Scenario("15247", ("lease.early",), _hold_the_leaders_disk, limit_s=60.0,
             cluster=ClusterOptions(nodes=3, strikes=_SYNCS), unanswered=("LeaseKeepAlive", "Put")),
)  # fmt: skip
