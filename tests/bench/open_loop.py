"""An open loop's start lag beside that of a bare timer: whether the generator is later than the machine.

    python -m tests.bench.open_loop [--rates 2000,5000,20000] [--seconds 10] [--rounds 3] [--engine auto]

By turns, at each rate: a run of GETs by one worker, and the same loop of the same timer without users, requests or
answers (`loadgen.load.open_loop` by itself). Both have half of the processors, the etcd member the other. Counts must
be exact: each operation that is due is sent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from time import perf_counter_ns

from loadgen.stats import hdr
from loadgen.stats.precision import bucket_ns
from tests.bench import peers


class Nobody:
    """Users that are always idle, and note how late they are handed an operation."""

    active = 0

    def __init__(self) -> None:
        self.lags: dict[int, int] = {}

    def hand(self, _: int, due_ns: int) -> bool:
        """Note how late it is."""
        lag = bucket_ns(max(0, perf_counter_ns() - due_ns))
        self.lags[lag] = self.lags.get(lag, 0) + 1
        return True

    def close(self) -> None:
        """Do nothing."""


def bare(rate: float, seconds: float) -> None:
    """Print the p99 of a bare loop's lateness, in milliseconds."""
    import gevent

    from loadgen.load.open_loop import OpenLoop
    from loadgen.load.settings import Settings
    from loadgen.load.workload import timetable

    nobody, ended = Nobody(), gevent.event.Event()
    dues = timetable(Settings(rate=rate, duration_s=seconds, prefix=b"abcd/"), 0, 1, perf_counter_ns() + 10**8)
    OpenLoop(dues, limit=1, begin=lambda: None, start_user=lambda _: None, end=ended.set, hands=nobody)
    ended.wait()
    print(json.dumps(hdr.percentiles(nobody.lags, (0.99,))[0] / 1e6))


def run(
    endpoint: str, rate: float, seconds: float, engine: str, environment: Mapping[str, str] | None = None
) -> tuple[float, float]:
    """Return the p99 of a run's start lag in milliseconds, and CPU an operation in microseconds.

    Takes what else its environment is to have, such as how to speak TLS.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = peers.result_of(
            endpoint, "get", "--rate", str(rate), "--duration", f"{seconds}s", "--workers", "1", "--engine", engine,
            folder=folder, environment=environment,
        )  # fmt: skip
    generator, total = result["generator"], result["results"]["total"]
    assert generator["scheduled"] == round(rate * seconds), generator
    assert (generator["dropped"], total["succeeded"]) == (0, generator["scheduled"]), (generator, total)
    return generator["start_lag_p99_ms"], generator["cpu_us_per_op"]


def main() -> None:
    """Measure in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="2000,5000,20000")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--bare", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        bare(args.bare, args.seconds)
        return
    with peers.etcd_apart() as endpoint:
        for rate in map(float, args.rates.split(",")):
            pairs = []
            for _ in range(args.rounds):
                alone = subprocess.run(
                    [sys.executable, "-m", "tests.bench.open_loop", "--bare", str(rate),
                     "--seconds", str(args.seconds)],
                    stdout=subprocess.PIPE, check=True, cwd=peers.ROOT,
                )  # fmt: skip
                pairs.append((*run(endpoint, rate, args.seconds, args.engine), json.loads(alone.stdout)))
            lag, cpu, bare_ms = (statistics.median(each) for each in zip(*pairs, strict=True))
            print(
                f"{rate:,.0f}/s: all {rate * args.seconds:,.0f} sent in each of {args.rounds} rounds; start lag p99"
                f" {lag:.3f} ms, a bare timer's {bare_ms:.3f} ms; {cpu:.1f} us of CPU an operation (medians)",
                flush=True,
            )


if __name__ == "__main__":
    main()
