"""The peers that we measure ourselves against: one function each, CPU per operation and rate out.

Every peer sends the same message the same number of times over as many connections x streams as asked, to one
member, and is charged the user and system time of its whole process less that of a run of a hundredth of
the size, so that start-up does not count.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from cluster.local.cluster import LocalCluster
from loadgen.client import encode
from loadgen.client.etcd import PUT, RANGE, TXN, EtcdClient
from loadgen.wire.grpc import PREFIX

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
KEY = b"bench/" + b"0" * 26
VALUE = b"v" * 64
MESSAGES = {
    "get": (RANGE, encode.get(KEY, False, 0)),
    "put": (PUT, encode.put(KEY, VALUE, 0)),
    "txn": (TXN, encode.cas(KEY, VALUE, 0)),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an operation cost a client: microseconds of CPU; operations per second; latencies in milliseconds, 0 where
    they were not measured.
    """

    cpu_us: float
    ops_s: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0


def halves() -> tuple[set[int], set[int]]:
    """Return the processors of servers and those of clients: half of ours each, both the only one there is."""
    processors = sorted(os.sched_getaffinity(0))
    half = len(processors) // 2
    return set(processors[:half] or processors), set(processors[half:])


@contextlib.contextmanager
def apart(make: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """Start a server on one half of the processors, and yield it; what is started meanwhile has the other half."""
    servers, clients = halves()
    os.sched_setaffinity(0, servers)  # inherited by what starts now
    try:
        with make() as server:
            os.sched_setaffinity(0, clients)
            yield server
    finally:
        os.sched_setaffinity(0, servers | clients)


@contextlib.contextmanager
def etcd_apart(**options: Any) -> Iterator[str]:
    """Start an etcd member of its own whose data lie in memory, apart from its clients; yield its endpoint.

    Takes further options of `LocalCluster`. `KEY` is there, of the size of what a run reads.
    """
    with apart(lambda: LocalCluster(1, storage="memory", **options)) as cluster:
        endpoint = cluster.endpoints[0]
        with contextlib.closing(EtcdClient([endpoint])) as client:
            client.put(KEY, VALUE)
        yield endpoint


def measured(
    command: list[str], cwd: str | None = None, environment: Mapping[str, str] | None = None
) -> tuple[float, str]:
    """Run a command; return its user plus system time in seconds, and its stdout.

    Takes the folder that it runs in, and what else its environment is to have.
    """
    with tempfile.TemporaryFile("w+") as out:
        whole = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, cwd=cwd, env=whole)
        assert process.stderr is not None
        errors = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 3):
            raise RuntimeError(f"{command[0]} failed with {process.returncode}: {errors}")
        out.seek(0)
        return usage.ru_utime + usage.ru_stime, out.read()


