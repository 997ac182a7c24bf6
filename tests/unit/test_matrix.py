"""The version matrix: which cells are still to run, and the document that is made of what ran."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.matrix import __main__ as matrix
from tests.matrix import document, evidence
from tests.matrix.cells import CELLS, explained
from tests.matrix.evidence import Evidence, Outcome
from tests.matrix.place import CellFailed
from tests.matrix.targets import TARGETS
from tests.support.checkout import code_hash


def ran(
    target: str, cell: str, outcome: Outcome = "ok", *, version: str = "", code: str = "c0de", figures: str = "7 of 7"
) -> Evidence:
    return Evidence(
        "2026-01-02T03:04:05Z", "abc", code, target, version or f"{target}.9", cell, outcome, figures, seconds=1.5
    )


PAIRS = [("3.7", "embedded"), ("3.7", "chaos"), ("3.6", "embedded")]
VERSIONS = {"3.7": "3.7.9", "3.6": "3.6.9"}


@pytest.mark.parametrize("outcome", ["ok", "known", "not-applicable"])
def test_what_did_not_fail_need_not_run_again(outcome: Outcome) -> None:
    records = [ran("3.7", "embedded", outcome)]
    assert evidence.to_run(PAIRS, records, "c0de", VERSIONS) == PAIRS[1:]


@pytest.mark.parametrize(
    "records",
    [
        [],
        [ran("3.7", "embedded", "failed")],
        [ran("3.7", "embedded", code="0ther")],
        [ran("3.7", "embedded", version="3.7.8")],
        [ran("3.7", "embedded"), ran("3.7", "embedded", "failed")],  # the last one counts
        [ran("3.5", "embedded")],
    ],
)
def test_what_failed_or_ran_on_something_else_runs_again(records: list[Evidence]) -> None:
    assert evidence.to_run(PAIRS, records, "c0de", VERSIONS) == PAIRS


def test_the_evidence_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "evidence" / "versions.jsonl"
    assert evidence.read(path) == []
    records = [ran("3.7", "embedded", figures="p50 1 ms | “so”"), ran("3.6", "chaos", "known")]
    for each in records:
        evidence.append(path, each)
    assert evidence.read(path) == records
    path.write_text(path.read_text() + '{"time": "2026-')  # cut short by a full disk
    assert evidence.read(path) == records


def test_a_record_after_one_that_was_cut_has_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "versions.jsonl"
    path.write_text('{"time": "2026-')
    evidence.append(path, ran("3.7", "embedded"))
    with pytest.raises(ValueError, match=r"versions\.jsonl, line 1: "):
        evidence.read(path)
    assert '"embedded"' in path.read_text().splitlines()[1]


def test_an_outcome_that_there_is_not(tmp_path: Path) -> None:
    path = tmp_path / "versions.jsonl"
    for outcome in ("fine", "ok"):
        evidence.append(path, dataclasses.replace(ran("3.7", "embedded"), outcome=outcome))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="line 1: no outcome 'fine'"):
        evidence.read(path)


def test_the_code_is_what_cells_measure(tmp_path: Path) -> None:
    for folder in evidence.CODE:
        (tmp_path / folder / "__pycache__").mkdir(parents=True)
    first = code_hash(tmp_path, evidence.CODE)
    (tmp_path / "cluster" / "__pycache__" / "a.pyc").write_text("compiled")
    (tmp_path / "loadgen" / "core.cpython-311-x86_64-linux-gnu.so").write_text("compiled")
    (tmp_path / "README.md").write_text("text")
    assert code_hash(tmp_path, evidence.CODE) == first
    (tmp_path / "viz" / "a.py").write_text("1")
    second = code_hash(tmp_path, evidence.CODE)
    (tmp_path / "viz" / "a.py").rename(tmp_path / "viz" / "b.py")
    assert len({first, second, code_hash(tmp_path, evidence.CODE)}) == 3


# The document


def row(text: str, title: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {title} |"))
    return line.strip("| ").split(" | ")[1:]


def test_a_cell_that_did_not_run_says_so() -> None:
    text = document.render([ran("3.7", "embedded"), ran("3.4.23", "embedded", "failed", version="3.4.23")])
    assert row(text, "embedded cluster") == ["**failed**", "not run", "not run", "not run", "ok"]
    assert row(text, "two minutes of `chaos`") == ["not run"] * len(TARGETS)
    assert "| | 3.4.23 | 3.5.1 | 3.5, newest | 3.6, newest | 3.7.9 |" in text.replace("|  |", "| |")


def test_only_the_newest_release_of_a_minor_counts() -> None:
    text = document.render([ran("3.7", "embedded", version="3.7.3"), ran("3.7", "chaos", "known", version="3.7.4")])
    assert row(text, "embedded cluster")[-1] == "not run"
    assert row(text, "two minutes of `chaos`")[-1] == "known bug"
    assert "3.7.3" not in text


def test_the_last_run_of_a_cell_counts_and_the_code_of_each_is_named() -> None:
    text = document.render(
        [
            ran("3.7", "embedded", "failed", code="old"),
            ran("3.7", "embedded", code="new"),
            ran("3.7", "chaos", code="old"),
        ]
    )
    assert row(text, "embedded cluster")[-1] == "ok"
    assert [line for line in text.splitlines() if line.startswith(("| old |", "| new |"))] == [
        "| new | abc | 1 | 2026-01-02T03:04:05Z | 2026-01-02T03:04:05Z |",
        "| old | abc | 1 | 2026-01-02T03:04:05Z | 2026-01-02T03:04:05Z |",
    ]


def test_figures_cannot_break_a_table() -> None:
    assert "a \\| b" in document.render([ran("3.7", "embedded", figures="a | b")])


def test_the_document_that_is_there_says_what_the_evidence_says() -> None:
    assert matrix.DOCUMENT.read_text() == document.render(evidence.read(matrix.EVIDENCE)), "`make matrix` writes it"


# What a known bug explains


@pytest.mark.parametrize(
    ("version", "broken", "issue"),
    [
        ("3.4.23", {"watch.bookmarkable"}, "etcd#15220"),
        ("3.5.1", {"convergence.keys", "kv.reads", "txn.responses"}, "etcd#13766"),
        ("3.4.23", {"watch.reliable"}, "etcd#18089"),
        ("3.5.1", {"watch.atomic"}, "etcd#18089"),
    ],
)
def test_a_known_bug_is_named(version: str, broken: set[str], issue: str) -> None:
    assert explained(broken, version).startswith(f"{issue} (")


@pytest.mark.parametrize(
    ("version", "broken", "left"),
    [
        ("3.7.3", {"watch.bookmarkable"}, "watch.bookmarkable"),
        ("3.5.35", {"convergence.keys"}, "convergence.keys"),
        ("3.5.35", {"watch.atomic"}, "watch.atomic"),
        ("3.4.23", {"watch.bookmarkable", "kv.reads"}, "kv.reads"),
        ("3.5.1", {"kv.reads"}, "kv.reads"),  # members that have the same keys have missed none
        ("3.5.1", {"convergence.keys", "raft.leader"}, "raft.leader"),
    ],
)
def test_what_no_known_bug_explains_fails(version: str, broken: set[str], left: str) -> None:
    with pytest.raises(CellFailed, match=f"no known bug of etcd {version} explains it: {left}$"):
        explained(broken, version)


# What is chosen


def test_only_takes_versions_and_cells() -> None:
    assert len(matrix.choose([])) == len(TARGETS) * len(CELLS)
    assert matrix.choose(["3.6:chaos", "3.7:docker"]) == [("3.7", "docker"), ("3.6", "chaos")]
    assert [target for target, _ in matrix.choose(["3.5.1"])] == ["3.5.1"] * len(CELLS)


@pytest.mark.parametrize(("only", "said"), [("3.8", "no version '3.8'"), ("3.7:nothing", "no cell 'nothing'")])
def test_what_there_is_not_is_refused(only: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        matrix.main(["--list", "--only", only])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_names_of_cells_are_all_different() -> None:
    assert len({cell.name for cell in CELLS}) == len(CELLS)
