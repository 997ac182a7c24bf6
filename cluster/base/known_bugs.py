"""Bugs of etcd that break a promise to its clients, by version: what a run may meet before it begins.

Of each: the issue of etcd's repository that describes it and the releases that have it. The releases are those that
etcd's CHANGELOG and the issue name, or that were tried; ``raftload chaos --track`` tries them again.
"""

from __future__ import annotations

import dataclasses
import re


@dataclasses.dataclass(frozen=True, slots=True)
class Bug:
    """One known bug.

    Attributes:
        issue: number in github.com/etcd-io/etcd.
        summary: what breaks and when.
        affected: pairs of the first version that has it and the first that does not; None: none of that line yet.
    """

    issue: int
    summary: str
    affected: tuple[tuple[str, str | None], ...]

    @property
    def url(self) -> str:
        """Where it is described."""
        return f"https://github.com/etcd-io/etcd/issues/{self.issue}"

    def is_in(self, version: str) -> bool:
        """Return whether a version such as ``3.5.1`` has it."""
        number = _number(version)
        return any(_number(first) <= number and (fixed is None or number < _number(fixed))
                   for first, fixed in self.affected)  # fmt: skip


BUGS = (
    Bug(13766, "a member that is killed under load can miss a write for ever, and nobody notices",
        (("3.5.0", "3.5.3"),)),
    Bug(14370, "a single member can acknowledge a write that is gone after a kill", (("3.0.0", "3.5.5"),)),
    Bug(15220, "a watch's progress notification can run ahead of events that are still to come",
        (("3.4.0", "3.4.25"), ("3.5.0", "3.5.8"))),
    Bug(18089, "a watch from the revision that was just compacted misses the deletions of that revision",
        (("3.4.0", "3.4.34"), ("3.5.0", "3.5.16"))),
    Bug(18667, "a transaction that reads a compacted revision and then writes is applied by some members only",
        (("3.3.0", "3.7.0"),)),
)  # fmt: skip


def known_bugs(version: str) -> tuple[Bug, ...]:
    """Return the known bugs of a version; none of one that is no version."""
    return tuple(bug for bug in BUGS if _number(version) and bug.is_in(version))


def known_bug(issue: int, version: str) -> Bug | None:
    """Return a known bug by its issue, where a version has it."""
    return next((bug for bug in known_bugs(version) if bug.issue == issue), None)


def _number(version: str) -> tuple[int, ...]:
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version, re.ASCII)
    return tuple(map(int, match.groups())) if match else ()
