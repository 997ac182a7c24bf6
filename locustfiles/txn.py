"""Compare-and-swap transactions only: write if unchanged, else read.

Runs under `raftload bench --scenario txn` and under plain Locust:

    locust -f locustfiles/txn.py --host 127.0.0.1:2379 --headless -u 10 -r 10 -t 10s
"""

from typing import ClassVar

from loadgen.user import EtcdUser


class TxnUser(EtcdUser):
    """Compare-and-swap transactions only: write if unchanged, else read."""

    abstract = False
    mix: ClassVar = {"txn": 1.0}
