"""The master's cost of fifty workers: its CPU as a share of one core while they report, and whether a sample is lost.

Run as ``python -m tests.bench.many [WORKERS] [SECONDS]``. Each worker has one user that does ten operations a second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCENARIO = """\
from locust import constant_throughput

from loadgen.user import EtcdUser


class Paced(EtcdUser):
    abstract = False
    wait_time = constant_throughput(10)
"""


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    with tempfile.TemporaryDirectory() as folder:
        scenario = Path(folder, "paced.py")
        scenario.write_text(SCENARIO)
        command = [
            sys.executable, "-m", "loadgen.cli", "bench", "--scenario", str(scenario), "--workers", str(workers),
            "--concurrency", str(workers), "--duration", f"{seconds}s", "--json", "--output", f"{folder}/run",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        rows = Path(folder, "run", "locust_stats_history.csv")
        while not rows.exists() or rows.stat().st_size < 400:  # until the run counts
            time.sleep(0.1)
        time.sleep(3)
        began, used = time.monotonic(), cpu_s(process.pid)
        time.sleep(seconds * 0.7)
        share = (cpu_s(process.pid) - used) / (time.monotonic() - began)
        out, _ = process.communicate()
    result = json.loads(out)
    rows_of = result["generator"]["workers"]
    counted = sum(row["operations"] for row in rows_of)
    total = result["results"]["total"]
    print(f"{workers} workers, {total['throughput_ops_s']:,.0f} operations/s: master {share:.1%} of a core")
    print(f"operations: {total['operations']:,} in the result, {counted:,} by the workers' own counts")
    print(f"books: {result['books']}; problems: {result['problems'] or 'none'}")


if __name__ == "__main__":
    main()
