"""A diagnosis as text, and as JSON: what an operator reads, and what programs get."""

from __future__ import annotations

import re

import jsonschema
import pytest

from cluster.schema.diagnose_documents import DiagnosisDocument
from loadgen import schema
from loadgen.diagnose.answer import WORDS, Answer, Diagnosis, Figure
from loadgen.diagnose.answer_table import figure_text, number, render
from loadgen.diagnose.facts import Evidence, MemberEvidence, Times

SYNC = "etcd-node2's syncs of its log take 61 ms (p99; 10 ms are usual)"
SLOW = Answer(
    "disk", SYNC, [Figure("sync of the log, p99", 61.04, "ms", 10), Figure("put, p90", 74.3, "ms")],
    "network", 4.13, "Put the data folders on a disk that syncs in less than 10 ms.",
)  # fmt: skip
FINE = Answer("healthy", "", [Figure("sync of the log, p99", 3.9, "ms", 10)])


def diagnosis(slow: Answer = SLOW, **more: list[str]) -> Diagnosis:
    names = ("etcd-node1", "etcd-node2", "etcd-node3")
    members = tuple(
        MemberEvidence(name, "127.0.0.1:2379", "3.5.1", leads=float(name == names[0]), learns=name == names[2],
                       probes={"put": Times.of([1.0, 2.0])}, counts={"restarts": 0})
        for name in names
    )  # fmt: skip
    answers = {name: slow if name == names[1] else FINE for name in names}
    return Diagnosis(slow, answers, Evidence("probes", 60.02, members), **more)


def shown(found: Diagnosis, width: int = 100, *, color: bool = False) -> str:
    return render(found.to_json(), color=color, width=width)


def test_what_an_operator_reads() -> None:
    assert (
        shown(diagnosis(notes=["puts are not measured"]))
        == """\
disk: etcd-node2's syncs of its log take 61 ms (p99; 10 ms are usual)

MEMBER      ROLE      ANSWER   WHAT DECIDES
etcd-node1  leader    healthy  sync of the log, p99: 3.9 ms (10 ms are usual)
etcd-node2  follower  disk     sync of the log, p99: 61 ms (10 ms are usual); put, p90: 74.3 ms
etcd-node3  learner   healthy  sync of the log, p99: 3.9 ms (10 ms are usual)

next best   network (explains 4.1 times less)
what to do  Put the data folders on a disk that syncs in less than 10 ms.
note        puts are not measured
evidence    60 s of probes at 3 members"""
    )


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    slow = Answer("disk", f"{SYNC} " * 4, SLOW.figures, "network", 2.0, "Do something about it. " * 12)
    text = shown(diagnosis(slow, notes=["a long note " * 20]), width)
    assert max(map(len, text.splitlines())) <= width
    assert [word for word in text.split() if word == "etcd-node2"]


def test_colour_only_where_it_is_asked_for() -> None:
    plain, coloured = shown(diagnosis()), shown(diagnosis(), color=True)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    assert coloured.startswith("\x1b[1;31mdisk: ")
    assert "\x1b[32mhealthy\x1b[0m" in coloured


def test_a_healthy_cluster_has_no_next_best_and_nothing_to_do() -> None:
    text = shown(diagnosis(Answer("healthy", "nothing is slow")))
    assert text.startswith("healthy: nothing is slow\n")
    assert "next best" not in text
    assert "what to do" not in text


def test_a_text_of_somebody_else_stays_on_its_line() -> None:
    assert "\x1b" not in shown(diagnosis(Answer("unsure", "a name with \x1b[31m\nin it")))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (61.04, "61"), (4.13, "4.13"), (0.02171, "0.0217"), (12_345.6, "12,346"), (100.4, "100")],
)  # fmt: skip
def test_numbers_have_the_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_a_figure_says_its_unit_and_what_is_usual() -> None:
    assert figure_text(Figure("put, p90", 74.3, "ms").to_json()) == "put, p90: 74.3 ms"
    assert figure_text(Figure("elections", 3, "", 0).to_json()) == "elections: 3 (0 is usual)"


@pytest.mark.parametrize("word", WORDS)
def test_the_document_is_as_its_schema_says(word: str) -> None:
    document: DiagnosisDocument = diagnosis(Answer(word, "why", SLOW.figures, None, None)).to_json()  # type: ignore[arg-type]
    jsonschema.validate(document, dict(schema.load("diagnosis")))
    assert schema.problem(document, "diagnosis") is None


def test_further_notes_stand_before_those_of_the_rules() -> None:
    assert diagnosis(notes=["b"]).noting(["a"]).to_json()["notes"] == ["a", "b"]
