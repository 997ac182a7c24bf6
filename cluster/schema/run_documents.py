"""The documents of a run folder, and the document of a check, as types.

`loadgen` writes these documents and `viz` reads them, and `cluster` makes parts of them (`ObservedMember`,
`ObserverCost`): the types are in the lowest folder of the lowest package, where all three may import them from. The
JSON Schemas in ``loadgen/schema`` say what each field means; `tests/unit/test_documents.py` holds both to each other.
A reader of a file takes no key for granted, whatever the type says, until the file was held against its schema.
"""

from typing import Literal, NotRequired, TypedDict

from cluster.schema.diagnose_documents import RunDiagnosisDocument


class Endpoint(TypedDict):
    """An endpoint of a target."""

    url: str
    reachable: bool | None


class TargetMember(TypedDict):
    """A member as it answered after the load."""

    name: str
    endpoint: str
    version: str
    leader: bool
    term: int
    db_size: int


class ObserverCost(TypedDict, total=False):
    """How often the members were asked, and the CPU that this took."""

    polls: int | None
    unanswered: int | None
    scrapes: int | None
    cpu_s: float | None


class CountPhases(TypedDict):
    """A count before, during and after the load."""

    before: int | None
    during: int | None
    after: int | None


class Phases(TypedDict):
    """A figure before, during and after the load."""

    before: float | None
    during: float | None
    after: float | None


class Sizes(TypedDict, total=False):
    """Bytes of a member's database."""

    db_size_first: int | None
    db_size_last: int | None
    db_size_max: int | None


class Counted(TypedDict, total=False):
    """What a member counted."""

    restarts: int | None
    proposals_failed: int | None
    proposals_pending_max: int | None
    slow_applies: int | None
    heartbeat_failures: int | None
    rss_bytes_max: int | None
    wal_fsyncs: CountPhases | None
    wal_fsync_p99_ms: Phases | None
    backend_commits: CountPhases | None
    backend_commit_p99_ms: Phases | None


class ObservedMember(Sizes, Counted):
    """A member as it was observed under load."""

    name: str
    polls: int | None
    unanswered: int | None


class ObservedSummary(TypedDict, total=False):
    """What the observed members add to the target of a result."""

    leader_changes: int | None
    wal_fsync_p99_ms: Phases | None
    backend_commit_p99_ms: Phases | None
    observed: list[ObservedMember] | None


class MemberCpu(TypedDict):
    """How long a member's threads had a CPU, and waited for one."""

    name: str
    ran_s: float
    waited_s: float


class CpuWait(TypedDict):
    """The members' wait for the CPU of this machine, and what it means for the latencies."""

    members: list[MemberCpu]
    share: float | None
    contended: bool | None
    contended_by: str | None
    nice: int | None
    session_nice: int | None


class Target(TypedDict):
    """What was tested, as run.json has it."""

    kind: str | None
    endpoints: list[Endpoint] | None
    etcd_version: str | None
    requested_version: str | None
    members: list[TargetMember] | int | None
    peer_links: NotRequired[str | None]
    disk_faults: NotRequired[bool]
    leader_changes: int | None
    observer: NotRequired[ObserverCost | None]
    cpu_wait: NotRequired[CpuWait | None]


class ResultTarget(Target):
    """What was tested, as result.json has it: with what its members said of themselves."""

    wal_fsync_p99_ms: NotRequired[Phases | None]
    backend_commit_p99_ms: NotRequired[Phases | None]
    observed: NotRequired[list[ObservedMember] | None]


class Latencies(TypedDict, total=False):
    """Milliseconds with microsecond resolution."""

    min_ms: float | None
    mean_ms: float | None
    median_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p99_9_ms: float | None
    p99_99_ms: float | None
    max_ms: float | None
    stddev_ms: float | None


class ServiceLatencies(Latencies, total=False):
    """The same from sending, in a result: with the names of the percentiles that are of too few samples."""

    too_few_samples: list[str]


class Latency(TypedDict):
    """Latency of the successes of one operation type: of `Latencies` all, which a subclass could not require."""

    min_ms: float | None
    mean_ms: float | None
    median_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p99_9_ms: float | None
    p99_99_ms: float | None
    max_ms: float | None
    too_few_samples: NotRequired[list[str]]
    service: ServiceLatencies | None


class Row(TypedDict):
    """The figures of one operation type, or of all."""

    operations: int
    succeeded: int
    failed: int
    info: int | None
    success_rate: float | None
    throughput_ops_s: float | None
    latency: Latency | None
    errors: dict[str, int] | None
    error_texts: NotRequired[dict[str, str]]
    branches: NotRequired[dict[str, int] | None]


