"""The number of examples that a property test draws."""

from __future__ import annotations

import os

# What `make test-fast` sets: a fifth of the examples, for the minute before a commit. `make test` draws all.
_FAST = os.environ.get("RAFTLOAD_TESTS") == "fast"


def examples(count: int) -> int:
    """Return how many examples to draw where ``count`` are drawn in a whole run."""
    return max(10, count // 5) if _FAST else count
