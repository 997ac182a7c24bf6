"""`raftload viz` on the command line: what it writes, refuses and imports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.base.files import write_bytes
from tests.support.command import assert_refused, called
from tests.support.ports import closed_port
from viz.cli.command import visualize_raft_state
from viz.cli.options import TYPES
from viz.diagrams.model import START, clean, clean_name
from viz.diagrams.output import FORMATS, SUFFIXES
from viz.diagrams.raft import DIAGRAMS

ROOT = Path(__file__).parents[2]
LOGS = [str(path) for path in sorted((ROOT / "tests/data/raft-logs/etcd-3.5.1-kill").glob("*.log"))]


def run(*args: str) -> int:
    """Return the exit code, argparse's own included."""
    try:
        return visualize_raft_state(args)
    except SystemExit as exc:
        return int(str(exc.code))


def test_the_paper_figure_has_its_exact_labels(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run("--type", "state-machine", "--format", "json") == 0
    model = json.loads(capsysbinary.readouterr().out)
    assert [state["label"] for state in model["states"]] == ["Follower", "Candidate", "Leader"]
    assert [(each["source"], each["target"], each["label"]) for each in model["transitions"]] == [
        (START, "follower", "starts up"),
        ("follower", "candidate", "times out, starts election"),
        ("candidate", "candidate", "times out, new election"),
        ("candidate", "leader", "receives votes from majority of servers"),
        ("candidate", "follower", "discovers current leader or new term"),
        ("leader", "follower", "discovers server with higher term"),
    ]


def test_without_a_format_it_is_mermaid_without_a_fence(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run("--type", "leader-election") == 0
    out = capsysbinary.readouterr().out.decode()
    assert out.startswith("---\ntitle: ") and "sequenceDiagram" in out and "```" not in out


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_suffix_says_the_format(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"picture{suffix.upper()}"
    code = run("--type", "state-machine", "--output", str(path))
    if code == 4 and SUFFIXES[suffix] in ("svg", "png"):
        assert "there is no `dot` on PATH" in capsys.readouterr().err
        return
    assert code == 0
    begins = {
        "mermaid": b"---",
        "graphviz": b"digraph",
        "ascii": b"Raft",
        "svg": b"<?xml",
        "png": b"\x89PNG",
        "json": b"{",
    }
    assert path.read_bytes().startswith(begins[SUFFIXES[suffix]])
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


USAGE = {
    "unknown type": (["--type", "x"], "choose one of " + ", ".join(TYPES)),
    "unknown format": (["--type", "state-machine", "--format", "x"], "choose one of " + ", ".join(FORMATS)),
    "unknown variant": (["--type", "log-replication", "--variant", "x"], ", ".join(DIAGRAMS["log-replication"])),
    "variant of status": (["--type", "cluster-status", "--variant", "x"], "no variants"),
    "unknown suffix": (["--type", "state-machine", "--output", "x.doc"], ".mmd"),
    "no members": (["--type", "leader-election", "--nodes", "0"], "1 to 25"),
    "no folder": (["--type", "state-machine", "--output", "/nowhere/at/all/x.svg"], "no folder /nowhere/at/all"),
    "a folder": (["--type", "state-machine", "--format", "svg", "--output", "/"], "it is a folder"),
    "bad endpoint": (["--type", "cluster-status", "--endpoints", "nonsense"], "expected host:port"),
    "bad port": (["--type", "cluster-status", "--endpoints", "127.0.0.1:99999"], "expected host:port"),
    "no endpoint": (["--type", "cluster-status", "--endpoints", ","], "no endpoint is named"),
    "nodes of a cluster": (["--type", "cluster-status", "--nodes", "3"], "--nodes excludes --endpoints"),
    "timeline of nothing": (["--type", "timeline"], "needs --observed, or --logs"),
    "observed replication": (
        ["--type", "log-replication", "--logs", *LOGS],
        "leader-election, state-machine, timeline",
    ),
    "observed variant": (
        ["--type", "leader-election", "--variant", "pre-vote", "--logs", *LOGS],
        "--variant and --observed",
    ),
    "no such log": (["--type", "timeline", "--logs", "/nowhere/x.log"], "/nowhere/x.log"),
    "bad time": (["--type", "timeline", "--since", "noon", "--logs", *LOGS], "2026-01-31T12:00:00Z"),
    "times without logs": (["--type", "state-machine", "--since", "1"], "--observed"),
}


@pytest.mark.parametrize("name", USAGE)
def test_what_cannot_be_meant_is_one_line_and_exit_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    args, says = USAGE[name]
    assert_refused(called(capsys, "viz", *args), says)


@pytest.mark.parametrize("kind", ["cluster-status", "leader-election"])
def test_no_cluster_is_exit_4_and_leaves_the_old_file(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.mmd"
    path.write_text("old")
    assert run("--type", kind, "--endpoints", closed_port(), "--output", str(path)) == 4
    err = capsys.readouterr().err
    assert "no cluster found" in err and "refused" in err and err.count("\n") == 1
    assert path.read_text() == "old"


def test_the_environment_names_the_cluster(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    dead = closed_port()
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", f"http://{dead}")
    assert run("--type", "cluster-status") == 4
    assert dead in capsys.readouterr().err


def test_without_graphviz_svg_is_exit_4(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert run("--type", "state-machine", "--format", "svg") == 4
    out, err = capsys.readouterr()
    assert out == "" and "install graphviz" in err and err.count("\n") == 1


def test_observed_without_logs_or_a_cluster_of_ours_is_exit_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cluster.lifecycle.up.find", lambda: None)
    assert run("--type", "timeline", "--observed") == 4
    assert "raftload cluster up" in capsys.readouterr().err


def test_logs_of_no_etcd_are_exit_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--type", "timeline", "--logs", __file__) == 4
    assert "no line about Raft" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["leader-election", "state-machine", "timeline"])
def test_observed(kind: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run("--type", kind, "--observed", "--format", "ascii", "--logs", *LOGS) == 0
    assert b"etcd-node2" in capsysbinary.readouterr().out or kind == "state-machine"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    path.chmod(0o640)
    link = tmp_path / "link.txt"
    link.symlink_to(path)
    write_bytes(link, b"new")
    assert path.read_bytes() == b"new" and link.is_symlink() and path.stat().st_mode & 0o777 == 0o640
    write_bytes(Path("/dev/null"), b"new")
    folder = tmp_path / "closed"
    folder.mkdir()
    with pytest.raises(OSError):
        write_bytes(folder / "missing" / "x", b"new")
    assert {each.name for each in tmp_path.iterdir()} == {"x.txt", "link.txt", "closed"}


@pytest.mark.parametrize("arguments", [[], ["--type"], ["--frobnicate", "--type", "state-machine"]])
def test_wrong_options_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        visualize_raft_state(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("visualize-raft-state: error: ") and "--help" in said.err


def test_names_are_one_clean_line() -> None:
    assert clean("a\n\tb \x1b[31m\u202ec") == r"a\n\tb \x1b[31m\u202ec"
    assert clean_name("") == clean_name("  ") == "(no name)"
    assert len(clean_name("x" * 500)) == 48


@pytest.mark.timing
def test_nothing_heavy_is_imported_and_it_is_quick() -> None:
    code = (
        "import sys; from viz.cli.command import visualize_raft_state as run; "
        "run(['--type', 'leader-election', '--variant', 'split-vote', '--nodes', '7', '--format', 'graphviz']); "
        "heavy = {'locust', 'gevent', 'numpy', 'docker', 'loadgen', 'requests', 'etcd3', 'ssl'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    # What Python itself takes on this machine now, with modules of its own that any command would need.
    floor = "import argparse, dataclasses, json, pathlib, socket, subprocess, tempfile"
    assert min(_cpu_s(code) for _ in range(5)) < 4 * min(_cpu_s(floor) for _ in range(5))


def _cpu_s(code: str) -> float:
    """Seconds of CPU that a Python process with this code takes; nothing in it waits."""
    begun = os.times()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120,
        check=False,
    )  # fmt: skip
    ended = os.times()
    assert done.returncode == 0, done.stderr.decode()
    return ended.children_user + ended.children_system - begun.children_user - begun.children_system


def test_the_pages_commands_give_what_stands_below_them(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    page = (ROOT / "docs" / "diagrams.md").read_text()
    monkeypatch.chdir(ROOT)
    shown = re.findall(r"```console\n\$ raftload viz (.*)\n```\n\n```\w+\n((?:(?!```).*\n)*)```\n", page)
    assert len(shown) == 8
    pictures = re.findall(r"gallery/[\w-]+\.svg", page)
    assert len(pictures) == 9
    for picture in pictures:
        assert (ROOT / "docs" / picture).read_text().rstrip().endswith("</svg>")
    for command, answer in shown:
        words = [
            word for each in command.split() for word in (sorted(map(str, ROOT.glob(each))) if "*" in each else [each])
        ]
        assert run(*words) == 0
        assert capsysbinary.readouterr().out.decode() == answer
    for kind, variants in DIAGRAMS.items():
        assert f"`{kind}`" in page and all(f"`{variant}`" in page for variant in variants)
