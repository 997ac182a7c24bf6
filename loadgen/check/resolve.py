"""The resolution of revisions for which the answers and the watches do not plainly agree.

A write whose outcome its client does not know is resolved by what watches (or, without them, reads) saw of it: the
candidate that would have done exactly that to the store. Nothing is guessed. What no operation explains is a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from loadgen.check import compare
from loadgen.check.answers import Problems, do
from loadgen.check.compare import Group
from loadgen.check.evidence import Evidence
from loadgen.check.leases import Leases
from loadgen.check.rules import Ledger
from loadgen.check.store import Changes, Entry, Store, entry_of
from loadgen.check.unknown_writes import Index, UnknownWrites, read_revisions, writers
from loadgen.check.watches import Watch
from loadgen.check.words import entry_words, show
from loadgen.history.format import FAIL, Method
from loadgen.proto import etcd_pb2 as pb
from loadgen.proto.kv_pb2 import Event

_WRITING = (Method.PUT, Method.TXN, Method.DELETE_RANGE)


class Resolver:
    """Keeps what is still open: writes of unknown outcome, and those that were refused.

    Attributes:
        unknown: the writes of unknown outcome, and which of them happened.
        seen: the keys that reads found at revisions that no watch and no answer tells of.
    """

    def __init__(
        self,
        evidence: Evidence,
        watches: list[Watch],
        ledger: Ledger,
        store: Store,
        leases: Leases,
        writer_of: Callable[[int], int | None],
    ) -> None:
        self._evidence, self._ledger, self._store, self._leases = evidence, ledger, store, leases
        self._writer_of = writer_of
        self.unknown = UnknownWrites(evidence, watches)
        self.seen: dict[int, dict[bytes, Entry]] = {}
        self._rest: dict[tuple[bytes, bytes], int] = {}
        self._written: dict[tuple[bytes, bytes], int] | None = None
        failed = np.isin(evidence.method, _WRITING) & (evidence.outcome == FAIL)
        self._refused = Index(evidence, np.flatnonzero(failed).tolist())
        self._compacted = max(
            (evidence.request(number, pb.CompactionRequest).revision
             for number in np.flatnonzero(evidence.method == Method.COMPACT).tolist()
             if evidence.outcome[number] != FAIL),
            default=0,
        )  # fmt: skip
        self._compacted_by_others = bool(evidence.history.cut) or not evidence.cluster.exclusive
        self._found: set[int] | None = None
        self._gone: set[int] = set()

    def possible(self) -> str:
        """Say what could be at a revision that nothing tells of; empty where nothing could."""
        if cut := self._evidence.history.cut_words:
            return cut
        if left := self.unknown.count - len(self.unknown.resolved):
            return f"{left} writes have an unknown outcome"
        return "a lease may have ended" if self._store.leases else ""

    def settle(
        self,
        revision: int,
        acknowledged: list[tuple[int, bytes, bytes]],
        revocations: list[int],
        groups: list[Group],
        silent: list[Watch],
    ) -> Changes:
        """Do to the store what was done at a revision, reports what is wrong, return the changes.

        Takes the acknowledged writes of that revision, revocations of leases that may be, what watches delivered of
        it, and the watches that cover it and delivered nothing.
        """
        self._ledger.judged["kv.explained"] += 1
        changes = self._done(revision, acknowledged, revocations, groups, silent)
        other = 0
        for watch, events, at_ns in groups:
            self._refused_in(revision, watch, events, changes)
            found = compare.differences(watch, events, changes, revision, self._compacted)
            if found and self._compacted_by_others:
                found = self._without_missing(found, compare.differences(watch, events, changes, revision, revision))
            for rule, text in found:
                self._ledger.differs(rule, revision, self._said(watch, at_ns, text, revision))
            other += any(rule == "watch.flags" for rule, _ in found)
        if groups and other == len(groups):
            self._adopt(groups)  # no member has it as we do: going on from theirs, what follows is judged for itself
        for watch in silent:
            missed = [change for change in changes if watch.wants(change[0], change[2] is None)]
            if missed:
                rule = "watch.resumable" if revision <= watch.resumed else "watch.reliable"
                what = "no event" if len(missed) == 1 else f"none of {len(missed)} events"
                text = f"got {what} of revision {revision} ({show(missed[0][0])}), but later ones or notice of them"
                self._ledger.broken(rule, revision, self._said(watch, 0, text, revision))
        return changes

    def _without_missing(self, found: list[tuple[str, str]], certain: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return what is certain of what was found: a previous key-value may be missing because of a compaction.

        Takes both. The history does not tell all compactions where it is cut, or where others use the store.
        """
        if len(certain) < len(found):
            who = self._evidence.history.cut_words or "others use it"
            self._ledger.doubt("watch.previous-value", f"one is missing, and the store may have been compacted: {who}")
        return certain

    def finish(self) -> None:
        """Say what is missing where nothing was judged."""
        self._ledger.absent("watch.resumable", "no watch began in the past")
        self._ledger.absent("watch.previous-value", "no watch asked for previous key-values")

    def _refused_in(self, revision: int, watch: Watch, events: Sequence[Event], changes: Changes) -> None:
        """Say so where what one member alone shows is what a refused operation would have written."""
        if self._refused.empty:
            return
        done = {(key, new[0]) for key, _, new in changes if new is not None}
        for event in events:
            pair = (event.kv.key, event.kv.value)
            if event.type == 0 and pair not in done and pair in self._refused.puts:
                number = self._refused.puts[pair][0]
                text = f"{watch.label} saw {compare.events_words(events)} of revision {revision}"
                self._ledger.broken("kv.failed", revision, f"{self._evidence.words(number)} has an effect: {text}")
                return

    def _said(self, watch: Watch, at_ns: int, text: str, revision: int) -> Callable[[], str]:
        def words() -> str:
            writer = self._writer_of(revision)
            when = f" ({self._evidence.time(at_ns)})" if at_ns else ""
            by = f"; the write is {self._evidence.words(writer)}" if writer is not None else ""
            return f"{watch.label} {text}{when}{by}"

        return words

    # ---- what was done

    def _done(
        self,
        revision: int,
        acknowledged: list[tuple[int, bytes, bytes]],
        revocations: list[int],
        groups: list[Group],
        silent: list[Watch],
    ) -> Changes:
        if acknowledged:
            return self._acknowledged(revision, acknowledged, groups, silent)
        for number in revocations:
            lease = self._leases.revoked(number)
            if keys := sorted(self._store.leases.get(lease, ())):
                changes: Changes = []
                for key in keys:
                    self._store.delete(key, changes)
                self._leases.revoke(lease, revision, number)
                self._ledger.judged["lease.together"] += 1
                if groups and not any(self._agrees(group, changes, revision) for group in groups):
                    seen = compare.events_words(groups[0][1])
                    text = f"{self._evidence.words(number)} ended a lease with {len(changes)} keys, of which"
                    self._ledger.differs("lease.together", revision, f"{text} the watches saw {seen}")
                return changes
        if groups:
            return self._unacknowledged(revision, groups)
        return self._read(revision) if revision in self.seen else []

    def _acknowledged(
        self, revision: int, acknowledged: list[tuple[int, bytes, bytes]], groups: list[Group], silent: list[Watch]
    ) -> Changes:
        best, agreeing = 0, -1
        for index, candidate in enumerate(acknowledged):
            changes, _ = self._try(candidate, revision)
            self._store.undo(changes)
            count = sum(1 for group in groups if self._agrees(group, changes, revision))
            if count > agreeing:
                best, agreeing = index, count
        number = acknowledged[best][0]
        for other, _, _ in acknowledged:
            if other != number:
                self._ledger.broken(
                    "kv.revisions", revision,
                    f"two acknowledged writes have revision {revision}:"
                    f" {self._evidence.words(number)} and {self._evidence.words(other)}",
                )  # fmt: skip
                if agreeing:
                    seen = f"the watches saw another write of revision {revision}: {self._evidence.words(number)}"
                    self._lost(other, revision, seen)
        changes, problems = self._try(acknowledged[best], revision)
        wanting = [watch for watch in silent if any(watch.wants(key, new is None) for key, _, new in changes)]
        if agreeing or not (groups or wanting) or self._was_read(revision):
            self._report(number, revision, problems)
            return changes
        if not groups:
            self._store.undo(changes)
            self._lost(number, revision, f"no watch saw it: {', '.join(watch.label for watch in wanting)}")
            return []
        if all(compare.only_metadata(group[0], group[1], changes) for group in groups):
            self._report(number, revision, problems)
            return changes
        if len(changes) > 1 and all(compare.only_part(group[1], changes) for group in groups):
            self._store.undo(changes)
            for key, _, new in changes:
                self._rest[key, new[0] if new else b""] = number
            seen = compare.events_words(groups[0][1])
            self._ledger.differs(
                "txn.atomic", revision,
                lambda: f"{self._evidence.words(number)} made {len(changes)} changes, and of its revision the watches"
                f" saw {seen} alone",
            )  # fmt: skip
            return self._adopt(groups)
        self._store.undo(changes)
        self._lost(number, revision, f"the watches saw {compare.events_words(groups[0][1])} of that revision")
        return self._unacknowledged(revision, groups)

    def _unacknowledged(self, revision: int, groups: list[Group]) -> Changes:
        """Return what the watches saw, and no answer tells of."""
        group = compare.plurality(groups)
        watch, events, at_ns = group
        puts = [(event.kv.key, event.kv.value) for event in events if event.type == 0]
        deleted = [event.kv.key for event in events]
        lease = 0 if puts else self._leases.lease_of(deleted, self._store.entries)
        options = self._fitting(self.unknown.candidates(events), group, revision)
        if lease and options:
            return self._adopt([group])  # either may have done it, so neither is held to it
        number = self.unknown.assign(revision, options)
        if number is not None:
            first = min(each[2] for each in groups)
            if first < self._evidence.call[number]:
                self._ledger.broken(
                    "kv.once", revision,
                    lambda: f"{watch.label} saw the effect at {self._evidence.time(first)} of"
                    f" {self._evidence.words(number)}",
                )  # fmt: skip
            return self._try(self._raw(number), revision)[0]
        if lease:
            attached = set(self._store.leases[lease])
            at_ns = min(each[2] for each in groups)
            self._leases.ended(lease, revision, at_ns, set(deleted), attached)
            return self._adopt([group])
        pairs = puts or [(key, b"") for key in deleted]
        if not all(pair in self._rest for pair in pairs):
            self._unexplained(revision, group, puts)
        return self._adopt([group])

    def _unexplained(self, revision: int, group: Group, puts: list[tuple[bytes, bytes]]) -> None:
        evidence, ledger = self._evidence, self._ledger
        watch, events, at_ns = group
        seen = f"{watch.label} saw {compare.events_words(events)} of revision {revision} ({evidence.time(at_ns)})"
        if refused := self._fitting(self._refused.candidates(events), group, revision):
            if puts or not evidence.history.cut:
                ledger.broken("kv.failed", revision, lambda: f"{evidence.words(refused[0])} has an effect: {seen}")
                return
            # Of deletions the watches do not tell whose they are, as values do of puts.
            ledger.doubt("kv.failed", f"the deletion of revision {revision} may be of an operation that was lost")
        if not any(event.kv.key.startswith(evidence.cluster.prefix) for event in events):
            if not evidence.cluster.exclusive:
                return
        elif puts and (writer := self._wrote(puts[0])) is not None:
            again = self.unknown.resolved.get(writer) or int(evidence.revision[writer])
            if writer in self._gone or again > revision:
                words = f"{evidence.words(writer)} was acknowledged at revision {again}, and is at {revision} instead"
                ledger.broken("durability.acknowledged", revision, lambda: f"{words}: {seen}")
            else:
                words = f"{evidence.words(writer)} took effect at revision {again}"
                ledger.broken("kv.once", revision, lambda: f"{words}; again, {seen}")
            return
        if cut := evidence.history.cut_words:
            ledger.doubt("kv.explained", f"no operation explains revision {revision}, and {cut}")
            return
        ledger.differs("kv.explained", revision, lambda: f"{seen}, and no operation did that")

    def _read(self, revision: int) -> Changes:
        """Return what reads alone saw: a put, for which there must be an operation."""
        evidence, store = self._evidence, self._store
        entries = self.seen[revision]
        key, entry = next(iter(entries.items()))
        options = []
        for number in self.unknown.puts.get((key, entry[0]), ()):
            changes, _ = self._try(self._raw(number), revision)
            if all(store.entries.get(each) == has for each, has in entries.items()):
                options.append(number)
            store.undo(changes)
        if (writer := self.unknown.assign(revision, options)) is not None:
            return self._try(self._raw(writer), revision)[0]
        changes = []
        for each, has in entries.items():
            old = store.entries.get(each)
            store.set(each, old, has)
            changes.append((each, old, has))
        words = f"a read found {entry_words(entry)} for {show(key)}"
        if refused := self._refused.puts.get((key, entry[0])):
            number = refused[0]
            self._ledger.broken("kv.failed", revision, lambda: f"{evidence.words(number)} has an effect: {words}")
        elif cut := evidence.history.cut_words:
            self._ledger.doubt("kv.explained", f"no operation explains revision {revision}, and {cut}")
        else:
            self._ledger.differs("kv.explained", revision, lambda: f"{words}, and no operation did that")
        return changes

    # ---- its means

    def _try(self, candidate: tuple[int, bytes, bytes | None], revision: int) -> tuple[Changes, Problems]:
        changes: Changes = []
        problems: Problems = []
        number, request, response = candidate
        do(self._store, int(self._evidence.method[number]), request, response, revision, changes, problems)
        return changes, problems

    def _raw(self, number: int) -> tuple[int, bytes, None]:
        return number, self._evidence.history.request(int(self._evidence.rows[number])), None

    def _fitting(self, candidates: Sequence[int], group: Group, revision: int) -> list[int]:
        """Return the operations that would have done what a watch saw; versions may differ where none fits so."""
        exact, alike = [], []
        for number in candidates:
            changes, _ = self._try(self._raw(number), revision)
            if changes and self._agrees(group, changes, revision):
                exact.append(number)
            elif changes and compare.only_metadata(group[0], group[1], changes):
                alike.append(number)
            self._store.undo(changes)
        return exact or alike

    def _agrees(self, group: Group, changes: Changes, revision: int) -> bool:
        return not compare.differences(group[0], group[1], changes, revision, self._compacted)

    def _adopt(self, groups: list[Group]) -> Changes:
        """Do what a watch saw."""
        changes: Changes = []
        for event in compare.plurality(groups)[1]:
            old = self._store.entries.get(event.kv.key)
            new = entry_of(event.kv) if event.type == 0 else None
            if old is not None or new is not None:
                self._store.set(event.kv.key, old, new)
                changes.append((event.kv.key, old, new))
        return changes

    def _lost(self, number: int, revision: int, seen: str) -> None:
        words = self._evidence.words
        self._gone.add(number)
        self._ledger.broken(
            "durability.acknowledged", revision, lambda: f"{words(number)} was acknowledged, and is gone: {seen}"
        )

    def _report(self, number: int, revision: int, problems: Problems) -> None:
        for rule, text in problems:
            self._ledger.differs(rule, revision, f"{self._evidence.words(number)}: {text}")

    def _wrote(self, pair: tuple[bytes, bytes]) -> int | None:
        """Return an operation that put this value and is known to have happened."""
        if self._written is None:
            self._written = writers(self._evidence, self.unknown.resolved)
        for number in self.unknown.puts.get(pair, ()):
            if number in self.unknown.resolved:
                return number
        return self._written.get(pair)

    def _was_read(self, revision: int) -> bool:
        """Return whether a read found a key of this revision: then the write was there for somebody."""
        if self._found is None:
            self._found = read_revisions(self._evidence)
        return revision in self._found
