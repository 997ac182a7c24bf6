"""Write this folder's CSV files: real Locust, invented response times.

    PYTHONPATH=. python tests/data/report/make_csv.py

`precise` and `failing` are as our engine has them (microseconds, failures without a time), `plain` is Locust
as it comes. The run.json files beside them are written by hand to match.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def main(kind: str) -> None:
    """Write one folder; Locust's precision is a matter of the process, so each kind has one of its own."""
    import gevent
    from locust import stats
    from locust.env import Environment

    from loadgen.load.locust_internals import install_microseconds

    if kind != "plain":
        install_microseconds()
    environment = Environment()
    environment.create_local_runner()
    rng = random.Random(7)

    def fire(type_: str, name: str, ms: float | None, error: Any = None) -> None:
        environment.events.request.fire(
            request_type=type_, name=name, response_time=ms, response_length=64, exception=error, context={}
        )

    def slower(base: float, rate: float) -> float:
        return base * (1 + rng.expovariate(rate))

    if kind == "precise":
        for name, count, base in (("put", 334, 0.9), ("get", 333, 0.31), ("txn", 333, 1.1)):
            for number in range(count):
                if name == "put" and number % 111 == 5:
                    fire("etcd", name, None, "DEADLINE_EXCEEDED")
                elif name == "txn" and number == 9:
                    fire("etcd", name, None, "UNAVAILABLE")
                else:
                    fire("etcd", name, slower(base, 1.5) + (40 if number == 200 else 0))
    elif kind == "failing":
        for _ in range(20):
            fire("etcd", "put", None, "connection refused")
    else:
        reset = ConnectionResetError(104, "Connection reset by peer")
        for _ in range(200):
            fire("GET", "/v1.2/items", slower(12, 1))
        for number in range(50):
            fire("POST", "/v1.2/items", slower(30, 1), None if number % 10 else reset)
        for _ in range(5):
            fire("GET", 'say "hi", all', 0.4)
    (HERE / kind).mkdir(exist_ok=True)
    writer = stats.StatsCSVFileWriter(environment, stats.PERCENTILES_TO_REPORT, str(HERE / kind / "locust"))
    greenlet = gevent.spawn(writer)
    gevent.sleep(0.2)
    greenlet.kill()
    writer.close_files()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        import subprocess

        for folder in ("precise", "failing", "plain"):
            subprocess.run([sys.executable, __file__, folder], check=True)
