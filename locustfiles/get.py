"""GETs only, linearizable or serializable (--read-consistency).

Runs under `raftload bench --scenario get` and under plain Locust:

    locust -f locustfiles/get.py --host 127.0.0.1:2379 --headless -u 10 -r 10 -t 10s
"""

from typing import ClassVar

from loadgen.user import EtcdUser


class GetUser(EtcdUser):
    """GETs only, linearizable or serializable (--read-consistency)."""

    abstract = False
    mix: ClassVar = {"get": 1.0}
