"""A server that answers a GET after a known delay, and writes down when each came and was answered.

    python -m tests.support.delayed ETCD_HOST:PORT DELAY_US FILE

It prints its port. A GET of one key is answered, without asking anybody, after the delay, and 3 in 100 after twice the
delay; all else goes to the etcd behind it. On SIGTERM it writes to the file what it was asked for: a JSON list of
(key, arrived, answered), times in nanoseconds of the monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from pathlib import Path

SLOW_SHARE = 0.03
PATH = "/etcdserverpb.KV/Range"


def serve(behind: str, delay_s: float, record: Path) -> None:
    import grpc

    from loadgen.proto import etcd_pb2 as pb

    rng = random.Random(1)
    held: list[tuple[str, int, int]] = []
    answer = pb.RangeResponse(header=pb.ResponseHeader(revision=1)).SerializeToString()

    async def main() -> None:
        channel = grpc.aio.insecure_channel(behind)

        class Handler(grpc.GenericRpcHandler):
            def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
                forward = channel.unary_unary(details.method)

                async def handle(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
                    arrived = time.perf_counter_ns()
                    if details.method == PATH and not (asked := pb.RangeRequest.FromString(request)).range_end:
                        await asyncio.sleep(delay_s * (2 if rng.random() < SLOW_SHARE else 1))
                        held.append((asked.key.decode("latin-1"), arrived, time.perf_counter_ns()))
                        return answer
                    try:
                        return await forward(request)
                    except grpc.aio.AioRpcError as error:
                        await context.abort(error.code(), error.details())
                        raise

                return grpc.unary_unary_rpc_method_handler(handle)

        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Handler(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        print(port, flush=True)
        await ended.wait()
        record.write_text(json.dumps(held))
        await server.stop(None)

    asyncio.run(main())


if __name__ == "__main__":
    serve(sys.argv[1], float(sys.argv[2]) / 1e6, Path(sys.argv[3]))
