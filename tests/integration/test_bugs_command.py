"""`raftload bugs`: what it prints and writes, its exit codes, and that nothing is left behind whatever ends it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from loadgen import schema
from loadgen.bugs.catalogue import catalogue
from tests.support import command
from tests.support.leftovers import find_leftovers, wait_gone
from tests.support.waiting import HANG_S, until

SHOWN, QUICK = "CVE-2026-33413", "18089"


def _bugs(*words: str, cwd: Path, code: int, **env: str) -> dict[str, Any]:
    done = command.run("bugs", *words, "--json", "--output", "tried", cwd=cwd, **env)
    assert done.returncode == code, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(document, dict(schema.load("bugs")))
    assert json.loads((cwd / "tried" / "bugs.json").read_text()) == document
    return document


def test_an_affected_and_a_fixed_etcd_beside_each_other(tmp_path: Path, wheel_etcd: str, fixed_etcd: str) -> None:
    words = ("--only", SHOWN, "--only", f"etcd#{QUICK}", "--etcd", wheel_etcd, "--etcd", fixed_etcd)
    summary = tmp_path / "summary.md"
    found = _bugs(*words, "--junit", "bugs.xml", cwd=tmp_path, code=1, GITHUB_STEP_SUMMARY=str(summary))
    assert found["verdict"] == "fail"
    old, new = found["etcds"]
    assert [(bug["issue"], bug["found"]) for bug in old["bugs"]] == [(QUICK, "affected"), (SHOWN, "affected")]
    assert [(bug["issue"], bug["found"]) for bug in new["bugs"]] == [(QUICK, "not affected"), (SHOWN, "not affected")]
    assert old["version"] == "3.5.1"
    for bug in old["bugs"]:
        assert bug["listed"]
        assert bug["promise"]
        assert bug["violation"]
        assert "3.5" in " ".join(bug["fixed_in"])
        checked = command.run("check", str(tmp_path / bug["folder"] / "try-1"), "--json", cwd=tmp_path)
        assert bug["guarantee"] in json.loads(checked.stdout)["broken"]
    suite = ElementTree.parse(tmp_path / "bugs.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "2", "0")
    assert "**affected**" in summary.read_text()


def test_the_table_says_what_breaks_and_where_it_is_fixed(tmp_path: Path, wheel_etcd: str) -> None:
    done = command.run("bugs", "--only", SHOWN, "--etcd", wheel_etcd, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "auth.anonymous" in done.stdout
    assert "MemberList by nobody" in done.stdout
    assert "all of these are fixed in 3.5.28" in done.stdout
    assert (tmp_path / "runs").is_dir()
    assert "folder runs/" in done.stderr


def test_none_affected_is_a_pass(tmp_path: Path, fixed_etcd: str) -> None:
    assert _bugs("--only", SHOWN, "--etcd", fixed_etcd, cwd=tmp_path, code=0)["verdict"] == "pass"


def test_the_list_names_all_and_tries_none(tmp_path: Path) -> None:
    done = command.run("bugs", "--list", cwd=tmp_path)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(catalogue())
    assert SHOWN in done.stdout
    assert f"etcd#{QUICK}" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (("--only", "4711"), "no bug '4711' is known; `raftload bugs --list` prints those that are", 2),
        (("--only", "22376,14110"), "no bug '22376,14110' is known; --only takes one bug, and may be repeated", 2),
        (("--jobs", "0"), "--jobs: must be at least 1", 2),
        (("--etcd", "/nowhere/etcd"), "no etcd binary at /nowhere/etcd", 4),
        (("--etcd", "3.5.99"), "run `raftload etcd get 3.5.99`", 4),
        (("--junit", "nowhere/bugs.xml"), "there is no folder nowhere", 2),
        (("--endpoints", "10.0.0.1:2379"), "unrecognized arguments: --endpoints", 2),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_made(
    words: tuple[str, ...], says: str, code: int, tmp_path: Path
) -> None:
    done = command.run("bugs", *words, cwd=tmp_path)
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_whatever_ends_it(number: signal.Signals, tmp_path: Path, wheel_etcd: str) -> None:
    before = find_leftovers()
    words = ("bugs", "--only", "13766", "--only", QUICK, "--jobs", "2", "--etcd", wheel_etcd, "--output", "tried")
    with command.start(*words, "--json", cwd=tmp_path, anew=True) as process:
        try:
            until(lambda: any("--name=etcd-node1" in each for each in find_leftovers() - before), "a member")
            process.send_signal(number)
            out, err = process.communicate(timeout=HANG_S)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -signal.SIGKILL), err
    assert not wait_gone(before, HANG_S)
    if number != signal.SIGKILL:
        found = json.loads(out)
        assert found["stopped_by"] == number.name
        reasons = [bug["reason"] for bug in found["etcds"][0]["bugs"] if bug["found"] == "could not be tried"]
        assert all(f"ended by {number.name}" in reason for reason in reasons)
        assert found["verdict"] in ("unknown", "fail")
