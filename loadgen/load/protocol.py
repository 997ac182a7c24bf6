"""The messages between the master of a run and its workers: their names, their payloads, and who sends them when.

Locust carries them beside its own messages over one connection to each worker, so they arrive in the order in which
they were sent. Master and workers are of one version of raftload, which `HELLO` makes sure of. All payloads are plain
numbers, texts, lists and dicts.

What a run does reaches its workers with Locust's own ``spawn`` message, among the options of its command line, as
texts: those of `loadgen.load.settings.Settings.to_options`, and the ``…_OPTION`` here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, Literal, NotRequired, TypedDict, TypeVar, cast

from loadgen.stats.series import Intervals

if TYPE_CHECKING:
    from loadgen.load.locust_types import Message, Runner

Payload = TypeVar("Payload", bound=Mapping[str, object])

# The client ids of the workers that share the run's operations, in the order of their ranks, with commas between them.
RANKS_OPTION = "worker_ranks"
# How many users there are over all workers.
USERS_OPTION = "load_users"
# When an open loop begins, on the master's wall clock, in nanoseconds since 1970.
START_OPTION = "open_loop_start_ns"
# The folder in which each worker records what it does and sees; empty: none does.
HISTORY_OPTION = "history_folder"
# Of a chaos run: `loadgen.chaos.chaos_worker.ChaosSettings`, as JSON.
CHAOS_OPTION = "consistency"

# Reasons of `Done`.
SHARE_DONE, CUT_SHORT = "share done", "stopped"


@dataclasses.dataclass(frozen=True)
class Kind(Generic[Payload]):
    """A kind of message.

    Attributes:
        name: what Locust calls it.
    """

    name: str

    def send(self, runner: Runner, payload: Payload, client_id: str | None = None) -> None:
        """Send a message from a Locust runner: a worker's to the master, the master's to one worker or to all."""
        runner.send_message(self.name, payload, client_id)

    def payload(self, message: Message) -> Payload:
        """Return what a received message of Locust's carries; nothing where it is no dict.

        Whoever reaches a port for workers of other machines can send anything: look who sent it before you read it.
        """
        return cast(Payload, message.data if isinstance(message.data, dict) else {})


# -- the start ----------------------------------------------------------------------------------------------


class Identity(TypedDict):
    """What a worker must have in common with its master: raftload's version, and the scenario."""

    version: str
    scenario: str


class Hello(Identity):
    """A worker to the master, once it can take a run: who it is.

    ``number`` is that of a worker which the master forked, from 1, and 0 for one that somebody started; ``host`` and
    ``pid`` are the name of its machine, and its process id there.
    """

    number: int
    host: str
    pid: int


class Refused(TypedDict):
    """The master to a worker of another machine that it does not take, after its `Hello`: why. The worker quits."""

    reason: str


class Clock(TypedDict):
    """The master to a worker of another machine, ten times after its `Hello`, and each time the worker's answer.

    Wall clocks in nanoseconds since 1970: ``sent`` is the master's when it asked, ``there`` the worker's when it
    answered, and missing in the question.
    """

    sent: int
    there: NotRequired[int]


class ClockOffset(TypedDict):
    """The master to a worker of another machine, after its `Clock` answers: that worker's wall clock less the master's.

    In nanoseconds.
    """

    ns: int


class Begun(TypedDict):
    """A worker to the master, at each run's start: it is connected to the cluster, and starts its users.

    ``prefix`` is that of the run's keys, by which a run is known.
    """

    prefix: str


class Ready(TypedDict):
    """A worker to the master, at the start of a run whose users begin together: how many of its users are ready.

    ``users`` is how many it was told to start so far, ``prefix`` that of the run's keys.
    """

    prefix: str
    ready: int
    users: int


class Go(TypedDict):
    """The master to every worker, once the users of each are ready: they begin.

    ``starts_at_ns`` is when an open loop begins, on the master's wall clock in nanoseconds since 1970.
    """

    prefix: str
    starts_at_ns: int


class Pace(TypedDict):
    """The master to every worker, in an open loop whose rate it changes: which rate there is from a moment on.

    ``rate`` is in operations per second over all workers, ``starts_at_ns`` on the master's wall clock in nanoseconds
    since 1970, and ``prefix`` that of the run's keys.
    """

    prefix: str
    rate: float
    starts_at_ns: int


# -- reports ------------------------------------------------------------------------------------------------


class Counts(TypedDict):
    """What one operation type came to in one worker since the run's start.

    ``failed`` includes ``info``: operations of unknown effect. ``committed`` and ``not_committed`` are successful
    transactions by the branch that they took, and deletes by whether there was anything to delete. The times are those
    of the first call and the last return, on the worker's wall clock in nanoseconds since 1970. ``error_texts`` has, of
    each error that has no name of etcd's, what the server said with the first one.
    """

    succeeded: int
    failed: int
    info: int
    committed: int
    not_committed: int
    first_call_ns: int
    last_return_ns: int
    error_texts: dict[str, str]


