"""The command as a whole: help, versions, what it imports, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.cli.main import COMMANDS
from tests.support.command import assert_refused, interrupting, refusal

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for name, _, _ in COMMANDS]


HEAVY = {"locust", "gevent", "numpy", "scipy", "docker", "etcd3", "requests", "google.protobuf"}
# None of them may import Locust, whatever else they do.
LIGHT = (
    "loadgen.result.document",
    "loadgen.cli.gate",
    "loadgen.compare.comparison",
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


HELP = """
import sys
from cluster.cli import options
from loadgen.cli import main
from viz.cli.command import visualize_raft_state
words = [*([name] for name in sys.argv[1:]), ["etcd", "get"]]
words += [["cluster", name] for name in ("up", "status", "test", "kill")]
for each in ([], *words, None):
    try:
        visualize_raft_state(["--help"]) if each is None else main.main([*each, "--help"])
    except SystemExit as ended:
        assert ended.code == 0
    else:
        raise AssertionError(each)
"""


@pytest.mark.parametrize(
    "encoding",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}],
    ids=["ascii", "C"],
)
def test_every_help_can_be_printed_in_ascii(encoding: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP, *NAMES], env={**os.environ, "PYTHONPATH": str(ROOT), **encoding},
        capture_output=True, text=True, timeout=120, check=False, encoding="ascii",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "--endpoints HOST:PORT,..." in done.stdout


def test_errors_can_be_printed_in_ascii() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadgen.cli", "bench", "--value-size", "12\u2026"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(b"raftload: error: --value-size: '12...' is not a size")


def test_the_folder_of_the_runs_of_web_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    done = refusal(capsys, "web", "--endpoints", "127.0.0.1:1", "--output", str(tmp_path / "file"))
    assert_refused(done, "file is a file; name a folder")


@pytest.mark.parametrize("words", [("--disk-faults",), ("--links", "relay")])
def test_members_that_are_there_are_not_made_anew_by_web(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    says = f"{' '.join(words)} is for a cluster that this command makes itself: "
    there = "names one that is there already"
    assert_refused(refusal(capsys, "web", *words, "--endpoints", "127.0.0.1:1"), f"{says}--endpoints {there}")
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", "127.0.0.1:1")
    assert_refused(refusal(capsys, "web", *words), f"{says}$ETCDCTL_ENDPOINTS {there}")


# What Python holds back it writes once more when it ends.
BUFFERED = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@BUFFERED
@pytest.mark.parametrize(
    ("words", "stream", "code"),
    [
        (["--version"], "stdout", 4),
        (["--help"], "stdout", 4),
        (["bench", "--help"], "stdout", 4),
        (["bench", "--dry-run"], "stdout", 4),
        (["bench", "--operations", "0"], "stderr", 2),
        (["bench", "--no-such-option"], "stderr", 2),
        ([], "stderr", 2),
    ],
)
def test_a_stream_that_cannot_be_written(
    words: list[str], stream: str, code: int, unbuffered: str, tmp_path: Path
) -> None:
    """No exit code says that a threshold failed, and there is no traceback."""
    with Path("/dev/full").open("w") as full:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full}
        done = subprocess.run(
            [sys.executable, "-m", "loadgen.cli", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}, cwd=tmp_path, text=True,
            timeout=120, check=False, **streams,
        )  # fmt: skip
    said = "raftload: error: cannot write to stdout: No space left on device\n" if stream == "stdout" else ""
    assert (done.returncode, (done.stderr or "") + (done.stdout or "")) == (code, said)


@BUFFERED
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["bench", "--help"], ["bench", "--dry-run"]])
def test_output_that_nobody_reads(words: list[str], unbuffered: str, tmp_path: Path) -> None:
    """As of `raftload --help | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "loadgen.cli", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}, cwd=tmp_path, text=True,
            timeout=120, check=False, stdout=writing, stderr=subprocess.PIPE,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
