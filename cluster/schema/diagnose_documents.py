"""The documents of a diagnosis, as types: its evidence, and its verdict."""

from typing import Literal, TypedDict


class TimesDocument(TypedDict):
    """How long something took, in milliseconds."""

    count: int
    failed: int
    p10_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    most_ms: float | None
    mean_ms: float | None
    wait_ms: float | None


class MemberEvidenceDocument(TypedDict):
    """What is known of one member."""

    name: str
    endpoint: str
    version: str
    leads: float
    learns: bool
    answers: float
    without_leader: float
    probes: dict[str, TimesDocument]
    histograms: dict[str, TimesDocument]
    rates: dict[str, float]
    counts: dict[str, int]
    highest: dict[str, float]
    cpu_wait_share: float | None


class ClientEvidenceDocument(TypedDict):
    """What is known of the client."""

    lag_p99_ms: float | None
    cpu_share: float | None
    saturated: bool | None
    why: str


class LoadEvidenceDocument(TypedDict):
    """What a run's load saw."""

    rate: float
    p50_ms: float | None
    p99_ms: float | None
    failed_share: float
    open: float
    asked: float | None
    operations: dict[str, TimesDocument]


class EvidenceDocument(TypedDict):
    """What is known of a cluster in one interval."""

    schema: str
    source: str
    seconds: float
    leaderless: float
    client: ClientEvidenceDocument
    load: LoadEvidenceDocument | None
    members: list[MemberEvidenceDocument]


Word = Literal["healthy", "disk", "cpu", "network", "overload", "client", "unsure"]


class FigureDocument(TypedDict):
    """A figure that decides: what it is, its value with its unit, and what it is held against."""

    name: str
    value: float
    unit: str
    limit: float | None


class VerdictDocument(TypedDict):
    """The answer for a cluster or a member.

    ``margin`` is how many times more the answer explains than ``next``, the next best; None where there is no other.
    """

    word: Word
    why: str
    figures: list[FigureDocument]
    next: Word | None
    margin: float | None
    advice: str


class MemberVerdictDocument(VerdictDocument):
    """The answer for one member."""

    name: str


class RunDiagnosisDocument(TypedDict):
    """The diagnosis of a run, as its result has it: without the evidence, which `raftload diagnose RUN` shows."""

    cluster: VerdictDocument
    members: list[MemberVerdictDocument]
    notes: list[str]


class DiagnosisDocument(TypedDict):
    """``raftload.diagnosis/1``."""

    schema: str
    source: str
    seconds: float
    cluster: VerdictDocument
    members: list[MemberVerdictDocument]
    notes: list[str]
    evidence: EvidenceDocument
