"""The answer of a diagnosis: one word for the cluster and for each member, with the figures that decide."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.schema.diagnose_documents import DiagnosisDocument, FigureDocument, VerdictDocument, Word
    from loadgen.diagnose.facts import Evidence

SCHEMA = "raftload.diagnosis/1"
LEAST_S, LEAST_OF_RUN_S = 5.0, 2.0
"""Seconds of probes, and of a run, of which there is a diagnosis: some ten questions to each member."""

WORDS: Mapping[Word, str] = {
    "healthy": "nothing is slow",
    "disk": "syncs to disk take long",
    "cpu": "a member waits for its processor",
    "network": "messages take long, between members or between client and members",
    "overload": "the cluster is asked for more than it can do",
    "client": "whoever measured was too busy to measure",
    "unsure": "it is slow, and the figures have more than one explanation",
}
"""The words, and what each says."""


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """A figure that decides.

    Attributes:
        name: what it is, such as ``sync of the log, p99``.
        value: how much.
        unit: of both numbers, such as ``ms``; empty where there is none.
        limit: up to where it is usual; None where no such bound is known.
    """

    name: str
    value: float
    unit: str = ""
    limit: float | None = None

    def to_json(self) -> FigureDocument:
        """Return it as plain values."""
        return {"name": self.name, "value": round(self.value, 4), "unit": self.unit, "limit": self.limit}


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What is slow.

    Attributes:
        word: one of WORDS.
        why: the same in a sentence, with what decides: ``etcd-node2's syncs of its log take 61 ms (p99; 10 ms are
            usual)``.
        figures: what decides, the most telling first.
        next: the next best word; None where no other comes near.
        margin: how many times more the word explains than that; None where there is none.
        advice: what to do about it; empty where nothing is to be done.
    """

    word: Word
    why: str
    figures: Sequence[Figure] = ()
    next: Word | None = None
    margin: float | None = None
    advice: str = ""

    @property
    def exit_code(self) -> int:
        """Of a command that comes to it: 0 healthy, 3 unsure, 1 any other word."""
        return {"healthy": 0, "unsure": 3}.get(self.word, 1)

    def to_json(self) -> VerdictDocument:
        """Return it as plain values."""
        return {
            "word": self.word, "why": self.why, "figures": [each.to_json() for each in self.figures], "next": self.next,
            "margin": None if self.margin is None else round(self.margin, 2), "advice": self.advice,
        }  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """The answers, and the evidence that they are made of.

    Attributes:
        cluster: for the cluster as a whole.
        members: for each member, by its name.
        evidence: what they are made of.
        notes: what a reader should know beside that, a sentence each.
    """

    cluster: Answer
    members: Mapping[str, Answer]
    evidence: Evidence
    notes: Sequence[str] = ()

    def noting(self, notes: Sequence[str]) -> Diagnosis:
        """Return the same with further notes before its own."""
        return dataclasses.replace(self, notes=(*notes, *self.notes))

    def to_json(self) -> DiagnosisDocument:
        """Return it as ``cluster/schema/diagnose_documents.py`` has it."""
        return {
            "schema": SCHEMA,
            "source": self.evidence.source,
            "seconds": round(self.evidence.seconds, 3),
            "cluster": self.cluster.to_json(),
            "members": [{"name": name, **answer.to_json()} for name, answer in self.members.items()],
            "notes": list(self.notes),
            "evidence": self.evidence.to_json(),
        }


def number(value: float) -> str:
    """Return a number with three digits that count: ``61``, ``4.13``, ``0.0217``, ``12,300``."""
    if not value or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
