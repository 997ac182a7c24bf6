"""A new fault is one record: commands, fault plans, the Cluster page, the report and the documentation have it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.base.topology import DISK_METHODS
from cluster.faults.kinds import HEAL, KINDS, Action, Fault, Kind, Subject, healing, plan, undoing
from loadgen.webui.cluster_view import buttons

ROOT = Path(__file__).resolve().parents[2]
# A process of its own, as much is derived when a module is imported.
SCRIPT = """
import json, sys
from pathlib import Path
from cluster.faults import kinds

limit = kinds.Option(
    "limit", kinds.parse_share, "P", "what is left", lambda value: 0 < value < 1, "a limit is 0 to 1", in_plan=0.25
)
kinds.KINDS["choke"] = kinds.Kind(
    "choke", "narrow a member's links", ("choke",), options=(limit,), undone_by="heal", calm=(1.0,), on_links=True,
    takes_leader=True, effect="nothing", plan_names=("choke",), in_default_plan=("choke-leader",), button="Choke",
)

import argparse, importlib.util
from cluster.cli import options
from cluster.faults import plan
from loadgen.cli.main import build_parser
from loadgen.webui import pages
from viz.report import rundata

parser = argparse.ArgumentParser()
options.add_arguments(parser)
order = parser.parse_args(["choke", "leader", "--limit", "10%"])
(first,) = plan.plan_rounds(plan.parse("choke-minority"), ["a", "b", "c"], every_s=2, count=1, seed=1)
spec = importlib.util.spec_from_file_location("reference", sys.argv[1])
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)
files = {path.name: text for path, text in reference.files().items()}
(seen,) = rundata.load(Path(sys.argv[2]), {"run": {}, "results": {}}).faults
print(json.dumps({
    "command": [order.cluster_command, order.target, order.limit],
    "default": plan.DEFAULT,
    "needs_relay": plan.needs_relay(["choke-leader"]),
    "planned": [first.fault.kind, first.fault.target, dict(first.fault.options), first.hold_s],
    "chaos": build_parser("chaos").parse_args(["chaos", "--faults", "choke-leader,compact"]).faults,
    "page": pages.FAULTS,
    "cli.md": files["cli.md"],
    "schema": json.loads(files["fault.schema.json"])["properties"]["fault"]["enum"],
    "seen": [seen.kind, seen.members, seen.end - seen.begin],
}))
"""
EVENTS = """\
time,monotonic_ns,phase,fault,members,detail
2026-01-02T03:04:05.000000+00:00,1,begin,choke,etcd-node1,
2026-01-02T03:04:06.000000+00:00,2,effect,choke,etcd-node1,choke: etcd-node1
2026-01-02T03:04:09.000000+00:00,3,begin,heal,etcd-node1,
2026-01-02T03:04:10.000000+00:00,4,effect,heal,etcd-node1,heal: etcd-node1
"""


@pytest.fixture(scope="module")
def derived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("run")
    (folder / "events.csv").write_text(EVENTS)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT / "docs" / "reference.py"), str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_has_a_command_with_its_options(derived: dict[str, Any]) -> None:
    assert derived["command"] == ["choke", "leader", 0.1]
    assert "### raftload cluster choke\n\nNarrow a member's links.\n" in derived["cli.md"]
    assert "| `--limit P` | what is left |" in derived["cli.md"]
    assert derived["schema"] == [*KINDS, "choke", HEAL]


def test_it_comes_in_fault_plans(derived: dict[str, Any]) -> None:
    kind, target, options, hold_s = derived["planned"]
    assert (kind, target, options) == ("choke", "minority", {"limit": 0.25})
    assert 0.2 <= hold_s <= 1.0, "it lasts until it is undone"
    assert "choke-leader" in derived["default"]
    assert derived["needs_relay"]
    assert derived["chaos"] == "choke-leader,compact"
    assert "choke,\n  each with one of -leader" in derived["cli.md"]
    assert f"(default: {','.join(derived['default'])})" in derived["cli.md"]


def test_it_is_on_the_cluster_page_and_in_the_report(derived: dict[str, Any]) -> None:
    assert "choke" in derived["page"]
    assert derived["seen"] == ["choke", ["etcd-node1"], 5.0], "until the effect of its undo"


def test_it_is_planned_and_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Kind("choke", "narrow a member's links", ("choke",), undone_by=HEAL, calm=(1.0,), on_links=True, button="X")
    monkeypatch.setitem(KINDS, "choke", made)
    members = tuple(Subject(name) for name in "abc")
    assert plan(Fault("choke", "leader"), members, "b", random.Random(1)) == (Action("choke", "b"),)
    assert Action("choke", "b", (1.0,)) in healing(members, {"b"})
    assert undoing() == {"start", "resume", HEAL}
    (row,) = (row for row in buttons(members[0], 3, "b", {"choke": "not here"}) if row["fault"] == "choke")
    assert row == {"fault": "choke", "label": "X", "reason": "not here"}


def test_faults_of_disks_have_buttons_where_they_work() -> None:
    def shown(subject: Subject, **cannot: str) -> dict[str, str]:
        rows = {row["fault"]: row["reason"] for row in buttons(subject, 3, "b", cannot)}
        return {name: reason for name, reason in rows.items() if name == "heal" or "disk" in name}

    every = ("slow-disk", "stuck-disk", "disk-error", "disk-full")
    assert shown(Subject("a")) == dict.fromkeys(every, "")
    assert shown(Subject("a"), **dict.fromkeys(DISK_METHODS, "not trapped")) == {}
    already = "the disk of a is stuck already"
    assert shown(Subject("a", disk="stuck")) == {
        "slow-disk": already, "heal": "", "disk-error": already, "disk-full": already,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("subject", "leader", "shown"),
    [
        (Subject("a"), "b", [("kill", ""), ("pause", ""), ("partition", ""), ("transfer-leader", "")]),
        (Subject("a"), "a", [("kill", ""), ("pause", ""), ("partition", ""), ("transfer-leader", "a leads already")]),
        (Subject("a", "down"), "b",
         [("start", ""), ("pause", "a is down already"), ("partition", "a is down already"),
          ("transfer-leader", "a is down already")]),
        (Subject("a", "paused"), "b",
         [("kill", ""), ("resume", ""), ("partition", "a is paused"), ("transfer-leader", "a is paused")]),
        (Subject("a", isolated=True), "b",
         [("kill", ""), ("pause", ""), ("heal", ""), ("transfer-leader", "a is cut off")]),
        (Subject("a"), None, [("kill", ""), ("pause", ""), ("partition", ""),
                              ("transfer-leader", "there is no leader now, so none can transfer its leadership")]),
    ],
)  # fmt: skip
def test_a_member_has_the_buttons_that_apply(
    subject: Subject, leader: str | None, shown: list[tuple[str, str]]
) -> None:
    cannot = dict.fromkeys(DISK_METHODS, "not trapped")
    assert [(row["fault"], row["reason"]) for row in buttons(subject, 3, leader, cannot)] == shown
