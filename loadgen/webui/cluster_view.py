"""The cluster as the Cluster page shows it: its state, its events, and the faults that a button injects.

All of it runs in greenlets of the master's process: whatever waits (a member's answer, the keeper of the members, the
Docker Engine) waits on a socket that gevent has patched, so Locust's heartbeats and statistics go on meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event

from cluster.base.endpoint import Endpoint
from cluster.base.errors import ClusterError, UsageError
from cluster.base.security import Security
from cluster.faults.kinds import HEAL, KINDS, Fault, Subject, refusal, undoing
from cluster.faults.nemesis import Effect, Nemesis
from cluster.observe.timeline import Timeline
from loadgen.load import listening
from loadgen.load.locust_internals import REPORT_INTERVAL_S
from loadgen.load.protocol import Report, Stats
from loadgen.run import totals
from loadgen.stats.series import TICK_NS
from loadgen.webui import elections
from loadgen.webui.event_list import Events
from loadgen.webui.leadership import Leadership
from loadgen.webui.seconds import Point, Reader, Seconds
from viz.diagrams.model import ClusterSnapshot, MemberView
from viz.live.snapshot import NoCluster, Poller
from viz.live.status import Tick, View

if TYPE_CHECKING:
    from cluster.base.topology import Disk
    from cluster.lifecycle.up import Cluster
    from cluster.local.cluster import LocalCluster
    from loadgen.load.locust_types import Environment

WATCHED_S, UNWATCHED_S = 0.25, 1.0
ANSWER_S = 0.5
# A member is called silent only after this, unless its process is known to be gone or paused: on a busy machine it may
# be us who are slow.
PATIENCE_S = 2.0
EFFECT_S = 20.0
KEEP_S = 180

logger = logging.getLogger(__name__)


class ClusterView:
    """The cluster under load as the page shows it.

    Attributes:
        events: what happened, in order of when it began, the latest last.
        load: what the workers report.
        folder: of the run that is going on, where faults are noted in ``events.csv``; None between runs.
    """

    def __init__(
        self,
        environment: Environment,
        cluster: LocalCluster | Cluster | None,
        endpoints: Callable[[], tuple[str, ...]],
        security: Security | None = None,
    ) -> None:
        """Take Locust's environment, the cluster where it is ours to break, whom to ask, by endpoint, and how."""
        self._security = security
        self._environment = environment
        self._cluster = cluster
        self._endpoints = endpoints
        self._asked: tuple[str, ...] = ()
        self._names = {member.name for member in cluster.members} if cluster else set()
        self._urls = {Endpoint.parse(member.client_url).bare for member in cluster.members} if cluster else set()
        self.events = Events()
        self.load = Seconds(REPORT_INTERVAL_S, KEEP_S)
        self.folder: Path | None = None
        self._listeners = 0
        self._version = 0
        self._changed = Event()
        self._tick: Tick | None = None
        self._silence = ""
        self._states: Mapping[str, str] = {}
        self._isolated: frozenset[str] = frozenset()
        self._disks: Mapping[str, Disk] = {}
        self._faults = 0
        listening.listen(environment.events.worker_report, self._on_report)
        self._greenlet = gevent.spawn(self._run)

    def close(self) -> None:
        """End the looking."""
        self._greenlet.kill()

    def note(self, text: str, kind: str = "run", at: float | None = None) -> dict[str, str]:
        """Add an event, see `Events.add`."""
        return self.events.add(text, kind, at)

    @property
    def is_ours(self) -> bool:
        """Whether faults can be done to the cluster that is looked at."""
        return self._cluster is not None and set(self._asked) <= self._urls

    def is_at(self, endpoints: tuple[str, ...]) -> bool:
        """Return whether these are the ones that are looked at."""
        return {url.removeprefix("http://").rstrip("/") for url in endpoints} == set(self._asked)

    @property
    def why_no_load(self) -> str:
        """Why a run would only fail now; empty where it would not."""
        if self._silence:
            return f"no member answers: {self._silence}"
        snapshot = self._tick.snapshot if self._tick is not None else None
        if snapshot and snapshot.leader is None and all(each.role != "not shown" for each in snapshot.members):
            return "the cluster has no leader: start, resume or heal members on the Cluster page first"
        return ""

    def act(self, fault: str, name: str) -> Effect:
        """Do a fault to a member, or ``heal`` to one or, with an empty name, to all; return when it shows.

        Raises UsageError where it does not apply, ClusterError where it fails or shows no effect.
        """
        if not self.is_ours or self._cluster is None:
            raise UsageError("raftload did not start this cluster, so it injects no faults")
        if name and name not in self._names:
            raise UsageError(f"there is no member {name!r}")
        timeline = Timeline(self.folder / "events.csv") if self.folder is not None else None
        nemesis = Nemesis(self._cluster, timeline, wait_s=EFFECT_S)
        self._faults += 1
        number = self._faults
        # It stands before what it leads to, and what came of it is told there.
        event = self.note(f"{fault} {name or 'all'}", "mend" if fault in undoing() else "fault")
        options = {option.name: option.in_plan for option in KINDS[fault].options} if fault in KINDS else {}
        try:
            effect = nemesis.heal(name) if fault == HEAL else nemesis.inject(Fault(fault, name, options))
        except UsageError:
            self.events.remove(event)
            raise
        except ClusterError as error:
            # What was waited for may be what the next fault prevented: that one tells how it is now.
            if number == self._faults:
                event["text"], event["kind"] = f"{fault} {name or 'all'}: {error}", "fault"
            raise
        event["text"] = effect.text
        return effect

    def documents(self) -> Iterator[dict[str, object]]:
        """Yield the present state, then the next whenever there is one; the points of the load only once."""
        self._listeners += 1
        try:
            version, load = -1, Reader(self.load)
            while True:
                if self._version == version:
                    self._changed.wait(timeout=5)
                    continue
                version = self._version
                running = self._environment.runner.state in ("running", "spawning")
                yield self._document(load.news(time.time(), running=running))
        finally:
            self._listeners -= 1

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                self._look()
            except Exception:
                logger.exception("cannot look at the cluster")
            self._version += 1
            self._changed.set()
            self._changed.clear()
            # A listener that comes meanwhile is not kept waiting.
            gevent.sleep(0.05)
            while time.monotonic() - began < (WATCHED_S if self._listeners else UNWATCHED_S):
                gevent.sleep(0.05)

    def _look(self) -> None:
        endpoints = self._endpoints()
        if endpoints != self._asked:
            self._asked = endpoints
            self._poller, self._view = Poller(endpoints, ANSWER_S, self._security, quorum=False), View()
            self._leadership = Leadership(KEEP_S)
            self._tick = None
        if self.is_ours and self._cluster is not None:
            with contextlib.suppress(ClusterError):
                self._states, self._isolated = self._cluster.states(), self._cluster.isolated()
                self._disks = self._cluster.disks()
        try:
            snapshot = self._ask()
        except NoCluster as error:
            self._silence = str(error)
            return
        now = time.time()
        alive = any(member.role != "no answer" for member in snapshot.members)
        self._silence = "" if alive else "no member answers"
        self._tick = self._view.look(snapshot, now)
        self._leadership.look(now, {each.name: self._role(each) for each in snapshot.members})
        for change in self._tick.changes:
            self.note(change, "leader" if "leader NONE" in change or " leads term " in change else "member")
        leader = snapshot.leader
        if self.is_ours and leader is not None and any(" leads term " in change for change in self._tick.changes):
            gevent.spawn(self._tell_election, snapshot.members[leader].term)

    def _ask(self) -> ClusterSnapshot:
        """Ask the members, and again with more patience where one that answered before does not in time."""
        snapshot, _ = self._poller.poll()
        before = {member.name: member.role for member in self._tick.snapshot.members} if self._tick else {}
        if any(
            self._role(member)[0] == "no answer"
            and before.get(member.name) not in (None, "no answer")
            and not any("refused" in reason for reason in member.alarms)
            for member in snapshot.members
        ):
            self._poller.timeout_s = PATIENCE_S
            try:
                snapshot, _ = self._poller.poll()
            finally:
                self._poller.timeout_s = ANSWER_S
        return snapshot

    def _tell_election(self, term: int) -> None:
        """Add what the logs say of an election, once all members have heard of its end."""
        gevent.sleep(0.5)
        assert self._cluster is not None, "only a cluster of ours has logs"
        try:
            logs = elections.tails(self._cluster)
            # To parse them takes long enough that it would hold up Locust's heartbeats here.
            told = gevent.get_hub().threadpool.apply(elections.describe, (logs, term))
        except (ClusterError, OSError) as error:
            logger.warning("cannot read the members' logs: %s", error)
            return
        if told is not None:
            self.note(told.text, "leader", told.began)

    def _role(self, member: MemberView) -> tuple[str, int | None]:
        state = self._states.get(member.name) if self.is_ours else None
        if member.role == "no answer" and state in ("paused", "down"):
            return state, None
        return member.role, member.term

    def _on_report(self, client_id: str, data: Stats, **_: object) -> None:
        session = self._environment.raftload_engine
        # Last words of the run before may come late.
        report = Report.read(data)
        if report is not None and report.snapshot["prefix"] == session.prefix:
            worker = session.worker_of(client_id)
            # The session has heard of it before, and so has put the totals on our clock.
            self.load.add(
                report.series, -round(getattr(worker, "clock_offset_ns", 0) / TICK_NS), totals.load([report.snapshot])
            )

    def _document(self, points: list[Point]) -> dict[str, object]:
        """Return the present state. Takes the points of the load that the page does not have yet."""
        tick = self._tick
        runner = self._environment.runner
        return {
            "at": time.time(),
            "silence": self._silence,
            **(_cluster(tick.snapshot) if tick else {"title": "", "leader": None, "term": None}),
            "members": self._members(tick) if tick else [],
            "timeline": self._leadership.rows() if tick else [],
            "ours": self.is_ours,
            "events": self.events.last(60),
            "load": {
                "state": runner.state,
                "users": runner.user_count,
                "points": points,
            },
        }

    def _members(self, tick: Tick) -> list[dict[str, object]]:
        ours = self.is_ours
        return [
            {
                "name": member.name,
                "endpoint": member.endpoint,
                "role": self._role(member)[0],
                "state": self._states.get(member.name, "running") if ours else "",
                "isolated": ours and member.name in self._isolated,
                "disk": self._disk(member.name) if ours else "",
                "buttons": self._buttons(member.name, tick.snapshot) if ours else [],
                "term": member.term,
                "commit_index": member.commit_index,
                "applied_index": member.applied_index,
                "lag": member.lag,
                "entries_per_s": tick.rates.get(member.name),
                "db_size": member.db_size,
                "version": member.version,
                "round_trip_ms": member.round_trip_ms,
                "alarms": [] if self._role(member)[0] in ("paused", "down") else list(member.alarms),
            }
            for member in tick.snapshot.members
        ]

    def _disk(self, name: str) -> str:
        return self._disks[name]["state"] if name in self._disks else ""

    def _buttons(self, name: str, snapshot: ClusterSnapshot) -> list[dict[str, str]]:
        leader = None if snapshot.leader is None else snapshot.members[snapshot.leader].name
        subject = Subject(name, self._states.get(name, "running"), name in self._isolated, self._disk(name))
        return buttons(subject, len(snapshot.members), leader, self._cluster.cannot if self._cluster else {})


