"""The document of a comparison, ``raftload.compare/1``, as types.

`raftload compare`, `gate --baseline` and `ab` print it, and `viz` draws it. ``loadgen/schema/compare.schema.json`` says
what each field means; `tests/unit/test_documents.py` holds both to each other.
"""

from typing import Literal, TypedDict

Word = Literal["slower", "faster", "same", "cannot tell"]


class MoreRuns(TypedDict):
    """How many runs of each side are missing for a verdict."""

    base: int
    new: int


class ComparedRun(TypedDict):
    """A run of one side; ``doubts`` say why its figures are not etcd's alone."""

    id: str
    folder: str | None
    started_at: str | None
    etcd_version: str | None
    doubts: list[str]


class Side(TypedDict):
    """The runs of BASE or of NEW."""

    name: str
    runs: list[ComparedRun]


class FigureRow(TypedDict):
    """A figure of both sides; ``base`` and ``new`` are the geometric means of their runs' values."""

    name: str
    unit: Literal["ms", "1/s"]
    base: float
    new: float
    base_values: list[float]
    new_values: list[float]
    ratio: float
    interval: list[float] | None
    p: float | None
    noise: float | None
    verdict: Word
    words: str
    more: MoreRuns | None
    reason: str | None


class CompareMethod(TypedDict):
    """How it was judged."""

    design: Literal["runs", "pairs"]
    test: str
    alpha: float
    within: float
    power: float
    arrangements: int | None


class Compared(TypedDict):
    """``compare.schema.json``."""

    schema: Literal["raftload.compare/1"]
    base: Side
    new: Side
    method: CompareMethod
    differences: dict[str, list[str]]
    warnings: list[str]
    figures: list[FigureRow]
    verdict: Word
    words: str
    more: MoreRuns | None
    reasons: list[str]
