"""The entry points of the installed commands.

Only what must come first is done here, with next to no imports: Python shows a traceback where Ctrl-C comes meanwhile.
"""

from __future__ import annotations

import signal


class EndingAtOnce:
    """A block in which Ctrl-C just ends the process: nothing has begun that would need an end.

    No generator with a decorator: what that imports takes longer than all else here.
    """

    def __enter__(self) -> None:
        # Not where a shell has it ignored, for what runs in the background.
        self._raising = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._raising:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def __exit__(self, *_: object) -> None:
        if self._raising:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def raftload() -> int:
    """Run `raftload`. Returns the exit code, as the others do."""
    return _run()


def benchmark_consensus() -> int:
    """Run `benchmark-consensus`: `raftload bench` under the name of the script it grew out of."""
    return _run("bench")


def test_etcd_cluster() -> int:
    """Run `test-etcd-cluster`: `raftload cluster test` under the name of the script it grew out of."""
    return _run("cluster", "test")


def visualize_raft_state() -> int:
    """Run `visualize-raft-state`: `raftload viz` under the name of the script it grew out of."""
    with EndingAtOnce():
        from cluster.base.signals import done
        from viz.cli.command import visualize_raft_state
    return done(visualize_raft_state())


def _run(*words: str) -> int:
    with EndingAtOnce():
        from loadgen.cli.main import run
    return run(*words)
