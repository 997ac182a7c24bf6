"""The check of convergence: the members' final stores compared. Equal revisions alone prove nothing."""

from __future__ import annotations

import numpy as np

from loadgen.check.answers import first_difference
from loadgen.check.evidence import Evidence
from loadgen.check.rules import Ledger
from loadgen.check.store import entry_of
from loadgen.history.format import OK, Method
from loadgen.proto import etcd_pb2 as pb


def convergence(evidence: Evidence, ledger: Ledger) -> None:
    """Judge the final reads of each member: status, hash and keys."""
    finals = np.flatnonzero(evidence.final & (evidence.outcome == OK)).tolist()
    expected = set(evidence.cluster.names) or {int(evidence.member[number]) for number in finals}
    for rule, method, judge in (
        ("convergence.revision", Method.STATUS, _revisions),
        ("convergence.hash", Method.HASH_KV, _hashes),
        ("convergence.keys", Method.RANGE, _keys),
    ):
        numbers = [number for number in finals if evidence.method[number] == method]
        read = {int(evidence.member[number]) for number in numbers}
        missing = [evidence.member_name(member) for member in sorted(expected - read)]
        if not numbers:
            ledger.doubt(rule, "there are no final reads of the members")
        elif missing:
            ledger.doubt(rule, f"there is no final read of {', '.join(missing)}")
        judge(evidence, ledger, rule, numbers)
    if not any(evidence.method[number] == Method.RANGE for number in finals):
        ledger.doubt("durability.acknowledged", "there are no final reads of the members")
    elif missing:
        ledger.doubt("durability.acknowledged", f"there is no final read of {', '.join(missing)}")


def _revisions(evidence: Evidence, ledger: Ledger, rule: str, numbers: list[int]) -> None:
    """At one applied index there is one revision."""
    first: dict[int, int] = {}
    for number in numbers:
        ledger.judged[rule] += 1
        index = int(evidence.response(number, pb.StatusResponse).raftAppliedIndex)
        other = first.setdefault(index, number)
        a, b = int(evidence.revision[other]), int(evidence.revision[number])
        if a != b:
            names = [evidence.member_name(int(evidence.member[each])) for each in (other, number)]
            text = f"at applied index {index} {names[0]} has revision {a}, and {names[1]} revision {b}"
            ledger.broken(rule, min(a, b), text)


def _hashes(evidence: Evidence, ledger: Ledger, rule: str, numbers: list[int]) -> None:
    """Of one revision, compacted to one revision, there is one hash."""
    first: dict[tuple[int, int], tuple[int, int]] = {}
    compared = False
    for number in numbers:
        answer = evidence.response(number, pb.HashKVResponse)
        revision = evidence.request(number, pb.HashKVRequest).revision
        ledger.judged[rule] += 1
        key = (revision or int(evidence.revision[number]), int(answer.compact_revision))
        compared = compared or key in first
        other, hash_ = first.setdefault(key, (number, answer.hash))
        if hash_ != answer.hash:
            names = [evidence.member_name(int(evidence.member[each])) for each in (other, number)]
            text = f"the hash at revision {key[0]} is {hash_:08x} on {names[0]}, and {answer.hash:08x} on {names[1]}"
            ledger.broken(rule, key[0], text)
    if len(numbers) > 1 and not compared:
        ledger.doubt(rule, "the members were hashed at different revisions, or are compacted to different ones")


def _keys(evidence: Evidence, ledger: Ledger, rule: str, numbers: list[int]) -> None:
    """At one revision there is one set of keys."""
    first: dict[tuple[int, bytes, bytes], int] = {}
    compared = False
    for number in numbers:
        request, revision = evidence.request(number, pb.RangeRequest), int(evidence.at[number])
        ledger.judged[rule] += 1
        key = (revision, request.key, request.range_end)
        compared = compared or key in first
        other = first.setdefault(key, number)
        if other != number:
            a, b = (evidence.response(each, pb.RangeResponse).kvs for each in (other, number))
            if list(a) != list(b):
                names = [evidence.member_name(int(evidence.member[each])) for each in (other, number)]
                got, wanted = ([(kv.key, entry_of(kv)) for kv in kvs] for kvs in (b, a))
                difference = first_difference(got, wanted).replace("the store", names[0])
                text = f"at revision {revision} {names[1]} {difference}"
                ledger.broken(rule, revision, text)
    if len(numbers) > 1 and not compared:
        ledger.doubt(rule, "the members' keys were read at different revisions")
