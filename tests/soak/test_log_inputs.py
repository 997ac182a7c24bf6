"""The logs of real elections, handed over in ever new ways: always the same picture."""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.support.log_inputs import check_picture


@pytest.mark.soak
def test_for_as_long_as_there_is_time(soak_s: float) -> None:
    first = int(os.environ.get("RAFTLOAD_FUZZ_SEED") or random.SystemRandom().randrange(1 << 32))
    until = time.monotonic() + soak_s
    tried = 0
    while tried == 0 or time.monotonic() < until:
        check_picture(first + tried)
        tried += 1
    print(f"from seed {first}: {tried:,} ways to hand over logs")
