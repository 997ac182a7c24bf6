"""How the commands in tests/soak end, and what they say where they cannot begin."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak import capacity
from tests.support.command import ROOT
from tests.support.processes import runs
from tests.support.started import remembered
from tests.support.waiting import HANG_S, until

COMMANDS = [path for path in sorted(Path(ROOT, "tests", "soak").glob("*.py")) if "__main__" in path.read_text()]
# As `tests.soak.ab` has it, whose second comparison waits for the first, and as the others have it.
WAYS = {
    "in a thread": """
    with ThreadPoolExecutor(1) as pool, closing(pool.map(lambda _: run("sh", "-c", script), range(2))) as made:
        list(made)
""",
    "in the main thread": """
    run("sh", "-c", script)
    run("sh", "-c", script)
""",
}
MAIN = """
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from tests.soak.record import command, run

script = "echo $$ >> pids; sleep 600 & echo $! >> pids; wait"

def both():{way}

def main():
    with tempfile.TemporaryDirectory(dir="."):
        both()

command(main)
"""


# A machine on which what was started is seen by others before the process that started it goes on.
LATE = """
import os
import subprocess
import time

class Late(subprocess.Popen):
    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        while not os.path.exists("told"):
            time.sleep(0.02)

subprocess.Popen = Late
"""


# The kernel gives a signal to any thread, and Python has the main thread handle it.
ELSEWHERE = """
import os
import signal
import threading
import time

def get():
    while not os.path.exists("told"):
        time.sleep(0.02)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

threading.Thread(target=get, daemon=True).start()
"""


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_soak_command_that_is_ended_leaves_nothing_behind(way: str, number: int, late: bool, tmp_path: Path) -> None:
    process = begun(LATE * late + MAIN.format(way=WAYS[way]), tmp_path)
    started = pids(process, tmp_path)
    process.send_signal(number)
    (tmp_path / "told").touch()
    assert_ended(process, 128 + number, started, tmp_path)


def test_it_is_ended_by_a_signal_that_another_thread_gets(tmp_path: Path) -> None:
    process = begun(ELSEWHERE + MAIN.format(way=WAYS["in a thread"]), tmp_path)
    started = pids(process, tmp_path)
    (tmp_path / "told").touch()
    assert_ended(process, 128 + signal.SIGTERM, started, tmp_path)


def begun(program: str, folder: Path) -> subprocess.Popen[str]:
    return remembered(subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
    ))  # fmt: skip


def pids(process: subprocess.Popen[str], folder: Path) -> list[int]:
    """Return the pids of what it runs, once that runs."""
    path = folder / "pids"

    def said() -> list[str]:
        assert process.poll() is None, process.communicate()
        return path.read_text().splitlines() if path.exists() else []

    until(lambda: len(said()) == 2, "what it runs")
    return [int(line) for line in said()]


def assert_ended(process: subprocess.Popen[str], code: int, started: list[int], folder: Path) -> None:
    assert (process.wait(HANG_S), process.communicate()) == (code, ("", ""))
    until(lambda: not any(map(runs, started)), "the end of what it ran")
    assert {path.name for path in folder.iterdir()} == {"pids", "told"}
    assert len((folder / "pids").read_text().splitlines()) == 2, "another one began"


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_every_soak_command_ends_so(path: Path) -> None:
    text = path.read_text()
    assert text.endswith('if __name__ == "__main__":\n    command(main)\n')
    # But for what cleans up, which is not to be ended.
    assert not re.search(r"subprocess\.(run|Popen)\((?!.*cluster down)", text)


def test_a_command_without_the_packages_of_the_tests_says_so(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['jsonschema'] = None\n")
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.capacity", "--help"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    said = "what is in tests/ needs packages that are not installed: pip install -e '.[dev]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_an_etcd_that_is_not_there_ends_a_command_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.campaign", "--find", str(tmp_path / "etcd")], cwd=ROOT, capture_output=True,
        text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert f"{tmp_path}/etcd" in done.stderr


def test_on_one_processor_no_cluster_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its members would share it with the load, which is another measurement; it began with no processor for them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    monkeypatch.setattr(sys, "argv", ["capacity", "--times", "0"])
    with pytest.raises(SystemExit) as ended:
        capacity.main()
    assert ended.value.code == 2
    assert "there is one; --clusters 0 measures servers alone\n" in capsys.readouterr().err
