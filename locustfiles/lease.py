"""Leases: granted, kept alive over a stream of each user's own, and revoked; four keepalives to each grant and revoke.

A keepalive is answered by the leader, which may not have applied a grant that another member has just answered, and
then knows no such lease: with several endpoints a few fail with LeaseNotFound. A keepalive or revoke of a user that
has no lease is preceded by a grant that is not measured. Leases have no keys and live for 60 s; those left at the end
are revoked. Needs --transport grpc.

Runs under `raftload bench --scenario lease` and under plain Locust:

    locust -f locustfiles/lease.py --host 127.0.0.1:2379 --headless -u 10 -r 10 -t 10s
"""

from typing import ClassVar

from loadgen.client.lease import LeaseKeeper
from loadgen.history.operation import Operation
from loadgen.user import EtcdUser

TTL_S = 60


class LeaseUser(EtcdUser):
    """Grants, keepalives and revokes of leases."""

    abstract = False
    mix: ClassVar = {"lease_grant": 1.0, "lease_keepalive": 4.0, "lease_revoke": 1.0}
    transports: ClassVar = ("grpc",)
    holds_start: ClassVar = True
    keeper: LeaseKeeper | None = None

    def make_ready(self) -> None:
        """Open the stream of the keepalives."""
        self.leases: list[int] = []
        self.keeper = self.client.lease_keeper()
        self.keeper.open()

    def on_stop(self) -> None:
        """Revoke what is left, and leave the run."""
        if self.keeper is not None:
            while self.leases:
                self.load.record(self.client.lease_revoke(self.leases.pop(), process=self.process), -1)
            self.keeper.close()
        super().on_stop()

    def lease_grant(self, _: bytes, __: bytes) -> Operation:
        """Grant a lease."""
        operation: Operation = self.client.lease_grant(TTL_S, process=self.process)
        if operation.response is not None:
            self.leases.append(operation.response.ID)
        return operation

    def lease_keepalive(self, key: bytes, value: bytes) -> Operation:
        """Renew the newest lease."""
        assert self.keeper is not None
        self._need_a_lease(key, value)
        # Without one still, etcd says that there is none: a failure, as it should be.
        lease = self.leases[-1] if self.leases else 1
        operation: Operation = self.keeper.renew(lease, process=self.process)
        if operation.error == "LeaseNotFound" and self.leases:
            self.leases.pop()
        return operation

    def lease_revoke(self, key: bytes, value: bytes) -> Operation:
        """Revoke the oldest lease."""
        self._need_a_lease(key, value)
        operation: Operation = self.client.lease_revoke(self.leases.pop(0) if self.leases else 1, process=self.process)
        return operation

    def _need_a_lease(self, key: bytes, value: bytes) -> None:
        if not self.leases:
            self.load.record(self.lease_grant(key, value), -1)