class WorkerSaturation(TypedDict):
    """How one worker fared."""

    cpu_share: NotRequired[float | None]
    start_lag_p99_ms: NotRequired[float | None]
    in_flight_max: NotRequired[int | None]
    loop_lag_p99_ms: float | None


class WorkerRow(WorkerSaturation):
    """What one worker did."""

    name: str
    host: str | None
    operations: int | None
    cpu_us_per_op: float | None
    clock_offset_ms: float | None
    clock_error_ms: float | None
    lost: str | None


class Saturation(TypedDict):
    """How all workers fared together."""

    engine: NotRequired[Literal["compiled", "python", "mixed"] | None]
    engine_reason: NotRequired[str | None]
    cpu_us_per_op: float | None
    start_lag_p99_ms: float | None
    loop_lag_p99_ms: float | None
    in_flight_max: int | None
    scheduled: NotRequired[int | None]
    dropped: int | None
    rate_reached: NotRequired[bool | None]
    resent: int | None
    saturated: bool | None
    saturated_by: str | None


class Generator(Saturation):
    """How the load generator fared."""

    workers_started: int | None
    workers_lost: int | None
    workers: NotRequired[list[WorkerRow]]


class Books(TypedDict):
    """The writes of a run against the store's own count."""

    revision_before: int | None
    revision_after: int | None
    revision_delta: int | None
    writes_ok: int | None
    writes_info: int | None
    balanced: bool | None


class LostWorker(TypedDict):
    """A worker that was lost."""

    name: str
    reason: NotRequired[str | None]


class Aborted(TypedDict):
    """The condition that ended a run."""

    expression: str
    value: float
    elapsed_s: float


class Plateau(TypedDict):
    """A step of the load."""

    load: float
    seconds: NotRequired[int]
    throughput_ops_s: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    power: float


class Knee(TypedDict):
    """The steps of the load, and which of them is the knee."""

    method: str
    axis: Literal["users", "rate"]
    steps: list[Plateau]
    knee: Plateau | None
    reason: str | None
    caution: str | None


class Plan(TypedDict):
    """The faults that a chaos run was to inject."""

    faults: list[str]
    rounds: int
    every_s: float
    compact_every_s: float


class KnownBug(TypedDict):
    """A bug of the etcd under test."""

    issue: int
    summary: str


class Window(TypedDict):
    """The load between two moments."""

    duration_s: float
    operations: int
    failed: int
    unknown: int
    throughput_ops_s: float | None
    p50_ms: float | None
    p99_ms: float | None


class Counts(TypedDict):
    """How many operations ended, and how."""

    operations: int
    failed: int
    unknown: int


class FaultRow(TypedDict):
    """What one fault did."""

    number: int
    fault: str
    members: list[str]
    at: str
    began_ns: int
    effect_s: float | None
    healed_s: float | None
    healthy_s: float | None
    leader: str | None
    term: int | None
    leaderless_s: float | None
    longest_gap_s: float
    before: Window
    during: Window
    after: Window
    verdict: str
    reason: str | None


class Chaos(TypedDict):
    """The plan of a chaos run, and what each fault did."""

    plan: Plan
    traffic: dict[str, float]
    corrupting: bool
    known_bugs: list[KnownBug]
    stopped_by: str | None
    recorded: int
    earlier: NotRequired[Counts]
    actors: NotRequired[dict[str, int]]
    faults: list[FaultRow]


class Violation(TypedDict):
    """An observation that a guarantee forbids."""

    revision: int
    text: str
    bug: NotRequired[str | None]


class Guarantee(TypedDict):
    """What the history says of one guarantee."""

    name: str
    promise: str
    verdict: str
    judged: int
    broken: int
    unexplained: NotRequired[int]
    reason: str | None
    violations: list[Violation]


class HistoryFile(TypedDict):
    """A file of a history."""

    name: str
    cut: str | None


class ExplainedBy(TypedDict):
    """A known bug of etcd that explains violations."""

    bug: str
    issue: str
    summary: str
    url: str
    fixed_in: list[str]
    guarantees: list[str]
    places: int


class Check(TypedDict):
    """``check.schema.json``."""

    schema: Literal["raftload.check/1"]
    run: str
    command: list[str] | None
    environment: NotRequired[dict[str, str | None]]
    etcd_version: NotRequired[str | None]
    operations: int
    watches: int
    lease_overdue_s: float | None
    nearest_fault: str | None
    files: list[HistoryFile]
    guarantees: list[Guarantee]
    broken: list[str]
    news: NotRequired[list[str]]
    explained: NotRequired[list[ExplainedBy]]
    verdict: str


