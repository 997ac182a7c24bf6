"""Two clients of etcd's JSON gateway: `python -m tests.bench.gateway_clients NAME ENDPOINT F OPERATIONS USERS`.

NAME is ``geventhttpclient`` or ``etcd3-py``; each user is a greenlet with a connection of its own, as HTTP/1.1 wants
it. Prints what ``grpcio_client`` prints. etcd3-py is taken as it is, without what ``cluster.gateway.control`` mends.
"""

# ruff: noqa: E402  (patched before anything else is imported)

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import base64
import json
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import gevent
import geventhttpclient

from tests.bench.grpcio_client import report
from tests.bench.peers import KEY, VALUE

NAME, TEXT = base64.b64encode(KEY).decode(), base64.b64encode(VALUE).decode()
READ, WRITE = {"key": NAME}, {"key": NAME, "value": TEXT}
GUARD = {"target": "MOD", "key": NAME, "mod_revision": "0"}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "get": ("/v3/kv/range", READ),
    "put": ("/v3/kv/put", WRITE),
    "txn": (
        "/v3/kv/txn",
        {"compare": [GUARD], "success": [{"request_put": WRITE}], "failure": [{"request_range": READ}]},
    ),
}


def with_geventhttpclient(endpoint: str, f: str, users: int) -> Callable[[int], None]:
    """Return what does one operation of a user."""
    path, body = REQUESTS[f]
    client = geventhttpclient.HTTPClient.from_url(endpoint, concurrency=users)

    def operate(_user: int) -> None:
        answer = client.post(path, json.dumps(body), headers={"Content-Type": "application/json"})
        if answer.status_code != 200 or "header" not in json.loads(answer.read()):
            raise RuntimeError(f"{path} answered {answer.status_code}")

    return operate


def with_etcd3(endpoint: str, f: str, users: int) -> Callable[[int], None]:
    """Return what does one operation of a user."""
    import etcd3

    where = urlsplit(endpoint)
    clients = [etcd3.Client(where.hostname, where.port, timeout=5) for _ in range(users)]

    def operate(user: int) -> None:
        client = clients[user]
        if f == "get":
            client.range(KEY)
        elif f == "put":
            client.put(KEY, VALUE)
        else:
            txn = client.Txn()
            txn.compare(txn.key(KEY).mod == 0)
            txn.success(txn.put(KEY, VALUE))
            txn.failure(txn.range(KEY))
            txn.commit()

    return operate


CLIENTS = {"geventhttpclient": with_geventhttpclient, "etcd3-py": with_etcd3}


def main(name: str, endpoint: str, f: str, operations: int, users: int) -> None:
    operate = CLIENTS[name](endpoint, f, users)
    left = operations
    latencies: list[float] = []

    def user(number: int) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            called = time.perf_counter()
            operate(number)
            latencies.append(time.perf_counter() - called)

    for number in range(users):
        operate(number)  # connects
    cpu, began = time.process_time(), time.perf_counter()
    gevent.joinall([gevent.spawn(user, number) for number in range(users)], raise_error=True)
    report(time.process_time() - cpu, time.perf_counter() - began, latencies)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:6]))
