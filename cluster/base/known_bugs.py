"""Bugs of etcd that break a guarantee to its clients, by version: what somebody may meet who runs that version.

Of each: the issue or the advisory that describes it and the releases that have it. The releases are those that etcd's
CHANGELOG, the issue or the advisory name, or that were tried; ``raftload bugs`` tries them again.
"""

from __future__ import annotations

import dataclasses
import re

_REPOSITORY = "https://github.com/etcd-io/etcd"


@dataclasses.dataclass(frozen=True, slots=True)
class Bug:
    """One known bug.

    Attributes:
        issue: number in github.com/etcd-io/etcd, or the name of an advisory: ``20693``, ``CVE-2026-33413``,
            ``GHSA-xg4h-6gfc-h4m8``.
        summary: what breaks and when.
        affected: pairs of the first version that has it and the first that does not; None: none of that
            line yet, such as 3.5.
        under_load: whether puts, gets, transactions, watches and leases under faults can meet it, as those of
            ``raftload chaos``; others need what no load does, such as users with few rights.
    """

    issue: str
    summary: str
    affected: tuple[tuple[str, str | None], ...]
    under_load: bool = False

    @property
    def name(self) -> str:
        """How people call it: ``etcd#20693``, or the name of its advisory."""
        return f"etcd#{self.issue}" if self.issue.isdigit() else self.issue

    @property
    def url(self) -> str:
        """Where it is described."""
        if self.issue.isdigit():
            return f"{_REPOSITORY}/issues/{self.issue}"
        if self.issue.startswith("GHSA-"):
            return f"{_REPOSITORY}/security/advisories/{self.issue}"
        return f"https://nvd.nist.gov/vuln/detail/{self.issue}"

    @property
    def fixed_in(self) -> tuple[str, ...]:
        """The first version of each line that does not have it any more, the newest last."""
        return tuple(sorted((fixed for _, fixed in self.affected if fixed is not None), key=_number))

    def is_in(self, version: str) -> bool:
        """Return whether a version such as ``3.5.1`` has it."""
        number = _number(version)
        for first, fixed in self.affected:
            until = number[:2] == _number(first)[:2] if fixed is None else number < _number(fixed)
            if until and _number(first) <= number:
                return True
        return False


