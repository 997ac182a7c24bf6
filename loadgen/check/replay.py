"""The replay of all revisions in order on a store of its own, which answers and watches are compared with.

Before each revision it judges the reads of the state so far; at each revision it does what was done there, and
compares what each watch delivered. ``settle`` decides what was done where that is not plain.
"""

from __future__ import annotations

import bisect
from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from cluster.observe.probe import version_key
from loadgen.check.answers import Problems, do, do_txn, wrong_range
from loadgen.check.evidence import MAYBE, WRITE, Evidence
from loadgen.check.leases import Leases
from loadgen.check.resolve import Resolver
from loadgen.check.rules import Ledger
from loadgen.check.store import Changes, Store, entry_of
from loadgen.check.unknown_writes import read_entries
from loadgen.check.watches import Watch
from loadgen.check.words import entry_words, show
from loadgen.history.format import OK, Method
from loadgen.proto import etcd_pb2 as pb

_RANGE, _PUT, _DELETE, _TXN = int(Method.RANGE), int(Method.PUT), int(Method.DELETE_RANGE), int(Method.TXN)
_range, _range_answer = pb.RangeRequest.FromString, pb.RangeResponse.FromString
_txn, _txn_answer = pb.TxnRequest.FromString, pb.TxnResponse.FromString
_delete = pb.DeleteRangeRequest.FromString


