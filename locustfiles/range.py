"""Pages of keys: linearizable or serializable ranges of 100 keys, each sequence of pages as of one revision.

A user begins at a random key of the run, and reads page after page up to the last one, all at the revision of the
first, as etcd's clients list large prefixes. --key-space says how many keys there are.

Runs under `raftload bench --scenario range` and under plain Locust:

    locust -f locustfiles/range.py --host 127.0.0.1:2379 --headless -u 10 -r 10 -t 10s
"""

from typing import ClassVar

from loadgen.client.kv import bytes_prefix_end
from loadgen.history.operation import Operation
from loadgen.user import EtcdUser

PAGE = 100


class RangeUser(EtcdUser):
    """Pages of the run's keys."""

    abstract = False
    mix: ClassVar = {"range": 1.0}
    next_page: tuple[bytes, int] | None = None

    def range(self, key: bytes, _: bytes) -> Operation:
        """Read the next page; after the last one the first, from ``key`` on."""
        start, revision = self.next_page or (key, 0)
        operation: Operation = self.client.range(
            start,
            bytes_prefix_end(self.load.settings.prefix),
            limit=PAGE,
            revision=revision,
            serializable=self.serializable,
            process=self.process,
        )
        answer = operation.response
        # One that failed, as where its revision was compacted, is not gone on with.
        more = answer is not None and answer.more
        self.next_page = (answer.kvs[-1].key + b"\0", revision or operation.revision) if more else None
        return operation
