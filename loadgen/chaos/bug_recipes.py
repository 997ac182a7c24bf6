"""Known bugs of etcd and the campaigns that find them: what is written, how it is disturbed, and for how long.

Each needs the clients' view alone, with the binaries that everybody runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadgen.chaos.traffic import ShapeFields
    from loadgen.chaos.watch_streams import WatcherFields


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """A campaign: options of ``raftload chaos`` by name, as texts, that hold where the command line says nothing else.

    ``shape`` and ``watching`` are as ``traffic.Shape`` and ``watch_streams.WatcherOptions`` take them, ``cluster`` as
    ``LocalCluster`` does, for an embedded one.
    """

    finds: str
    options: Mapping[str, str]
    shape: ShapeFields
    watching: WatcherFields
    cluster: Mapping[str, object] = dataclasses.field(default_factory=dict)


_WRITES = {"put": 60, "get": 6, "delete": 4, "txn": 20, "fence": 0.2}

RECIPES: dict[str, Recipe] = {
    "13766": Recipe(
        "a member misses a write after it was killed under load",
        {"nodes": "3", "concurrency": "100", "faults": "crash-random", "every": "1s", "rounds": "15",
         "compact_every": "0"},
        # While a compare walks thousands of keys, a transaction is applied and its index is not yet.
        {"keys": 3000, "wide_keys": 3000, "weights": {"put": 92, "wide": 6, "get": 2}},
        {"random_watchers": 0},
    ),
    "14370": Recipe(
        "a single member acknowledges a write that is gone after a kill",
        # A member acknowledges before its log is handed to the kernel: large values make that take longer, and in
        # memory nothing else does.
        {"nodes": "1", "concurrency": "100", "faults": "crash-all", "every": "1s", "rounds": "40",
         "compact_every": "0", "storage": "memory", "value_size": "8KiB"},
        {"keys": 100, "weights": {"put": 100, "get": 2}},
        {"random_watchers": 0, "everywhere": True},
        # Most of a round would be waiting for an election and for the log to be replayed.
        {"heartbeat_interval_ms": 20, "election_timeout_ms": 200, "snapshot_count": 5000},
    ),
    "15220": Recipe(
        "a progress notification runs ahead of events",
        {"nodes": "3", "concurrency": "60", "duration": "20s", "faults": "", "rounds": "0", "compact_every": "0"},
        {"keys": 100, "weights": {"put": 100, "get": 2}},
        {"random_watchers": 0, "pollers": 2, "poll_s": 0.0005},
    ),
    "18089": Recipe(
        "a watch from the revision that was just compacted misses its deletions",
        {"nodes": "3", "concurrency": "20", "duration": "20s", "faults": "", "rounds": "0", "compact_every": "300ms"},
        {"keys": 50, "weights": {"put": 50, "delete": 40, "fence": 5}},
        {"random_watchers": 3},
    ),
    "18667": Recipe(
        "a transaction is applied by some members only (with --corrupting)",
        {"nodes": "3", "concurrency": "10", "duration": "6s", "faults": "compact", "every": "1s", "rounds": "4"},
        {"keys": 50, "weights": _WRITES},
        {},
    ),
}  # fmt: skip
