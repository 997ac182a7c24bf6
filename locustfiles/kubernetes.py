"""The requests of kube-apiserver: guarded writes, paged lists, watches from a revision, and leases.

Each user is an informer and a controller. It lists the run's keys in pages at one revision (not measured), watches from
the next one on, and so knows every object's revision. `create` is a transaction that puts a key if it does not exist,
`update` and `delete` are ones that hold if the key is still as the informer knows it, and that read it otherwise; one
create in four hangs on a lease, as events do. `list` reads a page of 500 keys, `get` one key, `lease_grant` makes the
next lease. `watch` is a delivery to an informer: from sending the create or update to reading its event, commit
included. --operations counts all but the deliveries. Needs --transport grpc and values from 16 bytes up.

Runs under `raftload bench --scenario kubernetes` and under plain Locust:

    locust -f locustfiles/kubernetes.py --host 127.0.0.1:2379 --headless -u 10 -r 10 -t 10s
"""

import random
from functools import partial
from typing import ClassVar

from loadgen.client.kv import bytes_prefix_end, delete_op, get_op, mod_revision_is, put_op
from loadgen.client.watch import Watch
from loadgen.history.operation import Operation, Outcome
from loadgen.load.watching_user import FollowingUser
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto.kv_pb2 import Event

PAGE = 500
LEASE_TTL_S = 3600
TRIES = 8


class KubernetesUser(FollowingUser):
    """What kube-apiserver does to etcd."""

    abstract = False
    mix: ClassVar = {"create": 2.0, "update": 10.0, "delete": 2.0, "get": 4.0, "list": 1.0, "lease_grant": 0.2}
    page: tuple[bytes, int] | None = None
    creates = 0

    def on_start(self) -> None:
        """Join the run: list, then watch."""
        self.leases: list[int] = []
        super().on_start()
        self.rng = random.Random(f"kubernetes/{self.load.settings.seed}/{self.process}")

    def on_stop(self) -> None:
        """Revoke the leases, and leave the run."""
        while self.leases:
            self.load.record(self.client.lease_revoke(self.leases.pop(), process=self.process), -1)
        super().on_stop()

    # What the informer knows is the worker's: a key's mod revision, or, negative, the revision that deleted it.

    def begin_watch(self) -> Watch:
        """List everything in pages, then watch from the next revision on."""
        assert self.watcher is not None
        start, end, revision = self.load.settings.prefix, bytes_prefix_end(self.load.settings.prefix), 0
        while True:
            page = self.client.range(start, end, limit=PAGE, revision=revision)
            if page.outcome is not Outcome.OK:
                break
            revision = revision or page.revision
            for kv in page.response.kvs:
                self._learn(kv.key, kv.mod_revision)
            if not page.response.more:
                break
            start = page.response.kvs[-1].key + b"\0"
        prefix = self.load.settings.prefix
        return self.watcher.watch(prefix, end, start_revision=revision + 1, prev_kv=True, progress_notify=True)

    def saw(self, event: Event) -> None:
        """Learn from an event."""
        revision = event.kv.mod_revision
        self._learn(event.kv.key, -revision if event.type == Event.DELETE else revision)

    def _learn(self, key: bytes, revision: int) -> None:
        revisions = self.load.revisions
        if abs(revision) > abs(revisions.get(key, 0)):
            revisions[key] = revision

    def _choose(self, key: bytes, *, there: bool) -> bytes:
        """Return a key that is there, or not, as far as is known; ``key`` itself where chance finds no other."""
        revisions, keys = self.load.revisions, self.load.keys
        chosen = key
        for _ in range(TRIES):
            if (revisions.get(chosen, 0) > 0) is there:
                return chosen
            chosen = keys[self.rng.randrange(len(keys))]
        return key

    # What it does

    def create(self, key: bytes, value: bytes) -> Operation:
        """Put a key if it does not exist."""
        key = self._choose(key, there=False)
        self.creates += 1
        lease = self.leases[-1] if self.leases and self.creates % 4 == 0 else 0
        put = put_op(key, value, lease=lease)
        return self.written.write(key, value, partial(self._guarded, "create", key, 0, put))

    def update(self, key: bytes, value: bytes) -> Operation:
        """Put a key if nobody has since the informer saw it."""
        key = self._choose(key, there=True)
        known = max(0, self.load.revisions.get(key, 0))
        return self.written.write(key, value, partial(self._guarded, "update", key, known, put_op(key, value)))

    def delete(self, key: bytes, _: bytes) -> Operation:
        """Delete a key if nobody has changed it since the informer saw it."""
        key = self._choose(key, there=True)
        return self._guarded("delete", key, max(0, self.load.revisions.get(key, 0)), delete_op(key))

    def _guarded(self, f: str, key: bytes, revision: int, write: pb.RequestOp) -> Operation:
        operation: Operation = self.client.txn(
            [mod_revision_is(key, revision)], [write], [get_op(key)], process=self.process
        )
        operation.f, operation.key = f, key
        if operation.outcome is Outcome.OK:
            if operation.response.succeeded:
                self._learn(key, -operation.revision if f == "delete" else operation.revision)
            else:
                found = operation.response.responses[0].response_range.kvs
                self._learn(key, found[0].mod_revision if found else -operation.revision)
        return operation

    def list(self, key: bytes, _: bytes) -> Operation:
        """Read the next page; after the last one the first, from ``key`` on."""
        start, revision = self.page or (key, 0)
        end = bytes_prefix_end(self.load.settings.prefix)
        operation: Operation = self.client.range(start, end, limit=PAGE, revision=revision, process=self.process)
        operation.f = "list"
        answer = operation.response
        more = answer is not None and answer.more
        self.page = (answer.kvs[-1].key + b"\0", revision or operation.revision) if more else None
        return operation

    def lease_grant(self, _: bytes, __: bytes) -> Operation:
        """Make the lease that the next events hang on."""
        operation: Operation = self.client.lease_grant(LEASE_TTL_S, process=self.process)
        if operation.response is not None:
            self.leases.append(operation.response.ID)
        return operation
