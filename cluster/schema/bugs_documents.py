"""The document of the known bugs that an etcd was tried for, ``raftload.bugs/1``, as types.

`raftload bugs` prints it. ``loadgen/schema/bugs.schema.json`` says what each field means;
`tests/unit/test_documents.py` holds both to each other.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class BugRow(TypedDict):
    """One bug, and what its trial has shown."""

    issue: str
    name: str
    summary: str
    url: str
    fixed_in: list[str]
    listed: bool
    certain: bool
    found: str
    guarantee: str | None
    promise: str | None
    violation: str | None
    reason: str | None
    seconds: float
    tries: int
    folder: str | None


class TriedEtcd(TypedDict):
    """One etcd."""

    version: str
    path: str
    source: str
    bugs: list[BugRow]


class Bugs(TypedDict):
    """``bugs.schema.json``."""

    schema: Literal["raftload.bugs/1"]
    thorough: bool
    seed: int
    etcds: list[TriedEtcd]
    stopped_by: str | None
    verdict: str
