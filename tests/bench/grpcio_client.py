"""grpcio's side of a measurement: `python -m tests.bench.grpcio_client ENDPOINT F OPERATIONS CONNECTIONS STREAMS`.

Prints the CPU seconds (user and system) between the first and the last operation, operations per second, and the
median and p99 of the latency in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import grpc

from loadgen.proto import etcd_pb2 as pb
from tests.bench.peers import MESSAGES

TYPES = {
    "get": (pb.RangeRequest, pb.RangeResponse),
    "put": (pb.PutRequest, pb.PutResponse),
    "txn": (pb.TxnRequest, pb.TxnResponse),
}


def report(cpu_s: float, seconds: float, latencies: list[float]) -> None:
    """Print what a client's operations came to, with latencies in seconds, as one line of JSON."""
    latencies.sort()
    p50, p99 = (latencies[int(share * (len(latencies) - 1))] * 1e3 for share in (0.5, 0.99))
    print(json.dumps({"cpu_s": cpu_s, "ops_s": len(latencies) / seconds, "p50_ms": p50, "p99_ms": p99}))


async def main(endpoint: str, f: str, operations: int, connections: int, streams: int) -> None:
    path, message = MESSAGES[f]
    request_type, response_type = TYPES[f]
    address = endpoint.removeprefix("http://")
    channels = [
        grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(connections)
    ]
    calls = [
        channel.unary_unary(path.decode(), request_type.SerializeToString, response_type.FromString)
        for channel in channels
    ]
    left = operations
    latencies: list[float] = []

    async def user(number: int) -> None:
        nonlocal left
        call = calls[number % connections]
        while left > 0:
            left -= 1
            called = time.perf_counter()
            await call(request_type.FromString(message), timeout=5)
            latencies.append(time.perf_counter() - called)

    for call in calls:
        await call(request_type.FromString(message))
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(user(number) for number in range(connections * streams)))
    report(time.process_time() - cpu, time.perf_counter() - began, latencies)
    for channel in channels:
        await channel.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))
