"""The columns of `metrics.csv` that each release of etcd fills, and metrics of real members."""

from __future__ import annotations

from pathlib import Path

from cluster.observe.metrics import HISTOGRAMS, SCALARS
from cluster.observe.probe import version_key

COLUMNS = frozenset({*SCALARS, *HISTOGRAMS})
# Those that not every release has, and the first one that does.
SINCE = {"apply": (3, 5), "gomaxprocs": (3, 6)}
# A member notes its first round trip to a peer seconds after its start, and one alone never does.
LATE = frozenset({"peer_round_trip"})

_DATA = Path(__file__).parents[1] / "data" / "metrics"
RELEASES = ("3.4.23", "3.5.35", "3.6.16", "3.7.3")


def columns_of(version: str) -> frozenset[str]:
    """Return the columns of scalars and histograms that a member of a cluster fills, by the version of its etcd."""
    return frozenset(column for column in COLUMNS if version_key(version)[:2] >= SINCE.get(column, ()))


def metrics_text(name: str) -> str:
    """Return the metrics of a leader, of RELEASES or ``3.7.3.earlier``; tests/data/metrics/README.md says of which."""
    return (_DATA / f"{name}.txt").read_text()
