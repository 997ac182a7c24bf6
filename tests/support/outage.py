"""A leader that is lost and comes back."""

from __future__ import annotations

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


def last_won(history: History) -> Election:
    """Return the last election that had a winner.

    A member that missed heartbeats while the leader lives campaigns in vain: that changes no leader.
    """
    return [each for each in history.elections if each.winner][-1]
