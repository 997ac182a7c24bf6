"""What is let through, and what is not, while the store is full: its alarm NOSPACE is on."""

from __future__ import annotations

from loadgen.bugs.scenario import CannotTryError, ClusterOptions, Scenario
from loadgen.bugs.stage import ROOT, Permission, Stage, answer_of
from loadgen.client.actor import Actor
from loadgen.client.auth import READWRITE
from loadgen.proto import etcd_pb2 as pb

# A member learns how large its store is when it commits, so all that is written before that is let through.
_QUOTA = ClusterOptions(quota="2MiB", args=("--backend-batch-interval=1h",))
_LARGE, _PUTS = b"x" * (64 << 10), 48


def _fill(actor: Actor, root: Actor) -> None:
    """Write more than the quota at once, so that the store is larger than that, and its alarm is on."""
    for put in [actor.start(pb.PutRequest(key=b"a", value=_LARGE)) for _ in range(_PUTS)]:
        answer_of(put.result())
    answer_of(root.snapshot())  # which commits
    refused = actor.put(b"a", _LARGE).error == "NoSpace"
    if not refused or answer_of(root.ask(pb.StatusRequest()))["dbSize"] < (_QUOTA.quota_bytes or 0):
        raise CannotTryError("the store could not be filled up to its quota")


def _delete_and_start_when_full(stage: Stage) -> None:
    """Delete a key that a user may not, while the alarm is on; start a member then, and have it deleted once more.

    #22386: with the alarm etcd puts another chain of appliers together, without the one that looks at rights. A member
    that starts while the alarm is on has the one that does, so it refuses what the others apply, and parts from them.
    """
    root = stage.enable_auth({"alice": (Permission(READWRITE, b"a"),)})
    root.put(b"secret", b"1")
    root.put(b"another", b"1")
    alice = stage.actor(user="alice")
    alice.delete(b"secret")
    member = answer_of(root.ask(pb.MemberListRequest()))["members"][0]["ID"]
    answer_of(root.ask(pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=member, alarm=pb.NOSPACE)))
    root.ask(pb.AlarmRequest(action=pb.AlarmRequest.GET))
    alice.delete(b"secret")
    started = stage.names[-1]
    # It commits what it applied, so that it does not come upon the alarm once more in its log.
    answer_of(stage.actor(started, user=ROOT).snapshot())
    stage.kill(started)
    stage.start(started)
    alice.delete(b"another")


def _read_and_delete_when_full(stage: Stage) -> None:
    """Read and delete in transactions, as kube-apiserver does.

    #13429: where the store is larger than its quota etcd refuses every transaction, whatever is in it.
    """
    actor = stage.actor()
    _fill(actor, actor)
    actor.ask(pb.AlarmRequest(action=pb.AlarmRequest.GET))
    actor.get(b"a")
    actor.ask(pb.TxnRequest(success=[pb.RequestOp(request_range=pb.RangeRequest(key=b"a"))]))
    actor.ask(pb.TxnRequest(success=[pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"a"))]))


def _write_in_a_nested_transaction(stage: Stage) -> None:
    """#22134: etcd counts what the puts of a transaction take, and not what those of one in it do."""
    actor = stage.actor()
    member = answer_of(actor.ask(pb.MemberListRequest()))["members"][0]["ID"]
    answer_of(actor.ask(pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=member, alarm=pb.NOSPACE)))
    actor.ask(pb.AlarmRequest(action=pb.AlarmRequest.GET))
    actor.put(b"key", b"1")
    write = pb.RequestOp(request_put=pb.PutRequest(key=b"key", value=b"2"))
    actor.ask(pb.TxnRequest(success=[write]))
    actor.ask(pb.TxnRequest(success=[pb.RequestOp(request_txn=pb.TxnRequest(success=[write]))]))
    actor.get(b"key")


SCENARIOS = (
    Scenario("13429", ("alarm.nospace",), _read_and_delete_when_full, cluster=_QUOTA),
    Scenario("22134", ("alarm.nospace",), _write_in_a_nested_transaction),
    Scenario("22386", ("auth.denied", "convergence.revision"), _delete_and_start_when_full,
             cluster=ClusterOptions(nodes=3, fast_elections=True)),
)  # fmt: skip
