"""A leader that is lost and comes back."""

from __future__ import annotations

import re

from cluster.base.topology import Member
from cluster.local.cluster import LocalCluster
from tests.support.waiting import HANG_S, until
from viz.diagrams.elections import Election, History


def replace_leader(cluster: LocalCluster) -> Member:
    """Kills the leader, waits until another member leads, and starts it again.

    Returns the member that was killed, once all are healthy.
    """
    killed = cluster.leader(HANG_S)
    assert killed is not None
    cluster.kill(killed.name)
    until(lambda: cluster.leader(HANG_S) not in (None, killed), "another leader")
    cluster.start(killed.name)
    cluster.wait_healthy(60)
    return killed


def miss_heartbeats(cluster: LocalCluster) -> None:
    """Stops all members but a follower until it campaigns, which is in vain as a rule: the leader goes on.

    That is what a busy machine does. Returns once all are healthy.
    """
    leader = cluster.leader(HANG_S)
    assert leader is not None
    alone, *others = sorted((member.name for member in cluster.members), key=lambda name: name == leader.name)

    def campaigns() -> int:
        return len(re.findall("became (?:pre-)?candidate at term", cluster.log(alone).read_text()))

    before = campaigns()
    for name in others:
        cluster.pause(name)
    until(lambda: campaigns() > before, "a campaign")
    for name in others:
        cluster.resume(name)
    cluster.wait_healthy(60)


def last_won(history: History) -> Election:
    """Return the last election that had a winner.

    A member that missed heartbeats while the leader lives campaigns in vain: that changes no leader.
    """
    return [each for each in history.elections if each.winner][-1]
