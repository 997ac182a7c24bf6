"""Grants and revokes of leases by every user in turn, as fast as they are answered."""

from loadgen.history.operation import Operation
from loadgen.user import EtcdUser

TTL_S = 600


class LeaseStormUser(EtcdUser):
    """Grants and revokes."""

    abstract = False
    mix = {"lease_grant": 1.0, "lease_revoke": 1.0}  # noqa: RUF012
    transports = ("grpc",)

    def make_ready(self) -> None:
        """Have no lease yet."""
        self.leases: list[int] = []

    def lease_grant(self, _: bytes, __: bytes) -> Operation:
        """Grant a lease."""
        operation: Operation = self.client.lease_grant(TTL_S, process=self.process)
        if operation.response is not None:
            self.leases.append(operation.response.ID)
        return operation

    def lease_revoke(self, key: bytes, value: bytes) -> Operation:
        """Revoke the oldest lease; without one, grant one."""
        if not self.leases:
            operation = self.lease_grant(key, value)
            operation.f = "lease_revoke"
            return operation
        revoked: Operation = self.client.lease_revoke(self.leases.pop(0), process=self.process)
        return revoked
