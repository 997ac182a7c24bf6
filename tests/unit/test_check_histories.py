"""Histories of real runs, kept with their verdicts: what was judged once is judged the same ever after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.base.verdict import Verdict
from loadgen.check import report
from loadgen.check.judge import check
from loadgen.check.rules import select
from loadgen.history.reader import read

FOLDERS = sorted(path for path in (Path(__file__).parents[1] / "data" / "histories").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_verdicts(folder: Path) -> None:
    expected = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
    results = check(read(folder)).results
    for verdict in Verdict:
        assert [each.rule for each in results if each.verdict == verdict] == expected[verdict.value]
    broken = [each.findings[0] for each in results if each.findings]
    if broken:
        first = min(broken, key=lambda finding: finding.revision)
        assert {"guarantee": first.rule, "revision": first.revision} == expected["first"]


def test_a_healthy_run_is_all_evidence_and_no_fault() -> None:
    healthy = next(folder for folder in FOLDERS if folder.name.startswith("healthy"))
    document = report.judged(healthy, select(["kv", "durability", "convergence", "txn", "watch"]))
    assert document["verdict"] == "pass"
    assert all(row["judged"] for row in document["guarantees"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "etcd-13766-3.5.1",
            (
                " the watch on etcd-node2 ",
                "where the write was the put of jgr2/k00800=",
                "Nearest fault: crash-random, etcd-node2 (",
            ),
        ),
        (
            "etcd-18667-3.5.1",
            (
                " by process 65538 at etcd-node1 (",
                "required revision has been compacted) has an effect: the watch on",
                " saw the put of ",
            ),
        ),
        ("etcd-15220-3.5.1", (" was told that all events up to revision ", "and then got the event of ")),
    ],
)
def test_the_counterexample_is_one_that_a_reader_can_follow(name: str, words: tuple[str, ...]) -> None:
    document = report.judged(next(folder for folder in FOLDERS if folder.name == name))
    text = " ".join(report.render(document, color=False, width=100).split())
    assert "The first violation" not in text
    first = text[text.index("No news: each violation is of a known bug: ") :][:900]
    assert f"{'-'.join(name.split('-')[:2]).replace('-', '#')} (fixed in " in first
    assert all(each in first for each in words), first
