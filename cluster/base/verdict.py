"""The verdict on a guarantee, a threshold, or on a whole run of them."""

from __future__ import annotations

import enum
from collections.abc import Iterable


class Verdict(enum.StrEnum):
    """What was found. UNKNOWN: neither kept nor broken could be shown. SKIP: it does not apply."""

    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"
    SKIP = "skip"

    @property
    def exit_code(self) -> int:
        """Of a command that comes to it: 0 pass or skip, 1 fail, 3 unknown."""
        return {Verdict.FAIL: 1, Verdict.UNKNOWN: 3}.get(self, 0)

    @property
    def style(self) -> str:
        """How a terminal shows it, a key of ``cluster.base.console.STYLES``."""
        return {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.UNKNOWN: "yellow"}.get(self, "dim")


NONE = "none"
"""What stands in place of a verdict on a whole run where nothing was judged. It is neither good nor bad."""


def style_of(verdict: str) -> str:
    """Return how a terminal shows the verdict on a run, which may be NONE: a key of ``cluster.base.console.STYLES``."""
    return "bold" if verdict == NONE else Verdict(verdict).style


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on all: FAIL before UNKNOWN before PASS; where nothing passed it is UNKNOWN."""
    found = set(verdicts)
    return next((each for each in (Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS) if each in found), Verdict.UNKNOWN)