class PassMark(TypedDict):
    """What a check of the performance demands, and what came of it."""

    name: Literal["errors", "throughput", "slowest", "stddev", "pairs", "memory"]
    value: float | None
    bound: float | None
    verdict: Literal["pass", "fail", "unknown"]
    reason: str | None


class PerfMember(TypedDict):
    """What one member was like meanwhile."""

    name: str
    role: str | None
    wal_fsync_p99_ms: float | None
    backend_commit_p99_ms: float | None
    cpu_cores: float | None
    round_trip_p50_ms: float | None
    round_trip_max_ms: float | None
    rss_before: int | None
    rss_after: int | None
    db_size_before: int | None
    db_size_after: int | None


class Perf(TypedDict):
    """The loads and pass marks of `etcdctl check`."""

    check: Literal["perf", "datascale"]
    load: Literal["s", "m", "l", "xl"]
    clients: int
    rate: float | None
    seconds: float | None
    pairs: int | None
    marks: NotRequired[list[PassMark]]
    members: NotRequired[list[PerfMember]]


class CapacityLimit(TypedDict):
    """What gave way first above a capacity."""

    rate: float
    broken: list[str]
    by: str
    evidence: list[str]


class CapacityStep(TypedDict):
    """Some time at one rate, in the search for a capacity."""

    rate: float
    achieved: float
    seconds: float
    phase: str
    decision: str | None
    sure: bool
    broken: list[str]
    growing: bool
    operations: int
    failed: int
    dropped: int
    in_flight: int
    values: list[float | None]
    p50_ms: float | None
    p99_ms: float | None
    start_lag_p99_ms: float | None
    fsync_p99_ms: float | None
    commit_p99_ms: float | None
    cpu_cores: float | None
    cpu_wait_share: float | None


class Capacity(TypedDict):
    """The highest rate at which thresholds hold, and how it was found."""

    method: str
    slos: list[str]
    start_rate: float
    max_rate: float | None
    precision: float
    rate: float | None
    low: float | None
    high: float | None
    is_lower_bound: bool
    limit: CapacityLimit | None
    steps: list[CapacityStep]
    load_s: float
    verdict: str
    reason: str | None


class Blocks(TypedDict, total=False):
    """What runs with faults, with a check, or for a capacity have beside the rest."""

    chaos: Chaos | None
    check: Check | None
    perf: Perf | None
    capacity: Capacity | None


class Schedule(TypedDict, total=False):
    """The parameters of an open loop."""

    stages: str | None
    step: str | None
    arrivals: Literal["constant", "poisson"] | None
    max_in_flight: int | None
    allow_rate_miss: bool | None


class Parameters(Schedule):
    """The parameters of a run, as result.json has them."""

    id: str | None
    started_at: str | None
    ended_at: str | None
    command: list[str] | None
    environment: NotRequired[dict[str, str | None] | None]
    seed: int | None
    scenario: str | None
    loop: Literal["closed", "open"] | None
    rate: float | None
    workers: int | None
    users: int | None
    transport: str | None
    key_size: int | None
    value_size: int | None
    key_space: int | None
    mix: dict[str, float] | None
    operations: int | None
    timeout_s: float | None
    warmup_s: float | None
    read_consistency: str | None
    connections: NotRequired[int | None]
    engine: NotRequired[Literal["auto", "python", "compiled"] | None]
    balance: NotRequired[str | None]
    prefix: str | None
    versions: dict[str, str | None] | None
    warmup: dict[str, int] | None
    preloaded_keys: int | None
    series_interval_s: NotRequired[float | None]
    duration_s: float | None
    requested_duration_s: float | None


class ResultThreshold(TypedDict):
    """A threshold and what came of it."""

    expression: str
    value: float | None
    verdict: str
    reason: str | None


class UnjudgedResult(Blocks):
    """A result before it is judged."""

    schema: Literal["raftload.result/1"]
    diagnosis: NotRequired[RunDiagnosisDocument | None]
    run: Parameters
    target: ResultTarget | None
    results: dict[str, Row | None]
    generator: Generator | None
    knee: NotRequired[Knee | None]
    books: Books | None
    interrupted: str | None
    aborted: NotRequired[Aborted | None]
    lost_workers: list[LostWorker]
    problems: list[str]
    notes: list[str]


class Result(UnjudgedResult):
    """``result.schema.json``."""

    thresholds: list[ResultThreshold]
    verdict: str
    verdict_reasons: list[str]


