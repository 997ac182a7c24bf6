"""Stored evidence in few bytes: by quantity instead of by member, with three digits of each figure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from cluster.schema.diagnose_documents import EvidenceDocument

Packed = dict[str, Any]

_TIMES = ("count", "failed", "p10_ms", "p50_ms", "p90_ms", "p99_ms", "most_ms", "wait_ms", "mean_ms")
_MAPS = ("probes", "histograms", "rates", "counts", "highest")
_DIGITS = 3


def pack(document: EvidenceDocument) -> Packed:
    """Return evidence in the form that rows have. What a member lacks is None."""
    packed: Packed = {name: value for name, value in document.items() if name != "members"}
    members = cast("Sequence[Mapping[str, Any]]", document["members"])
    for name in dict.fromkeys(name for each in members for name in each):
        if name in _MAPS:
            keys = dict.fromkeys(key for each in members for key in each[name])
            packed[name] = {key: [_short(each[name].get(key)) for each in members] for key in keys}
        else:
            packed[name] = [_short(each[name]) for each in members]
    return cast("Packed", _rounded(packed))


def unpack(packed: Packed) -> EvidenceDocument:
    """Return the evidence as `Evidence.to_json` returns it."""
    alone = {"schema", "source", "seconds", "leaderless", "client", "load"}
    members = []
    for number in range(len(packed["name"])):
        member: dict[str, Any] = {}
        for name, values in packed.items():
            if name in _MAPS:
                found = {key: each[number] for key, each in values.items() if each[number] is not None}
                member[name] = {key: _long(each) for key, each in found.items()}
            elif name not in alone:
                member[name] = values[number]
        members.append(member)
    document = {name: value for name, value in packed.items() if name in alone}
    return cast("EvidenceDocument", {**document, "members": members})


def _short(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    found = [value[name] for name in _TIMES]
    while found[-1] is None:  # the first is a count
        found.pop()
    return found


def _long(value: Any) -> Any:
    return dict(itertools.zip_longest(_TIMES, value)) if isinstance(value, Sequence) else value


def _rounded(value: Any) -> Any:
    """Return what has only so many digits of each fraction, and of each whole number that is not a count."""
    if isinstance(value, Mapping):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    if isinstance(value, float) and math.isfinite(value):
        if not value:
            return 0
        short = round(value, _DIGITS - 1 - math.floor(math.log10(abs(value))))
        return int(short) if short == int(short) else short
    return value
