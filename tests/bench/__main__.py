"""The cost of an operation, ours and others', in one table.

    python -m tests.bench [--part peers|users|size] [--rounds 3] [--types get,put,txn]

CPU (user and system) of the client per operation, throughput and latency, for GET, PUT and the compare-and-swap that
a run does. The parts: ``peers``, 100 users against h2load, grpcio, geventhttpclient and etcd3-py; ``users``, from 1 to
1,000 of them against h2load; ``size``, as workers and the value grow. All clients send the same message to one etcd
member whose data lie in memory; it is pinned to one half of the processors and the clients to the other. They take
turns, and a ratio is the median over the rounds of what was measured in the same round. Needs h2load (Debian's
nghttp2-client) and grpcio. On a busy machine of 2 cores ``users`` alone took five minutes; ``--rounds 1`` is shorter.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial

from tests.bench import peers
from tests.bench.peers import Cost

TYPES = ("get", "put", "txn")
# Connections x streams for so many users, and how many operations take about a second of h2load and us.
SHAPES = {1: (1, 1, 4_000), 10: (1, 10, 20_000), 100: (10, 10, 40_000), 1000: (10, 100, 40_000)}
PAIRS_OF_ONE_USER = 5
Clients = dict[str, Callable[[], Cost]]


def line(what: str, f: str, costs: dict[str, list[Cost]]) -> None:
    """Print a row a client: medians of its rounds, and our CPU and p50 as multiples of the client's."""
    ours = costs["raftload"]
    for name, rows in costs.items():
        cpu, rate, p50, p99 = (
            statistics.median(getattr(row, field) for row in rows) for field in ("cpu_us", "ops_s", "p50_ms", "p99_ms")
        )
        ratios = ["", ""]
        if rows is not ours:
            pairs = list(zip(ours, rows, strict=False))
            ratios[0] = f"{statistics.median(a.cpu_us / b.cpu_us for a, b in pairs):.2f}"
            if p50:
                ratios[1] = f"{statistics.median(a.p50_ms / b.p50_ms for a, b in pairs):.2f}"
        times = (f"{p50:.3f}", f"{p99:.3f}") if p50 else ("", "")
        print(
            f"{what:<22} {f:<4} {name:<16} {cpu:>9.1f} {rate:>9,.0f} {times[0]:>9} {times[1]:>9}"
            f" {ratios[0]:>8} {ratios[1]:>8}",
            flush=True,
        )


def in_turns(clients: Clients, rounds: int) -> dict[str, list[Cost]]:
    """Measure each client once a round, in another order each round."""
    costs: dict[str, list[Cost]] = {name: [] for name in clients}
    for number in range(rounds):
        for name in list(clients)[:: -1 if number % 2 else 1]:
            costs[name].append(clients[name]())
    return costs


def against_peers(endpoint: str, folder: str, rounds: int, types: Sequence[str]) -> None:
    for connections, streams in ((10, 10), (1, 100)):
        for f in types:
            shape = connections, streams
            clients: Clients = {
                "raftload": partial(peers.raftload, endpoint, f, 40_000, *shape, folder=folder),
                "h2load": partial(peers.h2load, endpoint, f, 40_000, *shape),
                "grpcio": partial(peers.grpcio, endpoint, f, 8_000, *shape),
            }
            costs = in_turns(clients, rounds)
            if connections > 1:
                # The gateway's clients are ten and a hundred times as slow: once is enough to see that.
                costs["geventhttpclient"] = [peers.gateway("geventhttpclient", endpoint, f, 5_000, 100)]
                costs["etcd3-py"] = [peers.gateway("etcd3-py", endpoint, f, 400, 10)]
            line(f"100 users, {connections} x {streams}", f, costs)


def as_users_grow(endpoint: str, folder: str, rounds: int, types: Sequence[str]) -> None:
    for users, (connections, streams, operations) in SHAPES.items():
        for f in types:
            shape = connections, streams
            clients: Clients = {
                "raftload": partial(peers.raftload, endpoint, f, operations, *shape, folder=folder),
                "h2load": partial(peers.h2load, endpoint, f, operations, *shape, latency=True),
            }
            line(
                f"{users:,} users, {connections} x {streams}",
                f,
                in_turns(clients, rounds if users > 1 else PAIRS_OF_ONE_USER),
            )


def as_size_grows(endpoint: str, folder: str, rounds: int, types: Sequence[str]) -> None:
    ours = partial(peers.raftload, endpoint, folder=folder)
    for workers in (1, 2, 4):
        run = partial(ours, "get", 40_000, 10, 10, "--workers", str(workers))
        line(f"100 users, {workers} worker{'s' * (workers > 1)}", "get", in_turns({"raftload": run}, rounds))
    for size, users, operations in (("64", 100, 40_000), ("4KiB", 100, 20_000), ("64KiB", 20, 2_000), ("1MiB", 8, 160)):
        for f in sorted({"get", "put"} & set(types)):
            run = partial(ours, f, operations, 1, users, "--value-size", size, "--key-space", "50", "--timeout", "30s")
            line(f"{users} users, {size}", f, in_turns({"raftload": run}, 1))


PARTS = {"peers": against_peers, "users": as_users_grow, "size": as_size_grows}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--types", default=TYPES, type=lambda text: text.split(","), help="default: get,put,txn")
    args = parser.parse_args()
    began = time.monotonic()
    with (
        peers.etcd_apart(quota_backend_bytes=4 << 30) as endpoint,
        tempfile.TemporaryDirectory() as folder,
    ):
        print(f"{'':<44} {'us of CPU':>9} {'raftload / it':>47}")
        heads = f"{'per op':>9} {'ops/s':>9} {'p50 ms':>9} {'p99 ms':>9} {'CPU':>8} {'p50':>8}"
        print(f"{'':<22} {'':<4} {'client':<16} {heads}", flush=True)
        for part in args.part or PARTS:
            PARTS[part](endpoint, folder, args.rounds, args.types)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
