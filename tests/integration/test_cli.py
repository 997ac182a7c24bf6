"""The command as a whole: help, versions, what it imports, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.cli.main import COMMANDS
from tests.support.command import interrupting

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for name, _, _ in COMMANDS]


HEAVY = {"locust", "gevent", "numpy", "docker", "etcd3", "requests", "google.protobuf"}
# None of them may import Locust, whatever else they do.
LIGHT = (
    "loadgen.result.document",
    "loadgen.cli.gate",
    "loadgen.wire",
    "cluster.local.cluster",
    "cluster.gateway.control",
    "viz.cli.command",
)


def raftload(*arguments: str) -> tuple[int, str, str, set[str]]:
    """Run `raftload`; return its exit code, what it said, and the modules that it imported."""
    done = subprocess.run(
        [sys.executable, "-Ximporttime", "-m", "loadgen.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    lines = done.stderr.splitlines(keepends=True)
    said = "".join(line for line in lines if not line.startswith("import time:"))
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "argparse" in imported
    return done.returncode, done.stdout, said, imported


@pytest.mark.parametrize("name", NAMES)
def test_help_of_every_command_has_an_example_and_imports_nothing_heavy(name: str) -> None:
    code, out, err, imported = raftload(name, "--help")
    assert (code, err) == (0, "")
    _, _, examples = out.partition("examples:")
    assert f"raftload {name}" in examples
    assert not imported & HEAVY


def test_the_overview_names_every_command() -> None:
    code, out, err, imported = raftload("--help")
    assert (code, err) == (0, "")
    assert all(f"\n    {name} " in out for name in NAMES)
    assert not imported & HEAVY
    assert raftload()[0] == 2
    assert raftload("frobnicate")[0] == 2


def test_who_must_not_import_locust() -> None:
    program = f"""
import importlib, sys
for name in {LIGHT}:
    importlib.import_module(name)
    print(name, sorted({{"locust", "gevent"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines() == [f"{name} []" for name in LIGHT]


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
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
