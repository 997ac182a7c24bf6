"""The course of an election from the members' logs; polls see a change of leader a quarter of a second late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from viz.diagrams.elections import read

if TYPE_CHECKING:
    from cluster.lifecycle.up import Cluster
    from cluster.local.cluster import LocalCluster

_LINES = 4000
_BYTES = 1 << 20


class Told(NamedTuple):
    """An election in one line, and when it began, in seconds since 1970."""

    text: str
    began: float


def tails(cluster: LocalCluster | Cluster) -> dict[str, str]:
    """Return the ends of the logs of all members of a cluster of ours, by name. Raises ClusterError, OSError."""
    return {member.name: _tail(cluster, member.name) for member in cluster.members}


def describe(logs: Mapping[str, str], term: int) -> Told | None:
    """Return in one line how long the election of a term took; None where the logs do not tell. Pure."""
    found = read((name, name, text.splitlines()) for name, text in logs.items())
    for election in reversed(found.elections):
        if election.term == term and election.won is not None:
            took = max(0.0, election.won - election.began)
            since = f"{found.name(election.failed)} was lost" if election.since_lost else "the first campaign"
            text = f"{found.name(election.winner)} won term {term} {took:.3f} s after {since}, by the members' logs"
            return Told(text, election.began)
    return None


def _tail(cluster: LocalCluster | Cluster, name: str) -> str:
    from cluster.local.cluster import LocalCluster

    if not isinstance(cluster, LocalCluster):
        return cluster.log(name, _LINES)
    with cluster.log(name).open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _BYTES))
        return file.read().decode(errors="replace")
