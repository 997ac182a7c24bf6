"""The check of leases: how long each lived, the keys attached when it ended, and the writes after its end.

A grant or keep-alive takes effect after it was called, so its lease lives at least its time to live from the call on;
and a lease that ended was seen to have, so it had ended by then (etcd, "Lease APIs"; ``server/lease/lessor.go``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from loadgen.check.evidence import Evidence
from loadgen.check.rules import Ledger
from loadgen.check.store import Entry
from loadgen.check.words import show
from loadgen.history.format import INFO, OK, Method
from loadgen.proto import etcd_pb2 as pb

_Renewed = pb.LeaseGrantResponse | pb.LeaseKeepAliveResponse
# What a clock may gain on another: quartz is a thousand times better.
_DRIFT = 0.001


class Leases:
    """What was done to leases, and when they ended. ``latest_s``: the longest that one lived on after its time."""

    def __init__(self, evidence: Evidence, ledger: Ledger) -> None:
        self._evidence, self._ledger = evidence, ledger
        self.latest_s: float | None = None
        self._renewals: dict[int, list[tuple[int, int, float]]] = {}
        self._unsure: dict[int, int] = {}
        self._ended: dict[int, tuple[int, str]] = {}
        # Where the history is cut, keys may be gone because of an operation that is not in it.
        self._cut = evidence.history.cut_words
        self._perhaps_ended: set[int] = set()
        self.used = False
        self._one_clock = len(set(evidence.clock_of_part.tolist())) == 1
        methods, outcomes = evidence.method, evidence.outcome
        renewing = np.isin(methods, (Method.LEASE_GRANT, Method.LEASE_KEEP_ALIVE)) & (outcomes == OK)
        # A proxy renews by itself, and answers with what it was told then, which may have been asked before.
        renewing &= (methods == Method.LEASE_GRANT) | ~evidence.proxied
        for number in np.flatnonzero(renewing).tolist():
            kind: type[_Renewed] = pb.LeaseKeepAliveResponse
            if methods[number] == Method.LEASE_GRANT:
                kind = pb.LeaseGrantResponse
            answer = evidence.response(number, kind)
            if answer.TTL > 0:
                self.used = True
                self._renewals.setdefault(answer.ID, []).append(
                    (int(evidence.call[number]), number, answer.TTL * (1 - _DRIFT))
                )
        for number in np.flatnonzero((methods == Method.LEASE_REVOKE) & (outcomes == INFO)).tolist():
            self._unsure[evidence.request(number, pb.LeaseRevokeRequest).ID] = number

    def lease_of(self, keys: list[bytes], entries: Mapping[bytes, Entry]) -> int:
        """Return the one lease that all these keys are attached to; 0 where there is none."""
        leases = {entry[4] if (entry := entries.get(key)) else 0 for key in keys}
        return leases.pop() if len(leases) == 1 else 0

    def revoked(self, number: int) -> int:
        """Return the lease that an operation revoked."""
        return self._evidence.request(number, pb.LeaseRevokeRequest).ID

    def revoke(self, lease: int, revision: int, by: int) -> None:
        """Take in that an operation ended a lease."""
        self._ended.setdefault(lease, (revision, f"revoked by {self._evidence.words(by)}"))

    def ended(self, lease: int, revision: int, at_ns: int, deleted: set[bytes], attached: set[bytes]) -> None:
        """Judge a lease that was seen to end by itself: when it was seen, which keys went, which it had."""
        ledger, evidence = self._ledger, self._evidence
        ledger.judged["lease.together"] += 1
        if deleted != attached and self._cut:
            ledger.doubt("lease.together", f"why keys of lease {lease:x} are gone is not known: {self._cut}")
        elif deleted != attached:
            left = sorted(attached - deleted)
            ledger.differs(
                "lease.together", revision,
                lambda: f"lease {lease:x} ended at revision {revision}: {len(deleted)} of its {len(attached)} keys"
                f" were deleted, and {show(left[0]) if left else 'another'} was not",
            )  # fmt: skip
        if self._cut and lease not in self._ended:
            self._perhaps_ended.add(lease)
        if lease in self._unsure:
            self.revoke(lease, revision, self._unsure[lease])
            return
        self._ended.setdefault(lease, (revision, "it ran out"))
        if not self._one_clock:
            ledger.doubt("lease.early", "the history has times of several machines")
            return
        renewals = [each for each in self._renewals.get(lease, ()) if each[0] < at_ns]
        if not renewals:
            ledger.doubt("lease.early", f"lease {lease:x} was granted by an operation that is not in the history")
            return
        ledger.judged["lease.early"] += 1
        call, number, ttl = max(renewals, key=lambda each: each[0] + each[2] * 1e9)
        if at_ns < call + ttl * 1e9 and self._cut:
            ledger.doubt("lease.early", f"why keys of lease {lease:x} are gone is not known: {self._cut}")
        elif at_ns < call + ttl * 1e9:
            ledger.differs(
                "lease.early", revision,
                lambda: f"lease {lease:x} ended at revision {revision}, seen at {evidence.time(at_ns)}:"
                f" {(call - at_ns) / 1e9 + ttl:.3f} s too early for {evidence.words(number)},"
                f" which gave it {ttl / (1 - _DRIFT):g} s",
            )  # fmt: skip
        else:
            back = int(evidence.back[number])
            self.latest_s = max(self.latest_s or 0.0, (at_ns - back) / 1e9 - ttl)

    def attached(self, lease: int, revision: int, writer_of: Callable[[int], int | None]) -> None:
        """Judge that a key was attached to a lease at a revision."""
        self._ledger.judged["lease.attached"] += 1
        ended = self._ended.get(lease)
        if ended is None or ended[0] >= revision:
            return
        if lease in self._perhaps_ended:
            self._ledger.doubt("lease.attached", f"whether lease {lease:x} had ended is not known: {self._cut}")
        else:
            number = writer_of(revision)
            who = self._evidence.words(number) if number is not None else "a write"
            self._ledger.broken(
                "lease.attached", revision,
                lambda: f"{who} attached a key to lease {lease:x}, which had ended at revision {ended[0]}: {ended[1]}",
            )  # fmt: skip

    def finish(self) -> None:
        """Say what is missing where nothing was judged."""
        reason = "no lease ran out during a watch of its keys" if self.used else "there is no lease in the history"
        for rule in ("lease.early", "lease.together"):
            self._ledger.absent(rule, reason)
        self._ledger.absent("lease.attached", "no key was attached to a lease")
