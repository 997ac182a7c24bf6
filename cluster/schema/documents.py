"""The documents that the `cluster` and `etcd` commands print with --json, as types.

The JSON Schemas beside this module say what each field means; `tests/unit/test_documents.py` holds both to each other.
"""

from typing import Literal, NotRequired, TypedDict


class MemberState(TypedDict):
    """A member of `ClusterState`."""

    name: str
    endpoint: str
    state: str
    isolated: bool
    disk: Literal["slow", "stuck", "failing", "full"] | None
    answers: bool
    role: str | None
    member_id: str | None
    term: int | None
    applied_index: int | None
    revision: int | None
    db_size: int | None
    version: str | None
    storage_version: str | None
    db_quota: int | None
    downgrade_to: str | None
    reason: str | None


class RaisedAlarm(TypedDict):
    """An alarm of a member."""

    member_id: str
    alarm: str


class ReportedState(TypedDict):
    """The part of `ClusterState` that the members say themselves."""

    quorum: bool | None
    leader: str | None
    term: int | None
    members: list[MemberState]
    endpoints: list[str]
    alarms: list[RaisedAlarm]


class ClusterAccess(TypedDict):
    """How the members of `ClusterState` are reached; each None where that is not needed."""

    cacert: str | None
    cert: str | None
    key: str | None
    user: str | None
    password_file: str | None


class ClusterOrigin(TypedDict):
    """The part of `ClusterState` that says how the cluster was made; all None for one that is not ours."""

    backend: str | None
    nodes: int | None
    version: str | None
    requested_version: str | None
    image: str | None
    source: str | None
    links: str | None
    created_at: str | None
    etcd_args: list[str] | None
    access: ClusterAccess | None
    disk_faults: bool | None


class ClusterState(ClusterOrigin, ReportedState):
    """``cluster.schema.json``."""

    schema: Literal["raftload.cluster/1"]
    done: NotRequired[str]
    duration_s: NotRequired[float]


class FaultEffect(TypedDict):
    """``fault.schema.json``, without the name of the schema."""

    fault: str
    members: list[str]
    before: str | None
    leader: str | None
    term: int | None
    quorum: bool
    took_s: float
    text: str


class FaultDone(FaultEffect):
    """``fault.schema.json``."""

    schema: Literal["raftload.fault/1"]


class Removed(TypedDict):
    """``removed.schema.json``."""

    schema: Literal["raftload.removed/1"]
    removed: list[str]


class Release(TypedDict):
    """A release of `Releases`."""

    version: str
    platform: str
    path: str
    size_bytes: int
    sha256: str | None
    url: str | None
    fetched_at: str | None


class Releases(TypedDict):
    """``releases.schema.json``."""

    schema: Literal["raftload.releases/1"]
    folder: str
    releases: list[Release]


class TestedMember(TypedDict):
    """A member of `ConformanceTarget`."""

    name: str
    endpoint: str
    member_id: str


class Unreachable(TypedDict):
    """An endpoint that did not answer."""

    endpoint: str
    reason: str


class ConformanceTarget(TypedDict):
    """What the conformance tests were run against."""

    kind: str
    version: str
    requested_version: str | None
    transport: str
    members: list[TestedMember]
    unreachable: list[Unreachable]


class ConformanceTest(TypedDict):
    """A test of `Conformance`."""

    name: str
    group: str
    promise: str
    verdict: str
    reason: str
    duration_s: float
    figures: dict[str, float]


# "pass" is a keyword, so the names stand in a call.
ConformanceSummary = TypedDict("ConformanceSummary", {"pass": int, "fail": int, "unknown": int, "skip": int})


class Conformance(TypedDict):
    """``conformance.schema.json``."""

    schema: Literal["raftload.conformance/1"]
    started_at: str
    duration_s: float
    target: ConformanceTarget
    tests: list[ConformanceTest]
    summary: ConformanceSummary
    verdict: str
