"""The guard of somebody's cluster: what a heavy load needs to be permitted, and an end before the quota.

A load that goes to a cluster's limits slows its other clients down, and one that fills its database stops their writes:
at its quota etcd raises the alarm NOSPACE, which an operator has to disarm. On a cluster of our own neither harms
anybody, so there nothing is asked; the quota is watched all the same.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.base.endpoint import Endpoint
from cluster.base.errors import NoAnswer
from cluster.base.security import Security
from cluster.base.topology import Member
from cluster.base.units import megabytes
from loadgen.load import pacing
from loadgen.load.settings import SettingsError, read
from loadgen.run.target import TargetOptions

if TYPE_CHECKING:
    import gevent

    from loadgen.run.run import Run

QUOTA_SHARE = 0.8
"""The share of a member's quota at which a load ends."""
DEFAULT_QUOTA = 2 << 30
"""etcd's default of --quota-backend-bytes."""
# Seconds between two looks at the members, and that each may take to answer.
LOOK_S = 1.0
ANSWER_S = 1.0
_QUOTA_METRIC = "etcd_server_quota_backend_bytes"


def add_arguments(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Add the options of a command that can harm somebody's cluster."""
    group.add_argument(
        "--destructive",
        action="store_true",
        help="permit what slows a cluster's other clients down or fills its database, on a cluster that was named by "
        "--endpoints or $ETCDCTL_ENDPOINTS",
    )
    group.add_argument(
        "--max-rate", metavar="R", help="operations per second that are never to be exceeded (default: no bound)"
    )


@dataclasses.dataclass(frozen=True)
class Guard:
    """What the person at the terminal permits.

    Attributes:
        destructive: whether to load somebody's cluster to its limits.
        max_rate: operations per second that are never to be exceeded; None for no bound.
    """

    destructive: bool = False
    max_rate: float | None = None

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> Guard:
        """Read the options that `add_arguments` adds. Raises SettingsError."""
        text = args.max_rate
        return cls(args.destructive, None if text is None else read("max-rate", text, pacing.parse_rate, 1e-3, 1e7))

    def permit(self, cluster: TargetOptions, what: str, writes: int | None) -> str:
        """Return what to say before a load begins: how much it will write, and where.

        Takes the cluster; what loads it, as the user gave it, such as ``perf --load l``; and the bytes of the keys and
        values that it will write at most, None where that is not known beforehand. Raises SettingsError for a cluster
        whose endpoints were named, without --destructive.
        """
        much = "as much as the cluster takes" if writes is None else f"up to {megabytes(writes)}"
        where = ", ".join(cluster.endpoints) or "a cluster that is started for it"
        will = f"{what} writes {much} to {where}, and ends at {QUOTA_SHARE:.0%} of the database's quota"
        if is_somebodys(cluster) and not self.destructive:
            raise SettingsError(
                f"{will}; it slows the cluster's other clients down: give --destructive if it may",
                option="--destructive", others=["--endpoints"],
            )  # fmt: skip
        return will

    def check_rate(self, rate: float, what: str) -> None:
        """Raise SettingsError for a load of more operations per second than are permitted. Takes what loads, too."""
        if self.max_rate is not None and rate > self.max_rate:
            raise SettingsError(
                f"{what} is a load of {rate:,g} operations per second, and --max-rate permits {self.max_rate:,g}",
                option="--max-rate",
            )


def is_somebodys(cluster: TargetOptions) -> bool:
    """Return whether a cluster was named by its endpoints, so that other clients may depend on it."""
    return cluster.kind == "external"


@dataclasses.dataclass(frozen=True)
class Fill:
    """How full a member's database is.

    Attributes:
        member: its ``host:port``.
        size: bytes of its file.
        quota: bytes at which it raises NOSPACE; None where it has no quota.
    """

    member: str
    size: int
    quota: int | None

    @property
    def share(self) -> float:
        """How much of the quota is used; 0 where there is none."""
        return self.size / self.quota if self.quota else 0.0


def fill_of(member: Member, security: Security | None = None) -> Fill:
    """Ask a member how full its database is. Raises NoAnswer.

    etcd tells its quota since 3.6; of older ones it is in the metrics. Where they cannot be had it is etcd's default.
    """
    from cluster.observe.probe import member_status

    status = member_status(member, ANSWER_S, security)
    return Fill(member.endpoint, status.db_size, _bounded(status.db_quota or _quota_by_metrics(member, security)))


def _quota_by_metrics(member: Member, security: Security | None) -> float:
    from cluster.observe import calls

    try:
        _, body = calls.http(member.client_url, "GET", "/metrics", timeout_s=ANSWER_S, security=security)
        lines = body.decode("utf-8", "replace").splitlines()
        # 0 where it has not been set yet.
        return next((float(line.split()[1]) for line in lines if line.startswith(f"{_QUOTA_METRIC} ")), 0.0)
    except (NoAnswer, ValueError, IndexError):
        return 0.0


def _bounded(quota: float) -> int | None:
    """Return a quota as etcd reports it in bytes: 0 is its default, and one below that none."""
    if quota < 0 or quota >= 1 << 63:  # a negative number of a protobuf message is read as a large one
        return None
    return int(quota) or DEFAULT_QUOTA


class QuotaWatch:
    """Ends a load when a member's database has reached 80 % of its quota; for `Hooks.tick`.

    What was measured until then is the result, with the reason among its problems: its verdict is UNKNOWN.

    Takes what says a line to the person at the terminal.

    Attributes:
        fullest: the member whose database was the fullest at the last look; None before the first answer.
        ended: why the load was ended, empty where it was not.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._look: gevent.Greenlet | None = None
        self._due_s = 0.0
        self._has_warned = False
        self.fullest: Fill | None = None
        self.ended = ""

    def tick(self, run: Run) -> None:
        """Look at the members once a second, without waiting for them, and end the load where it has to end."""
        import gevent

        if self._look is None:
            if run.elapsed_s >= self._due_s and not run.over and not run.is_stopping:
                self._due_s = run.elapsed_s + LOOK_S
                self._look = gevent.spawn(_fills, run)
            return
        # What is seen after the load, or while users finish, ends nothing any more.
        if run.over or run.is_stopping or not self._look.ready():
            return
        look, self._look = self._look, None
        fills, reasons = look.get()
        if not fills:
            if not self._has_warned:
                self._has_warned = True
                self._say(f"warning: how full the database is cannot be seen, so its quota is not watched: {reasons}")
            return
        self.fullest = max(fills, key=lambda fill: fill.share)
        if self.fullest.share >= QUOTA_SHARE and not self.ended:
            full = self.fullest
            self.ended = (
                f"ended at {full.share:.0%} of the quota: the database of {full.member} takes {megabytes(full.size)} "
                f"of {megabytes(full.quota or 0)}"
            )
            self._say(self.ended)
            run.doubt(self.ended)
            run.ask_stop()


def _fills(run: Run) -> tuple[list[Fill], str]:
    """Return how full the members of a run's cluster are, and why others did not tell."""
    from cluster.observe.at_once import at_once

    target = run.target
    members = [Member(name, str(Endpoint.parse(where)), "", "") for name, where in target.watched()]

    def ask(member: Member) -> Fill | NoAnswer:
        try:
            return fill_of(member, target.security)
        except NoAnswer as error:
            return error

    answers = at_once(ask, members)
    fills = [answer for answer in answers if isinstance(answer, Fill)]
    return fills, "; ".join(str(answer) for answer in answers if isinstance(answer, NoAnswer))
