"""Reads of all keys that `load_scripts fill` has put, sorted by their values, each time."""

from loadgen.history.operation import Operation
from loadgen.proto.etcd_pb2 import RangeRequest
from loadgen.user import EtcdUser
from tests.diagnose.load_scripts import PREFIX, PREFIX_END


class SortedRangeUser(EtcdUser):
    """Reads of all these keys, sorted."""

    abstract = False
    mix = {"range": 1.0}  # noqa: RUF012

    def range(self, _: bytes, __: bytes) -> Operation:
        """Read them."""
        operation: Operation = self.client.range(
            PREFIX, PREFIX_END, sort_target=RangeRequest.VALUE, sort_order=RangeRequest.DESCEND, process=self.process
        )
        return operation
