"""Whether the compiled core is there, and why not."""

from __future__ import annotations

import importlib
from functools import cache

NOT_BUILT = "the compiled core was not built: that takes a C compiler and Python's headers when raftload is installed"


@cache
def missing() -> str:
    """Return why there is no compiled core, empty where there is one."""
    try:
        importlib.import_module("loadgen.engine.core")
    except ImportError as error:
        built = getattr(error, "name", None) != "loadgen.engine.core"
        return f"the compiled core cannot be loaded: {error}" if built else NOT_BUILT
    return ""


def described() -> str:
    """Return the engine that ``--engine auto`` takes where the load allows both, and why it is Python's."""
    return f"python ({reason})" if (reason := missing()) else "compiled"
