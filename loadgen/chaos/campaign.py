"""One chaos run: load on every member, faults meanwhile, and final reads of each member.

The master drives: workers are Locust's and record what they do; the cluster is held and broken by another process
(``cluster.faults.driver``), so nothing here ever blocks the event loop; compactions and the final reads are the
master's own and are recorded in a history of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator, Sequence

import gevent
from gevent.event import Event

from cluster.base.errors import ClusterError, MemberFailed, RaftloadError
from cluster.base.exits import BUG, Failure
from cluster.faults.driver import Driver, Held
from cluster.faults.kinds import KINDS, Kind
from cluster.faults.plan import Round
from cluster.observe.timeline import TimelineError
from loadgen.chaos.actors_beside import Actors
from loadgen.chaos.chaos_worker import ChaosSettings
from loadgen.chaos.fault_stats import MIN_WRITES_S, FaultRound
from loadgen.chaos.master_client import MasterClient
from loadgen.chaos.traffic import Shape, ShapeFields
from loadgen.chaos.watch_streams import WatcherOptions
from loadgen.history.format import FOLDER
from loadgen.load import listening
from loadgen.load.locust_internals import keep_alive, send_to
from loadgen.load.protocol import CHAOS_OPTION, CLOSE, CLOSED, SUSPECT, UNWRITTEN, Close, Closed, Suspect, Unwritten
from loadgen.result import abort
from loadgen.run import Hooks
from loadgen.run.master_history import make_writer
from loadgen.run.run import Run
from loadgen.run.session import Session

HEALTHY_S = 60.0
# Between a healthy cluster and the next fault: without a while of load there is nothing to compare with.
CALM_S = 0.5
LOAD_S = 10.0
WATCHERS_S = 15.0
HELPERS_S = 3.0
ACTORS_S = 60.0
NOTICE_S = 1.0
# One that ends at each start is given up.
STARTS = 3
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class CampaignOptions:
    """What a chaos run does to the cluster and asks of it.

    Attributes:
        rounds: the faults, in order.
        every_s: seconds from one fault to the next.
        compact_every_s: seconds between compactions; 0: none.
        shape: of the traffic, as ``traffic.Shape`` takes it, without prefix and seed.
        watching: which watchers there are.
        hashes: whether members' hashes are compared after every round, and a difference ends the run.
        actors: kinds of ``actor_kinds`` that act beside the load.
    """

    rounds: tuple[Round, ...] = ()
    every_s: float = 3.0
    compact_every_s: float = 2.0
    shape: ShapeFields = dataclasses.field(default_factory=ShapeFields)
    watching: WatcherOptions = dataclasses.field(default_factory=WatcherOptions)
    hashes: bool = True
    actors: tuple[str, ...] = ()


class Campaign:
    """Carries out a design. See ``carry_out``."""

    def __init__(
        self, design: CampaignOptions, run: Run, session: Session, *, driver: Driver | None, held: Held | None, say: Say
    ) -> None:
        """Take what to do, the run and its session; without a driver there are no faults."""
        self.design = design
        self.fault_rounds: list[FaultRound] = []
        self.stopped_by = ""
        self.ended_ns = 0
        self.turns: dict[str, int] = {}
        self.failure: Failure | None = None  # by a bug of ours, of which the run's result knows nothing
        self.run = run
        self.shape = Shape(prefix=run.settings.prefix, seed=run.settings.seed, **design.shape)
        self._session = session
        self._driver, self._held, self._say = driver, held, say
        self._stopping = Event()
        self._closed: dict[str, str | None] = {}
        self._fighting = False
        self._afterwards: gevent.Greenlet | None = None
        self._hurried = False
        self._error: Exception | None = None
        self._actors: Actors | None = None
        self._has_ended = False
        self._on: tuple[FaultRound, Kind] | None = None
        self._folder = run.folder / FOLDER
        history = make_writer(run.folder, run.settings.prefix, self._is_unwritten)
        self._master = MasterClient(
            run.settings.endpoints, self.shape, history, whole=driver is not None, security=session.security
        )
        listening.handle(session.runner, SUSPECT, self._on_suspect)
        listening.handle(session.runner, UNWRITTEN, self._on_unwritten)
        listening.handle(session.runner, CLOSED, self._on_closed)

    def carry_out(self, hooks: Hooks) -> None:
        """Run load and faults to their end, heal, and read what each member holds. Raises ClusterError."""
        run = self.run
        orders = ChaosSettings(str(self._folder.absolute()), self.design.shape, self.design.watching)
        setattr(self._session.environment.parsed_options, CHAOS_OPTION, orders.to_option())
        try:
            names = {member.client_url: member.name for member in self._held.members} if self._held else {}
            exclusive = self._held is not None and self._held.ours
            self._master.fill(run.revision_before, names, exclusive=exclusive)
            run.start()
            self._fighting = True
            if run.unwritten:  # by now
                self._is_unwritten(run.unwritten)
            hooks.load_begins(self.interrupt)
            if self.design.actors:
                members = names or {url: url for url in run.settings.endpoints}
                self._actors = Actors(
                    run.folder, {name: url for url, name in members.items()}, run.settings.prefix, run.settings.seed,
                    self.design.actors,
                )  # fmt: skip
            helpers = [gevent.spawn(self._compact_regularly)]
            if self._driver is not None:
                helpers.append(gevent.spawn(self._strike if self.design.rounds else self._notice_regularly))
            try:
                run.wait(hooks.tick)
                if run.aborted is not None:
                    self.stopped_by = self.stopped_by or abort.reason(run.aborted)
            finally:
                self.ended_ns = time.monotonic_ns()  # the fault that is on may take longer to heal
                self._fighting = False
                self._stopping.set()
                gevent.joinall(helpers, timeout=0 if self._session.alarm.failure or self._hurried else HELPERS_S)
                gevent.killall(helpers)
            self._afterwards = gevent.spawn(self._ask_afterwards)
            self._afterwards.join(0 if self._hurried else None)
            self._afterwards.kill()
            if self._error is not None:
                raise self._error
        finally:
            self._end_actors()
            self._master.close()

    def _end_actors(self) -> None:
        if self._actors is not None:
            actors, self._actors = self._actors, None
            done = actors.end(0 if self._hurried else ACTORS_S)
            self.turns = done["turns"]
            for problem in done["problems"]:
                self.run.doubt(f"actors: {problem}")
            for bug in done["bugs"]:
                self.failure = self.failure or Failure(BUG, f"actors: {bug}", "", actors.log)

    def _tell_actors(self, what: str, members: Sequence[str]) -> None:
        if self._actors is not None:
            self._actors.tell(members, what)

    def _notice(self) -> bool:
        """Record which members have ended by themselves, and start them again; return whether there were any.

        Without actors there is no record of what members do, and a member that has ended ends the run.
        """
        if self._driver is None or self._actors is None:
            return False
        try:
            ended = self._driver.ended()
        except RaftloadError:  # the next order fails of it, too
            return False
        for each in ended:
            member = each["member"]
            if each["by_itself"]:
                self._say(f"{member} ended by itself: {each['said'] or 'it logged nothing'}")
            self._actors.tell([member], "ended" if each["by_itself"] else "killed", each["said"], each["at_ns"])
            self._has_ended |= each["by_itself"]
            if each["started"]:
                self._master.mark_restart(member, ended_ns=each["at_ns"])
                self._actors.tell([member], "started")
        return bool(ended)

    def _notice_regularly(self) -> None:
        while not self._stopping.wait(NOTICE_S):
            self._notice()

    def _await_health(self) -> None:
        """Wait until the cluster is healthy. Raises ClusterError, MemberFailed where a member ends at each start."""
        assert self._driver is not None
        for left in reversed(range(STARTS)):
            try:
                self._driver.wait_healthy(HEALTHY_S)
                return
            except MemberFailed:
                if not self._notice() or not left:
                    raise

    def _ask_afterwards(self) -> None:
        """Have the cluster settle, the workers see the last of it, and read what each member holds.

        In a greenlet of its own, which a second signal ends. What it raises is raised where that is waited for.
        """
        keeper = gevent.spawn(self._keep_workers)
        try:
            revision = self._agreed()
            self._close_workers(revision or 0)
            keeper.kill()
            if revision is not None:
                self._master.read_members(revision)
            self._look_again()
        except Exception as error:
            self._error = error
        finally:
            keeper.kill()

    def _agreed(self) -> int | None:
        """Have the cluster settle and the actors end; return the revision that all members have.

        None where nobody can say what each of them holds; what ran is judged. Raises ClusterError.
        """
        reason: object = None
        try:
            self._settle()
        except MemberFailed as error:
            if not self._has_ended:
                raise
            reason = error
        self._notice()  # the actors' record takes no more after this
        self._end_actors()  # who switch off what they switched on, for which it takes a majority
        try:
            if reason is None:
                return self._master.agree()
        except ClusterError as error:
            reason = error
        self.run.doubt(f"what each member holds was not read: {reason}")
        return None

    def _look_again(self) -> None:
        """Doubt the run where a member has ended by itself since the actors' record was closed."""
        if self._driver is None:
            return
        with contextlib.suppress(RaftloadError):  # it is gone, and what it held was read
            for each in self._driver.ended():
                if each["by_itself"]:
                    said = each["said"] or "it logged nothing"
                    self.run.doubt(f"{each['member']} ended by itself after the load: {said}")

    # ---- while there is load

    def stop(self, reason: str) -> None:
        """End the load before its time; take why, for people."""
        if not self.stopped_by and self._fighting:
            self.stopped_by = reason
            gevent.spawn(self.run.ask_stop)

    def interrupt(self, signal_name: str) -> None:
        """End load and faults: the fault that is on is healed at once. A second signal ends what is waited for then."""
        self._stopping.set()
        if self.run.interrupted is not None:
            self._hurried = True
            if self._afterwards is not None:
                self._afterwards.kill(block=False)
        elif self.run.over:  # what is left is the check
            self.run.interrupted = signal_name
            return
        self.run.ask_stop(signal_name)

    def _compact_regularly(self) -> None:
        every = self.design.compact_every_s
        while every and not self._stopping.wait(every):
            self._master.compact()

    def _strike(self) -> None:
        while not self.run.stats.total.num_requests and not self._stopping.wait(0.05):
            pass  # the workers are still starting their users
        began = time.monotonic()
        for each in self.design.rounds:
            due = max(began + self.design.every_s, time.monotonic() + CALM_S)
            if self._stopping.wait(due - time.monotonic()) or not self._await_load():
                return
            began = time.monotonic()
            self._notice()
            done = self._round(each)
            self.fault_rounds.append(done)
            if done.problem:
                self._say(f"round {each.number} of {len(self.design.rounds)}: {each.name}: {done.problem}")
            if not done.healthy_ns:
                self.stop(f"round {each.number}: {done.problem}")
                return
            if self.design.hashes and (difference := self._master.compare_hashes()):
                self.stop(difference)
                return
        if not self._stopping.wait(max(CALM_S, began + self.design.every_s - time.monotonic())):
            self.run.ask_stop()

    def _await_load(self) -> bool:
        """Wait until operations succeed, as clients that were refused for long take a while to come back; say whether
        the run goes on. Where nothing succeeds for long the fault comes anyway, and its round is inconclusive.
        """
        total = self.run.stats.total
        before, deadline = total.num_requests - total.num_failures, time.monotonic() + LOAD_S
        while total.num_requests - total.num_failures < before + MIN_WRITES_S and time.monotonic() < deadline:
            if self._stopping.wait(0.05):
                return False
        return True

    def _round(self, each: Round) -> FaultRound:
        assert self._driver is not None
        began_ns = time.monotonic_ns()
        done = FaultRound(each.number, each.name, _utc(began_ns), began_ns=began_ns)
        kind = KINDS[each.fault.kind] if each.fault is not None else None
        try:
            if each.fault is None or kind is None:
                self._master.compact()
                done.effect_ns = done.healed_ns = time.monotonic_ns()
            else:
                self._master.mark_fault("begin", each.name, ())
                self._on = done, kind
                effect = self._driver.inject(each.fault, each.seed)
                # The driver first looked who leads: until it struck, the load was that before the fault.
                done.began_ns, done.at = effect["began_ns"], _utc(effect["began_ns"])
                done.effect_ns = time.monotonic_ns()
                self._master.mark_fault("effect", each.name, effect["members"], began_ns=done.began_ns)
                done.members, done.leader, done.term = tuple(effect["members"]), effect["leader"], effect["term"]
                if kind.ends_process:
                    self._tell_actors("killed", done.members)
                done.taken = effect["before"] in done.members and kind.takes_leader
                told = kind.ends_process and not kind.takes_leader
                done.silent = told and 2 * len(done.members) > len(self._held.members if self._held else ())
                self._stopping.wait(max(0.0, each.hold_s - (done.effect_ns - done.began_ns) / 1e9))
        except RaftloadError as error:
            done.problem = str(error)
        with self._noted(done):
            self._notice()  # healing starts every member that is down
            if kind is not None:
                self._heal()
            self._await_health()
            done.healthy_ns = time.monotonic_ns()
        return done

    @contextlib.contextmanager
    def _noted(self, done: FaultRound) -> Iterator[None]:
        try:
            yield
        except RaftloadError as error:
            done.problem = done.problem or str(error)

    # ---- after it

    def _settle(self) -> None:
        if self._driver is not None:
            self._notice()
            self._heal()
            self._await_health()

    def _heal(self) -> None:
        """Undo the fault that is on, and note so: also of one whose round was cut short by the end of the load."""
        assert self._driver is not None
        try:
            self._driver.heal()
        except TimelineError as error:  # healed it is
            self._is_unwritten(str(error))
        if self._on is None:
            return
        (done, kind), self._on = self._on, None
        done.healed_ns = time.monotonic_ns()
        self._master.mark_fault("heal", done.name, done.members)
        if kind.ends_process:
            # Where its effect was not told it may have ended any of them.
            members = done.members or tuple(member.name for member in (self._held.members if self._held else ()))
            for member in members:
                self._master.mark_restart(member)
            self._tell_actors("started", members)

    def _close_workers(self, revision: int) -> None:
        """Have every worker see its watchers to a revision and close its history; wait until they have."""
        alive = [w for w in self._session.workers if w.client_id and w.name not in self.run.lost]
        order: Close = {"revision": revision, "timeout_s": WATCHERS_S}
        for client_id in self._client_ids():
            send_to(self._session.runner, client_id, CLOSE.name, order)
        deadline = time.monotonic() + 2 * WATCHERS_S
        while time.monotonic() < deadline and any(
            worker.client_id not in self._closed and worker.death() is None for worker in alive
        ):
            gevent.sleep(0.02)
        for worker in alive:
            if problem := self._closed.get(worker.client_id or ""):
                self.run.doubt(f"{worker.name} could not close its history: {problem}")

    def _keep_workers(self) -> None:
        while True:
            for client_id in self._client_ids():
                keep_alive(self._session.runner, client_id)
            gevent.sleep(1)

    def _client_ids(self) -> list[str]:
        return [worker.client_id for worker in self._session.workers if worker.client_id]

    def _on_suspect(self, client_id: str, suspect: Suspect) -> None:
        self.stop(suspect["seen"])

    def _on_unwritten(self, client_id: str, unwritten: Unwritten) -> None:
        self._is_unwritten(unwritten["reason"])

    def _is_unwritten(self, reason: str) -> None:
        """End the load: what comes now would not be in the history. What is there is checked."""
        self.run.unwritten = self.run.unwritten or reason
        self.stop(reason)

    def _on_closed(self, client_id: str, closed: Closed) -> None:
        self._closed[client_id] = closed["problem"]


def _utc(at_ns: int) -> str:
    """Return a moment of the monotonic clock as ISO 8601 in UTC, to the millisecond."""
    ago = datetime.timedelta(microseconds=(time.monotonic_ns() - at_ns) / 1000)
    return (datetime.datetime.now(datetime.UTC) - ago).isoformat(timespec="milliseconds")
