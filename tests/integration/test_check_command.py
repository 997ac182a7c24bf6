"""`raftload check` on stored runs: exit codes, what stdout holds, and the document against its schema."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jsonschema
import pytest

from loadgen import schema
from loadgen.history.writer import HistoryWriter
from tests.support.command import Run, assert_refused, called

HISTORIES = Path(__file__).parents[1] / "data" / "histories"
HEALTHY, BROKEN = HISTORIES / "healthy-3.5.30", HISTORIES / "etcd-15220-3.5.1"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `raftload check …` in this process."""
    return functools.partial(called, capsys, "check")


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ((HEALTHY, "--guarantee", "kv", "--guarantee", "durability"), 0),
        ((HEALTHY, "--guarantee", "lease.attached"), 0),
        ((HEALTHY,), 3),  # the members' logs are not kept with it
        ((BROKEN,), 1),
        ((BROKEN, "--guarantee", "kv"), 0),
        ((BROKEN, "--guarantee", "watch.bookmarkable"), 1),
    ],
)
def test_exit_codes_and_the_document(run: Run, args: tuple[str | Path, ...], code: int) -> None:
    done = run(*args, "--json")
    assert (done.returncode, done.stderr) == (code, "")
    document = json.loads(done.stdout)
    jsonschema.Draft202012Validator(schema.load("check")).validate(document)
    assert schema.problem(document, "check") is None
    assert document["verdict"] == {0: "pass", 1: "fail", 3: "unknown"}[code]


def test_the_table_shows_what_broke_and_how(run: Run) -> None:
    done = run(BROKEN)
    assert done.returncode == 1
    assert "watch.bookmarkable" in done.stdout
    assert "No news: each violation is of a known bug:" in done.stdout
    assert "etcd#15220" in done.stdout
    assert done.stdout.rstrip().endswith("verdict    fail")
    assert "\033" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_a_cut_history_is_named_and_no_pass(run: Run, tmp_path: Path) -> None:
    writer = HistoryWriter(tmp_path / "w.hist")
    writer.flush()
    done = run(tmp_path)
    assert done.returncode == 3
    assert "w.hist: it has no end" in done.stdout
    writer.close()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((HEALTHY, "--guarantee", "linearizable"), "no guarantee 'linearizable'; there are kv, durability"),
        ((Path(__file__).parent,), "no history in"),
    ],
)
def test_wrong_inputs_are_one_line_and_exit_2(run: Run, args: tuple[str | Path, ...], words: str) -> None:
    assert_refused(run(*args), words)
