"""Requests of every kind that etcd's guarantees are about, at every member: the traffic of `raftload chaos`.

It is what `raftload chaos` runs, which records and checks it. Under plain Locust it is load alone:

    locust -f locustfiles/consistency.py --host 127.0.0.1:2379 --headless -u 10 -r 10 -t 10s
"""

import locust

from loadgen.chaos.chaos_worker import ConsistencyUser, on_init
from loadgen.load import listening

listening.listen(locust.events.init, on_init)


class EverythingUser(ConsistencyUser):
    """Reads of all kinds, transactions, leases and watches, at every member."""

    abstract = False
