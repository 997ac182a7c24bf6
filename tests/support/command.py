"""`raftload` as the tests run it: a process, its stdout and stderr, and its exit code."""

from __future__ import annotations

import csv
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster import schema
from cluster.base.binary import find_etcd
from loadgen.run.local_workers import PROCESS_NAME
from tests.support.forked import ForkedCommand, is_forkable
from tests.support.processes import children, name_of
from tests.support.started import remembered
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]
OWN_SCENARIO = "mine.py"


def start(
    *words: str, cwd: Path, before: tuple[str, ...] = (), module: str = "loadgen.cli", anew: bool = False, **env: str
) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, as a shell does.

    Takes what stands before it, such as what leads to another host, and more of its environment. What this process's
    environment says of clusters stays out of it. Where nothing speaks against it the command is forked from a process
    that has imported raftload; ``anew`` starts a new Python.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "ETCDCTL_")) and k != "NODES"}
    whole = {**kept, "PYTHONPATH": str(ROOT), **env}
    if not anew and not before and is_forkable(module, words, whole):
        return remembered(ForkedCommand(module, words, cwd, whole))
    return remembered(subprocess.Popen(
        [*before, sys.executable, "-m", module, *words], cwd=cwd, env=whole,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
    ))  # fmt: skip


def run(*words: str, cwd: Path, timeout_s: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
    """Return the same to its end, which is the process's too where it takes too long."""
    with start(*words, cwd=cwd, **env) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def bench_with(
    scenario: str, *words: str, cwd: Path, timeout_s: float = 120, **env: str
) -> subprocess.CompletedProcess[str]:
    """Return the same of a bench with a scenario of this text, which is written into the folder that it runs in."""
    return run("bench", *own_scenario(cwd, scenario), *words, cwd=cwd, timeout_s=timeout_s, **env)


def own_scenario(folder: Path, text: str) -> tuple[str, str]:
    """Write a scenario into a folder; return the option that names it there."""
    (folder / OWN_SCENARIO).write_text(text)
    return "--scenario", OWN_SCENARIO


def run_at_terminal(*words: str, cwd: Path, question: str, answer: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Return the same of a command whose stdin is a terminal, on which each question of this text is answered."""
    outer, inner = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL_")}
    with subprocess.Popen(
        [sys.executable, "-m", "loadgen.cli", *words], stdin=inner, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        cwd=cwd, start_new_session=True, env={**kept, "PYTHONPATH": str(ROOT), **env},
    ) as process:  # fmt: skip
        os.close(inner)
        assert process.stderr is not None
        said = b""
        while part := os.read(process.stderr.fileno(), 1 << 16):
            said += part
            if said.endswith(question.encode()):
                os.write(outer, f"{answer}\n".encode())
    os.close(outer)
    return subprocess.CompletedProcess(words, process.returncode, "", said.decode())


def workers(pid: int) -> list[int]:
    """Pids of the worker processes that a command has started."""
    return [each for each in children(pid) if name_of(each) == PROCESS_NAME]


def locust_rows(folder: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a run folder's Locust statistics, by name."""
    # All at once: where it is just being written, the header could be there for the rows and not for the reader.
    text = (folder / "locust_stats.csv").read_text()
    return {row["Name"]: row for row in csv.DictReader(text.splitlines())}


def until_load(process: subprocess.Popen[str], folder: Path) -> None:
    """Until the run in this folder has counted operations."""

    def has_counted() -> bool:
        assert process.poll() is None, process.communicate()
        try:
            return int(locust_rows(folder)["Aggregated"]["Request Count"]) > 0
        except (OSError, KeyError, ValueError):
            return False

    until(has_counted, "operations")


def called(capsys: pytest.CaptureFixture[str], *words: object) -> subprocess.CompletedProcess[str]:
    """Return what `raftload …` prints and exits with, run in this process.

    The same as a process takes 0.3 s of a processor each time.
    """
    from loadgen.cli import main

    capsys.readouterr()
    try:
        code: Any = main.main([str(word) for word in words])
    except SystemExit as ended:
        code = ended.code
    return subprocess.CompletedProcess(words, code, *capsys.readouterr())


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> subprocess.CompletedProcess[str]:
    """Return the same, for what is refused before it imports or starts much."""
    from gevent import monkey

    done = called(capsys, *words)
    assert not monkey.saved, "it has begun: this process is patched for gevent now"
    return done


def assert_refused(done: subprocess.CompletedProcess[str], words: str = "") -> None:
    """Assert that a command ended with exit code 2 and one line, which has these words."""
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert words in done.stderr
    assert done.stderr.startswith("raftload: error: ") and done.stderr.count("\n") == 1


_INTERRUPTING = """
import importlib.abc, os, signal, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""


def interrupting(folder: Path, module: str) -> str:
    """Return a PYTHONPATH with which Python sends itself SIGINT when it begins to import a module; takes a folder for
    that.
    """
    (folder / "sitecustomize.py").write_text(_INTERRUPTING.format(module=module))
    return f"{folder}:{ROOT}"


_SIGNALLING = """
import atexit, os, signal, sys

class AtItsEnd:
    def send(self, kill=os.kill, pid=os.getpid(), numbers=(signal.SIGINT, signal.SIGTERM)):
        for number in numbers:
            kill(pid, number)

    __del__ = send

if {word!r} in sys.orig_argv:
    sys.raftload_test = AtItsEnd()
    atexit.register(sys.raftload_test.send)
"""


def signalling_at_the_end(folder: Path, word: str) -> str:
    """Return a PYTHONPATH with which a Python that has this word among its arguments sends itself SIGINT and SIGTERM
    twice.

    First when it begins to end, then when its modules go, which is after it gave its signal handlers back.
    """
    (folder / "sitecustomize.py").write_text(_SIGNALLING.format(word=word))
    return f"{folder}:{ROOT}"


class ClusterCommands:
    """`raftload cluster …` with a state folder of its own."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.env = {"XDG_STATE_HOME": str(folder), "ETCD_BINARY": find_etcd().path, **env}

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        return start(*words, cwd=ROOT, module="cluster.cli.options", **{**self.env, **env})

    def run(self, *words: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        with self.start(*words, **env) as process:
            out, err = process.communicate(timeout=120)
        assert code is None or process.returncode == code, f"{words} exited with {process.returncode}: {err}{out}"
        assert "Traceback" not in err
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def json(self, *words: str, code: int = 0, **env: str) -> Any:
        """Return the document that a command prints, as its schema says."""
        document = json.loads(self.run(*words, "--json", code=code, **env).stdout)
        name = document["schema"].removeprefix("raftload.").partition("/")[0]
        jsonschema.validate(document, schema.load(name))
        return document
