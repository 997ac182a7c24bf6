"""The master's own recorded requests in a chaos run.

They are the first writes, compactions, comparisons of members under way, and the last reads of each member.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import gevent
from gevent.lock import Semaphore

from cluster.base.security import Security
from loadgen.chaos.traffic import Shape
from loadgen.client.kv import put_op
from loadgen.history.operation import Outcome
from loadgen.history.writer import HistoryWriter
from loadgen.proto import etcd_pb2 as pb
from loadgen.run.master_history import MasterHistory

_POLL_S = 0.05
_BATCH = 100
_TRIES = 5


class MasterClient(MasterHistory):
    """Takes the members' endpoints, the traffic's shape, where to record, and whether the whole store is the run's (or
    only what is under its prefix: then nothing is compacted), and how to reach the members. Close it, which closes
    the history.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        shape: Shape,
        history: HistoryWriter,
        *,
        whole: bool,
        security: Security | None = None,
    ) -> None:
        super().__init__(endpoints, shape.prefix, history, security=security)
        self._shape, self._whole = shape, whole
        self._rng = random.Random(f"master/{shape.seed}")
        self._client = self._client_of(*endpoints)
        self._compacting = Semaphore()
        self._revision_before = 0

    def close(self) -> None:
        """Close the connections and the history."""
        self._client.close()
        super().close()

    def fill(self, revision: int, names: Mapping[str, str], *, exclusive: bool) -> None:
        """Note what the cluster is before the load and write every key of the run once.

        Takes the store's revision before it, the members' names by endpoint, and whether nobody else writes.
        """
        shape, self._revision_before = self._shape, revision
        self.begin(revision, names, exclusive=exclusive, watched=True)
        filler = b"." * max(0, shape.value_size - 16)
        for first in range(0, shape.keys, _BATCH):
            numbers = range(first, min(first + _BATCH, shape.keys))
            puts = [put_op(shape.key(n), b"%08x%08x%b" % (0, n, filler)) for n in numbers]
            self._client.send("txn", pb.TxnRequest(success=puts), key=shape.key(first))
        self._client.put(shape.fence, b"0")

    def compact(self) -> None:
        """Compact at a revision a little below the newest; the fence goes first, see ``traffic``.

        Never below what the store had before the run: others may have compacted there, and the fence has to stand above
        every revision that is compacted.
        """
        if not self._whole:
            return
        with self._compacting:
            seen = self._client.get(self._shape.fence)
            if seen.outcome is not Outcome.OK or not seen.response.kvs:
                return
            old = int(seen.response.kvs[0].value)
            revision = max(seen.revision - self._rng.randint(0, 300), self._revision_before)
            if revision <= old:
                return
            fenced = self._client.put(self._shape.fence, b"%d" % revision)
            if fenced.outcome is Outcome.OK:
                self._client.compact(revision, physical=self._rng.random() < 0.5)

    def compare_hashes(self) -> str:
        """Compare the members at one revision while the load goes on. Returns how they differ, empty where not."""
        for _ in range(_TRIES):
            statuses = self._statuses()
            if len(statuses) < len(self._endpoints):
                return ""
            revision = min(status.revision for status in statuses.values())
            answers = {url: client.hash_kv(revision=revision) for url, client in self._each.items()}
            if any(answer.outcome is not Outcome.OK for answer in answers.values()):
                continue
            hashes = {url: (a.response.compact_revision, a.response.hash) for url, a in answers.items()}
            if len({compacted for compacted, _ in hashes.values()}) > 1:
                gevent.sleep(_POLL_S)  # a compaction came between
                continue
            if len(set(hashes.values())) > 1:
                each = ", ".join(f"{self._names.get(url, url)} {value:08x}" for url, (_, value) in hashes.items())
                return f"the members' hashes at revision {revision} differ: {each}"
            return ""
        return ""

    def mark_fault(self, phase: str, fault: str, members: Sequence[str], **details: int) -> None:
        """Note in the history that a fault began, showed its effect or was healed.

        Takes ``began_ns`` with the effect, where it is known when the first action began.
        """
        self._history.marker("fault", phase=phase, fault=fault, members=list(members), **details)

    def mark_restart(self, member: str, **details: int) -> None:
        """Note in the history that a member's process was started again.

        Takes ``ended_ns``, where it had ended by itself: when that was.
        """
        self._history.marker("restart", member=member, **details)