class Replay:
    """One walk. Takes what was recorded and the ledger that findings go to.

    Attributes:
        store: the keys at the revision that the walk has reached.
        resolved: the revisions of writes of unknown outcome that were seen to have happened.
    """

    def __init__(self, evidence: Evidence, watches: list[Watch], ledger: Ledger) -> None:
        self._evidence, self._ledger, self._watches = evidence, ledger, watches
        self.store = Store()
        versions = [version_key(version) for version in evidence.cluster.versions.values()]
        self.store.bare_keys_have_leases = all(version < (3, 7) for version in versions)
        self.leases = Leases(evidence, ledger)
        acknowledged = (evidence.outcome == OK) & (evidence.member != 0)
        self._writes = _by(evidence.revision, np.flatnonzero(acknowledged & (evidence.writes == WRITE)))
        looks = np.isin(evidence.method, (_RANGE, _TXN, _DELETE)) & (evidence.writes != WRITE)
        self._reads = _by(evidence.at, np.flatnonzero(acknowledged & looks))
        self._revocations = _by(evidence.revision, np.flatnonzero(acknowledged & (evidence.writes == MAYBE)))
        self._write_revisions: list[int] = evidence.revision[self._writes].tolist()
        self.resolver = Resolver(evidence, watches, ledger, self.store, self.leases, self.writer_of)
        self._methods = evidence.method.tobytes()
        self._final_revision = 0
        # The next one to begin is the last.
        self._waiting = sorted(watches, key=lambda watch: -watch.begins())
        self._active: list[Watch] = []

    @property
    def resolved(self) -> dict[int, int]:
        """The revisions of writes of unknown outcome that were seen to have happened."""
        return self.resolver.unknown.resolved

    def writer_of(self, revision: int) -> int | None:
        """Return the acknowledged write of a revision."""
        place = bisect.bisect_left(self._write_revisions, revision)
        if place < len(self._write_revisions) and self._write_revisions[place] == revision:
            return int(self._writes[place])
        return None

    # ---- the walk

    def run(self) -> None:
        """Walk from the first revision to the last."""
        evidence, resolver, ledger = self._evidence, self.resolver, self._ledger
        revisions = self._revisions()
        reads = self._read_steps()
        write_revisions, numbers = self._write_revisions, self._writes.tolist()
        payloads = evidence.history.payloads(evidence.rows[self._writes])
        revoked: dict[int, list[int]] = {}
        for number in self._revocations.tolist():
            revoked.setdefault(int(evidence.revision[number]), []).append(number)
        count, place, last = len(numbers), 0, evidence.cluster.revision
        plain_writes = 0
        next(reads)
        while place < count and write_revisions[place] <= last:
            place += 1  # from before the history: there is nothing to hold it against
            next(payloads)
        before = place
        for revision in revisions:
            if revision <= last:
                continue
            reads.send(last + 1)
            if revision > last + 1:
                self._gap(last + 1, revision - 1)
                reads.send(revision)
            last = revision
            acknowledged = []
            while place < count and write_revisions[place] == revision:
                acknowledged.append((numbers[place], *next(payloads)))
                place += 1
            changes: Changes = []
            problems: Problems = []
            plain = len(acknowledged) == 1
            if plain:
                number, request, response = acknowledged[0]
                do(self.store, self._methods[number], request, response, revision, changes, problems)
            plain, delivered, silent = self._look(revision, changes, plain=plain)
            if plain:
                plain_writes += 1
                if problems:
                    self._report(acknowledged[0][0], revision, problems)
            else:
                if len(acknowledged) == 1:
                    self.store.undo(changes)
                groups = [(watch, watch.events(first), watch.times[first]) for watch, first in delivered]
                changes = resolver.settle(revision, acknowledged, revoked.get(revision, []), groups, silent)
            for _, _, new in changes:
                if new is not None and new[4]:
                    self.leases.attached(new[4], revision, self.writer_of)
        reads.send(last + 1)
        newest = int(evidence.revision.max(initial=0))
        if newest > last:
            self._gap(last + 1, newest)
        reads.send(2**62)
        for rule in ("kv.revisions", "kv.once", "kv.failed"):
            ledger.judged[rule] += count
        ledger.judged["kv.explained"] += plain_writes
        ledger.judged["durability.acknowledged"] += count - before
        judged_events = sum(watch.count(evidence.cluster.revision) for watch in self._watches)
        for rule in ("filter", "reliable", "flags", "members"):
            ledger.judged[f"watch.{rule}"] += judged_events
        if any(watch.previous for watch in self._watches):
            ledger.judged["watch.previous-value"] += judged_events
        resolver.finish()
        self.leases.finish()

    def _look(
        self, revision: int, changes: Changes, *, plain: bool
    ) -> tuple[bool, list[tuple[Watch, int]], list[Watch]]:
        """Ask all watches of a revision, and go on to the next one.

        Returns whether ``changes`` are ``plain`` and each watch shows those of them that it asked for; the watches to
        which something was delivered, with its place; and those to which nothing was, though they cover it.
        """
        active, waiting = self._active, self._waiting
        while waiting and waiting[-1].begins() <= revision:
            active.append(waiting.pop())
        delivered: list[tuple[Watch, int]] = []
        silent: list[Watch] = []
        over = False
        shown: tuple[int, bool] | None = None
        resumed = 0
        for watch in active:
            if watch.head == revision:
                if plain and not (watch.whole and shown == (watch.shows, watch.previous)):
                    plain = watch.shows >= 0 and _same(watch, changes)
                    if watch.whole:
                        shown = watch.shows, watch.previous
                if revision < watch.start:
                    plain = False
                resumed += revision <= watch.resumed
                delivered.append((watch, watch.place))
                watch.pass_over()
            elif watch.start <= revision <= watch.covered:
                resumed += revision <= watch.resumed
                silent.append(watch)
                if plain and (watch.whole or any(watch.wants(key, new is None) for key, _, new in changes)):
                    plain = False
            elif watch.covered < revision:
                over = True
        if over:
            self._active = [watch for watch in active if watch.covered >= revision or watch.head]
        self._ledger.judged["watch.resumable"] += resumed
        return plain, delivered, silent

    def _revisions(self) -> list[int]:
        """Return the revisions of which something is known, those that only reads tell of among them."""
        evidence = self._evidence
        columns = [evidence.revision[self._writes], evidence.revision[self._revocations]]
        columns += [np.frombuffer(watch.revisions, np.int64) for watch in self._watches if watch.revisions]
        known = np.unique(np.concatenate(columns))
        base = evidence.cluster.revision
        newest = max(int(known[-1]) if len(known) else 0, int(evidence.revision.max(initial=0)))
        inside = known[known > base]
        if evidence.cluster.known and len(inside) < newest - base:
            seen = read_entries(evidence, set(inside.tolist()), base)
            self.resolver.seen = seen
            known = np.unique(np.concatenate((known, np.array(sorted(seen), np.int64))))
        revisions: list[int] = known.tolist()
        return revisions

    def _report(self, number: int, revision: int, problems: Problems) -> None:
        evidence = self._evidence
        for rule, text in problems:
            self._ledger.differs(rule, revision, f"{evidence.words(number)}: {text}")

    # ---- reads

    def _read_steps(self) -> Generator[None, int, None]:
        """Judge, each time that it is sent a revision, the reads of states before it."""
        evidence, ledger = self._evidence, self._ledger
        numbers: list[int] = self._reads.tolist()
        ats: list[int] = evidence.at[self._reads].tolist()
        finals: list[bool] = evidence.final[self._reads].tolist()
        methods, store = self._methods, self.store
        payloads = evidence.history.payloads(evidence.rows[self._reads])
        base = evidence.cluster.revision if evidence.cluster.known else 2**62
        reads = past = empty = transactions = 0
        until = yield
        for number, at, final, (request_data, response_data) in zip(numbers, ats, finals, payloads, strict=True):
            while at >= until:
                until = yield
            if at < base:
                continue
            method = methods[number]
            if method == _RANGE:
                request, response = _range(request_data), _range_answer(response_data)
                if final and request.range_end:
                    self._final(number, at, request, response)
                    continue
                wrong = wrong_range(store, request, response)
                if request.revision > 0:
                    past += 1
                    rule = "kv.past-reads"
                else:
                    reads += 1
                    rule = "kv.reads"
                if wrong:
                    self._wrong(rule, number, at, request.key, wrong)
            elif method == _TXN:
                transactions += 1
                problems: Problems = []
                changes: Changes = []
                do_txn(store, _txn(request_data), _txn_answer(response_data), at + 1, changes, problems)
                store.undo(changes)
                if changes:
                    problems = [("txn.responses", f"it should have changed {show(changes[0][0])}, and changed nothing")]
                for rule, text in problems:
                    self._wrong(rule, number, at, b"", text)
            else:
                empty += 1
                deletion = _delete(request_data)
                if store.count(deletion.key, deletion.range_end):
                    key = next(iter(store.keys(deletion.key, deletion.range_end)))
                    words = f"deleted nothing, where the store has {show(key)}: {entry_words(store.entries[key])}"
                    self._wrong("kv.writes", number, at, key, words)
        ledger.judged["kv.reads"] += reads
        ledger.judged["kv.past-reads"] += past
        wrote = np.bincount(evidence.method[self._writes], minlength=32)
        ledger.judged["kv.writes"] += empty + int(wrote[_DELETE] + wrote[_PUT])
        transactions += int(wrote[_TXN])
        for rule in ("txn.compares", "txn.responses", "txn.atomic"):
            ledger.judged[rule] += transactions
            ledger.absent(rule, "there is no transaction in the history")
        ledger.absent("kv.past-reads", "no past revision was read")
        while True:
            yield

    def _wrong(self, rule: str, number: int, at: int, key: bytes, wrong: str) -> None:
        evidence = self._evidence

        def text() -> str:
            words = (
                f"{evidence.words(number)} {wrong}" if rule.startswith("kv") else f"{evidence.words(number)}: {wrong}"
            )
            entry = self.store.entries.get(key)
            writer = self.writer_of(entry[2]) if entry else None
            return words + (f"; that was written by {evidence.words(writer)}" if writer is not None else "")

        self._ledger.differs(rule, at, text)

    def _final(self, number: int, at: int, request: pb.RangeRequest, response: pb.RangeResponse) -> None:
        """Hold what a member has in the end against every write up to then."""
        ledger, evidence = self._ledger, self._evidence
        self._final_revision = max(self._final_revision, at)
        wanted, _, _ = self.store.range(request)
        got = {kv.key: entry_of(kv) for kv in response.kvs}
        ledger.judged["durability.acknowledged"] += len(wanted)
        if len(got) == len(wanted) and all(got.get(key) == entry for key, entry in wanted):
            return
        where = evidence.member_name(int(evidence.member[number]))
        want = dict(wanted)
        for key in sorted(got.keys() | want.keys()):
            has, should = got.get(key), want.get(key)
            if has == should:
                continue
            writer = self.writer_of(should[2]) if should else None
            lost = should is not None and (has is None or has[2] < should[2])
            by = f"; that was written by {evidence.words(writer)}" if writer is not None else ""
            words = (
                f"in the end (revision {at}) {where} has {entry_words(has)} for {show(key)}, where the history has"
                f" {entry_words(should)}{by}"
            )
            rule = "durability.acknowledged" if lost and writer is not None else "kv.reads"
            newest = max(each[2] for each in (has, should) if each)
            # A deletion leaves no revision of its own.
            ledger.differs(rule, newest, words, until=newest if has and should else at)

    # ---- revisions of which nothing is known

    def _gap(self, low: int, high: int) -> None:
        evidence, ledger = self._evidence, self._ledger
        if not evidence.cluster.known:
            return
        covered = any(
            watch.whole and watch.start <= low and high <= watch.covered
            for watch in (*self._active, *(each for each in self._waiting if each.begins() <= low))
        )
        span = f"revision {low}" if low == high else f"revisions {low} to {high}"
        reason = self.resolver.possible()
        if covered:
            # Nothing of ours: a watch would have seen it.
            if not evidence.cluster.exclusive:
                return
            if cut := evidence.history.cut_words:
                ledger.doubt("kv.explained", f"no operation explains {span}, and {cut}")
                return
        elif reason:
            ledger.unknown_from = high
            # What a lease or a write that was given up does after the final reads is no part of the history.
            if evidence.cluster.exclusive and not 0 < self._final_revision < low:
                ledger.doubt("kv.explained", f"{span}: no watch tells of it; {reason}")
            return
        elif not evidence.cluster.exclusive:
            return
        ledger.broken("kv.explained", low, lambda: f"{span}: the store has it, but no operation made it")


def _same(watch: Watch, changes: Changes) -> bool:
    """Return whether a watch shows exactly the changes that it asked for; False: this simple comparison cannot tell."""
    events, previous = watch.events(watch.place), watch.previous
    if not watch.whole:
        changes = [change for change in changes if watch.wants(change[0], change[2] is None)]
    if len(events) != len(changes):
        return False
    for event, (key, old, new) in zip(events, changes, strict=True):
        kv = event.kv
        if kv.key != key:
            return False
        if new is None:
            if event.type != 1:
                return False
        elif (
            kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease
        ) != new or event.type != 0:  # fmt: skip
            return False
        if previous:
            if old is None:
                if event.HasField("prev_kv"):
                    return False
            else:
                kv = event.prev_kv
                if (kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease) != old or kv.key != key:
                    return False
    return True


def _by(column: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return operations in the order of a column."""
    order: NDArray[np.int64] = numbers[np.argsort(column[numbers], kind="stable")]
    return order
