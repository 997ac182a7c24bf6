"""Distributed runs: the master, its workers, the target, the run folder; and a benchmark from Python.

    from loadgen.run import Plan, Settings, TargetOptions, bench

    result = bench(
        Plan(Settings(operations=2000, mix={"put": 1, "get": 3}), users=20, thresholds=("put.p99_ms < 250",)),
        TargetOptions.at("127.0.0.1:2379"),
    )
    print(result["results"]["put"]["latency"]["p99_ms"], "ms;", result["verdict"])

`Settings` is the load, `Plan` a run of it, `TargetOptions` the cluster and `WorkerOptions` who works; without a target
a cluster is made for the run. `Hooks` hears how the run goes on. See docs/python.md.
"""

from loadgen.load.settings import Settings
from loadgen.run.benchmark import Hooks, Plan, bench
from loadgen.run.target import TargetOptions
from loadgen.run.worker_options import WorkerOptions

__all__ = ["Hooks", "Plan", "Settings", "TargetOptions", "WorkerOptions", "bench"]
