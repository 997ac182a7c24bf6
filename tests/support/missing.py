"""Parts of the machine that tests need and that may be missing, with the reason for a skip."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.local import seccomp
from loadgen.engine import built

# The Engine that the environment names; most tests run with one that does not exist.
ENGINE = {name: value for name, value in os.environ.items() if name == "DOCKER_HOST"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@functools.cache
def no_docker() -> str:
    """Return why there is no Docker Engine to test with, nothing where there is one."""
    if shutil.which("docker") is None and not Path("/var/run/docker.sock").exists():
        return "no Docker: neither `docker` on PATH nor /var/run/docker.sock"
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        env = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"} | ENGINE
        done = subprocess.run(command, env=env, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"no Docker Engine answers: {exc}"
    return "" if done.returncode == 0 else "no Docker Engine answers: " + done.stderr.decode().strip()[-200:]


@functools.cache
def no_browser() -> str:
    """Return why there is no browser to test with, nothing where there is one."""
    return "" if any(map(shutil.which, BROWSERS)) else "no Chromium on PATH"


@functools.cache
def no_prometheus() -> str:
    """Return why there is no Prometheus to test with, nothing where there is one."""
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    return f"no {' and no '.join(missing)} on PATH (Debian's prometheus)" if missing else ""


# A test imports the core itself, not its file: pytest reads each file before it asks what is missing.
PROBES: dict[str, Callable[[], str]] = {
    "docker": no_docker, "browser": no_browser, "core": built.missing, "prometheus": no_prometheus,
    "strikes": seccomp.why_not,
}  # fmt: skip


def require(name: str, reason: str) -> None:
    """Skips the test for a reason; fails it where ``RAFTLOAD_REQUIRE_<NAME>=1`` says that nothing may be missing."""
    if os.environ.get(f"RAFTLOAD_REQUIRE_{name.upper()}") == "1":
        pytest.fail(f"RAFTLOAD_REQUIRE_{name.upper()}=1, but {reason}", pytrace=False)
    pytest.skip(reason)
