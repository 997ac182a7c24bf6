"""What the installed commands start.

Only what must come first is done here: Python would show a traceback where Ctrl-C comes while it imports the rest.
"""

from __future__ import annotations

import importlib
import signal
from typing import Any


def raftload() -> int:
    """Run `raftload`. Returns the exit code, as the others do."""
    return int(_imported("loadgen.cli").run())


def benchmark_consensus() -> int:
    """Run `benchmark-consensus`: `raftload bench` under the name of the script it grew out of."""
    return int(_imported("loadgen.cli").run("bench"))


def test_etcd_cluster() -> int:
    """Run `test-etcd-cluster`: `raftload cluster test` under the name of the script it grew out of."""
    return int(_imported("loadgen.cli").run("cluster", "test"))


def visualize_raft_state() -> int:
    """Run `visualize-raft-state`: `raftload viz` under the name of the script it grew out of."""
    command, interrupt = _imported("viz.cli"), _imported("cluster.interrupt")
    return int(interrupt.done(command.visualize_raft_state()))


def _imported(name: str) -> Any:
    """Return a module. Nothing has begun that would need an end, so meanwhile Ctrl-C just ends the process."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where a shell has it ignored, for what runs in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return importlib.import_module(name)
    finally:
        signal.signal(signal.SIGINT, before)
