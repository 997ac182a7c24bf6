"""Reads by users whose own work takes a millisecond of a processor each time, as that of a scenario can."""

import time

from loadgen.history.operation import Operation
from loadgen.user import EtcdUser

WORK_S = 0.001


class WorkingUser(EtcdUser):
    """Reads, with work of its own before each."""

    abstract = False
    mix = {"get": 1.0}  # noqa: RUF012

    def get(self, key: bytes, _: bytes | None = None) -> Operation:
        """Work, and read a key."""
        until = time.thread_time() + WORK_S
        while time.thread_time() < until:
            pass
        return super().get(key)
