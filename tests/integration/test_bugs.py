"""The scenarios of known bugs: shown on an etcd that has the bug, and not on one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.base.binary import find_etcd
from loadgen.bugs import trial
from loadgen.bugs.catalogue import catalogue
from loadgen.bugs.trial import Found
from loadgen.check import report

# One of each kind: a lease over a restart, a struck system call, members, a full store, users. All of them are tried by
# `python -m tests.soak.bugs`, several times each.
STRUCK = pytest.param("18810", marks=pytest.mark.strikes)


@pytest.mark.parametrize("issue", ["12535", STRUCK, "21694", "22386", "CVE-2026-33343"])
def test_a_certain_scenario_shows_its_bug(issue: str, wheel_etcd: str, tmp_path: Path) -> None:
    scenario, binary = catalogue()[issue], find_etcd(wheel_etcd)
    assert scenario.certain
    assert scenario.bug.is_in(binary.version)
    found = trial.run(scenario, binary, tmp_path)
    assert found.found is Found.AFFECTED, found
    assert found.rule in scenario.breaks


@pytest.mark.parametrize("issue", [STRUCK, "CVE-2026-33343"])
def test_a_certain_scenario_finds_nothing_where_the_bug_is_fixed(issue: str, fixed_etcd: str, tmp_path: Path) -> None:
    scenario, binary = catalogue()[issue], find_etcd(fixed_etcd)
    assert not scenario.bug.is_in(binary.version)
    found = trial.run(scenario, binary, tmp_path)
    assert found.found is Found.NOT_AFFECTED, found


def test_a_member_that_starts_while_the_store_is_full_parts(fixed_etcd: str, tmp_path: Path) -> None:
    """What the general campaign met in etcd 3.5.35, where #22386 is open, with its smallest history."""
    trial.run(catalogue()["22386"], find_etcd(fixed_etcd), tmp_path)
    _, checked = report.found(tmp_path / "try-1")
    findings = {result.rule: result.findings[0] for result in checked.results if result.findings}
    assert findings.keys() == {"auth.denied", "convergence.revision"}
    assert {finding.issue for finding in findings.values()} == {"22386"}
