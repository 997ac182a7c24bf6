"""The tidying after a check: compaction and defragmentation, as etcdctl's --auto-compact and --auto-defrag do them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cluster.base.errors import ClusterError
from cluster.base.security import Security
from loadgen.history.operation import Operation, Outcome

# As etcdctl has it.
_TIMEOUT_S = 30.0


def tidy(
    endpoints: Sequence[str], security: Security, prefix: str, tell: Callable[[str], object], *, compact: bool,
    defragment: bool,
) -> None:  # fmt: skip
    """Compact the store up to its present revision, and defragment each member, as far as that is asked for.

    Takes the endpoints, how to reach them, the prefix of the check's keys, which its user may read, and what to call
    with each line that etcdctl prints meanwhile. Raises ClusterError. For a process that was patched for gevent.
    """
    from loadgen.client.etcd import EtcdClient

    client = EtcdClient(tuple(endpoints), timeout_s=_TIMEOUT_S, security=security)
    try:
        if compact:
            revision = _done(client.get(prefix.encode("ascii")), "read the revision").revision
            tell(f"Compacting with revision {revision}")
            _done(client.compact(revision, physical=True), f"compact with revision {revision}")
            tell(f"Compacted with revision {revision}")
        for endpoint in endpoints if defragment else ():
            tell(f'Defragmenting "{endpoint}"')
            _done(client.defragment(endpoint), f"defragment {endpoint}")
            tell(f'Defragmented "{endpoint}"')
    finally:
        client.close()


def _done(operation: Operation, what: str) -> Operation:
    if operation.outcome is not Outcome.OK:
        raise ClusterError(f"cannot {what}: {operation.error}: {operation.detail}")
    return operation
