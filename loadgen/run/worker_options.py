"""The workers of a run as the command line gives them: processes here, and workers of other machines."""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from cluster.base.endpoint import Endpoint
from cluster.base.units import parse_duration, parse_whole
from loadgen.load.settings import SettingsError, read

# Locust's own port for workers.
DEFAULT_PORT = 5557
DEFAULT_WORKERS = 2


@dataclasses.dataclass(frozen=True)
class WorkerOptions:
    """Who is to work in a run.

    Attributes:
        local: worker processes to start on this machine.
        expected: workers of other machines to wait for, ``wait_s`` seconds at the most.
        bind: the address and port at which they find the master; port 0 is any that is free.
    """

    local: int = DEFAULT_WORKERS
    expected: int = 0
    bind: tuple[str, int] = ("127.0.0.1", 0)
    wait_s: float = 60.0

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> WorkerOptions:
        """Read the options that `add_arguments` adds. Raises SettingsError."""
        expected = read("expect-workers", args.expect_workers, parse_whole, 0, 10_000)
        if args.bind is not None and not expected:
            raise SettingsError(
                "--bind is for workers of other machines: give --expect-workers, too",
                option="--bind", others=["--expect-workers"],
            )  # fmt: skip
        local = (
            read("workers", args.workers, parse_whole, 0 if expected else 1, 1000) if args.workers is not None else None
        )
        wait_s = read("worker-wait", args.worker_wait, parse_duration, 1)
        host, port = _address(args.bind or f"127.0.0.1:{DEFAULT_PORT if expected else 0}")
        if local is None:
            local = 0 if expected else DEFAULT_WORKERS
        return cls(local, expected, (host, port), wait_s)

    def check_target(self, endpoints: Sequence[str]) -> None:
        """Raise SettingsError where workers of other machines could not reach the cluster.

        Takes its endpoints, none for a cluster of the run's own.
        """
        if not self.expected or is_loopback(self.bind[0]):
            return
        if not endpoints:
            raise SettingsError(
                "a cluster for this run listens on this machine only: give --endpoints that other machines can reach",
                option="--endpoints",
            )
        for endpoint in endpoints:
            at = Endpoint.parse(endpoint)
            if at.path or is_loopback(at.host):
                raise SettingsError(
                    f"endpoint {endpoint} is another host on each machine: give an address that all machines can reach",
                    option="--endpoints",
                )

    @property
    def total(self) -> int:
        """All workers."""
        return self.local + self.expected

    def describe(self) -> str:
        """Return it in words."""
        there = f"{self.expected} from other machines at {self.bind[0]}:{self.bind[1]}"
        if not self.expected:
            return f"{self.local} worker processes"
        return f"{self.local} worker processes and {there}" if self.local else f"workers, {there}"


def add_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the options that say who works."""
    parser.add_argument(
        "--workers", metavar="N",
        help=f"worker processes to start on this machine (default: {DEFAULT_WORKERS}; 0 with --expect-workers)",
    )  # fmt: skip
    parser.add_argument(
        "--expect-workers", default="0", metavar="N",
        help="number of workers of other machines to wait for; start each with `raftload worker` (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--bind", metavar="ADDRESS[:PORT]",
        help=f"address at which the workers of other machines find this master (default: 127.0.0.1:{DEFAULT_PORT}); "
        "whoever reaches it can join, so open it to trusted machines only",
    )  # fmt: skip
    parser.add_argument(
        "--worker-wait", default="60s", metavar="DURATION",
        help="how long to wait for the workers of other machines (default: 60s)",
    )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address means the machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address(text: str) -> tuple[str, int]:
    """Return the parts of ``host``, ``host:port`` or ``[v6]:port``."""
    try:
        parts = urlsplit(f"//{text}")
        if not parts.hostname or parts.path or parts.username is not None:
            raise ValueError("no host")
        return parts.hostname, DEFAULT_PORT if parts.port is None else parts.port
    except ValueError as error:
        said = f"--bind: {text!r} is not ADDRESS[:PORT], such as 0.0.0.0:{DEFAULT_PORT}"
        raise SettingsError(said, option="--bind") from error
