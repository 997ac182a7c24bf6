"""The user's folder for what outlives a command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def state_dir(env: Mapping[str, str] | None = None) -> Path:
    """Return the user's folder for state: ``$XDG_STATE_HOME/raftload``, else ``~/.local/state/raftload``."""
    env = os.environ if env is None else env
    root = env.get("XDG_STATE_HOME", "")
    return (Path(root) if os.path.isabs(root) else Path("~/.local/state").expanduser()) / "raftload"  # noqa: PTH117
