"""What hangs in a member whose log nobody reads, as where the collector of a container's output stands still."""

from __future__ import annotations

import time

from cluster.local.strike_rules import hold
from loadgen.bugs.scenario import ClusterOptions, Scenario
from loadgen.bugs.stage import Stage, answer_of
from loadgen.client.actor import Actor
from loadgen.proto import etcd_pb2 as pb

# Each compaction logs two lines, of more than 100 bytes together, into a pipe that takes 4 KiB.
_COMPACTIONS = 50
# etcd logs in its loop of linearizable reads where one takes 0.1 s. Of a sync that takes 1 s it logs elsewhere too.
_SLOW_S, _HANGS_S = 0.7, 5.0


def _leave_the_log_unread(stage: Stage) -> None:
    """Fill the pipe of the log, then have a read take long, since the log of Raft waits for its disk.

    Source: etcd#22214.
    """
    name = stage.names[0]
    actor, other = stage.actor(), stage.actor()
    stage.leave_the_log()
    for _ in range(_COMPACTIONS):
        put = answer_of(actor.put(b"key", b"1"))
        actor.ask(pb.CompactionRequest(revision=put["header"]["revision"]))
    slow = stage.strike(name, hold("fdatasync", ".wal", times=1))
    other.start(pb.PutRequest(key=b"key", value=b"what is held"))
    stage.struck(name, slow)
    hung = actor.start(pb.RangeRequest(key=b"key"), timeout_s=_HANGS_S)
    time.sleep(_SLOW_S)
    stage.cluster.clear_strikes(name, slow)
    _use(other)
    if hung.result().ok:
        hung = actor.start(pb.RangeRequest(key=b"key"), timeout_s=_HANGS_S)
        _use(other)
        hung.result()


def _use(other: Actor) -> None:
    """Ask for all that goes on while a read hangs, in the midst of its time."""
    time.sleep(_HANGS_S / 2)
    other.get(b"key", serializable=True)
    other.put(b"key", b"2")
    other.ask(pb.StatusRequest())


SCENARIOS = (
    Scenario("22214", ("member.reads",), _leave_the_log_unread,
             cluster=ClusterOptions(log_pipe=True, strikes=("sync",)), unanswered=("Put", "Range")),
)  # fmt: skip
