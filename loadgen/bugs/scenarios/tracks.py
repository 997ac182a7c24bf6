"""The bugs that load and faults find: each by the campaign that `raftload chaos --track` has for it.

Not those of 14370 (see ``struck_calls``), 15220 (``slow_readers``) and 18089 (``lost_data``), which can be shown each
time.
"""

from __future__ import annotations

from collections.abc import Callable

from loadgen.bugs.scenario import Scenario
from loadgen.bugs.stage import Stage


def _campaign(track: str, *options: str) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        seed = str(stage.rng.randrange(1, 1 << 30))
        stage.command("chaos", "--track", track, "--seed", seed, "--output", str(stage.folder.absolute()), *options)

    return run


def _track(issue: str, *breaks: str, options: tuple[str, ...] = ()) -> Scenario:
    return Scenario(issue, breaks, _campaign(issue, *options), certain=False, limit_s=60.0, cluster=None)


SCENARIOS = (
    _track("13766", "convergence.hash", "convergence.keys", "convergence.revision", "durability.acknowledged"),
    _track("18667", "convergence.hash", "convergence.keys", "convergence.revision", options=("--corrupting",)),
)
