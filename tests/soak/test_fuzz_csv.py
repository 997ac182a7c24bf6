"""Locust's CSV files, edited and damaged for as long as there is time: no wrong figure, no traceback."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.support.locust_csv_checks import check_damaged, check_edited


@pytest.mark.soak
def test_for_as_long_as_there_is_time(soak_s: float, tmp_path: Path) -> None:
    first = int(os.environ.get("RAFTLOAD_FUZZ_SEED") or random.SystemRandom().randrange(1 << 32))
    path, until = tmp_path / "x_stats.csv", time.monotonic() + soak_s
    seed = first
    read = 0
    while seed == first or time.monotonic() < until:
        try:
            check_edited(random.Random(seed), path)
            read += check_damaged(random.Random(seed), path)
        except BaseException as exc:
            exc.add_note(f"do it again with RAFTLOAD_FUZZ_SEED={seed}")
            raise
        seed += 1
    files = seed - first
    print(f"seed {first}: {files:,} files that were edited; of as many that were damaged {read:,} were read")
    assert files < 20 or 0.1 < read / files < 0.9
