"""A leader that is lost and comes back."""

from __future__ import annotations

from cluster.base.topology import Member
from cluster.local.cluster import LocalCluster
from tests.support.waiting import until


def replace_leader(cluster: LocalCluster) -> Member:
    """Kills the leader, waits until another member leads, and starts it again.

    Returns the member that was killed, once all are healthy.
    """
    killed = cluster.leader()
    assert killed is not None
    cluster.kill(killed.name)
    until(lambda: cluster.leader() not in (None, killed), "another leader")
    cluster.start(killed.name)
    cluster.wait_healthy(60)
    return killed
