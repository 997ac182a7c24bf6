"""The terminal of the person who runs a command: messages on stderr, documents on stdout."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from cluster.base.files import to_json


def say(line: str) -> None:
    """Tell the person at the terminal, on stderr."""
    print(f"raftload: {line}", file=sys.stderr, flush=True)


def print_json(document: Mapping[str, Any]) -> None:
    """Print the one document of a command with ``--json``, on stdout."""
    sys.stdout.write(to_json(document))
