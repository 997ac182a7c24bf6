"""Reads of all keys that `load_scripts fill` has put, 20,000 of them, each time."""

from loadgen.history.operation import Operation
from loadgen.user import EtcdUser
from tests.diagnose.load_scripts import PREFIX, PREFIX_END


class HugeRangeUser(EtcdUser):
    """Reads of all these keys."""

    abstract = False
    mix = {"range": 1.0}  # noqa: RUF012

    def range(self, _: bytes, __: bytes) -> Operation:
        """Read them."""
        operation: Operation = self.client.range(PREFIX, PREFIX_END, process=self.process)
        return operation
