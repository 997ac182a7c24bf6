"""Transactions of 128 puts each: as many as etcd lets one have."""

from loadgen.client.kv import put_op
from loadgen.history.operation import Operation
from loadgen.user import EtcdUser

PUTS = 128


class LargeTransactionUser(EtcdUser):
    """Transactions of that many puts."""

    abstract = False
    mix = {"batch": 1.0}  # noqa: RUF012

    def batch(self, key: bytes, value: bytes) -> Operation:
        """Put as many keys in one transaction."""
        puts = [put_op(b"%s/%d" % (key, number), value) for number in range(PUTS)]
        operation: Operation = self.client.txn([], puts, process=self.process)
        operation.f, operation.key = "batch", key
        return operation
