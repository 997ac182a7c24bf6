"""The master's part of a run's history: what the cluster was before the load, and what each member holds after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import gevent

from cluster.base.errors import ClusterError
from cluster.base.security import Security
from loadgen.client.etcd import EtcdClient
from loadgen.client.kv import bytes_prefix_end
from loadgen.client.watcher import renumbers_watches
from loadgen.history.format import FOLDER, SUFFIX
from loadgen.history.operation import Operation, Outcome
from loadgen.history.writer import HistoryWriter

_TIMEOUT_S = 5.0
_AGREE_S = 20.0
_POLL_S = 0.05
NAME = f"master{SUFFIX}"


class MasterHistory:
    """Takes the members' endpoints, the prefix of the run's keys, where to record, and how to reach the members.

    Close it, which closes the history.
    """

    def __init__(
        self, endpoints: Sequence[str], prefix: bytes, history: HistoryWriter, *, security: Security | None = None
    ) -> None:
        self._endpoints, self._prefix, self._history = tuple(endpoints), prefix, history
        self._security = security
        self._each = {url: self._client_of(url) for url in endpoints}
        self._names: Mapping[str, str] = {}

    def _client_of(self, *urls: str) -> EtcdClient:
        return EtcdClient(urls, timeout_s=_TIMEOUT_S, history=self._history, security=self._security)

    def close(self) -> None:
        """Close the connections and the history."""
        self.close_clients()
        self._history.close()

    def close_clients(self) -> None:
        """Close the connections alone: somebody else goes on with the history."""
        for client in self._each.values():
            client.close()

    def flush(self) -> None:
        """Hand what was recorded so far to the operating system."""
        self._history.flush()

    def begin(self, revision: int, names: Mapping[str, str], *, exclusive: bool, watched: bool) -> None:
        """Note what the cluster is before the load.

        Takes the store's revision before it, the members' names by endpoint, whether nobody else writes, and whether
        the run is to watch its keys. Raises ClusterError where nobody answers in time, or, of a cluster that is the
        run's own, not everybody.
        """
        self._names = names
        statuses = self._await_statuses(len(self._endpoints) if exclusive else 1)
        members = [
            {"id": f"{status.response.header.member_id:x}", "name": names.get(url, url), "endpoint": url,
             "version": status.response.version,
             "proxy": renumbers_watches(url, self._prefix, _TIMEOUT_S, self._security)}
            for url, status in statuses.items()
        ]  # fmt: skip
        self._history.marker(
            "cluster", prefix=self._prefix.decode("ascii"), revision=revision, exclusive=exclusive, watched=watched,
            members=members,
        )  # fmt: skip

    def agree(self, wait_s: float = _AGREE_S) -> int:
        """Wait until all members have applied the same, as long as they may take. Returns the revision all have.

        Where they do not, that of those that answer. Raises ClusterError where none does.
        """
        deadline = time.monotonic() + wait_s
        before: dict[str, tuple[int, int]] = {}
        while True:
            now = {url: (each.response.raftAppliedIndex, each.revision) for url, each in self._statuses().items()}
            applied = {index for index, _ in now.values()}
            # Members that parted never agree on a revision again; that they have applied the same is enough.
            if (len(now) == len(self._endpoints) and len(applied) == 1 and now == before) or (
                time.monotonic() > deadline
            ):
                if not now:
                    raise ClusterError(f"no member answered in {wait_s:g} s")
                return min(revision for _, revision in now.values())
            before = now
            gevent.sleep(_POLL_S)

    def read_members(self, revision: int) -> None:
        """Read what each member holds at a revision, and what it says of itself, as the last word of the history."""
        self._history.marker("final", phase="begin")
        self._history.set_final()
        for client in self._each.values():
            client.status()
            client.hash_kv(revision=revision)
            first = self._prefix or b"\0"  # of all keys
            client.range(first, bytes_prefix_end(self._prefix), serializable=True, revision=revision)
        self._history.set_final(False)
        self._history.marker("final", phase="end")

    def _await_statuses(self, wanted: int) -> dict[str, Operation]:
        """Return what members say of themselves, once so many do. Raises ClusterError where they do not in time."""
        deadline = time.monotonic() + _AGREE_S
        while len(found := self._statuses()) < wanted:
            if time.monotonic() > deadline:
                silent = ", ".join(self._names.get(url, url) for url in self._endpoints if url not in found)
                raise ClusterError(
                    f"{silent} did not answer in {_AGREE_S:g} s, before the load: its log says what it waits for"
                )
            gevent.sleep(_POLL_S)
        return found

    def _statuses(self) -> dict[str, Operation]:
        asked = {url: gevent.spawn(client.status) for url, client in self._each.items()}
        gevent.joinall(asked.values())
        return {url: each.value for url, each in asked.items() if each.value and each.value.outcome is Outcome.OK}


def make_writer(run: Path, prefix: bytes, failed: Callable[[str], object]) -> HistoryWriter:
    """Return the writer of the master's file in a run's folder, which flushes by itself.

    Takes the prefix of the run's keys, and what to call with the reason when the file cannot be written any more.
    Raises OSError.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    history = HistoryWriter(folder / NAME, failed=failed, worker=0, prefix=prefix.decode("ascii"))
    history.flush_every()
    return history
