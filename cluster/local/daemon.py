"""The process that owns the local cluster which survives its command; ``daemon_client.py`` starts it.

What is said to its stdin: one JSON object that describes the cluster, then "keep" or nothing. What it answers on
stdout: a JSON object each time. An order over its socket is one JSON list a line, the answer one JSON object.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import TypedDict

from cluster.base.errors import ClusterError, RaftloadError
from cluster.base.signals import heard
from cluster.base.topology import DISK_METHODS, Disk
from cluster.local.cluster import LocalCluster, State
from cluster.local.cpu_times import CpuTimes
from cluster.observe.running import Running, forget, save, statuses

SOCKET = "control.sock"
# For an order and its answer; the longest, an orderly end of a member, takes 10 s.
ANSWER_S = 60.0


class Answer(TypedDict, total=False):
    """What came of an order: an error, or what was asked for."""

    error: str
    kind: str
    ok: bool
    path: str
    states: dict[str, State]
    isolated: list[str]
    disturbed: list[str]
    disks: dict[str, Disk]
    cpu_times: dict[str, CpuTimes]


_ORDERS = (
    "kill", "terminate", "start", "pause", "resume", "isolate", "join", "delay", "drop", *DISK_METHODS, "mend_disk",
)  # fmt: skip


@heard()
def serve() -> None:
    """Start the cluster that the first line of stdin describes, and serve it until it is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    order = json.loads(sys.stdin.readline())
    cluster = LocalCluster(**order["cluster"])
    try:
        with _starter_watched():
            cluster.start()
        assert cluster.logs is not None
        control = str(cluster.logs.parent / SOCKET)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(control)
            server.listen(16)
            save(_describe(cluster, control, order["requested_version"], order["source"]))
            _tell({"ok": True})
            _serve(server, cluster)
    except (RaftloadError, ValueError) as exc:
        with contextlib.suppress(OSError):
            _tell({"error": str(exc), "kind": type(exc).__name__})
    finally:
        cluster.stop()


@contextlib.contextmanager
def _starter_watched() -> Iterator[None]:
    """End this process where its starter ends while the members start."""
    started = threading.Event()

    def watch() -> None:
        poll = select.poll()
        poll.register(0, select.POLLHUP)
        while not started.is_set():
            if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(100)):
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        started.set()
        thread.join()


def _tell(answer: Answer) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _describe(cluster: LocalCluster, control: str, requested_version: str | None, source: str) -> Running:
    binary = cluster.binary
    ids = {status.name: status.member_id for status in statuses(cluster.members, security=cluster.security)}
    return Running(
        backend="local", members=cluster.members, member_ids=ids, version=binary.version,
        requested_version=requested_version, image="", source=f"{binary.path} (from {source})",
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), control=control,
        links=cluster.peer_links, etcd_args=cluster.spec.extra_args, access=cluster.access,
        disk_faults="slow_disk" not in cluster.cannot,
    )  # fmt: skip


def _serve(server: socket.socket, cluster: LocalCluster) -> None:
    """Answer orders until "down", or until the starter ends without having said "keep"."""
    kept = False
    while True:
        ready, _, _ = select.select([server] if kept else [server, sys.stdin], [], [])
        if sys.stdin in ready:
            kept = sys.stdin.readline() == "keep\n"
            if not kept:
                forget("local")
                return
            _tell({"ok": True})
            continue
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError, ValueError):
            connection.settimeout(ANSWER_S)
            with connection.makefile("rwb") as lines:
                order, *values = json.loads(lines.readline())
                if order == "down":
                    forget("local")
                    cluster.stop()
                lines.write(json.dumps(_answer(cluster, order, values)).encode() + b"\n")
                lines.flush()
            if order == "down":
                return


def _answer(cluster: LocalCluster, order: str, values: list[str | float]) -> Answer:
    try:
        if order in _ORDERS:
            getattr(cluster, order)(*values)
        elif order == "look":
            return _look(cluster)
        elif order == "cpu-times":
            return {"cpu_times": cluster.cpu_times()}
        elif order == "log":
            return {"path": str(cluster.log(str(*values)))}
        elif order == "hello":
            return {}
        elif order != "down":
            raise ClusterError(f"unknown order {order}")
    except (RaftloadError, KeyError) as exc:
        return {"error": str(exc.args[0]), "kind": type(exc).__name__}
    return {}


def _look(cluster: LocalCluster) -> Answer:
    return {
        "states": cluster.states(),
        "isolated": sorted(cluster.isolated()),
        "disturbed": sorted(cluster.disturbed()),
        "disks": cluster.disks(),
    }
