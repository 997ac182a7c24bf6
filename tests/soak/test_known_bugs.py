"""The general campaign and the catalogue of known bugs, as far as there is time: both say nothing that is not so.

`python -m tests.soak.campaign` and `python -m tests.soak.bugs` go on for longer, on many releases, and record it.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.base.binary import find_etcd
from loadgen.bugs import trial
from loadgen.bugs.catalogue import catalogue
from loadgen.bugs.trial import Found
from tests.soak import campaign

pytestmark = [pytest.mark.soak, pytest.mark.strikes, pytest.mark.xdist_group("soak-clusters")]
# What the last run takes beside its load, to start, heal and check; and how short a load is.
_BESIDE_S, _SHORT_S = 15.0, 2.0


def _until(soak_s: float) -> float:
    return time.monotonic() + max(_SHORT_S, soak_s - _BESIDE_S)


def _seed() -> int:
    return int(os.environ.get("RAFTLOAD_FUZZ_SEED") or random.SystemRandom().randrange(1 << 30))


def test_all_actors_and_faults_break_nothing_that_no_known_bug_explains(
    fixed_etcd: str, soak_s: float, leftovers_after: Callable[[float], set[str]]
) -> None:
    until, etcd = _until(soak_s), find_etcd(fixed_etcd)
    for seed in itertools.count(_seed()):
        if (left_s := until - time.monotonic()) < 1:
            break
        row = campaign.one_run(etcd, min(left_s, campaign.SLICE_S["hour"]), seed, None)
        assert not row["error"], row
        assert not row["broken"], row
    assert not leftovers_after(60)


def test_scenarios_show_their_bugs_where_these_are_and_nowhere_else(
    wheel_etcd: str, fixed_etcd: str, soak_s: float, tmp_path: Path, leftovers_after: Callable[[float], set[str]]
) -> None:
    seed, until = _seed(), _until(soak_s)
    binaries = [find_etcd(wheel_etcd), find_etcd(fixed_etcd)]
    trials = [(scenario, binary) for scenario in catalogue().values() if scenario.certain for binary in binaries]
    random.Random(seed).shuffle(trials)
    for number, (scenario, binary) in enumerate(itertools.cycle(trials)):
        if time.monotonic() > until:
            break
        outcome = trial.run(scenario, binary, tmp_path / str(number), seed=seed)
        known = Found.AFFECTED if scenario.bug.is_in(binary.version) else Found.NOT_AFFECTED
        # On a machine that is too slow for it, a trial says so.
        assert outcome.found in (known, Found.NOT_TRIED), f"{scenario.bug.name} on {binary.version}: {outcome}"
    assert not leftovers_after(60)