class Measured(TypedDict):
    """The workers' own count of one operation type, or of all."""

    operations: int
    succeeded: int
    failed: int
    info: NotRequired[int | None]
    duration_s: NotRequired[float | None]
    error_texts: NotRequired[dict[str, str]]
    branches: NotRequired[dict[str, int] | None]
    service: NotRequired[Latencies | None]


class Run(Blocks, Schedule):
    """``run.schema.json``."""

    schema: Literal["raftload.run/1"]
    id: NotRequired[str | None]
    scenario: NotRequired[str | None]
    started_at: NotRequired[str | None]
    ended_at: NotRequired[str | None]
    command: NotRequired[list[str] | None]
    environment: NotRequired[dict[str, str | None] | None]
    seed: NotRequired[int | None]
    loop: NotRequired[Literal["closed", "open"] | None]
    rate: NotRequired[float | None]
    workers: NotRequired[int | None]
    users: NotRequired[int | None]
    transport: NotRequired[str | None]
    key_size: NotRequired[int | None]
    value_size: NotRequired[int | None]
    key_space: NotRequired[int | None]
    mix: NotRequired[dict[str, float] | None]
    operations: NotRequired[int | None]
    timeout_s: NotRequired[float | None]
    warmup_s: NotRequired[float | None]
    read_consistency: NotRequired[str | None]
    connections: NotRequired[int | None]
    engine: NotRequired[Literal["auto", "python", "compiled"] | None]
    balance: NotRequired[str | None]
    prefix: NotRequired[str | None]
    versions: NotRequired[dict[str, str | None] | None]
    duration_s: NotRequired[float | None]
    warmup: NotRequired[dict[str, int] | None]
    preloaded_keys: NotRequired[int | None]
    series_interval_s: NotRequired[float | None]
    target: NotRequired[Target | None]
    measured: dict[str, Measured | None]
    generator: NotRequired[Generator | None]
    books: NotRequired[Books | None]
    interrupted: NotRequired[str | None]
    aborted: NotRequired[Aborted | None]
    abort_on: NotRequired[list[str] | None]
    lost_workers: NotRequired[list[LostWorker] | None]
    problems: NotRequired[list[str] | None]
    notes: NotRequired[list[str] | None]
    thresholds: NotRequired[list[str] | None]


NO_TARGET: ResultTarget = {
    "kind": None,
    "endpoints": None,
    "etcd_version": None,
    "requested_version": None,
    "members": None,
    "leader_changes": None,
    "wal_fsync_p99_ms": None,
    "backend_commit_p99_ms": None,
    "observed": None,
    "observer": None,
    "cpu_wait": None,
}
"""A target of which nothing is known."""

NO_GENERATOR: Generator = {
    "engine": None,
    "engine_reason": None,
    "cpu_us_per_op": None,
    "start_lag_p99_ms": None,
    "loop_lag_p99_ms": None,
    "in_flight_max": None,
    "scheduled": None,
    "dropped": None,
    "rate_reached": None,
    "resent": None,
    "saturated": None,
    "saturated_by": None,
    "workers_started": None,
    "workers_lost": None,
}
"""A load generator of which nothing is known."""


def not_reachable(result: Result) -> list[str]:
    """Return a sentence for each endpoint that did not answer before the load, and so got none of it."""
    endpoints = (result.get("target") or NO_TARGET).get("endpoints") or ()
    return [f"endpoint {each.get('url')} was not reachable" for each in endpoints if each.get("reachable") is False]


def short_of_cpu(result: Result) -> dict[str, str]:
    """Return in which ways a run's machine was short of CPU: the words for it, and what latencies are partly then."""
    found = {}
    if (result.get("generator") or NO_GENERATOR).get("saturated"):
        found["SATURATED"] = "the generator's own"
    wait = (result.get("target") or NO_TARGET).get("cpu_wait")
    if wait and wait["contended"]:
        found["CONTENDED"] = "the members' wait for a CPU"
    return found


def why_not_compared(result: Result) -> str:
    """Return why the acknowledged writes were not held against the store's revision; empty where they were."""
    books = result.get("books")
    if not books or books.get("balanced") is not None:
        return ""
    if result.get("lost_workers"):
        return "a worker was lost, and nobody knows what it wrote last"
    if books.get("revision_delta") is None:
        return "the cluster did not tell its revision after the load"
    if result["results"].get("lease_revoke"):
        return "etcd does not tell whether a lease that it revokes had keys"
    return "others may write to this cluster, too"
