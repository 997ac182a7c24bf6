"""A process that has imported raftload and forks itself for each command: many commands pay for their imports once.

    python -m tests.support.fork_server KIND SOCKET

It is started by `tests.support.forked`, whose requests come over the socket with that file descriptor. Each is a JSON
object, and with it come the descriptors of the command's stdout and stderr and of a pipe, into which go the command's
pid, when it is there, and its wait status, when it has ended. Where the request says so, the command is killed when
nobody can read that any more. The server ends when its socket is closed, or when whoever started it has ended: then
the commands that still run are told to end as well.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import tempfile
import time

# Taken before gevent patches them: the server itself waits without an event loop.
from os import close, dup2, fork, waitpid, write
from select import POLLIN, poll
from socket import recv_fds, socket
from typing import Any

Request = dict[str, Any]
# What is imported before the first command, by the kind of command. Both kinds import more when they run.
PRELOADED = {
    "plain": (
        "loadgen.cli.main", "loadgen.cli.gate", "loadgen.cli.report", "loadgen.cli.check", "loadgen.cli.terminal",
        "loadgen.result.table", "cluster.cli.commands", "cluster.cli.test",
        "cluster.cli.releases", "cluster.lifecycle.up", "cluster.local.cluster", "cluster.observe.status",
        "viz.cli.command", "jsonschema",
    ),
    "load": (
        "loadgen.cli.main", "loadgen.cli.bench", "loadgen.cli.chaos", "loadgen.cli.web", "loadgen.run.run",
        "loadgen.run.session", "loadgen.result.table", "cluster.cli.commands", "cluster.lifecycle.up",
        "cluster.local.cluster", "cluster.observe.observer", "locustfiles.kv",
    ),
}  # fmt: skip


def main(kind: str, descriptor: int) -> None:
    """Serve requests until there are no more. Takes the kind of commands and the descriptor of the socket."""
    server = socket(fileno=descriptor)
    if kind == "load":
        import gevent

        from loadgen.load import patching

        patching.patch()
        patching.import_locust()
    for name in PRELOADED[kind]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    request = _serve(server)
    if request is None:
        return
    if kind == "load":
        # urllib3's import makes a socket, and that an event loop.
        gevent.reinit()
    _become(request)


def _serve(server: socket) -> Request | None:
    """Fork for each request; returns the request in each child, and None at the end."""
    events = poll()
    events.register(server, POLLIN)
    # The socket alone does not tell that the tests have been killed: commands may have inherited its other end.
    owner = os.pidfd_open(os.getppid())
    events.register(owner, POLLIN)
    running: dict[int, tuple[int, int]] = {}
    asked_by: dict[int, int] = {}
    while True:
        for ready, _ in events.poll():
            if ready in running:
                pid, report = running.pop(ready)
                _tell(report, waitpid(pid, 0)[1])
                events.unregister(ready)
                close(ready)
                if asked_by.pop(report, None):
                    events.unregister(report)
                close(report)
                continue
            if ready == owner:
                for pid, _ in running.values():
                    os.killpg(pid, signal.SIGTERM)
                return None
            if ready in asked_by:
                os.killpg(asked_by.pop(ready), signal.SIGKILL)
                events.unregister(ready)
                continue
            if ready != server.fileno():  # a report, of what has just ended
                continue
            message, descriptors, _, _ = recv_fds(server, 1 << 20, 3)
            if not message:
                return None
            out, err, report = descriptors
            request: Request = json.loads(message)
            pid = fork()
            if pid == 0:
                os.setpgid(0, 0)
                dup2(out, 1)
                dup2(err, 2)
                for each in (*descriptors, owner, *running, *(ended for _, ended in running.values())):
                    close(each)
                server.close()
                return request
            # Before its pid is known, so that a signal to the group finds it: the child may not have come so far yet.
            os.setpgid(pid, pid)
            close(out)
            close(err)
            _tell(report, pid)
            watch = os.pidfd_open(pid)
            running[watch] = (pid, report)
            events.register(watch, POLLIN)
            if request["with_us"]:
                asked_by[report] = pid
                events.register(report, 0)  # an error, where nobody reads it


def _tell(report: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # its test has ended
        write(report, f"{number}\n".encode())


def _become(request: Request) -> None:
    """Make this process what `python -m MODULE WORDS` in that folder with that environment would be, and run it."""
    module, folder, words, environment = (request[name] for name in ("module", "cwd", "words", "env"))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    tempfile.tempdir = None
    sys.path[0] = folder
    sys.argv = [module, *words]
    sys.orig_argv = [sys.executable, "-m", module, *words]
    sys.modules.pop(module, None)  # runpy warns of a module that it runs and that is there already
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