def buttons(subject: Subject, members: int, leader: str | None, cannot: Mapping[str, str]) -> list[dict[str, str]]:
    """Return a member's buttons: the fault and label of each, and why it does not apply now, empty where it does.

    Takes the member, how many there are, who leads, and the cluster's methods that do not work, with why. Where a fault
    is on, its place has what undoes it. Faults of disks have no button where they do not work, as on most clusters.
    """
    rows = []
    for kind in KINDS.values():
        if not kind.button or kind.name in undoing() or (kind.on_disk and kind.why_not_here(cannot)):
            continue
        if kind.undone_by and kind.is_done_to(subject):
            undo = KINDS.get(kind.undone_by)
            rows.append({"fault": kind.undone_by, "label": undo.button if undo else "Heal", "reason": ""})
            continue
        reason, _ = refusal(kind.name, subject, members, leader)
        rows.append({"fault": kind.name, "label": kind.button, "reason": reason or kind.why_not_here(cannot)})
    return rows


def _cluster(snapshot: ClusterSnapshot) -> dict[str, object]:
    leader = snapshot.leader
    member = None if leader is None else snapshot.members[leader]
    return {
        "title": snapshot.title,
        "leader": member.name if member else None,
        "term": member.term if member else max((each.term or 0 for each in snapshot.members), default=0) or None,
    }
