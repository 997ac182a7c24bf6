"""The compiled core under AddressSanitizer and UndefinedBehaviorSanitizer, in conversations that are drawn and spoiled.

Each is held with the Python engine, too, so that a difference is found as a wrong byte is.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.soak.two_engines import hold_sanitized
from tests.support import sanitized
from tests.support.missing import require


@pytest.mark.soak
def test_for_as_long_as_there_is_time(soak_s: float, tmp_path: Path) -> None:
    if reason := sanitized.missing():
        require("sanitizers", reason)
    core = sanitized.build(tmp_path)
    seed = int(os.environ.get("RAFTLOAD_FUZZ_SEED") or random.SystemRandom().randrange(1 << 40))
    held = hold_sanitized(core, seed, soak_s)
    print(
        f"seed {seed}: {held.conversations:,} conversations, {held.operations:,} operations, {held.answers:,} answers"
    )
    assert held.operations
