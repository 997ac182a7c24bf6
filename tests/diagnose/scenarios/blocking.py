"""Reads by users that now and then do what no other user can go on beside, as a lookup or a write to a slow disk is."""

import random

from gevent.monkey import get_original

from loadgen.history.operation import Operation
from loadgen.user import EtcdUser

SHARE, BLOCKS_S = 0.05, 0.05
_sleep = get_original("time", "sleep")


class BlockingUser(EtcdUser):
    """Reads, and before some of them a call that blocks."""

    abstract = False
    mix = {"get": 1.0}  # noqa: RUF012

    def get(self, key: bytes, _: bytes | None = None) -> Operation:
        """Block sometimes, and read a key."""
        if random.random() < SHARE:
            _sleep(BLOCKS_S)
        return super().get(key)
