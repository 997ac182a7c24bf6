"""Changes of the members, and of their roles."""

from __future__ import annotations

import time

from loadgen.bugs.scenario import ClusterOptions, Scenario
from loadgen.bugs.stage import Stage, answer_of
from loadgen.client.actor import Actor
from loadgen.proto import etcd_pb2 as pb

# Nobody listens there: the member that is added never starts.
_HERE, _THERE = "http://127.0.0.1:9", "http://127.0.0.1:10"
_PROMOTE_S, _PUT_S = 12.0, 0.5
# With the check members that have not known each other for 5 s refuse another one.
_WITHOUT_CHECK = "--strict-reconfig-check=false"


def _add_learner(actor: Actor) -> int:
    added = answer_of(actor.ask(pb.MemberAddRequest(peerURLs=[_HERE], isLearner=True)))
    return int(added["member"]["ID"])


def _move_a_learner(stage: Stage) -> None:
    """#21694: the new URLs come with a role, which nobody set and which is a voter's."""
    actor = stage.actor()
    learner = _add_learner(actor)
    actor.put(b"key", b"1")  # Raft drops a change until it has been told that the last one is applied
    answer_of(actor.ask(pb.MemberUpdateRequest(ID=learner, peerURLs=[_THERE])))
    actor.ask(pb.MemberListRequest(linearizable=True))


def _promote_at_a_follower(stage: Stage) -> None:
    """Promote a learner that is not ready, at the leader and at a follower, with authentication on.

    #20757: a follower hands the promotion to the leader without the token, and asks again until the time is up.
    """
    root = stage.enable_auth()
    leader, follower = (stage.actor(name, user=root.user) for name in (stage.leader(), stage.follower()))
    learner = _add_learner(root)
    leader.ask(pb.MemberPromoteRequest(ID=learner))
    follower.put(b"key", b"1")
    asked = follower.start(pb.MemberPromoteRequest(ID=learner), timeout_s=_PROMOTE_S)
    until = time.monotonic() + _PROMOTE_S
    while not asked.done() and time.monotonic() < until:
        follower.put(b"key", b"1")
        time.sleep(_PUT_S)
    asked.result()


SCENARIOS = (
    Scenario("20757", ("member.forwards",), _promote_at_a_follower,
             cluster=ClusterOptions(nodes=3, fast_elections=True, args=(_WITHOUT_CHECK,)),
             unanswered=("MemberPromote",)),
    Scenario("21694", ("member.role",), _move_a_learner),
)  # fmt: skip
