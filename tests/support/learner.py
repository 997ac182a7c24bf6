"""A learner beside a cluster: a member without a vote, with a process of its own."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from cluster.base.ports import free_ports
from cluster.base.topology import ClusterSpec, Member, member_env
from cluster.local.cluster import LocalCluster
from cluster.local.supervisor import Supervisor
from loadgen.client.etcd import EtcdClient
from loadgen.history.operation import Operation, Outcome


def added(client: EtcdClient, peer_url: str) -> Operation:
    """Add a learner that is to be started; return the call that did it, whose member is the response's."""
    done = client.member_add([peer_url], learner=True)
    assert done.outcome is Outcome.OK, done
    return done


@contextlib.contextmanager
def learner_of(cluster: LocalCluster, client: EtcdClient, *args: str) -> Iterator[Member]:
    """Yield a learner of a cluster of one, started with the arguments that its member has, too; remove it at the end.

    Takes a client that may change the members. The learner may not have caught up yet.
    """
    port, peer_port = free_ports(2)
    peer_url = f"http://127.0.0.1:{peer_port}"
    member_id = added(client, peer_url).response.member.ID
    supervisor = Supervisor(temporary=True)
    folder = supervisor.folder
    assert folder is not None
    member = Member("learner", f"http://127.0.0.1:{port}", peer_url, str(folder / "learner"))
    try:
        argv = ClusterSpec((*cluster.members, member)).argv(member.name, cluster.binary.path)
        Path(member.data_dir).mkdir(mode=0o700)
        supervisor.spawn(
            member.name, [*argv, "--initial-cluster-state=existing", *args], log=folder / "learner.log",
            env=member_env(os.environ, platform.machine()), cwd=folder,
        )  # fmt: skip
        yield member
    finally:
        supervisor.close(0.0)
        assert client.member_remove(member_id).outcome is Outcome.OK
