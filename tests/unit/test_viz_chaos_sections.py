"""A report of a run that broke a guarantee: the first violation first."""

from __future__ import annotations

import re
from pathlib import Path

from cluster.schema.run_documents import Check, Guarantee
from loadgen.check import report, rules
from viz.report import chaos_sections

HISTORIES = Path(__file__).parents[1] / "data" / "histories"


def test_the_first_violation_stands_first_and_the_rest_is_folded() -> None:
    checked = report.judged(HISTORIES / "etcd-13766-3.5.1")
    # As of an etcd that does not have the bug, of which nothing is known then.
    news: Check = {
        **checked,
        "news": checked["broken"],
        "explained": [],
        "guarantees": [_unknown(row) for row in checked["guarantees"]],
    }
    page = chaos_sections.violations({"check": news})
    broken = re.findall(r"<li><b>([\w.-]+)</b>, broken (once|[\d,]+ times): ", page)
    assert broken[0] == ("watch.members", "2,539 times")
    assert {name for name, _ in broken} >= {"convergence.keys", "durability.acknowledged"}
    assert page.index("Nearest fault: crash-random, etcd-node2 (1.565629 s to ") < page.index("kv.revisions</b>")
    assert page.count("Nearest fault") == 1
    assert "Violations, earliest first" in page
    # Twenty of each are kept; one is shown.
    assert page.count("<details>") == sum(times != "once" for _, times in broken)


def _unknown(row: Guarantee) -> Guarantee:
    return {**row, "unexplained": row["broken"], "violations": [{**each, "bug": None} for each in row["violations"]]}


def test_what_a_known_bug_explains_is_one_line() -> None:
    page = chaos_sections.violations({"check": report.judged(HISTORIES / "etcd-13766-3.5.1")})
    assert "earliest first" not in page
    assert page.count("<li>") == 1
    assert 'issues/13766">etcd#13766</a> (fixed in 3.5.3), 4,958 times: ' in page


def test_a_run_that_kept_its_guarantees_has_no_list_of_violations() -> None:
    checked = report.judged(HISTORIES / "healthy-3.5.30", rules.select(["kv", "txn"]))
    assert chaos_sections.violations({"check": checked}) == ""
    page = chaos_sections.guarantees({"check": checked})
    assert page.startswith("<details><summary>Guarantees: ") and " pass</summary>" in page
    assert page.count('<b class="pass">PASS</b>') > 10
    assert chaos_sections.guarantees({}) == ""
