"""The client's cost of a GET: CPU (user + system) of its process, us per operation, ours against grpcio and h2load.

    python -m tests.bench.client [--operations N] [--rounds N] [--connections N] [--endpoint HOST:PORT]

All three ask the same etcd for the same key, linearizably, with 100 requests in flight on the same number of
connections; they take turns within a round, so that what else the machine does meets all of them, and the ratio is
taken within the round. Start-up (connecting, a tenth of the operations) is not counted for the two in Python; for
h2load it is, and does not show. etcd is pinned to one half of the processors and the clients to the other.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from tests.bench.peers import KEY, ROOT, etcd_apart, halves

IN_FLIGHT = 100


def cpu_s(who: int = resource.RUSAGE_SELF) -> float:
    """Seconds of processor time, user and system."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def ours(endpoint: str, operations: int, connections: int) -> dict[str, float]:
    """Our client, nothing around it: 100 greenlets that call one after the other."""
    import gevent

    from cluster.base.security import Security
    from loadgen.client.etcd import EtcdClient

    client = EtcdClient([endpoint], connections=connections, security=Security.from_environment())
    left = 0

    def user() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            if client.get(KEY).error:
                raise RuntimeError("a GET failed")

    def run(count: int) -> None:
        nonlocal left
        left = count
        gevent.joinall([gevent.spawn(user) for _ in range(IN_FLIGHT)], raise_error=True)

    result = measured(run, operations)
    client.close()
    return result


def grpcio(endpoint: str, operations: int, connections: int) -> dict[str, float]:
    """grpcio's asyncio client, the cheaper one of its two: 100 tasks that call one after the other."""
    import asyncio

    import grpc.aio

    from loadgen.proto import etcd_pb2 as pb

    async def main() -> dict[str, float]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(endpoint, options=options) for _ in range(connections)]
        methods = [
            each.unary_unary(
                "/etcdserverpb.KV/Range",
                request_serializer=pb.RangeRequest.SerializeToString,
                response_deserializer=pb.RangeResponse.FromString,
            )
            for each in channels
        ]
        left = 0

        async def user(n: int) -> None:
            nonlocal left
            method = methods[n % connections]
            while left > 0:
                left -= 1
                await method(pb.RangeRequest(key=KEY), timeout=5.0)

        async def run(count: int) -> None:
            nonlocal left
            left = count
            await asyncio.gather(*(user(n) for n in range(IN_FLIGHT)))

        await run(operations // 10)
        began, used = time.perf_counter(), cpu_s()
        await run(operations)
        result = {"us": (cpu_s() - used) / operations * 1e6, "ops_s": operations / (time.perf_counter() - began)}
        for each in channels:
            await each.close()
        return result

    return asyncio.run(main())


def h2load(endpoint: str, operations: int, connections: int, rate: float | None = None) -> dict[str, float]:
    """nghttp2's load generator, in C: the floor. It sends one constant request and looks at no answer.

    Takes requests a second of each connection, None for as many as it can. An endpoint without a scheme is plain.
    """
    url = endpoint if "://" in endpoint else f"http://{endpoint}"
    from loadgen.client import encode
    from loadgen.wire.grpc import PREFIX

    message = encode.get(KEY)
    with tempfile.NamedTemporaryFile() as body:
        body.write(PREFIX.pack(0, len(message)) + message)
        body.flush()
        began, used = time.perf_counter(), cpu_s(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            ["h2load", "-n", str(operations), "-c", str(connections), "-m", str(IN_FLIGHT // connections),
             "-d", body.name, "-H", "content-type: application/grpc", "-H", "te: trailers",
             *([] if rate is None else [f"--rps={rate}"]), f"{url}/etcdserverpb.KV/Range"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        if f"{operations} succeeded" not in done.stdout:
            raise RuntimeError(done.stdout)
        used = cpu_s(resource.RUSAGE_CHILDREN) - used
    return {"us": used / operations * 1e6, "ops_s": operations / (time.perf_counter() - began)}


def measured(run: Callable[[int], None], operations: int) -> dict[str, float]:
    """Run a tenth to warm up, then all, and return the cost of the latter."""
    run(operations // 10)
    began, used = time.perf_counter(), cpu_s()
    run(operations)
    return {"us": (cpu_s() - used) / operations * 1e6, "ops_s": operations / (time.perf_counter() - began)}


CLIENTS = {"raftload": ours, "grpcio": grpcio, "h2load": h2load}
# grpcio is slow enough to be measured with fewer.
SHARE = {"raftload": 1, "grpcio": 5, "h2load": 1}


def in_a_process(name: str, endpoint: str, operations: int, connections: int, cpus: set[int]) -> dict[str, float]:
    """Measures one client in a process of its own, on these processors."""
    done = subprocess.run(
        [sys.executable, __file__, "--client", name, "--endpoint", endpoint,
         "--operations", str(operations // SHARE[name]), "--connections", str(connections)],
        check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: os.sched_setaffinity(0, cpus),
    )  # fmt: skip
    result: dict[str, float] = json.loads(done.stdout)
    return result


def compare(endpoint: str, operations: int, rounds: int, connections: int, cpus: set[int]) -> None:
    """Measures all in turns and prints the table."""
    names = [name for name in CLIENTS if name != "h2load" or shutil.which("h2load")]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            results[name].append(in_a_process(name, endpoint, operations, connections, cpus))
    print(f"GET, {connections} connections x {IN_FLIGHT // connections} streams, {rounds} rounds in turns, medians")
    print(f"{'client':<10} {'us CPU/op':>10} {'least':>8} {'most':>8} {'ops/s':>9} {'raftload / it':>14}")
    mine = [each["us"] for each in results["raftload"]]
    for name in names:
        us = [each["us"] for each in results[name]]
        ratio = statistics.median(a / b for a, b in zip(mine, us, strict=True))
        rate = statistics.median(each["ops_s"] for each in results[name])
        print(f"{name:<10} {statistics.median(us):>10.2f} {min(us):>8.2f} {max(us):>8.2f} {rate:>9.0f} {ratio:>14.2f}")
    if "h2load" not in names:
        print("h2load is not installed (Debian: nghttp2-client)", file=sys.stderr)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--endpoint", help="default: an etcd of its own")
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        print(json.dumps(CLIENTS[args.client](args.endpoint, args.operations, args.connections)))
        return
    _, clients = halves()
    if args.endpoint:
        compare(args.endpoint, args.operations, args.rounds, args.connections, clients)
        return
    with etcd_apart() as endpoint:
        compare(endpoint.removeprefix("http://"), args.operations, args.rounds, args.connections, clients)


if __name__ == "__main__":
    main()