BUGS = (
    Bug("12385", "a refused watch silences the first watch of its stream",
        (("3.4.0", "3.4.22"), ("3.5.0", "3.5.6"))),
    Bug("12535", "leases with negative ids are lost when a member is started again",
        (("3.4.0", "3.4.20"), ("3.5.0", "3.5.3"))),
    Bug("13084", "a request to raise an alarm that names no alarm ends every member, and none can start again",
        (("3.4.0", "3.5.0"),)),
    Bug("13086", "a request to grant a role a permission that is missing ends every member, and none can start again",
        (("3.4.0", "3.4.25"),)),
    Bug("13429", "transactions that only read or delete are refused while the store is full",
        (("3.4.0", "3.4.20"), ("3.5.0", "3.5.7"))),
    Bug("13553", "a client that sends a version that is not UTF-8 ends the member", (("3.4.0", "3.6.0"),)),
    Bug("13554", "a read with an unknown sort target ends the member", (("3.4.0", "3.6.0"),)),
    Bug("13577", "once authentication is switched off, members refuse the tokens that they gave before",
        (("3.4.0", "3.4.28"), ("3.5.0", "3.5.10"))),
    Bug("13766", "a member that is killed under load can miss a write for ever, and nobody notices",
        (("3.5.0", "3.5.3"),), under_load=True),
    Bug("13975", "leases never run out under a leader that learned from a snapshot that authentication is on",
        (("3.4.0", "3.4.19"), ("3.5.0", "3.5.5"))),
    Bug("14110", "a serializable read-only transaction that its client cancels ends the member",
        (("3.5.0", "3.5.5"),)),
    Bug("14370", "a single member can acknowledge a write that is gone after a kill",
        (("3.0.0", "3.4.21"), ("3.5.0", "3.5.5")),
        under_load=True),
    Bug("14571", "a member that installs a snapshot keeps the permissions from before, and refuses what others apply",
        (("3.4.0", "3.4.22"), ("3.5.0", "3.5.6"))),
    Bug("14663", "with authentication on, a client without a user transfers leadership",
        (("3.4.0", "3.4.42"), ("3.5.0", "3.5.28"))),
    Bug("14685", "a member that is killed while it defragments applies writes twice", (("3.5.0", "3.5.6"),)),
    Bug("14931", "a token that names no user ends the member", (("3.4.0", "3.4.25"), ("3.5.0", "3.5.8"))),
    Bug("15220", "a watch's progress notification can run ahead of events that are still to come",
        (("3.4.0", "3.4.25"), ("3.5.0", "3.5.8")), under_load=True),
    Bug("15247", "a leader whose disk is stuck revokes leases that it no longer owns",
        (("3.4.0", "3.4.31"), ("3.5.0", "3.5.13"))),
    Bug("15814", "a lease's time to live shows the names of its keys to users who may not read them",
        (("3.4.0", "3.4.26"), ("3.5.0", "3.5.9"))),
    Bug("17529", "watches on a stream that is not read for a while lose events that are compacted meanwhile",
        (("3.4.0", "3.4.31"), ("3.5.0", "3.5.13"))),
    Bug("17780", "a member that is killed while it compacts starts again with a lower revision",
        (("3.4.0", "3.4.32"), ("3.5.0", "3.5.14"))),
    Bug("18089", "a watch from the revision that was just compacted misses the deletions of that revision",
        (("3.4.0", "3.4.34"), ("3.5.0", "3.5.16")), under_load=True),
    Bug("18667", "a transaction that reads a compacted revision and then writes is applied by some members only",
        (("3.3.0", "3.7.0"),), under_load=True),
    Bug("18810", "a member whose disk is full while it defragments ends",
        (("3.4.0", "3.4.35"), ("3.5.0", "3.5.17"))),
    Bug("19179", "after a kill during a compaction, a watch from the compacted revision misses its deletion",
        (("3.4.0", "3.4.36"), ("3.5.0", "3.5.18"))),
    Bug("20221", "a watch from a future revision gets earlier events once its member has installed a snapshot",
        (("3.4.0", "3.4.38"), ("3.5.0", "3.5.22"), ("3.6.0", "3.6.2"))),
    Bug("20271", "a member that defragments while it installs a snapshot loses what it applies afterwards",
        (("3.4.0", "3.4.38"), ("3.5.0", "3.5.23"), ("3.6.0", "3.6.5"))),
    Bug("20693", "a watch at revision -1 makes other watches that catch up lose all events",
        (("3.4.0", "3.4.38"), ("3.5.0", "3.5.24"), ("3.6.0", "3.6.6"))),
    Bug("20757", "with authentication on, a request to a follower to promote a learner fails",
        (("3.4.0", "3.5.28"), ("3.6.0", "3.6.6"))),
    Bug("21663", "users other than root are refused the status of a member",
        (("3.4.42", None), ("3.5.28", "3.5.32"), ("3.6.0", "3.6.12"))),
    Bug("21694", "changing the peer URLs of a learner makes it a voter in the list of members",
        (("3.4.0", "3.5.31"), ("3.6.0", "3.6.12"))),
    Bug("22134", "with the alarm NOSPACE on, nested transactions still write",
        (("3.4.0", "3.5.33"), ("3.6.0", "3.6.14"), ("3.7.0", "3.7.1"))),
    Bug("22214", "linearizable reads hang for ever at a member whose log output nobody reads",
        (("3.4.0", None), ("3.5.0", None), ("3.6.0", None), ("3.7.0", None))),
    Bug("22264", "a watch that is far behind slows down the writes of others",
        (("3.4.0", None), ("3.5.0", None), ("3.6.0", None), ("3.7.0", None))),
    Bug("22376", "a key that is deleted and put in one transaction is lost when its revision is compacted",
        (("3.4.34", None), ("3.5.16", None), ("3.6.0", None), ("3.7.0", None))),
    Bug("22386", "with the alarm NOSPACE on, permissions are not checked, and a member that starts then diverges",
        (("3.4.0", "3.6.0"),)),
    Bug("CVE-2026-33343", "a user reads a key that it may not through a nested transaction",
        (("3.4.0", "3.4.42"), ("3.5.0", "3.5.28"), ("3.6.0", "3.6.9"))),
    Bug("CVE-2026-33413", "with authentication on, a client without a user lists members and alarms, and grants leases",
        (("3.4.0", "3.4.42"), ("3.5.0", "3.5.28"), ("3.6.0", "3.6.9"))),
    Bug("CVE-2026-44283", "a put in a transaction shows a value, and attaches a lease, that its user has no right to",
        (("3.4.0", "3.4.44"), ("3.5.0", "3.5.30"), ("3.6.0", "3.6.11"))),
    Bug("GHSA-xg4h-6gfc-h4m8", "the right to read one key lets a watch see every key after it",
        (("3.4.0", "3.5.33"), ("3.6.0", "3.6.14"), ("3.7.0", "3.7.1"))),
)  # fmt: skip


def known_bugs(version: str, *, under_load: bool = False) -> tuple[Bug, ...]:
    """Return the known bugs of a version; none of one that is no version.

    ``under_load``: only those that a load with faults can meet.
    """
    had = (bug for bug in BUGS if _number(version) and bug.is_in(version))
    return tuple(bug for bug in had if bug.under_load or not under_load)


def known_bug(issue: str, version: str) -> Bug | None:
    """Return a known bug by its issue, where a version has it."""
    return next((bug for bug in known_bugs(version) if bug.issue == issue), None)


def bug_of(issue: str) -> Bug:
    """Return a bug by its issue. Raises KeyError for one that is not in the table."""
    for bug in BUGS:
        if bug.issue == issue:
            return bug
    raise KeyError(issue)


def _number(version: str) -> tuple[int, ...]:
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version, re.ASCII)
    return tuple(map(int, match.groups())) if match else ()