def h2load(endpoint: str, f: str, operations: int, connections: int, streams: int, *, latency: bool = False) -> Cost:
    """nghttp2's h2load, in C: a floor, since it neither decodes the answer nor looks at its status.

    Its latencies come from a run of their own, since writing them down costs it CPU.
    """
    idle, _ = _run_h2load(endpoint, f, max(connections, operations // 100), connections, streams)
    cpu, text = _run_h2load(endpoint, f, operations, connections, streams)
    times = [0.0]
    if latency:
        times = h2load_times_ms(endpoint, f, max(connections * streams, operations // 2), connections, streams)
    finished = next(line for line in text.splitlines() if line.startswith("finished in"))
    p50, p99 = (sorted(times)[int(share * (len(times) - 1))] for share in (0.5, 0.99))
    return Cost((cpu - idle) / operations * 1e6, float(finished.split()[3]), p50, p99)


def h2load_times_ms(endpoint: str, f: str, operations: int, connections: int, streams: int) -> list[float]:
    """Return the latency of each of so many requests of h2load's, in milliseconds."""
    with tempfile.NamedTemporaryFile("r") as log:
        _run_h2load(endpoint, f, operations, connections, streams, f"--log-file={log.name}")
        return [int(line.split("\t")[2]) / 1e3 for line in log]


def _run_h2load(endpoint: str, f: str, count: int, connections: int, streams: int, *more: str) -> tuple[float, str]:
    path, message = MESSAGES[f]
    with tempfile.NamedTemporaryFile() as body:
        body.write(PREFIX.pack(0, len(message)) + message)
        body.flush()
        cpu, text = measured(
            ["h2load", *more, "-n", str(count), "-c", str(connections), "-m", str(streams), "-d", body.name,
             "-H", "content-type: application/grpc", "-H", "te: trailers", f"{endpoint}{path.decode()}"]
        )  # fmt: skip
    if f"{count} succeeded" not in text:
        raise RuntimeError(text)
    return cpu, text


def grpcio(endpoint: str, f: str, operations: int, connections: int, streams: int) -> Cost:
    """Google's grpcio with its asyncio API, in a process of its own; it decodes the answer with protobuf."""
    program = [sys.executable, "-m", "tests.bench.grpcio_client", endpoint, f]
    _, text = measured([*program, str(operations), str(connections), str(streams)], cwd=str(ROOT))
    return _said(text, operations)


def go_benchmark(endpoint: str, f: str, operations: int, connections: int, streams: int) -> Cost:
    """etcd's own ``benchmark``, in Go, which ``.ci/etcds --benchmark`` builds and RAFTLOAD_ETCD_BENCHMARK names.

    Its transactions are one put without a comparison, so a little less than ours.
    """
    size = ["--key-size", str(len(KEY)), "--val-size", str(len(VALUE)), "--key-space-size", "1000"]
    asked = {"get": ["range", KEY.decode()], "put": ["put", *size], "txn": ["txn-put", *size]}[f]
    command = [os.environ["RAFTLOAD_ETCD_BENCHMARK"], "--endpoints", endpoint, "--conns", str(connections),
               "--clients", str(connections * streams), *asked, "--total"]  # fmt: skip
    idle, _ = measured([*command, str(max(connections * streams, operations // 100))])
    cpu, text = measured([*command, str(operations)])
    found = {name: float(value) for name, value in re.findall(r"(Requests/sec|50%|99%)[:\s in]+([0-9.]+)", text)}
    return Cost(
        (cpu - idle) / operations * 1e6, found["Requests/sec"], found["50%"] * 1e3, found["99%"] * 1e3
    )  # fmt: skip


def gateway(name: str, endpoint: str, f: str, operations: int, users: int) -> Cost:
    """Return a client of the JSON gateway, see ``gateway_clients``."""
    program = [sys.executable, "-m", "tests.bench.gateway_clients", name, endpoint, f]
    _, text = measured([*program, str(operations), str(users)], cwd=str(ROOT))
    return _said(text, operations)


def _said(text: str, operations: int) -> Cost:
    answer = json.loads(text)
    return Cost(answer["cpu_s"] / operations * 1e6, answer["ops_s"], answer["p50_ms"], answer["p99_ms"])


def raftload(endpoint: str, f: str, operations: int, connections: int, streams: int, *more: str, folder: str) -> Cost:
    """Us, as users run us: one worker of `raftload bench` unless ``more`` of its options say otherwise, everything that
    Locust does included.

    The CPU is the worker's own from its first measured operation to its last, as the result reports it.
    """
    result = result_of(
        endpoint, f, "--operations", str(operations), "--concurrency", str(connections * streams), "--workers", "1",
        "--connections", str(connections), "--key-space", "1000", *more, folder=folder,
    )  # fmt: skip
    total = result["results"]["total"]
    if total["failed"]:
        raise RuntimeError(f"{total['failed']} operations failed: {total['errors']}")
    latency = total["latency"]
    return Cost(result["generator"]["cpu_us_per_op"], total["throughput_ops_s"], latency["p50_ms"], latency["p99_ms"])


def result_of(
    endpoint: str, scenario: str, *options: str, folder: str, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the result of `raftload bench`; take what else its environment is to have, such as how to speak TLS."""
    _, text = measured(
        [sys.executable, "-m", "loadgen.cli", "bench", "--scenario", scenario, "--endpoints", endpoint,
         "--output", str(Path(folder, f"{scenario}-{os.urandom(4).hex()}")), "--json", *options],
        environment=environment,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(text)
    return result
