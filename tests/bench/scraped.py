"""The cost of /metrics: CPU an operation of a run that a real Prometheus scrapes every second, and of one without.

    python -m tests.bench.scraped [--rounds 5] [--operations 60000] [--users 50]

By turns, in another order each round: runs of one worker with and without ``--metrics-listen``. The etcd member has one
half of the processors, the run and Prometheus the other. Of each the worker's own CPU an operation, and that of the
whole command, with its master, its observer and its start; differences are taken within the round. Needs Prometheus.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cluster.local.cluster import LocalCluster
from tests.bench.peers import ROOT
from tests.support.ports import take_ports
from tests.support.prometheus import scraping


def measure(endpoint: str, operations: int, users: int, listen: str | None) -> tuple[float, float]:
    """Return the worker's CPU an operation in microseconds, and that of the whole command in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--metrics-listen", listen] if listen else []
        process = subprocess.Popen(
            [sys.executable, "-m", "loadgen.cli", "bench", "--endpoints", endpoint, "--operations", str(operations),
             "--concurrency", str(users), "--workers", "1", "--json", "--output", f"{folder}/run", *words],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert process.stdout is not None
        result = json.loads(process.stdout.read())
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert result["results"]["total"]["succeeded"] == operations
    return result["generator"]["cpu_us_per_op"], usage.ru_utime + usage.ru_stime


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--operations", type=int, default=60_000)
    parser.add_argument("--users", type=int, default=50)
    args = parser.parse_args()
    processors = sorted(os.sched_getaffinity(0))
    half = len(processors) // 2
    os.sched_setaffinity(0, set(processors[:half]) or set(processors))  # inherited by etcd
    port = take_ports(1)
    listens = {"without": None, "scraped": f"127.0.0.1:{port}"}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in listens}
    with tempfile.TemporaryDirectory() as folder, LocalCluster(1, storage="memory") as cluster:
        os.sched_setaffinity(0, set(processors[half:]))
        with scraping(f"127.0.0.1:{port}", Path(folder)) as prometheus:
            for number in range(args.rounds):
                for name in list(listens)[:: 1 if number % 2 else -1]:
                    found[name].append(measure(cluster.endpoints[0], args.operations, args.users, listens[name]))
            (scrapes,) = prometheus.query("count_over_time((up == 1)[1h:1s])") or [{"value": [0, "0"]}]
    for name, rows in found.items():
        worker_us, whole_s = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"{name:<8} {worker_us:>8.2f} us of the worker's CPU an operation, {whole_s:.2f} s of the whole command's"
        )
    pairs = [*zip(found["scraped"], found["without"], strict=True)]
    ratio = statistics.median(a[0] / b[0] for a, b in pairs)
    more_s = statistics.median(a[1] - b[1] for a, b in pairs)
    print(f"scraped / without: {ratio:.3f} an operation; the whole command {more_s:+.2f} s; median of {args.rounds}")
    print(f"scrapes that were answered: {scrapes['value'][1]}")


if __name__ == "__main__":
    main()
