"""What a bug's scenario is: what it needs, which guarantee the bug breaks, and what drives it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from cluster.base.known_bugs import Bug, bug_of
from cluster.base.units import parse_size
from loadgen.check.signatures import Looks, looks

if TYPE_CHECKING:
    from loadgen.bugs.stage import Stage
    from loadgen.check.rules import Finding


class CannotTryError(Exception):
    """A scenario cannot be tried here or on this etcd; the text says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterOptions:
    """The throwaway cluster that a scenario wants; see ``LocalCluster``.

    Attributes:
        nodes: how many members.
        args: further flags of etcd, as ``--max-txn-ops=512``.
        fast_elections: heartbeats of 20 ms and elections after 200 ms, in place of etcd's 100 and 1000.
        quota: of the store, as a size such as ``2MiB``; empty: etcd's own.
        snapshot_count: applied entries between two snapshots; None: etcd's own.
        relay: whether members reach each other through relays, which a scenario can cut.
        storage: where the data is; in ``memory`` nothing waits for a disk.
        log_pipe: whether the member, which has to be one alone, writes its log into a pipe; see
            ``Stage.leave_the_log``.
        strikes: system calls of the members that rules of ``LocalCluster.strike`` can be about; none: they run as ever.
    """

    nodes: int = 1
    args: tuple[str, ...] = ()
    fast_elections: bool = False
    quota: str = ""
    snapshot_count: int | None = None
    relay: bool = False
    storage: Literal["disk", "memory"] = "disk"
    strikes: tuple[str, ...] = ()
    log_pipe: bool = False

    @property
    def quota_bytes(self) -> int | None:
        """The quota in bytes; None for etcd's own."""
        return parse_size(self.quota) if self.quota else None


@dataclasses.dataclass(frozen=True, slots=True)
class Scenario:
    """What shows one bug.

    Attributes:
        issue: of the bug, as in ``cluster.base.known_bugs``, whose summary and versions it has.
        breaks: the guarantees of ``check`` that the bug breaks; the bug is there where one of them is broken in the way
            that ``fits`` says, and not there where all that could be judged were kept.
        run: drives the actors; it judges nothing itself. Raises CannotTryError where it cannot.
        certain: whether it shows the bug each time on an etcd that has it. One that needs luck is tried again, each
            time on a new cluster, until ``limit_s`` is over.
        limit_s: how long it may take at most; of one that needs luck, how long it is tried.
        cluster: what to run it on; None: ``run`` makes the cluster itself, and leaves a run folder with a history and
            the members' logs in ``stage.folder``.
        fits: the signature of the bug: whether a violation of one of ``breaks`` is this bug's. None where it is that of
            ``loadgen.check.signatures``, by which a campaign knows it, too; any where that has none.
        unanswered: the methods, such as ``Put``, that may get no answer, as the scenario kills or holds who is asked.
            Where another call gets none and nothing broke, nothing was tried.
    """

    issue: str
    breaks: tuple[str, ...]
    run: Callable[[Stage], None]
    certain: bool = True
    limit_s: float = 30.0
    cluster: ClusterOptions | None = dataclasses.field(default_factory=ClusterOptions)
    fits: Looks | None = None
    unanswered: tuple[str, ...] = ()

    def is_shown_by(self, finding: Finding) -> bool:
        """Return whether a violation of one of ``breaks`` is this bug's."""
        fits = self.fits or looks(self.issue)
        return fits is None or fits(finding)

    @property
    def bug(self) -> Bug:
        """The bug that it shows."""
        return bug_of(self.issue)
