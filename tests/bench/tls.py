"""The client's cost of TLS: CPU of its process per GET, plain against TLS 1.3, to the same etcd binary.

    python -m tests.bench.tls [--operations N] [--rounds N] [--connections N] [--rate R [--seconds S] [--etcd BINARY]]

Two members of their own, one plain and one with TLS, both pinned to one half of the processors, the client to the
other; plain and TLS take turns, and the ratio is taken within the round. Our client alone sends as much as it can; with
``--rate`` it is a run of `raftload bench` in an open loop, so that both send equally much, and beside it h2load at the
same rate, where it is installed: it says what of the cost is not ours. With ``--etcd``, a binary of 3.5.10 or later, a
third member serves gRPC alone on its port (``--listen-client-http-urls``): it writes an answer at once, not in three
records or four as etcd with TLS does otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from cluster.base.security import Security
from cluster.base.topology import ServerTls
from cluster.local.cluster import LocalCluster
from loadgen.client.etcd import EtcdClient
from tests.bench import open_loop, peers
from tests.bench.client import h2load
from tests.bench.peers import KEY, ROOT, VALUE
from tests.support.certificates import Authority
from tests.support.ports import take_ports


@contextlib.contextmanager
def members(folder: Path, binary: str | None, *, alone: bool) -> Iterator[tuple[dict[str, str], Security]]:
    """Start the members; yield their endpoints by name, and how to trust those with TLS.

    Takes a folder for certificates, the binary, where one is named, and whether a member of it serves gRPC alone, too.
    """
    authority = Authority(folder)
    pair = authority.sign("server", "127.0.0.1")
    trust = Security(cacert=authority.cert)
    with contextlib.ExitStack() as started:

        def serve(*extra: str, tls: bool = True) -> str:
            how = ServerTls(pair.cert, pair.key) if tls else None
            made = LocalCluster(
                1, binary=binary, storage="memory", tls=how, security=trust if tls else None, extra_args=extra
            )
            return started.enter_context(made).endpoints[0]

        where = {"plain": serve(tls=False), "TLS": serve()}
        if binary and alone:
            where["TLS, gRPC alone"] = serve(f"--listen-client-http-urls=https://127.0.0.1:{take_ports(1)}")
        for endpoint in where.values():
            with contextlib.closing(EtcdClient([endpoint], security=trust)) as client:
                client.put(KEY, VALUE)
        yield where, trust


def measure(endpoint: str, operations: int, connections: int, trust: Security) -> dict[str, float]:
    """One measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.client", "--client", "raftload", "--endpoint", endpoint,
         "--operations", str(operations), "--connections", str(connections)],
        check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **trust.to_environment()},
    )  # fmt: skip
    result: dict[str, float] = json.loads(done.stdout)
    return result


def compare_at_a_rate(where: dict[str, str], rate: float, seconds: float, rounds: int, trust: Security) -> None:
    """Print what an operation costs a worker of an open loop, and h2load, plain and with TLS, in turns."""
    clients: dict[str, Callable[[str], float]] = {
        "raftload": lambda endpoint: open_loop.run(endpoint, rate, seconds, "auto", trust.to_environment())[1]
    }
    if shutil.which("h2load"):
        clients["h2load"] = lambda endpoint: h2load(endpoint, round(rate * seconds), 1, rate)["us"]
    costs: dict[tuple[str, str], list[float]] = {(client, name): [] for client in clients for name in where}
    for number in range(rounds):
        for client, name in list(costs)[:: 1 if number % 2 else -1]:
            costs[client, name].append(clients[client](where[name]))
    for (client, name), us in costs.items():
        more = statistics.median(each - bare for each, bare in zip(us, costs[client, "plain"], strict=True))
        print(f"{client:<9} {name:<15} {statistics.median(us):>7.1f} us at {rate:,.0f}/s, {more:.1f} more than plain")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--rate", type=float, help="operations per second of an open loop")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--etcd", help="binary of the members; default: raftload's own")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        peers.apart(partial(members, Path(folder), args.etcd, alone=bool(args.rate))) as (where, trust),
    ):
        if args.rate:
            compare_at_a_rate(where, args.rate, args.seconds, args.rounds, trust)
            return
        results: dict[str, list[dict[str, float]]] = {name: [] for name in where}
        for number in range(args.rounds):
            for name in list(where)[:: 1 if number % 2 else -1]:
                results[name].append(measure(where[name], args.operations, args.connections, trust))
    print(f"GET, {args.connections} connections, {args.rounds} rounds in turns, medians")
    print(f"{'':<6} {'us CPU/op':>10} {'least':>8} {'most':>8} {'ops/s':>9}")
    for name, rounds in results.items():
        us = [each["us"] for each in rounds]
        rate = statistics.median(each["ops_s"] for each in rounds)
        print(f"{name:<6} {statistics.median(us):>10.2f} {min(us):>8.2f} {max(us):>8.2f} {rate:>9.0f}")
    pairs = zip(results["TLS"], results["plain"], strict=True)
    print(f"TLS / plain, median of the rounds: {statistics.median(tls['us'] / bare['us'] for tls, bare in pairs):.2f}")


if __name__ == "__main__":
    main()
