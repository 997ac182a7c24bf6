"""The command as a whole: help, versions, what it imports, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.cli import COMMANDS
from tests.support.command import interrupting

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for name, _, _ in COMMANDS]


def raftload(*arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options.values(), "-m", "loadgen.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_help_of_every_command_has_an_example(name: str) -> None:
    done = raftload(name, "--help")
    assert done.returncode == 0 and done.stderr == ""
    _, _, examples = done.stdout.partition("examples:")
    assert f"raftload {name}" in examples


def test_the_overview_names_every_command() -> None:
    done = raftload("--help")
    assert done.returncode == 0
    assert all(f"\n    {name} " in done.stdout for name in NAMES)
    assert raftload().returncode == 2
    assert raftload("frobnicate").returncode == 2


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in NAMES)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = raftload(*arguments, option="-Ximporttime")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert loaded & {"argparse"}
    assert not loaded & {"locust", "gevent", "pandas", "docker", "etcd3", "requests", "google.protobuf"}


@pytest.mark.parametrize(
    "module", ["loadgen.report", "loadgen.gate_cli", "loadgen.wire", "cluster.local", "cluster.control", "viz.cli"]
)
def test_who_must_not_import_locust(module: str) -> None:
    program = f"import sys, {module}; print(sorted({{'locust', 'gevent'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"


def test_the_wire_core_does_no_io() -> None:
    forbidden = ("socket", "gevent", "time", "random", "logging")
    for path in (ROOT / "loadgen" / "wire").glob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert words[1].split(".")[0].rstrip(",") not in forbidden, f"{path.name}: {line}"


def test_cluster_imports_nothing_of_ours() -> None:
    for folder, forbidden in (("cluster", ("loadgen", "viz")), ("viz", ("loadgen",))):
        for path in (ROOT / folder).rglob("*.py"):
            for line in path.read_text().splitlines():
                words = line.split()
                if words[:1] in (["import"], ["from"]):
                    assert words[1].split(".")[0] not in forbidden, f"{path}: {line}"


@pytest.mark.parametrize("name", ["raftload", "benchmark-consensus", "test-etcd-cluster", "visualize-raft-state"])
def test_interrupted_while_it_starts_it_just_ends(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name(name), "--help"],
        env={**os.environ, "PYTHONPATH": interrupting(tmp_path, "argparse")},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