class OpenLoopCounts(TypedDict):
    """What became of one worker's part of a schedule.

    ``scheduled`` operations were due, ``dropped`` of them were never sent. ``start_lags`` counts operations by how late
    they were sent, in nanoseconds. ``length_s`` is from the first due time to the last, and ``overrun_s`` from the last
    due time until the last operation was sent.
    """

    scheduled: int
    dropped: int
    start_lags: dict[int, int]
    length_s: float
    overrun_s: float


class StreamCounts(TypedDict):
    """What one worker met of the server's limit of streams on a connection (MAX_CONCURRENT_STREAMS).

    ``limit`` is None where none was met, ``connections`` the most that there were at a time, ``waits`` counts the
    operations of the measurement that waited for a stream by how long, in nanoseconds.
    """

    limit: int | None
    connections: int
    waits: dict[int, int]


class Snapshot(TypedDict):
    """What one worker did since the run's start.

    ``prefix`` is that of the run's keys. ``locust_counts`` says that the worker's Locust has counted the successes
    itself. ``totals`` and ``warmup`` are by operation type. ``cpu_s`` is the CPU time of the process since its first
    measured operation, and ``wall_s`` the time since then. ``engine`` is the one that ran, ``engine_reason`` why it was
    Python's, else empty. ``in_flight`` operations are under way as it reports. ``open_loop`` is None in a closed loop,
    ``streams`` over the JSON gateway. ``problems`` are sentences about what the worker has to doubt of its own counts,
    once it has ended.
    """

    prefix: str
    locust_counts: bool
    totals: dict[str, Counts]
    warmup: dict[str, Counts]
    cpu_s: float
    wall_s: float
    engine: Literal["compiled", "python"]
    engine_reason: str
    in_flight: int
    in_flight_max: int
    resent: int
    loop_lag_p99_ms: float
    open_loop: OpenLoopCounts | None
    streams: StreamCounts | None
    problems: list[str]


class Stats(TypedDict, total=False):
    """What a `Report` adds to the data of Locust's own ``stats`` message."""

    raftload: Snapshot
    raftload_series: Intervals
    raftload_service: Intervals


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """A worker to the master, twice a second and once before `Done`: a part of Locust's own ``stats`` message.

    Attributes:
        snapshot: all that it did in the run.
        series: what came back since its last report: latencies from when an operation was due.
        service: the same from when an operation was sent; of an open loop.
    """

    snapshot: Snapshot
    series: Intervals
    service: Intervals

    def write(self, data: Stats) -> None:
        """Put it into the data of a ``stats`` message."""
        data["raftload"] = self.snapshot
        data["raftload_series"] = self.series
        data["raftload_service"] = self.service

    @classmethod
    def read(cls, data: Stats) -> Report | None:
        """Return the report in the data of a ``stats`` message, None where there is none."""
        if "raftload" not in data:
            return None
        return cls(data["raftload"], data["raftload_series"], data["raftload_service"])


# -- the end ------------------------------------------------------------------------------------------------


class Done(TypedDict):
    """A worker to the master, once in a run, after its last report: it does nothing more.

    ``reason`` is `SHARE_DONE` or `CUT_SHORT`, ``rank`` its place among the run's workers, from 0; -1 where it ends
    before it has begun.
    """

    reason: str
    rank: int


class Failed(TypedDict):
    """A worker to the master, when a listener, a handler or a callback of its run has raised: it ends.

    The exit code for it, what happened in one line, and the traceback.
    """

    code: int
    what: str
    trace: str


# -- chaos runs ---------------------------------------------------------------------------------------------


class Suspect(TypedDict):
    """A worker to the master, once in a run: it was told what cannot be where etcd keeps its guarantees."""

    seen: str


class Unwritten(TypedDict):
    """A worker to the master, once in a run: its history cannot be written any more, as on a full disk.

    Of a run of any kind that records one.
    """

    reason: str


class Close(TypedDict):
    """The master to every worker, when the cluster is whole again: see your watchers to a revision, close your history.

    Watchers that are not there after ``timeout_s`` seconds end where they are.
    """

    revision: int
    timeout_s: float


class Closed(TypedDict):
    """A worker to the master, after `Close`: its history is closed; why not whole, None where it is."""

    problem: str | None


HELLO = Kind[Hello]("raftload_hello")
REFUSED = Kind[Refused]("raftload_refused")
CLOCK = Kind[Clock]("raftload_clock")
CLOCK_OFFSET = Kind[ClockOffset]("raftload_clock_offset")
BEGUN = Kind[Begun]("raftload_begun")
READY = Kind[Ready]("raftload_ready")
GO = Kind[Go]("raftload_go")
PACE = Kind[Pace]("raftload_pace")
DONE = Kind[Done]("raftload_done")
FAILED = Kind[Failed]("raftload_failed")
SUSPECT = Kind[Suspect]("raftload_suspect")
UNWRITTEN = Kind[Unwritten]("raftload_unwritten")
CLOSE = Kind[Close]("raftload_close")
CLOSED = Kind[Closed]("raftload_closed")
