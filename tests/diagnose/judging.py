"""Whether diagnoses are right: of stored evidence, cause by cause, and as a table of labels and words."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from cluster.schema.diagnose_documents import Word
from loadgen.diagnose.facts import Evidence
from tests.diagnose.causes import CAUSES, Cause, Source
from tests.diagnose.rows import unpack

if TYPE_CHECKING:
    from cluster.schema.diagnose_documents import DiagnosisDocument

WORDS: tuple[Word, ...] = get_args(Word)
SOURCES: tuple[Source, ...] = get_args(Source)
Diagnose = Callable[[Evidence], "DiagnosisDocument"]


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A diagnosis of one source of one run, and what is right.

    Attributes:
        cause, etcd, run, source: which.
        of: the members that it was done to, by their names.
        word: the answer for the cluster.
        accused: the members whose own answer has that word.
        why: the answer's reason.
        notes: what is said beside it.
    """

    cause: Cause
    etcd: str
    run: int
    source: Source
    of: frozenset[str]
    word: Word
    accused: frozenset[str]
    why: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_right(self) -> bool:
        """Whether the word is the label, or `unsure` where that is allowed."""
        return self.word in self.cause.right

    @property
    def is_accused(self) -> bool:
        """Whether a healthy cluster is blamed for something."""
        return self.cause.label == "healthy" and self.word not in ("healthy", "unsure")

    @property
    def names_whom(self) -> bool | None:
        """Whether members are blamed to whom it was done, and no other; None where that is not asked."""
        if not self.is_right or self.word != self.cause.label or not self.cause.of:
            return None
        return bool(self.accused) and self.accused <= self.of

    @property
    def has_note(self) -> bool | None:
        """Whether what is said names what it has to; None where it has to name nothing."""
        if not self.cause.note:
            return None
        return any(self.cause.note.rstrip("s") in text.lower() for text in (self.why, *self.notes))

    def __str__(self) -> str:
        said = f"{self.word}, not {' or '.join(sorted(self.cause.right))}"
        which = f"{self.cause.name} on {self.etcd}, run {self.run}, {self.source}"
        return f"{which}: {said} ({self.cause.injected}): {self.why}"


def newest(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return of each cause, etcd and run the row that was stored last, of causes that there are."""
    found = {(row["cause"], row["etcd"], row["run_number"]): row for row in rows if row["cause"] in CAUSES}
    return [found[key] for key in sorted(found)]


def judge(rows: Iterable[Mapping[str, Any]], diagnose: Diagnose, half: str = "") -> list[Case]:
    """Diagnose the evidence of rows, of one half or of both, and return a case for each source that has a label."""
    cases = []
    for row in newest(rows):
        cause = CAUSES[row["cause"]]
        for source in cause.sources:
            if row[source] is None or half not in ("", cause.half):
                continue
            document = diagnose(Evidence.from_json(unpack(row[source])))
            answer = document["cluster"]
            accused = {each["name"] for each in document["members"] if each["word"] == answer["word"]}
            cases.append(Case(
                cause, row["etcd"], row["run_number"], source, frozenset(row["of"]), answer["word"],
                frozenset(accused), answer["why"], tuple(document["notes"]),
            ))  # fmt: skip
    return cases


def matrix(cases: Iterable[Case]) -> dict[Word, Counter[Word]]:
    """Return how often each label got each word. An `unsure` that is allowed stands with the others under `unsure`."""
    found: dict[Word, Counter[Word]] = {}
    for case in cases:
        found.setdefault(case.cause.label, Counter())[case.word] += 1
    return found


def table(cases: Sequence[Case]) -> list[str]:
    """Return the lines of a table in Markdown: labels down, words across."""
    found = matrix(cases)
    lines = [f"| injected | {' | '.join(WORDS)} | right |", f"|---|{'---:|' * (len(WORDS) + 1)}"]
    for label in WORDS:
        if label in found:
            of_label = [case for case in cases if case.cause.label == label]
            counts = " | ".join(str(found[label][word] or "") for word in WORDS)
            lines.append(f"| {label} | {counts} | {share(case.is_right for case in of_label)} |")
    return lines


def share(values: Iterable[bool | None]) -> str:
    """Return how many of those that are known are true, as ``19 of 20``; `none` without any."""
    known = [value for value in values if value is not None]
    return f"{sum(known)} of {len(known)}" if known else "none"


def summary(cases: Sequence[Case]) -> str:
    """Return the figures in a sentence."""
    right = sum(case.is_right for case in cases)
    percent = f"{100 * right / len(cases):.1f} %" if cases else "none"
    return (
        f"right in {right} of {len(cases)} ({percent}); healthy clusters accused: {sum(c.is_accused for c in cases)}; "
        f"the members that it was done to, and no other, named in {share(case.names_whom for case in cases)}; "
        f"notes as they should be in {share(case.has_note for case in cases)}"
    )
