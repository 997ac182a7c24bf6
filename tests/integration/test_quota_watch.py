"""A load that ends at 80 % of the quota of a real etcd, on each minor release."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.local.cluster import LocalCluster
from tests.support.command import ROOT
from tests.support.etcds import each_etcd

QUOTA = 64 << 20
# 64 MiB at 5 MiB a second at the most: several looks before the end, and no NOSPACE between two of them.
PROGRAM = """
import sys
from pathlib import Path
from cluster.base.console import say
from loadgen.result import gate
from loadgen.run import Hooks, Plan, Settings, TargetOptions, bench
from loadgen.run.guard import QuotaWatch

class Watching(Hooks):
    def __init__(self):
        self.watch = QuotaWatch(say)
        self.tick = self.watch.tick

hooks = Watching()
load = Settings(duration_s=600, rate=80, mix={"put": 1}, value_size=1 << 16, key_space=10)
result = bench(Plan(load, keep=True), TargetOptions.at(sys.argv[1]), folder=Path(sys.argv[2]), hooks=hooks)
print(gate.exit_code(result), hooks.watch.fullest.quota)
"""


@pytest.mark.parametrize("etcd", each_etcd())
def test_a_load_ends_at_80_percent_of_the_quota(etcd: str, tmp_path: Path) -> None:
    """Long before its 600 s: the results are kept, the verdict is open, and etcd has raised no alarm."""
    with LocalCluster(1, binary=etcd, quota_backend_bytes=QUOTA) as cluster:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, cluster.endpoints[0], str(tmp_path / "run")],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", str(QUOTA)]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    (why,) = [each for each in result["problems"] if each.startswith("ended at ")]
    assert "% of the quota: the database of 127.0.0.1:" in why and why in done.stderr
    assert result["verdict"] == "unknown"
    assert result["results"]["put"]["succeeded"] > 500
    assert result["results"]["put"]["errors"] == {}
