"""Healthy clusters under faults for as long as there is time: every run must pass, and none may leave a doubt."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# One group for what runs clusters: an election that is measured has no campaign beside it.
pytestmark = [pytest.mark.soak, pytest.mark.xdist_group("soak-clusters")]
ROOT = Path(__file__).resolve().parents[2]
LONGEST_S = 60.0
# Options, and the seconds that a round of them takes with its healing.
CAMPAIGNS = (
    (("--every", "2s"), 3.4),
    (("--every", "2s", "--faults", "kill-leader,crash-random,restart-random,kill-majority,compact,crash-all"), 3.4),
    (("--every", "2s", "--faults", "isolate-random,partition-minority,delay-random,drop-follower,pause-leader"), 3.4),
    (("--every", "1s", "--faults", "crash-random,defrag,transfer-leader", "--concurrency", "60", "--nodes", "5"), 2.6),
    (("--track", "13766"), 1.6),
    (("--track", "14370"), 1.6),
    (("--track", "15220", "--faults", "transfer-leader,pause-follower", "--every", "2s"), 3.0),
)


def _run(folder: Path, etcd: str, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "loadgen.cli", "chaos", "--json", "--output", str(folder), *options],
        cwd=ROOT, env={**os.environ, "RAFTLOAD_ETCD": etcd}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(options)}: exit code {done.returncode}\n{done.stderr}{done.stdout[:3000]}"
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_no_false_alarm(
    fixed_etcd: str, soak_s: float, tmp_path: Path, leftovers_after: Callable[[float], set[str]]
) -> None:
    began = time.monotonic()
    faults = operations = runs = 0
    for seed, (options, round_s) in enumerate(itertools.cycle(CAMPAIGNS), 1):
        left_s = soak_s - (time.monotonic() - began)
        if left_s <= 0:
            break
        rounds = max(3, round(min(left_s, LONGEST_S) / round_s))
        folder = tmp_path / f"run-{seed}"
        # The last of an option counts, so that of a track too.
        result = _run(folder, fixed_etcd, *options, "--rounds", str(rounds), "--duration", "10m", "--seed", str(seed))
        ended = result["chaos"]["faults"]
        assert (result["verdict"], result["check"]["verdict"]) == ("pass", "pass"), result["verdict_reasons"]
        assert [row["number"] for row in ended] == list(range(1, rounds + 1))
        assert {row["verdict"] for row in ended} == {"pass"}, [row["reason"] for row in ended if row["reason"]]
        shutil.rmtree(folder)
        faults, operations, runs = faults + rounds, operations + result["results"]["total"]["operations"], runs + 1
    minutes = (time.monotonic() - began) / 60
    print(f"{runs} runs in {minutes:.1f} minutes: {faults} faults, {operations:,} operations, all of them kept")
    assert not leftovers_after(60)
