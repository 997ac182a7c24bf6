"""PUTs that every user watches: how long an event takes to reach its watchers, and what the fan-out costs the writes.

Each user writes, and watches all keys of the run over a stream of its own, so with U users each PUT is delivered U
times. `watch` in the result is one delivery: from sending the PUT to reading its event, commit included; `put` beside
it is the PUT alone. --operations counts PUTs. Needs --transport grpc and values from 16 bytes up.

Runs under `raftload bench --scenario watch` and under plain Locust:

    locust -f locustfiles/watch.py --host 127.0.0.1:2379 --headless -u 10 -r 10 -t 10s
"""

from functools import partial
from typing import ClassVar

from loadgen.history.operation import Operation
from loadgen.load.watching_user import FollowingUser


class WatchUser(FollowingUser):
    """PUTs that every user watches."""

    abstract = False
    mix: ClassVar = {"put": 1.0}

    def put(self, key: bytes, value: bytes) -> Operation:
        """Write a key, whose event every user waits for."""
        return self.written.write(key, value, partial(super().put, key, value))
