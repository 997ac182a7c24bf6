"""Names of one's own for a command: a mount namespace in which /etc/hosts is another file (Linux)."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

# A name that the file has not is asked of nobody: the machine's name server may be slow, and differs between machines.
_BOUND = """
mount --bind "$0" /etc/hosts && { [ ! -e /etc/resolv.conf ] || mount --bind /dev/null /etc/resolv.conf; } && exec "$@"
"""


def with_hosts(file: Path) -> tuple[str, ...]:
    """Return what stands before a command that shall see a file as /etc/hosts."""
    # Who is not root becomes it in a user namespace.
    unshare = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-rm")
    return (*unshare, "sh", "-c", _BOUND, str(file))


@functools.cache
def no_hosts() -> str:
    """Return why a command cannot have names of its own here; nothing where it can."""
    try:
        done = subprocess.run([*with_hosts(Path("/dev/null")), "true"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"no mount namespace: {exc}"
    return "" if done.returncode == 0 else f"no mount namespace: {done.stderr.decode().strip()[-200:]}"
