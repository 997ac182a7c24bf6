"""Counts of all keys that `load_scripts fill` has put, each time."""

from loadgen.history.operation import Operation
from loadgen.user import EtcdUser
from tests.diagnose.load_scripts import PREFIX, PREFIX_END


class CountUser(EtcdUser):
    """Counts of all these keys."""

    abstract = False
    mix = {"range": 1.0}  # noqa: RUF012

    def range(self, _: bytes, __: bytes) -> Operation:
        """Count them."""
        operation: Operation = self.client.range(PREFIX, PREFIX_END, count_only=True, process=self.process)
        return operation
