"""The members of a run that goes on, as the observer last saw them."""

from __future__ import annotations

import dataclasses
from collections import deque
from pathlib import Path

from cluster.observe import record
from cluster.observe.record import Poll, Scrape

# The observer scrapes every two seconds: what is told of the last ten is from these.
_SCRAPES = 6


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """One member.

    Attributes:
        poll: its last status; that of one that did not answer has little more than its name.
        answered: the last status of one that did; None where it never has.
        wal_fsync_p99_s: of the last ten seconds, as Prometheus' ``histogram_quantile`` has it; None of no fsync.
    """

    poll: Poll
    answered: Poll | None
    wal_fsync_p99_s: float | None


class Following:
    """Reads what the observer writes into a run folder, from its beginning on.

    Takes the folder.

    Attributes:
        members: what was last seen of each, by name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.members: dict[str, Seen] = {}
        self._polls, self._scrapes = record.polls_tail(folder), record.scrapes_tail(folder)
        self._scraped: dict[str, deque[Scrape]] = {}
        self._terms: set[int | None] = set()

    def look(self) -> None:
        """Read what is new. Raises OSError."""
        for scrape in self._scrapes.rows():
            self._scraped.setdefault(scrape.member, deque(maxlen=_SCRAPES)).append(scrape)
        for poll in self._polls.rows():
            before = self.members.get(poll.member)
            answered = poll if poll.answers else before.answered if before else None
            self.members[poll.member] = Seen(poll, answered, None)
            if poll.role == "leader":
                self._terms.add(poll.term)
        for name, seen in self.members.items():
            fsyncs = record.between([*self._scraped.get(name, ())], "wal_fsync")
            p99_s = None if fsyncs is None else fsyncs.quantile(0.99)
            self.members[name] = dataclasses.replace(seen, wal_fsync_p99_s=p99_s)

    @property
    def leader_changes(self) -> int:
        """Elections won since the first look, as `record.leader_changes` counts them."""
        return max(0, len(self._terms) - 1)
