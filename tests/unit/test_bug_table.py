"""The verdict of a trial by the results of the check, and the document of `raftload bugs` in each of its forms."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import jsonschema
import pytest

from cluster.base.binary import EtcdBinary
from cluster.base.errors import UsageError
from cluster.base.exits import BUG, Failure, ListenerError
from cluster.base.known_bugs import BUGS, bug_of, known_bug, known_bugs
from cluster.base.verdict import Verdict
from loadgen import schema
from loadgen.bugs import bug_table, parallel, trial
from loadgen.bugs.catalogue import catalogue, select
from loadgen.bugs.parallel import Trial
from loadgen.bugs.scenario import Scenario
from loadgen.bugs.trial import Found, Outcome
from loadgen.check.rules import RULES, Finding, Result
from loadgen.check.signatures import SIGNATURES
from loadgen.cli import bugs
from loadgen.client.actor import UNARY
from loadgen.history import operation
from loadgen.history.calls import Call, Plain
from tests.support.command import ROOT

if TYPE_CHECKING:
    from cluster.schema.bugs_documents import Bugs

OLD = EtcdBinary("/old/etcd", "3.5.1", "--etcd")
NEW = EtcdBinary("/new/etcd", "3.6.16", "official release")
SURE = Scenario("14110", ("member.lives", "kv.reads"), lambda stage: None, fits=lambda finding: "txn" in finding.text)
LUCKY = Scenario(
    "15220", ("watch.bookmarkable",), lambda stage: None, certain=False, fits=lambda finding: "ahead" in finding.text
)


def _broken(rule: str, text: str) -> Result:
    return Result(rule, Verdict.FAIL, 5, 1, (Finding(rule, 0, text),))


def _call(method: str, request: Plain = MappingProxyType({}), error: str = "") -> Call:
    outcome, answer = (operation.Outcome.INFO, None) if error else (operation.Outcome.OK, {})
    return Call(1, "", "etcd-node1", method, request, answer, 0, 1, outcome, error)


LUCKY_LIFE = Scenario("14110", ("member.lives",), lambda stage: None, certain=False)
KEPT = Result("member.lives", Verdict.PASS, 1)
OPEN = Result("member.lives", Verdict.UNKNOWN, 4, reason="the record of calls is cut")
UNTESTED = Result("kv.reads", Verdict.UNKNOWN, 0, reason="nothing in the history tests it")


@pytest.mark.parametrize(
    ("scenario", "results", "found"),
    [
        (SURE, [_broken("member.lives", "it ended in a txn"), UNTESTED], Found.AFFECTED),
        (SURE, [_broken("member.lives", "the disk is full")], Found.NOT_AFFECTED),
        (SURE, [KEPT, UNTESTED], Found.NOT_AFFECTED),
        (SURE, [UNTESTED], Found.NOT_TRIED),
        (SURE, [OPEN, UNTESTED], Found.NOT_TRIED),
        (SURE, [], Found.NOT_TRIED),
        (LUCKY, [Result("watch.bookmarkable", Verdict.PASS, 9)], Found.NOT_SHOWN),
        (LUCKY, [_broken("watch.bookmarkable", "ran ahead")], Found.AFFECTED),
    ],
)
def test_the_verdict_goes_by_the_rules_that_the_scenario_names(
    scenario: Scenario, results: list[Result], found: Found
) -> None:
    assert trial.verdict(scenario, {result.rule: result for result in results}).found is found


@pytest.mark.parametrize(
    ("error", "found"),
    [
        ("DEADLINE_EXCEEDED", Found.NOT_TRIED),
        ("UNAVAILABLE", Found.NOT_TRIED),
        ("connection refused", Found.NOT_TRIED),
        ("Timeout", Found.NOT_TRIED),
        ("NoLeader", Found.NOT_TRIED),
        ("PermissionDenied", Found.NOT_AFFECTED),  # an answer
        ("UNIMPLEMENTED", Found.NOT_AFFECTED),
        ("killed", Found.NOT_AFFECTED),  # by the scenario
    ],
)
def test_where_a_call_got_no_answer_nothing_was_tried(error: str, found: Found) -> None:
    def outcome(scenario: Scenario, *calls: Call, **broken: Result) -> Found:
        return trial.verdict(scenario, {"member.lives": KEPT, **broken}, calls).found

    lost = _call("Txn", {"success": [1]}, error)
    assert outcome(SURE, _call("Put"), lost, _call("Txn")) is found
    # What needs luck is not shown either way.
    assert outcome(LUCKY_LIFE, lost) is Found.NOT_SHOWN
    assert outcome(dataclasses.replace(SURE, unanswered=("Txn",)), lost) is Found.NOT_AFFECTED
    assert outcome(SURE, lost, _call("Txn", {"success": [1]})) is Found.NOT_AFFECTED  # asked again, and answered
    assert outcome(SURE, lost, **{"member.lives": _broken("member.lives", "in a txn")}) is Found.AFFECTED


def test_the_reason_names_what_got_no_answer_once() -> None:
    calls = [_call("Put", {"key": key}, "Timeout") for key in "ab"]
    outcome = trial.verdict(SURE, {"member.lives": KEPT, "kv.once": _broken("kv.once", "twice")}, calls)
    assert outcome.reason == "no answer to Put at etcd-node1 (Timeout); broken in another way: kv.once"


def test_what_may_get_no_answer_is_a_method() -> None:
    methods = {rpc.name for rpc in UNARY.values()} | {"LeaseKeepAlive", "Snapshot", "Watch"}
    for scenario in catalogue().values():
        assert set(scenario.unanswered) <= methods, scenario.issue


def test_what_breaks_in_another_way_is_told() -> None:
    outcome = trial.verdict(SURE, {"member.lives": KEPT, "kv.once": _broken("kv.once", "twice")})
    assert outcome.found is Found.NOT_AFFECTED
    assert outcome.reason == "broken in another way: kv.once"


@pytest.mark.parametrize(
    ("issue", "rule", "said", "is_it"),
    [
        ("14110", "member.lives", "unexpected error during txn: context canceled", True),
        ("14110", "member.lives", "unexpected error during readonly txn", False),  # which ends it by #14891
        ("22376", "member.lives", "range failed to find revision pair", True),
        ("22376", "member.lives", "no space left on device", False),
        ("22376", "kv.reads", "", True),
    ],
)
def test_a_member_that_ends_has_to_say_why(issue: str, rule: str, said: str, is_it: bool) -> None:
    assert catalogue()[issue].is_shown_by(Finding(rule, 0, "", said=said)) is is_it


def _document(**outcomes: Outcome) -> Bugs:
    """Return the document of the two scenarios on both etcds."""
    rows = []
    for binary, where in ((OLD, "old"), (NEW, "new")):
        trials = [(each, Trial(each, binary, Path("tried") / where / each.issue)) for each in (SURE, LUCKY)]
        rows.append(
            (binary, [bug_table.row(made, outcomes.get(f"{where}_{each.issue}", _NOT)) for each, made in trials])
        )
    return bug_table.document(rows, thorough=False, seed=1, stopped_by=None)


_NOT = Outcome(Found.NOT_AFFECTED, 1.0, 1)
_SHOWN = Outcome(Found.AFFECTED, 1.5, 1, rule="member.lives", violation="etcd-node1 ended by itself")
_UNSHOWN = Outcome(Found.NOT_SHOWN, 61.2, 2)
_UNTRIED = Outcome(Found.NOT_TRIED, 0.1, 1, reason="no seccomp here")


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ({}, "pass"),
        ({"old_14110": _SHOWN}, "fail"),
        ({"old_14110": _SHOWN, "new_14110": _UNTRIED}, "fail"),
        ({"new_14110": _UNTRIED}, "unknown"),
        # What is not shown is open only where the version is known to have it.
        ({"old_15220": _UNSHOWN}, "unknown"),
        ({"new_15220": _UNSHOWN}, "pass"),
    ],
)
def test_the_verdict_on_all(outcomes: dict[str, Outcome], verdict: str) -> None:
    document = _document(**outcomes)
    jsonschema.validate(document, dict(schema.load("bugs")))
    assert schema.problem(document, "bugs") is None
    assert document["verdict"] == verdict


def test_what_a_signal_ended_is_no_pass() -> None:
    assert bug_table.document([(OLD, [])], thorough=False, seed=1, stopped_by="SIGINT")["verdict"] == "unknown"


def test_the_text_has_what_breaks_and_where_it_is_fixed() -> None:
    document = _document(old_14110=_SHOWN, old_15220=_UNSHOWN, new_14110=_UNTRIED)
    text = bug_table.render(document, color=False)
    line = next(line for line in text.splitlines() if line.startswith("  etcd#14110"))
    assert line.split()[:4] == ["etcd#14110", "affected", "member.lives", "3.5.5"]
    assert "not shown in 61 s" in text
    assert "etcd-node1 ended by itself" in text
    assert f"broken: {RULES['member.lives']}" in text
    assert bug_of("14110").url in text
    assert "etcd#14110: could not be tried: no seccomp here" in text
    assert "etcd 3.5.1: 1 affected, 1 not shown\nall of these are fixed in 3.5.5\n" in text
    assert "--thorough tries longer" in text
    assert "\x1b[31m" in bug_table.render(document, color=True)


def test_what_is_affected_stands_first_and_one_reason_is_said_once() -> None:
    document = _document(old_15220=_SHOWN, new_14110=_UNTRIED, new_15220=_UNTRIED)
    old, new = bug_table.render(document, color=False).split("etcd 3.6.16 (")
    assert old.index("  etcd#15220") < old.index("  etcd#14110")
    assert "  etcd#14110, etcd#15220: could not be tried: no seccomp here" in new


def test_a_bug_without_a_fix_in_the_line_is_told() -> None:
    scenario = Scenario("22386", ("auth.denied",), lambda stage: None)
    shown = Outcome(Found.AFFECTED, 1.0, 1, rule="auth.denied", violation="it was seen")
    made = Trial(scenario, OLD, Path("tried"))
    document = bug_table.document([(OLD, [bug_table.row(made, shown)])], thorough=False, seed=1, stopped_by=None)
    assert "not fixed in 3.5 yet: etcd#22386" in bug_table.render(document, color=False)


def test_junit_and_markdown_say_the_same() -> None:
    document = _document(old_14110=_SHOWN, new_14110=_UNTRIED, old_15220=_UNSHOWN)
    root = ElementTree.fromstring(bug_table.to_xml(document))
    assert [root.get(name) for name in ("tests", "failures", "errors")] == ["4", "1", "2"]
    times_s = [float(case.get("time") or 0) for case in root.iter("testcase")]
    assert times_s == [bug["seconds"] for etcd in document["etcds"] for bug in etcd["bugs"]]
    assert any(times_s)
    markdown = bug_table.to_markdown(document)
    row = next(line for line in markdown.splitlines() if "14110" in line)
    assert "**affected**" in row
    assert "could not be tried" in row
    assert bug_of("14110").url in row


# ---- the table of bugs, and the scenarios


def test_every_scenario_is_of_a_known_bug_and_breaks_known_rules() -> None:
    for issue, scenario in catalogue().items():
        assert scenario.issue == issue
        assert scenario.bug in BUGS
        assert scenario.breaks
        assert set(scenario.breaks) <= RULES.keys()
        # Else what it breaks is never taken for its bug.
        signed = {rule for each in SIGNATURES if each.issue == issue for rule in each.rules}
        assert scenario.fits or not signed or set(scenario.breaks) <= signed


def test_the_readme_says_how_many_there_are() -> None:
    assert f" {len(catalogue())} known bugs of etcd" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_bugs_are_found_by_the_names_that_people_write() -> None:
    names = ["14110", "#14110", "etcd#14110", "ETCD#14110"]
    assert [[each.issue for each in select([name])] for name in names] == [["14110"]] * 4
    assert [each.issue for each in select(["cve-2026-33413"])] == ["CVE-2026-33413"]
    assert select([]) == list(catalogue().values())
    with pytest.raises(UsageError, match="no bug '1'"):
        select(["1"])


def test_names_links_and_versions_of_bugs() -> None:
    issue, cve, advisory = bug_of("20693"), bug_of("CVE-2026-33413"), bug_of("GHSA-xg4h-6gfc-h4m8")
    assert (issue.name, cve.name, advisory.name) == ("etcd#20693", "CVE-2026-33413", "GHSA-xg4h-6gfc-h4m8")
    assert issue.url == "https://github.com/etcd-io/etcd/issues/20693"
    assert cve.url == "https://nvd.nist.gov/vuln/detail/CVE-2026-33413"
    assert advisory.url == "https://github.com/etcd-io/etcd/security/advisories/GHSA-xg4h-6gfc-h4m8"
    assert issue.fixed_in == ("3.4.38", "3.5.24", "3.6.6")
    with pytest.raises(KeyError):
        bug_of("1")
    assert len({bug.issue for bug in BUGS}) == len(BUGS)


def test_a_line_that_has_no_fix_yet_says_nothing_of_the_next_one() -> None:
    open_bug = bug_of("22376")
    assert [open_bug.is_in(version) for version in ("3.4.33", "3.4.34", "3.4.99", "3.5.1", "3.5.15", "3.5.16")] == [
        False, True, True, False, False, True,
    ]  # fmt: skip


def test_a_load_meets_some_bugs_only() -> None:
    everything, met = known_bugs("3.5.1"), known_bugs("3.5.1", under_load=True)
    assert set(met) < set(everything)
    assert {bug.issue for bug in met} == {"13766", "14370", "15220", "18089", "18667"}
    assert known_bug("14110", "3.5.4") == bug_of("14110")
    assert known_bug("14110", "3.5.5") is None
    assert known_bugs("unknown") == ()


def test_a_trial_that_a_bug_of_ours_ends_is_no_result(tmp_path: Path) -> None:
    nowhere = EtcdBinary(path="/nowhere/etcd", version="3.5.1", source="path")
    with pytest.raises(ListenerError) as caught:
        list(parallel.run([Trial(dataclasses.replace(SURE, issue="0"), nowhere, tmp_path)], 1, lambda _: None))
    failure = caught.value.failure
    assert failure.code == BUG
    assert failure.what.startswith("the scenario of 0 on etcd 3.5.1: KeyError: '0' at trial.py:")
    assert "Traceback" in failure.trace


def test_a_bug_of_ours_that_ends_one_trial_leaves_the_rows_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "etcd"
    mine.write_text("#!/bin/sh\necho 'etcd Version: 3.5.1'\n")
    mine.chmod(0o755)
    ours = dataclasses.replace(SURE, issue="15814")
    shown = Outcome(Found.AFFECTED, 1.0, 1, rule="member.lives", violation="it ended in a txn")

    class Tried:
        """A process that has ended: one by a bug of ours, one as it should."""

        def __init__(self, trial: Trial) -> None:
            self.trial = trial

        def outcome(self) -> Outcome:
            if self.trial.scenario is ours:
                raise ListenerError(Failure(BUG, "the scenario of 15814 on etcd 3.5.1: KeyError: '0'", "", tmp_path))
            return shown

    monkeypatch.setattr(parallel, "_Running", Tried)
    monkeypatch.setattr("loadgen.bugs.catalogue.select", lambda names: [ours, SURE])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ListenerError) as caught:
        bugs.main(_arguments("--etcd", str(mine), "--jobs", "1", "--output", "tried"))
    assert caught.value.exit_code == BUG
    rows = json.loads((tmp_path / "tried" / "bugs.json").read_text())["etcds"][0]["bugs"]
    assert [(row["issue"], row["found"]) for row in rows] == [("15814", "could not be tried"), ("14110", "affected")]
    assert "it ended in a txn" in capsys.readouterr().out


def _arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bugs.add_arguments(parser)
    return parser.parse_args(words)
