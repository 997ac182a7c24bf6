"""Evidence of a write in the answers to other operations, for writes that watches and their own answer leave open."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from loadgen.check.evidence import Evidence
from loadgen.check.store import Entry, entry_of
from loadgen.check.unknown_writes import Pair, puts_of, write_of
from loadgen.history.format import OK, Method
from loadgen.proto import etcd_pb2 as pb


def read_revisions(evidence: Evidence) -> set[int]:
    """Return the revisions of all keys that reads found: their writes were there for somebody."""
    found: set[int] = set()
    numbers = np.flatnonzero((evidence.method == Method.RANGE) & (evidence.outcome == OK))
    for _, response in evidence.history.payloads(evidence.rows[numbers]):
        found.update(kv.mod_revision for kv in pb.RangeResponse.FromString(response).kvs)
    return found


def read_entries(evidence: Evidence, known: set[int], base: int) -> dict[int, dict[bytes, Entry]]:
    """Return the keys that reads found to be of revisions after ``base`` that are not ``known``, by revision."""
    seen: dict[int, dict[bytes, Entry]] = {}
    numbers = np.flatnonzero((evidence.method == Method.RANGE) & (evidence.outcome == OK))
    for _, response in evidence.history.payloads(evidence.rows[numbers]):
        for kv in pb.RangeResponse.FromString(response).kvs:
            if kv.mod_revision > base and kv.mod_revision not in known and kv.value:
                seen.setdefault(kv.mod_revision, {})[kv.key] = entry_of(kv)
    return seen


def writers(evidence: Evidence, others: Iterable[int]) -> dict[Pair, int]:
    """Return which acknowledged operation put a value to a key; ``others`` are known to have happened too."""
    done = np.isin(evidence.method, (Method.PUT, Method.TXN)) & (evidence.outcome == OK) & (evidence.writes > 0)
    return {
        pair: number
        for number in (*np.flatnonzero(done).tolist(), *others)
        for pair in puts_of(write_of(evidence, number))[0]
    }
