"""Histories of a small etcd that keeps every promise, with concurrency, lagging members and lost answers: all pass."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.base.verdict import Verdict
from loadgen.check.judge import check
from loadgen.check.rules import OF_HISTORY
from loadgen.history.reader import read
from tests.support.examples import examples
from tests.support.model import Simulation

SEEDS = st.integers(0, 2**32)
ABSENT = {"lease.early", "lease.together", "lease.attached", "raft.term", "raft.leader", "watch.resumable"}
JUDGED = [rule for rule in OF_HISTORY if rule not in ABSENT]


@settings(max_examples=examples(40), deadline=None)
@given(seed=SEEDS, unknown=st.sampled_from((0.0, 0.05, 0.4)), processes=st.integers(1, 12))
def test_what_keeps_its_promises_passes(seed: int, unknown: float, processes: int) -> None:
    script = Simulation(seed, processes=processes, unknown=unknown).run(120)
    with tempfile.TemporaryDirectory() as folder:
        results = check(read(script.write(Path(folder))), JUDGED).results
    assert {result.rule: result.findings for result in results if result.findings} == {}
    assert {result.rule: result.reason for result in results if result.verdict == Verdict.UNKNOWN} == {}


@settings(max_examples=examples(60), deadline=None)
@given(seed=SEEDS, processes=st.integers(2, 12))
def test_any_of_many_unsure_deletions_may_have_done_it(seed: int, processes: int) -> None:
    """Deletions have no value that tells one from another; only when they were invoked does."""
    script = Simulation(seed, processes=processes, unknown=0.5, keys=3, weights=(6, 1, 0, 6, 0, 0)).run(120)
    random.Random(seed).shuffle(script.ops)
    with tempfile.TemporaryDirectory() as folder:
        results = check(read(script.write(Path(folder)))).results
    assert {result.rule: result.findings for result in results if result.findings} == {}


@settings(max_examples=examples(20), deadline=None)
@given(seed=SEEDS)
def test_without_watches_nothing_false_is_found(seed: int) -> None:
    script = Simulation(seed, unknown=0.2).run(120)
    script.streams.clear()
    with tempfile.TemporaryDirectory() as folder:
        results = check(read(script.write(Path(folder)))).results
    assert {result.rule: result.findings for result in results if result.findings} == {}
    assert all(result.verdict == Verdict.UNKNOWN for result in results if result.rule.startswith("watch"))


@settings(max_examples=examples(20), deadline=None)
@given(seed=SEEDS, keep=st.floats(0.2, 1.0))
def test_lost_records_are_no_evidence(seed: int, keep: float) -> None:
    """Operations that a killed worker took with it may explain anything: nothing is broken because they are absent."""
    script = Simulation(seed).run(120)
    ops = [op for op in script.ops if not op.final]
    script.ops = ops[: int(len(ops) * keep)] + [op for op in script.ops if op.final]
    script.cut = True
    with tempfile.TemporaryDirectory() as folder:
        results = check(read(script.write(Path(folder)))).results
    assert {result.rule: result.findings for result in results if result.findings} == {}
