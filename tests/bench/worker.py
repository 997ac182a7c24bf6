"""CPU per operation of one raftload worker, against h2load and grpcio in the same run.

    python -m tests.bench.worker [--rounds 5] [--types get,put,txn] [--operations 60000] [--shape 10x10]

One etcd member on loopback; the clients run one after the other, round after round, and the figures are medians of
the rounds' ratios. Needs h2load (Debian's nghttp2-client) and grpcio.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile

from cluster.local import LocalCluster
from loadgen.etcd import EtcdClient
from tests.bench import peers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--types", default="get,put,txn")
    parser.add_argument("--operations", type=int, default=60_000)
    parser.add_argument("--shape", default="10x10", help="connections x streams (default: 10x10)")
    args = parser.parse_args()
    connections, streams = map(int, args.shape.split("x"))
    clients = {"raftload": peers.raftload, "h2load": peers.h2load, "grpcio": peers.grpcio}
    print(
        f"{connections} connections x {streams} streams, {args.operations} operations, {args.rounds} rounds, medians\n"
    )
    print(f"{'':6}{'raftload':>18}{'h2load':>18}{'grpcio':>18}{'/h2load':>10}{'/grpcio':>10}")
    with LocalCluster(1) as cluster, tempfile.TemporaryDirectory() as folder:
        endpoint = cluster.endpoints[0]
        # What a run reads has a value of this size too.
        client = EtcdClient([endpoint])
        client.put(peers.KEY, peers.VALUE)
        client.close()
        for f in args.types.split(","):
            costs: dict[str, list[peers.Cost]] = {name: [] for name in clients}
            for _ in range(args.rounds):
                for name, client in clients.items():
                    extra = {"folder": folder} if name == "raftload" else {}
                    costs[name].append(client(endpoint, f, args.operations, connections, streams, **extra))
            cells = []
            for rows in costs.values():
                cpu = statistics.median(row.cpu_us for row in rows)
                rate = statistics.median(row.ops_s for row in rows)
                cells.append(f"{cpu:>7.1f} us {rate:>6,.0f}/s")
            ours = [row.cpu_us for row in costs["raftload"]]
            ratios = [
                statistics.median(a / b.cpu_us for a, b in zip(ours, costs[name], strict=True))
                for name in ("h2load", "grpcio")
            ]
            print(f"{f:6}" + "".join(f"{cell:>18}" for cell in cells) + "".join(f"{r:>10.2f}" for r in ratios))


if __name__ == "__main__":
    main()
