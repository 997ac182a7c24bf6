"""PUT, GET and compare-and-swap transactions in the proportions of --mix.

Runs under `raftload bench --scenario kv` and under plain Locust:

    locust -f locustfiles/kv.py --host 127.0.0.1:2379 --headless -u 10 -r 10 -t 10s
"""

from loadgen.user import EtcdUser


class KeyValueUser(EtcdUser):
    """PUT, GET and compare-and-swap transactions in the proportions of --mix."""

    abstract = False
