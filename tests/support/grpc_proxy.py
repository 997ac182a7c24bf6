"""`etcd grpc-proxy` in front of a cluster: one endpoint that shares watches, renews leases itself and caches reads."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Sequence

from tests.support.ports import take_ports
from tests.support.waiting import until


@contextlib.contextmanager
def grpc_proxy(etcd: str, endpoints: Sequence[str]) -> Iterator[str]:
    """Yield the endpoint of a proxy. Takes the etcd that it is a command of, and the members behind it."""
    port = take_ports(1)
    # What it advertises it calls itself, and ends after 5 s where that does not answer.
    own = [f"--listen-addr=127.0.0.1:{port}", f"--advertise-client-url=127.0.0.1:{port}"]
    words = [etcd, "grpc-proxy", "start", f"--endpoints={','.join(endpoints)}", *own]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _listens(port) or process.poll() is not None, "the proxy")
            assert process.poll() is None, f"the proxy ended with {process.returncode}"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
