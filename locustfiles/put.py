"""PUTs only: every operation goes through Raft and the disk.

Runs under `raftload bench --scenario put` and under plain Locust:

    locust -f locustfiles/put.py --host 127.0.0.1:2379 --headless -u 10 -r 10 -t 10s
"""

from typing import ClassVar

from loadgen.user import EtcdUser


class PutUser(EtcdUser):
    """PUTs only: every operation goes through Raft and the disk."""

    abstract = False
    mix: ClassVar = {"put": 1.0}
