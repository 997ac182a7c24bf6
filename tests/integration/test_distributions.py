"""Percentiles, series and histograms of a run against the raw latencies that its users saw."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from cluster.local.cluster import LocalCluster
from loadgen.stats import hdr

ROOT = Path(__file__).resolve().parents[2]

# Writes the latency of each measured operation, in nanoseconds, to a file of its own for each worker.
RECORDING = """
import os
import locust
from loadgen.load.worker_run import attach
from loadgen.user import EtcdUser

class User(EtcdUser):
    pass

def record(environment, **_):
    out = open(f"{os.environ['RAW']}/{os.getpid()}", "w", buffering=1)
    attach(environment).sinks.append(
        lambda op, measured: measured and op.error is None and out.write(f"{op.f} {op.latency_ns} {op.return_ns}\\n")
    )

locust.events.init.add_listener(record)
"""


def test_percentiles_agree_with_the_raw_samples(etcd_single: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "recording.py").write_text(RECORDING)
    raw = tmp_path / "raw"
    raw.mkdir()
    subprocess.run(
        [sys.executable, "-m", "loadgen.cli", "bench", "--scenario", "recording.py", "--operations", "11000",
         "--warmup", "0.5s", "--concurrency", "20", "--workers", "2", "--endpoints", ",".join(etcd_single.endpoints),
         "--output", "run", "--json"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "RAW": str(raw)}, check=True,
        stdout=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip
    samples: dict[str, list[int]] = {"total": []}
    for path in raw.iterdir():
        for line in path.read_text().splitlines():
            f, latency_ns, _ = line.split()
            samples.setdefault(f, []).append(int(latency_ns))
            samples["total"].append(int(latency_ns))
    assert len(samples["total"]) == 11_000
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    results, run = result["results"], result["run"]
    with (tmp_path / "run" / "series.csv").open() as file:
        seconds = list(csv.DictReader(file))
    for f, latencies in samples.items():
        latencies.sort()
        reported = results[f]["latency"]
        logged: dict[int, int] = {}
        for _, _, counts in hdr.read_log((tmp_path / "run" / f"{f}.hlog").read_text()):
            hdr.merge(logged, counts)
        assert sum(logged.values()) == len(latencies) == results[f]["succeeded"]
        for field, fraction in (
            ("p50_ms", 0.5), ("p90_ms", 0.9), ("p95_ms", 0.95), ("p99_ms", 0.99), ("p99_9_ms", 0.999),
            ("p99_99_ms", 0.9999),
        ):  # fmt: skip
            exact = latencies[math.ceil(fraction * len(latencies) - 1e-6) - 1]
            assert reported[field] == pytest.approx(exact / 1e6, rel=0.01), f"{f} {field}"
            assert hdr.percentiles(logged, (fraction,))[0] == pytest.approx(exact, rel=0.001), f"{f} {field}"
        # Exact, to the microsecond that is written.
        for field, exact_ns in (("min_ms", latencies[0]), ("max_ms", latencies[-1])):
            assert reported[field] == pytest.approx(exact_ns / 1e6, abs=0.00051)
        assert reported["mean_ms"] == pytest.approx(sum(latencies) / len(latencies) / 1e6, abs=0.00051)
        mine = [row for row in seconds if row["f"] == f]
        assert sum(int(row["succeeded"]) for row in mine) == len(latencies)
        # One interval after the other, from the first call to the last return.
        ends = [Decimal(row["time"]) + Decimal(row["length_s"]) for row in mine]
        assert ends[:-1] == [Decimal(row["time"]) for row in mine[1:]]
        assert {row["length_s"] for row in mine[1:-1]} <= {"0.1"}
        assert float(ends[-1] - Decimal(mine[0]["time"])) == pytest.approx(run["duration_s"], abs=1e-6)
        assert max(float(row["max_ms"] or 0) for row in mine) == pytest.approx(latencies[-1] / 1e6, abs=1e-6)
