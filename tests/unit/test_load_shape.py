"""A locustfile's own shape of load, which raftload does not follow, is refused with what to use instead."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.command import assert_refused, run

SHAPE = Path(__file__).parent.parent / "data" / "field" / "load-shape.py"


@pytest.mark.parametrize("command", ["bench", "worker"])
def test_a_load_test_shape_is_refused(command: str, tmp_path: Path) -> None:
    shutil.copy(SHAPE, tmp_path)
    done = run(command, "--scenario", "load-shape.py", cwd=tmp_path)
    assert_refused(done, "error: load-shape.py: Steps is a LoadTestShape, which raftload does not follow")
    assert "--stages or --step" in done.stderr and "--scenario steps" in done.stderr
