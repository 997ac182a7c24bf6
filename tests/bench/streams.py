"""What a limit of streams costs: latencies at an etcd that allows five on a connection, against one that has no limit.

    python -m tests.bench.streams [--rounds 5] [--scenarios watch,kubernetes,lease] [--etcd PATH,…]

50 users of two workers, in an open loop that leaves the machine time, at two members of one release by turns; a ratio
is the median over the rounds of what was measured in the same round. `due` says whether as many deliveries came as were
due: a run with a problem ends the command.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from cluster.local.cluster import LocalCluster
from tests.support import command
from tests.support.etcds import etcds_to_test, version_of

LIMIT, USERS = 5, 50
RATES = {"watch": 40, "kubernetes": 100, "lease": 200}
# The types whose latencies are compared.
TYPES = {"watch": ("put", "watch"), "kubernetes": ("update", "watch"), "lease": ("lease_grant", "lease_keepalive")}
FIELDS = ("p50_ms", "p90_ms", "p99_ms")


def run(cluster: LocalCluster, scenario: str, folder: Path) -> dict[str, Any]:
    """Return the result document of one run."""
    rate = RATES[scenario]
    done = command.run(
        "bench", "--json", "--scenario", scenario, "--concurrency", str(USERS), "--workers", "2", "--rate", str(rate),
        "--operations", str(3 * rate), "--allow-rate-miss", "--endpoints", ",".join(cluster.endpoints), cwd=folder,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{scenario}: {done.stderr}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def compare(etcd: str, scenarios: list[str], rounds: int, folder: Path) -> None:
    """Print a row a scenario and type: medians without and with the limit, and their ratio."""
    with contextlib.ExitStack() as stack:
        free, narrow = (
            stack.enter_context(LocalCluster(1, binary=etcd, extra_args=flags, storage="memory"))
            for flags in ([], [f"--max-concurrent-streams={LIMIT}"])
        )
        for scenario in scenarios:
            pairs = []
            for number in range(rounds):
                order = (free, narrow)[:: -1 if number % 2 else 1]
                found = {each: run(each, scenario, folder) for each in order}
                pairs.append((found[free], found[narrow]))
            for f in TYPES[scenario]:
                for field in FIELDS:
                    values = [tuple(each["results"][f]["latency"][field] for each in pair) for pair in pairs]
                    ratio = statistics.median(b / a for a, b in values)
                    without, within = (statistics.median(column) for column in zip(*values, strict=True))
                    what = f"{version_of(etcd):<8} {scenario:<11} {f:<16} {field:<7}"
                    print(f"{what} {without:>9.3f} {within:>9.3f} {ratio:>6.2f}", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scenarios", default="watch,kubernetes,lease")
    parser.add_argument("--etcd", default=",".join(etcds_to_test()))
    args = parser.parse_args()
    if not args.etcd:
        parser.error("name an etcd by --etcd or $RAFTLOAD_TEST_ETCDS; 3.5.1 has no --max-concurrent-streams")
    print(f"{'etcd':<8} {'scenario':<11} {'type':<16} {'':<7} {'no limit':>9} {'limit 5':>9} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for etcd in args.etcd.split(","):
            compare(etcd, args.scenarios.split(","), args.rounds, Path(folder))


if __name__ == "__main__":
    main()
